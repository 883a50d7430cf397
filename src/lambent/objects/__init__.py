"""The object store in the box: what is behind the S3 API, and where the code of functions may come from."""

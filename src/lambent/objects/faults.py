"""S3's refusals, in S3's words."""

from __future__ import annotations

from lambent.errors import ClientFault


def no_such_bucket(bucket: str) -> ClientFault:
    return ClientFault("NoSuchBucket", 404, "The specified bucket does not exist", {"BucketName": bucket})


def no_such_key(key: str) -> ClientFault:
    return ClientFault("NoSuchKey", 404, "The specified key does not exist.", {"Key": key})


def no_such_version(key: str, version: str) -> ClientFault:
    return ClientFault("NoSuchVersion", 404, "The specified version does not exist.", {"Key": key, "VersionId": version})


def no_such_upload(upload: str) -> ClientFault:
    text = "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."
    return ClientFault("NoSuchUpload", 404, text, {"UploadId": upload})


def access_denied() -> ClientFault:
    return ClientFault("AccessDenied", 403, "Access Denied")


def precondition_failed(condition: str) -> ClientFault:
    return ClientFault("PreconditionFailed", 412, "At least one of the pre-conditions you specified did not hold", {"Condition": condition})


def invalid_argument(name: str, value: object, text: str = "Invalid Argument") -> ClientFault:
    return ClientFault("InvalidArgument", 400, text, {"ArgumentName": name, "ArgumentValue": value})


def invalid_request(text: str) -> ClientFault:
    return ClientFault("InvalidRequest", 400, text)


def entity_too_large(most: int) -> ClientFault:
    text = "Your proposed upload exceeds the maximum allowed size"
    return ClientFault("EntityTooLarge", 400, text, {"MaxSizeAllowed": most})

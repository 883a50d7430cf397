"""The object store as users meet it: the AWS CLI, boto3, presigned URLs, raw sockets; restarts, kills, and code from buckets."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from acceptance_helpers import ROLE, RUNTIME, call, settle, stop_cleanly, zipped
from aws_cli import aws
from boto3.s3.transfer import TransferConfig
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from lambent.testing.local_server import LocalServer

MB = 1 << 20
KEY, SECRET, ACCOUNT = "AKIASIGNED", "a long secret", "123456789012"


@pytest.fixture
def s3(server: LocalServer) -> Any:
    return server.client("s3")


@pytest.fixture
def bucket(s3: Any, request: pytest.FixtureRequest) -> str:
    name = request.node.name.replace("_", "-").replace("[", "-").replace("]", "").lower()[-60:].strip("-")
    s3.create_bucket(Bucket=name)
    return name


def code_of(caught: Any) -> tuple[str, int]:
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def test_the_aws_cli(server: LocalServer, tmp_path: Path):
    def s3(*words: str, fails: bool = False) -> str:
        return aws(server.endpoint, tmp_path, "s3", *words, fails=fails)

    site = tmp_path / "site"
    (site / "sub").mkdir(parents=True)
    (site / "index.html").write_text("<p>hello")
    (site / "sub/ä b.txt").write_text("deep")
    assert s3("mb", "s3://cli-bucket") == "make_bucket: cli-bucket\n"
    assert s3("sync", "site", "s3://cli-bucket/site").count("upload:") == 2
    assert s3("sync", "site", "s3://cli-bucket/site") == ""
    assert "index.html" in s3("ls", "s3://cli-bucket/site/")
    assert s3("ls", "s3://cli-bucket", "--recursive").count("site/") == 2
    s3("cp", "s3://cli-bucket/site/sub/ä b.txt", "s3://cli-bucket/copy.txt")
    s3("cp", "s3://cli-bucket/copy.txt", "back.txt")
    assert (tmp_path / "back.txt").read_text() == "deep"
    (site / "index.html").unlink()
    assert "delete:" in s3("sync", "site", "s3://cli-bucket/site", "--delete")
    with urllib.request.urlopen(s3("presign", "s3://cli-bucket/copy.txt").strip()) as answer:
        assert answer.read() == b"deep"
    assert "BucketNotEmpty" in s3("rb", "s3://cli-bucket", fails=True)
    s3("rm", "s3://cli-bucket", "--recursive")
    assert s3("rb", "s3://cli-bucket") == "remove_bucket: cli-bucket\n"
    assert "NoSuchBucket" in s3("ls", "s3://cli-bucket", fails=True)


def test_objects_and_their_headers(s3: Any, bucket: str):
    put = s3.put_object(
        Bucket=bucket,
        Key="k",
        Body=b"0123456789",
        ContentType="text/plain",
        CacheControl="max-age=1",
        ContentEncoding="gzip",
        Metadata={"name": "value"},
        Tagging="a=1&b=2",
    )
    assert put["ETag"] == f'"{hashlib.md5(b"0123456789").hexdigest()}"'
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["Body"].read() == b"0123456789"
    about = (got["ContentType"], got["CacheControl"], got["ContentEncoding"], got["Metadata"], got["TagCount"], got["ContentLength"])
    assert about == ("text/plain", "max-age=1", "gzip", {"name": "value"}, 2, 10)
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (head["ContentLength"], head["ETag"], head["LastModified"]) == (10, put["ETag"], got["LastModified"])
    part = s3.get_object(Bucket=bucket, Key="k", Range="bytes=-3")
    assert (part["Body"].read(), part["ContentRange"], part["ResponseMetadata"]["HTTPStatusCode"]) == (b"789", "bytes 7-9/10", 206)
    for params, code in (
        ({"Range": "bytes=10-"}, ("InvalidRange", 416)),
        ({"IfMatch": '"x"'}, ("PreconditionFailed", 412)),
        ({"IfNoneMatch": put["ETag"]}, ("304", 304)),
        ({"Key": "none"}, ("NoSuchKey", 404)),
        ({"VersionId": "none"}, ("NoSuchVersion", 404)),
    ):
        with pytest.raises(ClientError) as caught:
            s3.get_object(**{"Bucket": bucket, "Key": "k", **params})
        assert code_of(caught) == code
    assert s3.get_object(Bucket=bucket, Key="k", ResponseContentType="x/y")["ContentType"] == "x/y"
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="k", Body=b"", IfNoneMatch="*")
    assert code_of(caught) == ("PreconditionFailed", 412)
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ChecksumSHA256="n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=")
    assert code_of(caught) == ("BadDigest", 400)
    s3.put_object(Bucket=bucket, Key="empty", Body=b"")
    assert s3.get_object(Bucket=bucket, Key="empty")["Body"].read() == b""
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": [{"Key": "c", "Value": "3"}]})
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "c", "Value": "3"}]


def test_versions(s3: Any, bucket: str):
    s3.put_object(Bucket=bucket, Key="k", Body=b"before")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    first = s3.put_object(Bucket=bucket, Key="k", Body=b"1")["VersionId"]
    second = s3.put_object(Bucket=bucket, Key="k", Body=b"2")["VersionId"]
    marker = s3.delete_object(Bucket=bucket, Key="k")
    assert marker["DeleteMarker"] is True
    with pytest.raises(s3.exceptions.NoSuchKey) as caught:
        s3.get_object(Bucket=bucket, Key="k")
    assert caught.value.response["ResponseMetadata"]["HTTPHeaders"]["x-amz-delete-marker"] == "true"
    assert s3.get_object(Bucket=bucket, Key="k", VersionId=first)["Body"].read() == b"1"
    listed = s3.list_object_versions(Bucket=bucket)
    assert [(each["VersionId"], each["IsLatest"]) for each in listed["Versions"]] == [(second, False), (first, False), ("null", False)]
    assert [each["VersionId"] for each in listed["DeleteMarkers"]] == [marker["VersionId"]]
    s3.delete_object(Bucket=bucket, Key="k", VersionId=marker["VersionId"])
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"2"
    wanted = [{"Key": "k", "VersionId": each} for each in (first, second, "null")]
    gone = s3.delete_objects(Bucket=bucket, Delete={"Objects": [*wanted, {"Key": "other"}]})["Deleted"]
    assert sorted(each["Key"] for each in gone) == ["k", "k", "k", "other"]
    assert [each["Key"] for each in s3.list_object_versions(Bucket=bucket)["DeleteMarkers"]] == ["other"]


def test_big_objects_in_parts(s3: Any, bucket: str, server: LocalServer):
    content = os.urandom(MB) * 100
    s3.upload_fileobj(io.BytesIO(content), bucket, "big")
    head = s3.head_object(Bucket=bucket, Key="big", PartNumber=1)
    assert (head["PartsCount"], head["ContentLength"]) == (13, 8 * MB)
    assert s3.head_object(Bucket=bucket, Key="big")["ETag"].endswith('-13"')
    sink = io.BytesIO()
    s3.download_fileobj(bucket, "big", sink)
    assert sink.getvalue() == content
    config = TransferConfig(multipart_threshold=8 * MB, multipart_chunksize=32 * MB)
    s3.copy({"Bucket": bucket, "Key": "big"}, bucket, "copy", Config=config)
    span = "bytes=33000000-34000000"
    assert s3.get_object(Bucket=bucket, Key="copy", Range=span)["Body"].read() == content[33_000_000:34_000_001]
    one = s3.copy_object(Bucket=bucket, Key="one", CopySource={"Bucket": bucket, "Key": "big"})
    assert one["CopyObjectResult"]["ETag"] == f'"{hashlib.md5(content).hexdigest()}"'
    s3.put_object(Bucket=bucket, Key="whole", Body=content)
    peak = next(int(line.split()[1]) for line in Path(f"/proc/{server.pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    assert peak < 150_000  # kB: far below what one of these objects weighs on top of the server


def test_parts_by_hand(s3: Any, bucket: str):
    begun = s3.create_multipart_upload(Bucket=bucket, Key="k")
    about = {"Bucket": bucket, "Key": "k", "UploadId": begun["UploadId"]}
    assert [each["Key"] for each in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == ["k"]
    etags = [s3.upload_part(**about, PartNumber=number, Body=b"x" * size)["ETag"] for number, size in ((1, 5 * MB), (2, 3))]
    assert [(each["PartNumber"], each["Size"]) for each in s3.list_parts(**about)["Parts"]] == [(1, 5 * MB), (2, 3)]
    with pytest.raises(ClientError) as caught:
        s3.complete_multipart_upload(**about, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": "wrong"}]})
    assert code_of(caught) == ("InvalidPart", 400)
    parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
    done = s3.complete_multipart_upload(**about, MultipartUpload={"Parts": parts})
    assert done["ETag"].endswith('-2"')
    with pytest.raises(ClientError) as caught:
        s3.abort_multipart_upload(**about)
    assert code_of(caught) == ("NoSuchUpload", 404)


def test_lists(s3: Any, bucket: str):
    for key in ("a", "dir/1", "dir/2", "dir/sub/3", "z +ü&<"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    for operation in ("list_objects", "list_objects_v2"):
        pages = list(s3.get_paginator(operation).paginate(Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": 1}))
        assert len(pages) == 3
        keys = [each["Key"] for page in pages for each in page.get("Contents", [])]
        assert (keys, [each["Prefix"] for page in pages for each in page.get("CommonPrefixes", [])]) == (["a", "z +ü&<"], ["dir/"])
    within = s3.list_objects_v2(Bucket=bucket, Prefix="dir/", Delimiter="/", StartAfter="dir/1", FetchOwner=True)
    assert [each["Key"] for each in within["Contents"]] == ["dir/2"]
    assert (within["KeyCount"], within["CommonPrefixes"], "Owner" in within["Contents"][0]) == (2, [{"Prefix": "dir/sub/"}], True)
    assert s3.list_objects_v2(Bucket=bucket, MaxKeys=0)["KeyCount"] == 0


def test_what_the_deploy_tools_set_on_their_buckets(s3: Any, bucket: str):
    block = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "k"}, "BucketKeyEnabled": True}
    lifecycle = {"ID": "x", "Status": "Enabled", "Filter": {"Prefix": ""}, "NoncurrentVersionExpiration": {"NoncurrentDays": 30}}
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "*"}]}
    tags = [{"Key": "a", "Value": "1"}]
    for missing in ("lifecycle_configuration", "policy", "tagging", "cors"):
        with pytest.raises(ClientError) as caught:
            getattr(s3, f"get_bucket_{missing}")(Bucket=bucket)
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=block)
    assert s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"] == block
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    assert s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"] == [rule]
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [lifecycle]})
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == [lifecycle]
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    assert json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"]) == policy
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags})
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == tags
    s3.delete_bucket_policy(Bucket=bucket)
    assert s3.head_bucket(Bucket=bucket)["BucketRegion"] == "us-east-1"
    assert s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
    s3.create_bucket(Bucket="elsewhere-bucket", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    assert s3.get_bucket_location(Bucket="elsewhere-bucket")["LocationConstraint"] == "eu-west-1"
    s3.get_waiter("bucket_exists").wait(Bucket=bucket, WaiterConfig={"Delay": 0.05, "MaxAttempts": 2})


def test_virtual_hosts_and_other_accounts(server: LocalServer, s3: Any, bucket: str):
    s3.put_object(Bucket=bucket, Key="a/b", Body=b"hosted")
    request = urllib.request.Request(f"{server.endpoint}/a/b", headers={"Host": f"{bucket}.s3.localhost:{server.port}"})
    with urllib.request.urlopen(request) as answer:
        assert answer.read() == b"hosted"
    stranger = server.client("s3", aws_access_key_id="210987654321")
    with pytest.raises(ClientError) as caught:
        stranger.get_object(Bucket=bucket, Key="a/b")
    assert code_of(caught) == ("AccessDenied", 403)
    with pytest.raises(ClientError) as caught:
        stranger.create_bucket(Bucket=bucket)
    assert code_of(caught) == ("BucketAlreadyExists", 409)


def test_what_is_refused_by_its_head_is_never_sent(server: LocalServer):
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = f"PUT /no-such-bucket/k HTTP/1.1\r\nHost: x\r\n{_claim()}Content-Length: 9000000000\r\nExpect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 404")
    assert b"<Code>NoSuchBucket</Code>" in answer


def test_a_client_that_leaves_puts_nothing(server: LocalServer, s3: Any, bucket: str):
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = f"PUT /{bucket}/half HTTP/1.1\r\nHost: x\r\n{_claim()}Content-Length: 3000000\r\n\r\n"
        connection.sendall(head.encode() + bytes(2_000_000))
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b" 400 " in answer.partition(b"\r\n")[0]
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_an_odd_request_answers_in_xml(server: LocalServer, bucket: str):
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(f"PATCH /{bucket} HTTP/1.1\r\nHost: x\r\n{_claim()}Connection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b"<Error><Code>MethodNotAllowed</Code>" in answer


def _claim() -> str:
    return "Authorization: AWS4-HMAC-SHA256 Credential=test/20261121/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0\r\n"


def test_code_from_a_bucket(server: LocalServer, api: Any, s3: Any, bucket: str):
    source = "import shared\ndef handler(event, context):\n    return shared.NUMBER\n"
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=bucket, Key="code.zip", Body=zipped({"app.py": source}))
    old = s3.put_object(Bucket=bucket, Key="layer.zip", Body=zipped({"python/shared.py": "NUMBER = 1\n"}))["VersionId"]
    s3.put_object(Bucket=bucket, Key="layer.zip", Body=zipped({"python/shared.py": "NUMBER = 2\n"}))
    layers = [
        api.publish_layer_version(LayerName="from-s3", Content={"S3Bucket": bucket, "S3Key": "layer.zip", **version})["LayerVersionArn"]
        for version in ({}, {"S3ObjectVersion": old})
    ]
    about = {"FunctionName": "from-s3", "Runtime": RUNTIME, "Role": ROLE, "Handler": "app.handler"}
    api.create_function(**about, Code={"S3Bucket": bucket, "S3Key": "code.zip"}, Layers=layers[:1])
    settle(api, "from-s3")
    assert call(api, "from-s3")[0] == 2
    api.update_function_configuration(FunctionName="from-s3", Layers=layers[1:])
    settle(api, "from-s3")
    assert call(api, "from-s3")[0] == 1
    for name, code in ((bucket, "NoSuchKey"), ("no-such-bucket", "NoSuchBucket")):
        with pytest.raises(api.exceptions.InvalidParameterValueException, match=f"Error occurred while GetObject. S3 Error Code: {code}."):
            api.update_function_code(FunctionName="from-s3", S3Bucket=name, S3Key="none")
    s3.delete_object(Bucket=bucket, Key="code.zip")
    api.update_function_configuration(FunctionName="from-s3", MemorySize=256)  # the code was taken over, not referred to
    settle(api, "from-s3")
    assert call(api, "from-s3")[0] == 1


def test_objects_survive_a_kill(tmp_path: Path):
    server = LocalServer(data_dir=tmp_path / "data")
    server.start()
    kept: list[int] = []
    try:
        s3 = server.client("s3")
        s3.create_bucket(Bucket="kept")
        s3.put_bucket_versioning(Bucket="kept", VersioningConfiguration={"Status": "Enabled"})
        enough = threading.Event()

        def upload() -> None:
            with contextlib.suppress(Exception):  # the kill
                for number in range(10_000):
                    s3.put_object(Bucket="kept", Key=f"k{number % 7}", Body=b"%d" % number * 1_000, Metadata={"n": str(number)})
                    kept.append(number)
                    if number == 40:
                        enough.set()

        thread = threading.Thread(target=upload)
        thread.start()
        assert enough.wait(60)
        server.kill()
        thread.join()
        server.start()
        s3 = server.client("s3")
        there = set()
        for version in s3.list_object_versions(Bucket="kept")["Versions"]:
            got = s3.get_object(Bucket="kept", Key=version["Key"], VersionId=version["VersionId"])
            number = int(got["Metadata"]["n"])
            assert got["Body"].read() == b"%d" % number * 1_000
            there.add(number)
        assert set(kept) <= there
    finally:
        server.kill()


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    config = tmp_path_factory.mktemp("strict") / "lambent.toml"
    credential = f'[[credentials]]\naccess_key = "{KEY}"\nsecret_key = "{SECRET}"\naccount = "{ACCOUNT}"\n'
    config.write_text(f'auth = "signature"\n{credential}')
    with LocalServer(config=config) as running:
        yield running
        stop_cleanly(running)


def test_signatures(strict: LocalServer, tmp_path: Path):
    keys = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET}
    s3 = strict.client("s3", **keys)
    s3.create_bucket(Bucket="signed")
    s3.put_object(Bucket="signed", Key="a b/ü", Body=b"signed")
    assert s3.get_object(Bucket="signed", Key="a b/ü")["Body"].read() == b"signed"
    (tmp_path / "f").write_bytes(b"x" * 10_000_000)
    s3.upload_file(str(tmp_path / "f"), "signed", "multipart")
    for version in ("s3", "s3v4"):
        signer = strict.client("s3", **keys, config=Config(signature_version=version))
        url = signer.generate_presigned_url("get_object", {"Bucket": "signed", "Key": "a b/ü"})
        with urllib.request.urlopen(url) as answer:
            assert answer.read() == b"signed"
        upload = signer.generate_presigned_url("put_object", {"Bucket": "signed", "Key": version})
        with urllib.request.urlopen(urllib.request.Request(upload, b"by url", {"Content-Type": ""}, method="PUT")) as answer:
            assert answer.status == 200
        assert s3.get_object(Bucket="signed", Key=version)["Body"].read() == b"by url"
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(url.replace("Signature=", "Signature=0"))
        assert caught.value.code == 403
        caught.value.close()
    stranger = strict.client("s3", aws_access_key_id=KEY, aws_secret_access_key="wrong")
    with pytest.raises(ClientError) as refused:
        stranger.put_object(Bucket="signed", Key="k", Body=b"x")
    assert code_of(refused)[1] == 403


def test_signed_chunks(strict: LocalServer):
    s3 = strict.client("s3", aws_access_key_id=KEY, aws_secret_access_key=SECRET)
    s3.create_bucket(Bucket="chunks")
    content = os.urandom(200_000)
    assert _put_chunks(strict, content, "x-amz-checksum-crc32c:4waSgw==") == 200
    assert s3.get_object(Bucket="chunks", Key="k")["Body"].read() == content
    assert _put_chunks(strict, b"other", "", spoil=True) == 403
    assert s3.get_object(Bucket="chunks", Key="k")["Body"].read() == content


def _put_chunks(server: LocalServer, content: bytes, trailer: str, spoil: bool = False) -> int:
    """A PUT of signed chunks with a signed trailer, as the SDKs for Java and Go send it."""
    import hmac

    kind = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" if trailer else "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    headers = {"Content-Encoding": "aws-chunked", "X-Amz-Decoded-Content-Length": str(len(content)), "X-Amz-Content-SHA256": kind}
    request = AWSRequest("PUT", f"{server.endpoint}/chunks/k", headers=headers)
    signer = S3SigV4Auth(Credentials(KEY, SECRET), "s3", "us-east-1")
    signer.payload = lambda request: kind  # type: ignore[method-assign]
    signer.add_auth(request)
    stamp, previous = request.context["timestamp"], request.headers["Authorization"].rpartition("Signature=")[2]
    scope = signer.credential_scope(request)
    key = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")

    def sign(name: str, digest: str) -> str:
        return hmac.digest(key, f"AWS4-HMAC-SHA256-{name}\n{stamp}\n{scope}\n{previous}\n{digest}".encode(), "sha256").hex()

    body = b""
    for start in [*range(0, len(content), 65_536), len(content)]:
        piece = content[start : start + 65_536]
        previous = sign("PAYLOAD", f"{hashlib.sha256(b'').hexdigest()}\n{hashlib.sha256(piece).hexdigest()}")
        body += b"%x;chunk-signature=%b\r\n" % (len(piece), previous.encode()) + (bytes(len(piece)) if spoil else piece)
        body += b"\r\n" if piece else b""
    if trailer:
        claim = sign("TRAILER", hashlib.sha256(f"{trailer}\n".encode()).hexdigest())
        body += f"{trailer}\r\nx-amz-trailer-signature:{claim}\r\n".encode()
    body += b"\r\n"
    given = {name: str(value) for name, value in request.headers.items()}
    sent = urllib.request.Request(f"{server.endpoint}/chunks/k", body, given, method="PUT")
    try:
        with urllib.request.urlopen(sent) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_code_from_another_s3(strict: LocalServer, tmp_path: Path):
    """A second server stands for the S3 of somebody else."""
    s3 = strict.client("s3", aws_access_key_id=KEY, aws_secret_access_key=SECRET)
    s3.create_bucket(Bucket="elsewhere")
    s3.put_object(Bucket="elsewhere", Key="code.zip", Body=zipped({"app.py": "def handler(event, context):\n    return 'from afar'\n"}))
    config = tmp_path / "lambent.toml"
    config.write_text(f'[s3]\nendpoint = "{strict.endpoint}"\naccess_key = "{KEY}"\nsecret_key = "{SECRET}"\n')
    with LocalServer(config=config) as server:
        api = server.client("lambda")
        about = {"FunctionName": "far", "Runtime": RUNTIME, "Role": ROLE, "Handler": "app.handler"}
        with pytest.raises(api.exceptions.InvalidParameterValueException) as caught:
            api.create_function(**about, Code={"S3Bucket": "elsewhere", "S3Key": "none"})
        text = "Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key does not exist."
        assert caught.value.response["Error"]["Message"] == text
        api.create_function(**about, Code={"S3Bucket": "elsewhere", "S3Key": "code.zip"})
        settle(api, "far")
        assert call(api, "far")[0] == "from afar"
        stop_cleanly(server)

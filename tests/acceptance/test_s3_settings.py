"""What deploy tools set on buckets and objects, shown again and taken away; parts copied from other objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lambent.testing.local_server import LocalServer

MB = 1 << 20


@pytest.fixture
def s3(server: LocalServer) -> Any:
    return server.client("s3")


@pytest.fixture
def bucket(s3: Any) -> Iterator[str]:
    s3.create_bucket(Bucket="settings")
    yield "settings"
    for each in s3.list_objects_v2(Bucket="settings").get("Contents", ()):
        s3.delete_object(Bucket="settings", Key=each["Key"])
    s3.delete_bucket(Bucket="settings")
    with pytest.raises(ClientError) as caught:
        s3.list_objects_v2(Bucket="settings")
    assert caught.value.response["Error"]["Code"] == "NoSuchBucket"


def missing(call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    return str(caught.value.response["Error"]["Code"])


def test_cors_ownership_encryption_lifecycle_and_access(s3: Any, bucket: str) -> None:
    rules = [{"AllowedMethods": ["GET"], "AllowedOrigins": ["https://example.org"]}]
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": rules})
    assert s3.get_bucket_cors(Bucket=bucket)["CORSRules"] == rules
    s3.delete_bucket_cors(Bucket=bucket)
    assert missing(s3.get_bucket_cors, Bucket=bucket) == "NoSuchCORSConfiguration"

    owned = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=owned)
    assert s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"] == owned
    s3.delete_bucket_ownership_controls(Bucket=bucket)
    assert missing(s3.get_bucket_ownership_controls, Bucket=bucket) == "OwnershipControlsNotFoundError"

    encrypted = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "k"}}]}
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=encrypted)
    shown = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert shown["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    s3.delete_bucket_encryption(Bucket=bucket)
    shown = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert shown["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}

    expiry = {"Rules": [{"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "p/"}, "Expiration": {"Days": 30}}]}
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=expiry)
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == expiry["Rules"]
    s3.delete_bucket_lifecycle(Bucket=bucket)
    assert missing(s3.get_bucket_lifecycle_configuration, Bucket=bucket) == "NoSuchLifecycleConfiguration"

    blocked = {"BlockPublicAcls": True, "IgnorePublicAcls": True, "BlockPublicPolicy": True, "RestrictPublicBuckets": True}
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=blocked)
    assert s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"] == blocked
    s3.delete_public_access_block(Bucket=bucket)
    assert missing(s3.get_public_access_block, Bucket=bucket) == "NoSuchPublicAccessBlockConfiguration"

    grants = s3.get_bucket_acl(Bucket=bucket)["Grants"]
    assert [grant["Permission"] for grant in grants] == ["FULL_CONTROL"]
    assert missing(s3.get_bucket_policy_status, Bucket=bucket) == "NoSuchBucketPolicy"


def test_tags_of_buckets_and_objects(s3: Any, bucket: str) -> None:
    tags = {"TagSet": [{"Key": "k", "Value": "v"}]}
    s3.put_bucket_tagging(Bucket=bucket, Tagging=tags)
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == tags["TagSet"]
    s3.delete_bucket_tagging(Bucket=bucket)
    assert missing(s3.get_bucket_tagging, Bucket=bucket) == "NoSuchTagSet"
    s3.put_object(Bucket=bucket, Key="o", Body=b"1", Tagging="k=v")
    assert s3.get_object_tagging(Bucket=bucket, Key="o")["TagSet"] == tags["TagSet"]
    s3.delete_object_tagging(Bucket=bucket, Key="o")
    assert s3.get_object_tagging(Bucket=bucket, Key="o")["TagSet"] == []
    assert s3.get_object_acl(Bucket=bucket, Key="o")["Owner"]["ID"]


def test_parts_that_are_copied(s3: Any, bucket: str) -> None:
    source = bytes(range(256)) * (6 * MB // 256)
    s3.put_object(Bucket=bucket, Key="source", Body=source)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="copy")["UploadId"]
    place = {"Bucket": bucket, "Key": "copy", "UploadId": upload}
    copied = {"CopySource": {"Bucket": bucket, "Key": "source"}}
    first = s3.upload_part_copy(**place, **copied, PartNumber=1, CopySourceRange=f"bytes=0-{5 * MB - 1}")["CopyPartResult"]
    second = s3.upload_part_copy(**place, **copied, PartNumber=2, CopySourceRange=f"bytes={5 * MB}-{6 * MB - 1}")["CopyPartResult"]
    parts = [{"PartNumber": number, "ETag": part["ETag"]} for number, part in ((1, first), (2, second))]
    s3.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == source

"""S3's wire against botocore as the peer: every operation there and back, and what no SDK sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
import wire_peer
from hypothesis import given
from hypothesis import strategies as st

from lambent.errors import ClientFault
from lambent.wire.body import BodyStream, Unchunker
from lambent.wire.chunked import unchunk
from lambent.wire.gateway import Gateway
from lambent.wire.http import HttpRequest
from lambent.wire.models import Operation, load_service
from lambent.wire.s3_router import bucket_of_host
from lambent.wire.sigv2 import read_signature_v2, verify_v2
from lambent.wire.sigv4 import BadSignature

GATEWAY = Gateway()
S3 = load_service("s3").operations
LEFT_OUT = {
    "GetBucketLifecycle",  # older spellings of operations that are there
    "PutBucketLifecycle",
    "GetBucketNotification",
    "PutBucketNotification",
    "WriteGetObjectResponse",  # other hosts
    "CreateSession",
    "ListDirectoryBuckets",
}
NAMES = sorted(set(S3) - LEFT_OUT)


def request_of(operation: Operation, params: dict[str, Any]) -> HttpRequest:
    request = wire_peer.request_of(operation, params)
    return HttpRequest(request.method, request.path, request.query, request.headers, request.body)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_every_operation_reads_back_what_botocore_wrote(name: str, full: bool):
    operation = S3[name]
    params = wire_peer.sample(wire_peer.peer(operation).input_shape, full=full, text="some-text") if operation.input else {}
    params.pop("Expires", None)  # a text in the model, which botocore writes from a date
    request = request_of(operation, params)
    found, places = GATEWAY.route(request, "s3")
    assert found.name == name
    read = GATEWAY.parse(found, request, places)
    for each in (read, params):
        each.pop("ContentLength", None)
    if operation.payload is not None and operation.payload.streaming and operation.payload.name not in params:
        assert read.pop(operation.payload.name) == b""
    assert read == wire_peer.plain(params)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in {"SelectObjectContent", "GetBucketLocation"}])
def test_botocore_reads_every_answer(name: str, full: bool):
    operation = S3[name]
    about = wire_peer.peer(operation)
    result = wire_peer.plain(wire_peer.sample(about.output_shape, full=full)) if operation.output is not None else {}
    response = GATEWAY.answer(operation, result, "id")
    read = wire_peer.plain(wire_peer.read_answer(operation, response))
    assert read.pop("ResponseMetadata")["RequestId"] == "id"
    if operation.method != "HEAD" and operation.status != 204:
        assert {key: value for key, value in read.items() if key in result} == result


def test_a_location_stands_in_the_root():
    response = GATEWAY.answer(S3["GetBucketLocation"], {"LocationConstraint": "eu-west-1"}, "id")
    assert b'"http://s3.amazonaws.com/doc/2006-03-01/">eu-west-1</LocationConstraint>' in response.body  # type: ignore[operator]
    response = GATEWAY.answer(S3["GetBucketLocation"], {}, "id")
    assert b'"http://s3.amazonaws.com/doc/2006-03-01/"></LocationConstraint>' in response.body  # type: ignore[operator]


def test_faults_are_read_by_botocore():
    fault = ClientFault("NoSuchKey", 404, "The specified key does not exist.", {"Key": "a&b"})
    answer = wire_peer.read_answer(S3["GetObject"], GATEWAY.refuse(S3["GetObject"], fault, "id"))
    assert (answer["Error"]["Code"], answer["Error"]["Key"]) == ("NoSuchKey", "a&b")
    assert GATEWAY.refuse(S3["HeadObject"], fault, "id").body == b""
    with pytest.raises(ClientFault) as caught:
        GATEWAY.route(HttpRequest("PATCH", "/b/k", "", {}, b""), "s3")
    refused = GATEWAY.refuse(None, caught.value, "id")
    assert b"<Code>MethodNotAllowed</Code>" in refused.body  # type: ignore[operator]


@pytest.mark.parametrize(
    "body",
    [
        b"not xml",
        b"<Delete>",
        b'<!DOCTYPE x [<!ENTITY a "b">]><Delete><Object><Key>&a;</Key></Object></Delete>',
        "<Delete><Object><Key>k</Key></Object></Delete>".encode("utf-16"),
        b"<Delete><Object><NoKey/></Object></Delete>",
        b"<Delete><Object><Key>k</Key><Size>many</Size></Object></Delete>",
        b"<a>" * 100_000,
    ],
)
def test_documents_that_are_refused(body: bytes):
    with pytest.raises(ClientFault) as caught:
        GATEWAY.parse(S3["DeleteObjects"], HttpRequest("POST", "/b", "delete", {}, body), {"Bucket": "b"})
    assert (caught.value.code, caught.value.status) == ("MalformedXML", 400)


@pytest.mark.parametrize(
    ("host", "bucket"),
    [
        ("b-1.localhost:4566", "b-1"),
        ("my.bucket.s3.us-east-1.amazonaws.com", "my.bucket"),
        ("bucket.s3.localhost", "bucket"),
        ("s3.us-east-1.amazonaws.com", ""),
        ("localhost:4566", ""),
        ("127.0.0.1:4566", ""),
        ("lambda.us-east-1.amazonaws.com", ""),
        ("", ""),
    ],
)
def test_buckets_in_hosts(host: str, bucket: str):
    assert bucket_of_host(host) == bucket


def test_a_bucket_in_the_host_leaves_the_whole_path_to_the_key():
    operation, places = GATEWAY.route(HttpRequest("GET", "/a/b%20c", "", {"host": "bucket.localhost:1"}, b""), None)
    assert (operation.name, places) == ("GetObject", {"Bucket": "bucket", "Key": "a/b c"})


@given(st.binary(max_size=300), st.lists(st.integers(1, 50), max_size=12), st.data())
def test_chunks_are_taken_off_however_they_arrive(content: bytes, sizes: list[int], data: st.DataObject):
    body, at = b"", 0
    for size in sizes:
        piece = content[at : at + size]
        if piece:
            body += b"%x\r\n%b\r\n" % (len(piece), piece)
            at += len(piece)
    body += b"0\r\nx-amz-checksum-crc32: AAAA\r\n\r\n"
    unchunker, plain, rest = Unchunker(None, False), b"", body
    while rest:
        cut = data.draw(st.integers(1, len(rest)))
        plain += b"".join(unchunker.feed(rest[:cut]))
        rest = rest[cut:]
    unchunker.finish()
    headers = {"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}
    assert plain == content[:at] == unchunk(HttpRequest("PUT", "/", "", headers, body))
    assert unchunker.trailers == {"x-amz-checksum-crc32": "AAAA"}
    cut_off = Unchunker(None, False)
    cut_off.feed(body[: data.draw(st.integers(0, len(body) - 33))])
    with pytest.raises(ClientFault, match="IncompleteBody"):
        cut_off.finish()


async def _source(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@pytest.mark.parametrize(
    ("sha256", "length", "code"),
    [("0" * 64, None, "XAmzContentSHA256Mismatch"), ("", 7, "IncompleteBody")],
)
def test_bodies_are_checked_when_they_have_passed(sha256: str, length: int | None, code: str):
    stream = BodyStream(_source(b"abc", b"def"), length)
    stream.expect(sha256, None)
    with pytest.raises(ClientFault) as caught:
        asyncio.run(stream.read(100))
    assert caught.value.code == code


def test_bodies_are_bounded():
    with pytest.raises(ClientFault, match="MaxMessageLengthExceeded"):
        asyncio.run(BodyStream(_source(b"abc", b"def"), None).read(5))
    assert asyncio.run(BodyStream(_source(b"abc", b"def"), 6).read(6)) == b"abcdef"


def test_presigned_urls_of_version_2():
    credentials = botocore.credentials.Credentials("AKIA", "secret")
    about = botocore.awsrequest.AWSRequest("GET", "http://127.0.0.1:4566/b/k%20x?versionId=v&other=1")
    botocore.auth.HmacV1QueryAuth(credentials, expires=60).add_auth(about)
    url = urlsplit(about.prepare().url)
    request = HttpRequest("GET", url.path, url.query, {"host": url.netloc}, b"")
    signature = read_signature_v2(request)
    assert signature is not None
    assert (signature.access_key, signature.service) == ("AKIA", "s3")
    verify_v2(request, signature, "secret", float(signature.expires))
    for secret, now, code in (("wrong", 0.0, "SignatureDoesNotMatch"), ("secret", float(signature.expires) + 1, "AccessDenied")):
        with pytest.raises(BadSignature) as caught:
            verify_v2(request, signature, secret, now)
        assert caught.value.code == code
    request.path = "/b/other"
    with pytest.raises(BadSignature):
        verify_v2(request, signature, "secret", 0.0)

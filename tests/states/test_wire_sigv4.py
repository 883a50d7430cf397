"""Signatures that botocore makes are verified; anything changed afterwards is not."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import botocore.auth
import pytest
import wire_peer
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from lambent.errors import ClientFault
from lambent.wire.chunked import unchunk
from lambent.wire.http import HttpRequest
from lambent.wire.sigv4 import BadSignature, canonical_request, read_signature, sign, signing_key, string_to_sign, verify

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
CREDENTIALS = Credentials(KEY, SECRET)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> float:
    """botocore signs with the machine's time; here it is told one."""
    moment = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
    monkeypatch.setattr(
        botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: moment.replace(tzinfo=None) if remove_tzinfo else moment
    )
    return moment.timestamp()


def signed(
    signer: Any,
    method: str = "POST",
    url: str = "http://127.0.0.1:4566/2015-03-31/functions/f/invocations",
    body: bytes = b'{"a":1}',
    **headers: str,
) -> HttpRequest:
    request = AWSRequest(method, url, {name.replace("_", "-"): value for name, value in headers.items()}, body)
    signer.add_auth(request)
    return wire_peer.received(request.prepare())


def check(request: HttpRequest, now: float, secret: str = SECRET) -> bytes:
    signature = read_signature(request)
    assert signature is not None
    return verify(request, signature, secret, now)


def refused(request: HttpRequest, now: float, code: str, secret: str = SECRET, status: int = 403) -> str:
    with pytest.raises(ClientFault) as caught:
        check(request, now, secret)
    assert (caught.value.code, caught.value.status) == (code, status)
    return caught.value.message


SIGNERS = {
    "header": lambda: botocore.auth.SigV4Auth(CREDENTIALS, "lambda", "eu-west-1"),
    "query": lambda: botocore.auth.SigV4QueryAuth(CREDENTIALS, "lambda", "eu-west-1", expires=60),
    "s3": lambda: botocore.auth.S3SigV4Auth(CREDENTIALS, "s3", "eu-west-1"),
    "s3-query": lambda: botocore.auth.S3SigV4QueryAuth(CREDENTIALS, "s3", "eu-west-1", expires=60),
}
URLS = [
    "http://127.0.0.1:4566/2015-03-31/functions/f/invocations",
    "http://127.0.0.1:4566/2015-03-31/functions/arn%3Aaws%3Alambda%3Aeu-west-1%3A123456789012%3Afunction%3Af/invocations?Qualifier=%24LATEST",
    "http://localhost:4566/2017-03-31/tags/a%2Fb%20c?tagKeys=b&tagKeys=a&tagKeys=%C3%BC%2B%20&empty=",
    "http://localhost:4566/",
    "http://localhost:4566",
    "http://localhost:4566/a//b/../c/./d/",
]


@pytest.mark.parametrize("kind", SIGNERS)
@pytest.mark.parametrize("url", URLS)
def test_botocores_signatures_are_right(kind, url, now):
    if kind.startswith("s3") and url == "http://localhost:4566":
        url += "/"  # which is what its clients send
    request = signed(SIGNERS[kind](), "GET", url, b"")
    assert check(request, now) == b""
    signature = read_signature(request)
    assert signature is not None
    assert (signature.access_key, signature.date, signature.region) == (KEY, "20260101", "eu-west-1")
    assert signature.service == ("s3" if kind.startswith("s3") else "lambda")
    assert signature.kind == ("query" if "query" in kind else "header")


@pytest.mark.parametrize("kind", ["header", "s3"])
def test_bodies_and_headers(kind, now):
    request = signed(SIGNERS[kind](), X_Amz_Client_Context="e30=", X_Odd="  many   blanks  ", X_Text="ünï")
    assert check(request, now) == b'{"a":1}'


def test_header_bytes_that_were_read_as_latin_1(now):
    request = signed(SIGNERS["header"](), X_Text="ünï")
    request.headers["x-text"] = "ünï".encode().decode("latin-1")
    assert check(request, now) == b'{"a":1}'


def test_query_parameters_given_apart(now):
    request = AWSRequest("GET", "http://localhost/2017-03-31/tags/x", {}, b"", params={"b": "1 2+", "a": "ü/~"})
    SIGNERS["header"]().add_auth(request)
    assert check(wire_peer.received(request.prepare()), now) == b""


@pytest.mark.parametrize("kind", SIGNERS)
def test_what_was_changed_is_refused(kind, now):
    def fresh() -> HttpRequest:
        return signed(SIGNERS[kind](), "POST", URLS[1], b"{}" if "query" not in kind else b"")

    for name, value in (("method", "PUT"), ("path", "/2015-03-31/functions/g/invocations"), ("query", fresh().query + "&x=1")):
        request = fresh()
        setattr(request, name, value)
        assert "does not match the signature you provided" in refused(request, now, "InvalidSignatureException")
    request = fresh()
    request.headers["host"] = "elsewhere"
    refused(request, now, "InvalidSignatureException")
    refused(fresh(), now, "InvalidSignatureException", secret="another")
    request = fresh()
    request.body += b" "
    if kind == "s3-query":
        assert check(request, now) == b" "  # unsigned by nature
    elif kind == "s3":
        refused(request, now, "XAmzContentSHA256Mismatch", status=400)
    else:
        refused(request, now, "InvalidSignatureException")


def test_an_unsigned_payload_may_be_anything(now):
    request = signed(SIGNERS["header"](), X_Amz_Content_SHA256="UNSIGNED-PAYLOAD")
    request.body = b"anything"
    assert check(request, now) == b"anything"
    odd = signed(SIGNERS["header"](), X_Amz_Content_SHA256="SOMETHING")
    refused(odd, now, "InvalidRequest", status=400)


def test_clocks_may_differ_by_a_quarter_of_an_hour(now):
    for offset in (-900, 0, 900):
        assert check(signed(SIGNERS["header"]()), now + offset)
    assert refused(signed(SIGNERS["header"]()), now + 901, "InvalidSignatureException").startswith("Signature expired: 20260101T120000Z")
    assert refused(signed(SIGNERS["header"]()), now - 901, "InvalidSignatureException").startswith(
        "Signature not yet current: 20260101T120000Z"
    )
    refused(signed(SIGNERS["s3"]()), now + 901, "RequestTimeTooSkewed")


def test_presigned_requests_expire(now):
    request = signed(SIGNERS["query"](), "GET", URLS[0], b"")
    assert check(request, now + 60) == b""
    assert refused(request, now + 61, "InvalidSignatureException").startswith("Signature expired")
    for expires in ("0", "604801", "x", "-5", "99999999999", "²"):
        changed = HttpRequest(
            "GET", request.path, request.query.replace("X-Amz-Expires=60", f"X-Amz-Expires={quote(expires)}"), request.headers, b""
        )
        refused(changed, now, "IncompleteSignatureException", status=400)


@pytest.mark.parametrize(
    ("old", "new", "code", "status"),
    [
        ("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256", "IncompleteSignatureException", 400),
        ("SignedHeaders=", "Signed=", "IncompleteSignatureException", 400),
        ("Signature=", "Sig=", "IncompleteSignatureException", 400),
        ("20260101/eu-west-1", "20260102/eu-west-1", "InvalidSignatureException", 403),
        ("eu-west-1/lambda", "us-west-1/lambda", "InvalidSignatureException", 403),
        ("eu-west-1/lambda/", "", "IncompleteSignatureException", 400),
        ("host;", "", "InvalidSignatureException", 403),
    ],
)
def test_a_header_of_another_form(old, new, code, status, now):
    request = signed(SIGNERS["header"]())
    assert old in request.headers["authorization"]
    request.headers["authorization"] = request.headers["authorization"].replace(old, new)
    refused(request, now, code, status=status)


@pytest.mark.parametrize("stamp", ["", "yesterday", "20261399T999999Z", "20260101T120000"])
def test_a_date_of_another_form(stamp, now):
    request = signed(SIGNERS["header"]())
    request.headers["x-amz-date"] = stamp
    with pytest.raises(BadSignature) as caught:
        check(request, now)
    assert caught.value.code in ("IncompleteSignatureException", "InvalidSignatureException")


def test_no_signature():
    assert read_signature(HttpRequest("GET", "/", "", {}, b"")) is None
    for header in ("", "Bearer x", "Basic eA==", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 Signature=x"):
        assert read_signature(HttpRequest("GET", "/", "", {"authorization": header}, b"")) is None


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=20))
def test_reading_never_fails_and_verifying_only_refuses(credential, query, stamp):
    header = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=00"
    requests = [
        HttpRequest("GET", "/", "", {"authorization": header, "x-amz-date": stamp, "host": "h"}, b""),
        HttpRequest("GET", "/", f"X-Amz-Credential={query}&X-Amz-Date={stamp}", {}, b""),
    ]
    for request in requests:
        signature = read_signature(request)
        if signature is not None:
            with pytest.raises(ClientFault):
                verify(request, signature, SECRET, 0.0)


# -- aws-chunked --------------------------------------------------------------------------------------------------------------------------

SEED = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
CHUNK_SIGNATURES = [
    "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
    "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
    "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
]


def documented_upload() -> HttpRequest:
    """The example of AWS's own documentation: 66,560 letters in chunks of 64 KB and 1 KB, with the signatures printed there."""
    data = [b"a" * 65_536, b"a" * 1_024, b""]
    body = b"".join(
        b"%x;chunk-signature=%s\r\n%s\r\n" % (len(each), mark.encode(), each) for each, mark in zip(data, CHUNK_SIGNATURES, strict=True)
    )
    names = "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class"
    scope = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request"
    headers = {
        "host": "s3.amazonaws.com",
        "x-amz-date": "20130524T000000Z",
        "x-amz-storage-class": "REDUCED_REDUNDANCY",
        "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "content-encoding": "aws-chunked",
        "x-amz-decoded-content-length": "66560",
        "content-length": "66824",
        "authorization": f"AWS4-HMAC-SHA256 Credential={scope},SignedHeaders={names},Signature={SEED}",
    }
    return HttpRequest("PUT", "/examplebucket/chunkObject.txt", "", headers, body)


DOCUMENTED_SECRET, DOCUMENTED_NOW = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", 1_369_353_600.0


def test_the_documented_chunked_upload_is_right():
    request = documented_upload()
    assert len(request.body) == 66_824
    assert check(request, DOCUMENTED_NOW, DOCUMENTED_SECRET) == b"a" * 66_560


@pytest.mark.parametrize(
    ("old", "new", "code", "status"),
    [
        (b"aaa\r\n400;", b"aab\r\n400;", "InvalidSignatureException", 403),
        (CHUNK_SIGNATURES[1].encode(), CHUNK_SIGNATURES[2].encode(), "InvalidSignatureException", 403),
        (CHUNK_SIGNATURES[2].encode(), b"0" * 64, "InvalidSignatureException", 403),
        (b";chunk-signature=", b";", "InvalidSignatureException", 403),
        (b"400;", b"3ff;", "InvalidSignatureException", 403),
        (b"\r\n400;", b"\r\nxyz;", "IncompleteBody", 400),
        (b"10000;", b"ffffffffff;", "IncompleteBody", 400),
        (b"10000;", b"-10000;", "IncompleteBody", 400),
    ],
)
def test_a_changed_chunk_is_refused(old, new, code, status):
    request = documented_upload()
    assert old in request.body
    request.body = request.body.replace(old, new, 1)
    refused(request, DOCUMENTED_NOW, code, DOCUMENTED_SECRET, status)


def test_a_cut_or_shortened_upload_is_refused():
    for cut in (0, 1, 100, 66_000, 66_700, 66_735):
        request = documented_upload()
        request.body = request.body[:cut]
        refused(request, DOCUMENTED_NOW, "IncompleteBody", DOCUMENTED_SECRET, 400)


def trailing(key: bytes, seed: str, stamp: str, scope: str, chunks: list[bytes], trailer: bytes) -> bytes:
    """A body with signed chunks and a signed trailer, by the documented rules."""
    empty, previous, out = hashlib.sha256(b"").hexdigest(), seed, b""
    for chunk in [*chunks, b""]:
        text = f"AWS4-HMAC-SHA256-PAYLOAD\n{stamp}\n{scope}\n{previous}\n{empty}\n{hashlib.sha256(chunk).hexdigest()}"
        previous = sign(key, text.encode())
        out += b"%x;chunk-signature=%s\r\n%s" % (len(chunk), previous.encode(), chunk + b"\r\n" if chunk else b"")
    digest = hashlib.sha256(trailer + b"\n").hexdigest()
    text = f"AWS4-HMAC-SHA256-TRAILER\n{stamp}\n{scope}\n{previous}\n{digest}"
    return out + trailer + b"\r\nx-amz-trailer-signature:" + sign(key, text.encode()).encode() + b"\r\n\r\n"


def test_signed_trailers(now):
    plain = signed(SIGNERS["s3"](), "PUT", URLS[0], b"")
    request = resigned(plain, {**plain.headers, "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"})
    signature = read_signature(request)
    assert signature is not None
    key = signing_key(SECRET, signature.date, signature.region, signature.service)
    request.body = trailing(
        key, signature.signature, signature.timestamp, signature.scope, [b"one", b"two"], b"x-amz-checksum-crc32:AAAAAA=="
    )
    assert check(request, now) == b"onetwo"
    request.body = request.body.replace(b"AAAAAA==", b"AAAAAB==")
    refused(request, now, "InvalidSignatureException")
    request.body = request.body[: request.body.index(b"x-amz-checksum")]
    refused(request, now, "InvalidSignatureException")


def resigned(request: HttpRequest, headers: dict[str, str]) -> HttpRequest:
    """Signed again over the changed headers, with our own tools (botocore sets the payload hash itself)."""
    changed = HttpRequest(request.method, request.path, request.query, headers, b"")
    signature = read_signature(changed)
    assert signature is not None
    key = signing_key(SECRET, signature.date, signature.region, signature.service)
    fresh = sign(key, string_to_sign(signature, canonical_request(changed, signature, headers["x-amz-content-sha256"]).encode()))
    changed.headers["authorization"] = headers["authorization"].replace(signature.signature, fresh)
    return changed


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=5), st.booleans())
def test_unsigned_chunks(chunks, trailer):
    body = (
        b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in chunks)
        + b"0\r\n"
        + (b"x-amz-checksum-crc32:x\r\n" if trailer else b"")
        + b"\r\n"
    )
    request = HttpRequest("PUT", "/", "", {"x-amz-decoded-content-length": str(sum(map(len, chunks)))}, body)
    assert unchunk(request) == b"".join(chunks)
    request.headers["x-amz-decoded-content-length"] = "999999"
    with pytest.raises(ClientFault, match="announced"):
        unchunk(request)


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_garbage_is_no_chunked_body(body):
    try:
        assert len(unchunk(HttpRequest("PUT", "/", "", {}, body))) < len(body)
    except ClientFault as caught:
        fault = caught
    else:
        return
    assert fault.code == "IncompleteBody"

"""Who calls: in the default mode as they say, in mode ``signature`` only as they can prove."""

from __future__ import annotations

from typing import Any

import botocore.auth
import pytest
import wire_peer
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from lambent.clock import SystemClock
from lambent.errors import ClientFault
from lambent.iam.credentials import Authenticator, Identity
from lambent.iam.sessions import Sessions
from lambent.settings import Credential, Settings
from lambent.testing.clock import ManualClock
from lambent.wire.http import HttpRequest

KNOWN = Credential("AKIDKNOWN", "secret", "222222222222")
ANY = Authenticator(Settings(account="111111111111", region="eu-central-1", credentials=(KNOWN,)), ManualClock())
STRICT = Authenticator(Settings(auth="signature", account="111111111111", credentials=(KNOWN,)), SystemClock())


def claimed(credential: str, **more: str) -> HttpRequest:
    header = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0"
    return HttpRequest("GET", "/", "", {"authorization": header, "host": "h", **more}, b"")


def signed(
    access_key: str, secret: str, signer: Any = botocore.auth.SigV4Auth, body: bytes = b"{}", token: str | None = None
) -> HttpRequest:
    request = AWSRequest("POST", "http://127.0.0.1:4566/2015-03-31/functions/f/invocations", {}, body)
    signer(Credentials(access_key, secret, token), "lambda", "ap-south-1").add_auth(request)
    return wire_peer.received(request.prepare())


@pytest.mark.parametrize(
    ("request_", "identity"),
    [
        (HttpRequest("GET", "/", "", {}, b""), Identity("111111111111", "eu-central-1", "", "arn:aws:iam::111111111111:root", None)),
        (
            claimed("333333333333/20260101/us-west-2/lambda/aws4_request"),
            Identity("333333333333", "us-west-2", "333333333333", "arn:aws:iam::333333333333:root", "lambda"),
        ),
        (
            claimed("test/20260101/us-west-2/logs/aws4_request"),
            Identity("111111111111", "us-west-2", "test", "arn:aws:iam::111111111111:user/test", "logs"),
        ),
        (
            claimed("AKIDKNOWN/20260101/us-west-2/sts/aws4_request"),
            Identity("222222222222", "us-west-2", "AKIDKNOWN", "arn:aws:iam::222222222222:user/AKIDKNOWN", "sts"),
        ),
        (
            claimed("../x/20260101/..%2F/lambda"),
            Identity("111111111111", "eu-central-1", "", "arn:aws:iam::111111111111:root", "..%2F"),
        ),
        (
            claimed("test/20260101/../../etc/lambda/aws4_request"),
            Identity("111111111111", "eu-central-1", "test", "arn:aws:iam::111111111111:user/test", None),
        ),
        (
            HttpRequest("GET", "/", "", {"authorization": "Bearer x"}, b""),
            Identity("111111111111", "eu-central-1", "", "arn:aws:iam::111111111111:root", None),
        ),
        (
            HttpRequest("GET", "/", "X-Amz-Credential=333333333333%2F20260101%2Fus-west-2%2Flambda%2Faws4_request", {}, b""),
            Identity("333333333333", "us-west-2", "333333333333", "arn:aws:iam::333333333333:root", "lambda"),
        ),
    ],
)
def test_the_default_mode_believes_everyone(request_, identity):
    assert ANY.identify(request_) == identity


@given(st.text(max_size=60))
def test_only_texts_of_the_right_form_are_taken_over(credential):
    found = ANY.identify(claimed(credential))
    assert len(found.account) == 12
    assert found.account.isascii()
    assert found.account.isdigit()
    assert set(found.region) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert "/" not in found.access_key
    assert found.principal.startswith(f"arn:aws:iam::{found.account}:")


def test_chunked_bodies_are_made_plain_in_the_default_mode():
    request = HttpRequest("PUT", "/", "", {"content-encoding": "aws-chunked"}, b"3;chunk-signature=x\r\nabc\r\n0;chunk-signature=x\r\n\r\n")
    ANY.identify(request)
    assert request.body == b"abc"
    with pytest.raises(ClientFault) as caught:
        ANY.identify(HttpRequest("PUT", "/", "", {"content-encoding": "aws-chunked"}, b"{}"))
    assert (caught.value.code, caught.value.status) == ("IncompleteBody", 400)


def test_a_proven_caller():
    request = signed("AKIDKNOWN", "secret")
    assert STRICT.identify(request) == Identity(
        "222222222222", "ap-south-1", "AKIDKNOWN", "arn:aws:iam::222222222222:user/AKIDKNOWN", "lambda"
    )
    assert request.body == b"{}"


def refusal(request: HttpRequest) -> tuple[str, int]:
    with pytest.raises(ClientFault) as caught:
        STRICT.identify(request)
    return caught.value.code, caught.value.status


def test_everyone_else_is_refused():
    assert refusal(HttpRequest("GET", "/", "", {}, b"")) == ("MissingAuthenticationTokenException", 403)
    assert refusal(HttpRequest("GET", "/", "", {"authorization": "Bearer x"}, b"")) == ("IncompleteSignatureException", 400)
    assert refusal(signed("AKIDOTHER", "secret")) == ("UnrecognizedClientException", 403)
    assert refusal(signed("222222222222", "secret")) == ("UnrecognizedClientException", 403)
    assert refusal(signed("AKIDKNOWN", "wrong")) == ("InvalidSignatureException", 403)


def test_the_clock_is_the_one_passed_in():
    late = Authenticator(Settings(auth="signature", credentials=(KNOWN,)), ManualClock(start=0.0))
    with pytest.raises(ClientFault, match="not yet current"):
        late.identify(signed("AKIDKNOWN", "secret"))


def test_a_session_ends_when_its_token_says():
    sessions = Sessions(b"secret")
    strict = Authenticator(Settings(auth="signature"), SystemClock(), sessions)
    now = int(SystemClock().now())
    session, secret, token = sessions.issue("222222222222", "role", "name", now + 900)
    assert strict.identify(signed(session.access_key, secret, token=token)).principal == "arn:aws:sts::222222222222:assumed-role/role/name"
    session, secret, token = sessions.issue("222222222222", "role", "name", now - 1)
    with pytest.raises(ClientFault) as caught:
        strict.identify(signed(session.access_key, secret, token=token))
    assert (caught.value.code, caught.value.status) == ("ExpiredTokenException", 403)

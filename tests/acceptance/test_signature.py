"""``auth = "signature"``: SigV4 is verified against the configured keys, as boto3 and presigned URLs make it."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from acceptance_helpers import ECHO, ROLE, RUNTIME, call, settle, stop_cleanly, zipped
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from raw_http import send

from lambent.testing.local_server import LocalServer

KEY, SECRET, ACCOUNT = "AKIAEXAMPLEEXAMPLE01", "secret/with+odd=characters", "123456789012"
CONFIG = f"""
auth = "signature"

[[credentials]]
access_key = "{KEY}"
secret_key = "{SECRET}"
account = "{ACCOUNT}"
"""


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    config = tmp_path_factory.mktemp("signed") / "lambent.toml"
    config.write_text(CONFIG)
    with LocalServer(config=config) as server:
        yield server
        stop_cleanly(server)


def client(server, service="lambda", key=KEY, secret=SECRET):
    return server.client(service, aws_access_key_id=key, aws_secret_access_key=secret)


def error_of(call, **arguments) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def test_a_function_signs_as_its_own_account(tmp_path):
    config = tmp_path / "lambent.toml"
    other, second = "210987654321", "AKIAEXAMPLEEXAMPLE02"
    config.write_text(f'{CONFIG}\n[[credentials]]\naccess_key = "{second}"\nsecret_key = "{SECRET}"\naccount = "{other}"\n')
    source = """
import boto3, botocore.exceptions, os, urllib.request
def handler(event, context):
    api = boto3.client("lambda")
    try:
        api.get_function(FunctionName=event)
        refused = ""
    except botocore.exceptions.ClientError as error:
        refused = error.response["Error"]["Code"]
    seen = [function["FunctionArn"] for function in api.list_functions()["Functions"]]
    return [boto3.client("sts").get_caller_identity()["Account"], seen, refused]
"""
    with LocalServer(config=config) as server:
        arns = {account: f"arn:aws:lambda:us-east-1:{account}:function:who" for account in (ACCOUNT, other)}
        for account, key in ((ACCOUNT, KEY), (other, second)):
            api = client(server, key=key)
            api.create_function(
                FunctionName="who",
                Runtime=RUNTIME,
                Role=ROLE.replace("000000000000", account),
                Handler="app.handler",
                Timeout=20,
                MemorySize=512,
                Code={"ZipFile": zipped({"app.py": source})},
            )
            settle(api, "who")
            stranger = arns[other if account == ACCOUNT else ACCOUNT]
            answer, _ = call(api, "who", stranger)
            assert answer == [account, [arns[account]], "AccessDeniedException"]
        stop_cleanly(server)


def test_what_runs_is_shown_to_those_who_sign(signed, tmp_path):
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown" / "app.py").write_text(ECHO)
    command = str(Path(sys.executable).with_name("lambent"))
    key = {"LAMBENT_ENDPOINT": signed.endpoint, "LAMBENT_ACCESS_KEY_ID": KEY, "LAMBENT_SECRET_ACCESS_KEY": SECRET}
    lines = (["deploy", str(tmp_path / "shown")], ["invoke", "shown"], ["ps"], ["events", "shown"], ["events", "shown", "--redrive"])
    for words in lines:
        done = subprocess.run([command, *words], env={**os.environ, **key}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    for page in ("environments", "story/shown", "events/shown"):
        assert fetch(f"{signed.endpoint}/_lambent/{page}") == 403
    done = subprocess.run([command, "ps"], env={**os.environ, **key, "LAMBENT_SECRET_ACCESS_KEY": "x"}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "signature" in done.stderr
    assert fetch(f"{signed.endpoint}/_lambent/health") == 200


def fetch(url: str, method: str = "GET") -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def presigned(server, path: str, expires: int = 60, secret: str = SECRET) -> str:
    request = AWSRequest("GET", server.endpoint + path)
    SigV4QueryAuth(Credentials(KEY, secret), "lambda", "us-east-1", expires=expires).add_auth(request)
    return request.url


def test_the_right_key_works_and_carries_its_account(signed):
    identity = client(signed, "sts").get_caller_identity()
    assert identity["Account"] == ACCOUNT
    api = client(signed)
    created = api.create_function(
        FunctionName="signed", Runtime=RUNTIME, Role=ROLE, Handler="app.handler", Code={"ZipFile": zipped({"app.py": ECHO})}
    )
    assert created["FunctionArn"] == f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:signed"
    settle(api, "signed")
    assert call(api, "signed", {"a": "ü / ? & %"})[0] == {"a": "ü / ? & %"}
    assert api.get_function(FunctionName=created["FunctionArn"])["Configuration"]["FunctionName"] == "signed"
    client(signed, "logs").filter_log_events(logGroupName="/aws/lambda/signed", filterPattern='"START RequestId"')


def test_the_health_page_needs_no_key(signed):
    assert signed.health()["status"] == "ok"


def test_a_wrong_secret(signed):
    assert error_of(client(signed, secret="wrong").list_functions) == ("InvalidSignatureException", 403)
    assert error_of(client(signed, "logs", secret="wrong").describe_log_groups)[1] in {400, 403}
    assert error_of(client(signed, "sts", secret="wrong").get_caller_identity)[1] == 403


def test_an_unknown_key(signed):
    code, status = error_of(client(signed, key="AKIANOBODY0000000000").list_functions)
    assert (code, status) == ("UnrecognizedClientException", 403)
    assert error_of(client(signed, key=ACCOUNT).list_functions)[1] == 403


def test_no_signature_at_all(signed):
    assert fetch(f"{signed.endpoint}/2015-03-31/functions") == 403
    answer = send(signed.port, "GET", "/2015-03-31/functions", Authorization=None)
    assert (answer.code, answer.status) == ("MissingAuthenticationTokenException", 403)


@pytest.mark.parametrize(
    "authorization",
    [
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=x",
        f"AWS4-HMAC-SHA256 Credential={KEY}/20261121/us-east-1/lambda/aws4_request, SignedHeaders=host, Signature=zz",
        f"AWS4-HMAC-SHA256 Credential={KEY}/20261121/us-east-1/lambda/aws4_request, SignedHeaders=, Signature=",
        "Basic dXNlcjpwYXNz",
        "Bearer token",
    ],
)
def test_broken_signatures(signed, authorization):
    answer = send(signed.port, "GET", "/2015-03-31/functions", Authorization=authorization)
    assert answer.status in {400, 403}, answer
    assert answer.code


def test_a_changed_body_or_query_is_noticed(signed):
    request = AWSRequest("POST", f"{signed.endpoint}/2015-03-31/functions/signed/invocations", data=b'{"n": 1}')
    SigV4Auth(Credentials(KEY, SECRET), "lambda", "us-east-1").add_auth(request)
    headers = {name.replace("-", "_"): value for name, value in request.headers.items()}
    headers["Host"] = f"127.0.0.1:{signed.port}"
    path = "/2015-03-31/functions/signed/invocations"
    assert send(signed.port, "POST", path, b'{"n": 2}', **headers).code == "InvalidSignatureException"
    assert send(signed.port, "POST", path + "?Qualifier=1", b'{"n": 1}', **headers).code == "InvalidSignatureException"


def test_an_old_signature_is_refused(signed, monkeypatch):
    import botocore.auth

    long_ago = datetime.datetime(2020, 1, 1)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: long_ago)
    assert error_of(client(signed).list_functions) == ("InvalidSignatureException", 403)


def test_presigned_urls(signed):
    assert fetch(presigned(signed, "/2015-03-31/functions")) == 200
    assert fetch(presigned(signed, "/2015-03-31/functions", secret="wrong")) == 403
    url = presigned(signed, "/2015-03-31/functions")
    assert fetch(url.replace("/functions?", "/functions/signed?")) == 403
    assert fetch(url, "DELETE") in {403, 404}


def test_an_expired_presigned_url(signed, monkeypatch):
    import botocore.auth

    earlier = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) - datetime.timedelta(minutes=5)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: earlier)
    assert fetch(presigned(signed, "/2015-03-31/functions", expires=60)) == 403
    assert fetch(presigned(signed, "/2015-03-31/functions", expires=900)) == 200

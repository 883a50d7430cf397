"""AssumeRole as the deploy tools use it before they upload: with boto3, with and without signatures that count."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from acceptance_helpers import stop_cleanly
from botocore.exceptions import ClientError

from lambent.iam.sessions import Sessions
from lambent.testing.local_server import LocalServer

KEY, SECRET, ACCOUNT = "AKIASIGNED", "a long secret", "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/cdk/publishing"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    config: Path = tmp_path_factory.mktemp("strict") / "lambent.toml"
    config.write_text(f'auth = "signature"\n[[credentials]]\naccess_key = "{KEY}"\nsecret_key = "{SECRET}"\naccount = "{ACCOUNT}"\n')
    with LocalServer(config=config) as server:
        yield server
        stop_cleanly(server)


def client(server: LocalServer, service: str, **credentials: Any) -> Any:
    return boto3.client(service, endpoint_url=server.endpoint, region_name="us-east-1", **credentials)


def assume(server: LocalServer, role: str = ROLE, **more: Any) -> dict[str, str]:
    """The credentials of a session, as boto3 wants them."""
    sts = client(server, "sts", aws_access_key_id=KEY, aws_secret_access_key=SECRET)
    answer = sts.assume_role(RoleArn=role, RoleSessionName="publisher", **more)
    assert answer["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/publishing/publisher"
    given = answer["Credentials"]
    return {
        "aws_access_key_id": given["AccessKeyId"],
        "aws_secret_access_key": given["SecretAccessKey"],
        "aws_session_token": given["SessionToken"],
    }


def code_of(call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return str(caught.value.response["Error"]["Code"])


def test_a_session_uploads_in_the_name_of_its_role(strict: LocalServer) -> None:
    session = assume(strict)
    identity = client(strict, "sts", **session).get_caller_identity()
    assert identity["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/publishing/publisher"
    assert identity["Account"] == ACCOUNT
    assert identity["UserId"].endswith(":publisher")
    s3 = client(strict, "s3", **session)
    s3.create_bucket(Bucket="assets")
    s3.put_object(Bucket="assets", Key="k", Body=b"code")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "assets", "Key": "k"})
    assert "X-Amz-Security-Token=" in url or "x-amz-security-token=" in url
    own = client(strict, "s3", aws_access_key_id=KEY, aws_secret_access_key=SECRET)
    assert own.get_object(Bucket="assets", Key="k")["Body"].read() == b"code"
    strict.kill()
    strict.start()
    assert s3.get_object(Bucket="assets", Key="k")["Body"].read() == b"code"  # a session outlives the server


def test_what_is_no_session_of_ours_is_refused(strict: LocalServer) -> None:
    session = assume(strict)
    other = assume(strict)
    wrong = [
        {**session, "aws_secret_access_key": other["aws_secret_access_key"]},
        {**session, "aws_session_token": other["aws_session_token"]},
        {**session, "aws_session_token": session["aws_session_token"][:-1] + "!"},
        {name: value for name, value in session.items() if name != "aws_session_token"},
    ]
    found = [code_of(client(strict, "sts", **each).get_caller_identity) for each in wrong]
    assert found[0] in ("InvalidSignatureException", "SignatureDoesNotMatch")
    assert found[1:] == ["UnrecognizedClientException"] * 3 or set(found[1:]) == {"InvalidClientTokenId"}, found


def test_other_accounts_and_narrowed_sessions(strict: LocalServer) -> None:
    sts = client(strict, "sts", aws_access_key_id=KEY, aws_secret_access_key=SECRET)
    named = {"RoleSessionName": "publisher"}
    assert code_of(sts.assume_role, RoleArn="arn:aws:iam::111111111111:role/r", **named) == "AccessDenied"
    assert code_of(sts.assume_role, RoleArn="arn:aws:s3:::bucket/role/r", **named) == "ValidationError"
    assert code_of(sts.assume_role, RoleArn=ROLE, Policy="{}", **named) == "NotImplementedException"


def test_without_signatures_the_account_of_the_role_counts(server: LocalServer) -> None:
    sts = client(server, "sts", aws_access_key_id="111111111111", aws_secret_access_key="any")
    given = sts.assume_role(RoleArn="arn:aws:iam::111111111111:role/r", RoleSessionName="here")["Credentials"]
    session = {
        "aws_access_key_id": given["AccessKeyId"],
        "aws_secret_access_key": given["SecretAccessKey"],
        "aws_session_token": given["SessionToken"],
    }
    assert client(server, "sts", **session).get_caller_identity()["Account"] == "111111111111"


def test_tokens_are_read_by_who_made_them_only() -> None:
    sessions = Sessions(b"one")
    session, _, token = sessions.issue("1" * 12, "role", "name", 7)
    assert sessions.read(session.access_key, token) == session
    assert Sessions(b"other").read(session.access_key, token) is None
    for text in ("", ".", "a.b", token + "x", "x" + token, "\udcff." + "0" * 64, token * 20):
        assert sessions.read(session.access_key, text) is None
    assert sessions.read("ASIAOTHER", token) is None

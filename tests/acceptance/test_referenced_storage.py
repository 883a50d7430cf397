"""Code that stays in a bucket, on a server that looks at it often: created, shown, invoked, lost, and brought back."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from acceptance_helpers import ROLE, RUNTIME, settle, stop_cleanly, zipped
from aws_cli import aws
from botocore.exceptions import ClientError

from lambent.testing.local_server import LocalServer

OTHER_ACCOUNT = "111111111111"
SETTINGS = "[limits]\ncode_check_seconds = 0.5\n"


@pytest.fixture(scope="module")
def watchful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    config = tmp_path_factory.mktemp("watchful") / "lambent.toml"
    config.write_text(SETTINGS)
    with LocalServer(config=config) as running:
        yield running
        stop_cleanly(running)


def answers(word: str) -> bytes:
    return zipped({"app.py": f"def handler(event, context):\n    return {word!r}\n"})


def versioned(s3: Any, bucket: str) -> None:
    s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


def referring(bucket: str, key: str = "f.zip", **more: str) -> dict[str, str]:
    return {"S3Bucket": bucket, "S3Key": key, "S3ObjectStorageMode": "REFERENCE", **more}


def create(api: Any, name: str, code: dict[str, Any], **options: Any) -> None:
    api.create_function(FunctionName=name, Runtime=RUNTIME, Role=ROLE, Handler="app.handler", Code=code, **options)
    settle(api, name)


def invoked(api: Any, name: str, **options: Any) -> Any:
    return json.load(api.invoke(FunctionName=name, **options)["Payload"])


def refused(call: Any, **arguments: Any) -> tuple[str, int, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    answer = caught.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Message"]


def until(api: Any, name: str, state: str, **options: Any) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while True:
        shown: dict[str, Any] = api.get_function_configuration(FunctionName=name, **options)
        if shown["State"] == state:
            return shown
        assert time.monotonic() < deadline, shown
        time.sleep(0.01)


def stored(api: Any) -> int:
    return int(api.get_account_settings()["AccountUsage"]["TotalCodeSize"])


def folder_of(server: LocalServer, content: bytes) -> Path:
    return server.data_dir / "code" / hashlib.sha256(content).hexdigest()


def test_from_creation_over_loss_to_the_end(watchful: LocalServer) -> None:
    api, s3 = watchful.client("lambda"), watchful.client("s3")
    versioned(s3, "kept")
    first = s3.put_object(Bucket="kept", Key="f.zip", Body=answers("one"))["VersionId"]
    before = stored(api)
    create(api, "whole", referring("kept"), Publish=True)
    assert invoked(api, "whole") == "one"
    code = api.get_function(FunctionName="whole")["Code"]
    assert code["ResolvedS3Object"] == {"S3Bucket": "kept", "S3Key": "f.zip", "S3ObjectVersion": first}
    with urllib.request.urlopen(code["Location"]) as answer:
        assert answer.read() == answers("one")
    assert stored(api) == before

    s3.put_object(Bucket="kept", Key="f.zip", Body=answers("two"))
    assert invoked(api, "whole") == "one"  # what is referred to is a version
    s3.delete_object(Bucket="kept", Key="f.zip")  # which hides the object, not its version
    assert invoked(api, "whole") == "one"
    s3.delete_object(Bucket="kept", Key="f.zip", VersionId=first)
    lost = until(api, "whole", "Inactive")
    assert lost["StateReasonCode"] == "Idle"
    assert f"s3://kept/f.zip in version {first}" in lost["StateReason"]
    assert "NoSuchVersion" in lost["StateReason"]
    error, status, text = refused(api.invoke, FunctionName="whole")
    assert (error, status) == ("ResourceConflictException", 409)
    assert text == "The operation cannot be performed at this time. The function is currently in the following state: Inactive"
    with pytest.raises(urllib.error.HTTPError) as gone:
        urllib.request.urlopen(code["Location"])
    assert gone.value.code == 404
    assert invoked(api, "whole", Qualifier="1") == "one"  # a version that runs is not stopped

    again = s3.put_object(Bucket="kept", Key="f.zip", Body=answers("three"))["VersionId"]
    api.update_function_code(FunctionName="whole", **referring("kept"))
    settle(api, "whole")
    assert invoked(api, "whole") == "three"
    assert api.get_function(FunctionName="whole")["Code"]["ResolvedS3Object"]["S3ObjectVersion"] == again
    assert stored(api) == before
    api.update_function_code(FunctionName="whole", S3Bucket="kept", S3Key="f.zip")
    settle(api, "whole")
    assert "ResolvedS3Object" not in api.get_function(FunctionName="whole")["Code"]
    assert stored(api) > before
    s3.delete_object(Bucket="kept", Key="f.zip", VersionId=again)
    assert invoked(api, "whole") == "three"


def test_what_cannot_be_referred_to(watchful: LocalServer) -> None:
    api, s3 = watchful.client("lambda"), watchful.client("s3")
    s3.create_bucket(Bucket="plain")
    s3.put_object(Bucket="plain", Key="f.zip", Body=answers("x"))
    function = {"FunctionName": "never", "Runtime": RUNTIME, "Role": ROLE, "Handler": "app.handler"}
    error, status, text = refused(api.create_function, **function, Code=referring("plain"))
    assert (error, status) == ("InvalidParameterValueException", 400)
    assert "Enable versioning for the bucket plain" in text
    _, _, text = refused(api.create_function, **function, Code=referring("plain", "no.zip"))
    assert text.startswith("Error occurred while GetObject. S3 Error Code: NoSuchKey.")
    _, _, text = refused(api.create_function, **function, Code={"ZipFile": answers("x"), "S3ObjectStorageMode": "REFERENCE"})
    assert text == "Please do not provide other FunctionCode parameters when providing a ZipFile."


def test_a_bucket_of_another_account_and_region_must_let_lambda_in(watchful: LocalServer) -> None:
    api = watchful.client("lambda")
    theirs = watchful.client("s3", aws_access_key_id=OTHER_ACCOUNT, region_name="eu-west-1")
    theirs.create_bucket(Bucket="theirs", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    theirs.put_bucket_versioning(Bucket="theirs", VersioningConfiguration={"Status": "Enabled"})
    theirs.put_object(Bucket="theirs", Key="f.zip", Body=answers("lent"))
    function = {"FunctionName": "borrower", "Runtime": RUNTIME, "Role": ROLE, "Handler": "app.handler"}
    error, status, _ = refused(api.create_function, **function, Code=referring("theirs"))
    assert (error, status) == ("AccessDeniedException", 403)
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "lambda.amazonaws.com"},
        "Action": ["s3:GetObject", "s3:GetObjectVersion"],
        "Resource": "arn:aws:s3:::theirs/*",
        "Condition": {"ArnLike": {"aws:SourceArn": "arn:aws:lambda:us-east-1:000000000000:function:borrower"}},
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    theirs.put_bucket_policy(Bucket="theirs", Policy=policy)
    assert refused(api.create_function, **{**function, "FunctionName": "thief"}, Code=referring("theirs"))[0] == "AccessDeniedException"
    create(api, "borrower", referring("theirs"))
    assert invoked(api, "borrower") == "lent"
    theirs.delete_bucket_policy(Bucket="theirs")
    assert "AccessDenied" in until(api, "borrower", "Inactive")["StateReason"]
    theirs.put_bucket_policy(Bucket="theirs", Policy=policy)
    assert refused(api.invoke, FunctionName="borrower")[1] == 409
    until(api, "borrower", "Active")
    assert invoked(api, "borrower") == "lent"


def test_layers_stay_in_buckets(watchful: LocalServer) -> None:
    api, s3 = watchful.client("lambda"), watchful.client("s3")
    versioned(s3, "layered")
    version = s3.put_object(Bucket="layered", Key="l.zip", Body=zipped({"python/lent.py": "WORD = 'from a layer'\n"}))["VersionId"]
    before = stored(api)
    layer = api.publish_layer_version(LayerName="lent", Content=referring("layered", "l.zip"))
    resolved = {"S3Bucket": "layered", "S3Key": "l.zip", "S3ObjectVersion": version}
    assert layer["Content"]["ResolvedS3Object"] == resolved
    shown = api.get_layer_version(LayerName="lent", VersionNumber=1)["Content"]
    assert shown["ResolvedS3Object"] == resolved
    with urllib.request.urlopen(shown["Location"]) as answer:
        assert len(answer.read()) == shown["CodeSize"]
    assert stored(api) == before
    source = "import lent\n\ndef handler(event, context):\n    return lent.WORD\n"
    create(api, "layered", {"ZipFile": zipped({"app.py": source})}, Layers=[layer["LayerVersionArn"]])
    assert invoked(api, "layered") == "from a layer"
    s3.delete_object(Bucket="layered", Key="l.zip", VersionId=version)
    api.update_function_configuration(FunctionName="layered", Description="goes on")
    settle(api, "layered")
    assert invoked(api, "layered") == "from a layer"
    error, _, text = refused(api.update_function_configuration, FunctionName="layered", Layers=[layer["LayerVersionArn"]])
    assert error == "InvalidParameterValueException"
    assert text.startswith("Error occurred while GetObject. S3 Error Code: NoSuchVersion.")


def test_with_the_command_line(watchful: LocalServer, tmp_path: Path) -> None:
    """As the pages of AWS have it."""

    def run(*words: str) -> Any:
        return json.loads(aws(watchful.endpoint, tmp_path, *words) or "null")

    (tmp_path / "f.zip").write_bytes(answers("typed"))
    run("s3api", "create-bucket", "--bucket", "typed")
    run("s3api", "put-bucket-versioning", "--bucket", "typed", "--versioning-configuration", "Status=Enabled")
    version = run("s3api", "put-object", "--bucket", "typed", "--key", "f.zip", "--body", "f.zip")["VersionId"]
    code = f"S3Bucket=typed,S3Key=f.zip,S3ObjectVersion={version},S3ObjectStorageMode=REFERENCE"
    words = ["--function-name", "typed", "--runtime", RUNTIME, "--role", ROLE, "--handler", "app.handler", "--code", code]
    assert run("lambda", "create-function", *words)["State"] == "Pending"
    aws(watchful.endpoint, tmp_path, "lambda", "wait", "function-active-v2", "--function-name", "typed")
    assert run("lambda", "get-function", "--function-name", "typed")["Code"]["ResolvedS3Object"]["S3ObjectVersion"] == version
    aws(watchful.endpoint, tmp_path, "lambda", "invoke", "--function-name", "typed", "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == "typed"
    mode = ["--s3-bucket", "typed", "--s3-key", "f.zip", "--s3-object-storage-mode", "REFERENCE"]
    assert run("lambda", "update-function-code", "--function-name", "typed", *mode)["LastUpdateStatus"] == "InProgress"


def test_another_s3(watchful: LocalServer, tmp_path: Path) -> None:
    """The other server's store stands for it; what that one is asked is what any S3 is."""
    s3 = watchful.client("s3")
    versioned(s3, "far")
    s3.create_bucket(Bucket="far-plain")
    s3.put_object(Bucket="far-plain", Key="f.zip", Body=answers("x"))
    first = s3.put_object(Bucket="far", Key="f.zip", Body=answers("far"))["VersionId"]
    config = tmp_path / "lambent.toml"
    config.write_text(f'{SETTINGS}[s3]\nendpoint = "{watchful.endpoint}"\naccess_key = "test"\nsecret_key = "test"\n')
    with LocalServer(config=config) as server:
        api = server.client("lambda")
        create(api, "far", referring("far"))
        code = api.get_function(FunctionName="far")["Code"]
        assert code["ResolvedS3Object"]["S3ObjectVersion"] == first
        with urllib.request.urlopen(code["Location"]) as answer:
            assert answer.read() == answers("far")
        function = {"FunctionName": "never", "Runtime": RUNTIME, "Role": ROLE, "Handler": "app.handler"}
        assert "Enable versioning" in refused(api.create_function, **function, Code=referring("far-plain"))[2]
        server.kill()
        folder = folder_of(server, answers("far"))
        shutil.rmtree(folder)
        server.start()
        deadline = time.monotonic() + 30
        while not folder.is_dir():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert invoked(api, "far") == "far"
        s3.delete_object(Bucket="far", Key="f.zip", VersionId=first)
        assert "cannot be accessed" in until(api, "far", "Inactive")["StateReason"]
        assert refused(api.invoke, FunctionName="far")[1] == 409
        s3.put_object(Bucket="far", Key="f.zip", Body=answers("far again"))
        until(api, "far", "Inactive")
        api.update_function_code(FunctionName="far", **referring("far"))
        settle(api, "far")
        assert invoked(api, "far") == "far again"
        stop_cleanly(server)


def test_a_folder_that_is_missing_after_a_restart_is_fetched_again() -> None:
    with LocalServer() as server:
        api, s3 = server.client("lambda"), server.client("s3")
        versioned(s3, "kept")
        stays = s3.put_object(Bucket="kept", Key="stays.zip", Body=answers("stays"))["VersionId"]
        goes = s3.put_object(Bucket="kept", Key="goes.zip", Body=answers("goes"))["VersionId"]
        create(api, "stays", referring("kept", "stays.zip", S3ObjectVersion=stays))
        create(api, "goes", referring("kept", "goes.zip", S3ObjectVersion=goes), Publish=True)
        s3.delete_object(Bucket="kept", Key="goes.zip", VersionId=goes)
        server.kill()
        for word in ("stays", "goes"):
            shutil.rmtree(folder_of(server, answers(word)))
        server.start()
        assert invoked(api, "stays") == "stays"
        for options in ({}, {"Qualifier": "1"}):
            assert "NoSuchVersion" in until(api, "goes", "Inactive", **options)["StateReason"]
            assert refused(api.invoke, FunctionName="goes", **options)[1] == 409
        s3.put_object(Bucket="kept", Key="goes.zip", Body=answers("is back"))
        api.update_function_code(FunctionName="goes", **referring("kept", "goes.zip"))
        settle(api, "goes")
        assert invoked(api, "goes") == "is back"
        stop_cleanly(server)

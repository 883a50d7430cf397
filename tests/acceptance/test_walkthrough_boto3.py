"""boto3, unchanged, against a real server with real sandboxes: the life of a function from creation to deletion."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from acceptance_helpers import ECHO, ROLE, RUNTIME, call, settle, zipped
from botocore.exceptions import ClientError

UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
REPORT = re.compile(
    rf"REPORT RequestId: ({UUID})\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\tMemory Size: (\d+) MB\tMax Memory Used: \d+ MB\t"
)


def refused(call, code, status, text=None, **arguments):
    """Assert that AWS's error ``code`` comes back; gives the whole response."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == (code, status), response
    if text is not None:
        assert text in response["Error"]["Message"]
    return response


# Creation and reading


def test_create_answers_pending_and_becomes_active(api, deploy):
    code = zipped({"app.py": ECHO})
    created = deploy("born", ECHO, Description="first", Code={"ZipFile": code})
    assert created["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert (created["State"], created["StateReason"], created["StateReasonCode"]) == (
        "Pending",
        "The function is being created.",
        "Creating",
    )
    assert "LastUpdateStatus" not in created
    active = api.get_function_configuration(FunctionName="born")
    assert (active["State"], active["LastUpdateStatus"]) == ("Active", "Successful")
    assert "StateReason" not in active
    assert active["RevisionId"] != created["RevisionId"]
    assert re.fullmatch(UUID, active["RevisionId"])
    expected = {
        "FunctionName": "born",
        "FunctionArn": "arn:aws:lambda:us-east-1:000000000000:function:born",
        "Runtime": RUNTIME,
        "Role": ROLE,
        "Handler": "app.handler",
        "CodeSize": len(code),
        "CodeSha256": base64.b64encode(hashlib.sha256(code).digest()).decode(),
        "Description": "first",
        "Timeout": 3,
        "MemorySize": 128,
        "Version": "$LATEST",
        "TracingConfig": {"Mode": "PassThrough"},
        "PackageType": "Zip",
        "Architectures": ["x86_64"],
        "EphemeralStorage": {"Size": 512},
        "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
        "LoggingConfig": {"LogFormat": "Text", "LogGroup": "/aws/lambda/born"},
    }
    assert {name: active[name] for name in expected} == expected
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000", active["LastModified"])


def test_get_function_gives_a_working_download(api, deploy):
    code = zipped({"app.py": ECHO})
    deploy("download", ECHO, Code={"ZipFile": code}, Tags={"team": "blue"})
    found = api.get_function(FunctionName="download")
    assert found["Code"]["RepositoryType"] == "S3"
    with urllib.request.urlopen(found["Code"]["Location"], timeout=10) as answer:
        assert answer.read() == code
    assert found["Tags"] == {"team": "blue"}
    by_arn = api.get_function(FunctionName=found["Configuration"]["FunctionArn"])
    assert by_arn["Configuration"]["RevisionId"] == found["Configuration"]["RevisionId"]
    latest = api.get_function_configuration(FunctionName="download", Qualifier="$LATEST")
    assert latest["FunctionArn"].endswith(":function:download:$LATEST")


def test_creating_twice_is_a_conflict(api, deploy):
    deploy("twice", ECHO)
    refused(
        api.create_function,
        "ResourceConflictException",
        409,
        "Function already exist: twice",
        FunctionName="twice",
        Runtime=RUNTIME,
        Role=ROLE,
        Handler="app.handler",
        Code={"ZipFile": zipped({"app.py": ECHO})},
    )


def test_list_pages_through_every_function_once(api, deploy):
    names = [f"page-{number}" for number in range(5)]
    for name in names:
        deploy(name, ECHO)
    first = api.list_functions(MaxItems=2)
    assert len(first["Functions"]) == 2
    assert first["NextMarker"]
    assert "State" not in first["Functions"][0]
    assert "LastUpdateStatus" not in first["Functions"][0]
    pages = list(api.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 2}))
    listed = [entry["FunctionName"] for page in pages for entry in page["Functions"]]
    assert sorted(listed) == sorted(set(listed))
    assert set(names) <= set(listed)
    refused(api.list_functions, "InvalidParameterValueException", 400, Marker="not a marker")


def test_unknown_functions_are_not_found(api):
    arn = "arn:aws:lambda:us-east-1:000000000000:function:nobody"
    refused(api.get_function, "ResourceNotFoundException", 404, f"Function not found: {arn}", FunctionName="nobody")
    refused(api.invoke, "ResourceNotFoundException", 404, f"Function not found: {arn}:$LATEST", FunctionName="nobody")
    refused(api.delete_function, "ResourceNotFoundException", 404, f"Function not found: {arn}", FunctionName="nobody")


def test_accounts_and_regions_do_not_see_each_other(server, api, deploy):
    deploy("mine", ECHO)
    other = server.client("lambda", aws_access_key_id="111111111111")
    assert server.client("sts", aws_access_key_id="111111111111").get_caller_identity()["Account"] == "111111111111"
    assert server.client("sts").get_caller_identity()["Account"] == "000000000000"
    refused(other.get_function, "ResourceNotFoundException", 404, FunctionName="mine")
    refused(server.client("lambda", region_name="eu-west-1").get_function, "ResourceNotFoundException", 404, FunctionName="mine")
    assert "mine" not in [entry["FunctionName"] for entry in other.list_functions()["Functions"]]


# Invocation


def test_invoke_answers_with_payload_version_and_tail(api, deploy):
    deploy(
        "tail",
        """
def handler(event, context):
    print("seen", event["n"])
    return {"n": event["n"] + 1, "id": context.aws_request_id, "arn": context.invoked_function_arn,
            "name": context.function_name, "memory": context.memory_limit_in_mb, "left": context.get_remaining_time_in_millis()}
""",
        Timeout=7,
        MemorySize=256,
    )
    payload, answer = call(api, "tail", {"n": 41})
    assert answer["StatusCode"] == 200
    assert answer["ExecutedVersion"] == "$LATEST"
    assert "FunctionError" not in answer
    assert payload["n"] == 42
    assert payload["id"] == answer["ResponseMetadata"]["RequestId"]
    assert payload["arn"] == "arn:aws:lambda:us-east-1:000000000000:function:tail"
    assert (payload["name"], int(payload["memory"])) == ("tail", 256)
    assert 0 < payload["left"] <= 7_000
    lines = answer["log"].splitlines()
    assert lines[0] == f"START RequestId: {payload['id']} Version: $LATEST"
    assert lines[1:3] == ["seen 41", f"END RequestId: {payload['id']}"]
    report = REPORT.match(lines[3])
    assert report
    assert (report[1], report[2]) == (payload["id"], "256")
    assert "Init Duration: " in lines[3]
    _, second = call(api, "tail", {"n": 1})
    assert "Init Duration: " not in second["log"]
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert re.match(r"root=1-[0-9a-f]{8}-[0-9a-f]{24}", headers["x-amzn-trace-id"].lower())
    assert "LogResult" not in api.invoke(FunctionName="tail", Payload='{"n": 1}')


def test_nothing_in_and_nothing_out(api, deploy):
    deploy("void", "def handler(event, context):\n    assert event == {}, event\n")
    answer = api.invoke(FunctionName="void")
    assert (answer["Payload"].read(), answer.get("FunctionError")) == (b"null", None)


def test_dry_run_runs_nothing(api, deploy):
    deploy("dry", "raise RuntimeError('must not run')\n")
    answer = api.invoke(FunctionName="dry", InvocationType="DryRun")
    assert (answer["StatusCode"], answer["Payload"].read()) == (204, b"")


def test_client_context_and_trace_reach_the_function(api, deploy):
    deploy(
        "context",
        """
import os
def handler(event, context):
    return {"custom": context.client_context.custom, "trace": os.environ["_X_AMZN_TRACE_ID"]}
""",
    )
    sent = base64.b64encode(json.dumps({"custom": {"k": "v"}}).encode()).decode()
    payload, _ = call(api, "context", {}, ClientContext=sent)
    assert payload["custom"] == {"k": "v"}
    assert payload["trace"].startswith("Root=1-")


def test_the_environment_is_what_aws_promises(api, deploy):
    deploy(
        "inside",
        """
import os, sys, boto3
def handler(event, context):
    try:
        open("/var/task/x", "w")
        task = "writable"
    except OSError:
        task = "read-only"
    open("/tmp/x", "w").write("y")
    return {"environ": dict(os.environ), "cwd": os.getcwd(), "task": task, "path": sys.path, "boto3": boto3.__version__,
            "home": os.listdir("/var/task"), "uid": os.getuid()}
""",
        Environment={"Variables": {"COLOUR": "blue"}},
    )
    payload, _ = call(api, "inside")
    environ = payload["environ"]
    expected = {
        "COLOUR": "blue",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{RUNTIME}",
        "AWS_LAMBDA_FUNCTION_NAME": "inside",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/inside",
        "LAMBDA_TASK_ROOT": "/var/task",
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "_HANDLER": "app.handler",
        "TZ": ":UTC",
    }
    assert {name: environ.get(name) for name in expected} == expected
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", environ["AWS_LAMBDA_LOG_STREAM_NAME"])
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} <= set(environ)
    assert (payload["cwd"], payload["task"], payload["home"]) == ("/var/task", "read-only", ["app.py"])
    assert "/var/task" in payload["path"]
    assert payload["boto3"]


def test_environments_are_reused_and_run_side_by_side(server, api, deploy):
    deploy(
        "reuse",
        """
import time, uuid
ME = uuid.uuid4().hex
calls = 0
def handler(event, context):
    global calls
    calls += 1
    time.sleep(event.get("sleep", 0))
    return [ME, calls]
""",
        Timeout=20,
    )
    first, _ = call(api, "reuse", {})
    second, _ = call(api, "reuse", {})
    assert second == [first[0], 2]
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: call(api, "reuse", {"sleep": 2})[0], range(4)))
    assert len({identity for identity, _ in answers}) == 4
    shown = [entry for entry in server.page("environments")["environments"] if "reuse" in entry["function"]]
    assert len(shown) == 4
    told = server.page(f"story/{shown[0]['id']}")
    assert told["id"] == shown[0]["id"]
    assert {"at", "event", "cause", "detail"} <= set(told["story"][0])


# Errors of functions: always 200, with AWS's payloads


@pytest.mark.parametrize(
    ("source", "handler", "error_type", "message"),
    [
        ("def handler(event, context):\n    raise ValueError('no luck')\n", "app.handler", "ValueError", "no luck"),
        ("import nothing_like_this\n", "app.handler", "Runtime.ImportModuleError", "Unable to import module 'app': No module named"),
        ("x = 1\n", "app.handler", "Runtime.HandlerNotFound", "Handler 'handler' missing on module 'app'"),
        ("def handler(:\n", "app.handler", "Runtime.UserCodeSyntaxError", "Syntax error in module 'app'"),
        (ECHO, "nodot", "Runtime.MalformedHandlerName", "Bad handler 'nodot'"),
        ("raise RuntimeError('at init')\n", "app.handler", "RuntimeError", "at init"),
        ("def handler(event, context):\n    return {1, 2}\n", "app.handler", "Runtime.MarshalError", "Unable to marshal response"),
        (
            "import sys\ndef handler(event, context):\n    sys.exit(3)\n",
            "app.handler",
            "Runtime.ExitError",
            "RequestId: {id} Error: Runtime exited with error: exit status 3",
        ),
        (
            "import os\ndef handler(event, context):\n    os._exit(0)\n",
            "app.handler",
            "Runtime.ExitError",
            "RequestId: {id} Error: Runtime exited without providing a reason",
        ),
        (
            "import os, signal\ndef handler(event, context):\n    os.kill(os.getpid(), signal.SIGSEGV)\n",
            "app.handler",
            "Runtime.ExitError",
            "RequestId: {id} Error: Runtime exited with error: signal: segmentation fault",
        ),
        (
            "def handler(event, context):\n    return 'x' * 6_291_557\n",
            "app.handler",
            "Function.ResponseSizeTooLarge",
            "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
        ),
        (
            "import time\ndef handler(event, context):\n    time.sleep(30)\n",
            "app.handler",
            "Sandbox.Timedout",
            "RequestId: {id} Error: Task timed out after 1.00 seconds",
        ),
    ],
)
def test_error_payloads(api, deploy, request, source, handler, error_type, message):
    name = f"error-{abs(hash(request.node.name)) % 10**9}"
    deploy(name, source, Handler=handler, Timeout=1 if error_type == "Sandbox.Timedout" else 10)
    payload, answer = call(api, name)
    identity = answer["ResponseMetadata"]["RequestId"]
    assert answer["StatusCode"] == 200
    assert answer["FunctionError"] == "Unhandled"
    assert payload["errorType"] == error_type
    assert message.format(id=identity) in payload["errorMessage"]
    if error_type == "ValueError":
        assert payload["requestId"] == identity
        assert payload["stackTrace"][-1] == "  File \"/var/task/app.py\", line 2, in handler\n    raise ValueError('no luck')\n"
        assert "[ERROR] ValueError: no luck" in answer["log"]
    if error_type == "Sandbox.Timedout":
        assert "Status: timeout" in answer["log"]
    again, second = call(api, name)
    assert (second["FunctionError"], again["errorType"]) == ("Unhandled", error_type)


def test_memory_is_bounded(server, api, deploy):
    if server.health()["isolation"]["driver"] == "process":
        pytest.skip("the process driver cannot bound memory")
    deploy(
        "glutton",
        "def handler(event, context):\n    if event.get('eat'):\n        x = bytearray(512 * 2**20)\n    return 'fine'\n",
        Timeout=30,
    )
    payload, answer = call(api, "glutton", {"eat": True})
    assert (answer["FunctionError"], payload["errorType"]) == ("Unhandled", "Runtime.OutOfMemory")
    assert payload["errorMessage"].endswith("Error: Runtime exited with error: signal: killed")
    assert call(api, "glutton", {})[0] == "fine"


# Change


def test_new_code_runs_after_an_update(api, deploy):
    deploy("code", "def handler(event, context):\n    return 1\n")
    assert call(api, "code")[0] == 1
    before = api.get_function_configuration(FunctionName="code")
    answer = api.update_function_code(FunctionName="code", ZipFile=zipped({"app.py": "def handler(event, context):\n    return 2\n"}))
    assert (answer["State"], answer["LastUpdateStatus"], answer["LastUpdateStatusReasonCode"]) == ("Active", "InProgress", "Creating")
    assert answer["CodeSha256"] != before["CodeSha256"]
    settle(api, "code")
    after = api.get_function_configuration(FunctionName="code")
    assert after["LastUpdateStatus"] == "Successful"
    assert len({before["RevisionId"], answer["RevisionId"], after["RevisionId"]}) == 3
    assert call(api, "code")[0] == 2


def test_a_dry_run_of_an_update_changes_nothing(api, deploy):
    deploy("rehearsal", ECHO)
    before = api.get_function_configuration(FunctionName="rehearsal")
    api.update_function_code(FunctionName="rehearsal", ZipFile=zipped({"app.py": "x"}), DryRun=True)
    after = api.get_function_configuration(FunctionName="rehearsal")
    assert (after["RevisionId"], after["CodeSha256"]) == (before["RevisionId"], before["CodeSha256"])


def test_configuration_changes_take_effect_and_keep_the_rest(api, deploy):
    deploy(
        "config",
        "import os\ndef handler(event, context):\n    return [os.environ.get('AA'), context.memory_limit_in_mb]\n",
        Description="kept",
    )
    assert call(api, "config")[0] == [None, "128"]
    api.update_function_configuration(FunctionName="config", Environment={"Variables": {"AA": "1"}}, MemorySize=256, Timeout=9)
    settle(api, "config")
    found = api.get_function_configuration(FunctionName="config")
    assert (found["MemorySize"], found["Timeout"], found["Description"]) == (256, 9, "kept")
    assert found["Environment"] == {"Variables": {"AA": "1"}}
    assert call(api, "config")[0] == ["1", "256"]
    refused(
        api.update_function_configuration,
        "PreconditionFailedException",
        412,
        "The Revision Id provided does not match the latest Revision Id",
        FunctionName="config",
        Timeout=5,
        RevisionId="00000000-0000-0000-0000-000000000000",
    )


def test_tags(api, deploy):
    arn = deploy("tags", ECHO, Tags={"a": "1"})["FunctionArn"]
    api.tag_resource(Resource=arn, Tags={"b": "2", "c": "3"})
    assert api.list_tags(Resource=arn)["Tags"] == {"a": "1", "b": "2", "c": "3"}
    api.untag_resource(Resource=arn, TagKeys=["a", "c"])
    assert api.list_tags(Resource=arn)["Tags"] == {"b": "2"}
    assert api.get_function(FunctionName="tags")["Tags"] == {"b": "2"}
    refused(api.tag_resource, "InvalidParameterValueException", 400, Resource=arn, Tags={str(number): "x" for number in range(60)})


def test_account_settings_count_what_is_there(api, deploy):
    before = api.get_account_settings()["AccountUsage"]
    deploy("counted", ECHO)
    settings = api.get_account_settings()
    assert settings["AccountLimit"]["CodeSizeZipped"] == 52_428_800
    assert settings["AccountLimit"]["ConcurrentExecutions"] == 1_000
    assert settings["AccountUsage"]["FunctionCount"] == before["FunctionCount"] + 1
    assert settings["AccountUsage"]["TotalCodeSize"] > before["TotalCodeSize"]


def test_what_is_not_there_yet_says_so(api):
    missing = "ListDurableExecutionsByFunction"
    refused(lambda: api.list_durable_executions_by_function(FunctionName="x"), "NotImplementedException", 501, missing)


# Logs


def test_logs_can_be_described_read_filtered_and_deleted(api, logs, deploy):
    deploy("logged", "def handler(event, context):\n    print('needle', event['n'])\n")
    for number in range(3):
        call(api, "logged", {"n": number})
    group = "/aws/lambda/logged"
    described = logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    assert [entry["logGroupName"] for entry in described] == [group]
    streams = logs.describe_log_streams(logGroupName=group)["logStreams"]
    assert len(streams) == 1
    events = logs.get_log_events(logGroupName=group, logStreamName=streams[0]["logStreamName"], startFromHead=True)["events"]
    messages = [event["message"] for event in events]
    assert messages[0].startswith(f"INIT_START Runtime Version: {RUNTIME.replace('python', 'python:')}")
    assert [message.split(" ")[0] for message in messages[1:5]] == ["START", "needle", "END", "REPORT"]
    found = logs.filter_log_events(logGroupName=group, filterPattern="needle")["events"]
    assert [event["message"].strip() for event in found] == ["needle 0", "needle 1", "needle 2"]
    assert len({event["eventId"] for event in found}) == 3
    logs.put_retention_policy(logGroupName=group, retentionInDays=7)
    assert logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"][0]["retentionInDays"] == 7
    logs.delete_log_group(logGroupName=group)
    assert logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"] == []


def test_logs_page_through_everything_once(api, logs, deploy):
    deploy("chatty", "def handler(event, context):\n    for n in range(50):\n        print('line', n)\n")
    call(api, "chatty")
    pages = list(
        logs.get_paginator("filter_log_events").paginate(
            logGroupName="/aws/lambda/chatty", filterPattern="line", PaginationConfig={"PageSize": 7}
        )
    )
    assert len(pages) >= 8
    assert [event["message"].strip() for page in pages for event in page["events"]] == [f"line {number}" for number in range(50)]


# The end


def test_a_deleted_function_is_gone(api, deploy):
    deploy("gone", ECHO)
    assert call(api, "gone", {"a": 1})[0] == {"a": 1}
    api.delete_function(FunctionName="gone")
    refused(api.get_function, "ResourceNotFoundException", 404, FunctionName="gone")
    refused(api.invoke, "ResourceNotFoundException", 404, FunctionName="gone")
    deploy("gone", "def handler(event, context):\n    return 'anew'\n")
    assert call(api, "gone")[0] == "anew"

"""What was acknowledged is there after a restart, whether the server was asked to stop or killed."""

from __future__ import annotations

import threading
import time

import pytest
from acceptance_helpers import ROLE, RUNTIME, call, settle, zipped
from botocore.exceptions import ClientError

from lambent.testing.local_server import LocalServer

_SOURCE = "def handler(event, context):\n    print('remember me', event)\n    return event\n"


@pytest.mark.parametrize("end", ["SIGTERM", "kill -9"])
def test_functions_tags_and_logs_survive(tmp_path, end):
    with LocalServer(tmp_path / "data") as server:
        api = server.client("lambda")
        api.create_function(
            FunctionName="keeper",
            Runtime=RUNTIME,
            Role=ROLE,
            Handler="app.handler",
            Code={"ZipFile": zipped({"app.py": _SOURCE})},
            Tags={"kept": "yes"},
        )
        settle(api, "keeper")
        assert call(api, "keeper", 7)[0] == 7
        before = api.get_function_configuration(FunctionName="keeper")
        if end == "SIGTERM":
            assert server.stop() == 0
        else:
            server.kill()
        server.start()
        after = api.get_function_configuration(FunctionName="keeper")
        assert {**after, "ResponseMetadata": None} == {**before, "ResponseMetadata": None}
        assert api.list_tags(Resource=after["FunctionArn"])["Tags"] == {"kept": "yes"}
        events = server.client("logs").filter_log_events(logGroupName="/aws/lambda/keeper")["events"]
        messages = [event["message"] for event in events]
        assert "remember me 7\n" in messages
        assert sum(message.startswith("REPORT ") for message in messages) == 1
        assert call(api, "keeper", 8)[0] == 8
        assert server.stop() == 0


def test_a_running_invocation_ends_before_the_server_does(tmp_path):
    with LocalServer() as server:
        api = server.client("lambda")
        source = "import time\ndef handler(event, context):\n    print('begun', flush=True)\n    time.sleep(2)\n    return 'done'\n"
        api.create_function(
            FunctionName="slow", Runtime=RUNTIME, Role=ROLE, Handler="app.handler", Timeout=10, Code={"ZipFile": zipped({"app.py": source})}
        )
        settle(api, "slow")
        answers = []
        client = threading.Thread(target=lambda: answers.append(call(api, "slow")[0]))
        client.start()
        logs = server.client("logs")
        while not _begun(logs):
            pass
        assert server.stop() == 0
        client.join()
        assert answers == ["done"]


def test_what_does_not_end_in_time_is_cut_off_and_its_caller_is_told(tmp_path):
    """Ten seconds for all that runs together, whoever asked for it: a caller who waits, one who does not, and a queue."""
    with LocalServer(tmp_path / "data") as server:
        api, sqs = server.client("lambda"), server.client("sqs")
        source = "import time\ndef handler(event, context):\n    print('begun', flush=True)\n    time.sleep(60)\n"
        api.create_function(
            FunctionName="slow", Runtime=RUNTIME, Role=ROLE, Handler="app.handler", Timeout=90, Code={"ZipFile": zipped({"app.py": source})}
        )
        settle(api, "slow")
        queue = sqs.create_queue(QueueName="work", Attributes={"VisibilityTimeout": "600"})["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        api.create_event_source_mapping(FunctionName="slow", EventSourceArn=arn)
        sqs.send_message(QueueUrl=queue, MessageBody="x")
        api.invoke(FunctionName="slow", InvocationType="Event")
        answers = []

        def wait() -> None:
            try:
                call(api, "slow")
            except ClientError as error:
                answers.append((error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Message"]))

        client = threading.Thread(target=wait)
        client.start()
        logs = server.client("logs")
        while _begun(logs) < 3:
            pass
        asked = time.monotonic()
        assert server.stop() == 0
        assert 9 < time.monotonic() - asked < 14
        client.join()
        (answer,) = answers
        assert answer[0] == 500
        assert "did not end in time" in answer[1]


def _begun(logs) -> int:
    try:
        return len(logs.filter_log_events(logGroupName="/aws/lambda/slow", filterPattern="begun")["events"])
    except logs.exceptions.ResourceNotFoundException:
        return 0

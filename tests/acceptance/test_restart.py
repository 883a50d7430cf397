"""What was acknowledged is there after a restart, whether the server was asked to stop or killed."""

from __future__ import annotations

import pytest
from acceptance_helpers import ROLE, RUNTIME, call, settle, zipped

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
    import threading

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


def _begun(logs) -> bool:
    try:
        return bool(logs.filter_log_events(logGroupName="/aws/lambda/slow", filterPattern="begun")["events"])
    except logs.exceptions.ResourceNotFoundException:
        return False

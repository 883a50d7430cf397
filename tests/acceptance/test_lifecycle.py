"""The life of an execution environment as a function sees it: a slow init, frozen time between invocations, how processes end, resets."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from acceptance_helpers import ROLE, RUNTIME, call, settle, zipped
from botocore.exceptions import ClientError

from lambent.testing.local_server import LocalServer

SLOW_ONCE = """
import os, time
print("init", flush=True)
if not os.path.exists("/tmp/mark"):
    open("/tmp/mark", "w").close()
    time.sleep(600)
def handler(event, context):
    return [os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"], context.get_remaining_time_in_millis() > 1000]
"""

TICKING = """
import threading, time

longest, last = 0.0, time.monotonic()

def tick():
    global longest, last
    while True:
        now = time.monotonic()
        longest, last = max(longest, now - last), now
        time.sleep(0.005)

threading.Thread(target=tick, daemon=True).start()

def handler(event, context):
    global longest
    time.sleep(0.05)
    found, longest = longest, 0.0
    return found
"""

ENDING = """
import os, signal, subprocess, sys, threading
def handler(event, context):
    if event.get("signal"):
        os.kill(os.getpid(), getattr(signal, event["signal"]))
        signal.pause()
    if event.get("exit") is not None:
        threading.Thread(target=os._exit, args=(event["exit"],)).start()
        threading.Event().wait()
    if event.get("sys_exit"):
        sys.exit(event["sys_exit"])
    if event.get("orphan"):
        subprocess.Popen(["/bin/sleep", "600"])
    return sorted(os.listdir("/tmp"))
"""


SIBLING = """
import logging, os, random, ssl, tempfile, threading, uuid
import secrets
def handler(event, context):
    found = []
    thread = threading.Thread(target=lambda: found.append((threading.get_native_id(), threading.current_thread() is thread)))
    thread.start()
    thread.join()
    logging.getLogger().warning("logged")
    main = threading.main_thread()
    dice = [random.random(), random.SystemRandom().random(), secrets.token_hex(), str(uuid.uuid4()), ssl.RAND_bytes(16).hex(),
            next(tempfile._get_candidate_names())]
    return {"dice": dice, "main": [main is threading.current_thread(), main.native_id == os.getpid(), main.is_alive()],
            "other": [found[0][0] != os.getpid(), found[0][1], threading.active_count()]}
"""


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def printed(server: LocalServer, name: str) -> str:
    pages = server.client("logs").get_paginator("filter_log_events").paginate(logGroupName=f"/aws/lambda/{name}")
    return "".join(event["message"] for page in pages for event in page["events"])


def environment(server: LocalServer, name: str) -> dict[str, Any]:
    (found,) = (each for each in server.page("environments")["environments"] if each["function"].endswith(f":{name}"))
    return found  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    config = tmp_path_factory.mktemp("hasty") / "lambent.toml"
    config.write_text('zone = "use1-az4"\n[sandbox]\ninit_timeout = 1.0\n')
    with LocalServer(config=config) as running:
        yield running


def test_an_init_that_takes_too_long_runs_again_inside_the_invocation(hasty: LocalServer) -> None:
    api = hasty.client("lambda")
    code = {"ZipFile": zipped({"app.py": SLOW_ONCE})}
    api.create_function(FunctionName="slow", Runtime=RUNTIME, Role=ROLE, Handler="app.handler", Code=code, Timeout=20, MemorySize=1769)
    settle(api, "slow")
    told, answer = call(api, "slow")
    assert told == ["on-demand", True]
    log = printed(hasty, "slow")
    order = [
        r"INIT_START ",
        "init\n",
        r"INIT_REPORT Init Duration: (\d+\.\d\d) ms\tPhase: init\tStatus: timeout\n",
        "START ",
        "init\n",
        "REPORT ",
    ]
    assert (found := re.search(".*?".join(order), log, re.DOTALL)), log
    assert float(found[1]) >= 1000
    assert "\tInit Duration" not in answer["log"]  # what ran inside the invocation is part of its duration
    assert "Init Duration" not in call(api, "slow")[1]["log"]


def test_time_stands_still_between_invocations(server: LocalServer, api: Any, deploy: Any) -> None:
    deploy("ticking", TICKING, MemorySize=1769)
    call(api, "ticking")
    wait_until(lambda: environment(server, "ticking")["state"] == "frozen")
    frozen = time.monotonic()
    wait_until(lambda: time.monotonic() - frozen > 0.3)
    assert call(api, "ticking")[0] > 0.3  # a thread that looks every 5 ms was away for as long
    assert environment(server, "ticking")["invocations"] == 2


METADATA = """
import http.client, os

def handler(event, context):
    api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_METADATA_API"])
    said = []
    for token in ("Bearer " + os.environ["AWS_LAMBDA_METADATA_TOKEN"], "Bearer guessed"):
        api.request("GET", "/2026-01-15/metadata/execution-environment", headers={"Authorization": token})
        answer = api.getresponse()
        said += [answer.status, answer.read().decode()]
    return said[:3]
"""


def test_a_managed_runtime_finds_its_metadata(hasty: LocalServer) -> None:
    api = hasty.client("lambda")
    code = {"ZipFile": zipped({"app.py": METADATA})}
    api.create_function(FunctionName="zone", Runtime=RUNTIME, Role=ROLE, Handler="app.handler", Code=code, MemorySize=1769)
    settle(api, "zone")
    for _ in range(2):
        assert call(api, "zone")[0] == [200, '{"AvailabilityZoneID":"use1-az4"}', 401]


ENDS = [
    ({"signal": "SIGSEGV"}, "Runtime exited with error: signal: segmentation fault"),
    ({"signal": "SIGABRT"}, "Runtime exited with error: signal: aborted"),
    ({"signal": "SIGTERM"}, "Runtime exited with error: signal: terminated"),
    ({"exit": 0}, "Runtime exited without providing a reason"),
    ({"exit": 255}, "Runtime exited with error: exit status 255"),
    ({"sys_exit": 5}, "Runtime exited with error: exit status 5"),
]


def test_ends_are_told_apart_and_everything_inside_ends(server: LocalServer, api: Any, deploy: Any) -> None:
    deploy("ending", ENDING, Timeout=10)
    for number, (event, text) in enumerate(ENDS):
        assert call(api, "ending", {"orphan": True})[0] == []
        before = environment(server, "ending")["id"]
        payload, answer = call(api, "ending", event)
        request = answer["ResponseMetadata"]["RequestId"]
        assert payload == {"errorType": "Runtime.ExitError", "errorMessage": f"RequestId: {request} Error: {text}"}
        assert f"RequestId: {request} Error: {text}\nRuntime.ExitError\n" in answer["log"]
        assert re.search(r"\tStatus: error\tError Type: Runtime.ExitError", answer["log"])
        assert environment(server, "ending")["id"] == before, number  # reset, not replaced


def test_billed_time_is_whole_milliseconds_and_counts_init_once(api: Any, deploy: Any) -> None:
    deploy("billed", "import time\ntime.sleep(0.02)\ndef handler(event, context):\n    time.sleep(0.01)\n")
    figures = r"Duration: (\d+\.\d\d) ms\tBilled Duration: (\d+) ms\tMemory Size: 128 MB\tMax Memory Used: (\d+) MB"
    figures += r"(?:\tInit Duration: (\d+\.\d\d) ms)?\t"
    first = re.search(figures, call(api, "billed")[1]["log"])
    assert first
    assert float(first[4]) >= 20
    assert int(first[2]) - 1 <= float(first[1]) + float(first[4]) <= int(first[2]) + 0.01
    second = re.search(figures, call(api, "billed")[1]["log"])
    assert second
    assert second[4] is None
    assert int(second[2]) - 1 <= float(second[1]) <= int(second[2]) + 0.01
    assert 0 < int(second[3]) <= 128


@pytest.mark.parametrize("minor", range(8, 15))
def test_environments_of_one_zygote_share_no_dice_and_know_their_threads(server: LocalServer, api: Any, deploy: Any, minor: int) -> None:
    name = f"sibling-{minor}"
    try:
        deploy(name, SIBLING, Runtime=f"python3.{minor}")
    except ClientError as error:
        pytest.skip(error.response["Error"]["Message"])  # this machine lacks the interpreter, which the message says
    seen: list[Any] = []
    for _ in range(2):
        answer, _ = call(api, name)
        assert answer["main"] == [True, True, True]
        assert answer["other"] == [True, True, 1]
        seen.append(answer["dice"])
        api.update_function_configuration(FunctionName=name, Description=f"another environment after {len(seen)}")
        settle(api, name)
    assert all(one != other for one, other in zip(*seen, strict=True))
    assert printed(server, name).count("logged") == 2

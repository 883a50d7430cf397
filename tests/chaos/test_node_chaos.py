"""``kill -9`` of the node, the launcher and the zygotes, at random moments, under load.

LAMBENT_CHAOS_ROUNDS sets the number of rounds of the random test; LAMBENT_CHAOS_SEED repeats a run.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from chaos_processes import below, wait_until_gone
from server_under_fire import ROLE, Ledger, check, code, pause, work

from lambent.testing.local_server import LocalServer

RUNTIME = f"python{sys.version_info[0]}.{sys.version_info[1]}"
ROUNDS = int(os.environ.get("LAMBENT_CHAOS_ROUNDS", "4"))
SEED = int(os.environ.get("LAMBENT_CHAOS_SEED", str(random.SystemRandom().randrange(2**32))))


def test_nothing_acknowledged_is_lost_when_the_node_is_killed(tmp_path):
    print(f"seed {SEED}")
    seed = random.Random(SEED)
    ledger = Ledger()
    server = LocalServer(tmp_path / "data")
    try:
        for _ in range(ROUNDS):
            server.start()
            tree = below(server.pid)
            stop = threading.Event()
            failures: list[BaseException] = []
            workers = [threading.Thread(target=_guarded, args=(failures, server, ledger, n, stop)) for n in range(3)]
            for worker in workers:
                worker.start()
            stop.wait(pause(seed))  # the moment of death is the test's random input, no synchronisation
            tree |= below(server.pid)
            stop.set()
            server.kill()
            for worker in workers:
                worker.join(60)
            assert failures == []
            wait_until_gone(tree)
        server.start()
        check(server, ledger)
        assert ledger.answered > 0, "no round got far enough to acknowledge anything"
        assert server.stop() == 0
    finally:
        with contextlib.suppress(Exception):
            server.kill()


@pytest.mark.parametrize("victim", ["launcher", "zygote"])
def test_the_node_outlives_its_helpers(tmp_path, victim):
    with LocalServer(tmp_path / "data") as server:
        if server.health()["isolation"]["driver"] != "namespaces":
            pytest.skip("only the namespaces driver has a launcher and zygotes")
        api = server.client("lambda")
        api.create_function(FunctionName="f", Runtime=RUNTIME, Role=ROLE, Handler="app.handler", Code={"ZipFile": code(7)})
        api.get_waiter("function_active_v2").wait(FunctionName="f", WaiterConfig={"Delay": 0.02, "MaxAttempts": 3000})
        for round_ in range(3):
            assert _works_again(api), f"round {round_}: {server.output}"
            for pid in _victims(server.pid, victim):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert _works_again(api), f"round {round_}: {server.output}"
        assert server.stop() == 0


def _works_again(api) -> bool:
    """An invocation that was caught in the fall may fail; one that comes after it must not, for long."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            answer = api.invoke(FunctionName="f", Payload=b"2")
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] < 500:
                raise
            continue
        if "FunctionError" not in answer:
            return answer["Payload"].read() == b"[7, 2]"
    return False


def _guarded(failures: list[BaseException], server: LocalServer, ledger: Ledger, number: int, stop: threading.Event) -> None:
    try:
        work(server, ledger, number + 1, stop, RUNTIME)
    except BaseException as error:
        failures.append(error)


def _victims(node: int, victim: str) -> list[int]:
    tree = below(node) - {node}
    commands = {}
    for pid in tree:
        with contextlib.suppress(OSError):
            commands[pid] = Path(f"/proc/{pid}/cmdline").read_bytes()
    if victim == "launcher":
        return [pid for pid, command in commands.items() if b"lambent.sandbox.launcher" in command]
    return [pid for pid, command in commands.items() if b"lambent_zygote" in command and Path(f"/proc/{pid}").stat().st_uid == os.getuid()]

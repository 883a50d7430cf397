"""What measurements stand on: a server that the benchmark started, functions deployed with boto3, baselines, and memory figures."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.load import TOP, Load, drive
from bench.rows import Plan
from lambent.cli.bundle import bundle
from lambent.runtimes.catalogue import Catalogue
from lambent.testing.local_server import LocalServer, free_port

FULL_CPU_MB = 1_769  # the memory at which AWS gives one whole vCPU
SMALL_MB = 128
RUNTIME = f"python{sys.version_info[0]}.{sys.version_info[1]}"  # the interpreter of the baselines, too


@dataclass
class Stage:
    """A running server, for one run of the benchmark."""

    server: LocalServer
    plan: Plan
    _deployed: dict[str, int] = field(default_factory=dict)

    @property
    def api(self) -> Any:
        return self.server.client("lambda")

    def deploy(
        self,
        name: str,
        handler: str = "handler.hello",
        memory: int = FULL_CPU_MB,
        timeout: int = 60,
        runtime: str = RUNTIME,
        **options: Any,
    ) -> None:
        """Create the function, unless it is there. ``options`` are more members of the request."""
        if name in self._deployed:
            return
        self.api.create_function(
            FunctionName=name,
            Runtime=runtime,
            Role="arn:aws:iam::000000000000:role/bench",
            Handler=handler,
            Code={"ZipFile": _code()},
            MemorySize=memory,
            Timeout=timeout,
            **options,
        )
        self._deployed[name] = 0
        self._settle(name)

    def drain(self, name: str) -> str:
        """Change the configuration, so that the next invocation needs a new environment. Gives the new ``ROUND``."""
        self._deployed[name] += 1
        number = str(self._deployed[name])
        self.api.update_function_configuration(FunctionName=name, Environment={"Variables": {"ROUND": number}})
        self._settle(name)
        return number

    def warm(self, name: str, environments: int = 1) -> None:
        """Have at least that many environments idle."""
        if environments > 1:
            drive(Load(self.server.port, name, '{"sleep": 1}', environments, environments))
        drive(Load(self.server.port, name, "{}", 1, 50))

    def environments(self, name: str) -> int:
        found = self.server.page("environments")["environments"]
        return sum(entry["function"] == name or entry["function"].endswith(f":{name}") for entry in found)

    def _settle(self, name: str) -> None:
        for waiter in ("function_active_v2", "function_updated_v2"):
            self.api.get_waiter(waiter).wait(FunctionName=name, WaiterConfig={"Delay": 0.05, "MaxAttempts": 1_200})


@contextmanager
def bare_uvicorn() -> Iterator[int]:
    """The baseline application in a process of its own; gives its port."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "bench.baseline_app:app", "--port", str(port)]
    options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "error", "--lifespan", "off"]
    process = subprocess.Popen([*command, *options], cwd=TOP)
    try:
        wait_for_port(port)
        yield port
    finally:
        process.terminate()
        process.wait()


def wait_for_port(port: int, patience: float = 30.0) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def newest_runtime() -> str:
    """The runtime of the newest CPython on this machine."""
    return Catalogue().interpreters()[-1].runtime


def run_time(*command: str) -> float:
    """Seconds from the start of a command to its end."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def descendants(root: int) -> list[int]:
    """``root`` and every process below it."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parent = int(Path(f"/proc/{entry}/stat").read_bytes().rpartition(b")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry))
    found, rest = [], [root]
    while rest:
        pid = rest.pop()
        found.append(pid)
        rest += children.get(pid, [])
    return found


def memory_of(pid: int) -> dict[str, int]:
    """The fields of ``smaps_rollup`` in bytes; empty for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    return {name: int(value.split()[0]) * 1024 for name, _, value in (line.partition(":") for line in lines)}


def unique_memory(pids: list[int]) -> int:
    """Bytes that would be free if exactly these processes ended.

    Anonymous pages that they share with each other (a zygote and its children) count once, which is what the proportional share adds up
    to, since nobody else has them; file pages count where one of them alone has them mapped.
    """
    fields = [memory_of(pid) for pid in pids]
    return sum(entry.get("Pss_Anon", 0) + entry.get("Pss_Shmem", 0) + entry.get("Private_Clean", 0) for entry in fields)


def private_memory(pids: list[int]) -> int:
    """Bytes that no other process has mapped, added up."""
    return sum(entry.get("Private_Clean", 0) + entry.get("Private_Dirty", 0) for entry in map(memory_of, pids))


def _code() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="lambent-bench-") as folder:
        target = Path(folder) / "handler.py"
        target.write_bytes(Path(__file__).with_name("handler.py").read_bytes())
        return bundle(Path(folder))

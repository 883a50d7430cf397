"""Starting a server, and what it holds when idle: ``lambent up`` to a 200 of the health page, and the memory of all its processes."""

from __future__ import annotations

import http.client
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.load import Load, drive
from bench.rows import Row, megabytes, middle, milliseconds
from bench.stage import Stage, descendants, private_memory, run_time, unique_memory
from lambent.testing.local_server import LocalServer, free_port

_PROMISED = 120 * 2**20
_SETTLE = 3.0  # seconds: zygotes and blanks are made ready behind the first answers


def measure(stage: Stage) -> list[Row]:
    times, passes = [], []
    for _ in range(stage.plan.rounds):
        passes.append(run_time(sys.executable, "-c", "pass"))
        times.append(_time_to_health())
    with LocalServer() as fresh:
        idle = _memory(fresh)
        other = Stage(fresh, stage.plan)
        other.deploy("hello", memory=128)
        drive(Load(fresh.port, "hello", "{}", 1, 10))
        used = _memory(fresh)
    return [
        Row("lambent up to healthy", "<= 1 s", milliseconds(middle(times)), middle(times) <= 1,
            f"best {milliseconds(min(times))}; python -c pass {milliseconds(middle(passes))}; {len(times)} starts, fresh data directories"),
        Row("idle memory of all its processes", "<= 120 MB unique", megabytes(idle[0]), idle[0] <= _PROMISED,
            f"{idle[1]} processes; each one's private pages alone add up to {megabytes(idle[2])}"),
        Row("the same, one Python function deployed and warm", "", megabytes(used[0]), None, f"{used[1]} processes"),
    ]  # fmt: skip


def _time_to_health() -> float:
    folder = tempfile.mkdtemp(prefix="lambent-bench-")
    port = free_port()
    begin = time.perf_counter()
    command = [str(Path(sys.executable).with_name("lambent")), "up", "--port", str(port), "--data-dir", folder]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not _healthy(port):
            if process.poll() is not None or time.perf_counter() - begin > 60:
                raise RuntimeError("lambent up did not become healthy")
            time.sleep(0.002)
        return time.perf_counter() - begin
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/_lambent/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _memory(server: LocalServer) -> tuple[int, int, int]:
    """Unique bytes, number of processes, and the sum of each one's private bytes, once the server has settled."""
    time.sleep(_SETTLE)
    pids = descendants(server.pid)
    return unique_memory(pids), len(pids), private_memory(pids)

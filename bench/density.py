"""A thousand isolated environments: how long until all are there, and what each holds once it is idle.

As many invocations arrive at once as environments are wanted, and each sleeps until the last has surely begun; so none can be reused, and
the time until the last answer, less the sleep, is the time of creation. Then everything is idle, and memory is read. How long it takes to
touch a page of memory for the first time is measured before: a virtual machine gets its memory from a host when it is touched, which may
take longer than all that is done with it. The same at the level of the sandbox driver, without the invocations, tells how much is the
driver's; it comes second, on memory that was in use just now.

What an environment holds depends much on its CPython (``sandbox/immortals.py``), so this is measured with the newest one as well.
"""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
import time

from bench.load import TOP, Load, drive
from bench.rows import Row, megabytes
from bench.stage import RUNTIME, SMALL_MB, Stage, descendants, newest_runtime, private_memory, unique_memory

_SLEEP = 12  # seconds
_PROMISED_EACH = 3 * 2**20
_SAMPLE = 1 << 29  # bytes
_PAGE = 4_096


def measure(stage: Stage) -> list[Row]:
    """With the newest CPython here, and with the one that everything else is measured with, if that is another."""
    runtimes = list(dict.fromkeys((newest_runtime(), RUNTIME)))
    return [row for runtime in runtimes for row in _measure(stage, runtime)]


def _measure(stage: Stage, runtime: str) -> list[Row]:
    count, name = stage.plan.environments, f"crowd-{runtime.replace('.', '-')}"
    stage.deploy(name, memory=SMALL_MB, runtime=runtime)
    page = _first_touch()
    before = descendants(stage.server.pid)
    held = unique_memory(before)
    created = _create(stage, name, count)
    after = descendants(stage.server.pid)
    each = private_memory([pid for pid in after if pid not in set(before)]) / count
    grown = (unique_memory(after) - held) / count
    stage.drain(name)
    command = [sys.executable, "-m", "bench.crowd", str(count), runtime]
    bare = json.loads(subprocess.run(command, cwd=TOP, stdout=subprocess.PIPE, check=True).stdout)
    title = f"{count:,} isolated idle environments, {runtime}"
    allowed = 8.0 * count / 1_000
    return [
        Row(
            f"{title}: created",
            f"<= {allowed:g} s",
            f"{created:.2f} s",
            created <= allowed,
            f"{created / count * 1000:.1f} ms each, through the API, functions of {SMALL_MB} MB; "
            f"the first touch of a page of memory took {page * 1e6:.1f} us before",
        ),
        Row(
            f"{title}: memory of each",
            "<= 3 MB unique",
            megabytes(each),
            each <= _PROMISED_EACH,
            f"all processes of the server grew by {megabytes(grown)} for each, with what the node holds of it",
        ),
        Row(f"{title}, by the driver alone", "", f"{bare['elapsed']:.2f} s, {megabytes(bare['private'] / count)} each"),
    ]


def _create(stage: Stage, name: str, count: int) -> float:
    """Seconds until ``count`` environments are there."""
    outcome = drive(Load(stage.server.port, name, f'{{"sleep": {_SLEEP}}}', count, count))
    time.sleep(2)
    there = stage.environments(name)
    if there != count:
        raise RuntimeError(f"{there} environments instead of {count}: some were reused or ended")
    return outcome.elapsed - _SLEEP


def _first_touch() -> float:
    """Seconds to write to a page of memory for the first time."""
    with mmap.mmap(-1, _SAMPLE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        begin = time.perf_counter()
        for at in range(0, _SAMPLE, _PAGE):
            memory[at] = 1
        return (time.perf_counter() - begin) / (_SAMPLE // _PAGE)

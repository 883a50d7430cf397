"""Live development: from the end of an edit to the line that says it is live, by the number of files in the folder.

The line is taken at its word: each time an invocation is made at once, and what it answers must be the edit.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.load import TOP
from bench.rows import Row, middle, milliseconds
from bench.stage import RUNTIME, Stage

_SIZES = (10, 1_000, 5_000)
_TARGET_S = 0.2
_HANDLER = "def handler(event, context):\n    return {!r}\n"
_PATIENCE_S = 120.0
_PACE_S = 1.0  # between two edits, as nobody types quicker


def measure(stage: Stage) -> list[Row]:
    edits = 20 if stage.plan.rounds > 2 else 8
    return [_measure(stage, files, edits) for files in _SIZES]


def _measure(stage: Stage, files: int, edits: int) -> Row:
    name = f"dev-{files}"
    with tempfile.TemporaryDirectory(prefix="lambent-bench-") as place:
        folder = Path(place)
        size = _fill(folder, files)
        command = [sys.executable, "-u", "-m", "lambent.cli.main", "dev", str(folder), "--name", name, "--runtime", RUNTIME, "--no-logs"]
        session = subprocess.Popen(
            [*command, "--memory", "1769", "--endpoint", stage.server.endpoint], cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            _expect(session, r"^Watching ")
            taken, answered = zip(*(_edit(stage, session, folder, name, number) for number in range(edits)), strict=True)
        finally:
            session.terminate()
            session.communicate(timeout=_PATIENCE_S)
    live = middle(taken)
    return Row(
        f"lambent dev, {files:,} files: edit to live p50", "< 200 ms", milliseconds(live), live < _TARGET_S,
        f"{edits} edits of one file, {size / 2**20:.1f} MB; slowest {milliseconds(max(taken))}; "
        f"to the answer of the next invocation {milliseconds(middle(answered))}",
    )  # fmt: skip


def _edit(stage: Stage, session: subprocess.Popen[bytes], folder: Path, name: str, number: int) -> tuple[float, float]:
    """Seconds until the line, and until the answer of an invocation that was made then."""
    text = _HANDLER.format(number)
    time.sleep(_PACE_S)
    begin = time.perf_counter()
    (folder / "app.py").write_text(text)
    _expect(session, r"reloaded in .*app\.py")
    live = time.perf_counter() - begin
    answer = json.load(stage.api.invoke(FunctionName=name)["Payload"])
    if answer != number:
        raise RuntimeError(f"{name} answers {answer!r} after edit {number} was said to be live")
    return live, time.perf_counter() - begin


def _expect(session: subprocess.Popen[bytes], pattern: str) -> None:
    assert session.stdout is not None
    said = []
    for line in iter(session.stdout.readline, b""):
        said.append(line.decode())
        if re.search(pattern, said[-1]):
            return
    raise RuntimeError(f"lambent dev ended: {''.join(said)}")


def _fill(folder: Path, files: int) -> int:
    """Make ``files`` files, as vendored packages are: 40 a folder, of about 3 kB of text. Gives their size in bytes."""
    (folder / "app.py").write_text(_HANDLER.format("first"))
    size = 0
    for number in range(files - 1):
        place = folder / f"package_{number // 40}"
        place.mkdir(exist_ok=True)
        text = "".join(f"def function_{number}_{line}(argument):\n    return argument * {number * line}\n" for line in range(50))
        (place / f"module_{number}.py").write_text(text)
        size += len(text)
    return size

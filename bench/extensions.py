"""Extensions and telemetry: what a warm call costs more with an extension that hears of it, and with one that subscribes to telemetry too.

The extension is a small C program (``extension.c``), compiled here, so that what is measured is the platform and not an interpreter in the
sandbox. The three functions take turns, since machines are noisy.
"""

from __future__ import annotations

import io
import subprocess
import tempfile
import zipfile
from pathlib import Path

from bench.load import Load, drive
from bench.rows import Row, middle, milliseconds, percentile
from bench.stage import FULL_CPU_MB, Stage

_TARGET = 0.0005
_PLAIN, _WATCHED, _TOLD = "without", "watched", "told"


def measure(stage: Stage) -> list[Row]:
    try:
        layer = _layer(stage)
    except (OSError, subprocess.CalledProcessError) as error:
        return [Row("extensions and telemetry on a warm call", "< 0.5 ms", "not measured", None, f"no C compiler: {error}")]
    stage.deploy(_PLAIN, memory=FULL_CPU_MB)
    stage.deploy(_WATCHED, memory=FULL_CPU_MB, Layers=[layer])
    stage.deploy(_TOLD, memory=FULL_CPU_MB, Layers=[layer], Environment={"Variables": {"TELEMETRY": "1"}})
    for name in (_PLAIN, _WATCHED, _TOLD):
        stage.warm(name)
    medians: dict[str, list[float]] = {_PLAIN: [], _WATCHED: [], _TOLD: []}
    tails: dict[str, list[float]] = {_PLAIN: [], _WATCHED: [], _TOLD: []}
    for _ in range(stage.plan.rounds):
        for name, found in medians.items():
            latencies = drive(Load(stage.server.port, name, '{"name": "bench"}', 1, stage.plan.requests)).latencies
            found.append(percentile(latencies, 50))
            tails[name].append(percentile(latencies, 99))
    return [
        _row(name, what, stage.environments(name), medians, tails)
        for name, what in ((_WATCHED, "an extension"), (_TOLD, "an extension with telemetry"))
    ]


def _row(name: str, what: str, environments: int, medians: dict[str, list[float]], tails: dict[str, list[float]]) -> Row:
    plain, with_it = middle(medians[_PLAIN]), middle(medians[name])
    more = with_it - plain
    detail = (
        f"{milliseconds(with_it)} against {milliseconds(plain)} without; p99 {milliseconds(middle(tails[name]))} against "
        f"{milliseconds(middle(tails[_PLAIN]))}; one connection, call after call; {environments} environments at the end"
    )
    return Row(f"warm call with {what}: p50", "< 0.5 ms more", f"{milliseconds(more)} more", more < _TARGET, detail)


def _layer(stage: Stage) -> str:
    """Compile the extension and publish it; the ARN."""
    with tempfile.TemporaryDirectory(prefix="lambent-bench-") as folder:
        program = Path(folder) / "extension"
        source = Path(__file__).with_name("extension.c")
        subprocess.run(["cc", "-D_GNU_SOURCE", "-O2", "-o", program, source], check=True, capture_output=True)
        memory = io.BytesIO()
        with zipfile.ZipFile(memory, "w") as archive:
            entry = zipfile.ZipInfo("extensions/bench")
            entry.create_system = 3
            entry.external_attr = 0o100755 << 16
            archive.writestr(entry, program.read_bytes())
    answer = stage.api.publish_layer_version(LayerName="bench-extension", Content={"ZipFile": memory.getvalue()})
    return str(answer["LayerVersionArn"])

"""Cold starts: a request that finds no environment, answered by a handler that imports boto3.

Before each sample the function's configuration changes, so that every environment is stale; the answer proves that it came from a new one
(its first call, with the new configuration). In turns with ``python -c "import boto3"`` by the same interpreter with the same boto3.
"""

from __future__ import annotations

import json
import sys

from bench.load import Load, drive
from bench.rows import Row, middle, milliseconds, percentile
from bench.stage import FULL_CPU_MB, SMALL_MB, Stage, run_time


def measure(stage: Stage) -> list[Row]:
    ours, plain = _samples(stage, FULL_CPU_MB, stage.plan.colds)
    p50, baseline = percentile(ours, 50), middle(plain)
    detail = (
        f'python -c "import boto3" {milliseconds(baseline)}; min {milliseconds(min(ours))}, p90 {milliseconds(percentile(ours, 90))}; '
        f"{len(ours)} starts, function of {FULL_CPU_MB} MB"
    )
    small, _ = _samples(stage, SMALL_MB, max(5, stage.plan.colds // 3))
    title = "cold start, handler imports boto3"
    return [
        Row(f"{title}: p50", "<= 12 ms", milliseconds(p50), p50 <= 0.012, detail),
        Row(f"{title}: p50", "< 0.1 x import boto3", f"{p50 / baseline:.3f} x", p50 < baseline / 10),
        Row(f"{title}, {SMALL_MB} MB: p50", "", milliseconds(percentile(small, 50))),
    ]


def _samples(stage: Stage, memory: int, count: int) -> tuple[list[float], list[float]]:
    name = f"cold-{memory}"
    stage.deploy(name, handler="handler.fresh", memory=memory)
    ours, plain = [], []
    for _ in range(count):
        number = stage.drain(name)
        outcome = drive(Load(stage.server.port, name, "{}", 1, 1))
        answer = json.loads(outcome.last)
        if (answer["calls"], answer["round"]) != (1, number):
            raise RuntimeError(f"not a cold start: {answer}")
        ours.append(outcome.latencies[0])
        if len(plain) < 10:
            plain.append(run_time(sys.executable, "-c", "import boto3"))
    return ours, plain

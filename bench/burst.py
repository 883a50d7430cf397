"""A burst from zero: fifty invocations at once, each of which sleeps for a second."""

from __future__ import annotations

from bench.load import Load, drive
from bench.rows import Row, middle
from bench.stage import SMALL_MB, Stage

_AT_ONCE = 50


def measure(stage: Stage) -> list[Row]:
    name = "sleeper"
    stage.deploy(name, memory=SMALL_MB)
    elapsed, slowest = [], []
    for _ in range(min(3, stage.plan.rounds)):
        stage.drain(name)
        if stage.environments(name):
            raise RuntimeError(f"{stage.environments(name)} environments of {name} were left before the burst")
        outcome = drive(Load(stage.server.port, name, '{"sleep": 1}', _AT_ONCE, _AT_ONCE))
        elapsed.append(outcome.elapsed)
        slowest.append(max(outcome.latencies) - 1)
    return [
        Row(
            f"{_AT_ONCE} concurrent sleeps of 1 s, from zero",
            "<= 1.6 s",
            f"{middle(elapsed):.2f} s",
            middle(elapsed) <= 1.6,
            f"best {min(elapsed):.2f} s of {len(elapsed)} rounds; slowest overhead {middle(slowest):.2f} s; function of {SMALL_MB} MB",
        )
    ]

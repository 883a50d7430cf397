"""Warm invocations: latency over one keep-alive connection, and throughput over sixteen, each in turns with bare uvicorn."""

from __future__ import annotations

from dataclasses import dataclass

from bench.load import Load, Outcome, drive
from bench.rows import Row, middle, milliseconds, percentile
from bench.stage import FULL_CPU_MB, SMALL_MB, Stage, bare_uvicorn

_CONCURRENCY = 16


@dataclass(frozen=True)
class Rounds:
    """The same load on both sides, in turns."""

    bare: list[Outcome]
    ours: list[Outcome]

    def p(self, percent: float) -> tuple[float, float]:
        """The median over the rounds of a percentile: bare, ours."""
        bare = middle([percentile(outcome.latencies, percent) for outcome in self.bare])
        return bare, middle([percentile(outcome.latencies, percent) for outcome in self.ours])

    def best(self, percent: float) -> float:
        return min(percentile(outcome.latencies, percent) for outcome in self.ours)

    def rates(self) -> tuple[float, float]:
        return middle([outcome.per_second for outcome in self.bare]), middle([outcome.per_second for outcome in self.ours])


def measure(stage: Stage) -> list[Row]:
    with bare_uvicorn() as port:
        rows = _latency(stage, port, FULL_CPU_MB, promised=True)
        rows += _throughput(stage, port)
        rows += _latency(stage, port, SMALL_MB, promised=False)
    return rows


def _latency(stage: Stage, port: int, memory: int, promised: bool) -> list[Row]:
    name = f"hello-{memory}"
    stage.deploy(name, memory=memory)
    stage.warm(name)
    rounds = _in_turns(stage, port, Load(stage.server.port, name, '{"name": "bench"}', 1, stage.plan.requests))
    bare, ours = rounds.p(50)
    bare99, ours99 = rounds.p(99)
    ratio = ours / bare
    detail = (
        f"bare uvicorn p50 {milliseconds(bare)}, p99 {milliseconds(bare99)}; best round's p50 {milliseconds(rounds.best(50))}; "
        f"{len(rounds.ours)} rounds of {stage.plan.requests} each, function of {memory} MB"
    )
    title = f"warm sync invoke, concurrency 1, {memory} MB"
    return [
        Row(f"{title}: p50", "<= 2.5 x bare uvicorn" if promised else "", f"{milliseconds(ours)} = {ratio:.2f} x",
            ratio <= 2.5 if promised else None, detail),
        Row(f"{title}: p99", "< 3 ms" if promised else "", milliseconds(ours99), ours99 < 0.003 if promised else None),
    ]  # fmt: skip


def _throughput(stage: Stage, port: int) -> list[Row]:
    name = f"hello-{FULL_CPU_MB}"
    stage.deploy(name)
    stage.warm(name, _CONCURRENCY)
    load = Load(stage.server.port, name, '{"name": "bench"}', _CONCURRENCY, 0, stage.plan.seconds)
    rounds = _in_turns(stage, port, load)
    bare, ours = rounds.rates()
    detail = f"bare uvicorn {bare:,.0f}/s; p99 {milliseconds(rounds.p(99)[1])}; {stage.environments(name)} environments at the end"
    return [
        Row(
            f"warm throughput, concurrency {_CONCURRENCY}",
            ">= 0.5 x bare uvicorn",
            f"{ours:,.0f}/s = {ours / bare:.2f} x",
            ours / bare >= 0.5,
            detail,
        )
    ]


def _in_turns(stage: Stage, port: int, load: Load) -> Rounds:
    rounds = Rounds([], [])
    other = Load(port, load.function, load.payload, load.connections, load.requests, load.seconds)
    for _ in range(stage.plan.rounds):
        rounds.bare.append(drive(other))
        rounds.ours.append(drive(load))
    return rounds

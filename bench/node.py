"""Node.js: cold starts with and without an interpreter that was started ahead, and a warm invocation.

A function with ``NODE_OPTIONS`` of its own cannot take over a waiting interpreter, so its start has all of Node's own start in it; the
baseline is ``node -e 0`` by the same program, in turns. Before each sample the configuration changes, so that every environment is stale,
and for the pool there is a pause in which the next interpreter gets ready.
"""

from __future__ import annotations

import io
import json
import time
import zipfile

from bench.load import Load, drive
from bench.rows import Row, middle, milliseconds, percentile
from bench.stage import FULL_CPU_MB, Stage, run_time
from lambent.runtimes.catalogue import Catalogue
from lambent.runtimes.plan import RuntimePlan

_SOURCE = """
let calls = 0;
exports.handler = async () => ({ calls: ++calls, round: process.env.ROUND, age: process.uptime() });
"""
_READY = 0.6  # seconds in which an interpreter of the pool gets ready


def measure(stage: Stage) -> list[Row]:
    plans = [plan for plan in Catalogue().installed() if plan.runtime.startswith("nodejs")]
    if not plans:
        return [Row("Node.js", "", "not on this machine")]
    return [row for plan in plans for row in _rows(stage, plan)]


def _rows(stage: Stage, plan: RuntimePlan) -> list[Row]:
    program = plan.argv[0] if plan.prefix == "/usr" else plan.prefix + plan.argv[0].removeprefix("/var/lang")
    name = plan.runtime.replace(".", "")
    _deploy(stage, name, plan.runtime)
    drive(Load(stage.server.port, name, "{}", 1, 3))
    unpooled, bare, pooled = [], [], []
    for number in range(stage.plan.colds):
        unpooled.append(_start(stage, name, f"u{number}", is_pooled=False))
        bare.append(run_time(program, "-e", "0"))
        pooled.append(_start(stage, name, f"p{number}", is_pooled=True))
    outcome = drive(Load(stage.server.port, name, "{}", 1, stage.plan.requests))
    own, other, baseline = middle(unpooled), middle(pooled), middle(bare)
    title = f"Node.js {plan.version}"
    return [
        Row(
            f"{title} cold start, unpooled: p50",
            "< 1.3 x node -e 0",
            f"{own / baseline:.2f} x",
            own < 1.3 * baseline,
            f"{milliseconds(own)}, p90 {milliseconds(percentile(unpooled, 90))}; node -e 0 {milliseconds(baseline)}; "
            f"{len(unpooled)} starts",
        ),
        Row(
            f"{title} cold start, from the pool: p50",
            "< 15 ms",
            milliseconds(other),
            other < 0.015,
            f"p90 {milliseconds(percentile(pooled, 90))}, min {milliseconds(min(pooled))}; function of {FULL_CPU_MB} MB",
        ),
        Row(f"{title} warm invocation: p50", "", milliseconds(middle(outcome.latencies)), None),
    ]


def _deploy(stage: Stage, name: str, runtime: str) -> None:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("index.js", _SOURCE)
    role = "arn:aws:iam::000000000000:role/bench"
    code = {"ZipFile": memory.getvalue()}
    options = {"Role": role, "Handler": "index.handler", "Code": code, "MemorySize": FULL_CPU_MB}
    stage.api.create_function(FunctionName=name, Runtime=runtime, **options)
    _settle(stage, name)


def _start(stage: Stage, name: str, number: str, *, is_pooled: bool) -> float:
    variables = {"ROUND": number, **({} if is_pooled else {"NODE_OPTIONS": "--no-warnings"})}
    stage.api.update_function_configuration(FunctionName=name, Environment={"Variables": variables})
    _settle(stage, name)
    time.sleep(_READY)
    outcome = drive(Load(stage.server.port, name, "{}", 1, 1))
    answer = json.loads(outcome.last)
    if (answer["calls"], answer["round"]) != (1, number):
        raise RuntimeError(f"not a cold start: {answer}")
    return outcome.latencies[0]


def _settle(stage: Stage, name: str) -> None:
    for waiter in ("function_active_v2", "function_updated_v2"):
        stage.api.get_waiter(waiter).wait(FunctionName=name, WaiterConfig={"Delay": 0.05, "MaxAttempts": 1_200})

"""Java: cold starts from the pool and from nothing, in turns with ``java -version`` of the same virtual machine.

A function of the size that was last asked for finds a virtual machine that has been started ahead. One with ``JAVA_TOOL_OPTIONS`` never
does, and the two are otherwise the same. Between samples the machine is left alone until the pool is full again, as it is between the
cold starts of a real function.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import zipfile
from io import BytesIO
from pathlib import Path

from bench.load import Load, drive
from bench.rows import Row, middle, milliseconds, percentile
from bench.stage import FULL_CPU_MB, Stage, run_time
from lambent.runtimes import java, java_client
from lambent.runtimes.identifiers import FAMILIES
from lambent.runtimes.java_machines import machines
from lambent.runtimes.plan import RuntimePlan

_SOURCE = """
import com.amazonaws.services.lambda.runtime.*;
import java.util.*;

public class Hello implements RequestHandler<Map<String, Object>, Map<String, Object>> {
    private int calls;
    public Map<String, Object> handleRequest(Map<String, Object> event, Context context) {
        event.put("calls", ++calls);
        event.put("round", System.getenv("ROUND"));
        return event;
    }
}
"""
_REST_S = 1.0  # two virtual machines start within it


def measure(stage: Stage) -> list[Row]:
    plans = [plan for name in FAMILIES["java"] if isinstance(plan := java.find(name, (), os.environ), RuntimePlan)]
    if not plans:
        return [Row("Java cold start", "", "no Java here")]
    code = _code()
    homes: dict[str, RuntimePlan] = {}
    for plan in plans:
        homes.setdefault(plan.prefix, plan)
    return [row for plan in homes.values() for row in _measure(stage, plan, code)]


def _measure(stage: Stage, plan: RuntimePlan, code: bytes) -> list[Row]:
    names = {kind: f"{plan.runtime.replace('.', '-')}-{kind}" for kind in ("pooled", "alone")}
    for kind, name in names.items():
        _deploy(stage, name, plan.runtime, code, {} if kind == "pooled" else {"JAVA_TOOL_OPTIONS": "-Dalone=yes"})
    samples: dict[str, list[float]] = {kind: [] for kind in names}
    plain: list[float] = []
    for number in range(max(5, stage.plan.colds // 2)):
        for kind, name in names.items():
            variables = {"ROUND": str(number), **({} if kind == "pooled" else {"JAVA_TOOL_OPTIONS": "-Dalone=yes"})}
            stage.api.update_function_configuration(FunctionName=name, Environment={"Variables": variables})
            stage.api.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.05, "MaxAttempts": 1_200})
            time.sleep(_REST_S)
            outcome = drive(Load(stage.server.port, name, "{}", 1, 1))
            if outcome.last != f'{{"calls":1,"round":"{number}"}}':
                raise RuntimeError(f"not a cold start: {outcome.last}")
            samples[kind].append(outcome.latencies[0])
        plain.append(_version_time(plan))
    baseline = middle(plain)
    detail = f"java -version {milliseconds(baseline)}; {len(plain)} starts, function of {FULL_CPU_MB} MB"
    rows = []
    for kind, text in (("alone", "from nothing"), ("pooled", "from the pool")):
        p50 = percentile(samples[kind], 50)
        what = f"{plan.runtime} cold start {text}: p50"
        rows.append(Row(what, "", f"{milliseconds(p50)}, {p50 / baseline:.2f} x java -version", None, detail))
    return rows


def _version_time(plan: RuntimePlan) -> float:
    return run_time(os.path.join(plan.prefix, "bin", "java"), "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "--version")


def _deploy(stage: Stage, name: str, runtime: str, code: bytes, variables: dict[str, str]) -> None:
    stage.api.create_function(
        FunctionName=name,
        Runtime=runtime,
        Role="arn:aws:iam::000000000000:role/bench",
        Handler="Hello",
        Code={"ZipFile": code},
        MemorySize=FULL_CPU_MB,
        Timeout=60,
        Environment={"Variables": variables},
    )
    stage.api.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.05, "MaxAttempts": 1_200})


def _code() -> bytes:
    found = [machine for group in machines((), os.environ) for machine in group if machine.compiler]
    client = java_client.jar(found)
    if isinstance(client, str) or not found or found[0].compiler is None:
        raise RuntimeError(str(client))
    with tempfile.TemporaryDirectory(prefix="lambent-bench-") as folder:
        Path(folder, "Hello.java").write_text(_SOURCE)
        command = [found[0].compiler, "--release", "8", "-nowarn", "-Xlint:-options", "-cp", str(client), "-d", folder]
        subprocess.run([*command, str(Path(folder, "Hello.java"))], check=True)
        memory = BytesIO()
        with zipfile.ZipFile(memory, "w") as archive:
            archive.writestr("Hello.class", Path(folder, "Hello.class").read_bytes())
    return memory.getvalue()

"""Run families of measurements and print the table: ``python -m bench [--quick] [--json] [FAMILY ...]``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable

from bench import async_, burst, cold, control, density, dev, extensions, java, mapping, node, startup, stream, warm
from bench.rows import QUICK, Plan, Row, render
from bench.stage import RUNTIME, Stage
from lambent.testing.local_server import LocalServer

FAMILIES: dict[str, Callable[[Stage], list[Row]]] = {
    "warm": warm.measure,
    "cold": cold.measure,
    "burst": burst.measure,
    "density": density.measure,
    "startup": startup.measure,
    "control": control.measure,
    "stream": stream.measure,
    "async": async_.measure,
    "mapping": mapping.measure,
    "extensions": extensions.measure,
    "java": java.measure,
    "node": node.measure,
    "dev": dev.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description="Measure Lambent against baselines taken in the same run.")
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"of {', '.join(FAMILIES)}; all without any")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    unknown = [name for name in options.families if name not in FAMILIES]
    if unknown:
        parser.error(f"unknown family: {', '.join(unknown)}")
    rows: list[Row] = []
    load = os.getloadavg()[0]
    with LocalServer() as server:
        stage = Stage(server, QUICK if options.quick else Plan())
        isolation = server.health()["isolation"]
        for name in options.families or FAMILIES:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            rows += FAMILIES[name](stage)
    machine = (
        f"{os.cpu_count()} CPUs, Linux {platform.release()}, {RUNTIME}, isolation {isolation['driver']}, load average {load:.1f} before"
    )
    if options.json:
        print(json.dumps({"machine": machine, "rows": [row.as_json() for row in rows]}, indent=2))
    else:
        print(f"\n{machine}\n\n{render(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

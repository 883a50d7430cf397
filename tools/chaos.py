"""``make chaos``: the full counts of the chaos tests and of the models, and a summary that ``SPECIFICATION.md`` quotes.

Servers under mixed work are killed so many times at random moments and once at every named point, on SQLite and on PostgreSQL, and the
models of asynchronous events and of event source mappings go a million steps. The accounts are printed at the end.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_STEPS = 1_000_000
_SECONDS = 7_200  # that one test may take
_STATES = Path("tests/states")


def main(arguments: list[str]) -> int:
    rounds, *seed = arguments
    environment = {
        **os.environ,
        "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
        "LAMBENT_CHAOS_ROUNDS": rounds,
        "LAMBENT_CHAOS_POINTS": "all",
        "LAMBENT_MODEL_STEPS": str(_STEPS),
        **({"LAMBENT_CHAOS_SEED": seed[0], "LAMBENT_MODEL_SEED": seed[0]} if seed else {}),
    }
    models = sorted(str(path) for path in _STATES.glob("test_*.py") if "LAMBENT_MODEL_STEPS" in path.read_text())
    options = [
        "-s",
        "-p",
        "no:cacheprovider",
        "-o",
        "faulthandler_timeout=0",
        "--timeout",
        str(_SECONDS),
        "--durations=0",
        "--durations-min=5",
    ]
    return subprocess.call([sys.executable, "-m", "pytest", *options, *models, "tests/chaos"], env=environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

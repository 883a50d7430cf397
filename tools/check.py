"""``make check``: every check that needs no server, one line each; the details of those that fail.

A check is a command, or a function that gives a line per complaint. Arguments pick checks by name: ``python -m tools.check layers``.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tools import code_checks, docs_checks, parity

BIN = Path(sys.executable).parent

Check = list[str] | Callable[[], list[str]]

CHECKS: dict[str, Check] = {
    "lint": [str(BIN / "ruff"), "check", "--quiet", "."],
    "format": [str(BIN / "ruff"), "format", "--check", "--quiet", "."],
    "types": [str(BIN / "mypy"), "--no-error-summary"],
    "layers": [str(BIN / "lint-imports")],
    "rooms": code_checks.small_rooms,
    "pure-machines": code_checks.pure_machines,
    "one-clock": code_checks.one_clock,
    "test-names": code_checks.test_names,
    "no-machine-paths": code_checks.no_traces_of_this_machine,
    "settings-documented": docs_checks.settings_documented,
    "commands-documented": docs_checks.commands_documented,
    "links": docs_checks.links_lead_somewhere,
    "architecture": docs_checks.architecture_complete,
    "parity": parity.complaints,
}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; known are {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    failed = [name for name in names or CHECKS if not _passes(name)]
    print(f"\n{len(failed)} failed: {', '.join(failed)}" if failed else "\nAll checks passed.")
    return 1 if failed else 0


def _passes(name: str) -> bool:
    check = CHECKS[name]
    complaints = check() if callable(check) else _run(check)
    print(f"{'FAILED' if complaints else 'ok':7}{name}", flush=True)
    for line in complaints:
        print(f"       {line}")
    return not complaints


def _run(command: list[str]) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return []
    return [line for line in (done.stdout + done.stderr).splitlines() if line.strip()] or [f"exit code {done.returncode}"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

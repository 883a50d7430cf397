"""``make test``: fetch what the tests need, run them all, and close with what was skipped and why.

pytest's own summary (``-ra``) lists the skipped tests; this adds the Debian packages that could not be had, which is why some are. Further
arguments go to pytest. pytest's closing line stays the last one.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tools.debian_packages import install

WORKERS = 4


def main(arguments: list[str]) -> int:
    for line in install():
        print(f"missing Debian package: {line}", flush=True)
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    return subprocess.call([sys.executable, "-m", "pytest", *side_by_side(arguments), *arguments], env=environment)


def side_by_side(arguments: list[str]) -> list[str]:
    """Options that run the tests of different files at the same time, on as many processors as there are, up to four."""
    processors = min(len(os.sched_getaffinity(0)), WORKERS)
    if processors < 2 or any(argument == "-n" or argument.startswith("--numprocesses") for argument in arguments):
        return []
    return ["-n", str(processors), "--dist", "loadfile"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

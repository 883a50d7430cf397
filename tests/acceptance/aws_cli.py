"""The AWS CLI as a user types it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_CLI = Path(sys.executable).with_name("aws")


def aws(endpoint: str, folder: Path, *words: str, fails: bool = False, key: str = "test", secret: str = "test") -> str:
    """Run ``aws …`` in ``folder``; gives what it printed. With ``fails`` it must fail, and what it complains of is given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    given = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_DEFAULT_REGION": "us-east-1", "AWS_PAGER": ""}
    command = [str(_CLI), "--endpoint-url", endpoint, "--output", "json", *words]
    done = subprocess.run(command, env={**kept, **given}, cwd=folder, capture_output=True, text=True, check=False)
    assert bool(done.returncode) == fails, done.stderr
    return done.stderr if fails else done.stdout

"""Small things that the acceptance tests share."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lambent.testing.local_server import LocalServer

ROLE = "arn:aws:iam::000000000000:role/test"
RUNTIME = f"python{sys.version_info[0]}.{sys.version_info[1]}"

ECHO = "def handler(event, context):\n    return event\n"


def zipped(files: dict[str, str | bytes]) -> bytes:
    """A zip file with these files, readable for all."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, content)
    return memory.getvalue()


def settle(api: Any, name: str) -> None:
    """Wait with boto3's own waiters until the function is active and updated."""
    for waiter in ("function_active_v2", "function_updated_v2"):
        api.get_waiter(waiter).wait(FunctionName=name, WaiterConfig={"Delay": 0.02, "MaxAttempts": 3_000})


def refused(code: str, call: Any, **arguments: Any) -> str:
    """What a call of a client is told that is refused with the error ``code``."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    assert caught.value.response["Error"]["Code"] == code, caught.value.response
    return str(caught.value.response["Error"]["Message"])


def call(api: Any, name: str, event: Any = None, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Invoke with a tail; gives the decoded payload and the answer, with the log tail as text under ``"log"``."""
    answer = api.invoke(FunctionName=name, Payload=json.dumps(event), LogType="Tail", **options)
    body = answer["Payload"].read()
    answer["log"] = base64.b64decode(answer.get("LogResult", "")).decode()
    return (json.loads(body) if body else None), answer


def stop_cleanly(server: LocalServer) -> None:
    """Stop with SIGTERM; assert exit code 0 and that every process of the server has ended with it."""
    pids = below(server.pid)
    assert server.stop() == 0, server.output
    assert [pid for pid in pids if _lives(pid)] == []
    assert "Traceback" not in server.output


def below(root: int) -> list[int]:
    """``root`` and all that descends from it."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry))
    found, rest = [], [root]
    while rest:
        pid = rest.pop()
        found.append(pid)
        rest += children.get(pid, [])
    return found


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False

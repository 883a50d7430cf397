"""What an environment of each CPython holds for itself, after its first event (decisions 0008 and 0010)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from python_environments import INTERPRETERS, find, world

PROMISED_KB = 3 * 1_024
KNOWS_IMMORTALS = ("python3.12", "python3.13", "python3.14")
SOURCE = """
import json
import sys


def handler(event, context):
    private = 0
    with open("/proc/self/smaps_rollup") as file:
        for line in file:
            if line.startswith(("Private_Clean", "Private_Dirty")):
                private += int(line.split()[1])
    before = sys.getrefcount(json.loads)
    held = [json.loads] * 1000
    return [private, sys.getrefcount(json.loads) - before]
"""


@pytest.mark.parametrize("runtime", INTERPRETERS)
def test_an_environment_holds_as_little_as_is_promised(folder: Path, runtime: str) -> None:
    async def live() -> None:
        async with world(folder, find(runtime)) as there:
            there.write(SOURCE)
            await there.answer()  # compiles
            private_kb, counted = await there.answer()
            assert 100 < private_kb <= PROMISED_KB
            assert counted == (0 if runtime in KNOWS_IMMORTALS else 1_000)

    asyncio.run(live())

"""The handler's bytecode: what one environment has compiled, those after it load, and nobody else does (sandbox/bytecode.py).

Whether an environment compiled or loaded shows when the source is changed behind its back, with the same size and time.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from python_environments import INTERPRETERS, find, world

ONE = "def handler(event, context):\n    return 'one'\n"
TWO = ONE.replace("one", "two")
RUNTIME = "python3.11"


@pytest.mark.parametrize("runtime", INTERPRETERS)
def test_a_second_environment_loads_what_the_first_has_compiled(folder: Path, runtime: str) -> None:
    async def live() -> None:
        async with world(folder, find(runtime)) as there:
            there.write(ONE)
            assert await there.answer() == "one"
            there.write(TWO)
            assert await there.answer() == "one"  # loaded
            assert await there.answer(key="another") == "two"  # another function, or another version of it, has nothing of it
            assert await there.answer(key="") == "two"

    asyncio.run(live())


@pytest.mark.parametrize("change", ["time", "size"])
def test_bytecode_of_another_source_is_not_loaded(folder: Path, change: str) -> None:
    async def live() -> None:
        async with world(folder, find(RUNTIME)) as there:
            there.write(ONE)
            assert await there.answer() == "one"
            there.write(TWO + "\n" if change == "size" else TWO, at=1_700_000_000 if change == "size" else 1_700_000_001)
            assert await there.answer() == "two"

    asyncio.run(live())


def test_a_source_that_warns_warns_in_every_environment(folder: Path) -> None:
    async def live() -> None:
        async with world(folder, find(RUNTIME)) as there:
            there.write("if 1 is 1:\n    pass\n" + ONE)
            for _ in range(3):
                assert await there.answer() == "one"
                assert there.printed.count(b"SyntaxWarning") == 1

    asyncio.run(live())


SCRIBBLER = """
import os, sys

def open_ones():
    found = []
    for fd in range(3, 64):
        try:
            found.append([fd, os.fstat(fd).st_mode & 0o170000])
        except OSError:
            pass
    return found

AT_INIT = open_ones()

def handler(event, context):
    return {"init": AT_INIT, "later": open_ones()}
"""
CHANNEL, LOGS = [3, 0o140000], 0o010000


@pytest.mark.parametrize("times", [1, 2])
def test_functions_find_neither_the_bytecode_nor_the_pipe(folder: Path, times: int) -> None:
    async def live() -> None:
        async with world(folder, find(RUNTIME)) as there:
            there.write(SCRIBBLER)
            for _ in range(times):
                answer = await there.answer()
            for fds in (answer["init"], answer["later"]):
                assert CHANNEL in fds
                assert [fd for fd in fds if fd != CHANNEL and fd[1] != LOGS] == []
                assert [fd[0] for fd in fds if fd[1] == LOGS] == [6]

    asyncio.run(live())


@pytest.mark.parametrize(
    "layout",
    [
        {"app/__init__.py": ONE},
        {"app.py": ONE, "spy.pth": ""},
        {"app.py": ONE, "__pycache__/other.pyc": ""},
    ],
    ids=["package", "path-file", "cached-bytecode"],
)
def test_where_the_import_system_decides_nothing_is_told_or_left_open(folder: Path, layout: dict[str, str]) -> None:
    async def live() -> None:
        async with world(folder, find(RUNTIME)) as there:
            for name, text in layout.items():
                path = there.file.parent / name
                path.parent.mkdir(exist_ok=True)
                path.write_text(text and SCRIBBLER)
            answer = await there.answer()
            assert [fd for fd in answer["init"] if fd[0] in (7, 8)] == []

    asyncio.run(live())


def test_an_environment_that_dies_while_it_compiles_leaves_the_next_to_tell(folder: Path) -> None:
    async def live() -> None:
        async with world(folder, find(RUNTIME)) as there:
            there.write("(")
            with pytest.raises(AssertionError):
                await there.answer()  # a syntax error ends it
            there.write(ONE)
            assert await there.answer() == "one"
            there.write(TWO)
            assert await there.answer() == "one"

    asyncio.run(live())

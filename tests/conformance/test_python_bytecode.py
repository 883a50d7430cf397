"""The handler's bytecode: what one environment has compiled, those after it load, and nobody else does (sandbox/bytecode.py).

Whether an environment compiled or loaded shows when the source is changed behind its back, with the same size and time.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lambent.arn import FunctionArn
from lambent.errors import ClientFault, SandboxFault
from lambent.function_version import FunctionVersion
from lambent.runtime_api.frames import FrameReader, FrameType, encode_invoke
from lambent.runtimes.catalogue import Catalogue
from lambent.runtimes.environment_variables import environment_variables
from lambent.sandbox.choose import make_driver
from lambent.sandbox.driver import SandboxDriver, SandboxSpec
from lambent.settings import SandboxSettings

ONE = "def handler(event, context):\n    return 'one'\n"
TWO = ONE.replace("one", "two")
INTERPRETERS = [f"python3.{minor}" for minor in range(8, 15)]


class World:
    """A driver, one function, and environments of it, one after the other."""

    def __init__(self, driver: SandboxDriver, folder: Path, runtime: str) -> None:
        self._driver = driver
        self.file = folder / "code" / "app.py"
        self.file.parent.mkdir()
        self._made = 0
        self.version = FunctionVersion(
            FunctionArn("us-east-1", "000000000000", "bytecode"), "$LATEST", runtime, "app.handler", "", str(self.file.parent), 128
        )

    def write(self, source: str, at: int = 1_700_000_000) -> None:
        self.file.write_text(source)
        os.utime(self.file, (at, at))

    async def answer(self, key: str = "key", **changes: Any) -> Any:
        """What a new environment answers to its first event."""
        self._made += 1
        identity = f"{self._made:032x}"
        spec = SandboxSpec(
            identity,
            self.version.runtime,
            self.version.handler,
            self.version.code_dir,
            128,
            512,
            {**environment_variables(self.version, identity), **changes.pop("environment", {})},
            code_key=key,
        )
        sandbox = await self._driver.start(replace(spec, **changes))
        reader, loop = FrameReader(1_000_000), asyncio.get_running_loop()
        frames = []
        try:
            while not frames:
                frames += reader.feed(await loop.sock_recv(sandbox.channel, 65_536))
            assert frames.pop(0).type == FrameType.NEXT, os.read(sandbox.logs, 65_536)
            await loop.sock_sendall(sandbox.channel, encode_invoke(1, "request", 4_102_444_800_000, "arn", "", b"{}"))
            while not frames:
                frames += reader.feed(await loop.sock_recv(sandbox.channel, 65_536))
            assert frames[0].type == FrameType.RESPONSE, frames[0].body
            return json.loads(frames[0].body)
        finally:
            await sandbox.kill()
            sandbox.channel.close()
            self.printed = b""
            with suppress(BlockingIOError):
                self.printed = os.read(sandbox.logs, 65_536)
            os.close(sandbox.logs)


@asynccontextmanager
async def world(folder: Path, runtime: str) -> AsyncIterator[World]:
    folder.chmod(0o755)
    driver = make_driver(SandboxSettings(isolation="namespaces", blanks=1, egress="none"), folder, Catalogue())
    try:
        await driver.open()
    except SandboxFault as fault:
        pytest.skip(fault.message)
    try:
        await driver.prepare(runtime)
        yield World(driver, folder, runtime)
    finally:
        await driver.close()


def find(runtime: str) -> str:
    try:
        Catalogue().find(runtime)
    except ClientFault as fault:
        pytest.skip(fault.message)
    return runtime


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    for parent in (tmp_path, *tmp_path.parents):
        if parent.owner() == tmp_path.owner() and parent != Path("/tmp"):
            parent.chmod(0o755)
    return tmp_path


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


RUNTIME = "python3.11"


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

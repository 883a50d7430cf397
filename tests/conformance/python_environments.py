"""Environments of one Python function, made with the driver alone, one after the other."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
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

INTERPRETERS = [f"python3.{minor}" for minor in range(8, 15)]


class World:
    """A driver, one function, and environments of it, one after the other."""

    def __init__(self, driver: SandboxDriver, folder: Path, runtime: str) -> None:
        self._driver = driver
        self.file = folder / "code" / "app.py"
        self.file.parent.mkdir()
        self._made = 0
        self.version = FunctionVersion(
            FunctionArn("us-east-1", "000000000000", "function"), "$LATEST", runtime, "app.handler", "", str(self.file.parent), 128
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
    """With the namespaces driver; skips where this machine has none."""
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
    """``runtime``; skips where this machine has none of it."""
    try:
        Catalogue().find(runtime)
    except ClientFault as fault:
        pytest.skip(fault.message)
    return runtime

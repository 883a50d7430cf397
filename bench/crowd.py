"""A thousand environments at the level of the sandbox driver: started, initialised (the handler is imported), and idle; none is invoked.

Runs in a process of its own, ``python -m bench.crowd COUNT RUNTIME``, which opens the driver that a server would choose. Prints JSON:
seconds until the last environment was ready, and the private bytes of all their processes.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import sys
import tempfile
import time
import uuid
from pathlib import Path

import uvloop

from bench.stage import SMALL_MB, descendants, private_memory
from lambent.arn import FunctionArn
from lambent.function_version import FunctionVersion
from lambent.runtime_api.frames import FrameReader, FrameType
from lambent.runtimes.catalogue import Catalogue
from lambent.runtimes.environment_variables import environment_variables
from lambent.sandbox.choose import make_driver
from lambent.sandbox.driver import Sandbox, SandboxDriver, SandboxSpec
from lambent.settings import SandboxSettings


async def fill(count: int, runtime: str, folder: Path) -> dict[str, float]:
    """Have ``count`` idle environments, measure, end them."""
    code = folder / "code"
    code.mkdir()
    shutil.copy(Path(__file__).with_name("handler.py"), code)
    version = FunctionVersion(
        FunctionArn("us-east-1", "000000000000", "crowd"), "$LATEST", runtime, "handler.hello", "", str(code), SMALL_MB, log_group="/crowd"
    )
    driver = make_driver(SandboxSettings(), folder, Catalogue())
    await driver.open()
    try:
        await driver.prepare(runtime)
        before = set(descendants(os.getpid()))
        begin = time.perf_counter()
        sandboxes = await asyncio.gather(*(_start(driver, version) for _ in range(count)))
        elapsed = time.perf_counter() - begin
        await asyncio.sleep(2)
        private = private_memory([pid for pid in descendants(os.getpid()) if pid not in before])
        await asyncio.gather(*(sandbox.kill() for sandbox in sandboxes))
        for sandbox in sandboxes:
            sandbox.channel.close()
            os.close(sandbox.logs)
    finally:
        await driver.close()
    return {"elapsed": elapsed, "private": private}


async def _start(driver: SandboxDriver, version: FunctionVersion) -> Sandbox:
    identity = uuid.uuid4().hex
    sandbox = await driver.start(
        SandboxSpec(
            identity,
            version.runtime,
            version.handler,
            version.code_dir,
            version.memory_mb,
            version.ephemeral_mb,
            environment_variables(version, identity),
            code_key=version.keyed(),
        )
    )
    reader = FrameReader(1_000_000)
    while True:
        frames = reader.feed(await asyncio.get_running_loop().sock_recv(sandbox.channel, 65_536))
        if frames:
            if frames[0].type != FrameType.NEXT:
                raise RuntimeError(f"an environment did not initialise: {frames[0]}")
            sandbox.freeze()
            return sandbox


def main() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    folder = Path(tempfile.mkdtemp(prefix="lambent-bench-"))
    try:
        folder.chmod(0o755)
        json.dump(uvloop.run(fill(int(sys.argv[1]), sys.argv[2], folder)), sys.stdout)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

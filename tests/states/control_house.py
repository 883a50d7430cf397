"""A control plane to test: real parts, around a store that can be interrupted, slowed, cut off and copied.

``House`` is one life of a process; ``house.reborn()`` is the next one on the same disk and store, as after ``kill -9``.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import shutil
import stat
import tempfile
import zipfile
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from lambent.arn import FunctionArn
from lambent.control.account import Account
from lambent.control.code import CodeStore
from lambent.control.code_links import CodeLinks
from lambent.control.code_room import CodeRoom
from lambent.control.code_source import BucketObject, CodeSource, Reader
from lambent.control.function_rules import Rules
from lambent.control.function_table import FunctionTable
from lambent.control.functions import Functions
from lambent.control.image_code import ImageCode
from lambent.control.layer_table import LayerTable
from lambent.control.layers import Layers
from lambent.control.tags import Tags
from lambent.errors import ClientFault, PlatformFault, SandboxFault, invalid_parameter
from lambent.function_version import FunctionVersion
from lambent.images.sources import Sources
from lambent.images.store import ImageStore
from lambent.invoke.registry import Registry
from lambent.settings import ImageSettings, Limits
from lambent.store.contract import ANY, Delete, Mutation, Put, Record, StoreConflict, StoreUnavailable
from lambent.testing.clock import ManualClock
from lambent.wire.call import Call

ACCOUNT, REGION = "123456789012", "us-east-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/r"
ARN = FunctionArn(REGION, ACCOUNT, "f")


class Disk:
    """What survives a process: documents and blobs, as JSON text and bytes, and maybe a folder of images."""

    def __init__(self) -> None:
        self.images: Path | None = None  # where a test wants images to outlive a house
        self.documents: dict[tuple[str, str], tuple[str, int]] = {}
        self.blobs: dict[str, bytes] = {}
        self.unreadable: set[str] = set()


class TinyStore:
    """The KV part of ``Store`` over a ``Disk``.

    Every commit lets other tasks run first. With ``die_at`` set, the n-th commit from then on never returns, nor does any later one, and
    ``dead`` is set: the process stopped there, before or (``die_after``) after the commit took effect.
    """

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.unavailable = False
        self.commits = 0
        self.before_commit: Callable[[], None] = lambda: None
        self.lag: Callable[[], int] = lambda: 1  # turns of the loop between a commit's effect and its return
        self.die_at = 0
        self.die_after = False
        self.dead = asyncio.Event()

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def commit(self, *mutations: Mutation) -> list[int]:
        await asyncio.sleep(0)
        if self.unavailable:
            raise StoreUnavailable("no space left")
        self.before_commit()
        if self.die_at:
            self.die_at -= 1
            if not self.die_at:
                self.dead.set()
        if self.dead.is_set() and not self.die_after:
            await asyncio.get_running_loop().create_future()
        documents = dict(self.disk.documents)
        given = [self._apply(documents, mutation) for mutation in mutations]
        self.disk.documents = documents
        self.commits += 1
        if self.dead.is_set():
            self.die_after = False
            await asyncio.get_running_loop().create_future()
        for _ in range(self.lag()):
            await asyncio.sleep(0)
        return given

    def _apply(self, documents: dict[tuple[str, str], tuple[str, int]], mutation: Mutation) -> int:
        assert isinstance(mutation, Put | Delete)
        place = (mutation.kind, mutation.key)
        found = documents.get(place, ("", 0))[1]
        if mutation.expected not in (ANY, found):
            raise StoreConflict(mutation.kind, mutation.key, mutation.expected, found)
        if isinstance(mutation, Delete):
            return int(documents.pop(place, None) is not None)
        documents[place] = (json.dumps(mutation.value), found + 1)
        return found + 1

    async def get(self, kind: str, key: str) -> Record | None:
        found = self.disk.documents.get((kind, key))
        return None if found is None else Record(key, json.loads(found[0]), found[1])

    async def scan(self, kind: str, prefix: str = "", after: str = "", limit: int = 1000) -> list[Record]:
        keys = sorted(key for k, key in self.disk.documents if k == kind and key.startswith(prefix) and key > after)
        records = [await self.get(kind, key) for key in keys[:limit]]
        return [record for record in records if record is not None]

    async def read(self, topic: str, after: int = 0, limit: int = 1000) -> list[Any]:
        raise NotImplementedError

    async def truncate(self, topic: str, through: int) -> None:
        raise NotImplementedError

    async def lease(self, queue: str, limit: int, now: float, visibility: float) -> list[Any]:
        raise NotImplementedError

    async def depth(self, queue: str) -> int:
        raise NotImplementedError


class TinyBlobs:
    def __init__(self, disk: Disk) -> None:
        self.disk = disk

    async def put(self, content: bytes) -> str:
        await asyncio.sleep(0)
        address = hashlib.sha256(content).hexdigest()
        self.disk.blobs[address] = content
        return address

    async def get(self, address: str) -> bytes | None:
        if address in self.disk.unreadable:
            raise StoreUnavailable(f"{address}: input/output error")
        return self.disk.blobs.get(address)

    async def delete(self, address: str) -> None:
        self.disk.blobs.pop(address, None)

    async def addresses(self) -> AsyncIterator[str]:
        for address in list(self.disk.blobs):
            yield address


class TinyCatalogue:
    """Knows Python 3.11 to 3.13; 3.13 has no interpreter."""

    def check(self, runtime: str) -> None:
        if runtime not in ("python3.11", "python3.12", "python3.13"):
            raise invalid_parameter(f"unknown {runtime}")

    def plan(self, runtime: str) -> object:
        self.check(runtime)
        if runtime == "python3.13":
            raise invalid_parameter("no interpreter for python3.13")
        return object()


class TinyShelf:
    """Objects in a dictionary; what is not there is refused as S3 does."""

    def __init__(self) -> None:
        self.objects: dict[BucketObject, bytes] = {}
        self.is_near = True
        self.broken = False
        self.latest = "null"  # the version id of what is read without one
        self.reads = 0
        self.readers: list[Reader] = []
        self.fault = ClientFault("NoSuchKey", 404, "The specified key does not exist.")

    async def read(self, reader: Reader, wanted: BucketObject, most: int) -> tuple[bytes, str]:
        await self.look(reader, wanted)
        self.reads += 1
        return self.objects[wanted][:most], wanted.version or self.latest

    async def look(self, reader: Reader, wanted: BucketObject) -> None:
        await asyncio.sleep(0)
        self.readers.append(reader)
        if self.broken:
            raise PlatformFault("S3 does not answer")
        if wanted not in self.objects:
            raise self.fault


class TaskList:
    """A task group that can be killed, and that fails the test when a task of it fails."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []

    def create_task(self, coro: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coro)
        self.tasks.append(task)
        return task

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self.tasks, return_exceptions=True):
            if outcome is not None and not isinstance(outcome, asyncio.CancelledError):
                raise outcome


class House:
    """Use with ``async with``; gives the parts under their names. ``gate`` holds preparations back while it is cleared."""

    def __init__(self, root: Path, disk: Disk | None = None, clock: ManualClock | None = None, limits: Limits | None = None) -> None:
        self.root = root
        self.disk = disk or Disk()
        self.clock = clock or ManualClock()
        self.limits = limits or Limits()
        self.store = TinyStore(self.disk)
        self.blobs = TinyBlobs(self.disk)
        self.tasks = TaskList()
        self.registry = Registry()
        self.published: list[FunctionVersion | None] = []
        self.registry.listen(lambda change: self.published.append(change.after))
        self.gate = asyncio.Event()
        self.gate.set()
        self.prepare_fault: SandboxFault | None = None
        self.prepare_faults: int | None = None  # how often; None: always
        self.running: set[str] = set()
        self.shelf = TinyShelf()
        self.image_folders: tuple[str, ...] = ()
        self.calls = 0

    async def __aenter__(self) -> House:
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self.links = await CodeLinks.open(self.store, self.clock)
        self.code = CodeStore(self.root, self.store, self.blobs, self.links, self.limits, self.clock, self.running.__contains__)
        self.table = FunctionTable(self.store)
        sources = Sources(ImageSettings(folders=self.image_folders), ())
        self.image_root = self.disk.images or Path(tempfile.mkdtemp(prefix="images-"))
        self.image_store = ImageStore(self.image_root, sources, self.limits.image_unpacked, "x86_64", self.clock, self.running.__contains__)
        await self.image_store.open()
        self.rules = Rules(self.limits, TinyCatalogue(), "x86_64")
        self.tags = Tags(self.table, self.rules)
        self.layer_table = LayerTable(self.store)
        self.room = CodeRoom(self.table, self.layer_table, self.limits)
        self.account = Account(self.table, self.room, self.limits, lambda account, region: self.limits.concurrent_executions)
        self.source = CodeSource(self.shelf, self.limits)
        self.layers = Layers(self.layer_table, self.code, self.source, self.room, self.clock, self.limits)
        self.functions = Functions(
            self.table,
            self.code,
            self.rules,
            self.registry,
            self._prepare,
            self.tasks,
            self.clock,
            self.limits,
            self.layers,
            self.room,
            ImageCode(self.image_store, self.clock),
            self.source,
        )
        await self.functions.load()

    async def stop(self) -> None:
        await self.tasks.stop()
        self.code.close()
        self._close_images()

    async def kill(self) -> None:
        """End every task where it stands."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self.code.close()
        self._close_images()

    def _close_images(self) -> None:
        self.image_store.close()
        if self.image_root != self.disk.images:
            shutil.rmtree(self.image_root, ignore_errors=True)

    def reborn(self) -> House:
        after = House(self.root, self.disk, self.clock, self.limits)
        after.shelf = self.shelf
        return after

    async def _prepare(self, runtime: str) -> None:
        await self.gate.wait()
        if self.prepare_fault is not None and self.prepare_faults != 0:
            self.prepare_faults = None if self.prepare_faults is None else self.prepare_faults - 1
            raise self.prepare_fault

    async def settle(self) -> None:
        """Let everything run that needs no clock and no gate."""
        quiet = 0
        while quiet < 20:
            await asyncio.sleep(0)
            if self.store.dead.is_set():
                await asyncio.get_running_loop().create_future()
            busy = self.code._turns.taken or self.image_store._turns.taken or not self.code._threads._work_queue.empty()
            quiet = 0 if busy else quiet + 1

    def call(self, account: str = ACCOUNT, region: str = REGION) -> Call:
        self.calls += 1
        return Call(f"call-{id(self)}-{self.calls}", account, region, "AKIA", f"arn:aws:iam::{account}:root", "http://host:4566")

    async def create(self, name: str = "f", content: bytes | None = None, **params: Any) -> dict[str, Any]:
        return await self.functions.create(self.call(), creation(name, content, **params))

    def show(self, name: str = "f", **params: Any) -> dict[str, Any]:
        return self.functions.get_configuration(self.call(), {"FunctionName": name, **params})

    async def configure(self, name: str = "f", **params: Any) -> dict[str, Any]:
        return await self.functions.update_configuration(self.call(), {"FunctionName": name, **params})

    async def upload(self, content: bytes, name: str = "f", **params: Any) -> dict[str, Any]:
        return await self.functions.update_code(self.call(), {"FunctionName": name, "ZipFile": content, **params})

    async def delete(self, name: str = "f", **params: Any) -> None:
        await self.functions.delete(self.call(), {"FunctionName": name, **params})


def creation(name: str = "f", content: bytes | None = None, **params: Any) -> dict[str, Any]:
    return {
        "FunctionName": name,
        "Runtime": "python3.12",
        "Handler": "h.handler",
        "Role": ROLE,
        "Code": {"ZipFile": zipped() if content is None else content},
        **params,
    }


def zipped(files: dict[str, bytes] | None = None) -> bytes:
    return archive(*(entry(name, body) for name, body in (files or {"h.py": b"def handler(e, c): return e\n"}).items()))


def entry(name: str, body: bytes = b"", mode: int | None = stat.S_IFREG | 0o644, **members: Any) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name, (2026, 1, 2, 3, 4, 6))
    info.orig_filename = info.filename = name
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = 3
    info.external_attr = 0 if mode is None else mode << 16
    for member, value in members.items():
        setattr(info, member, value)
    return info, body


def archive(*entries: tuple[zipfile.ZipInfo, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as made:
        for info, body in entries:
            made.writestr(info, body)
    return sink.getvalue()


def small(**limits: int) -> Limits:
    return replace(Limits(), **limits)

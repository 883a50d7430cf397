"""Code that stays in a bucket (``S3ObjectStorageMode`` REFERENCE; contract 01 §3, 06 §7).

What a document keeps of it: ``CodeSha256`` as of any zip, and in ``_reference`` the bucket, the key and the version of the object, and the
ARN of the function or layer on whose behalf it is read. Layers of a function lie in its ``_layers`` likewise, since a layer version may
be deleted while functions go on with it. No zip is kept here and none counts against the account; the folder that functions run from is
only what was unpacked last, and where it is missing it is made anew from the object, which must be the very bytes that it was.

**When the object goes.** What runs goes on running from its folder. But now and then, after ``limits.code_check_seconds``, the object of
every ``$LATEST`` is looked at, without reading it; a function whose object is gone becomes Inactive and says why. The invocation that
finds it so is refused and wakes it, and waking looks again: the object back, it is Active as before. An S3 that does not answer says
nothing about the object, so nothing comes of that but another attempt. The lost object of a layer does not stop its functions; only
naming the layer again is refused.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import uuid
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Protocol

from lambent.arn import FunctionArn
from lambent.clock import Clock
from lambent.control.code import CodeStore
from lambent.control.code_source import CodeSource, ObjectLost, Reference
from lambent.control.function_configuration import Configuration, FunctionRecord, code_of, layers_of, reference_of
from lambent.control.function_state import Event, Phase, SourceLost
from lambent.control.function_table import FunctionTable
from lambent.control.layer_merge import merged_key
from lambent.errors import ClientFault, PlatformFault
from lambent.store.contract import StoreUnavailable

WATCHED = frozenset({Phase.ACTIVE, Phase.UPDATE_FAILED})


class Report(Protocol):
    """Commits what happened to a function, if it is still as ``still`` wants it."""

    def __call__(self, arn: FunctionArn, event: Event, still: Callable[[FunctionRecord], bool] = ...) -> Awaitable[None]: ...


class ReferencedCode:
    """Folders of code, wherever the zips are kept."""

    def __init__(self, code: CodeStore, source: CodeSource) -> None:
        self._code = code
        self._source = source

    async def ensure(self, document: Configuration) -> None:
        """Have the folders that environments of ``document`` see. Raises ``CodeLost``, ``ObjectLost``, ``PlatformFault``."""
        reference, layers = reference_of(document), layers_of(document)
        await self._code.ensure(code_of(document), None if reference is None else partial(self._fetch, reference, code_of(document)))
        fetches = {
            sha256: partial(self._fetch_layer, each, sha256)
            for sha256, each in zip(layers.hashes, layers.references, strict=True)
            if each is not None
        }
        await self._code.ensure_layers(layers.hashes, fetches)

    def is_far(self, document: Configuration) -> bool:
        """Whether ``ensure`` may have to read from another S3."""
        return not self._source.is_near and (reference_of(document) is not None or any(layers_of(document).references))

    def require(self, document: Configuration) -> None:
        """Raises ``PlatformFault`` where a folder is missing; fetches nothing."""
        hashes = layers_of(document).hashes
        for sha256 in filter(None, (code_of(document), *hashes, merged_key(hashes))):
            if not self._code.has(sha256):
                raise PlatformFault(f"The folder of the code {sha256} is missing.")

    async def look(self, document: Configuration) -> None:
        """Look whether the object of the code is where it was. Raises ``ObjectLost``, and ``PlatformFault`` where nobody can tell."""
        reference = reference_of(document)
        if reference is not None:
            await self._source.look(reference)

    async def _fetch(self, reference: Reference, sha256: str) -> bytes:
        content = await self._source.again(reference)
        if await _digest(content) != sha256:
            raise ObjectLost(reference, "It has other content than when it was deployed.")
        return content

    async def _fetch_layer(self, reference: Reference, sha256: str) -> bytes:
        try:
            return await self._fetch(reference, sha256)
        except ObjectLost as fault:  # no loss of the function, which is to stay Active
            raise PlatformFault(f"A layer is missing here. {fault.message}") from fault


class SourceWatch:
    """Looks at the objects of functions every ``every_s`` seconds, 0: never."""

    def __init__(self, table: FunctionTable, code: ReferencedCode, clock: Clock, every_s: float, report: Report) -> None:
        self._table = table
        self._code = code
        self._clock = clock
        self._every_s = every_s
        self._report = report

    async def run(self) -> None:
        """For as long as the server lives."""
        while self._every_s > 0:
            await self._clock.sleep(self._every_s)
            for record in list(self._table):
                await self.look(record.arn)

    async def look(self, arn: FunctionArn) -> None:
        """Let a function rest whose object is gone."""
        record = self._table.get(arn)
        if record is None or record.serving is None or record.state.phase not in WATCHED:
            return
        reference = reference_of(record.serving)
        try:
            await self._code.look(record.serving)
        except ObjectLost as fault:
            event = SourceLost(f"look-{uuid.uuid4()}", self._clock.now(), fault.message)
            await self._report(arn, event, lambda now: now.serving is not None and reference_of(now.serving) == reference)
        except (PlatformFault, StoreUnavailable):
            return  # it may answer next time


class Downloads:
    """Zips behind ``Code.Location`` that are not kept here. ``layers`` gives what layer versions refer to, by content."""

    def __init__(self, table: FunctionTable, layers: Callable[[str], list[Reference]], source: CodeSource) -> None:
        self._table = table
        self._layers = layers
        self._source = source

    async def find(self, sha256: str) -> bytes | None:
        """From the first object that has the content still; ``None`` where nobody refers to it. Raises 404 where all are gone."""
        lost: ObjectLost | None = None
        for reference in dict.fromkeys([*self._references(sha256), *self._layers(sha256)]):
            try:
                content = await self._source.again(reference)
            except ObjectLost as fault:
                lost = fault
                continue
            if await _digest(content) == sha256:
                return content
        if lost is not None:
            raise ClientFault("NoSuchKey", 404, lost.message) from lost
        return None

    def _references(self, sha256: str) -> Iterator[Reference]:
        shown = base64.b64encode(bytes.fromhex(sha256)).decode()
        for function in self._table:
            for record in (function, *function.versions.values()):
                for document in (record.configuration, record.serving):
                    if document is not None and document["CodeSha256"] == shown and (reference := reference_of(document)) is not None:
                        yield reference


async def _digest(content: bytes) -> str:
    return await asyncio.to_thread(lambda: hashlib.sha256(content).hexdigest())

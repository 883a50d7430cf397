"""What happens behind the answer: code and runtime of a function are made ready, and brought back where they went missing.

A preparation works under the fence that started it and reports under it; what comes of the report is for the table of states
(``function_state.py``) to say. At the start every function is taken up: the data plane is shown what it runs, what a killed process left
unfinished goes on, and what is missing on the disk is made anew from what is kept, or mended in the background until it is there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, Protocol

from lambent.arn import FunctionArn
from lambent.clock import Clock
from lambent.control.code import CodeLost, CodeStore
from lambent.control.function_configuration import Configuration, FunctionRecord, code_of, compile_version, layers_of
from lambent.control.function_rules import Rules
from lambent.control.function_state import CodeLost as CodeLostEvent
from lambent.control.function_state import Event, Phase, Prepared, PrepareFailed
from lambent.control.function_table import FunctionTable
from lambent.control.image_code import ImageCode, ImageLost, is_image
from lambent.errors import ClientFault, PlatformFault
from lambent.function_version import FunctionVersion
from lambent.store.contract import StoreUnavailable

MEND_S = 30.0  # between attempts to bring back a folder of code
ATTEMPTS = 3  # at a preparation that fails by a fault of ours, as when the launcher dies under it

Report = Callable[[FunctionArn, Event], Awaitable[None]]


class Registry(Protocol):
    """Where the data plane reads what it runs."""

    def put(self, version: FunctionVersion) -> None: ...

    def remove(self, arn: FunctionArn, version: str | None = None) -> None: ...

    def point(self, arn: FunctionArn, name: str, version: str, weights: Mapping[str, float]) -> None: ...


class Tasks(Protocol):
    """A task group."""

    def create_task(self, coro: Coroutine[Any, Any, None]) -> object: ...


class Preparation:
    """``prepare(runtime)`` makes the sandbox driver ready for a runtime; ``report`` commits what happens to a function."""

    def __init__(
        self,
        table: FunctionTable,
        code: CodeStore,
        images: ImageCode,
        registry: Registry,
        prepare: Callable[[str], Awaitable[None]],
        tasks: Tasks,
        clock: Clock,
        rules: Rules,
        report: Report,
    ) -> None:
        self._table = table
        self._code = code
        self._images = images
        self._registry = registry
        self._prepare_runtime = prepare
        self._tasks = tasks
        self._clock = clock
        self._rules = rules
        self._report = report
        self._code_root = code.folder("").rstrip("/")

    def start(self, arn: FunctionArn, fence: str) -> None:
        """Begin the preparation ``fence`` of a function, in the background."""
        self._tasks.create_task(self._prepare(arn, fence))

    def compile(self, record: FunctionRecord) -> FunctionVersion:
        return compile_version(record, self._code_root, self._rules.file_systems, self._images.root)

    async def take_up(self, record: FunctionRecord) -> None:
        """One function at the start."""
        if record.serving is not None and record.state.phase is not Phase.FAILED:
            try:
                if is_image(record.serving):  # fetching takes its time, and the other functions are not to wait for it
                    await self._images.require(record.serving)
                else:
                    await self._ensure(record.serving)
            except CodeLost as fault:
                await self._report(record.arn, CodeLostEvent("load", self._clock.now(), fault.message))
                return
            except (StoreUnavailable, PlatformFault):  # one function's trouble keeps no other from starting
                self._tasks.create_task(self._mend(record.arn))
        self._registry.put(self.compile(record))
        for version in record.versions.values():
            await self._take_up_version(version)
        for alias in record.aliases.values():
            self._registry.point(record.arn, alias.name, alias.version, alias.weights)
        if record.state.fence:
            self._tasks.create_task(self._prepare(record.arn, record.state.fence))

    async def _take_up_version(self, version: FunctionRecord) -> None:
        """One published version at the start; one whose code is lost is shown as failed."""
        if version.serving is not None:
            try:
                await (self._images.require(version.serving) if is_image(version.serving) else self._ensure(version.serving))
            except CodeLost as fault:
                state, _ = version.state.handle(CodeLostEvent("load", self._clock.now(), fault.message))
                version = replace(version, state=state)
            except (StoreUnavailable, PlatformFault):
                self._tasks.create_task(self._mend(version.arn))
        self._registry.put(self.compile(version))

    async def _mend(self, arn: FunctionArn) -> None:
        """Try again and again to bring back the folder that a function runs from; until then its environments do not start."""
        while True:
            await self._clock.sleep(MEND_S)
            record = self._table.get(arn)
            if record is None or record.serving is None:
                return
            try:
                await self._ensure(record.serving)
            except CodeLost as fault:
                await self._report(arn, CodeLostEvent("mend", self._clock.now(), fault.message))
            except (StoreUnavailable, PlatformFault):
                continue
            else:
                if is_image(record.serving):  # how it is started may be known only now
                    self._registry.put(self.compile(record))
            return

    async def _ensure(self, document: Configuration) -> None:
        """Have the folders that environments of ``document`` see. Raises ``CodeLost``, or ``ImageLost``."""
        if is_image(document):
            await self._images.ensure(document)
            return
        await self._code.ensure(code_of(document))
        await self._code.ensure_layers(layers_of(document).hashes)

    async def _prepare(self, arn: FunctionArn, fence: str) -> None:
        """Make everything ready that environments of the shown configuration need, and report under ``fence``."""
        record = self._table.get(arn)
        if record is None or record.state.fence != fence:
            return
        for _ in range(ATTEMPTS):
            event = await self._try_to_prepare(record, fence)
            if not (isinstance(event, PrepareFailed) and event.code == "InternalError"):
                break
        await self._report(arn, event)

    async def _try_to_prepare(self, record: FunctionRecord, fence: str) -> Event:
        try:
            await self._ensure(record.configuration)
            await self._prepare_runtime(record.configuration.get("Runtime", ""))
            return Prepared(fence, self._clock.now())
        except CodeLost as fault:
            return PrepareFailed(fence, self._clock.now(), "InvalidZipFileException", fault.message)
        except ImageLost as fault:
            return PrepareFailed(fence, self._clock.now(), fault.code, fault.message)
        except ClientFault as fault:  # the interpreter went away since it was found
            return PrepareFailed(fence, self._clock.now(), "InvalidRuntime", fault.message)
        except PlatformFault as fault:
            return PrepareFailed(fence, self._clock.now(), "InternalError", fault.message)
        except StoreUnavailable as fault:
            return PrepareFailed(fence, self._clock.now(), "InternalError", str(fault))

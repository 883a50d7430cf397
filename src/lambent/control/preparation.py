"""What happens behind the answer: code and runtime of a function are made ready, and brought back where they went missing.

A preparation works under the fence that started it and reports under it; what comes of the report is for the table of states
(``function_state.py``) to say. At the start every function is taken up: the data plane is shown what it runs, what a killed process left
unfinished goes on, and what is missing on the disk is made anew from what is kept, or mended in the background until it is there. Code that
is gone from the bucket that it stays in (``referenced_code.py``) makes ``$LATEST`` Inactive, which an invocation wakes; a published version
becomes Inactive too, and is tried again and again.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol

from lambent.arn import FunctionArn
from lambent.clock import Clock
from lambent.control.code import CodeLost
from lambent.control.code_source import ObjectLost
from lambent.control.function_configuration import Configuration, FunctionRecord, compile_version, reference_of
from lambent.control.function_rules import Rules
from lambent.control.function_state import RESTING, Event, Phase, Prepared, PrepareFailed, SourceLost, Wake
from lambent.control.function_state import CodeLost as CodeLostEvent
from lambent.control.function_table import FunctionTable
from lambent.control.image_code import ImageCode, ImageLost, is_image
from lambent.control.referenced_code import ReferencedCode
from lambent.errors import ClientFault, PlatformFault
from lambent.function_version import FunctionVersion
from lambent.store.contract import StoreUnavailable

MEND_S = 30.0  # between attempts to bring back a folder of code
ATTEMPTS = 3  # at a preparation that fails by a fault of ours, as when the launcher dies under it


class Registry(Protocol):
    """Where the data plane reads what it runs."""

    def put(self, version: FunctionVersion) -> None: ...

    def remove(self, arn: FunctionArn, version: str | None = None) -> None: ...

    def point(self, arn: FunctionArn, name: str, version: str, weights: Mapping[str, float]) -> None: ...


class Tasks(Protocol):
    """A task group."""

    def create_task(self, coro: Coroutine[Any, Any, None]) -> object: ...


class Owner(Protocol):
    """Commits what happens to functions and to their published versions."""

    async def report(self, arn: FunctionArn, event: Event) -> None: ...

    async def report_version(self, arn: FunctionArn, number: str, *events: Event) -> None: ...


class Preparation:
    """``prepare(runtime)`` makes the sandbox driver ready for a runtime; ``look`` asks whether the code of a function is in its bucket."""

    def __init__(
        self,
        table: FunctionTable,
        code: ReferencedCode,
        images: ImageCode,
        registry: Registry,
        prepare: Callable[[str], Awaitable[None]],
        tasks: Tasks,
        clock: Clock,
        rules: Rules,
        code_root: str,
        owner: Owner,
        look: Callable[[FunctionArn], Awaitable[None]],
    ) -> None:
        self._table = table
        self._code = code
        self._images = images
        self._registry = registry
        self._prepare_runtime = prepare
        self._tasks = tasks
        self._clock = clock
        self._rules = rules
        self._code_root = code_root
        self._owner = owner
        self._look = look

    def start(self, arn: FunctionArn, fence: str) -> None:
        """Begin the preparation ``fence`` of a function, in the background."""
        self._tasks.create_task(self._prepare(arn, fence))

    def end_waiting(self, arn: FunctionArn, number: str, fence: str) -> None:
        """A version that waits for nothing but its own fence is ready."""
        self._tasks.create_task(self._owner.report_version(arn, number, Prepared(fence, self._clock.now())))

    def compile(self, record: FunctionRecord) -> FunctionVersion:
        return compile_version(record, self._code_root, self._rules.file_systems, self._images.root)

    async def take_up(self, record: FunctionRecord) -> None:
        """One function at the start."""
        if record.serving is not None and record.state.phase is not Phase.FAILED:
            await self._take_up_code(record.arn, None, record.serving, record.state.phase)
        self._registry.put(self.compile(self._table.get(record.arn) or record))
        for number, version in record.versions.items():
            await self._take_up_version(number, version)
        for alias in record.aliases.values():
            self._registry.point(record.arn, alias.name, alias.version, alias.weights)
        if record.state.fence:
            self.start(record.arn, record.state.fence)

    async def _take_up_version(self, number: str, version: FunctionRecord) -> None:
        """One published version at the start; one whose code is lost is shown so."""
        if version.serving is not None and version.state.phase is not Phase.FAILED:
            await self._take_up_code(version.arn, number, version.serving, version.state.phase)
        whole = self._table.get(version.arn)
        self._registry.put(self.compile(version if whole is None else whole.versions.get(number, version)))
        if version.state.phase is Phase.CREATING and (whole is None or version.state.fence != whole.state.fence):
            self.end_waiting(version.arn, number, version.state.fence)

    async def _take_up_code(self, arn: FunctionArn, number: str | None, serving: Configuration, phase: Phase) -> None:
        """The folders of ``$LATEST`` or of a version, now or in the background."""
        if number is None and phase in RESTING and reference_of(serving) is not None:
            return  # whoever wakes it has the folder made
        far = not is_image(serving) and self._code.is_far(serving)
        try:
            if is_image(serving):  # fetching takes its time, and the other functions are not to wait for it
                await self._images.require(serving)
            elif far:
                self._code.require(serving)
            else:
                await self._ensure(serving)
            await self._is_back(arn, number, phase)
        except (CodeLost, ObjectLost) as fault:
            await self._lost(arn, number, fault)
            if number is not None and isinstance(fault, ObjectLost):
                self._tasks.create_task(self._mend(arn, number, MEND_S))
        except (StoreUnavailable, PlatformFault):  # one function's trouble keeps no other from starting
            self._tasks.create_task(self._mend(arn, number, 0.0 if far else MEND_S))

    async def _lost(self, arn: FunctionArn, number: str | None, fault: CodeLost | ObjectLost) -> None:
        kind = SourceLost if isinstance(fault, ObjectLost) else CodeLostEvent
        event = kind(f"lost-{uuid.uuid4()}", self._clock.now(), fault.message)
        await (self._owner.report(arn, event) if number is None else self._owner.report_version(arn, number, event))

    async def _is_back(self, arn: FunctionArn, number: str | None, phase: Phase) -> None:
        """A version that rested because its code was gone need not any more. ``$LATEST`` waits to be woken."""
        if number is not None and phase is Phase.INACTIVE:
            cause, now = f"back-{uuid.uuid4()}", self._clock.now()
            await self._owner.report_version(arn, number, Wake(cause, now), Prepared(cause, now))

    async def _mend(self, arn: FunctionArn, number: str | None, first_s: float) -> None:
        """Try again and again to bring back the folder that a function runs from; until then its environments do not start."""
        wait_s = first_s
        while True:
            if wait_s:
                await self._clock.sleep(wait_s)
            wait_s = MEND_S
            whole = self._table.get(arn)
            record = whole if whole is None or number is None else whole.versions.get(number)
            if record is None or record.serving is None:
                return
            if number is None and record.state.phase in RESTING and reference_of(record.serving) is not None:
                return
            try:
                await self._ensure(record.serving)
            except ObjectLost as fault:
                await self._lost(arn, number, fault)
                if number is not None:
                    continue
            except CodeLost as fault:
                await self._lost(arn, number, fault)
            except (StoreUnavailable, PlatformFault):
                continue
            else:
                await self._is_back(arn, number, record.state.phase)
                if is_image(record.serving):  # how it is started may be known only now
                    self._registry.put(self.compile(record))
            return

    async def _ensure(self, document: Configuration) -> None:
        """Have the folders that environments of ``document`` see. Raises ``CodeLost``, ``ObjectLost`` or ``ImageLost``."""
        await (self._images.ensure(document) if is_image(document) else self._code.ensure(document))

    async def _prepare(self, arn: FunctionArn, fence: str) -> None:
        """Make everything ready that environments of the shown configuration need, and report under ``fence``."""
        record = self._table.get(arn)
        if record is None or record.state.fence != fence:
            return
        for _ in range(ATTEMPTS):
            event = await self._try_to_prepare(record, fence)
            if not (isinstance(event, PrepareFailed) and event.code == "InternalError"):
                break
        await self._owner.report(arn, event)
        if record.state.phase is Phase.UPDATING and reference_of(record.configuration) is not None:
            await self._look(arn)  # the folder is there, but who updates a function whose object is gone is to see it

    async def _try_to_prepare(self, record: FunctionRecord, fence: str) -> Event:
        waking = record.state.phase is Phase.RESTORING
        try:
            if waking:
                await self._code.look(record.configuration)
            await self._ensure(record.configuration)
            await self._prepare_runtime(record.configuration.get("Runtime", ""))
            return Prepared(fence, self._clock.now())
        except CodeLost as fault:
            return PrepareFailed(fence, self._clock.now(), "InvalidZipFileException", fault.message)
        except ObjectLost as fault:
            return PrepareFailed(fence, self._clock.now(), "Idle" if waking else "InvalidZipFileException", fault.message)
        except ImageLost as fault:
            return PrepareFailed(fence, self._clock.now(), fault.code, fault.message)
        except ClientFault as fault:  # the interpreter went away since it was found
            return PrepareFailed(fence, self._clock.now(), "InvalidRuntime", fault.message)
        except PlatformFault as fault:
            return PrepareFailed(fence, self._clock.now(), "InternalError", fault.message)
        except StoreUnavailable as fault:
            return PrepareFailed(fence, self._clock.now(), "InternalError", str(fault))

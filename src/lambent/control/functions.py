"""Functions: created, shown, changed, deleted (contract 01 §3, §5, §6).

A change goes through the same stations whatever it is:

    rules      what can be refused without looking at the function           (function_rules.py)
    code       the zip is unpacked and stored, and held until the commit      (code.py)
    decide     the record as it stands + the event -> the new record          (function_state.py; runs inside the table's turn)
    commit     compare-and-set in the store, then memory                      (function_table.py)
    carry out  the instructions: publish to the data plane, prepare, withdraw
    answer

The answer never precedes the commit. Preparing (the runtime's zygote is started, the code is there) happens behind the answer
(``preparation.py``): the caller sees Pending or InProgress and polls. Until an update is prepared the data plane keeps the value that it
had; a killed process finds the unfinished preparation by its fence in the store and takes it up again in ``load``.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

from lambent.arn import LATEST, LATEST_PUBLISHED, FunctionArn, parse_function
from lambent.clock import Clock
from lambent.control.attachments import CODE_SIGNING, attached, detach_all, signed
from lambent.control.code import Code, CodeStore
from lambent.control.code_keeping import CodeKeeping
from lambent.control.code_room import CodeRoom
from lambent.control.code_source import BucketObject, CodeSource
from lambent.control.function_configuration import (
    Configuration,
    FunctionRecord,
    build,
    code_of,
    layers_of,
    merge,
    merge_code,
    show,
)
from lambent.control.function_kinds import on_provider, only_on_provider, provider_of
from lambent.control.function_names import missing, new_name, resolve, resolve_function
from lambent.control.function_rules import Rules, Source
from lambent.control.function_state import (
    Create,
    Delete,
    Event,
    FunctionState,
    Instruction,
    Operation,
    Phase,
    Prepared,
    PrepareFailed,
    Update,
)
from lambent.control.function_table import FunctionTable
from lambent.control.function_views import FunctionViews
from lambent.control.image_code import ImageCode, is_image
from lambent.control.layer_table import ResolvedLayers
from lambent.control.layers import Layers
from lambent.control.preparation import Preparation, Registry, Tasks
from lambent.control.published import publish
from lambent.control.referenced_code import Downloads, ReferencedCode, SourceWatch
from lambent.control.runtime_versions import RuntimeOf, renewed
from lambent.errors import ClientFault, PlatformFault, conflict, invalid_parameter, precondition_failed
from lambent.settings import Limits
from lambent.store.contract import StoreUnavailable
from lambent.wire.call import Call

Params = Mapping[str, Any]
Admit = Callable[[Call, FunctionArn, str | None], None]  # refuses code that a code signing configuration does not trust
Decide = Callable[[FunctionRecord | None], tuple[FunctionRecord, Event]]

RETRY_S = 1.0  # between attempts to commit the end of a preparation while the store is unavailable


class Functions:
    """``prepare(runtime)`` makes the sandbox driver ready for a runtime. Call ``load`` once before anything else."""

    def __init__(
        self,
        table: FunctionTable,
        code: CodeStore,
        rules: Rules,
        registry: Registry,
        prepare: Callable[[str], Awaitable[None]],
        tasks: Tasks,
        clock: Clock,
        limits: Limits,
        layers: Layers,
        room: CodeRoom,
        images: ImageCode,
        source: CodeSource,
        runtime_of: RuntimeOf = lambda name: None,
    ) -> None:
        self._table = table
        self._code = code
        self._rules = rules
        self._registry = registry
        self._clock = clock
        self._limits = limits
        self._layers = layers
        self._room = room
        self._images = images
        self._source = source
        self._runtime_of = runtime_of
        referenced = ReferencedCode(code, source)
        self.watch = SourceWatch(table, referenced, clock, limits.code_check_seconds, self.report)
        code.elsewhere = Downloads(table, layers.references, source).find
        self._preparation = Preparation(
            table, referenced, images, registry, prepare, tasks, clock, rules, code.folder("").rstrip("/"), self, self.watch.look
        )
        self._keeping = CodeKeeping(table, layers, code, images, tasks, clock)
        self.admit: Admit = lambda call, arn, config: None
        self.admit_provider: Callable[[Call, str], None] = lambda call, provider: None
        self.admit_version: Callable[[FunctionRecord], None] = lambda record: None
        self._views = FunctionViews(table, code.location, limits, runtime_of)
        table.reloaded = self._follow

    async def load(self) -> None:
        """Read what is stored, give it to the data plane, and take up what a killed process left unfinished."""
        await self._table.load()
        await self._layers.load()
        await self._keeping.sweep()
        for record in self._table:
            await self._preparation.take_up(record)
        self._keeping.collect_soon()

    async def create(self, call: Call, params: Params) -> Configuration:
        arn = new_name(call, params["FunctionName"])
        source = self._rules.create(params)
        self.admit(call, arn, params.get("CodeSigningConfigArn"))
        if on_provider(params):
            self.admit_provider(call, provider_of(params))
        await self._rules.runtime(params)
        if self._table.get(arn) is not None:
            raise _exists(arn)
        layers = self._resolve_layers(call, params)  # refuses before the zip is unpacked; what counts is how they are at the commit
        await self._layers.require_accessible(layers)
        async with self._put(call, arn, source) as code:

            def decide(before: FunctionRecord | None) -> tuple[FunctionRecord, Event]:
                if before is not None:
                    raise _exists(arn)
                self._require_room(arn, code, 0)
                layers = self._resolve_layers(call, params)
                self._rules.unzipped(code.unzipped, layers.unzipped if layers else 0)
                now = self._clock.now()
                record = FunctionRecord(
                    arn=arn,
                    configuration=build(arn, params, code, now, self._rules.machine, layers),
                    state=FunctionState(),
                    revision_id="",
                    tags=dict(params.get("Tags") or {}),
                    unzipped=code.unzipped,
                    attached=signed(params),
                )
                return self._published(record, call, params), Create(call.request_id, now)

            return self._show_changed(await self._change(arn, decide), params)

    def get(self, call: Call, params: Params) -> dict[str, Any]:
        return self._views.get(call, params)

    def get_configuration(self, call: Call, params: Params) -> Configuration:
        return self._views.get_configuration(call, params)

    def list_functions(self, call: Call, params: Params) -> dict[str, Any]:
        return self._views.list_functions(call, params)

    async def update_code(self, call: Call, params: Params) -> Configuration:
        arn = resolve_function(call, "UpdateFunctionCode", params["FunctionName"])
        before = self._changeable(self._table.get(arn), arn, Operation.UPDATE_CODE, params)
        source = self._rules.update_code(params, before.configuration["PackageType"])
        self.admit(call, arn, attached(before, CODE_SIGNING))
        if params.get("DryRun"):
            code = await self._try(call, arn, source)
            self._require_room(arn, code, before.kept)
            self._rules.unzipped(code.unzipped, layers_of(before.configuration).unzipped)
            tried = merge_code(before.configuration, code, params.get("Architectures"), self._clock.now(), params.get("SourceKMSKeyArn"))
            tried["LastModified"] = before.configuration["LastModified"]
            return show(replace(before, configuration=tried))
        async with self._put(call, arn, source, "" if is_image(before.configuration) else code_of(before.configuration)) as code:
            return self._show_changed(await self._change(arn, lambda record: self._with_code(record, arn, call, params, code)), params)

    async def update_configuration(self, call: Call, params: Params) -> Configuration:
        arn = resolve_function(call, "UpdateFunctionConfiguration", params["FunctionName"])
        before = self._changeable(self._table.get(arn), arn, Operation.UPDATE_CONFIGURATION, params)
        self._rules.update_configuration(params, before.configuration)
        await self._rules.runtime(params)
        await self._layers.require_accessible(self._resolve_layers(call, params))

        def decide(found: FunctionRecord | None) -> tuple[FunctionRecord, Event]:
            record = self._changeable(found, arn, Operation.UPDATE_CONFIGURATION, params)
            self._rules.update_of(record.configuration, params)
            layers = self._resolve_layers(call, params)
            self._rules.unzipped(record.unzipped, layers.unzipped if layers else 0)
            now = self._clock.now()
            return replace(record, configuration=merge(record.configuration, params, now, layers)), Update(call.request_id, now)

        return show(await self._change(arn, decide))

    async def delete(self, call: Call, params: Params) -> None:
        arn = resolve(call, "DeleteFunction", params["FunctionName"], params.get("Qualifier"))
        whole = arn.unqualified
        if self._table.get(whole) is None:
            raise missing(whole)
        if arn.qualifier == LATEST:
            raise invalid_parameter("$LATEST version cannot be deleted without deleting the function.")
        if arn.qualifier is not None:
            if arn.qualifier != LATEST_PUBLISHED and not (arn.qualifier.isascii() and arn.qualifier.isdigit()):
                raise invalid_parameter("Deletion of aliases is not currently supported.")
            await self._delete_version(whole, arn.qualifier)
            return

        def decide(before: FunctionRecord | None) -> tuple[FunctionRecord, Event]:
            if before is None:
                raise missing(whole)
            return before, Delete(call.request_id, self._clock.now())

        await self._move(whole, decide)

    async def _delete_version(self, arn: FunctionArn, number: str) -> None:
        """One that does not exist is a success that does nothing."""

        def mutate(before: FunctionRecord | None) -> FunctionRecord:
            if before is None:
                raise missing(arn)
            users = sorted(name for name, alias in before.aliases.items() if alias.points_at(number))
            if users and number in before.versions:
                raise conflict(f"Unable to delete version because the following aliases reference it: [{', '.join(users)}]")
            if number not in before.versions:
                return before
            return detach_all(replace(before, versions={key: version for key, version in before.versions.items() if key != number}), number)

        await self._table.change(arn, mutate, self.versions_changed)

    def versions_changed(self, before: FunctionRecord | None, after: FunctionRecord | None) -> None:
        """Show the data plane versions that came or moved on, and take away those that went."""
        old = before.versions if before is not None else {}
        if after is not None:
            for number, version in after.versions.items():
                if version is not old.get(number):
                    self._registry.put(self._preparation.compile(version))
            for number in old:
                if number not in after.versions:
                    self._registry.remove(after.arn, number)
        self._keeping.let_go(before, after)

    def story(self, name: str, region: str, account: str) -> list[dict[str, Any]]:
        """The last transitions of a function, given by name or ARN, oldest first; empty where there is no such function."""
        arn = parse_function(name, region, account)
        record = None if arn is None else self._table.get(arn)
        if record is None:
            return []
        return [{"at": at, "event": event, "cause": cause, "state": phase} for at, event, cause, phase in record.state.story]

    # -- code ---------------------------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _put(self, call: Call, arn: FunctionArn, source: Source, before: str = "") -> AsyncIterator[Code]:
        """Keep a zip, a zip in a bucket, or the image of that name, while the caller commits what refers to it.

        ``before`` is the hash of the zip that it replaces.
        """
        keep: AbstractAsyncContextManager[Code]
        if isinstance(source, BucketObject):
            content, reference = await self._source.fetch(call, source, str(arn))
            keep = self._code.put(content, direct=False, before=before, reference=reference)
        else:
            keep = self._images.put(source) if isinstance(source, str) else self._code.put(source, before=before)
        async with keep as code:
            yield code

    async def _try(self, call: Call, arn: FunctionArn, source: Source) -> Code:
        """What ``_put`` would give or raise."""
        if isinstance(source, str):
            async with self._images.put(source) as code:
                return code
        if isinstance(source, BucketObject):
            content, reference = await self._source.fetch(call, source, str(arn))
            return replace(await self._code.check(content, direct=False), reference=reference)
        return await self._code.check(source)

    # -- deciding ---------------------------------------------------------------------------------------------------------------------

    def _changeable(self, record: FunctionRecord | None, arn: FunctionArn, operation: Operation, params: Params) -> FunctionRecord:
        """The record, if ``operation`` may change it now; else 404, 409 or 412."""
        if record is None:
            raise missing(arn)
        refusal = record.state.refuse(operation, str(arn))
        if refusal is not None:
            raise refusal
        if params.get("RevisionId") and params["RevisionId"] != record.revision_id:
            raise precondition_failed()
        return record

    def _with_code(
        self, before: FunctionRecord | None, arn: FunctionArn, call: Call, params: Params, code: Code
    ) -> tuple[FunctionRecord, Event]:
        record = self._changeable(before, arn, Operation.UPDATE_CODE, params)
        self._require_room(arn, code, record.kept)
        self._rules.unzipped(code.unzipped, layers_of(record.configuration).unzipped)
        now = self._clock.now()
        document = merge_code(record.configuration, code, params.get("Architectures"), now, params.get("SourceKMSKeyArn"))
        record = replace(record, configuration=document, unzipped=code.unzipped)
        return self._published(record, call, params), Update(call.request_id, now)

    def _published(self, record: FunctionRecord, call: Call, params: Params) -> FunctionRecord:
        """``record`` with the version that ``Publish`` or ``PublishTo`` asks for, which waits for the change."""
        if params.get("PublishTo"):
            if not on_provider(record.configuration):
                raise only_on_provider("PublishTo")
            record, _ = publish(record, fence=call.request_id, name=LATEST_PUBLISHED)
        elif params.get("Publish"):
            record, _ = publish(record, fence=call.request_id)
        self.admit_version(record)
        return record

    @staticmethod
    def _show_changed(record: FunctionRecord, params: Params) -> Configuration:
        """What a create or an update of code answers: with ``Publish``, the version."""
        number = LATEST_PUBLISHED if params.get("PublishTo") else str(record.last_version)
        version = record.versions.get(number) if params.get("Publish") or params.get("PublishTo") else None
        return show(record) if version is None else show(version, number)

    def _require_room(self, arn: FunctionArn, code: Code, before: int) -> None:
        """That ``code`` fits in the place of ``before`` bytes, if it is kept here."""
        if code.reference is None:
            self._room.require(arn.account, arn.region, code.unzipped - before)

    def _resolve_layers(self, call: Call, params: Params) -> ResolvedLayers | None:
        """The layers that ``params`` name; ``None`` where they say nothing of layers."""
        return None if params.get("Layers") is None else self._layers.resolve(call, params["Layers"])

    # -- committing and carrying out ----------------------------------------------------------------------------------------------------

    async def _change(self, arn: FunctionArn, decide: Decide) -> FunctionRecord:
        record = await self._move(arn, decide)
        if record is None:
            raise PlatformFault(f"{arn} vanished while it was changed")
        return record

    async def _move(self, arn: FunctionArn, decide: Decide) -> FunctionRecord | None:
        """Commit what ``decide`` gives, moved on by its event, and carry out the instructions."""
        todo: tuple[Instruction, ...] = ()

        def mutate(before: FunctionRecord | None) -> FunctionRecord | None:
            nonlocal todo
            record, event = decide(before)
            state, todo = record.state.handle(event)
            if state is record.state:
                return before
            if state.phase is Phase.ABSENT:
                return None
            if Instruction.PREPARE in todo:
                record = self._renewed(record)
            return replace(
                record,
                state=state,
                versions={number: _moved(version, event) for number, version in record.versions.items()},
                serving=record.configuration if isinstance(event, Prepared) else record.serving,
                revision_id=str(uuid.uuid4()) if Instruction.NEW_REVISION in todo else record.revision_id,
            )

        def applied(before: FunctionRecord | None, after: FunctionRecord | None) -> None:
            self._carry_out(arn, before, after, todo)

        return await self._table.change(arn, mutate, applied)

    def _renewed(self, record: FunctionRecord) -> FunctionRecord:
        """With the runtime version that it runs with, and so for a version that is published with the change."""
        versions = {
            number: replace(version, configuration=renewed(self._runtime_of, version.configuration))
            if version.state.phase is Phase.CREATING
            else version
            for number, version in record.versions.items()
        }
        return replace(record, configuration=renewed(self._runtime_of, record.configuration), versions=versions)

    def _carry_out(
        self,
        arn: FunctionArn,
        before: FunctionRecord | None,
        after: FunctionRecord | None,
        todo: tuple[Instruction, ...],
    ) -> None:
        for instruction in todo:
            if instruction is Instruction.PUBLISH and after is not None:
                self._registry.put(self._preparation.compile(after))
            elif instruction is Instruction.PREPARE and after is not None:
                self._preparation.start(arn, after.state.fence)
            elif instruction is Instruction.WITHDRAW:
                self._registry.remove(arn)
        self.versions_changed(before, after)

    def _follow(self, before: FunctionRecord | None, after: FunctionRecord | None) -> None:
        """Another process wrote: show the data plane what is there now. Preparing is that process's work."""
        if after is not None:
            self._registry.put(self._preparation.compile(after))
            for alias in after.aliases.values():
                self._registry.point(after.arn, alias.name, alias.version, alias.weights)
        elif before is not None:
            self._registry.remove(before.arn)
        self.versions_changed(before, after)

    async def report(self, arn: FunctionArn, event: Event, still: Callable[[FunctionRecord], bool] = lambda record: True) -> None:
        """Commit ``event``, however long the store is unavailable, if the function is still as ``still`` wants it.

        A function that was deleted meanwhile takes no notice.
        """

        def decide(before: FunctionRecord | None) -> tuple[FunctionRecord, Event]:
            if before is None or not still(before):
                raise missing(arn)
            return before, event

        await self._persist(lambda: self._move(arn, decide))

    def end_waiting(self, arn: FunctionArn, number: str, fence: str) -> None:
        """Make a version Active that was published alone, in the background: what it shows is prepared."""
        self._preparation.end_waiting(arn, number, fence)

    async def report_version(self, arn: FunctionArn, number: str, *events: Event) -> None:
        """Commit what happened to a published version, likewise."""

        def mutate(before: FunctionRecord | None) -> FunctionRecord:
            version = None if before is None else before.versions.get(number)
            if before is None or version is None:
                raise missing(arn)
            after = version
            for event in events:
                state, _ = after.state.handle(event)
                serving = after.configuration if isinstance(event, Prepared) else after.serving
                after = after if state is after.state else replace(after, state=state, serving=serving)
            return before if after is version else replace(before, versions={**before.versions, number: after})

        await self._persist(lambda: self._table.change(arn, mutate, self.versions_changed))

    async def _persist(self, commit: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await commit()
            except StoreUnavailable:
                await self._clock.sleep(RETRY_S)
            except ClientFault:
                return
            else:
                return


def _moved(version: FunctionRecord, event: Event) -> FunctionRecord:
    """A version that waits for the change that it was published with moves on with it; its RevisionId stays."""
    if version.state.phase is not Phase.CREATING or not isinstance(event, Prepared | PrepareFailed):
        return version
    state, _ = version.state.handle(event)
    if state is version.state:
        return version
    return replace(version, state=state, serving=version.configuration if isinstance(event, Prepared) else version.serving)


def _exists(arn: FunctionArn) -> ClientFault:
    return conflict(f"Function already exist: {arn.name}")

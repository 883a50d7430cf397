"""Event source mappings: made, shown, changed, deleted, and told to whoever polls (contract 04 §1).

What a mapping says is for ``mapping_rules.py``, where it stands for ``mapping_state.py``. Here both are committed together, and every
transition is ended after ``TRANSITION_S`` behind the answer; one that a killed process left open is ended by the next one.

Pollers say with ``serve`` which kinds of source they poll, ``listen`` to changes, and ``report`` how a batch went. A mapping whose kind
nobody polls says so in its LastProcessingResult instead of looking as if its source were empty.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from lambent.arn import LATEST, FunctionArn, parse_function
from lambent.clock import Clock
from lambent.control import page_marker
from lambent.control.attachments import has_qualifier
from lambent.control.function_configuration import FunctionRecord
from lambent.control.function_names import resolve
from lambent.control.function_table import FunctionTable
from lambent.control.mapping_rules import KINDS, Kind, MappingRules, check_queue
from lambent.control.mapping_state import Event, MappingState, Phase
from lambent.control.small_table import Document, SmallTable
from lambent.errors import ClientFault, conflict, invalid_parameter, not_found
from lambent.sources.source import SourceDenied, SourceUnavailable
from lambent.store.contract import Store, StoreUnavailable
from lambent.wire.call import Call
from lambent.wire.values import NULL

Params = Mapping[str, Any]

TRANSITION_S = 0.2
RETRY_S = 1.0
PAGE = 100
NO_RECORDS = "No records processed"
NOT_POLLED = "PROBLEM: This kind of event source is not polled here yet."
_NO_RESOURCE = "The resource you requested does not exist."
_FUNCTION = "Function does not exist"


@dataclass(frozen=True, slots=True)
class SourceMapping:
    """One mapping. ``config`` is in the shape of the wire; ``function`` is what it invokes, with its qualifier if it has one."""

    uuid: str
    account: str
    region: str
    kind: str
    function: FunctionArn
    config: Mapping[str, Any]
    state: MappingState
    modified: float  # epoch seconds
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def arn(self) -> str:
        return f"arn:{self.function.partition}:lambda:{self.region}:{self.account}:event-source-mapping:{self.uuid}"

    @property
    def source(self) -> str:
        """The ARN of what is polled, or the brokers' addresses."""
        servers: dict[str, list[str]] = (self.config.get("SelfManagedEventSource") or {}).get("Endpoints") or {}
        return str(self.config.get("EventSourceArn") or ",".join(name for names in servers.values() for name in names))

    @property
    def polled(self) -> bool:
        """Whether records are to be taken from the source now."""
        return self.state.polled

    @property
    def key(self) -> str:
        return f"{self.account}/{self.region}/{self.uuid}"

    def to_document(self) -> Document:
        return {
            "uuid": self.uuid,
            "account": self.account,
            "region": self.region,
            "kind": self.kind,
            "function": str(self.function),
            "config": dict(self.config),
            "phase": self.state.phase.value,
            "fence": self.state.fence,
            "modified": self.modified,
            "tags": dict(self.tags),
        }

    @staticmethod
    def from_document(document: Document) -> SourceMapping:
        given = dict(document)
        function = parse_function(given["function"], given["region"], given["account"])
        assert function is not None
        state = MappingState(Phase(given.pop("phase")), given.pop("fence"))
        return SourceMapping(**{**given, "function": function, "state": state})


CheckTags = Callable[[Mapping[str, str]], None]
Listener = Callable[[SourceMapping | None, SourceMapping | None], None]
Ask = Callable[[str], Coroutine[Any, Any, int | None]]
"""The visibility timeout of the queue with that ARN, ``None`` for one that does not exist. Raises ``SourceUnavailable``."""
Drained = Callable[[str], Coroutine[Any, Any, None]]
"""Until nothing of the mapping with that UUID is in flight that began before it was switched off."""


async def _at_once(mapping_uuid: str) -> None:
    """Nobody polls."""


class Tasks(Protocol):
    """A task group."""

    def create_task(self, coro: Coroutine[Any, Any, None]) -> object: ...


class EventSourceMappings:
    """``load`` once, after the functions and the queues."""

    def __init__(
        self, store: Store, functions: FunctionTable, rules: MappingRules, tasks: Tasks, clock: Clock, check_tags: CheckTags
    ) -> None:
        self._table = SmallTable(store, "event-source-mapping")
        self._functions = functions
        self._rules = rules
        self._tasks = tasks
        self._clock = clock
        self._check_tags = check_tags
        self._listeners: list[Listener] = []
        self._served: set[str] = set()
        self._results: dict[str, str] = {}
        self._mappings: dict[str, SourceMapping] = {}
        self._table.changed = self._changed
        self.drained: Drained = _at_once
        self.ask_far: Ask | None = None  # where queues are those of another endpoint
        self.at: Callable[[str], None] = lambda name: None  # see ``sources.poller.MAPPING_POINTS``

    async def load(self) -> None:
        await self._table.load()
        for mapping in self._mappings.values():
            if mapping.state.fence:
                self._tasks.create_task(self._settle(mapping.key, mapping.state.fence))

    # -- for pollers --------------------------------------------------------------------------------------------------------------------

    def serve(self, kind: str) -> None:
        """Say that sources of ``kind`` (a name in ``mapping_rules.KINDS``) are polled."""
        self._served.add(kind)

    def listen(self, told: Listener) -> None:
        """Call ``told(before, after)`` for every change, at the moment at which it shows; ``None`` is no mapping."""
        self._listeners.append(told)

    def all(self) -> Iterator[SourceMapping]:
        return iter(list(self._mappings.values()))

    def find(self, mapping_uuid: str) -> SourceMapping | None:
        return next((each for each in self._mappings.values() if each.uuid == mapping_uuid), None)

    def report(self, mapping_uuid: str, result: str) -> None:
        """Set LastProcessingResult. It lives in memory: it is about now, and a batch must not cost a commit."""
        self._results[mapping_uuid] = result

    # -- operations -----------------------------------------------------------------------------------------------------------------------

    async def create(self, call: Call, params: Params) -> dict[str, Any]:
        function, record = self._function(call, "CreateEventSourceMapping", params)
        timeout = self._timeout(record, function)
        kind, config = self._rules.create(params, timeout, self._clock.now())
        if kind.name == "sqs" and self.ask_far is not None:
            await _check_far(self.ask_far, config["EventSourceArn"], timeout)
        tags = dict(params.get("Tags") or {})
        self._check_tags(tags)
        event = Event.CREATE_DISABLED if params.get("Enabled") is False else Event.CREATE
        made = SourceMapping(
            uuid=str(uuid.uuid4()),
            account=call.account,
            region=call.region,
            kind=kind.name,
            function=function,
            config=config,
            state=MappingState().handle(event, call.request_id),
            modified=self._clock.now(),
            tags=tags,
        )
        async with self._table.turn(f"{call.account}/{call.region}/"):
            self._require_new(made)
            await self._table.change(made.key, lambda before: made.to_document())
            self.at("mapping:committed")
        self._end_later(made)
        return self._show(made)

    def get(self, call: Call, params: Params) -> dict[str, Any]:
        return self._show(self._existing(call, params["UUID"]))

    async def update(self, call: Call, params: Params) -> dict[str, Any]:
        found = self._existing(call, params["UUID"])
        function, record = found.function, self._functions.get(found.function)
        if params.get("FunctionName"):
            function, record = self._function(call, "UpdateEventSourceMapping", params)
        enabled = params.get("Enabled")
        event = Event.CHANGE if enabled is None else Event.ENABLE if enabled else Event.DISABLE
        timeout = 0 if record is None else self._timeout(record, function)

        def change(before: SourceMapping) -> SourceMapping:
            state = before.state.handle(event, call.request_id)
            config = self._rules.update(KINDS[before.kind], dict(before.config), params, timeout)
            after = replace(before, function=function, config=config, state=state, modified=self._clock.now())
            self._require_new(after)
            return after

        async with self._table.turn(f"{call.account}/{call.region}/"):
            after = await self._change(found.key, change)
        self._end_later(after)
        return self._show(after)

    async def delete(self, call: Call, params: Params) -> dict[str, Any]:
        found = self._existing(call, params["UUID"])

        def change(before: SourceMapping) -> SourceMapping:
            return replace(before, state=before.state.handle(Event.DELETE, call.request_id), modified=self._clock.now())

        after = await self._change(found.key, change)
        self._end_later(after)
        return self._show(after)

    def list_all(self, call: Call, params: Params) -> dict[str, Any]:
        """By UUID, of one source or one function if asked so."""
        function = resolve(call, "ListEventSourceMappings", params["FunctionName"]) if params.get("FunctionName") else None
        wanted = (
            (mapping.uuid, self._show_listed(mapping))
            for key, _ in self._table.items(f"{call.account}/{call.region}/")
            if (mapping := self._mappings[key])
            and (not params.get("EventSourceArn") or mapping.config.get("EventSourceArn") == params["EventSourceArn"])
            and (function is None or _meant(mapping.function) == _meant(function))
        )
        page, more = page_marker.page("event-source-mappings", params, wanted, PAGE)
        return {"EventSourceMappings": page, **more}

    # -- tags ---------------------------------------------------------------------------------------------------------------------------

    def tags_of(self, call: Call, mapping_uuid: str) -> Mapping[str, str]:
        return self._existing(call, mapping_uuid).tags

    async def set_tags(self, call: Call, mapping_uuid: str, change: Callable[[Mapping[str, str]], Mapping[str, str]]) -> None:
        found = self._existing(call, mapping_uuid)
        await self._change(found.key, lambda before: replace(before, tags=change(before.tags)))

    # -- inside -------------------------------------------------------------------------------------------------------------------------

    def _function(self, call: Call, action: str, params: Params) -> tuple[FunctionArn, FunctionRecord]:
        function = resolve(call, action, params["FunctionName"])
        record = self._functions.get(function)
        if record is None or not has_qualifier(record, function.qualifier):
            raise invalid_parameter(_FUNCTION)
        if "TenancyConfig" in record.configuration:
            raise invalid_parameter("Event source mappings are not supported for functions with tenant isolation.")
        return function, record

    def _timeout(self, record: FunctionRecord, function: FunctionArn) -> int:
        """Seconds that the invoked version may take."""
        alias = record.aliases.get(function.qualifier or "")
        version = record.versions.get(alias.version if alias else function.qualifier or "")
        return int((version or record).configuration["Timeout"])

    def _require_new(self, made: SourceMapping) -> None:
        """Refuse a second mapping of the same source to the same function."""
        for other in self._mappings.values():
            if other.uuid == made.uuid or other.source != made.source or other.account != made.account:
                continue
            if _meant(other.function) != _meant(made.function):
                continue
            if set(other.config.get("Topics", ())) == set(made.config.get("Topics", ())) and other.config.get("Queues") == made.config.get(
                "Queues"
            ):
                raise _duplicate(other)

    def _existing(self, call: Call, mapping_uuid: str) -> SourceMapping:
        found = self._mappings.get(f"{call.account}/{call.region}/{mapping_uuid}")
        if found is None:
            raise not_found(_NO_RESOURCE)
        return found

    async def _change(self, key: str, change: Callable[[SourceMapping], SourceMapping]) -> SourceMapping:
        def mutate(before: Document | None) -> Document:
            if before is None:
                raise not_found(_NO_RESOURCE)
            return change(SourceMapping.from_document(before)).to_document()

        after = await self._table.change(key, mutate)
        self.at("mapping:committed")
        assert after is not None
        return SourceMapping.from_document(after)

    def _end_later(self, mapping: SourceMapping) -> None:
        if mapping.state.fence:
            self._tasks.create_task(self._settle(mapping.key, mapping.state.fence))

    async def _settle(self, key: str, fence: str) -> None:
        """End a transition, once what was in flight is done and however long the store is unavailable."""

        def mutate(before: Document | None) -> Document | None:
            if before is None:
                return None
            mapping = SourceMapping.from_document(before)
            state = mapping.state.handle(Event.SETTLED, fence)
            if state is mapping.state:
                return before
            return None if state.phase is Phase.ABSENT else replace(mapping, state=state, modified=self._clock.now()).to_document()

        await self._clock.sleep(TRANSITION_S)
        await self.drained(key.rpartition("/")[2])
        while True:
            try:
                await self._table.change(key, mutate)
                self.at("mapping:settled")
                return
            except StoreUnavailable:
                await self._clock.sleep(RETRY_S)

    def _changed(self, key: str, before: Document | None, after: Document | None) -> None:
        del before
        old = self._mappings.pop(key, None)
        new = None if after is None else SourceMapping.from_document(after)
        if new is not None:
            self._mappings[key] = new
        elif old is not None:
            self._results.pop(old.uuid, None)
        for told in self._listeners:
            told(old, new)

    def _show(self, mapping: SourceMapping) -> dict[str, Any]:
        kind: Kind = KINDS[mapping.kind]
        shown: dict[str, Any] = {
            **mapping.config,
            "UUID": mapping.uuid,
            "EventSourceMappingArn": mapping.arn,
            "FunctionArn": str(mapping.function),
            "LastModified": mapping.modified,
            "State": mapping.state.shown,
            "StateTransitionReason": kind.reason,
        }
        result = self._results.get(mapping.uuid)
        if result is None and mapping.state.phase is Phase.ENABLED and mapping.kind not in self._served:
            result = NOT_POLLED
        if result is not None and (kind.results or result.startswith("PROBLEM")):
            shown["LastProcessingResult"] = result
        elif kind.results:
            shown["LastProcessingResult"] = NO_RECORDS
        return shown

    def _show_listed(self, mapping: SourceMapping) -> dict[str, Any]:
        shown = self._show(mapping)
        if "KMSKeyArn" in shown and "FilterCriteria" in shown:
            shown["FilterCriteria"] = NULL  # encrypted
        return shown


async def _check_far(ask: Ask, arn: str, timeout_s: int) -> None:
    """``check_queue`` for one that somebody else keeps."""
    try:
        visibility = await ask(arn)
    except SourceDenied as error:
        raise invalid_parameter("The provided execution role does not have permissions to call ReceiveMessage on SQS") from error
    except SourceUnavailable as error:
        raise invalid_parameter(f"Error occurred while ReceiveMessage. {error}") from error
    check_queue(visibility, timeout_s)


def _meant(function: FunctionArn) -> FunctionArn:
    """``$LATEST`` and no qualifier mean the same, though either is shown as it was given."""
    return function.unqualified if function.qualifier == LATEST else function


def _duplicate(other: SourceMapping) -> ClientFault:
    tail = f"already exists. Please update or delete the existing mapping with UUID {other.uuid}"
    if other.kind == "sqs":
        return conflict(f'An event source mapping with SQS arn (" {other.source} ") and function (" {other.function.name} ") {tail}')
    if other.config.get("Topics"):
        topics = ",".join(other.config["Topics"])
        return conflict(
            f'An event source mapping with event source ("{other.source}"), function ("{other.function}"), topics ("{topics}") {tail}'
        )
    return conflict(f'The event source arn (" {other.source} ") and function (" {other.function.name} ") provided mapping {tail}')

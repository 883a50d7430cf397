"""Who may say what when on the Extensions API, as a pure machine (contract 03 section 3).

An extension registers during init, asks for its next event, gets one, works, asks again. AWS's names for where it stands:

    (nobody) ──register──▶ Registered ──event/next──▶ Ready ──an event──▶ Running ──event/next──▶ Ready
                               │ init/error             │ exit/error        │ exit/error
                               ▼                        ▼                   ▼
                           InitError                ExitError           ExitError

*External* extensions are the executables of ``/opt/extensions`` and are known by name beforehand; all of them must have registered before
the environment is ready. All others are *internal*: they live in the runtime process and may not ask for SHUTDOWN. Ten in all.

**Ready** is told once after a registration and once after an invocation that at least one extension was told of, when everybody waits.
An extension that was not asked to take part in invocations keeps waiting meanwhile and holds nobody up.

**An event is never lost to timing.** One that meets an extension at work, or one whose waiting connection has died, is kept and given to
its next ``event/next``. SHUTDOWN takes the place of a kept INVOKE: nothing comes after it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lambent.runtime_api.events import ExtensionFailed, Identity, InvokeEvent, Registered
from lambent.runtime_api.session_words import (
    NOT_ALLOWED,
    OK_BODY,
    Answer,
    EventNext,
    ExtensionError,
    ExtensionEvent,
    InitOver,
    Instruction,
    InvokeAll,
    Lost,
    Register,
    ShutDown,
    TellFailed,
    TellReady,
    TellRegistered,
    refusal,
)

MAX_EXTENSIONS = 10
EVENTS = ("INVOKE", "SHUTDOWN")
IDENTIFIER_HEADER = "Lambda-Extension-Identifier"
EVENT_HEADER = "Lambda-Extension-Event-Identifier"
ERROR_TYPE_HEADER = "Lambda-Extension-Function-Error-Type"


class ExtensionState(StrEnum):
    """AWS's names."""

    REGISTERED = "Registered"
    READY = "Ready"
    RUNNING = "Running"
    INIT_ERROR = "InitError"
    EXIT_ERROR = "ExitError"


_S = ExtensionState

TABLE: dict[tuple[ExtensionState, str], ExtensionState] = {
    (_S.REGISTERED, "next"): _S.READY,
    (_S.REGISTERED, "init"): _S.INIT_ERROR,
    (_S.REGISTERED, "exit"): _S.EXIT_ERROR,
    (_S.READY, "exit"): _S.EXIT_ERROR,
    (_S.RUNNING, "next"): _S.READY,
    (_S.RUNNING, "exit"): _S.EXIT_ERROR,
    (_S.INIT_ERROR, "init"): _S.INIT_ERROR,  # again: the first one counts
    (_S.EXIT_ERROR, "exit"): _S.EXIT_ERROR,
}
"""(state, call) -> the state that follows. A missing pair is answered with ``Extension.InvalidExtensionState``."""

_WANTED = {"next": _S.READY, "init": _S.INIT_ERROR, "exit": _S.EXIT_ERROR}
_NOTHING: tuple[Instruction, ...] = ()


@dataclass(slots=True)
class Extension:
    """One that has registered. ``caller`` is its connection that waits, or -1; ``kept`` the body of an event that is to be given to it."""

    registered: Registered
    state: ExtensionState = ExtensionState.REGISTERED
    caller: int = -1
    kept: bytes = b""
    shut_down: bool = False


class ExtensionSession:
    """Feed it with ``handle``; carry out what it returns, in order. ``new_id`` makes UUIDs."""

    def __init__(self, identity: Identity, external: frozenset[str], new_id: Callable[[], str]) -> None:
        self._identity = identity
        self._external = external
        self._new_id = new_id
        self._open = True
        self._owes_ready = False  # to be told once everybody waits
        self._by_id: dict[str, Extension] = {}
        self.extensions: dict[str, Registered] = {}

    @property
    def registering(self) -> bool:
        """Whether init is not over yet."""
        return self._open

    @property
    def attended(self) -> bool:
        """Whether any extension takes part in invocations."""
        return any("INVOKE" in extension.events for extension in self.extensions.values())

    @property
    def all_ready(self) -> bool:
        """Every external extension has registered, and every registered one waits."""
        return self._external <= self.extensions.keys() and all(one.state is _S.READY and not one.kept for one in self._by_id.values())

    def name_of(self, identifier: str) -> str | None:
        """Who that is."""
        extension = self._by_id.get(_canonical(identifier))
        return None if extension is None else extension.registered.name

    def handle(self, event: ExtensionEvent) -> Sequence[Instruction]:
        """Take one event."""
        instructions: Sequence[Instruction] = getattr(self, _ACTIONS[type(event)])(event)
        return instructions

    # ------------------------------------------------------------------------------------------------------ registration

    def _register(self, event: Register) -> Sequence[Instruction]:
        fault = self._registration_fault(event)
        if fault is not None:
            return (fault,)
        registered = Registered(event.name, self._new_id(), tuple(dict.fromkeys(event.events)), event.name in self._external)
        self._by_id[registered.identifier] = Extension(registered)
        self.extensions[event.name] = registered
        self._owes_ready = True
        document = {
            "functionName": self._identity.function_name,
            "functionVersion": self._identity.function_version,
            "handler": self._identity.handler,
        }
        if event.with_account:
            document["accountId"] = self._identity.account_id
        answer = Answer(event.caller, 200, _json(document), ((IDENTIFIER_HEADER, registered.identifier),))
        return (answer, TellRegistered(registered))

    def _registration_fault(self, event: Register) -> Answer | None:
        external = event.name in self._external
        if not event.name:
            return refusal(event.caller, 403, "Extension.InvalidExtensionName", "Empty extension name")
        for name in event.events:
            if name not in EVENTS or (name == "SHUTDOWN" and not external):
                return refusal(event.caller, 403, "Extension.InvalidEventType", f"{name}: ErrorInvalidEventType")
        if not self._open:
            return refusal(event.caller, 403, "Extension.RegistrationClosed", "Extension registration closed already")
        if event.name in self.extensions:
            text = "Extension with this name already registered"
            if external:
                state = self._by_id[self.extensions[event.name].identifier].state
                text = f"State transition from {state} to Registered failed for extension {event.name}. Error: {NOT_ALLOWED}"
            return refusal(event.caller, 403, "Extension.InvalidExtensionState", text)
        # places are kept for the external ones that have yet to register
        taken = len(self.extensions) if external else len(self.extensions.keys() | self._external)
        if taken >= MAX_EXTENSIONS:
            return refusal(event.caller, 403, "Extension.TooManyExtensions", f"Extension limit ({MAX_EXTENSIONS}) reached")
        return None

    def _close(self, event: InitOver) -> Sequence[Instruction]:
        self._open = False
        return _NOTHING

    # ----------------------------------------------------------------------------------------------------------- events

    def _next(self, event: EventNext) -> Sequence[Instruction]:
        extension, fault = self._find(event.caller, event.identifier, f"Unknown extension {event.identifier}")
        if extension is None:
            return (fault,)
        comes_back = extension.state is _S.READY and extension.caller < 0  # its connection died while it waited
        if not comes_back and (extension.state, "next") not in TABLE:
            return (_refuse(event.caller, extension, "next"),)
        extension.state = _S.READY
        if extension.kept:
            extension.caller = event.caller
            return (self._give(extension),)
        extension.caller = event.caller
        if self._owes_ready and self.all_ready:
            self._owes_ready = False
            return (TellReady(),)
        return _NOTHING

    def _invoke(self, event: InvokeAll) -> Sequence[Instruction]:
        body = b""
        answers: list[Instruction] = []
        for extension in self._by_id.values():
            if "INVOKE" in extension.registered.events and not extension.shut_down:
                body = body or _invoke_body(event.event)
                answers += self._offer(extension, body)
        if body:
            self._owes_ready = True
        return answers

    def _shut_down(self, event: ShutDown) -> Sequence[Instruction]:
        self._open = False
        self._owes_ready = False
        body = _json({"eventType": "SHUTDOWN", "shutdownReason": event.reason, "deadlineMs": event.deadline_ms})
        answers: list[Instruction] = []
        for extension in self._by_id.values():
            if "SHUTDOWN" in extension.registered.events and not extension.shut_down:
                extension.shut_down = True
                answers += self._offer(extension, body)
        return answers

    def _offer(self, extension: Extension, body: bytes) -> Sequence[Instruction]:
        extension.kept = body
        if extension.state is _S.READY and extension.caller >= 0:
            return (self._give(extension),)
        return _NOTHING

    def _give(self, extension: Extension) -> Answer:
        caller, extension.caller = extension.caller, -1
        body, extension.kept = extension.kept, b""
        extension.state = _S.RUNNING
        return Answer(caller, 200, body, ((EVENT_HEADER, self._new_id()),))

    def _lost(self, event: Lost) -> Sequence[Instruction]:
        for extension in self._by_id.values():
            if extension.caller == event.caller:
                extension.caller = -1
        return _NOTHING

    # ----------------------------------------------------------------------------------------------------------- errors

    def _fail(self, event: ExtensionError) -> Sequence[Instruction]:
        extension, fault = self._find(event.caller, event.identifier, f"Unknown {IDENTIFIER_HEADER}")
        if not event.error_type and (extension is not None or _canonical(event.identifier)):
            return (refusal(event.caller, 403, "Extension.MissingHeader", f"{ERROR_TYPE_HEADER} not found"),)
        if extension is None:
            return (fault,)
        state = TABLE.get((extension.state, event.during))
        if state is None:
            return (_refuse(event.caller, extension, event.during),)
        answer = Answer(event.caller, 202, OK_BODY)
        if state is extension.state:
            return (answer,)
        extension.state = state
        return (answer, TellFailed(ExtensionFailed(extension.registered.name, event.during, event.error_type)))

    def _find(self, caller: int, identifier: str, unknown: str) -> tuple[Extension | None, Answer]:
        """Who calls, or else how it is refused."""
        fault = identifier_fault(caller, identifier)
        if fault is not None:
            return None, fault
        extension = self._by_id.get(_canonical(identifier))
        return extension, refusal(caller, 403, "Extension.UnknownExtensionIdentifier", unknown)


def identifier_fault(caller: int, identifier: str) -> Answer | None:
    """What is wrong with the header by itself."""
    if not identifier:
        return refusal(caller, 403, "Extension.MissingExtensionIdentifier", f"Missing {IDENTIFIER_HEADER} header")
    if not _canonical(identifier):
        return refusal(caller, 403, "Extension.InvalidExtensionIdentifier", f"Invalid {IDENTIFIER_HEADER}")
    return None


_is_uuid = re.compile(r"(?:urn:uuid:)?\{?([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})\}?").fullmatch


def _canonical(identifier: str) -> str:
    """A UUID in its usual form, or ``""``."""
    found = _is_uuid(identifier.lower())
    return "-".join(found.groups()) if found else ""


def _refuse(caller: int, extension: Extension, call: str) -> Answer:
    identifier = extension.registered.identifier
    text = f"State transition from {extension.state} to {_WANTED[call]} failed for extension {identifier}. Error: {NOT_ALLOWED}"
    return refusal(caller, 403, "Extension.InvalidExtensionState", text)


def _invoke_body(event: InvokeEvent) -> bytes:
    return _json(
        {
            "eventType": "INVOKE",
            "deadlineMs": event.deadline_ms,
            "requestId": event.request_id,
            "invokedFunctionArn": event.invoked_arn,
            "tracing": {"type": "X-Amzn-Trace-Id", "value": event.trace},
        }
    )


def _json(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


_ACTIONS = {
    Register: "_register",
    InitOver: "_close",
    EventNext: "_next",
    InvokeAll: "_invoke",
    ShutDown: "_shut_down",
    Lost: "_lost",
    ExtensionError: "_fail",
}

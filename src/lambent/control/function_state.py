"""The life of a function, as one literal table (contract 01 §3).

AWS shows two fields, ``State`` and ``LastUpdateStatus``, of which only a few pairs ever occur. A *phase* here is one such pair:

    CREATING       Pending                     being prepared for the first time; cannot be invoked or changed
    ACTIVE         Active / Successful         what is shown is what runs
    UPDATING       Active / InProgress         the new code or configuration is shown, the previous one still runs
    UPDATE_FAILED  Active / Failed             the new one is shown, the previous one goes on running; a further update may mend it
    INACTIVE       Inactive / Successful       nobody used it for long (``idle.py``), or its code is gone from the bucket that it stays in
                                               (``referenced_code.py``); an invocation is refused and wakes it
    RESTORING      Pending / Successful        woken, being prepared again
    FAILED         Failed                      never ran, or lost its code; delete and create anew
    ABSENT         no such function            before the creation and after the deletion

Whatever starts a preparation (``Create``, ``Update``, ``Wake``) leaves its own id in ``fence``. ``Prepared`` and ``PrepareFailed`` carry
the id of the preparation that they report on, and one that no longer is the current one changes nothing: the function may have been
deleted and created again in the meantime. RevisionId changes exactly where the table says ``NEW_REVISION`` (§3.1).

The second table, ``REFUSED``, says which operations a phase refuses and with which of AWS's two texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from lambent.errors import ClientFault, IllegalTransition, conflict

STORY_LENGTH = 20
CREATING_REASON = "The function is being created."
RESTORING_REASON = "The function is being restored."
IDLE_REASON = "The function is inactive because it was not invoked for a long time."


class Phase(Enum):
    ABSENT = "absent"
    CREATING = "creating"
    ACTIVE = "active"
    UPDATING = "updating"
    UPDATE_FAILED = "update_failed"
    INACTIVE = "inactive"
    RESTORING = "restoring"
    FAILED = "failed"


RESTING = frozenset({Phase.INACTIVE, Phase.RESTORING})  # not to be invoked, though there is something that was


class Instruction(Enum):
    """What the shell does, in the order given. ``PUBLISH`` hands what is shown to the data plane; ``WITHDRAW`` takes it away."""

    NEW_REVISION = "new_revision"
    PREPARE = "prepare"
    PUBLISH = "publish"
    WITHDRAW = "withdraw"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; ``cause`` is the id of what made it happen, ``at`` wall time in seconds, for the story."""

    cause: str
    at: float


@dataclass(frozen=True, slots=True)
class Create(Event):
    """CreateFunction was accepted; ``cause`` becomes the fence of its preparation."""


@dataclass(frozen=True, slots=True)
class Update(Event):
    """UpdateFunctionCode or UpdateFunctionConfiguration was accepted; ``cause`` becomes the fence of its preparation."""


@dataclass(frozen=True, slots=True)
class Prepared(Event):
    """The preparation ``cause`` is done: environments of what is shown can be made."""


@dataclass(frozen=True, slots=True)
class PrepareFailed(Event):
    """The preparation ``cause`` failed; ``code`` is a StateReasonCode, ``reason`` its text."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class CodeLost(Event):
    """The bytes of the running code are gone from the disk and from the blobs."""

    reason: str


@dataclass(frozen=True, slots=True)
class Idle(Event):
    """Nobody used the function for long. Comes late where anything else is going on."""


@dataclass(frozen=True, slots=True)
class SourceLost(Event):
    """The object in a bucket that is the running code cannot be had any more. Comes late where anything else is going on."""

    reason: str


@dataclass(frozen=True, slots=True)
class Wake(Event):
    """An inactive function was invoked; ``cause`` becomes the fence of its preparation. Comes late where it is being woken already."""


@dataclass(frozen=True, slots=True)
class Delete(Event):
    """DeleteFunction was accepted."""


Row = tuple[Phase, tuple[Instruction, ...]]
N, PR, PU, WI = Instruction.NEW_REVISION, Instruction.PREPARE, Instruction.PUBLISH, Instruction.WITHDRAW

TRANSITIONS: Mapping[tuple[Phase, type[Event]], Row] = {
    (Phase.ABSENT, Create): (Phase.CREATING, (N, PU, PR)),
    (Phase.CREATING, Prepared): (Phase.ACTIVE, (N, PU)),
    (Phase.CREATING, PrepareFailed): (Phase.FAILED, (N, PU)),
    (Phase.ACTIVE, Update): (Phase.UPDATING, (N, PR)),
    (Phase.UPDATE_FAILED, Update): (Phase.UPDATING, (N, PR)),
    (Phase.UPDATING, Prepared): (Phase.ACTIVE, (N, PU)),
    (Phase.UPDATING, PrepareFailed): (Phase.UPDATE_FAILED, (N,)),
    (Phase.ACTIVE, Idle): (Phase.INACTIVE, (N, PU)),
    (Phase.ACTIVE, SourceLost): (Phase.INACTIVE, (N, PU)),
    (Phase.UPDATE_FAILED, SourceLost): (Phase.INACTIVE, (N, PU)),
    (Phase.INACTIVE, Wake): (Phase.RESTORING, (N, PU, PR)),
    (Phase.INACTIVE, Update): (Phase.UPDATING, (N, PU, PR)),
    (Phase.RESTORING, Prepared): (Phase.ACTIVE, (N, PU)),
    (Phase.RESTORING, PrepareFailed): (Phase.INACTIVE, (N, PU)),
    (Phase.INACTIVE, CodeLost): (Phase.FAILED, (N, PU)),
    (Phase.RESTORING, CodeLost): (Phase.FAILED, (N, PU)),
    (Phase.CREATING, CodeLost): (Phase.FAILED, (N, PU)),
    (Phase.ACTIVE, CodeLost): (Phase.FAILED, (N, PU)),
    (Phase.UPDATING, CodeLost): (Phase.FAILED, (N, PU)),
    (Phase.UPDATE_FAILED, CodeLost): (Phase.FAILED, (N, PU)),
    (Phase.FAILED, CodeLost): (Phase.FAILED, ()),
    (Phase.CREATING, Delete): (Phase.ABSENT, (WI,)),
    (Phase.ACTIVE, Delete): (Phase.ABSENT, (WI,)),
    (Phase.UPDATING, Delete): (Phase.ABSENT, (WI,)),
    (Phase.UPDATE_FAILED, Delete): (Phase.ABSENT, (WI,)),
    (Phase.INACTIVE, Delete): (Phase.ABSENT, (WI,)),
    (Phase.RESTORING, Delete): (Phase.ABSENT, (WI,)),
    (Phase.FAILED, Delete): (Phase.ABSENT, (WI,)),
}

SHOWN: Mapping[Phase, tuple[str, str | None]] = {
    Phase.CREATING: ("Pending", None),
    Phase.ACTIVE: ("Active", "Successful"),
    Phase.UPDATING: ("Active", "InProgress"),
    Phase.UPDATE_FAILED: ("Active", "Failed"),
    Phase.INACTIVE: ("Inactive", "Successful"),
    Phase.RESTORING: ("Pending", "Successful"),
    Phase.FAILED: ("Failed", None),
}


class Operation(Enum):
    """The operations that some phase refuses."""

    INVOKE = "Invoke"
    UPDATE_CODE = "UpdateFunctionCode"
    UPDATE_CONFIGURATION = "UpdateFunctionConfiguration"
    PUBLISH_VERSION = "PublishVersion"
    TAG = "TagResource"


REFUSED: Mapping[Phase, frozenset[Operation]] = {
    Phase.CREATING: frozenset(
        {Operation.INVOKE, Operation.UPDATE_CODE, Operation.UPDATE_CONFIGURATION, Operation.PUBLISH_VERSION},
    ),
    Phase.INACTIVE: frozenset({Operation.INVOKE}),
    Phase.RESTORING: frozenset(
        {Operation.INVOKE, Operation.UPDATE_CODE, Operation.UPDATE_CONFIGURATION, Operation.PUBLISH_VERSION},
    ),
    Phase.UPDATING: frozenset(
        {Operation.UPDATE_CODE, Operation.UPDATE_CONFIGURATION, Operation.PUBLISH_VERSION, Operation.TAG},
    ),
    Phase.FAILED: frozenset(
        {Operation.INVOKE, Operation.UPDATE_CODE, Operation.UPDATE_CONFIGURATION, Operation.PUBLISH_VERSION},
    ),
}


@dataclass(frozen=True, slots=True)
class FunctionState:
    """Where a function stands. ``story`` holds the last transitions as ``(at, event, cause, phase)``."""

    phase: Phase = Phase.ABSENT
    fence: str = ""
    reason_code: str = ""
    reason: str = ""
    story: tuple[tuple[float, str, str, str], ...] = ()

    def handle(self, event: Event) -> tuple[FunctionState, tuple[Instruction, ...]]:
        """The next state and what to do about it. A late report of a preparation gives this state and nothing to do.

        Raises ``IllegalTransition`` for what the table lacks.
        """
        if isinstance(event, Prepared | PrepareFailed) and event.cause != self.fence:
            return self, ()
        row = TRANSITIONS.get((self.phase, type(event)))
        if row is None and isinstance(event, Idle | SourceLost | Wake):
            return self, ()
        if row is None:
            raise IllegalTransition("function", self.phase.value, type(event).__name__, self.tell())
        phase, instructions = row
        entry = (event.at, type(event).__name__, event.cause, phase.value)
        moved = replace(self, phase=phase, fence="", reason_code="", reason="", story=(*self.story, entry)[-STORY_LENGTH:])
        if isinstance(event, Create | Update):
            moved = replace(moved, fence=event.cause, reason_code="Creating", reason=CREATING_REASON)
        elif isinstance(event, Wake):
            moved = replace(moved, fence=event.cause, reason_code="Restoring", reason=RESTORING_REASON)
        elif isinstance(event, Idle):
            moved = replace(moved, reason_code="Idle", reason=IDLE_REASON)
        elif isinstance(event, SourceLost):
            moved = replace(moved, reason_code="Idle", reason=event.reason)
        elif isinstance(event, PrepareFailed):
            moved = replace(moved, reason_code=event.code, reason=event.reason)
        elif isinstance(event, CodeLost):
            moved = replace(moved, reason_code="InvalidZipFileException", reason=event.reason)
        return moved, instructions

    def refuse(self, operation: Operation, arn: str) -> ClientFault | None:
        """The 409 that ``operation`` gets now, or ``None`` where it may go on. ``arn`` is the unqualified one."""
        if operation not in REFUSED.get(self.phase, frozenset()):
            return None
        prefix = "The operation cannot be performed at this time."
        if self.phase is Phase.UPDATING:
            return conflict(f"{prefix} An update is in progress for resource: {arn}")
        return conflict(f"{prefix} The function is currently in the following state: {SHOWN[self.phase][0]}")

    def shown(self) -> dict[str, str]:
        """The State and LastUpdateStatus members of a FunctionConfiguration."""
        state, status = SHOWN[self.phase]
        members = {"State": state}
        if status is None or self.phase in RESTING:
            members |= {"StateReason": self.reason, "StateReasonCode": self.reason_code}
            return members if status is None else {**members, "LastUpdateStatus": status}
        members["LastUpdateStatus"] = status
        if self.reason:
            members |= {"LastUpdateStatusReason": self.reason, "LastUpdateStatusReasonCode": self.reason_code}
        return members

    def tell(self) -> str:
        """The story, one transition a line."""
        return "\n".join(f"{at:.3f} {event} ({cause}) -> {phase}" for at, event, cause, phase in self.story)

    def to_document(self) -> dict[str, Any]:
        return {
            "phase": self.phase.value,
            "fence": self.fence,
            "reason_code": self.reason_code,
            "reason": self.reason,
            "story": [list(entry) for entry in self.story],
        }

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> FunctionState:
        story = tuple((float(at), str(event), str(cause), str(phase)) for at, event, cause, phase in document["story"])
        return FunctionState(Phase(document["phase"]), document["fence"], document["reason_code"], document["reason"], story)

"""What a poller's machine is told and what it asks for. Times are monotonic seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lambent.sources.record import Plan, Record

# ------------------------------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Start:
    at: float


@dataclass(frozen=True, slots=True)
class Change:
    plan: Plan
    at: float


@dataclass(frozen=True, slots=True)
class Stop:
    at: float


@dataclass(frozen=True, slots=True)
class Took:
    """A take has ended. ``visibility`` is how long the records are ours (0: as long as we like)."""

    records: Sequence[Record]
    visibility: float
    at: float


@dataclass(frozen=True, slots=True)
class SourceFailed:
    """A take or a wait has failed."""

    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class Rang:
    """The wait is over."""

    at: float


@dataclass(frozen=True, slots=True)
class Succeeded:
    """``failed``: ids of the records that the function named."""

    batch: int
    failed: frozenset[str]
    at: float


@dataclass(frozen=True, slots=True)
class Failed:
    batch: int
    at: float


@dataclass(frozen=True, slots=True)
class Refused:
    """The batch has not reached the function."""

    batch: int
    at: float


@dataclass(frozen=True, slots=True)
class Tick:
    """The time that the last ``Wake`` named has come."""

    at: float


# ------------------------------------------------------------------------------------------------------------------- instructions


@dataclass(frozen=True, slots=True)
class Take:
    limit: int


@dataclass(frozen=True, slots=True)
class Wait:
    pass


@dataclass(frozen=True, slots=True)
class CancelWait:
    pass


@dataclass(frozen=True, slots=True)
class Invoke:
    batch: int
    records: Sequence[Record]
    attempt: int


@dataclass(frozen=True, slots=True)
class Acknowledge:
    records: Sequence[Record]


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Let others have them, now."""

    records: Sequence[Record]


@dataclass(frozen=True, slots=True)
class Prolong:
    """Keep them from others for ``seconds`` from now."""

    records: Sequence[Record]
    seconds: float


@dataclass(frozen=True, slots=True)
class Wake:
    """Send a ``Tick`` at ``at``; ``None``: never. Replaces the one before."""

    at: float | None


@dataclass(frozen=True, slots=True)
class Tell:
    """For the story."""

    event: str
    detail: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """Nothing is in flight, nothing is held, nothing will be taken."""


Instruction = Take | Wait | CancelWait | Invoke | Acknowledge | GiveBack | Prolong | Wake | Tell | Stopped

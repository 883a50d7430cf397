"""What the pool machine hears and what it wants: events and instructions, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lambent.errors import PlatformFault

# ------------------------------------------------------------------------------------------------------------- events (the pool)


@dataclass(slots=True)
class Submit:
    """A job that holds a permit. The machine never looks into it."""

    job: Any


@dataclass(slots=True)
class Resubmit:
    """A job that was begun but never arrived: its environment had died while idle. It was accepted, so it runs even while draining."""

    job: Any


@dataclass(slots=True)
class Tick:
    """Time to look at who has been idle for how long. All in monotonic seconds."""

    at: float
    freeze_after: float
    idle_after: float


@dataclass(slots=True)
class Keep:
    """From now on keep ``count`` environments; start at most ``at_once`` of them at the same time."""

    count: int
    at_once: int


@dataclass(slots=True)
class Renew:
    """Time to try again to make the kept environments complete."""


@dataclass(slots=True)
class Evict:
    """Room is needed elsewhere: end the environment that has been idle longest, if one is."""

    reason: str


@dataclass(slots=True)
class Drain:
    """The key is stale, or the node stops."""

    reason: str


@dataclass(slots=True)
class Abort:
    """Everything stops now."""

    fault: PlatformFault


# ------------------------------------------------------------------------------------------------------ events (one environment)


@dataclass(slots=True)
class Free:
    """It can take a job: init has succeeded, or an invocation has ended."""

    slot: int
    at: float


@dataclass(slots=True)
class FreeBroken:
    """Its init failed; it can take one job, which will try again."""

    slot: int


@dataclass(slots=True)
class FreeReset:
    """What ran in it has ended with its invocation, and it can take another, which runs init anew."""

    slot: int
    at: float


@dataclass(slots=True)
class Ended:
    """It is no more. ``fault`` is set if it never came to be."""

    slot: int
    fault: PlatformFault | None = None


Event = Submit | Resubmit | Tick | Keep | Renew | Evict | Drain | Abort | Free | FreeBroken | FreeReset | Ended

# ---------------------------------------------------------------------------------------------------------------- instructions


@dataclass(slots=True)
class Begin:
    """Hand the job to the environment."""

    slot: int
    job: Any


@dataclass(slots=True)
class Start:
    """Start an environment and call it ``slot``. ``job`` is what caused it, and not necessarily what it will run.

    One that is ``kept`` has no job that caused it (``None``).
    """

    slot: int
    job: Any
    kept: bool = False


@dataclass(slots=True)
class FreezeSlot:
    slot: int


@dataclass(slots=True)
class Stop:
    slot: int
    reason: str


@dataclass(slots=True)
class Fail:
    """The job will not run."""

    job: Any
    fault: PlatformFault


@dataclass(slots=True)
class KeepFailed:
    """An environment that was to be kept did not come to be; so many in a row by now."""

    failures: int


@dataclass(slots=True)
class Retire:
    """The pool is empty and closed: forget it."""


Instruction = Begin | Start | FreezeSlot | Stop | Fail | KeepFailed | Retire
RETIRE = Retire()

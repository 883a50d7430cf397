"""What a source of records is to its poller: the port that one small file per kind of source implements.

A source takes, and says what it took in the shape in which the function sees it; it acknowledges (deletes, moves a checkpoint), gives
back, keeps from others. Batching, concurrency, back-off, partial answers and draining are the poller's (``poller_state.py``), filters
are ``filters.py``. A stream has its shards as groups, says ``redelivers=False`` in its plan, and acknowledging moves the checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lambent.errors import LambentError
from lambent.sources.filters import Filters
from lambent.sources.record import Record


class SourceUnavailable(LambentError):
    """The source does not answer, or says no. The poller rests and tries again."""


class SourceDenied(SourceUnavailable):
    """The source knows us, and does not let us."""


@dataclass(frozen=True, slots=True)
class Taken:
    """``visibility``: seconds for which the records are ours; 0 if nobody else can get them."""

    records: Sequence[Record]
    visibility: float


class Source(Protocol):
    """Every method may raise ``LambentError``. ``take`` and ``wait`` are never called at the same time."""

    async def take(self, limit: int, filters: Filters) -> Taken:
        """Up to ``limit`` of the records that are there now; those that ``filters`` does not match are marked."""
        ...

    async def wait(self) -> None:
        """Until there may be records that the last ``take`` did not see. May be cancelled, and loses nothing then."""
        ...

    async def acknowledge(self, records: Sequence[Record]) -> None:
        """They are done with. Durable when this returns."""
        ...

    async def give_back(self, records: Sequence[Record]) -> None:
        """Let others have them at once."""
        ...

    async def prolong(self, records: Sequence[Record], seconds: float) -> None:
        """Keep them from others for ``seconds`` from now."""
        ...

    def envelope(self, records: Sequence[Record]) -> bytes:
        """The event for the function, in JSON."""
        ...

    async def close(self) -> None: ...


def records_envelope(records: Sequence[Record]) -> bytes:
    """``{"Records": [...]}``, as most sources have it (contract 04 §7)."""
    return b'{"Records":[' + b",".join([record.payload for record in records]) + b"]}"


ENVELOPE = len(records_envelope(()))

"""The store contract: four capabilities, and one way to change several things at once.

**KV** holds documents with revisions and compare-and-set. **EventLog** holds ordered, append-only topics. **Queue** leases messages with
visibility, acknowledgement and delay. **Blobs** holds content-addressed bytes. A driver gives all four; ``tests/conformance/test_store.py``
is the suite that each must pass.

Every mutation is a value (``Put``, ``Delete``, ``Append``, ``Enqueue``, ...) handed to ``commit``, which applies all of a call's
mutations or none and returns only when they are durable: the answer to a client follows the commit and never precedes it. Calls
that arrive together share one transaction of the database (group commit), so durability costs a fraction of a disk flush each. A failed
expectation fails its own call and none of its neighbours in the group.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from lambent.errors import LambentError

Document = dict[str, Any]

ANY = -1  # expectation: whatever stands there
ABSENT = 0  # expectation: no document stands there; real revisions start at 1


class StoreConflict(LambentError):
    """An expectation did not hold; nothing of the call was applied."""

    def __init__(self, kind: str, key: str, expected: int, found: int) -> None:
        super().__init__(f"{kind}/{key}: expected revision {expected}, found {found}")
        self.kind, self.key, self.expected, self.found = kind, key, expected, found


class StoreUnavailable(LambentError):
    """The disk is full, read-only or gone; nothing was applied, nothing was lost, and the caller is told."""


@dataclass(frozen=True, slots=True)
class Record:
    """A document as it stands: ``revision`` counts from 1 and grows with every put."""

    key: str
    value: Document
    revision: int


@dataclass(frozen=True, slots=True)
class Put:
    """Set ``kind``/``key`` to ``value`` (JSON) if its revision is ``expected``."""

    kind: str
    key: str
    value: Document
    expected: int = ANY


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove ``kind``/``key`` if its revision is ``expected``; removing an absent document with ``ANY`` is no error."""

    kind: str
    key: str
    expected: int = ANY


@dataclass(frozen=True, slots=True)
class Append:
    """Append ``body`` to ``topic``; the position is given back by ``commit``."""

    topic: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Enqueue:
    """Put ``body`` on ``queue``, visible from wall time ``visible_at`` (seconds; 0 is at once)."""

    queue: str
    body: bytes
    visible_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Take a leased message off its queue, if ``receipt`` is still the latest lease."""

    queue: str
    receipt: str


@dataclass(frozen=True, slots=True)
class Requeue:
    """Give a leased message back, visible from ``visible_at``, if ``receipt`` is still the latest lease."""

    queue: str
    receipt: str
    visible_at: float


Mutation = Put | Delete | Append | Enqueue | Acknowledge | Requeue


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a topic."""

    position: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """One leased message; ``attempt`` counts its leases from 1."""

    receipt: str
    body: bytes
    attempt: int
    enqueued_at: float


class Store(Protocol):
    """KV, EventLog and Queue behind one commit. All coroutines may be called from one event loop only."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def commit(self, *mutations: Mutation) -> list[int]:
        """Apply all or none, durably. Gives a number per mutation: a Put's new revision, an Append's or Enqueue's position, for the
        rest 1 if it did something and 0 if not. Raises ``StoreConflict`` or ``StoreUnavailable``."""
        ...

    async def get(self, kind: str, key: str) -> Record | None: ...

    async def scan(self, kind: str, prefix: str = "", after: str = "", limit: int = 1000) -> list[Record]:
        """Documents of ``kind`` whose key starts with ``prefix`` and sorts after ``after``, in byte order of the key."""
        ...

    async def read(self, topic: str, after: int = 0, limit: int = 1000) -> list[Entry]: ...

    async def truncate(self, topic: str, through: int) -> None:
        """Drop the entries of ``topic`` up to and with position ``through``."""
        ...

    async def lease(self, queue: str, limit: int, now: float, visibility: float) -> list[Message]:
        """Lease up to ``limit`` visible messages, oldest first, until ``now + visibility``."""
        ...

    async def depth(self, queue: str) -> int: ...


class Blobs(Protocol):
    """Content-addressed bytes. The address is the SHA-256 of the content, in hex."""

    async def put(self, content: bytes) -> str:
        """Store durably and give the address; storing the same content again costs nothing."""
        ...

    async def get(self, address: str) -> bytes | None: ...

    async def delete(self, address: str) -> None: ...

    def addresses(self) -> AsyncIterator[str]: ...

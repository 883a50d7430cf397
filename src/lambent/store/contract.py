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

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lambent.errors import LambentError
from lambent.store.export import Kept

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
    """Put ``body`` on ``queue``, visible from wall time ``visible_at`` (seconds; 0 is at once).

    Messages of one ``group`` (other than "") keep their order where they are leased with ``ordered``. With ``leased_until`` the message is
    born leased until then, by whoever put it there: its receipt is ``leased_receipt`` of its position, and one commit is saved.
    """

    queue: str
    body: bytes
    visible_at: float = 0.0
    group: str = ""
    leased_until: float = 0.0


def leased_receipt(position: int) -> str:
    """The receipt of a message that was born leased; ``position`` is the number that its ``commit`` gave."""
    return f"{position}.1"


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


@dataclass(frozen=True, slots=True)
class Extend:
    """Move the end of a lease to ``visible_at``; the receipt stays good. Does nothing once the lease has ended."""

    queue: str
    receipt: str
    visible_at: float


Mutation = Put | Delete | Append | Enqueue | Acknowledge | Requeue | Extend


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a topic."""

    position: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """One leased message; ``attempt`` counts its leases from 1, ``first_leased_at`` is when the first of them began."""

    receipt: str
    body: bytes
    attempt: int
    enqueued_at: float
    group: str = ""
    first_leased_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Peek:
    """A message as it lies on its queue; ``leased`` says whether somebody holds it."""

    position: int
    body: bytes
    attempt: int
    enqueued_at: float
    visible_at: float
    group: str
    leased: bool


@dataclass(frozen=True, slots=True)
class Counts:
    """What is on a queue: to be had at once, leased, and not due yet."""

    visible: int
    leased: int
    delayed: int


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

    async def lease(self, queue: str, limit: int, now: float, visibility: float, ordered: bool = False) -> list[Message]:
        """Lease up to ``limit`` visible messages, oldest first, until ``now + visibility``.

        With ``ordered`` they come in the order of enqueueing, and a message with a group only if no earlier one of its group is held
        back (leased or not due) at ``now``; several of one group may come at once. A lease survives the process; a power loss may end
        it early.
        """
        ...

    async def release(self, queue: str) -> int:
        """End every lease on ``queue``: for the one process that knows that none of the holders lives any more. How many it were."""
        ...

    async def peek(self, queue: str, limit: int = 100, after: int = 0) -> list[Peek]:
        """Look without leasing: messages in the order of enqueueing, from beyond position ``after``."""
        ...

    async def drop(self, queue: str, position: int) -> bool:
        """Take a message off its queue, leased or not. Whether it was there."""
        ...

    async def purge(self, queue: str, limit: int = 10_000) -> int:
        """Take up to ``limit`` messages off, leased or not, oldest first; how many it were."""
        ...

    async def depth(self, queue: str) -> int: ...

    async def counts(self, queue: str, now: float) -> Counts: ...

    async def due(self, queue: str) -> float | None:
        """When the first message of ``queue`` is to be had (a time that may have passed); ``None`` where there is none."""
        ...

    async def queues(self, prefix: str = "") -> list[str]:
        """Names of the queues that hold messages, in byte order."""
        ...

    def snapshot(self) -> AsyncGenerator[list[Kept], None]:
        """All that the store holds (``store/export.py``) as of the moment at which the first batch is asked for; nobody waits meanwhile.
        Raises ``StoreUnavailable``."""
        ...

    async def load(self, rows: Sequence[Kept]) -> None:
        """Put rows of a snapshot, batch after batch, into a store that held nothing. After an error the store is of no use.
        Raises ``ValueError`` where the rows contradict one another or cannot be kept here."""
        ...


class Blobs(Protocol):
    """Content-addressed bytes. The address is the SHA-256 of the content, in hex."""

    async def put(self, content: bytes) -> str:
        """Store durably and give the address; storing the same content again costs nothing."""
        ...

    async def get(self, address: str) -> bytes | None: ...

    async def delete(self, address: str) -> None: ...

    def addresses(self) -> AsyncIterator[str]: ...

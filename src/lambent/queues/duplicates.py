"""What a FIFO queue has accepted in the last five minutes, by deduplication id: a second message with the same id is accepted and dropped.

Every id is a document that is put in the same commit as its message, with the expectation that there is none: two senders of one id can
never both succeed, and a restart forgets nothing. What is in memory spares the question; ids whose time is over are deleted as new ones
come.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from lambent.clock import Clock
from lambent.queues.queue import Queue
from lambent.store.contract import ABSENT, ANY, Delete, Put, Store

WINDOW_S = 300.0
_KIND = "sqs-duplicate"
_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Accepted:
    """The first message with an id. ``position`` is 0 where a restart lies between."""

    message_id: str
    position: int
    until: float


class Duplicates:
    """The ids of all FIFO queues."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._accepted: dict[str, Accepted] = {}
        self._order: deque[tuple[float, str]] = deque()

    async def load(self) -> None:
        after = ""
        found: list[tuple[float, str]] = []
        while records := await self._store.scan(_KIND, after=after):
            for record in records:
                self._accepted[record.key] = Accepted(record.value["id"], 0, record.value["until"])
                found.append((record.value["until"], record.key))
            after = records[-1].key
        self._order = deque(sorted(found))

    def seen(self, key: str) -> Accepted | None:
        accepted = self._accepted.get(key)
        return accepted if accepted is not None and accepted.until > self._clock.now() else None

    async def look_up(self, key: str) -> str:
        """The message id in the store; "" where there is none."""
        record = await self._store.get(_KIND, key)
        return str(record.value["id"]) if record is not None else ""

    def claim(self, key: str, message_id: str) -> Put:
        """What to commit together with the message."""
        expected = ABSENT if key not in self._accepted else ANY
        return Put(_KIND, key, {"id": message_id, "until": self._clock.now() + WINDOW_S}, expected)

    def accepted(self, key: str, message_id: str, position: int) -> None:
        """The commit went through."""
        until = self._clock.now() + WINDOW_S
        self._accepted[key] = Accepted(message_id, position, until)
        self._order.append((until, key))

    async def forget_old(self) -> None:
        """Delete some of the ids whose time is over."""
        now = self._clock.now()
        gone: list[Delete] = []
        while self._order and self._order[0][0] <= now and len(gone) < _AT_ONCE:
            _, key = self._order.popleft()
            accepted = self._accepted.get(key)
            if accepted is not None and accepted.until <= now:
                del self._accepted[key]
                gone.append(Delete(_KIND, key))
        if gone:
            await self._store.commit(*gone)


def duplicate_key(queue: Queue, group: str, deduplication: str) -> str:
    scope = group if queue.attribute("DeduplicationScope") == "messageGroup" else ""
    return f"{queue.uid}/{scope}/{deduplication}"

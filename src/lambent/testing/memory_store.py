"""A store in memory: the whole contract and no disk, for tests and for trying things out. What it forgets, it forgets all of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from lambent.clock import Clock
from lambent.store.contract import (
    ANY,
    Acknowledge,
    Append,
    Counts,
    Delete,
    Enqueue,
    Entry,
    Extend,
    Message,
    Mutation,
    Peek,
    Put,
    Record,
    Requeue,
    StoreConflict,
    StoreUnavailable,
)
from lambent.store.export import Kept, KeptDocument, KeptEntry, KeptMessage, KeptPosition, KeptTopic, take


@dataclass(slots=True)
class _Held:
    """A message on its queue; ``lease`` is the attempt that holds it, 0 if none does."""

    position: int
    body: bytes
    enqueued_at: float
    visible_at: float
    since: float
    attempt: int = 0
    lease: int = 0
    group: str = ""
    first_leased: float = 0.0


@dataclass(slots=True)
class _Topic:
    head: int = 0
    entries: dict[int, bytes] = field(default_factory=dict)


class MemoryStore:
    """``store.contract.Store`` in dictionaries. Every mutation leaves an undo behind until its call is through."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._documents: dict[str, dict[str, tuple[str, int]]] = {}
        self._topics: dict[str, _Topic] = {}
        self._queues: dict[str, dict[int, _Held]] = {}
        self._position = 0
        self._open = False

    async def open(self) -> None:
        self._open = True

    async def close(self) -> None:
        self._open = False

    async def commit(self, *mutations: Mutation) -> list[int]:
        self._check()
        texts = [json.dumps(mutation.value) if isinstance(mutation, Put) else "" for mutation in mutations]
        undo: list[Callable[[], object]] = []
        try:
            return [self._apply(mutation, text, undo) for mutation, text in zip(mutations, texts, strict=True)]
        except StoreConflict:
            for step in reversed(undo):
                step()
            raise

    async def get(self, kind: str, key: str) -> Record | None:
        self._check()
        found = self._documents.get(kind, {}).get(key)
        return Record(key, json.loads(found[0]), found[1]) if found else None

    async def scan(self, kind: str, prefix: str = "", after: str = "", limit: int = 1000) -> list[Record]:
        self._check()
        documents = self._documents.get(kind, {})
        keys = sorted(key for key in documents if key.startswith(prefix) and (not after or key > after))
        return [Record(key, json.loads(documents[key][0]), documents[key][1]) for key in keys[:limit]]

    async def read(self, topic: str, after: int = 0, limit: int = 1000) -> list[Entry]:
        self._check()
        entries = self._topics.get(topic, _Topic()).entries
        return [Entry(position, entries[position]) for position in sorted(entries) if position > after][:limit]

    async def truncate(self, topic: str, through: int) -> None:
        self._check()
        entries = self._topics.get(topic, _Topic()).entries
        for position in [position for position in entries if position <= through]:
            del entries[position]

    async def lease(self, queue: str, limit: int, now: float, visibility: float, ordered: bool = False) -> list[Message]:
        self._check()
        visible = self._in_order(queue, now) if ordered else self._by_age(queue, now)
        messages = []
        for held in visible[:limit]:
            held.attempt += 1
            held.lease = held.attempt
            held.visible_at = held.since = now + visibility
            held.first_leased = held.first_leased or now
            receipt = f"{held.position}.{held.attempt}"
            messages.append(Message(receipt, held.body, held.attempt, held.enqueued_at, held.group, held.first_leased))
        return messages

    def _by_age(self, queue: str, now: float) -> list[_Held]:
        visible = [held for held in self._queues.get(queue, {}).values() if held.visible_at <= now]
        return sorted(visible, key=lambda held: (held.since, held.position))

    def _in_order(self, queue: str, now: float) -> list[_Held]:
        blocked: set[str] = set()
        free = []
        for held in sorted(self._queues.get(queue, {}).values(), key=lambda held: held.position):
            if held.visible_at > now:
                blocked.add(held.group)
            elif not held.group or held.group not in blocked:
                free.append(held)
        return free

    async def release(self, queue: str) -> int:
        self._check()
        now = self._clock.now()
        leased = [held for held in self._queues.get(queue, {}).values() if held.lease > 0 and held.visible_at > now]
        for held in leased:
            held.lease, held.visible_at, held.since = 0, 0.0, min(held.enqueued_at, now)
        return len(leased)

    async def peek(self, queue: str, limit: int = 100, after: int = 0) -> list[Peek]:
        self._check()
        now = self._clock.now()
        found = sorted((held for held in self._queues.get(queue, {}).values() if held.position > after), key=lambda held: held.position)
        return [
            Peek(
                each.position,
                each.body,
                each.attempt,
                each.enqueued_at,
                each.visible_at,
                each.group,
                each.lease > 0 and each.visible_at > now,
            )
            for each in found[:limit]
        ]

    async def drop(self, queue: str, position: int) -> bool:
        self._check()
        return self._queues.get(queue, {}).pop(position, None) is not None

    async def purge(self, queue: str, limit: int = 10_000) -> int:
        self._check()
        messages = self._queues.get(queue, {})
        dropped = sorted(messages)[:limit]
        for position in dropped:
            del messages[position]
        return len(dropped)

    async def counts(self, queue: str, now: float) -> Counts:
        self._check()
        held = list(self._queues.get(queue, {}).values())
        visible = sum(each.visible_at <= now for each in held)
        leased = sum(each.visible_at > now and each.lease > 0 for each in held)
        return Counts(visible, leased, len(held) - visible - leased)

    async def due(self, queue: str) -> float | None:
        self._check()
        return min((each.since for each in self._queues.get(queue, {}).values()), default=None)

    async def queues(self, prefix: str = "") -> list[str]:
        self._check()
        return sorted(name for name, messages in self._queues.items() if messages and name.startswith(prefix))

    async def depth(self, queue: str) -> int:
        self._check()
        return len(self._queues.get(queue, {}))

    async def snapshot(self) -> AsyncGenerator[list[Kept], None]:
        self._check()
        rows = iter(self._everything())
        while batch := take(rows):
            yield batch

    def _everything(self) -> list[Kept]:
        rows: list[Kept] = []
        for kind, documents in sorted(self._documents.items()):
            rows += [KeptDocument(kind, key, revision, text) for key, (text, revision) in sorted(documents.items())]
        rows += [KeptTopic(name, topic.head) for name, topic in self._topics.items()]
        rows += [KeptEntry(name, position, body) for name, topic in self._topics.items() for position, body in topic.entries.items()]
        for queue, messages in self._queues.items():
            rows += [
                KeptMessage(
                    *(each.position, queue, each.body, each.enqueued_at, each.visible_at, each.since),
                    *(each.attempt, each.lease, each.group, each.first_leased),
                )
                for each in messages.values()
            ]
        return [*rows, KeptPosition(self._position)] if self._position else rows

    async def load(self, rows: Sequence[Kept]) -> None:
        self._check()
        names = [row[:2] for row in (*self._everything(), *rows) if isinstance(row, KeptDocument | KeptEntry)]
        if len(set(names)) < len(names):
            raise ValueError("two rows have one name")
        for row in rows:
            match row:
                case KeptDocument(kind, key, revision, text):
                    self._documents.setdefault(kind, {})[key] = (text, revision)
                case KeptTopic(name, head):
                    self._topics.setdefault(name, _Topic()).head = head
                case KeptEntry(name, position, body):
                    self._topics.setdefault(name, _Topic()).entries[position] = body
                case KeptMessage(position, queue, body, enqueued_at, visible_at, since, attempt, lease, group, first):
                    held = _Held(position, body, enqueued_at, visible_at, since, attempt, lease, group, first)
                    self._queues.setdefault(queue, {})[position] = held
                case KeptPosition(last):
                    self._position = last

    def _check(self) -> None:
        if not self._open:
            raise StoreUnavailable("the memory store is not open")

    def _apply(self, mutation: Mutation, text: str, undo: list[Callable[[], object]]) -> int:
        match mutation:
            case Put(kind, key, _, expected):
                return self._put(kind, key, text, expected, undo)
            case Delete(kind, key, expected):
                return self._delete(kind, key, expected, undo)
            case Append(topic, body):
                return self._append(topic, bytes(body), undo)
            case Enqueue(queue, body, visible_at, group, leased_until):
                position = self._enqueue(queue, bytes(body), leased_until or visible_at, group, undo)
                if leased_until:
                    born = self._queues[queue][position]
                    born.attempt = born.lease = 1
                    born.first_leased = born.enqueued_at
                return position
            case Acknowledge(queue, receipt):
                held = self._leased(queue, receipt)
                if held is None:
                    return 0
                messages = self._queues[queue]
                del messages[held.position]
                undo.append(lambda: messages.__setitem__(held.position, held))
                return 1
            case Requeue(queue, receipt, visible_at):
                return self._requeue(queue, receipt, visible_at, undo)
            case Extend(queue, receipt, visible_at):
                return self._extend(queue, receipt, visible_at, undo)

    def _expect(self, kind: str, key: str, expected: int) -> tuple[str, int] | None:
        found = self._documents.setdefault(kind, {}).get(key)
        revision = found[1] if found else 0
        if expected not in (ANY, revision):
            raise StoreConflict(kind, key, expected, revision)
        return found

    def _put(self, kind: str, key: str, text: str, expected: int, undo: list[Callable[[], object]]) -> int:
        found = self._expect(kind, key, expected)
        documents = self._documents[kind]
        revision = found[1] + 1 if found else 1
        documents[key] = (text, revision)
        undo.append((lambda: documents.__setitem__(key, found)) if found else (lambda: documents.pop(key)))
        return revision

    def _delete(self, kind: str, key: str, expected: int, undo: list[Callable[[], object]]) -> int:
        found = self._expect(kind, key, expected)
        if found is None:
            return 0
        documents = self._documents[kind]
        del documents[key]
        undo.append(lambda: documents.__setitem__(key, found))
        return 1

    def _append(self, name: str, body: bytes, undo: list[Callable[[], object]]) -> int:
        topic = self._topics.setdefault(name, _Topic())
        topic.head += 1
        position = topic.head
        topic.entries[position] = body

        def back() -> None:
            del topic.entries[position]
            topic.head -= 1

        undo.append(back)
        return position

    def _enqueue(self, queue: str, body: bytes, visible_at: float, group: str, undo: list[Callable[[], object]]) -> int:
        now = self._clock.now()
        self._position += 1
        position = self._position
        messages = self._queues.setdefault(queue, {})
        messages[position] = _Held(position, body, now, visible_at, max(visible_at, now), group=group)
        undo.append(lambda: messages.pop(position))
        return position

    def _requeue(self, queue: str, receipt: str, visible_at: float, undo: list[Callable[[], object]]) -> int:
        held = self._leased(queue, receipt)
        if held is None:
            return 0
        before = (held.lease, held.visible_at, held.since)

        def back() -> None:
            held.lease, held.visible_at, held.since = before

        undo.append(back)
        held.lease, held.visible_at, held.since = 0, visible_at, max(visible_at, self._clock.now())
        return 1

    def _extend(self, queue: str, receipt: str, visible_at: float, undo: list[Callable[[], object]]) -> int:
        held = self._leased(queue, receipt)
        now = self._clock.now()
        if held is None or held.visible_at <= now:
            return 0
        before = (held.visible_at, held.since)

        def back() -> None:
            held.visible_at, held.since = before

        undo.append(back)
        held.visible_at, held.since = visible_at, max(visible_at, now)
        return 1

    def _leased(self, queue: str, receipt: str) -> _Held | None:
        position, _, attempt = receipt.partition(".")
        if not (position.isdecimal() and attempt.isdecimal()):
            return None
        held = self._queues.get(queue, {}).get(int(position))
        return held if held is not None and held.lease == int(attempt) and held.lease > 0 else None


class MemoryBlobs:
    """``store.contract.Blobs`` in a dictionary."""

    def __init__(self) -> None:
        self._contents: dict[str, bytes] = {}

    async def open(self) -> None:
        """Nothing to prepare."""

    async def put(self, content: bytes) -> str:
        address = hashlib.sha256(content).hexdigest()
        self._contents[address] = bytes(content)
        return address

    async def get(self, address: str) -> bytes | None:
        return self._contents.get(address)

    async def delete(self, address: str) -> None:
        self._contents.pop(address, None)

    async def addresses(self) -> AsyncIterator[str]:
        for address in list(self._contents):
            yield address

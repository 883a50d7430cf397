"""Who subscribed to which telemetry, and what waits for whom: the pure half of the Telemetry API and the Logs API (contract 03 section 4).

An extension subscribes during init and names a port inside its sandbox; from then on it gets the events of the types that it chose, in
batches. A batch leaves when it holds ``maxItems`` events or ``maxBytes``, or ``timeoutMs`` after its first event.

**Nobody waits for a subscriber.** ``Outbox`` holds one batch that is on its way and one that is filling. What comes while both are full is
dropped and counted, and the count is the first thing that the subscriber hears when it has caught up (``platform.logsDropped``).

**Early events.** The first events of an environment happen before anybody could have subscribed. Until init is over the hub keeps what is
published, within the bounds of a small outbox, and gives it to each new subscriber of its type.

**The Logs API** is the Telemetry API's ancestor: fewer events, shorter records, other names. Publishers speak the language of the Telemetry
API only; ``_as_logs`` translates.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

TYPES = ("platform", "function", "extension")
EARLY_ITEMS, EARLY_BYTES = 1000, 262_144
FELL_BEHIND = "Consumer seems to have fallen behind as it has not acknowledged receipt of logs."


@dataclass(frozen=True, slots=True)
class Subscription:
    """What an extension asked for. ``api``: telemetry or logs; ``protocol``: HTTP or TCP."""

    api: str
    schema: str
    types: tuple[str, ...]
    protocol: str
    port: int
    path: str = "/"
    method: str = "POST"
    host: str = "sandbox.localdomain"
    max_items: int = 10_000
    max_bytes: int = 262_144
    timeout_s: float = 1.0


@dataclass(slots=True)
class _Count:
    records: int = 0
    size: int = 0


@dataclass(slots=True)
class Outbox:
    """The events of one subscription. ``taken`` is the batch that is on its way."""

    subscription: Subscription
    _waiting: list[bytes] = field(default_factory=list)
    _size: int = 0
    _dropped: _Count = field(default_factory=_Count)
    taken: list[bytes] = field(default_factory=list)

    @property
    def full(self) -> bool:
        """Whether a batch should leave now."""
        return self._size >= self.subscription.max_bytes or len(self._waiting) >= self.subscription.max_items

    @property
    def empty(self) -> bool:
        return not self._waiting and not self._dropped.records

    def add(self, event: bytes) -> bool:
        """Keep an event if there is room for it."""
        if self._waiting and (
            len(self._waiting) >= self.subscription.max_items or self._size + len(event) > 2 * self.subscription.max_bytes
        ):
            self.drop(1, len(event))
            return False
        self._waiting.append(event)
        self._size += len(event)
        return True

    def drop(self, records: int, size: int) -> None:
        self._dropped.records += records
        self._dropped.size += size

    def take(self, now: float) -> list[bytes]:
        """The next batch, which stays ``taken`` until ``done``; ``now`` in epoch seconds. Only while none is taken."""
        assert not self.taken
        self.taken, self._waiting, self._size = self._waiting, [], 0
        dropped, self._dropped = self._dropped, _Count()
        if dropped.records:
            record = {"reason": FELL_BEHIND, "droppedRecords": dropped.records, "droppedBytes": dropped.size}
            self.taken.insert(0, encode_event("platform.logsDropped", record, now))
        return self.taken

    def done(self, *, delivered: bool) -> None:
        """The batch has arrived, or is given up and counted as dropped."""
        if not delivered:
            self.drop(len(self.taken), sum(map(len, self.taken)))
        self.taken = []


class TelemetryHub:
    """All subscriptions of one sandbox."""

    def __init__(self) -> None:
        self.types: frozenset[str] = frozenset()  # that somebody subscribed to
        self._outboxes: dict[str, list[Outbox]] = {}  # by extension
        self._early: list[tuple[str, Any, float, str]] | None = []
        self._early_size = 0
        self._early_lost = {category: _Count() for category in TYPES}

    @property
    def outboxes(self) -> list[Outbox]:
        return [outbox for mine in self._outboxes.values() for outbox in mine]

    def api_of(self, name: str) -> str:
        """Through which API an extension has subscribed so far, or ``""``."""
        return next((outbox.subscription.api for outbox in self._outboxes.get(name, ())), "")

    def subscribe(self, name: str, subscription: Subscription) -> tuple[Outbox | None, list[Outbox]]:
        """Take a subscription in: its outbox, or ``None`` where it changes nothing; and the outboxes that it replaces.

        An extension is told of each type once: a later subscription takes its types over from an earlier one.
        """
        mine = self._outboxes.setdefault(name, [])
        if any(outbox.subscription == subscription for outbox in mine):
            return None, []
        replaced = [outbox for outbox in mine if set(outbox.subscription.types) & set(subscription.types)]
        left = [outbox for outbox in mine if outbox not in replaced]
        outbox = Outbox(subscription)
        self._outboxes[name] = [*left, outbox]
        self.types = frozenset(kind for each in self.outboxes for kind in each.subscription.types)
        for kind, record, time, category in self._early or ():
            _put(outbox, kind, record, time, category)
        for category in subscription.types:
            outbox.drop(self._early_lost[category].records, self._early_lost[category].size)
        return outbox, replaced

    def publish(self, kind: str, record: Any, time: float, category: str) -> list[Outbox]:
        """One event. Gives the outboxes that hold more than before."""
        if self._early is not None:
            self._keep_early(kind, record, time, category)
        if category not in self.types:
            return []
        encoded = encode_event(kind, record, time)
        return [outbox for outbox in self.outboxes if _put(outbox, kind, record, time, category, encoded)]

    def end_init(self) -> None:
        """Nobody can subscribe any more."""
        self._early = None

    def _keep_early(self, kind: str, record: Any, time: float, category: str) -> None:
        assert self._early is not None
        size = len(record) + 100 if isinstance(record, str) else 400
        if self._early_size + size > EARLY_BYTES or len(self._early) >= EARLY_ITEMS:
            self._early_lost[category].records += 1
            self._early_lost[category].size += size
            return
        self._early_size += size
        self._early.append((kind, record, time, category))


def encode_event(kind: str, record: Any, time: float) -> bytes:
    """One event as JSON. ``time`` in epoch seconds."""
    stamp = datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds")
    document = {"time": stamp[:-6] + "Z", "type": kind, "record": record}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def _put(outbox: Outbox, kind: str, record: Any, time: float, category: str, encoded: bytes | None = None) -> bool:
    subscription = outbox.subscription
    if category not in subscription.types:
        return False
    if kind == "platform.fault" and subscription.api != "logs":
        return False
    if subscription.api == "logs" and category == "platform":
        added = [outbox.add(encode_event(name, short, time)) for name, short in _as_logs(kind, record, subscription.schema)]
        return any(added)
    return outbox.add(encoded if encoded is not None else encode_event(kind, record, time))


# -------------------------------------------------------------------------------------------------------------------- the Logs API

_LOGS_RECORDS: dict[str, tuple[str, ...]] = {
    "platform.start": ("requestId", "version", "tracing"),
    "platform.report": ("requestId", "metrics", "tracing"),
    "platform.runtimeDone": ("requestId", "status"),
    "platform.extension": ("name", "state", "events", "errorType"),
    "platform.logsDropped": ("reason", "droppedRecords", "droppedBytes"),
}


def _as_logs(kind: str, record: Any, schema: str) -> Iterable[tuple[str, Any]]:
    """A platform event in the words of the Logs API: none, one or two."""
    if kind in {"platform.fault", "platform.logsSubscription"}:
        return ((kind, record),)
    if kind == "platform.telemetrySubscription":
        return (("platform.logsSubscription", record),)
    members = _LOGS_RECORDS.get(kind)
    if members is None or not isinstance(record, dict) or (kind == "platform.runtimeDone" and schema < "2021-03-18"):
        return ()
    short = {name: record[name] for name in members if name in record}
    if kind == "platform.report":
        return (("platform.end", {"requestId": record.get("requestId", "")}), (kind, short))
    return ((kind, short),)

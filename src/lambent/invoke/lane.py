"""A lane: one of the store's queues, what runs of it here, and how many of it may (``lanes.py``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lambent.clock import Timer


class AdaptiveLimit:
    """How many of a lane may run at once: halved by refusals, grown by one each time that all of them went well."""

    __slots__ = ("_fastest", "_most", "_since", "value")

    def __init__(self, most: int, first: int = 16) -> None:
        self._most = most
        self.value = float(min(most, first))
        self._fastest = float("inf")
        self._since = 0

    def refused(self) -> None:
        """Refusals of runs that began together halve it once."""
        if self._since >= 0:
            self.value = max(1.0, self.value / 2)
            self._since = -int(self.value)
        self._since += 1

    def done(self, seconds: float, was_full: bool) -> None:
        self._since += 1
        self._fastest = min(self._fastest * 1.001, seconds)
        if was_full and seconds <= 2 * self._fastest + 0.001:
            self.value = min(self._most, self.value + 1 / self.value)


class Lane:
    """One store's queue, and what runs of it."""

    __slots__ = (
        "backlog",
        "held",
        "leasing",
        "limit",
        "name",
        "queue",
        "rest_until",
        "running",
        "size",
        "streak",
        "suspect",
        "timer",
        "timer_at",
    )

    def __init__(self, name: str, queue: str, most: int) -> None:
        self.name = name
        self.queue = queue
        self.limit = AdaptiveLimit(most)
        self.held: set[int] = set()  # positions that run here
        self.running = 0  # how many they are, with those whose commit is on its way; and
        self.size = 0  # their bytes
        self.backlog = False  # the store may have something to be had at once
        self.leasing = 0
        self.rest_until = 0.0  # monotonic
        self.streak = 0  # refusals in a row
        self.suspect = 0  # commits that failed, and may have left messages leased that nobody holds
        self.timer: Timer | None = None
        self.timer_at = float("inf")  # wall time

    @property
    def is_busy(self) -> bool:
        """Whether there is more to know of it than the store knows."""
        return bool(self.running or self.leasing or self.backlog or self.suspect or self.timer)


@dataclass(slots=True, eq=False)
class Held:
    """A message in our hands. ``item`` is what it was made from, where it has not come from the store."""

    lane: Lane
    receipt: str
    body: bytes
    item: Any = None
    finished: bool = False

    @property
    def position(self) -> int:
        return position_of(self.receipt)


def position_of(receipt: str) -> int:
    return int(receipt.partition(".")[0])

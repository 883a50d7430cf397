"""How fast things may happen: token buckets, for environments per function and for requests per concurrency (contract 01 §8, 02 §6).

A bucket holds at most what may happen at once, fills evenly, and never saves up more than it holds. Pure: the caller says what time it is.
"""

from __future__ import annotations

from lambent.arn import FunctionArn

SWEEP = 4_096  # functions known at most before the full buckets are forgotten


class TokenBucket:
    """``capacity`` tokens at once, ``per_second`` new ones; full at first. ``at`` is in monotonic seconds."""

    __slots__ = ("at", "capacity", "per_second", "tokens")

    def __init__(self, capacity: float, per_second: float, at: float) -> None:
        self.capacity = capacity
        self.per_second = per_second
        self.tokens = capacity
        self.at = at

    def take(self, at: float) -> bool:
        """One token, if there is one."""
        tokens = self.tokens + (at - self.at) * self.per_second
        if tokens > self.capacity:  # noqa: PLR1730  (min() is a call, and this is the hot path)
            tokens = self.capacity
        self.at = at
        if tokens < 1.0:
            self.tokens = tokens
            return False
        self.tokens = tokens - 1.0
        return True

    def full(self, at: float) -> bool:
        return self.tokens + (at - self.at) * self.per_second >= self.capacity

    def resize(self, capacity: float, per_second: float) -> None:
        """From now on another rate. What was taken stays taken."""
        self.tokens = max(min(self.tokens + capacity - self.capacity, capacity), 0.0)
        self.capacity = capacity
        self.per_second = per_second


class ScalingRate:
    """Each function may start ``environments`` environments at once, and as many again in every ``seconds``. None of them: no limit."""

    def __init__(self, environments: int, seconds: float) -> None:
        self._environments = environments
        self._per_second = environments / seconds if seconds > 0 else 0.0
        self._buckets: dict[FunctionArn, TokenBucket] = {}

    def take(self, function: FunctionArn, at: float) -> bool:
        """Whether another environment may be started for ``function`` now."""
        if self._environments <= 0:
            return True
        bucket = self._buckets.get(function)
        if bucket is None:
            self._forget(at)
            bucket = self._buckets[function] = TokenBucket(self._environments, self._per_second, at)
        return bucket.take(at)

    def _forget(self, at: float) -> None:
        """A full bucket says nothing that a new one does not."""
        if len(self._buckets) >= SWEEP:
            self._buckets = {function: bucket for function, bucket in self._buckets.items() if not bucket.full(at)}

"""Who may run now: exact concurrency accounting behind an interface that one node and many share.

In flight means accepted and not yet answered, initialisation included (contract 02 §6). A synchronous invocation has no queue: it
gets a permit or a 429 with the reason. On one node the *assigner* is this module's ``LocalAssigner``; in a cluster it is the node
that rendezvous hashing names for the function, asked over the network, which is why ``acquire`` is a coroutine. The local one never
suspends.

Limits are asked for in AWS's order: the function's own (reserved concurrency, set by the control plane through ``reserve``) is both
floor and ceiling, and what is reserved is taken from what the others share.
"""

from __future__ import annotations

from typing import Protocol

from lambent.arn import FunctionArn
from lambent.errors import throttled
from lambent.function_version import FunctionVersion


class Permit(Protocol):
    """The right to one invocation in flight."""

    def release(self) -> None:
        """Give it back. Calls after the first do nothing."""
        ...


class Assigner(Protocol):
    """Gives out permits, exactly as many as the limits allow."""

    async def acquire(self, version: FunctionVersion) -> Permit:
        """A permit, or ``ClientFault`` 429 ``TooManyRequestsException`` with its ``Reason`` (contract 02 §2.2)."""
        ...


class LocalPermit:
    """A permit of ``LocalAssigner``. ``owner`` is the count that it was drawn from."""

    __slots__ = ("_assigner", "_owner")

    def __init__(self, assigner: LocalAssigner, owner: Share) -> None:
        self._assigner: LocalAssigner | None = assigner
        self._owner = owner

    def release(self) -> None:
        assigner, self._assigner = self._assigner, None
        if assigner is not None:
            self._owner.in_flight -= 1
            assigner.in_flight -= 1


class Share:
    """A count and its ceiling: the account's unreserved pool, or one function's reservation."""

    __slots__ = ("in_flight", "limit", "reason")

    def __init__(self, limit: int, reason: str) -> None:
        self.limit = limit
        self.reason = reason
        self.in_flight = 0


class LocalAssigner:
    """The assigner of a single node. ``limit`` is the account's concurrency (``settings.limits.concurrent_executions``)."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0
        self._unreserved = Share(limit, "ConcurrentInvocationLimitExceeded")
        self._reserved: dict[FunctionArn, Share] = {}

    async def acquire(self, version: FunctionVersion) -> Permit:
        share = self._reserved.get(version.arn, self._unreserved) if self._reserved else self._unreserved
        if share.in_flight >= share.limit:
            raise throttled(share.reason)
        share.in_flight += 1
        self.in_flight += 1
        return LocalPermit(self, share)

    def reserve(self, arn: FunctionArn, limit: int | None) -> None:
        """Set a function's reserved concurrency, or take it away with ``None``. ``arn`` is unqualified.

        Invocations in flight stay counted where they began, so a change never frees or takes a permit twice.
        """
        self._reserved.pop(arn, None)
        if limit is not None:
            self._reserved[arn] = Share(limit, "ReservedFunctionConcurrentInvocationLimitExceeded")
        self._unreserved.limit = self.limit - sum(share.limit for share in self._reserved.values())

"""Who may run now: exact concurrency accounting behind an interface that one node and many share.

In flight means accepted and not yet answered, initialisation included (contract 02 §6). A synchronous invocation has no queue: it
gets a permit or a 429 with the reason. On one node the *assigner* is this module's ``LocalAssigner``; in a cluster it is the node
that rendezvous hashing names for the function, asked over the network, which is why ``acquire`` is a coroutine. The local one never
suspends.

**Shares.** An account's concurrency in a Region is cut into shares, and a permit is drawn from exactly one:

    1,000 ── unreserved          what nobody claimed; for every function without a claim of its own
          ├─ reserved, per function          floor and ceiling of all its versions together
          │    └─ provisioned, per version   cut out of the reserved share, which is what its other invocations have left
          └─ provisioned, per version        of a function without reserved concurrency: cut out of the unreserved share

An invocation of a version with provisioned concurrency draws from that first and spills over into the share around it. Since the limits
of all shares add up to the account's, counting each share is counting the account.

**Changes.** When claims change, the permits in flight move to the shares that they would be drawn from now. So a function that is
given a reservation while three of its invocations run has three of it taken; one that runs more than it is newly allowed gets nothing
until it has come down; and until then the unreserved share pays for the difference, so that neither the account's limit is passed nor
anybody's reserved floor touched.

**Ceilings.** A version on a capacity provider may have a greatest number of environments (its scaling configuration). As an environment
takes one invocation at a time here, that is its greatest number of invocations at once; one more is refused whatever its share would allow.

**Rates.** Every share also allows ``per_concurrency`` times its limit in requests a second (contract 01 §8); asynchronous invocations are
exempt, as on AWS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from lambent.arn import FunctionArn
from lambent.clock import Clock
from lambent.errors import throttled
from lambent.function_version import FunctionVersion
from lambent.invoke.scaling_rate import TokenBucket


class Permit(Protocol):
    """The right to one invocation in flight. ``rate_reason`` is the ``Reason`` of a refusal if its function grows too fast."""

    @property
    def rate_reason(self) -> str: ...

    def release(self) -> None:
        """Give it back. Calls after the first do nothing."""
        ...


class Assigner(Protocol):
    """Gives out permits, exactly as many as the limits allow."""

    async def acquire(self, version: FunctionVersion, rated: bool = True) -> Permit:
        """A permit, or ``ClientFault`` 429 ``TooManyRequestsException`` with its ``Reason`` (contract 02 §2.2).

        Without ``rated`` only the concurrency counts, not the requests a second.
        """
        ...


class LocalPermit:
    """A permit of ``LocalAssigner``. ``share`` is the count that it was drawn from."""

    __slots__ = ("_scope", "share", "version")

    def __init__(self, scope: Scope, share: Share, version: FunctionVersion) -> None:
        self._scope: Scope | None = scope
        self.share = share
        self.version = version

    @property
    def rate_reason(self) -> str:
        return self.share.rate_reason

    def release(self) -> None:
        scope, self._scope = self._scope, None
        if scope is not None:
            self.share.in_flight -= 1
            scope.in_flight -= 1
            scope.outstanding.discard(self)


class Share:
    """A count and its ceiling, and what is said to those who come too many or too fast."""

    __slots__ = ("bucket", "in_flight", "limit", "rate_reason", "reason")

    def __init__(self, limit: int, whose: str, bucket: TokenBucket | None) -> None:
        self.limit = limit
        self.reason = f"{whose}ConcurrentInvocationLimitExceeded"
        self.rate_reason = f"{whose or 'Function'}InvocationRateLimitExceeded"
        self.in_flight = 0
        self.bucket = bucket


@dataclass(slots=True)
class Claim:
    """What one function has been promised: ``reserved`` for all of it, ``provisioned`` by version; and the ``ceilings`` of versions."""

    reserved: int | None = None
    provisioned: Mapping[str, int] = field(default_factory=dict)
    ceilings: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """What it takes from the others."""
        return sum(self.provisioned.values()) if self.reserved is None else self.reserved


@dataclass(slots=True)
class Own:
    """The shares of a function with a claim. ``base`` is the unreserved one where nothing is reserved."""

    claim: Claim
    base: Share
    provisioned: dict[str, Share]

    def place(self, version: str) -> Share:
        share = self.provisioned.get(version)
        return self.base if share is None or share.in_flight >= share.limit else share

    def at_ceiling(self, version: FunctionVersion, outstanding: Iterable[LocalPermit]) -> bool:
        """As many of this version run as may."""
        ceiling = self.claim.ceilings.get(version.version)
        if ceiling is None:
            return False
        name = version.arn.name
        return sum(permit.version.version == version.version and permit.version.arn.name == name for permit in outstanding) >= ceiling

    def full(self) -> bool:
        """All that is reserved runs: the shares alone could let more in while one has more than its limit, after a change."""
        reserved = self.claim.reserved
        if reserved is None or not self.provisioned:
            return False
        return self.base.in_flight + sum(share.in_flight for share in self.provisioned.values()) >= reserved


class Scope:
    """One account in one Region."""

    __slots__ = ("in_flight", "limit", "outstanding", "owns", "unreserved")

    def __init__(self, limit: int, bucket: TokenBucket | None) -> None:
        self.limit = limit
        self.in_flight = 0
        self.unreserved = Share(limit, "", bucket)
        self.owns: dict[str, Own] = {}
        self.outstanding: set[LocalPermit] = set()


class LocalAssigner:
    """The assigner of a single node.

    ``limit`` is the concurrency of each account in each Region (``limits.concurrent_executions``). Without a clock, or with
    ``per_concurrency`` 0, there is no limit to requests a second.
    """

    def __init__(self, limit: int, clock: Clock | None = None, per_concurrency: int = 0) -> None:
        self.limit = limit
        self._clock = clock
        self._per_concurrency = per_concurrency
        self._scopes: dict[tuple[str, str], Scope] = {}

    @property
    def in_flight(self) -> int:
        """Of all accounts."""
        return sum(scope.in_flight for scope in self._scopes.values())

    async def acquire(self, version: FunctionVersion, rated: bool = True) -> Permit:
        arn = version.arn
        scope = self._scopes.get((arn.account, arn.region))
        if scope is None:
            scope = self._open(arn)
        share = scope.unreserved
        if scope.owns and (own := scope.owns.get(arn.name)) is not None:
            share = own.place(version.version)
            if own.full():
                raise throttled(own.base.reason)
            if own.at_ceiling(version, scope.outstanding):
                raise throttled(scope.unreserved.reason)
        if share.in_flight >= share.limit or (scope.in_flight >= scope.limit and share is scope.unreserved):
            raise throttled(share.reason)
        if rated and share.bucket is not None and self._clock is not None and not share.bucket.take(self._clock.monotonic()):
            raise throttled(share.rate_reason)
        share.in_flight += 1
        scope.in_flight += 1
        permit = LocalPermit(scope, share, version)
        scope.outstanding.add(permit)
        return permit

    def claim(
        self, arn: FunctionArn, reserved: int | None, provisioned: Mapping[str, int], ceilings: Mapping[str, int] | None = None
    ) -> None:
        """Set what a function has been promised; ``None`` and nothing else end it. ``arn`` is unqualified."""
        scope = self._scopes.get((arn.account, arn.region)) or self._open(arn)
        claim = Claim(reserved, {version: count for version, count in provisioned.items() if count > 0}, dict(ceilings or {}))
        before = scope.owns.pop(arn.name, None)
        if reserved is not None or claim.provisioned or claim.ceilings:
            scope.owns[arn.name] = self._cut(scope, claim, before)
        self._resize(scope.unreserved, max(scope.limit - sum(own.claim.total for own in scope.owns.values()), 0))
        _move(scope, scope.owns.get(arn.name), [permit for permit in scope.outstanding if permit.version.arn.name == arn.name])

    def reserve(self, arn: FunctionArn, limit: int | None) -> None:
        """Set a function's reserved concurrency, or take it away with ``None``; what is provisioned stays."""
        claim = own.claim if (own := self._own(arn)) is not None else Claim()
        self.claim(arn, limit, claim.provisioned, claim.ceilings)

    def reserved(self, arn: FunctionArn) -> int | None:
        """The function's reserved concurrency, if it has any."""
        own = self._own(arn)
        return own.claim.reserved if own is not None else None

    def _own(self, arn: FunctionArn) -> Own | None:
        scope = self._scopes.get((arn.account, arn.region))
        return scope.owns.get(arn.name) if scope is not None else None

    def _open(self, arn: FunctionArn) -> Scope:
        scope = self._scopes[arn.account, arn.region] = Scope(self.limit, self._bucket(self.limit))
        return scope

    def _cut(self, scope: Scope, claim: Claim, before: Own | None) -> Own:
        """New shares for a claim. A rate goes on where there was one, or everybody could buy a full bucket with a change."""
        base = scope.unreserved
        if claim.reserved is not None:
            limit = max(claim.reserved - sum(claim.provisioned.values()), 0)
            had = before is not None and before.claim.reserved is not None
            base = Share(limit, "ReservedFunction", before.base.bucket if before is not None and had else self._bucket(limit))
            self._resize(base, limit)
        whose = "" if claim.reserved is None else "ReservedFunction"
        provisioned = {version: Share(count, whose, None) for version, count in claim.provisioned.items()}
        return Own(claim, base, provisioned)

    def _bucket(self, limit: int) -> TokenBucket | None:
        if self._clock is None or self._per_concurrency <= 0:
            return None
        rate = limit * self._per_concurrency
        return TokenBucket(rate, rate, self._clock.monotonic())

    def _resize(self, share: Share, limit: int) -> None:
        share.limit = limit
        if share.bucket is not None:
            share.bucket.resize(limit * self._per_concurrency, limit * self._per_concurrency)


def _move(scope: Scope, own: Own | None, permits: Iterable[LocalPermit]) -> None:
    """Charge permits in flight to the shares that they would be drawn from now."""
    for permit in permits:
        permit.share.in_flight -= 1
        permit.share = scope.unreserved if own is None else own.place(permit.version.version)
        permit.share.in_flight += 1

"""Permits: what is promised is given, and no more, however claims change meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lambent.arn import FunctionArn
from lambent.errors import ClientFault
from lambent.function_version import FunctionVersion
from lambent.invoke.admission import LocalAssigner, Permit
from lambent.invoke.scaling_rate import ScalingRate, TokenBucket
from lambent.testing.clock import ManualClock

RESERVED = "ReservedFunctionConcurrentInvocationLimitExceeded"
UNRESERVED = "ConcurrentInvocationLimitExceeded"


def version(name: str, number: str = "$LATEST", account: str = "000000000000") -> FunctionVersion:
    return FunctionVersion(FunctionArn("us-east-1", account, name), number, "python3.12", "h", "ab", "/code")


def now(work: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine that never suspends gives."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it suspended")


def refused(assigner: LocalAssigner, asked: FunctionVersion) -> str:
    with pytest.raises(ClientFault) as caught:
        now(assigner.acquire(asked))
    assert (caught.value.status, caught.value.message) == (429, "Rate Exceeded.")
    return str(caught.value.extra["Reason"])


class TestShares:
    def test_reserved_is_floor_and_ceiling(self) -> None:
        assigner = LocalAssigner(5)
        assigner.reserve(version("f").arn, 2)
        for _ in range(3):
            now(assigner.acquire(version("g")))
        assert refused(assigner, version("g")) == UNRESERVED
        for _ in range(2):
            now(assigner.acquire(version("f", "1")))
        assert refused(assigner, version("f")) == RESERVED

    def test_accounts_and_regions_have_their_own(self) -> None:
        assigner = LocalAssigner(1)
        now(assigner.acquire(version("f")))
        now(assigner.acquire(version("f", account="111111111111")))
        assert refused(assigner, version("g")) == UNRESERVED
        assert assigner.in_flight == 2

    def test_provisioned_first_then_what_is_around_it(self) -> None:
        assigner = LocalAssigner(10)
        assigner.claim(version("f").arn, 3, {"1": 2})
        permits = [now(assigner.acquire(version("f", "1"))) for _ in range(3)]
        assert refused(assigner, version("f", "1")) == RESERVED
        assert refused(assigner, version("f", "2")) == RESERVED
        permits[0].release()
        assert refused(assigner, version("f", "2")) == RESERVED  # that one is kept for version 1
        now(assigner.acquire(version("f", "1")))

    def test_provisioned_without_reserved_is_taken_from_all(self) -> None:
        assigner = LocalAssigner(3)
        assigner.claim(version("f").arn, None, {"1": 2})
        now(assigner.acquire(version("g")))
        assert refused(assigner, version("g")) == UNRESERVED
        for _ in range(2):
            now(assigner.acquire(version("f", "1")))
        assert refused(assigner, version("f", "1")) == UNRESERVED

    def test_a_version_has_its_own_ceiling(self) -> None:
        assigner = LocalAssigner(10)
        assigner.claim(version("f").arn, None, {}, {"1": 2})
        permits = [now(assigner.acquire(version("f", "1"))) for _ in range(2)]
        assert refused(assigner, version("f", "1")) == UNRESERVED
        now(assigner.acquire(version("f", "2")))
        now(assigner.acquire(version("g", "1")))
        assigner.reserve(version("f").arn, 5)  # which leaves the ceiling alone
        assert refused(assigner, version("f", "1")) == UNRESERVED
        permits.pop().release()
        now(assigner.acquire(version("f", "1")))
        assert refused(assigner, version("f", "1")) == UNRESERVED
        assigner.claim(version("f").arn, None, {})
        now(assigner.acquire(version("f", "1")))

    def test_what_runs_already_counts_for_a_new_reservation(self) -> None:
        assigner = LocalAssigner(10)
        permits = [now(assigner.acquire(version("f"))) for _ in range(3)]
        assigner.reserve(version("f").arn, 2)
        assert refused(assigner, version("f")) == RESERVED
        permits.pop().release()
        assert refused(assigner, version("f")) == RESERVED
        permits.pop().release()
        permits.append(now(assigner.acquire(version("f"))))
        assigner.reserve(version("f").arn, 3)
        permits.append(now(assigner.acquire(version("f"))))
        assert refused(assigner, version("f")) == RESERVED
        assigner.reserve(version("f").arn, None)
        permits.append(now(assigner.acquire(version("f"))))
        for permit in permits:
            permit.release()
            permit.release()
        assert assigner.in_flight == 0

    def test_requests_a_second(self) -> None:
        clock = ManualClock()
        assigner = LocalAssigner(100, clock, 10)
        assigner.reserve(version("f").arn, 1)
        for _ in range(10):
            now(assigner.acquire(version("f"))).release()
        assert refused(assigner, version("f")) == "ReservedFunctionInvocationRateLimitExceeded"
        now(assigner.acquire(version("f"), rated=False)).release()
        clock.advance(0.1)
        now(assigner.acquire(version("f"))).release()
        assert refused(assigner, version("f")) == "ReservedFunctionInvocationRateLimitExceeded"
        for _ in range(990):
            now(assigner.acquire(version("g"))).release()
        assert refused(assigner, version("g")) == "FunctionInvocationRateLimitExceeded"


class TestRates:
    def test_a_bucket_saves_nothing_up(self) -> None:
        bucket = TokenBucket(2, 1.0, 0.0)
        assert [bucket.take(1_000.0) for _ in range(3)] == [True, True, False]
        assert [bucket.take(1_001.5) for _ in range(2)] == [True, False]
        assert bucket.take(1_002.0)

    def test_each_function_has_its_own(self) -> None:
        rate = ScalingRate(2, 10.0)
        f, g = version("f").arn, version("g").arn
        assert [rate.take(f, 0.0) for _ in range(3)] == [True, True, False]
        assert rate.take(g, 0.0)
        assert [rate.take(f, 5.0) for _ in range(2)] == [True, False]
        assert all(ScalingRate(0, 10.0).take(f, 0.0) for _ in range(100))


LIMIT = 8
NAMES = st.sampled_from("fgh")
NUMBERS = st.sampled_from(["$LATEST", "1", "2"])


class Permits(RuleBasedStateMachine):
    """Books of our own beside the assigner's."""

    @initialize()
    def begin(self) -> None:
        self.assigner = LocalAssigner(LIMIT)
        self.running: list[tuple[str, str, Permit]] = []
        self.reserved: dict[str, int] = {}
        self.provisioned: dict[str, dict[str, int]] = {}
        self.excess: dict[str, int] = {}  # what a function may run beyond its reservation, from before the reservation
        self.foreign = 0  # what may run beyond the account's limit, for the same reason

    def of(self, name: str) -> int:
        return sum(each == name for each, _, _ in self.running)

    def claimed(self) -> int:
        return sum(self.reserved.get(name, sum(self.provisioned.get(name, {}).values())) for name in "fgh")

    @rule(name=NAMES, number=NUMBERS)
    def ask(self, name: str, number: str) -> None:
        inside = Counter(version for each, version, _ in self.running if each == name)
        provisioned = self.provisioned.get(name, {})
        reserved = self.reserved.get(name)
        try:
            permit = now(self.assigner.acquire(version(name, number)))
        except ClientFault as fault:
            reason = fault.extra["Reason"]
            assert reason == (UNRESERVED if reserved is None else RESERVED)
            full = reserved is not None and self.of(name) >= reserved
            assert full or inside[number] >= provisioned.get(number, 0), "fewer than were provisioned"
            if reserved is not None:
                kept = sum(max(count - inside[other], 0) for other, count in provisioned.items() if other != number)
                assert self.of(name) + kept >= reserved - sum(provisioned.values()), "refused though the share has room"
                assert provisioned or self.of(name) >= reserved, "fewer than were reserved"
            else:
                assert len(self.running) + self.claimed() >= LIMIT, "refused though nobody has claimed it"
            return
        self.running.append((name, number, permit))
        assert reserved is None or self.of(name) <= reserved + self.excess.get(name, 0), "more than were reserved"

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        name, _, permit = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        permit.release()
        self.excess[name] = min(self.excess.get(name, 0), max(self.of(name) - self.reserved.get(name, 0), 0))

    @rule(name=NAMES, reserved=st.none() | st.integers(0, 4), provisioned=st.dictionaries(st.sampled_from(["1", "2"]), st.integers(1, 2)))
    def claim(self, name: str, reserved: int | None, provisioned: dict[str, int]) -> None:
        total = sum(provisioned.values())
        if reserved is not None and reserved < total:
            reserved = total
        others = sum(self.reserved.get(n, sum(self.provisioned.get(n, {}).values())) for n in "fgh" if n != name)
        if others + (total if reserved is None else reserved) > LIMIT:
            return
        self.assigner.claim(version(name).arn, reserved, provisioned)
        self.provisioned[name] = provisioned
        self.reserved.pop(name, None)
        if reserved is not None:
            self.reserved[name] = reserved
            self.excess[name] = max(self.of(name) - reserved, 0)
        self.foreign = LIMIT  # from here on until all have come down

    @invariant()
    def counted(self) -> None:
        if not hasattr(self, "assigner"):
            return
        assert self.assigner.in_flight == len(self.running)
        if not self.running:
            self.foreign = 0
        if not self.foreign:
            assert len(self.running) <= LIMIT, "more than the account has"

    def teardown(self) -> None:
        if not hasattr(self, "assigner"):
            return
        for _, _, permit in self.running:
            permit.release()
        assert self.assigner.in_flight == 0
        # And nothing has leaked: the whole account can be used again.
        for name in "fgh":
            self.assigner.claim(version(name).arn, None, {})
        for _ in range(LIMIT):
            now(self.assigner.acquire(version("f")))
        assert refused(self.assigner, version("f")) == UNRESERVED


TestPermits = Permits.TestCase
TestPermits.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)

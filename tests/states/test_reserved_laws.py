"""Reserved concurrency over real pools and environments that crash, time out, lie and are replaced.

The world is that of ``test_invoke_machine.py``, with all its rules. Here invocations get in by a permit of the real assigner, as at the
front door, and give it back with their answer. Further laws, after every step:

* no more invocations run than are reserved, whatever generation of the function they run in, but for what ran when more was reserved;
* nobody is refused while fewer run, so that nothing that happens to an environment costs a permit;
* one other function always gets what nobody has reserved.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule
from test_invoke_machine import BUSY, PERMITS, Job, Laws

from lambent.arn import FunctionArn
from lambent.errors import ClientFault
from lambent.function_version import FunctionVersion
from lambent.invoke import pool_events as pe
from lambent.invoke.admission import LocalAssigner, Permit

ACCOUNT = PERMITS + 2


def function(name: str) -> FunctionVersion:
    return FunctionVersion(FunctionArn("us-east-1", "000000000000", name), "$LATEST", "python3.12", "h", "ab", "/code")


def at_once(work: Coroutine[Any, Any, Permit]) -> Permit:
    """What a coroutine that never suspends gives."""
    try:
        work.send(None)
    except StopIteration as done:
        permit: Permit = done.value
        return permit
    raise AssertionError("it suspended")


class ReservedLaws(Laws):
    @initialize()
    def begin(self) -> None:
        super().begin()
        self.assigner = LocalAssigner(ACCOUNT)
        self.reserved = 2
        self.most = 2  # what may run: more than is reserved only until those before a change have ended
        self.assigner.reserve(function("f").arn, self.reserved)
        self.permits: dict[str, Permit] = {}

    def answered(self, job: Job) -> None:
        super().answered(job)
        self.permits.pop(job.id).release()
        self.most = max(self.reserved, min(self.most, self.in_flight))

    def ask(self) -> tuple[Permit | None, str]:
        try:
            return at_once(self.assigner.acquire(function("f"))), ""
        except ClientFault as fault:
            return None, str(fault.extra["Reason"])

    @rule(count=st.integers(1, PERMITS + 1))
    def submit(self, count: int) -> None:
        for _ in range(count):
            job = Job(len(self.jobs))
            permit, reason = self.ask()
            if permit is None:
                assert reason == "ReservedFunctionConcurrentInvocationLimitExceeded"
                assert self.in_flight >= self.reserved, "refused though fewer run than are reserved"
                continue
            assert self.in_flight < self.reserved, "let in though all that is reserved runs"
            self.permits[job.id] = permit
            self.jobs.append(job)
            self.in_flight += 1
            world = self.open_world()
            load = sum(env.job is not None for env in world.envs.values()) + len(world.pool.waiting) + 1
            world.peak = max(world.peak, load)
            world.tell(pe.Submit(job))

    @rule(reserved=st.integers(0, PERMITS))
    def another_reservation(self, reserved: int) -> None:
        self.reserved = reserved
        self.most = max(reserved, self.in_flight)
        self.assigner.reserve(function("f").arn, reserved)

    @invariant()
    def never_more_than_are_reserved(self) -> None:
        running = sum(env.machine.state in BUSY for world in self.worlds for env in world.envs.values())
        assert running <= self.in_flight <= self.most
        assert len(self.permits) == self.in_flight

    @invariant()
    def others_get_what_is_theirs(self) -> None:
        theirs = [at_once(self.assigner.acquire(function("g"))) for _ in range(ACCOUNT - max(self.reserved, self.most))]
        for permit in theirs:
            permit.release()

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "assigner"):
            assert self.permits == {}
            assert self.assigner.in_flight == 0


TestReservedLaws = ReservedLaws.TestCase
TestReservedLaws.settings = settings(max_examples=120, stateful_step_count=60, deadline=None)

"""The pool machine, transcript by transcript."""

from __future__ import annotations

import pytest

from lambent.errors import IllegalTransition, PlatformFault, SandboxFault
from lambent.invoke.pool_state import (
    RETIRE,
    Abort,
    Begin,
    Drain,
    Ended,
    Fail,
    Free,
    FreeBroken,
    FreezeSlot,
    PoolMachine,
    Resubmit,
    Start,
    Stop,
    Submit,
    Tick,
)
from lambent.testing.playbook import In, Playbook, like, nothing


def fresh() -> Playbook[PoolMachine]:
    return Playbook(PoolMachine("f:$LATEST"))


def with_idle(*since: float) -> Playbook[PoolMachine]:
    """Environments 1, 2, ... idle since then."""
    book = fresh()
    for number in range(1, len(since) + 1):
        book >> Submit(f"j{number}") << Start(number, f"j{number}")
    for number in range(1, len(since) + 1):
        book >> Free(number, 0.0) << Begin(number, f"j{number}")
    for number, at in enumerate(since, 1):
        book >> Free(number, at) << nothing
    return book


def tick(at: float) -> Tick:
    return Tick(at, freeze_after=0.05, idle_after=600.0)


class TestLeasing:
    def test_the_first_job_starts_an_environment_and_the_second_reuses_it(self):
        (
            fresh()
            >> Submit("a")
            << Start(1, "a")
            >> Free(1, 0.1)
            << Begin(1, "a")
            >> Free(1, 0.2)
            << nothing
            >> Submit("b")
            << Begin(1, "b")
        ).end()

    def test_newest_idle_first(self):
        (with_idle(1.0, 2.0, 3.0) >> Submit("x") << Begin(3, "x") >> Submit("y") << Begin(2, "y") >> Submit("z") << Begin(1, "z")).end()

    def test_whichever_is_free_first_takes_the_oldest_job(self):
        book = with_idle(1.0) >> Submit("a") << Begin(1, "a") >> Submit("b") << Start(2, "b")
        book >> Free(1, 2.0) << Begin(1, "b")  # the one that ended beats the cold start
        book >> Submit("c") << nothing  # and the start under way is counted on
        book >> Submit("d") << Start(3, "d")
        (book >> Free(2, 3.0) << Begin(2, "c") >> Free(3, 3.0) << Begin(3, "d")).end()

    def test_a_broken_environment_takes_one_job_or_goes(self):
        (fresh() >> Submit("a") << Start(1, "a") >> FreeBroken(1) << Begin(1, "a") >> Ended(1) << nothing).end()
        book = with_idle(1.0) >> Submit("a") << Begin(1, "a") >> Submit("b") << Start(2, "b") >> Free(1, 2.0) << Begin(1, "b")
        (book >> FreeBroken(2) << like(Stop, slot=2) >> Ended(2) << nothing).end()

    def test_a_start_that_fails_fails_the_job_that_waited_longest(self):
        fault = SandboxFault("no")
        book = fresh() >> Submit("a") << Start(1, "a") >> Submit("b") << Start(2, "b")
        (book >> Ended(2, fault) << Fail("a", fault) >> Free(1, 1.0) << Begin(1, "b")).end()

    def test_a_spare_start_that_fails_fails_nobody(self):
        book = with_idle(1.0) >> Submit("a") << Begin(1, "a") >> Submit("b") << Start(2, "b") >> Free(1, 2.0) << Begin(1, "b")
        (book >> Ended(2, SandboxFault("no")) << nothing).end()

    def test_a_job_that_came_back_goes_first(self):
        book = with_idle(1.0) >> Submit("a") << Begin(1, "a") >> Submit("b") << Start(2, "b") >> Resubmit("a") << Start(3, "a")
        (book >> Ended(1) << nothing >> Free(2, 2.0) << Begin(2, "a") >> Free(3, 2.0) << Begin(3, "b")).end()

    def test_a_job_that_came_back_takes_an_idle_environment(self):
        (with_idle(1.0, 2.0) >> Submit("a") << Begin(2, "a") >> Resubmit("a") << Begin(1, "a")).end()


class TestIdling:
    def test_only_what_was_idle_for_long_is_frozen_and_once(self):
        book = with_idle(1.0, 1.02, 1.04) >> tick(1.075) << FreezeSlot(1) << FreezeSlot(2)
        (book >> tick(1.1) << FreezeSlot(3) >> tick(1.2) << nothing).end()

    def test_the_count_of_the_frozen_follows_leases_and_deaths(self):
        book = with_idle(1.0, 1.01, 1.02) >> tick(2.0) << FreezeSlot << FreezeSlot << FreezeSlot
        book >> Submit("a") << Begin(3, "a") >> Ended(1) << nothing
        assert (book.machine.frozen, book.machine.unfrozen) == (1, 0)
        book >> Free(3, 3.0) << nothing
        assert book.machine.unfrozen == 1
        (book >> tick(3.1) << FreezeSlot(3)).end()

    def test_the_oldest_are_reaped(self):
        book = with_idle(1.0, 300.0) >> tick(400.0) << FreezeSlot(1) << FreezeSlot(2) >> tick(601.0) << like(Stop, slot=1)
        assert book.machine.frozen == 1
        (
            book >> Ended(1) << nothing >> tick(900.0) << like(Stop, slot=2) >> Ended(2) << nothing >> tick(901.0) << RETIRE << In("closed")
        ).end()

    def test_a_pool_that_starts_something_is_not_retired(self):
        (fresh() >> Submit("a") << Start(1, "a") >> tick(1_000.0) << nothing << In("open")).end()


class TestDraining:
    def test_idle_ones_stop_busy_ones_finish_and_then_it_is_gone(self):
        book = with_idle(1.0, 2.0) >> Submit("a") << Begin(2, "a") >> Drain("new code") << Stop(1, "new code") << In("draining")
        (book >> Ended(1) << nothing >> Free(2, 3.0) << Stop(2, "new code") >> Ended(2) << RETIRE << In("closed")).end()

    def test_an_empty_pool_is_gone_at_once(self):
        (fresh() >> Drain("new code") << RETIRE << In("closed") >> tick(1.0) << nothing >> Drain("again") << nothing).end()

    def test_what_was_accepted_runs(self):
        book = fresh() >> Submit("a") << Start(1, "a") >> Submit("b") << Start(2, "b") >> Drain("new code") << nothing
        book >> Free(1, 1.0) << Begin(1, "a") >> Ended(2, SandboxFault("no")) << Fail << nothing
        (book >> Free(1, 2.0) << Stop(1, "new code") >> Ended(1) << RETIRE).end()

    def test_even_if_it_came_back(self):
        book = with_idle(1.0) >> Submit("a") << Begin(1, "a") >> Drain("new code") << nothing >> Resubmit("a") << Start(2, "a")
        (book >> Ended(1) << nothing >> Free(2, 2.0) << Begin(2, "a") >> Free(2, 3.0) << Stop(2, "new code") >> Ended(2) << RETIRE).end()

    def test_nothing_new_comes_in(self):
        machine = (with_idle(1.0) >> Submit("a") << Begin >> Drain("new code")).end()
        with pytest.raises(IllegalTransition, match="from draining on Submit") as caught:
            machine.handle(Submit("b"))
        assert "open: Drain" in caught.value.story

    def test_abort_stops_everything_and_fails_whoever_waits(self):
        fault = PlatformFault("shutting down")
        book = with_idle(1.0, 2.0) >> Submit("a") << Begin(2, "a") >> Submit("b") << Begin(1, "b") >> Submit("c") << Start(3, "c")
        book >> Abort(fault) << Fail("c", fault) << like(Stop, slot=1) << like(Stop, slot=2) << like(Stop, slot=3)
        (book >> Ended(3) << nothing >> Ended(1) << nothing >> Ended(2) << RETIRE << In("closed")).end()


class TestTables:
    def test_an_unknown_slot_is_refused(self):
        with pytest.raises(IllegalTransition, match="slot 7 gone"):
            PoolMachine("f").handle(Free(7, 0.0))

    def test_an_idle_environment_cannot_become_free(self):
        machine = with_idle(1.0).machine
        with pytest.raises(IllegalTransition, match="slot 1 idle on Free"):
            machine.handle(Free(1, 2.0))

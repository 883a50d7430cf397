"""The poller's machine, as transcripts: reading, batching, slots, throttles, order, draining."""

from __future__ import annotations

import pytest

from lambent.errors import IllegalTransition
from lambent.sources.mapping import queue_plan
from lambent.sources.poller_state import HOLD_MOST, PollerMachine
from lambent.sources.poller_words import (
    Acknowledge,
    CancelWait,
    Change,
    Failed,
    GiveBack,
    Invoke,
    Prolong,
    Rang,
    Refused,
    SourceFailed,
    Start,
    Stop,
    Stopped,
    Succeeded,
    Take,
    Tell,
    Tick,
    Took,
    Wait,
    Wake,
)
from lambent.sources.record import Plan, Record, concurrency
from lambent.testing.playbook import In, Playbook, like, nothing


def records(*names, size=10, group="", wanted=True):
    return [Record(name, name, b"x" * size, group, wanted=wanted) for name in names]


def ids(*names):
    return lambda found: [record.id for record in found] == list(names)


def invoke(batch, *names, attempt=1):
    return like(Invoke, batch=batch, records=ids(*names), attempt=attempt)


def wake_near(at):
    return lambda instruction: isinstance(instruction, Wake) and instruction.at == pytest.approx(at, abs=1e-3)


def polling(plan):
    return Playbook(PollerMachine(plan)) >> Start(0) << like(Take)


def waiting(plan):
    return polling(plan) >> Took([], 30, 0) << Wait()


def test_an_idle_mapping_waits_without_a_timer():
    (
        Playbook(PollerMachine(Plan())) << In("stopped") >> Start(0) << Take(50) >> Took([], 30, 0) << Wait() << nothing
        >> Rang(100) << Take(50) << In("polling")
    ).end()  # fmt: skip


def test_a_short_take_runs_at_once_and_is_followed_by_a_wait():
    (
        polling(Plan()) >> Took(records("a", "b"), 30, 0) << invoke(1, "a", "b") << Wait()
        >> Succeeded(1, frozenset(), 1) << like(Acknowledge, records=ids("a", "b")) << nothing
    ).end()  # fmt: skip


def test_a_full_take_is_cut_and_followed_by_another():
    (
        polling(Plan(batch_size=2, start=3)) >> Took(records(*"abcdef"), 30, 0)
        << invoke(1, "a", "b") << invoke(2, "c", "d") << invoke(3, "e", "f") << wake_near(0.2)
        >> Succeeded(2, frozenset(), 0.1) << like(Acknowledge, records=ids("c", "d")) << Take(2) << Wake(None)
    ).end()  # fmt: skip


def test_slots_grow_while_all_are_in_use_and_fall_while_there_is_nothing():
    book = polling(Plan(batch_size=1, start=1, most=2)) >> Took(records("a"), 30, 0) << invoke(1, "a") << wake_near(0.2)
    book >> Tick(0.2001) << Take(1) >> Took(records("b"), 30, 0.21) << invoke(2, "b") << nothing
    book >> Tick(100) << nothing  # the cap: whatever else there is stays in the source
    assert book.machine.slots == 2
    book >> Succeeded(1, frozenset(), 100) << like(Acknowledge) << Take(1) >> Took([], 30, 100) << Wait()
    book >> Succeeded(2, frozenset(), 100) << like(Acknowledge) >> Rang(200) << Take(1)
    assert book.machine.slots == 1


def test_a_window_gathers_until_it_is_over_or_the_batch_is_full():
    book = polling(Plan(batch_size=3, window=5)) >> Took(records("a"), 300, 0) << Wait() << Wake(5)
    book >> Rang(1) << Take(14) >> Took(records("b", "c", "d"), 300, 1) << invoke(1, "a", "b", "c") << Wait() << Wake(6)
    book >> Tick(6) << invoke(2, "d") << nothing
    book.end()


def test_a_batch_is_cut_before_it_is_too_large_and_a_record_that_never_fits_is_dropped():
    taken = [*records("a", "b", size=40), *records("big", size=101), *records("c", size=40)]
    (
        polling(Plan(payload_limit=100)) >> Took(taken, 30, 0)
        << like(Acknowledge, records=ids("big")) << Tell("oversized", "big")
        << invoke(1, "a", "b") << invoke(2, "c") << Wait()
    ).end()  # fmt: skip


def test_what_filters_drop_is_acknowledged_and_does_not_count_to_the_batch():
    (
        polling(Plan(batch_size=2)) >> Took([*records("a"), *records("x", wanted=False), *records("b")], 30, 0)
        << like(Acknowledge, records=ids("x")) << Tell("filtered", "1 of 3") << invoke(1, "a", "b") << Wait()
    ).end()  # fmt: skip


def test_a_failed_batch_is_left_to_the_source_and_a_named_record_too():
    book = polling(Plan()) >> Took(records("a", "b"), 30, 0) << invoke(1, "a", "b") << Wait()
    book >> Failed(1, 1) << Tell("failed", "batch 1") << nothing
    book >> Rang(31) << like(Take) >> Took(records("a", "b"), 30, 31) << invoke(2, "a", "b") << Wait()
    book >> Succeeded(2, frozenset({"a"}), 32) << like(Acknowledge, records=ids("b")) << Tell("partly failed", "batch 2: 1 of 2")
    book.end()


def test_a_source_that_does_not_redeliver_has_its_failed_batch_held_and_tried_again():
    book = polling(Plan(redelivers=False)) >> Took(records("a"), 0, 0) << invoke(1, "a") << Wait()
    book >> Failed(1, 1) << like(Tell, event="failed") << like(Tell, event="held") << wake_near(1.1)
    book >> Tick(1.1) << invoke(1, "a", attempt=2) << nothing
    book >> Succeeded(1, frozenset(), 2) << like(Acknowledge)


def test_a_throttled_batch_is_held_and_kept_invisible_and_nothing_else_is_taken():
    book = polling(Plan(batch_size=1, start=2)) >> Took(records("a", "b"), 30, 0) << invoke(1, "a") << invoke(2, "b") << like(Wake)
    book >> Refused(1, 0.1) << Tell("held", "batch 1") << wake_near(0.25) << nothing
    assert book.machine.slots == pytest.approx(1.25)
    book >> Tick(0.2501) << invoke(1, "a", attempt=2) << like(Wake)
    book >> Refused(1, 1.2) << wake_near(1.4) << nothing
    book >> Succeeded(2, frozenset(), 1.3) << like(Acknowledge) << invoke(1, "a", attempt=3)  # there is room now
    book << Take(2) << Wake(None) >> Took([], 30, 1.3) << Wait()
    now = 1.3
    prolonged = 0
    for attempt in range(3, 12):
        book >> Refused(1, now) << like(Wake)
        while True:
            now = book.machine._wake
            told = book.machine.handle(Tick(now))
            prolonged += sum(isinstance(each, Prolong) for each in told)
            if any(isinstance(each, Invoke) for each in told):
                break
        assert attempt + 1 == book.machine.batches[1].attempt
    assert now > 30
    assert prolonged >= 1


def test_a_batch_is_not_held_for_ever():
    book = polling(Plan(start=1)) >> Took(records("a"), 0, 0) << invoke(1, "a") << like(Wake)
    book >> Refused(1, 0) << like(Tell) << like(Wake)
    book >> Tick(HOLD_MOST + 1) << invoke(1, "a", attempt=2) << like(Wake)
    book >> Refused(1, HOLD_MOST + 1) << like(Tell, event="given up") << Wait() << Wake(None)


def test_what_could_not_be_kept_is_forgotten_since_it_comes_again():
    book = polling(Plan(batch_size=1, start=1, most=1)) >> Took(records("a", "b"), 30, 0) << invoke(1, "a") << like(Wake)
    book >> Refused(1, 1) << like(Tell, event="held") << wake_near(1.1)
    book >> Tick(31) << like(Tell, event="lost") << like(Tell, event="lost") << Take(1)  # asleep for half a minute
    assert not book.machine.gathered
    assert not book.machine.batches


def test_held_batches_run_as_far_as_there_are_slots():
    machine = (polling(Plan(batch_size=1, start=3)) >> Took(records("a", "b", "c"), 30, 0) << invoke(1, "a") << invoke(2, "b")).machine
    for number in (1, 2, 3):
        machine.handle(Refused(number, 0))
    assert (machine.slots, list(machine.held)) == (1, [1, 2, 3])
    book = Playbook(machine) >> Tick(0.1) << invoke(1, "a", attempt=2) << like(Wake)  # one at first
    book >> Tick(0.3001) << invoke(2, "b", attempt=2) << like(Wake)  # a fifth of a second later there is room for another
    book >> Succeeded(2, frozenset(), 0.3002) << like(Acknowledge) << invoke(3, "c", attempt=2) << nothing


def test_errors_halve_the_slots():
    book = polling(Plan(batch_size=1, start=4)) >> Took(records(*"abcd"), 30, 0)
    for number, name in enumerate("abcd", 1):
        book << invoke(number, name)
    book << wake_near(0.2) >> Failed(1, 0) << like(Tell) << nothing
    assert book.machine.slots == 2
    book >> Succeeded(2, frozenset(), 0) << like(Acknowledge) << nothing
    book >> Succeeded(3, frozenset(), 0) << like(Acknowledge) << Take(1) << Wake(None)


def test_a_group_is_in_one_batch_at_a_time_and_keeps_its_order():
    plan = Plan(batch_size=10, payload_limit=100, ordered=True)
    taken = [*records("a1", "a2", size=40, group="A"), *records("a3", "a4", size=40, group="A"), *records("b1", size=40, group="B")]
    book = polling(plan) >> Took(taken, 30, 0) << invoke(1, "a1", "a2") << invoke(2, "b1") << like(Wake)
    book >> Succeeded(1, frozenset(), 1) << like(Acknowledge) << invoke(3, "a3", "a4") << Wait() << Wake(None)
    book.end()


def test_what_is_gathered_does_not_overtake_a_failure_of_its_group():
    plan = Plan(batch_size=10, payload_limit=100, ordered=True)
    taken = [*records("a1", "a2", size=40, group="A"), *records("a3", size=40, group="A")]
    book = polling(plan) >> Took(taken, 30, 0) << invoke(1, "a1", "a2") << like(Wake)
    book >> Failed(1, 1) << like(Tell) << like(GiveBack, records=ids("a3")) << Wait() << Wake(None)
    book.end()


def test_a_source_that_fails_is_left_alone_for_longer_and_longer():
    book = polling(Plan()) >> SourceFailed("no queue", 0) << Tell("source failed", "no queue") << Wake(0.5) << In("resting")
    book >> Tick(0.5) << Take(50) << In("polling") >> SourceFailed("no queue", 0.5) << Wake(1.5)
    book >> Tick(1.5) << Take(50) >> SourceFailed("no queue", 1.5) << Wake(3.5)
    book >> Tick(3.5) << Take(50) >> Took([], 30, 4) << Wait() >> Rang(5) << Take(50) >> SourceFailed("again", 5)
    book << Tell("source failed", "again") << Wake(5.5)
    book.end()


def test_stopping_drains_what_runs_and_gives_back_the_rest():
    book = polling(Plan(batch_size=1, start=1, most=1)) >> Took(records("a", "b"), 30, 0) << invoke(1, "a") << like(Wake)
    book >> Stop(1) << like(GiveBack, records=ids("b")) << Wake(None) << In("draining")
    book >> Succeeded(1, frozenset(), 2) << like(Acknowledge, records=ids("a")) << Stopped() << In("stopped")
    with pytest.raises(IllegalTransition):
        book.machine.handle(Rang(3))


def test_stopping_ends_a_wait_and_what_a_take_still_brings_is_given_back():
    waiting(Plan()) >> Stop(1) << CancelWait() << In("draining") >> Rang(1) << Stopped()
    book = polling(Plan()) >> Stop(1) << nothing
    book >> Took([*records("a"), *records("x", wanted=False)], 30, 2)
    book << like(GiveBack, records=ids("a")) << like(Acknowledge, records=ids("x")) << Stopped()


def test_a_batch_that_is_refused_or_held_while_stopping_is_given_back():
    book = polling(Plan(batch_size=1)) >> Took(records("a", "b"), 30, 0) << invoke(1, "a") << invoke(2, "b") << Wait()
    book >> Refused(1, 1) << like(Tell) << like(Wake) >> Stop(1) << CancelWait() << like(GiveBack, records=ids("a")) << Wake(None)
    book >> Rang(1) << nothing >> Refused(2, 2) << like(GiveBack, records=ids("b")) << Stopped()


def test_a_changed_plan_holds_from_the_next_batch():
    book = polling(Plan(batch_size=1, start=1, most=1)) >> Took(records("a"), 30, 0) << invoke(1, "a") << nothing
    book >> Change(Plan(batch_size=7, start=2), 1) << Take(7) >> Took(records(*"bcdefgh"), 30, 1)
    book << invoke(2, *"bcdefgh") << like(Wake)


def test_what_is_gathered_behind_a_long_window_stays_invisible():
    book = polling(Plan(batch_size=100, window=300)) >> Took(records("a"), 20, 0) << Wait() << Wake(15)
    book >> Tick(15) << like(Prolong, records=ids("a"), seconds=20) << Wake(30)
    book.end()


@pytest.mark.parametrize(
    ("maximum", "provisioned", "expected"),
    [
        (None, None, (5, 1_250, 5.0)),
        (2, None, (2, 2, 5.0)),
        (1_000, None, (5, 1_000, 5.0)),
        (None, (2, 200), (20, 2_000, 1_000 / 60)),
        (None, (200, 10_000), (2_000, 20_000, 1_000 / 60)),
    ],
)
def test_concurrency_of_a_queue(maximum, provisioned, expected):
    assert concurrency(maximum, provisioned) == expected


def test_a_plan_is_read_off_the_configuration():
    config = {
        "EventSourceArn": "arn:aws:sqs:us-east-1:000000000000:q.fifo",
        "BatchSize": 4,
        "ScalingConfig": {"MaximumConcurrency": 3},
        "MaximumBatchingWindowInSeconds": 0,
    }
    plan = queue_plan(config, 1_000)
    assert (plan.batch_size, plan.start, plan.most, plan.ordered, plan.window) == (4, 3, 3, True, 0.0)
    assert plan.payload_limit == 1_000 - len(b'{"Records":[]}')
    provisioned = {"BatchSize": 100, "MaximumBatchingWindowInSeconds": 2, "ProvisionedPollerConfig": {"MinimumPollers": 3}}
    plan = queue_plan({**config, **provisioned, "EventSourceArn": "arn:aws:sqs:us-east-1:000000000000:q", "ScalingConfig": {}}, 1_000)
    assert (plan.batch_size, plan.start, plan.most, plan.ordered, plan.window) == (100, 30, 2_000, False, 2.0)

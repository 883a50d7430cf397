"""What comes of each outcome of an asynchronous event: the table, its arithmetic, and a model of many events against its invariants.

LAMBENT_MODEL_STEPS sets the number of steps of the model; LAMBENT_MODEL_SEED repeats a run.
"""

from __future__ import annotations

import itertools
import os
import random
from dataclasses import dataclass

import pytest

from lambent.errors import IllegalTransition
from lambent.invoke.async_state import Condition, End, Outcome, Policy, Progress, Retry, Run, State, step

STEPS = int(os.environ.get("LAMBENT_MODEL_STEPS", "20000"))
SEED = int(os.environ.get("LAMBENT_MODEL_SEED", str(random.SystemRandom().randrange(2**32))))
RUNNING = Progress(0.0, State.RUNNING)


def run(*outcomes: Outcome, policy: Policy | None = None, at: float = 0.0):
    """Feed outcomes, each at the time at which the one before said that it may be; gives the instants of the tries and the end."""
    progress, now, tries = Progress(at), at, []
    policy = policy or Policy()
    for outcome in outcomes:
        progress, verdict = step(progress, Outcome.TAKEN, now, policy)
        if isinstance(verdict, End):
            return tries, verdict.condition, progress
        assert verdict == Run()
        tries.append(now)
        progress, verdict = step(progress, outcome, now, policy)
        if isinstance(verdict, End):
            return tries, verdict.condition, progress
        assert isinstance(verdict, Retry)
        now = verdict.at
    return tries, None, progress


def test_function_errors_are_retried_after_one_and_two_minutes():
    error = Outcome.FUNCTION_ERROR
    tries, condition, progress = run(error, error, error)
    assert (tries, condition) == ([0.0, 60.0, 180.0], Condition.RETRIES_EXHAUSTED)
    assert progress.invocations == progress.failures == 3


@pytest.mark.parametrize(("retries", "tries"), [(0, [0.0]), (1, [0.0, 60.0]), (2, [0.0, 60.0, 180.0])])
def test_as_many_retries_as_configured(retries, tries):
    assert run(*[Outcome.FUNCTION_ERROR] * 5, policy=Policy(retries=retries))[:2] == (tries, Condition.RETRIES_EXHAUSTED)


def test_throttles_double_their_wait_up_to_five_minutes_and_do_not_count():
    tries, condition, progress = run(*[Outcome.THROTTLED] * 11)
    waits = [after - before for before, after in itertools.pairwise(tries)]
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]
    assert (condition, progress.invocations, progress.failures) == (None, 0, 0)


def test_a_function_error_begins_the_back_off_anew():
    tries, _, _ = run(Outcome.THROTTLED, Outcome.SYSTEM_ERROR, Outcome.FUNCTION_ERROR, Outcome.THROTTLED, Outcome.SUCCEEDED)
    assert tries == [0.0, 1.0, 3.0, 63.0, 64.0]


def test_an_age_of_a_minute_leaves_no_room_for_a_retry():
    """Recorded on AWS: the first retry would be tried too late, so the event ends after its first run."""
    tries, condition, progress = run(Outcome.FUNCTION_ERROR, Outcome.FUNCTION_ERROR, policy=Policy(age=59.0))
    assert (tries, condition, progress.invocations) == ([0.0], Condition.EVENT_AGE_EXCEEDED, 1)
    assert run(Outcome.FUNCTION_ERROR, Outcome.FUNCTION_ERROR, Outcome.FUNCTION_ERROR, policy=Policy(age=60.0))[0] == [0.0, 60.0]


def test_what_waited_too_long_is_not_tried():
    after, verdict = step(Progress(0.0), Outcome.TAKEN, 21_600.1, Policy())
    assert (verdict, after.state, after.invocations) == (End(Condition.EVENT_AGE_EXCEEDED), State.ENDED, 0)
    assert step(Progress(0.0), Outcome.TAKEN, 21_600.0, Policy())[1] == Run()


def test_throttles_end_with_the_age():
    tries, condition, _ = run(*[Outcome.THROTTLED] * 1_000)
    assert condition is Condition.EVENT_AGE_EXCEEDED
    assert 21_600 - 300 < tries[-1] <= 21_600


@pytest.mark.parametrize(
    ("outcome", "condition", "invocations"),
    [
        (Outcome.SUCCEEDED, Condition.SUCCESS, 1),
        (Outcome.NO_CONCURRENCY, Condition.ZERO_CONCURRENCY, 0),
        (Outcome.RECURSION, Condition.RECURSION, 0),
        (Outcome.GONE, Condition.GONE, 0),
        (Outcome.REFUSED, Condition.REFUSED, 0),
    ],
)
def test_what_ends_at_once(outcome, condition, invocations):
    after, verdict = step(RUNNING, outcome, 5.0, Policy())
    assert (verdict, after.state, after.invocations, after.failures) == (End(condition), State.ENDED, invocations, 0)


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("outcome", list(Outcome))
def test_the_rest_of_the_table_is_refused(state, outcome):
    legal = {State.QUEUED: {Outcome.TAKEN}, State.RUNNING: set(Outcome) - {Outcome.TAKEN}, State.ENDED: set()}
    if outcome in legal[state]:
        step(Progress(0.0, state), outcome, 0.0, Policy())
    else:
        with pytest.raises(IllegalTransition):
            step(Progress(0.0, state), outcome, 0.0, Policy())


@dataclass
class Event:
    """An event of the model, with its own record of what was done with it."""

    progress: Progress
    due: float
    stored: Progress  # what a process that dies falls back to
    errors: int = 0
    ends: int = 0
    last_try: float = 0.0


def test_the_model_keeps_its_invariants():
    """Many events, any outcomes, a clock that jumps, and processes that die between a run and its commit.

    Every event ends exactly once; never after more than 1 + retries counted function errors; none is tried when it is too old; a retry
    lies in the future and within the age; counts never fall except by a death, and then to what was committed.
    """
    print(f"seed {SEED}, {STEPS} steps")
    dice = random.Random(SEED)
    policy = Policy(retries=dice.randrange(3), age=dice.choice([60.0, 200.0, 21_600.0]))
    now, ended, deaths = 0.0, 0, 0
    events: list[Event] = []
    outcomes = [outcome for outcome in Outcome if outcome is not Outcome.TAKEN]
    for _ in range(STEPS):
        if not events or (len(events) < 50 and dice.random() < 0.3):
            events.append(Event(Progress(now), now, Progress(now)))
        event = dice.choice(events)
        if event.progress.state is State.QUEUED:
            if event.due > now:
                now = max(now, event.due + dice.choice([0.0, 0.0, 0.5, 40.0, 3_000.0 if dice.random() < 0.05 else 0.0]))
            before = event.progress
            event.progress, verdict = step(before, Outcome.TAKEN, now, policy)
            if isinstance(verdict, Run):
                assert now - before.accepted_at <= policy.age
                event.last_try = now
            else:
                assert verdict == End(Condition.EVENT_AGE_EXCEEDED)
                assert now - before.accepted_at > policy.age
        elif dice.random() < 0.02:
            event.progress, deaths = event.stored, deaths + 1  # the node died; the lease is given up at the next start
            event.due = now
            continue
        else:
            outcome = dice.choices(outcomes, [8, 10, 6, 6, 1, 1, 1, 1])[0]
            before = event.progress
            event.progress, verdict = step(before, outcome, now, policy)
            assert event.progress.failures >= before.failures
            assert event.progress.failures <= 1 + policy.retries
            assert event.progress.invocations - before.invocations == (outcome in (Outcome.SUCCEEDED, Outcome.FUNCTION_ERROR))
            if isinstance(verdict, Retry):
                assert now < verdict.at <= before.accepted_at + policy.age
                assert outcome in (Outcome.FUNCTION_ERROR, Outcome.THROTTLED, Outcome.SYSTEM_ERROR)
                assert event.progress.failures <= policy.retries
                event.due, event.stored = verdict.at, event.progress
        if isinstance(verdict, End):
            assert event.progress.state is State.ENDED
            if verdict.condition is Condition.RETRIES_EXHAUSTED:
                assert event.progress.failures == 1 + policy.retries
            event.ends += 1
            assert event.ends == 1
            events.remove(event)
            ended += 1
    assert ended > STEPS / 20
    assert deaths or STEPS < 1_000

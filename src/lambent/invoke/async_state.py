"""The life of one asynchronous event, pure: what comes of each outcome (contract 02 §4).

Two states, since all that lies between is in the store: an event is *queued*, or one try of it is *running*. A table says for each
(state, outcome) what follows; the numbers that it needs are in ``Progress`` and ``Policy``, and time is an argument.

    function errors   count; retried after the configured waits, as often as the policy says
    throttles, faults of ours   do not count; retried with exponential back-off until the event is too old
    age               looked at before each try, and before a retry is scheduled: what could only be tried too late ends at once
    no concurrency    reserved concurrency 0: ends at once
    recursion, a function that is gone, an event that it cannot be given: end at once

An ``End`` is final, and its condition is what the record at a destination says. Whether it leads to a destination, a dead-letter queue or
the node's own dead letters is the shell's affair.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace

from lambent.errors import IllegalTransition

DEFAULT_RETRIES = 2
DEFAULT_AGE_S = 21_600


class State(enum.Enum):
    QUEUED = "queued"
    RUNNING = "running"
    ENDED = "ended"


class Outcome(enum.Enum):
    """What happened to an event."""

    TAKEN = "taken"  # off the queue, to be tried
    SUCCEEDED = "succeeded"
    FUNCTION_ERROR = "function error"
    THROTTLED = "throttled"
    SYSTEM_ERROR = "system error"
    NO_CONCURRENCY = "no concurrency"
    RECURSION = "recursion"
    GONE = "gone"
    REFUSED = "refused"


class Condition(enum.Enum):
    """How it ended, in AWS's words where AWS has them."""

    SUCCESS = "Success"
    RETRIES_EXHAUSTED = "RetriesExhausted"
    EVENT_AGE_EXCEEDED = "EventAgeExceeded"
    ZERO_CONCURRENCY = "ZeroReservedConcurrency"
    RECURSION = "RecursiveInvocation"
    GONE = "FunctionNotFound"
    REFUSED = "InvocationRefused"


@dataclass(frozen=True, slots=True)
class Policy:
    """What is configured. Seconds."""

    retries: int = DEFAULT_RETRIES
    age: float = DEFAULT_AGE_S
    waits: tuple[float, ...] = (60.0, 120.0)  # before the first retry, the second; the last one goes on
    backoff_first: float = 1.0
    backoff_most: float = 300.0


@dataclass(frozen=True, slots=True)
class Progress:
    """What an event has been through."""

    accepted_at: float
    state: State = State.QUEUED
    invocations: int = 0
    failures: int = 0
    setbacks: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """Try it now."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Back on the queue, to be had from ``at``."""

    at: float


@dataclass(frozen=True, slots=True)
class End:
    """Nothing more is tried."""

    condition: Condition


Verdict = Run | Retry | End


def step(progress: Progress, outcome: Outcome, now: float, policy: Policy) -> tuple[Progress, Verdict]:
    """What ``outcome`` at ``now`` makes of an event. Raises ``IllegalTransition``."""
    rule = _TABLE.get((progress.state, outcome))
    if rule is None:
        raise IllegalTransition("async event", progress.state.value, outcome.value)
    verdict, after = rule(progress, now, policy)
    return after, verdict


Rule = Callable[[Progress, float, Policy], tuple[Verdict, Progress]]


def _too_old(progress: Progress, at: float, policy: Policy) -> bool:
    return at - progress.accepted_at > policy.age


def _take(progress: Progress, now: float, policy: Policy) -> tuple[Verdict, Progress]:
    if _too_old(progress, now, policy):
        return _ended(progress, Condition.EVENT_AGE_EXCEEDED)
    return Run(), replace(progress, state=State.RUNNING)


def _fail(progress: Progress, now: float, policy: Policy) -> tuple[Verdict, Progress]:
    after = replace(progress, invocations=progress.invocations + 1, failures=progress.failures + 1, setbacks=0)
    if after.failures > policy.retries:
        return _ended(after, Condition.RETRIES_EXHAUSTED)
    wait = policy.waits[min(after.failures, len(policy.waits)) - 1] if policy.waits else 0.0
    return _again(after, now + wait, policy)


def _set_back(progress: Progress, now: float, policy: Policy) -> tuple[Verdict, Progress]:
    wait = min(policy.backoff_first * 2.0 ** min(progress.setbacks, 32), policy.backoff_most)
    return _again(replace(progress, setbacks=progress.setbacks + 1), now + wait, policy)


def _again(progress: Progress, at: float, policy: Policy) -> tuple[Verdict, Progress]:
    if _too_old(progress, at, policy):
        return _ended(progress, Condition.EVENT_AGE_EXCEEDED)
    return Retry(at), replace(progress, state=State.QUEUED)


def _succeed(progress: Progress, now: float, policy: Policy) -> tuple[Verdict, Progress]:
    return _ended(replace(progress, invocations=progress.invocations + 1), Condition.SUCCESS)


def _end(condition: Condition) -> Rule:
    return lambda progress, now, policy: _ended(progress, condition)


def _ended(progress: Progress, condition: Condition) -> tuple[Verdict, Progress]:
    return End(condition), replace(progress, state=State.ENDED)


_TABLE: dict[tuple[State, Outcome], Rule] = {
    (State.QUEUED, Outcome.TAKEN): _take,
    (State.RUNNING, Outcome.SUCCEEDED): _succeed,
    (State.RUNNING, Outcome.FUNCTION_ERROR): _fail,
    (State.RUNNING, Outcome.THROTTLED): _set_back,
    (State.RUNNING, Outcome.SYSTEM_ERROR): _set_back,
    (State.RUNNING, Outcome.NO_CONCURRENCY): _end(Condition.ZERO_CONCURRENCY),
    (State.RUNNING, Outcome.RECURSION): _end(Condition.RECURSION),
    (State.RUNNING, Outcome.GONE): _end(Condition.GONE),
    (State.RUNNING, Outcome.REFUSED): _end(Condition.REFUSED),
}

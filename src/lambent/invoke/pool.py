"""The shell around one ``PoolMachine``: the environments of one function version (and tenant).

Carrying out an instruction can bring the next event before the list is through (a killed environment ends at once), so events queue
and are handled one after the other; the machine never sees one inside another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from lambent.clock import Timer
from lambent.errors import PlatformFault
from lambent.function_version import ON_DEMAND, PROVISIONED, FunctionVersion
from lambent.invoke.environment import Environment
from lambent.invoke.fittings import EnvironmentInfo, Fittings
from lambent.invoke.job import Job
from lambent.invoke.pool_events import (
    Abort,
    Begin,
    Drain,
    Ended,
    Event,
    Evict,
    Fail,
    Free,
    FreeBroken,
    FreeReset,
    FreezeSlot,
    Keep,
    KeepFailed,
    Renew,
    Resubmit,
    Retire,
    Start,
    Stop,
    Submit,
    Tick,
)
from lambent.invoke.pool_state import PoolMachine

LEAST_MEMORY = 4_194_304  # bytes that an environment is taken to hold before anybody has looked


class Keeper(Protocol):
    """What a pool tells the keeper of all pools."""

    def warm(self, pool: Pool) -> None:
        """It has environments that will want freezing."""
        ...

    def make_room(self) -> None:
        """One more environment is about to start."""
        ...

    def keep_failed(self, pool: Pool, failures: int) -> None:
        """An environment that is to be kept did not come to be, so many in a row by now; ``renew`` tries again."""
        ...

    def retired(self, pool: Pool) -> None:
        """It is empty and will stay so."""
        ...


class Pool:
    """``warm`` is true while the keeper knows that something here wants freezing; ``machine`` is for looking only."""

    __slots__ = ("_busy", "_environments", "_fittings", "_keeper", "_queue", "key", "machine", "renewal", "tenant", "version", "warm")

    def __init__(self, version: FunctionVersion, tenant: str, fittings: Fittings, keeper: Keeper) -> None:
        self.key = (version.environment_key, tenant)
        self.version = version
        self.tenant = tenant
        self.warm = False
        self.renewal: Timer | None = None  # the keeper's, after a start that failed
        self._fittings = fittings
        self._keeper = keeper
        self.machine = PoolMachine(f"{version.arn}:{version.version}")
        self._environments: dict[int, Environment] = {}
        self._queue: deque[Event] = deque()
        self._busy = False

    def submit(self, job: Job) -> None:
        """Run ``job`` here, now or as soon as an environment is free."""
        self._feed(Submit(job))

    def tick(self, at: float, freeze_after: float, idle_after: float) -> None:
        """Freeze and reap what has been idle for long."""
        self._feed(Tick(at, freeze_after, idle_after))
        self.warm = self.machine.unfrozen > 0

    def keep(self, count: int, at_once: int) -> None:
        """Have ``count`` environments whether anybody asks or not."""
        self._feed(Keep(count, at_once))

    def renew(self) -> None:
        """Try again to have them."""
        self.renewal = None
        self._feed(Renew())

    def evict(self, reason: str) -> None:
        """End the environment that has been idle longest."""
        self._feed(Evict(reason))

    def idle_memory(self) -> int:
        """Bytes that the idle environments hold, but for the kept ones. Nothing runs in those that were reset."""
        return sum(max(self._environments[slot.number].memory_peak, LEAST_MEMORY) for slot in self.machine.idle)

    def drain(self, reason: str) -> None:
        """Take nothing new; end when the last job has."""
        self._feed(Drain(reason))

    def abort(self, fault: PlatformFault) -> None:
        """End now. Whoever waits gets ``fault``."""
        self._feed(Abort(fault))

    def environments(self) -> list[EnvironmentInfo]:
        return [environment.info() for environment in self._environments.values()]

    def newest(self) -> Environment | None:
        """The environment that was started last."""
        return next(reversed(self._environments.values()), None)

    # ------------------------------------------------------------------------------------------ what environments tell us

    def free(self, environment: Environment, at: float) -> None:
        self._feed(Free(environment.slot, at))
        if not self.warm:
            self.warm = True
            self._keeper.warm(self)

    def free_broken(self, environment: Environment) -> None:
        self._feed(FreeBroken(environment.slot))

    def free_reset(self, environment: Environment, at: float) -> None:
        """It can take a job, which will run init."""
        self._feed(FreeReset(environment.slot, at))

    def ended(self, environment: Environment, fault: PlatformFault | None) -> None:
        self._feed(Ended(environment.slot, fault))
        self._environments.pop(environment.slot, None)

    def requeue(self, job: Job) -> None:
        self._feed(Resubmit(job))

    # --------------------------------------------------------------------------------------------- what the machine wants

    def _feed(self, event: Event) -> None:
        if self._busy:
            self._queue.append(event)
            return
        self._busy = True
        try:
            while True:
                for instruction in self.machine.handle(event):
                    _DO[type(instruction)](self, instruction)
                if not self._queue:
                    return
                event = self._queue.popleft()
        finally:
            self._busy = False

    def _begin(self, instruction: Begin) -> None:
        self._environments[instruction.slot].begin(instruction.job)

    def _start(self, instruction: Start) -> None:
        self._keeper.make_room()
        kept = instruction.kept and self.version.initialization == ON_DEMAND
        version = replace(self.version, initialization=PROVISIONED) if kept else self.version
        environment = Environment(instruction.slot, version, self.tenant, self._fittings, self)
        self._environments[instruction.slot] = environment
        environment.start("" if instruction.kept else instruction.job.call.request_id)

    def _freeze(self, instruction: FreezeSlot) -> None:
        self._environments[instruction.slot].freeze()

    def _stop(self, instruction: Stop) -> None:
        self._environments[instruction.slot].kill(instruction.reason)

    def _fail(self, instruction: Fail) -> None:
        instruction.job.fail(instruction.fault)

    def _keep_failed(self, instruction: KeepFailed) -> None:
        self._keeper.keep_failed(self, instruction.failures)

    def _retire(self, instruction: Retire) -> None:
        self._keeper.retired(self)


_DO: dict[type[Any], Callable[[Pool, Any], None]] = {
    Begin: Pool._begin,
    Fail: Pool._fail,
    FreezeSlot: Pool._freeze,
    KeepFailed: Pool._keep_failed,
    Retire: Pool._retire,
    Start: Pool._start,
    Stop: Pool._stop,
}

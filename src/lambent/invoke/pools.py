"""All pools of the node: finds the one for a job, keeps the two clocks that idle environments live by, and ends everything.

A pool is found by (environment key, tenant). When the registry says that a version changed, its pools leave the map in the same
call, and drain outside it: whatever resolves to the new version finds or makes another pool, even if the change was undone and the
key is the old one again.

One timer freezes, for all pools: it runs only while some environment is idle and warm, every ``freeze_after``. One timer reaps, a
fraction of ``idle_after`` apart, only while there are pools. Neither costs an invocation anything.

Idle environments may hold ``idle_memory_mb`` together. Beyond that the one that has been idle longest ends, whoever's it is, when another
is started or the freezer looks around. Each function may start so many environments in so many seconds (``scaling_rate``); provisioned
ones are exempt from both.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
from collections.abc import Coroutine
from typing import Any

from lambent.arn import LATEST, FunctionArn
from lambent.clock import Clock, Timer
from lambent.errors import PlatformFault, throttled
from lambent.function_version import FunctionVersion
from lambent.invoke.environment import Environment
from lambent.invoke.fittings import EnvironmentInfo, Fittings, OpenApi, RuntimeVersionOf, SpecFor, StoryRecorder
from lambent.invoke.job import Job
from lambent.invoke.pool import Pool
from lambent.invoke.provisioned_state import Kept
from lambent.invoke.registry import Change, Registry
from lambent.invoke.scaling_rate import ScalingRate
from lambent.observe.log_sink import LogSink
from lambent.runtime_api.server import HttpRuntimeApi
from lambent.sandbox.driver import SandboxDriver
from lambent.settings import Settings

LOG = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0
KILL_SECONDS = 5.0
RENEW_SECONDS = (1.0, 2.0, 5.0, 15.0, 60.0)  # after a kept environment failed to start, the first time and the next ones


class Pools:
    """Listens to ``registry`` from the start. ``close`` once, before the driver is closed."""

    def __init__(
        self,
        registry: Registry,
        driver: SandboxDriver,
        clock: Clock,
        sink: LogSink,
        story: StoryRecorder,
        spec_for: SpecFor,
        settings: Settings,
        runtime_version: RuntimeVersionOf | None = None,
        open_api: OpenApi | None = None,
    ) -> None:
        self._clock = clock
        self._freeze_after = settings.sandbox.freeze_after
        self._idle_after = settings.sandbox.idle_after
        self._kept_at_once = settings.sandbox.provisioned_at_once
        self._idle_memory = _idle_memory(settings.sandbox.idle_memory_mb)
        self._scaling = ScalingRate(settings.limits.scaling_environments, settings.limits.scaling_seconds)
        self._reap_every = min(max(self._idle_after / 10, self._freeze_after), 30.0)
        self._fittings = Fittings(
            driver=driver,
            clock=clock,
            sink=sink,
            story=story,
            spec_for=spec_for,
            runtime_version=runtime_version or _plain_runtime_version,
            spawn=self._spawn,
            response_cap=settings.limits.response_payload,
            stream_cap=settings.limits.streamed_payload,
            init_timeout=settings.sandbox.init_timeout,
            open_api=open_api or HttpRuntimeApi,
            zone=settings.zone,
        )
        self._pools: dict[tuple[str, str], Pool] = {}
        self._leaving: set[Pool] = set()
        self._warm: list[Pool] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._freezer: Timer | None = None
        self._reaper: Timer | None = None
        self._closing: str = ""
        self._empty: asyncio.Event | None = None
        registry.listen(self._on_change)

    def submit(self, job: Job) -> None:
        """Run ``job``; its future gets the answer. Raises ``PlatformFault`` once the node is closing."""
        version = job.version
        pool = self._pools.get((version.environment_key, job.call.tenant))
        if pool is None:
            if self._closing:
                raise PlatformFault(self._closing)
            pool = self._open(version, job.call.tenant)
        machine = pool.machine
        if not machine.idle and machine.short:
            self._require_rate(job)
        pool.submit(job)

    def keep(self, version: FunctionVersion, count: int) -> None:
        """Have ``count`` environments of ``version`` whether anybody asks or not, until another word or the version goes."""
        pool = self._pools.get((version.environment_key, ""))
        if pool is None:
            if self._closing or not count:
                return
            pool = self._open(version, "")
        if pool.renewal is not None:
            pool.renewal.cancel()
            pool.renewal = None
        pool.keep(count, self._kept_at_once)

    def kept(self, version: FunctionVersion) -> Kept:
        """What has become of ``keep``."""
        pool = self._pools.get((version.environment_key, ""))
        if pool is None:
            return Kept(0, False, 0)
        return Kept(pool.machine.allocated, pool.machine.complete, pool.machine.failures)

    def environments(self) -> list[EnvironmentInfo]:
        """Every environment there is, for ``lambent ps``."""
        return [info for pool in (*self._pools.values(), *self._leaving) for info in pool.environments()]

    def newest(self, function: FunctionArn) -> Environment | None:
        """The newest environment of a function's ``$LATEST``."""
        for pool in reversed(self._pools.values()):
            if pool.version.arn == function and pool.version.version == LATEST and (newest := pool.newest()) is not None:
                return newest
        return None

    def uses_code(self, sha256: str) -> bool:
        """Whether an environment may still run from that code, or with layers merged under that name."""
        return any(sha256 in (pool.version.code_sha256, pool.version.layer_sha256) for pool in (*self._pools.values(), *self._leaving))

    async def close(self, drain: float = DRAIN_SECONDS) -> None:
        """Take nothing new, give what runs or waits ``drain`` seconds, then end it. On return every sandbox of ours has been killed."""
        self._closing = "The node is shutting down"
        self._empty = asyncio.Event()
        for key in list(self._pools):
            self._drain(key, self._closing)
        if self._leaving:
            patience = self._clock.call_later(drain, self._abort)
            await self._empty.wait()
            patience.cancel()
        for timer in (self._freezer, self._reaper):
            if timer is not None:
                timer.cancel()
        while self._tasks:
            patience = self._clock.call_later(KILL_SECONDS, self._give_up)
            await asyncio.wait(self._tasks)
            patience.cancel()

    # ------------------------------------------------------------------------------------------------ what pools tell us

    def warm(self, pool: Pool) -> None:
        self._warm.append(pool)
        if self._freezer is None:
            self._freezer = self._clock.call_later(self._freeze_after, self._freeze)

    def make_room(self) -> None:
        """End what has been idle longest until the idle ones hold no more than they may."""
        held = sum(pool.idle_memory() for pool in self._pools.values())
        while held > self._idle_memory:
            idle = [pool for pool in self._pools.values() if pool.machine.idle]
            if not idle:
                return
            oldest = min(idle, key=_longest_idle)
            before = oldest.idle_memory()
            oldest.evict("room is needed for others")
            freed = before - oldest.idle_memory()
            if freed <= 0:  # it is in the middle of something, and will come to this later
                return
            held -= freed

    def keep_failed(self, pool: Pool, failures: int) -> None:
        if pool.renewal is None and not self._closing:
            pause = RENEW_SECONDS[min(failures, len(RENEW_SECONDS)) - 1]
            pool.renewal = self._clock.call_later(pause, pool.renew)

    def retired(self, pool: Pool) -> None:
        self._leaving.discard(pool)
        if self._pools.get(pool.key) is pool:
            del self._pools[pool.key]
        if self._empty is not None and not self._leaving and not self._pools:
            self._empty.set()

    # ------------------------------------------------------------------------------------------------------------ inside

    def _require_rate(self, job: Job) -> None:
        if not self._scaling.take(job.version.arn, self._clock.monotonic()):
            raise throttled(job.permit.rate_reason)

    def _open(self, version: FunctionVersion, tenant: str) -> Pool:
        pool = Pool(version, tenant, self._fittings, self)
        self._pools[pool.key] = pool
        if self._reaper is None:
            self._reaper = self._clock.call_later(self._reap_every, self._reap)
        return pool

    def _on_change(self, change: Change) -> None:
        before, after = change.before, change.after
        if before is None or (after is not None and after.environment_key == before.environment_key):
            return
        for key in [key for key in self._pools if key[0] == before.environment_key]:
            self._drain(key, "its version was replaced" if after is not None else "its version was removed")

    def _drain(self, key: tuple[str, str], reason: str) -> None:
        pool = self._pools.pop(key)
        if pool.renewal is not None:
            pool.renewal.cancel()
            pool.renewal = None
        self._leaving.add(pool)
        pool.drain(reason)

    def _abort(self) -> None:
        fault = PlatformFault(f"{self._closing}, and the invocation did not end in time")
        for pool in list(self._leaving):
            pool.abort(fault)

    def _give_up(self) -> None:
        """A driver that neither starts nor kills in time: its ``close`` is what remains."""
        for task in self._tasks:
            task.cancel()

    def _freeze(self) -> None:
        self._freezer = None
        at = self._clock.monotonic()
        pools, self._warm = self._warm, []
        for pool in pools:
            pool.tick(at, self._freeze_after, self._idle_after)
            if pool.warm:
                self._warm.append(pool)
        self.make_room()
        if self._warm:
            self._freezer = self._clock.call_later(self._freeze_after, self._freeze)

    def _reap(self) -> None:
        self._reaper = None
        at = self._clock.monotonic()
        for pool in list(self._pools.values()):
            warm = pool.warm
            pool.tick(at, self._freeze_after, self._idle_after)
            pool.warm = warm
        if self._pools:
            self._reaper = self._clock.call_later(self._reap_every, self._reap)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            LOG.warning("an execution environment: %s", error)


def _longest_idle(pool: Pool) -> float:
    return pool.machine.idle[0].since


def _idle_memory(megabytes: int) -> int:
    """In bytes; by default half of what the machine has."""
    return megabytes << 20 if megabytes > 0 else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _plain_runtime_version(version: FunctionVersion) -> tuple[str, str]:
    """What is known without looking at the interpreter."""
    name = re.sub(r"(?<=[a-z])(?=\d)", ":", version.runtime, count=1)
    digest = hashlib.sha256(name.encode()).hexdigest()
    return name, f"arn:{version.arn.partition}:lambda:{version.arn.region}::runtime:{digest}"

"""Pools and environments together, under every order of events that Hypothesis can think of.

A little world stands in for the shells: it carries out the instructions of real ``PoolMachine``s and ``EnvironmentMachine``s at
once, and keeps books of its own, against which the laws are checked after every step:

* never two invocations in one environment, never one invocation in two;
* never more environments than invocations were in flight at once;
* every accepted invocation is answered exactly once, by its first true answer or by an error, and told so early once at most;
* what is passed on in chunks is what the runtime said, in order, up to the limit;
* nobody is free or handed an invocation while an extension is at work;
* a lease takes the environment that went idle last, and idle ones are listed in that order;
* a stale pool takes nothing new;
* at the end nothing is left: no sandbox, no slot, no waiting job, no unanswered one.
"""

from __future__ import annotations

from collections import Counter, deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lambent.errors import PlatformFault, SandboxFault
from lambent.invoke import environment_events as ee
from lambent.invoke import pool_events as pe
from lambent.invoke import pool_state as ps
from lambent.invoke.environment_state import EnvironmentMachine
from lambent.invoke.environment_table import TABLE, State
from lambent.sandbox.driver import SandboxExit

PERMITS = 4
FREE = {State.IDLE, State.FROZEN, State.RESET}
BUSY = {
    State.RESTARTING,
    State.REINITIALIZING,
    State.RESETTLING,
    State.BUSY,
    State.STREAMING,
    State.ANSWERED,
    State.LINGERING,
}
MOVING = BUSY | {State.STARTING, State.INITIALIZING, State.SETTLING}
TALKING = (BUSY - {State.RESTARTING}) | {State.INITIALIZING, State.SETTLING, State.IDLE, State.FROZEN}
EXITS = [SandboxExit(0, None), SandboxExit(1, None), SandboxExit(None, 9), SandboxExit(None, 9, True)]


class Job:
    def __init__(self, number: int) -> None:
        self.id = f"r{number}"
        self.deliveries = 0
        self.streams = number % 2 == 1

    def __repr__(self) -> str:
        return self.id


class Env:
    """An environment machine with the world around it."""

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.machine = EnvironmentMachine(name, 3, 100, 40)
        self.sandbox = False
        self.coming = True  # a start is under way
        self.frozen = False
        self.corpse = False  # the process is dead, and the news is still on its way
        self.job: Job | None = None
        self.idle_at = 0.0
        self.said: bytes | None = None  # the first true answer to the running invocation
        self.spoken = b""  # in chunks, so far
        self.passed = b""
        self.opened = self.told = False
        self.extensions = number % 3 == 1  # it has one that wants to hear of invocations
        self.at_work = False  # and that has yet to ask for its next event


class World:
    """One pool and its environments: the shells, in miniature."""

    def __init__(self, laws: Laws, generation: int) -> None:
        self.laws = laws
        self.name = f"g{generation}"
        self.pool = ps.PoolMachine(self.name)
        self.envs: dict[int, Env] = {}
        self.queue: deque[pe.Event] = deque()
        self.busy = False
        self.stale = False
        self.peak = 0

    # the pool's shell

    def tell(self, event: pe.Event) -> None:
        self.queue.append(event)
        if self.busy:
            return
        self.busy = True
        try:
            while self.queue:
                for instruction in self.pool.handle(self.queue.popleft()):
                    self.carry_out(instruction)
        finally:
            self.busy = False

    def carry_out(self, instruction: pe.Instruction) -> None:
        match instruction:
            case pe.Start(slot, _):
                self.envs[slot] = Env(slot, f"{self.name}/{slot}")
            case pe.Begin(slot, job):
                env = self.envs[slot]
                assert env.job is None, "two invocations in one environment"
                assert env.machine.state in FREE | {State.BROKEN}
                if env.machine.state in FREE:
                    warm = [e.idle_at for e in self.envs.values() if e.machine.state in FREE - {State.RESET}]
                    worn = [e.idle_at for e in self.envs.values() if e.machine.state is State.RESET]
                    assert env.idle_at == max(warm or worn), "not the newest idle one"
                    assert not warm or env.machine.state is not State.RESET, "init ran again where a warm one was free"
                assert not env.at_work
                env.job, env.said, env.spoken, env.passed, env.opened, env.told = job, None, b"", b"", False, False
                job.deliveries += 1
                self.feed(env, ee.Assigned(job.id, self.laws.at, job.streams))
            case pe.FreezeSlot(slot):
                self.feed(self.envs[slot], ee.IdleLong())
            case pe.Stop(slot, reason):
                self.feed(self.envs[slot], ee.Kill(reason, self.laws.at))
            case pe.Fail(job, _):
                self.laws.answered(job)
            case pe.Retire():
                assert not self.envs
                self.laws.worlds.remove(self)

    # an environment's shell

    def feed(self, env: Env, event: ee.Event) -> None:
        before = env.machine.state
        if before is State.BUSY and isinstance(event, ee.ResponseFrame | ee.ErrorFrame):
            true = event.head.split("\n")[:2] == [str(env.machine.epoch), env.machine.request_id]
            env.said = event.body if true and not event.oversize else None
        if before is State.STREAMING:
            if isinstance(event, ee.Chunk) and event.head == str(env.machine.epoch):
                env.spoken += event.body
            if isinstance(event, ee.StreamEnd) and event.head.split("\n")[:3] == [str(env.machine.epoch), env.machine.request_id, ""]:
                env.said = env.spoken
        instructions = env.machine.handle(event)
        assert env.machine.state in TABLE[before, type(event)][1], "a state that the table does not name"
        for instruction in instructions:
            self.carry_out_for(env, instruction)

    def carry_out_for(self, env: Env, instruction: ee.Instruction) -> None:
        match instruction:
            case ee.SendInvoke(_):
                assert env.sandbox
                assert not env.frozen
                env.at_work = env.extensions
                if env.corpse:
                    self.feed(env, ee.Undeliverable(self.laws.at))
            case ee.Answer(outcome):
                assert env.job is not None
                whole = env.passed if env.opened and not outcome.function_error else outcome.payload
                cut = outcome.function_error and len(env.spoken) > (40 if env.job.streams else 100)
                assert outcome.fault is not None or whole or env.said == b"", "an answer without a payload"
                assert env.said is None or cut or whole == env.said, "another answer than the first true one"
                assert env.said is not None or outcome.payload not in {b"answer", b"error", b"lie"}, "a lie was believed"
                assert not env.opened or env.passed == env.spoken[:40]
                env.job, job = None, env.job
                self.laws.answered(job)
            case ee.OpenStream(_):
                assert env.job is not None
                assert env.job.streams
                assert not env.opened
                env.opened = True
            case ee.PassOn(data):
                assert env.opened
                assert not env.told
                env.passed += data
            case ee.Respond(_):
                assert env.job is not None
                env.told = True
            case ee.InitDone():
                assert not env.at_work
            case ee.Requeue():
                assert env.job is not None
                env.job, job = None, env.job
                self.tell(pe.Resubmit(job))
            case ee.StartSandbox():
                assert not env.sandbox
                env.coming = True
            case ee.KillSandbox():
                env.at_work = False
                env.sandbox = env.frozen = env.corpse = False
            case ee.Freeze():
                env.frozen = True
            case ee.Thaw():
                env.frozen = False
            case ee.Ready() | ee.ReadyAgain():
                assert not env.at_work, "free while an extension is at work"
                env.idle_at = self.laws.at
                free = pe.FreeReset if isinstance(instruction, ee.ReadyAgain) else pe.Free
                self.tell(free(env.number, self.laws.at))
            case ee.ReadyBroken():
                self.tell(pe.FreeBroken(env.number))
            case ee.Gone(_, fault):
                assert env.job is None
                del self.envs[env.number]
                if env.coming:
                    self.laws.orphans.append(env)
                self.tell(pe.Ended(env.number, fault))


class Laws(RuleBasedStateMachine):
    """The rules make things happen; the invariants are the laws."""

    @initialize()
    def begin(self) -> None:
        self.at = 0.0
        self.generation = 1
        self.worlds: list[World] = [World(self, 1)]
        self.current: World | None = self.worlds[0]
        self.orphans: list[Env] = []  # stopped, with a sandbox still coming up
        self.jobs: list[Job] = []
        self.answers: Counter[str] = Counter()
        self.in_flight = 0

    def answered(self, job: Job) -> None:
        self.answers[job.id] += 1
        self.in_flight -= 1
        assert self.answers[job.id] == 1, "answered twice"

    def found(self, wanted: set[State]) -> list[tuple[World, Env]]:
        return [(world, env) for world in self.worlds for env in world.envs.values() if env.machine.state in wanted and not env.corpse]

    def some(self, wanted: set[State]) -> bool:
        return bool(self.found(wanted))

    def pick(self, data: st.DataObject, wanted: set[State]) -> tuple[World, Env]:
        return data.draw(st.sampled_from(self.found(wanted)))

    def open_world(self) -> World:
        if self.current is None or self.current not in self.worlds:
            self.generation += 1
            self.current = World(self, self.generation)
            self.worlds.append(self.current)
        return self.current

    # --------------------------------------------------------------------------- the rules: what goes well, and often

    @precondition(lambda self: self.in_flight < PERMITS)
    @rule(count=st.integers(1, PERMITS))
    def submit(self, count: int) -> None:
        for _ in range(min(count, PERMITS - self.in_flight)):
            world = self.open_world()
            job = Job(len(self.jobs))
            self.jobs.append(job)
            self.in_flight += 1
            load = sum(env.job is not None for env in world.envs.values()) + len(world.pool.waiting) + 1
            world.peak = max(world.peak, load)
            world.tell(pe.Submit(job))

    def step(self, world: World, env: Env) -> None:
        """One environment goes one step on its way, which takes a while."""
        self.at += 0.001
        state = env.machine.state
        if env.coming:
            env.coming, env.sandbox, env.at_work = False, True, env.extensions
            world.feed(env, ee.Started(self.at, env.extensions))
            if env.extensions:
                world.feed(env, ee.Registered(True, self.at))
        elif state in {State.INITIALIZING, State.REINITIALIZING, State.ANSWERED}:
            world.feed(env, ee.NextFrame(self.at))
        elif state in {State.SETTLING, State.RESETTLING, State.LINGERING}:
            self.extensions_rest(world, env)
        elif state is State.STREAMING:
            world.feed(env, ee.StreamEnd(f"{env.machine.epoch}\n{env.machine.request_id}\n", b"", self.at))
        elif state is State.BUSY:
            world.feed(env, ee.ResponseFrame(f"{env.machine.epoch}\n{env.machine.request_id}\n", b"answer", self.at))

    def extensions_rest(self, world: World, env: Env) -> None:
        if env.at_work:
            env.at_work = False
            world.feed(env, ee.ExtensionsReady(self.at))

    @precondition(lambda self: self.some(TALKING - {State.IDLE, State.FROZEN}))
    @rule(data=st.data())
    def extensions_are_through(self, data: st.DataObject) -> None:
        self.extensions_rest(*self.pick(data, TALKING - {State.IDLE, State.FROZEN}))

    @precondition(lambda self: self.some({State.BUSY}))
    @rule(data=st.data())
    def a_stream_begins(self, data: st.DataObject) -> None:
        world, env = self.pick(data, {State.BUSY})
        world.feed(env, ee.StreamStart(f"{env.machine.epoch}\n{env.machine.request_id}\ntext/plain", self.at))

    @precondition(lambda self: self.some({State.STREAMING}))
    @rule(data=st.data(), sizes=st.lists(st.sampled_from([1, 7, 30, 90]), min_size=1, max_size=4))
    def chunks_come(self, data: st.DataObject, sizes: list[int]) -> None:
        world, env = self.pick(data, {State.STREAMING})
        for number, size in enumerate(sizes):
            world.feed(env, ee.Chunk(str(env.machine.epoch), bytes([65 + number]) * size, self.at))

    @precondition(lambda self: self.some(TALKING))
    @rule(data=st.data(), error_type=st.sampled_from(["Extension.Crash", "Extension.InitError"]))
    def an_extension_fails(self, data: st.DataObject, error_type: str) -> None:
        world, env = self.pick(data, TALKING)
        world.feed(env, ee.ExtensionFailed(error_type, "exit status 1", self.at))

    @precondition(lambda self: self.some(MOVING))
    @rule(data=st.data())
    def one_goes_on(self, data: st.DataObject) -> None:
        self.step(*self.pick(data, MOVING))

    @precondition(lambda self: self.some(MOVING))
    @rule(steps=st.integers(1, 4))
    def all_go_on(self, steps: int) -> None:
        for _ in range(steps):
            for world in list(self.worlds):
                for env in list(world.envs.values()):
                    if env.machine.state in MOVING and not env.corpse:
                        self.step(world, env)

    @rule(seconds=st.sampled_from([0.01, 0.05, 1.0, 300.0]))
    def time_passes(self, seconds: float) -> None:
        self.at += seconds
        for world in list(self.worlds):
            world.tell(pe.Tick(self.at, freeze_after=0.05, idle_after=600.0))

    # -------------------------------------------------------------------------------------- and what does not go well

    @precondition(lambda self: any(env.coming for world in self.worlds for env in world.envs.values()))
    @rule(data=st.data())
    def a_start_fails(self, data: st.DataObject) -> None:
        world, env = data.draw(st.sampled_from([(world, env) for world in self.worlds for env in world.envs.values() if env.coming]))
        env.coming = False
        world.feed(env, ee.StartFailed(SandboxFault("no")))

    @precondition(lambda self: self.orphans)
    @rule(fails=st.booleans())
    def a_sandbox_comes_for_the_dead(self, fails: bool) -> None:
        env = self.orphans.pop()
        env.sandbox = not fails
        instructions = env.machine.handle(ee.StartFailed(SandboxFault("no")) if fails else ee.Started(self.at))
        assert list(instructions) == ([] if fails else [ee.KILL_SANDBOX])

    @precondition(lambda self: self.some({State.INITIALIZING, State.REINITIALIZING, State.SETTLING}))
    @rule(data=st.data(), late=st.booleans())
    def init_fails(self, data: st.DataObject, late: bool) -> None:
        world, env = self.pick(data, {State.INITIALIZING, State.REINITIALIZING, State.SETTLING})
        if (late and env.machine.state is State.INITIALIZING) or env.machine.state is State.SETTLING:
            world.feed(env, ee.InitDeadlinePassed(self.at))
        else:
            world.feed(env, ee.InitErrorFrame("Runtime.ImportModuleError", b"{}", self.at))

    @precondition(lambda self: self.some({State.BUSY}))
    @rule(data=st.data(), oversize=st.sampled_from([0, 101]))
    def the_function_fails(self, data: st.DataObject, oversize: int) -> None:
        world, env = self.pick(data, {State.BUSY})
        world.feed(env, ee.ErrorFrame(f"{env.machine.epoch}\n{env.machine.request_id}\nX\n", b"error", self.at, oversize))

    @precondition(lambda self: self.some(TALKING))
    @rule(data=st.data(), epoch=st.integers(-1, 2), request=st.integers(0, 9), kind=st.integers(0, 7))
    def runtime_lies(self, data: st.DataObject, epoch: int, request: int, kind: int) -> None:
        """Anything at any time. What happens to be true is an answer like any other."""
        world, env = self.pick(data, TALKING)
        head = f"{env.machine.epoch - epoch}\nr{request}\n"
        events: list[ee.Event] = [
            ee.ResponseFrame(head, b"lie", self.at),
            ee.ErrorFrame(head, b"lie", self.at),
            ee.NextFrame(self.at),
            ee.InitErrorFrame("X", b"init", self.at),
            ee.Violated("garbage", self.at),
            ee.StreamStart(head, self.at),
            ee.Chunk(str(env.machine.epoch - epoch), b"lie", self.at),
            ee.StreamEnd(head, b"lie", self.at),
        ]
        world.feed(env, events[kind])

    @precondition(lambda self: self.some(TALKING))
    @rule(data=st.data(), how=st.sampled_from(EXITS))
    def runtime_exits(self, data: st.DataObject, how: SandboxExit) -> None:
        world, env = self.pick(data, TALKING)
        world.feed(env, ee.Exited(how, self.at))

    @precondition(lambda self: self.some({State.IDLE, State.FROZEN}))
    @rule(data=st.data())
    def runtime_dies_unseen(self, data: st.DataObject) -> None:
        self.pick(data, {State.IDLE, State.FROZEN})[1].corpse = True

    @precondition(lambda self: any(env.corpse for world in self.worlds for env in world.envs.values()))
    @rule(how=st.sampled_from(EXITS))
    def news_of_the_dead(self, how: SandboxExit) -> None:
        for world in list(self.worlds):
            for env in [env for env in world.envs.values() if env.corpse]:
                world.feed(env, ee.Exited(how, self.at))

    @precondition(lambda self: self.some(BUSY))
    @rule(data=st.data())
    def the_timeout_passes(self, data: st.DataObject) -> None:
        world, env = self.pick(data, BUSY)
        world.feed(env, ee.DeadlinePassed(self.at))

    @precondition(lambda self: self.current in self.worlds and len(self.worlds) < 3)
    @rule()
    def a_new_version(self) -> None:
        assert self.current is not None
        self.current.stale = True
        self.current.tell(pe.Drain("new version"))
        self.current = None

    @precondition(lambda self: bool(self.worlds))
    @rule(data=st.data())
    def room_is_needed(self, data: st.DataObject) -> None:
        world = data.draw(st.sampled_from(self.worlds))
        idle = [slot.number for slot in world.pool.idle]
        world.tell(pe.Evict("room"))
        assert [slot.number for slot in world.pool.idle] == idle[1:], "not the one that has been idle longest"

    @precondition(lambda self: any(world.stale for world in self.worlds))
    @rule(data=st.data())
    def patience_ends(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from([world for world in self.worlds if world.stale])).tell(pe.Abort(PlatformFault("enough")))

    # -------------------------------------------------------------------------------------------------------- the laws

    @invariant()
    def one_job_one_environment(self) -> None:
        places = [job for world in self.worlds for job in world.pool.waiting]
        for world in self.worlds:
            for env in world.envs.values():
                assert (env.job is not None) == (env.machine.state in BUSY)
                assert not env.job or env.machine.request_id == env.job.id
                places += [env.job] if env.job else []
        assert len(places) == len(set(places)) == self.in_flight
        assert {job.id for job in places} == {job.id for job in self.jobs} - set(self.answers)

    @invariant()
    def as_many_starts_as_waiters_and_no_more_environments_than_jobs_at_once(self) -> None:
        for world in self.worlds:
            pool = world.pool
            states = Counter(slot.state for slot in pool.slots.values())
            assert pool.starting == states[ps.SlotState.STARTING] >= len(pool.waiting)
            assert len(pool.slots) - states[ps.SlotState.STOPPING] <= max(world.peak, 1) <= PERMITS
            assert set(pool.slots) == set(world.envs)

    @invariant()
    def idle_in_order_and_the_frozen_first(self) -> None:
        for world in self.worlds:
            pool = world.pool
            assert [slot.since for slot in pool.idle] == sorted(slot.since for slot in pool.idle)
            states = [world.envs[slot.number].machine.state for slot in pool.idle]
            for state, frozen in zip(states, [True] * pool.frozen + [False] * pool.unfrozen, strict=True):
                assert frozen == (state is State.FROZEN)
            assert [slot.since for slot in pool.worn] == sorted(slot.since for slot in pool.worn)
            assert {slot.number for slot in pool.worn} == {number for number, env in world.envs.items() if env.machine.state is State.RESET}
            warm = {number for number, env in world.envs.items() if env.machine.state in FREE - {State.RESET}}
            assert {slot.number for slot in pool.idle} == warm

    @invariant()
    def stale_pools_keep_nobody_idle(self) -> None:
        for world in self.worlds:
            assert not world.stale or not (world.pool.idle or world.pool.worn)
            assert world.stale == (world.pool.phase is not ps.Phase.OPEN)

    @invariant()
    def sandboxes_only_where_they_may_be(self) -> None:
        for world in self.worlds:
            for env in world.envs.values():
                without = {State.STARTING, State.BROKEN, State.RESET, State.RESTARTING}
                assert env.sandbox == (env.machine.state not in without)
                assert env.frozen == (env.machine.state is State.FROZEN)

    def teardown(self) -> None:
        if not hasattr(self, "worlds"):
            return
        for world in list(self.worlds):
            world.tell(pe.Abort(PlatformFault("the end")))
        assert self.worlds == []
        assert self.in_flight == 0
        assert all(self.answers[job.id] == 1 for job in self.jobs)
        for env in self.orphans:
            env.machine.handle(ee.Started(self.at))


Laws.TestCase.settings = settings(max_examples=250, stateful_step_count=60, deadline=None)
TestLaws = Laws.TestCase

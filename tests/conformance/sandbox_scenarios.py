"""The promises of ``sandbox/driver.py`` as scenarios that any driver can be put through.

Plain coroutines without pytest, so that the same file also runs under another user and interpreter (``main``). Each takes a ``World`` and
ends in assertions. ``needs`` says what a driver must give for a scenario to make sense.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import json
import os
import socket
import sys
import tempfile
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from lambent.errors import SandboxFault
from lambent.runtime_api.frames import Frame, FrameReader, FrameType, encode_invoke
from lambent.runtimes.catalogue import Catalogue
from lambent.runtimes.plan import RuntimePlan
from lambent.sandbox.choose import make_driver
from lambent.sandbox.driver import Program, SandboxSpec
from lambent.sandbox.orders import USUAL
from lambent.settings import SandboxSettings

CLIENT = Path(__file__).with_name("sandbox_client.py")
DOOR = 9999
PIDS = 48

FUNCTION = """
import os, sys

def handler(event, context):
    space = {}
    exec(event["code"], space)
    return space.get("result")
"""


class Environment:
    """One sandbox and a conversation with it."""

    def __init__(self, sandbox: Any) -> None:
        self.sandbox = sandbox
        self._reader = FrameReader(1 << 20)
        self._frames: list[Frame] = []

    async def frame(self) -> Frame | None:
        """The next frame; None when the runtime has ended."""
        while not self._frames:
            try:
                data = await asyncio.get_running_loop().sock_recv(self.sandbox.channel, 65_536)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self._frames += self._reader.feed(data)
        return self._frames.pop(0)

    async def ready(self) -> Environment:
        frame = await self.frame()
        assert frame is not None, (await self.sandbox.exited, self.logs())
        assert frame.type == FrameType.NEXT, frame
        return self

    async def send(self, code: str) -> None:
        data = encode_invoke(1, "request", 0, "arn", "", json.dumps({"code": code}).encode())
        await asyncio.get_running_loop().sock_sendall(self.sandbox.channel, data)

    async def call(self, code: str) -> Any:
        """Run ``code`` inside; the value of its ``result``."""
        await self.send(code)
        return await self.answer()

    async def answer(self) -> Any:
        frame = await self.frame()
        assert frame is not None, (await self.sandbox.exited, self.logs())
        assert frame.type == FrameType.RESPONSE, frame.body.decode()
        await self.ready()
        return json.loads(frame.body)

    def logs(self) -> str:
        with contextlib.suppress(BlockingIOError):
            return os.read(self.sandbox.logs, 65_536).decode()
        return ""

    async def log_end(self) -> None:
        """Wait until no process holds the log pipe any more."""
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def readable() -> None:
            if not os.read(self.sandbox.logs, 65_536) and not ended.done():
                ended.set_result(None)

        loop.add_reader(self.sandbox.logs, readable)
        await ended
        loop.remove_reader(self.sandbox.logs)

    def release(self) -> None:
        self.sandbox.channel.close()
        os.close(self.sandbox.logs)


PYTHON = ("/usr/bin/python3", "-S", "-B", "-u", "/var/runtime/client.py")  # a program like any other


class Programs(Catalogue):
    """A catalogue in which two runtimes are programs: one is executed for each environment, the other is started ahead."""

    def plan(self, runtime: str) -> RuntimePlan:
        if runtime not in ("provided.al2", "provided.al2023"):
            return super().plan(runtime)
        files = (("client.py", CLIENT.read_bytes()),)
        warm = PYTHON if runtime == "provided.al2" else ()
        return RuntimePlan(runtime, "", "frames", prefix="/usr", files=files, argv=PYTHON, warm=warm)


def program_of(runtime: str) -> Program | None:
    """What executes the test's client in ``runtime``; None for Python."""
    if not runtime.startswith("provided"):
        return None
    return Program((*PYTHON, "app.handler"), warm=PYTHON if runtime == "provided.al2" else ())


class World:
    """A driver and a folder of functions."""

    def __init__(self, isolation: str, runtime: str, **settings: Any) -> None:
        self.runtime = runtime
        self.is_forked = runtime.startswith("python")
        self.is_warm = runtime == "provided.al2" and isolation == "namespaces" and os.geteuid() == 0
        self._folder = tempfile.TemporaryDirectory(prefix="lambent-suite-")
        self.shared = Path(self._folder.name) / "shared"
        settings.setdefault("file_systems", {"arn": str(self.shared)})
        self.settings = SandboxSettings(isolation=isolation, pids=PIDS, **{"blanks": 1, "egress": "none", **settings})
        self.environments: list[Environment] = []

    async def __aenter__(self) -> World:
        os.chmod(self._folder.name, 0o755)
        self.root = Path(self._folder.name) / "code"
        self.root.mkdir()
        self.shared.mkdir()
        if os.geteuid() == 0:
            os.chown(self.shared, 4321, 4322)
        self.driver: Any = make_driver(self.settings, self.root, Programs(), DOOR, lambda interpreter: [], CLIENT)
        try:
            await self.driver.open()
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.driver.close()
        finally:
            for environment in self.environments:
                environment.release()
            self._folder.cleanup()

    async def clear(self) -> None:
        """For the next scenario: nothing of this one is left but the driver."""
        environments, self.environments = self.environments, []
        await asyncio.gather(*(environment.sandbox.kill() for environment in environments))
        for environment in environments:
            environment.release()

    def function(self, source: str = FUNCTION) -> str:
        folder = self.root / uuid.uuid4().hex
        folder.mkdir()
        (folder / "app.py").write_text(source)
        (folder / "app.py").chmod(0o666)  # so that nothing but a read-only mount protects it
        return str(folder)

    def spec(self, source: str = FUNCTION, **changes: Any) -> SandboxSpec:
        given: dict[str, Any] = {
            "sandbox_id": uuid.uuid4().hex,
            "runtime": self.runtime,
            "handler": "app.handler",
            "code_dir": changes.pop("code_dir", None) or self.function(source),
            "memory_mb": 128,
            "ephemeral_mb": 512,
            "environment": dict(USUAL) if self.runtime == "provided.al2" else {"LANG": "en_US.UTF-8"},
            "program": program_of(self.runtime),
        }
        return SandboxSpec(**{**given, **changes})

    async def start(self, source: str = FUNCTION, **changes: Any) -> Environment:
        environment = Environment(await self.driver.start(self.spec(source, **changes)))
        self.environments.append(environment)
        return environment

    async def started(self, source: str = FUNCTION, **changes: Any) -> Environment:
        return await (await self.start(source, **changes)).ready()

    def control_files(self, name: str) -> list[str]:
        """The cgroup files ``name`` of every sandbox of this world's instance."""
        pattern = f"/sys/fs/cgroup/**/lambent/{self.driver_instance()}-*/*/{name}"
        return [Path(path).read_text().strip() for path in glob.glob(pattern, recursive=True)]

    def driver_instance(self) -> int:
        pid: int = self.driver.launcher_pid
        return pid


Scenario = Callable[[World], Awaitable[None]]
SCENARIOS: dict[str, tuple[Scenario, frozenset[str]]] = {}
# Scenarios that end the driver, or look at all that it has.
ALONE = {
    "a_cancelled_start_leaves_nothing",
    "close_ends_everything",
    "host_folders_are_shared_by_one_owner",
    "nothing_leaks",
    "other_host_folders_are_refused",
    "survives_the_death_of_a_zygote",
    "survives_the_death_of_the_launcher",
    "the_cpu_share_applies_after_init",
}


def scenario(*needs: str) -> Callable[[Scenario], Scenario]:
    def register(function: Scenario) -> Scenario:
        SCENARIOS[function.__name__] = (function, frozenset(needs))  # type: ignore[attr-defined]
        return function

    return register


# -- a life -----------------------------------------------------------------------------------------------------------------------


@scenario()
async def answers(world: World) -> None:
    environment = await world.started()
    for number in range(3):
        assert await environment.call(f"result = {number} + 1") == number + 1
    assert not environment.sandbox.exited.done()


@scenario()
async def reports_a_failed_init(world: World) -> None:
    environment = await world.start("raise RuntimeError('no')")
    frame = await environment.frame()
    assert frame is not None
    assert frame.type == FrameType.INIT_ERROR
    assert json.loads(frame.body)["errorType"] == "RuntimeError"
    assert (await environment.sandbox.exited).code == 1


@scenario()
async def tells_exit_codes(world: World) -> None:
    for status in (0, 7, 255):
        environment = await world.started()
        await environment.send(f"import os; os._exit({status})")
        assert await environment.frame() is None
        ended = await environment.sandbox.exited
        assert (ended.code, ended.signal, ended.out_of_memory) == (status, None, False)


@scenario()
async def tells_signals(world: World) -> None:
    for number in (9, 11, 15):
        environment = await world.started()
        await environment.send(f"import os; os.kill(os.getpid(), {number})")
        ended = await environment.sandbox.exited
        assert (ended.code, ended.signal, ended.out_of_memory) == (None, number, False)


@scenario()
async def ends_with_its_channel(world: World) -> None:
    environment = await world.started()
    environment.sandbox.channel.shutdown(socket.SHUT_RDWR)
    assert (await environment.sandbox.exited).code == 0


@scenario()
async def logs_come_before_frames(world: World) -> None:
    environment = await world.started("import sys; print('from init'); print('error', file=sys.stderr)\n" + FUNCTION)
    text = environment.logs()
    assert "from init\n" in text
    assert "error\n" in text
    for number in range(20):
        await environment.call(f"print('line {number}')")
        assert environment.logs() == f"line {number}\n"


@scenario()
async def environment_variables_are_exact(world: World) -> None:
    given = {"ONE": "1", "EMPTY": "", "UNICODE": "häß→", "LINES": "a\nb=c"}
    environment = await world.started(environment=given)
    inside = await environment.call("import os; result = dict(os.environ)")
    assert {name: inside.get(name) for name in given} == given
    if world.driver.report.driver == "namespaces":
        assert inside == given


@scenario()
async def refuses_code_that_does_not_exist(world: World) -> None:
    try:
        environment = await world.start(code_dir=str(world.root / "nothing"))
    except SandboxFault:
        return
    frame = await environment.frame()  # a driver without mounts finds out later
    assert frame is None or frame.type == FrameType.INIT_ERROR


# -- freezing and killing -----------------------------------------------------------------------------------------------------------


@scenario("freeze")
async def freezes_and_thaws(world: World) -> None:
    environment = await world.started()
    for _ in range(3):
        environment.sandbox.freeze()
        environment.sandbox.freeze()
        await environment.send("result = 'thawed'")
        answer = asyncio.ensure_future(environment.answer())
        done, _ = await asyncio.wait([answer], timeout=0.1)  # to see that nothing happens takes time
        assert not done
        environment.sandbox.thaw()
        environment.sandbox.thaw()
        assert await answer == "thawed"


@scenario()
async def kill_is_idempotent(world: World) -> None:
    environment = await world.started()
    await asyncio.gather(environment.sandbox.kill(), environment.sandbox.kill())
    await environment.sandbox.kill()
    ended = await environment.sandbox.exited
    assert ended.signal == 9
    assert not ended.out_of_memory
    environment.sandbox.freeze()
    environment.sandbox.thaw()
    assert await environment.frame() is None
    await environment.log_end()


@scenario()
async def kill_works_while_frozen(world: World) -> None:
    environment = await world.started()
    environment.sandbox.freeze()
    await environment.sandbox.kill()
    assert (await environment.sandbox.exited).signal == 9
    await environment.log_end()


@scenario()
async def kill_works_during_init(world: World) -> None:
    environment = await world.start("while True: pass")
    await environment.sandbox.kill()
    assert (await environment.sandbox.exited).signal == 9
    await environment.log_end()


@scenario()
async def kill_works_after_the_end(world: World) -> None:
    environment = await world.started()
    await environment.send("import os; os._exit(3)")
    assert (await environment.sandbox.exited).code == 3
    await environment.sandbox.kill()
    assert (await environment.sandbox.exited).code == 3


DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        while True:
            time.sleep(1000)
    os._exit(0)
os.wait()
"""


@scenario()
async def daemons_do_not_outlive_their_sandbox(world: World) -> None:
    killed, ended = await world.started(), await world.started()
    for environment in (killed, ended):
        await environment.call(DAEMON)
    await killed.sandbox.kill()
    await killed.log_end()
    await ended.send("import os; os._exit(0)")
    await ended.sandbox.exited
    await ended.log_end()  # without being asked: the runtime's end is the sandbox's end


@scenario()
async def tmp_is_private_and_writable(world: World) -> None:
    one, two = await world.started(), await world.started()
    write = "import os, tempfile; open(os.path.join(tempfile.gettempdir(), 'mine'), 'w').write('x')"
    await one.call(write)
    assert await one.call("import os, tempfile; result = os.listdir(tempfile.gettempdir())") == ["mine"]
    assert await two.call("import os, tempfile; result = os.listdir(tempfile.gettempdir())") == []


@scenario()
async def many_at_once(world: World) -> None:
    environments = await asyncio.gather(*(world.started() for _ in range(24)))
    answers = await asyncio.gather(*(each.call(f"result = {number}") for number, each in enumerate(environments)))
    assert answers == list(range(24))
    await asyncio.gather(*(each.sandbox.kill() for each in environments))
    for each in environments:
        await each.log_end()


@scenario()
async def a_cancelled_start_leaves_nothing(world: World) -> None:
    await world.driver.prepare(world.runtime)
    tasks = [asyncio.ensure_future(world.start()) for _ in range(6)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    environment = await world.started()
    assert await environment.call("result = 1") == 1
    await environment.sandbox.kill()


@scenario()
async def close_ends_everything(world: World) -> None:
    environments = [await world.started() for _ in range(3)]
    environments[0].sandbox.freeze()
    await world.driver.close()
    for environment in environments:
        assert environment.sandbox.exited.done()
        await environment.log_end()


@scenario()
async def knows_memory_use(world: World) -> None:
    environment = await world.started(memory_mb=256)
    before = environment.sandbox.memory_peak()
    await environment.call("x = bytearray(60 << 20)")
    peak = environment.sandbox.memory_peak()
    if world.driver.report.facts["cgroups"] != "none" or world.driver.report.driver == "process":
        assert before + (40 << 20) < peak < 256 << 20
    await environment.sandbox.kill()
    assert environment.sandbox.memory_peak() >= peak


# -- limits -----------------------------------------------------------------------------------------------------------------------


@scenario("memory")
async def too_much_memory_is_told_apart(world: World) -> None:
    environment = await world.started()
    await environment.send("x = bytearray(b'x') * (300 << 20)")
    ended = await environment.sandbox.exited
    assert ended.out_of_memory
    assert ended.signal == 9


@scenario("memory")
async def memory_within_the_limit_is_given(world: World) -> None:
    environment = await world.started(memory_mb=512)
    assert await environment.call("result = len(bytearray(b'x') * (300 << 20))") == 300 << 20


FORKS = """
import os, time
result = 0
try:
    while result < 500:
        if os.fork() == 0:
            time.sleep(1000)
        result += 1
except OSError:
    pass
"""


@scenario("pids")
async def processes_are_bounded(world: World) -> None:
    environment = await world.started()
    assert 0 < await environment.call(FORKS) < PIDS
    await environment.sandbox.kill()
    await environment.log_end()


@scenario("cpu")
async def the_cpu_share_applies_after_init(world: World) -> None:
    assert "100000" in await cpu_quotas_after_init(world)


async def cpu_quotas_after_init(world: World) -> list[str]:
    environment = await world.started(memory_mb=1769)
    other = await world.started()
    environment.sandbox.settled()
    await other.sandbox.kill()  # requests are served in order
    return world.control_files("cpu.cfs_quota_us") + [text.split()[0] for text in world.control_files("cpu.max")]


# -- isolation ----------------------------------------------------------------------------------------------------------------------


@scenario("isolation")
async def only_tmp_is_writable(world: World) -> None:
    environment = await world.started()
    code = """
import os
result = []
for top in "/ /var/task /usr /etc /var /var/lang /var/runtime /opt /mnt /dev /dev/shm /tmp /proc /var/empty".split():
    try:
        os.close(os.open(top + "/probe", os.O_CREAT | os.O_WRONLY))
        result.append(top)
    except OSError:
        pass
"""
    assert sorted(await environment.call(code)) == ["/dev/shm", "/tmp"]
    code = "try:\n  open('/var/task/app.py', 'a')\nexcept OSError as error:\n  result = error.errno"
    assert await environment.call(code) == 30  # EROFS


@scenario("isolation")
async def tmp_has_the_size_that_was_asked_for(world: World) -> None:
    for size in (512, 700):
        environment = await world.started(ephemeral_mb=size)
        assert await environment.call("import os; s = os.statvfs('/tmp'); result = s.f_blocks * s.f_frsize") == size << 20


@scenario("isolation")
async def privileges_are_gone(world: World) -> None:
    environment = await world.started()
    status = dict(line.split(":\t", 1) for line in (await environment.call("result = open('/proc/self/status').read()")).splitlines())
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert 0 not in {int(uid) for uid in status["Uid"].split()}
    assert await environment.call("import os; result = os.getgroups()") in ([], [990], [65534])


@scenario("isolation")
async def user_ids_are_distinct_and_have_a_name(world: World) -> None:
    code = "import os, pwd, grp; result = [os.getuid(), pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name]"
    seen = [await (await world.started()).call(code) for _ in range(3)]
    assert {name for _, *names in seen for name in names} == {"sbx_user1051"}
    if world.driver.report.facts["uid"] == "one per sandbox":
        assert len({uid for uid, _, _ in seen}) == 3


@scenario("isolation")
async def no_descriptor_leaks_in(world: World) -> None:
    environment = await world.started()
    code = """
import os
result = {}
for fd in range(1024):
    try:
        result[fd] = os.readlink(f"/proc/self/fd/{fd}").split(":")[0]
    except OSError:
        pass
"""
    expected = {"0": "/dev/null", "1": "pipe", "2": "pipe", "3": "socket", "6": "pipe"}
    assert await environment.call(code) == expected
    assert await environment.call("import os\nresult = os.path.sameopenfile(1, 6)"), "the descriptor for whole records is standard output"


@scenario("isolation")
async def other_processes_are_out_of_reach(world: World) -> None:
    environment = await world.started()
    alone = await environment.call("import os; result = [p for p in os.listdir('/proc') if p.isdigit()]")
    assert alone == ["3" if world.is_warm else "2"]  # the blank that furnished a warm interpreter's sandbox is gone
    code = """
import os, signal
result = []
for pid in (1, os.getppid(), -1):
    try:
        os.kill(pid, signal.SIGTERM if pid > 0 else 0)
        result.append(pid)
    except OSError:
        pass
for path in ("/proc/1/root", "/proc/1/fd", "/proc/1/mem", "/proc/1/environ", "/proc/1/cwd"):
    try:
        os.stat(path)
        result.append(path)
    except OSError:
        pass
"""
    reached = await environment.call(code)
    assert not [each for each in reached if each in ("/proc/1/root", "/proc/1/fd", "/proc/1/mem", "/proc/1/environ", "/proc/1/cwd")]
    assert await environment.call("result = 'alive'") == "alive"


@scenario("isolation")
async def the_host_is_out_of_sight(world: World) -> None:
    environment = await world.started()
    assert sorted(await environment.call("import os; result = os.listdir('/var')")) == ["empty", "lang", "runtime", "task"]
    assert await environment.call("import os; result = os.listdir('/mnt') + os.listdir('/opt') + os.listdir('/usr/local')") == []
    code = "import os; result = [p for p in ('/root', '/home', '/work', '/run', '/sys', '/boot', '/lost+found') if os.path.exists(p)]"
    assert await environment.call(code) == []
    assert await environment.call("import socket; result = socket.gethostname()") == "sandbox"
    assert world.root.name not in await environment.call("import os; result = ' '.join(os.listdir('/tmp'))")


@scenario("isolation")
async def dangerous_calls_are_refused(world: World) -> None:
    environment = await world.started()
    code = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
calls = {
    "unshare": lambda: libc.unshare(0x10000000),
    "mount": lambda: libc.mount(b"none", b"/tmp", b"tmpfs", 0, None),
    "umount": lambda: libc.umount2(b"/var/task", 2),
    "chroot": lambda: libc.chroot(b"/tmp"),
    "ptrace": lambda: libc.ptrace(16, 1, 0, 0),
    "setuid": lambda: libc.setresuid(0, 0, 0),
    "hostname": lambda: libc.sethostname(b"x", 1),
    "open_tree": lambda: libc.syscall(428, -100, b"/", 1),
    "keyctl": lambda: libc.syscall(250, 0, -3, 0),
}
result = [name for name, call in calls.items() if call() >= 0]
"""
    assert await environment.call(code) == []


@scenario("isolation")
async def the_network_is_its_own(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(b"\0lambent-suite-" + uuid.uuid4().hex.encode())
        abstract.listen()
        environment = await world.started()
        code = f"""
import socket
result = []
for kind, address in ((socket.AF_INET, ("127.0.0.1", {server.getsockname()[1]})), (socket.AF_UNIX, {abstract.getsockname()!r})):
    with socket.socket(kind) as client:
        try:
            client.connect(address)
            result.append(str(address))
        except OSError:
            pass
"""
        assert await environment.call(code) == []


@scenario("isolation")
async def the_platform_has_a_door(world: World) -> None:
    environment = await world.started()
    listener = environment.sandbox.listener
    assert listener is not None
    await environment.send(f"import socket; c = socket.create_connection(('127.0.0.1', {DOOR})); result = c.recv(10).decode()")
    connection, _ = await asyncio.get_running_loop().sock_accept(listener)
    with connection:
        await asyncio.get_running_loop().sock_sendall(connection, b"hello")
    assert await environment.answer() == "hello"


@scenario("isolation")
async def code_below_a_symbolic_link_is_refused(world: World) -> None:
    (world.root / "link").symlink_to("/etc")
    try:
        await world.start(code_dir=str(world.root / "link"))
    except SandboxFault:
        return
    raise AssertionError("the launcher mounted what lies outside the code directory")


# -- what dies, and what stays ---------------------------------------------------------------------------------------------------------


def machine_state(world: World) -> dict[str, int]:
    """Counts of what a sandbox could leave behind."""
    cgroups = glob.glob(f"/sys/fs/cgroup/**/lambent/{world.driver_instance()}-*/*/", recursive=True)
    return {
        "cgroups": len(cgroups),
        "processes": len(descendants(world.driver_instance())),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "launcher descriptors": sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in descendants(world.driver_instance())[:1]),
    }


def descendants(pid: int) -> list[int]:
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(child), *descendants(int(child))]
    return found


@scenario("isolation")
async def nothing_leaks(world: World) -> None:
    await world.driver.prepare(world.runtime)

    async def rounds(count: int) -> None:
        for number in range(count):
            environment = await world.started()
            if number % 2:
                await environment.send("import os; os._exit(1)")
                await environment.sandbox.exited
            await environment.sandbox.kill()
            environment.release()
            world.environments.remove(environment)

    await rounds(4)
    before = await resting_state(world)
    await rounds(10)
    after = await resting_state(world)
    assert after == before, (before, after)


async def resting_state(world: World) -> dict[str, int]:
    """The machine's state when the launcher has refilled its pool: launcher, zygote, and a shell and a runtime process per blank."""
    wanted = 2 + (3 if world.is_warm else 2) * world.settings.blanks
    state: dict[str, int] = {}
    for _ in range(20):
        for _ in range(500):
            await asyncio.sleep(0.01)  # another process works; there is nothing else to wait for
            last, state = state, machine_state(world)
            if state["processes"] == wanted and state == last:
                break
        if state["processes"] == wanted:
            break
    return state


@scenario("isolation")
async def survives_the_death_of_the_launcher(world: World) -> None:
    for depth in (0, 1):  # the outer process, and the launcher proper
        environment = await world.started()
        outer = world.driver_instance()
        os.kill(([outer, *descendants(outer)])[depth], 9)
        assert (await environment.sandbox.exited).signal == 9
        await environment.sandbox.kill()
        await environment.log_end()
        assert glob.glob(f"/sys/fs/cgroup/**/lambent/{outer}-*", recursive=True) == []
        assert await (await world.started()).call("result = 'again'") == "again"
        assert world.driver_instance() != outer


@scenario("isolation")
async def survives_the_death_of_a_zygote(world: World) -> None:
    environment = await world.started()
    inner = descendants(world.driver_instance())[0]
    zygote = next(
        pid
        for pid in descendants(inner)
        if b"lambent_zygote" in Path(f"/proc/{pid}/cmdline").read_bytes() or Path(f"/proc/{pid}/comm").read_text() == "lambent-carrier\n"
    )
    os.kill(zygote, 9)
    assert (await environment.sandbox.exited).signal == 9
    await environment.sandbox.kill()
    await environment.log_end()
    assert await (await world.started()).call("result = 'again'") == "again"


def abilities(isolation: str, rootless: bool) -> frozenset[str]:
    """What a driver can be held to here."""
    if isolation == "process":
        return frozenset({"freeze"})
    return frozenset({"isolation", "mounts"}) if rootless else frozenset({"isolation", "freeze", "memory", "cpu", "pids", "mounts"})


def main(isolation: str, runtime: str) -> None:
    """Run every scenario that needs no cgroups, as whoever we are; print the names of those that passed."""
    given = abilities(isolation, rootless=True)

    async def run(function: Scenario) -> None:
        async with World(isolation, runtime) as created:
            await asyncio.wait_for(function(created), 60)

    async def run_all(names: list[str]) -> None:
        async with World(isolation, runtime) as shared:
            for name in names:
                print("running", name, flush=True)
                await asyncio.wait_for(SCENARIOS[name][0](shared), 60)
                await shared.clear()
                print("passed", name, flush=True)

    chosen = [name for name, (_, needs) in SCENARIOS.items() if needs <= given]
    asyncio.run(run_all([name for name in chosen if name not in ALONE]))
    for name in set(chosen) & ALONE:
        print("running", name, flush=True)
        asyncio.run(run(SCENARIOS[name][0]))
        print("passed", name, flush=True)


if __name__ == "__main__":
    import sandbox_promises  # registers its scenarios with the module of this name, which is not this one

    sandbox_promises.main(sys.argv[1], sys.argv[2])

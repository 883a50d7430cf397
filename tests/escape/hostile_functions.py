"""Functions that want out. Each attack is a coroutine over a ``World`` (``tests/conformance/sandbox_scenarios.py``): it lets hostile code
loose in a sandbox and ends in assertions that it got nowhere; afterwards the next sandbox must work, on the same driver.

Like the scenarios, plain coroutines without pytest, so that the file also runs as an unprivileged user (``main``). ``needs`` says what of
the machine an attack is about: "limits" are cgroups, "root" a launcher with root.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import sys
import textwrap
import traceback
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))

from sandbox_scenarios import World

from lambent.errors import SandboxFault
from lambent.sandbox.driver import Program

Attack = Callable[[World], Awaitable[None]]
ATTACKS: dict[str, tuple[Attack, frozenset[str]]] = {}

SECRET = "HOSTSECRET_" + uuid.uuid4().hex  # in the node's environment, and so in its memory

# What most attacks share: try many things, and tell by name those that worked.
PRELUDE = """
import ctypes, errno, os, signal, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
worked = []
def attempt(name, action, *arguments):
    try:
        answer = action(*arguments)
    except (OSError, ValueError):
        return None
    if type(answer) is int and answer == -1:
        return None
    worked.append(name)
    return answer
"""


def attack(*needs: str) -> Callable[[Attack], Attack]:
    def register(function: Attack) -> Attack:
        ATTACKS[function.__name__] = (function, frozenset(needs))  # type: ignore[attr-defined]
        return function

    return register


async def next_works(world: World) -> None:
    environment = await world.started()
    assert await environment.call("result = 6 * 7") == 42
    await environment.sandbox.kill()


async def tried(world: World, code: str, **changes: Any) -> list[str]:
    """The names of the attempts in ``code`` that worked."""
    environment = await world.started(**changes)
    names: list[str] = await environment.call(PRELUDE + textwrap.dedent(code) + "\nresult = worked")
    await environment.sandbox.kill()
    return names


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the kernel has no event for these
        await asyncio.sleep(0.01)


def processes_of(uid: int) -> list[int]:
    """Processes of this user on the whole machine, as the host sees them."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if f"\nUid:\t{uid}\t" in Path(f"/proc/{entry}/status").read_text():
                    found.append(int(entry))
    return found


# -- using up ---------------------------------------------------------------------------------------------------------------------


@attack("limits")
async def fork_bomb(world: World) -> None:
    environment = await world.started()
    code = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
    await environment.send(code)
    await until(lambda: any(int(count) >= world.settings.pids - 1 for count in world.control_files("pids.current")))
    await next_works(world)
    await environment.sandbox.kill()
    await environment.log_end()


@attack("limits")
async def memory_bomb(world: World) -> None:
    environment = await world.started()
    await environment.send("held = []\nwhile True: held.append(bytearray(b'x') * (1 << 20))")
    ended = await environment.sandbox.exited
    assert ended.out_of_memory
    assert ended.signal == 9
    assert environment.sandbox.memory_peak() < (128 + 512 + 1) << 20


@attack("limits")
async def memory_bomb_in_children(world: World) -> None:
    environment = await world.started()
    code = """
import os
for _ in range(8):
    if os.fork() == 0:
        held = []
        while True:
            held.append(bytearray(b"x") * (1 << 20))
while True:
    os.wait()
"""
    await environment.send(code)
    with contextlib.suppress(AssertionError):
        await environment.answer()  # the function fails when all its children have died, or dies with them
    assert environment.sandbox.memory_peak() < (128 + 512 + 1) << 20


@attack("limits")
async def memory_bomb_of_shared_memory(world: World) -> None:
    environment = await world.started()
    code = """
import os
fd = os.memfd_create("bomb")
while True:
    os.write(fd, bytes(1 << 20))
"""
    await environment.send(code)
    ended = await environment.sandbox.exited
    assert ended.signal == 9
    assert environment.sandbox.memory_peak() < (128 + 512 + 1) << 20


FILL = """
import errno, os
written = 0
try:
    with open("/tmp/full", "wb", buffering=0) as file:
        while True:
            written += file.write(bytes(1 << 20))
except OSError as error:
    result = [errno.errorcode[error.errno], written >> 20]
"""


@attack("limits")
async def disk_fill(world: World) -> None:
    """On AWS a full ``/tmp`` is the function's own trouble, and takes nothing from its memory."""
    environment = await world.started()
    assert await environment.call(FILL) == ["ENOSPC", 512]
    assert await environment.call("import os; os.unlink('/tmp/full'); result = 'alive'") == "alive"


@attack("limits")
async def disk_fill_with_names(world: World) -> None:
    environment = await world.started()
    code = """
import errno, os
count = 0
try:
    while True:
        os.mkdir(f"/tmp/{count}")
        count += 1
except OSError as error:
    result = [errno.errorcode[error.errno], count]
"""
    answer = await asyncio.wait_for(environment.call(code), 60)
    assert answer[0] in ("ENOSPC", "EDQUOT")
    assert answer[1] <= 512 * 64


@attack()
async def endless_output(world: World) -> None:
    environment = await world.started()
    await environment.send("import os\nwhile True: os.write(1, b'x' * 65536)")
    size = 0
    while size < 4 << 20:
        with contextlib.suppress(BlockingIOError):
            size += len(os.read(environment.sandbox.logs, 1 << 20))
        await asyncio.sleep(0)
    await next_works(world)  # nobody reads any more; the writer waits, and nobody else
    await environment.sandbox.kill()
    await environment.log_end()


@attack()
async def endless_answer(world: World) -> None:
    environment = await world.started()
    await environment.send("import os\nwhile True: os.write(3, b'\\x12' + bytes(65535))")
    await next_works(world)
    await environment.sandbox.kill()
    assert (await environment.sandbox.exited).signal == 9


@attack()
async def spinning_in_init(world: World) -> None:
    source = """
import signal, threading
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
def spin():
    while True:
        pass
for _ in range(4):
    threading.Thread(target=spin).start()
spin()
"""
    environment = await world.start(source)
    await next_works(world)
    await environment.sandbox.kill()
    assert (await environment.sandbox.exited).signal == 9
    await environment.log_end()


# -- staying ----------------------------------------------------------------------------------------------------------------------


@attack("root")
async def outliving_the_sandbox(world: World) -> None:
    environment = await world.started()
    code = """
import os, signal, time
reader, writer = os.pipe()
if os.fork() == 0:
    for number in (1, 2, 15):
        signal.signal(number, signal.SIG_IGN)
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        os.write(writer, b"x")
        os.closerange(0, 1024)  # no pipe that tells of us
        while True:
            time.sleep(1000)
    os._exit(0)
os.wait()
os.read(reader, 1)
result = os.getuid()
"""
    uid = await environment.call(code)
    assert len(processes_of(uid)) == 2
    await environment.sandbox.kill()
    assert processes_of(uid) == []


@attack("root")
async def outliving_the_runtime(world: World) -> None:
    environment = await world.started()
    uid = await environment.call("import os; result = os.getuid()")
    code = "import os, time\nif os.fork() == 0:\n  os.setsid()\n  os.closerange(0, 1024)\n  while True: time.sleep(1000)\nos._exit(0)"
    await environment.send(code)
    await environment.sandbox.exited
    await environment.sandbox.kill()
    assert processes_of(uid) == []


@attack()
async def killing_everything(world: World) -> None:
    other = await world.started()
    environment = await world.started()
    code = """
    for pid in {1, os.getppid() or 1, *range(2, 400), -1} - {os.getpid()}:  # -1: all but the caller
        attempt("", os.kill, pid, signal.SIGKILL)  # what the kernel says does not matter: process 1 is not harmed by its own
    """
    await environment.call(PRELUDE + textwrap.dedent(code))
    assert await environment.call("result = 'alive'") == "alive"
    await environment.send("import os, signal; os.kill(0, signal.SIGKILL)")  # the process group: ours alone, please
    assert (await environment.sandbox.exited).signal == 9
    assert await other.call("result = 'untouched'") == "untouched"


@attack()
async def stopping_the_platform(world: World) -> None:
    usual = os.nice(0)
    other = await world.started()
    code = """
    import errno
    for kind in (os.PRIO_PROCESS, os.PRIO_PGRP, os.PRIO_USER):
        for who in (0, 1):
            try:
                os.setpriority(kind, who, 19)  # of itself it may
            except OSError:
                pass
    attempt("trace 1", libc.ptrace, 16, 1, 0, 0)
    attempt("open 1", lambda: os.open("/proc/1/mem", os.O_RDWR))
    attempt("fast", os.nice, -5)
    attempt("realtime", os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1))
    """
    assert await tried(world, code) == []
    assert await other.call("import os; result = os.nice(0)") == usual
    assert os.nice(0) == usual


# -- looking around ---------------------------------------------------------------------------------------------------------------


@attack()
async def reading_the_host(world: World) -> None:
    secret = Path(world.root).parent / "secret"
    secret.write_text("of the host")
    secret.chmod(0o644)
    places = [
        str(secret),
        str(world.root),
        __file__,
        "/etc/shadow",
        "/etc/sudoers",
        "/etc/gshadow",
        "/root",
        "/home",
        "/run",
        "/sys",
        "/boot",
    ]
    places += ["/var/lib", "/var/log", "/dev/mem", "/dev/kmsg", "/dev/sda", "/dev/vda", "/dev/kvm", "/dev/fuse", "/dev/tty", "/dev/ptmx"]
    places += ["/proc/kcore", "/proc/kmsg", "/proc/1/environ", "/proc/1/maps", "/proc/1/root/etc", "/proc/keys-owner", "/lost+found"]
    code = f"""
    for place in {places!r}:
        for way in ("", "/proc/self/root", "/proc/self/cwd/../../..", "/var/task/../..", "/proc/thread-self/root"):
            attempt(way + place, lambda: os.close(os.open(way + place, os.O_RDONLY)))
    """
    assert await tried(world, code) == []


@attack()
async def reading_other_sandboxes(world: World) -> None:
    victim = await world.started(environment={"LANG": "C", "PASSWORD": "of the victim"})
    await victim.call("open('/tmp/secret', 'w').write('x'); import os; os.chmod('/tmp', 0o777); os.chmod('/tmp/secret', 0o666)")
    await victim.call("import ctypes; l = ctypes.CDLL(None); k = l.shmget(4242, 4096, 0o1666); l.shmat.restype = ctypes.c_void_p")
    code = """
    for folder, _, names in os.walk("/tmp"):
        worked.extend(os.path.join(folder, name) for name in names)
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) not in (os.getpid(), os.getppid()):
            worked.append("/proc/" + entry)
    attempt("shared memory", libc.shmget, 4242, 4096, 0o666)
    worked.extend({"PASSWORD"} & set(os.environ))
    for pid in range(1, 300):
        if pid != os.getpid():
            attempt(f"root of {pid}", os.listdir, f"/proc/{pid}/root/tmp")
            attempt(f"memory of {pid}", lambda: os.open(f"/proc/{pid}/mem", os.O_RDONLY))
    """
    code = code.replace(
        'attempt("environment", lambda: [] [os.environ.get("PASSWORD") is None])', 'worked.extend({"PASSWORD"} & set(os.environ))'
    )
    assert await tried(world, code) == []


@attack()
async def reading_the_memory_it_was_born_with(world: World) -> None:
    """What zygote and launcher knew could still lie in a page. The needle is told by its hash, so that it is not found in the question."""
    digest = hashlib.sha256(SECRET[11:].encode()).hexdigest()
    code = f"""
import hashlib, re
result = 0
pattern = re.compile(b"HOST" + b"SECRET_([0-9a-f]{{32}})")
for line in open("/proc/self/maps"):
    area, flags = line.split()[:2]
    if flags[0] != "r" or line.rstrip().endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
        continue
    start, end = (int(part, 16) for part in area.split("-"))
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        while start < end:
            memory.seek(start)
            try:
                data = memory.read(min(end - start, 1 << 20))
            except OSError:
                break
            start += len(data) or (1 << 20)
            result += sum(hashlib.sha256(found).hexdigest() == {digest!r} for found in pattern.findall(data))
"""
    assert os.environ["LAMBENT_ESCAPE_SECRET"] == SECRET
    assert await (await world.started()).call(code) == 0
    planted = f"import ctypes; keep = ctypes.create_string_buffer({SECRET!r}.encode()); exec({code!r}, globals()); "
    assert await (await world.started()).call(planted + "result = globals()['result']") > 0, "the search finds what is there"


@attack()
async def using_leaked_descriptors(world: World) -> None:
    code = """
    kinds = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            kinds[int(entry)] = os.readlink("/proc/self/fd/" + entry).split(":")[0]
        except OSError:
            pass
    worked.extend(f"{fd} {kind}" for fd, kind in kinds.items() if fd > 3 and not (fd == 6 and os.path.sameopenfile(1, 6)))
    peer = socket.socket(fileno=os.dup(3))
    worked.extend(["peer"] if peer.getpeername() or peer.getsockname() else [])
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    worked.extend(["peer's pid"] if int.from_bytes(credentials[:4], "little") > 1 and
        os.path.exists(f"/proc/{int.from_bytes(credentials[:4], 'little')}/root") else [])
    for line in open("/proc/net/unix").read().splitlines()[1:]:
        if len(line.split()) > 7:
            worked.append(line)
    """
    assert await tried(world, code) == []


# -- climbing ---------------------------------------------------------------------------------------------------------------------


@attack()
async def system_calls_for_the_privileged(world: World) -> None:
    code = """
    machine = os.uname().machine
    numbers = {"x86_64": dict(
        process_vm_readv=310, bpf=321, userfaultfd=323, perf_event_open=298, keyctl=250, add_key=248, request_key=249, kexec_load=246,
        init_module=175, finit_module=313, open_by_handle_at=304, name_to_handle_at=303, fanotify_init=300, kcmp=312, ioperm=173, iopl=172,
        modify_ldt=154, quotactl=179, acct=163, swapon=167, setns=308, pivot_root=155,
    )}
    numbers = dict(
        numbers.get(machine, {}), io_uring_setup=425, open_tree=428, move_mount=429, fsopen=430, clone3=435, pidfd_getfd=438,
        mount_setattr=442, memfd_secret=447,
    )
    for name, number in numbers.items():
        attempt(name, libc.syscall, ctypes.c_long(number), *[ctypes.c_long(0)] * 6)
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000, 0x80):
        attempt(f"unshare {flag:#x}", libc.unshare, flag)
    def cloned(flag):
        pid = libc.syscall(ctypes.c_long({"x86_64": 56}.get(machine, 220)), ctypes.c_long(flag | 17), 0, 0, 0, 0)
        if pid == 0:
            os._exit(0)
        return pid
    for flag in (0x10000000, 0x20000000, 0x10020000):
        attempt(f"clone {flag:#x}", cloned, flag)
    attempt("mount", libc.mount, b"none", b"/tmp", b"tmpfs", 0, None)
    attempt("mount proc", libc.mount, b"proc", b"/tmp", b"proc", 0, None)
    attempt("remount /", libc.mount, b"none", b"/", None, 32 | 4096, None)
    attempt("remount /var/task", libc.mount, b"none", b"/var/task", None, 32 | 4096, None)
    attempt("umount", libc.umount2, b"/var/task", 2)
    attempt("chroot", os.chroot, "/tmp")
    attempt("ptrace", libc.ptrace, 0, 0, 0, 0)
    attempt("hostname", libc.sethostname, b"x", 1)
    attempt("clock", time.clock_settime, time.CLOCK_REALTIME, 0)
    attempt("reboot", libc.reboot, 0x01234567)
    attempt("personality", libc.personality, 0x0400000)
    """
    assert await tried(world, code) == []


@attack()
async def becoming_somebody_else(world: World) -> None:
    code = """
    for name in ("setuid", "setgid", "seteuid", "setegid"):
        attempt(name, getattr(os, name), 0)
    attempt("setresuid", os.setresuid, 0, 0, 0)
    attempt("setgroups", os.setgroups, [0])
    status = {line.partition(":")[0]: line.partition(":")[2].strip() for line in open("/proc/self/status")}
    worked.extend(name for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb") if int(status[name], 16))
    worked.extend(["uid 0"] if "0" in status["Uid"].split() + status["Gid"].split() else [])
    worked.extend([] if status["NoNewPrivs"] == "1" and status["Seccomp"] == "2" else ["privileges can be gained"])
    attempt("uid_map", lambda: os.write(os.open("/proc/self/uid_map", os.O_WRONLY), b"0 0 1"))
    attempt("oom_score_adj", lambda: os.write(os.open("/proc/self/oom_score_adj", os.O_WRONLY), b"-1000"))
    import resource
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_MEMLOCK, resource.RLIMIT_CORE):
        soft, hard = resource.getrlimit(limit)
        if hard != resource.RLIM_INFINITY:
            attempt(f"limit {limit}", resource.setrlimit, limit, (hard + 1, hard + 1))
    """
    assert await tried(world, code) == []


@attack()
async def setuid_programs(world: World) -> None:
    code = """
    import shutil, stat, subprocess
    suid = []
    for folder in ("/usr/bin", "/usr/sbin", "/usr/lib", "/bin", "/sbin", "/var/lang/bin"):
        for parent, folders, names in os.walk(folder):
            for name in names:
                path = os.path.join(parent, name)
                if stat.S_ISREG(os.lstat(path).st_mode) and os.lstat(path).st_mode & (stat.S_ISUID | stat.S_ISGID):
                    suid.append(path)
    for mount in open("/proc/self/mountinfo"):
        fields = mount.split()
        if fields[4].startswith(("/usr", "/tmp", "/var")) or fields[4] == "/":
            worked.extend([] if "nosuid" in fields[5] else [fields[4] + " honours setuid"])
    for path in suid:
        name = os.path.basename(path)
        if name in ("su", "mount", "umount", "passwd", "sudo", "chsh", "newgrp"):
            arguments = {"su": ["-c", "id -u", "root"], "sudo": ["-n", "id", "-u"], "mount": ["-t", "tmpfs", "none", "/tmp"]}.get(name, [])
            done = subprocess.run([path, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
            worked.extend([path] if done.returncode == 0 and name != "newgrp" else [])
    shutil.copy("/usr/bin/id", "/tmp/id")
    os.chmod("/tmp/id", 0o6755)
    done = subprocess.run(["/tmp/id", "-u"], capture_output=True, text=True)
    worked.extend(["own setuid file"] if done.stdout.strip() != str(os.getuid()) else [])
    """
    assert await tried(world, code, memory_mb=512) == []


@attack()
async def making_devices(world: World) -> None:
    code = """
    import stat
    devices = [(stat.S_IFCHR, 1, 1), (stat.S_IFCHR, 1, 3), (stat.S_IFBLK, 254, 0), (stat.S_IFBLK, 8, 0), (stat.S_IFCHR, 10, 232)]
    for kind, major, minor in devices:
        attempt(f"device {major}:{minor}", os.mknod, f"/tmp/{major}-{minor}-{kind}", kind | 0o666, os.makedev(major, minor))
    worked.extend(set(os.listdir("/dev")) - set("null zero full random urandom fd stdin stdout stderr shm".split()))
    """
    assert await tried(world, code) == []


@attack()
async def writing_where_it_may_not(world: World) -> None:
    code = """
    paths = ["/var/task/app.py", "/var/task/new", "/usr/bin/python3", "/etc/passwd", "/etc/resolv.conf", "/var/runtime/lambent_zygote.py"]
    paths += ["/var/lang/x", "/opt/x", "/x", "/mnt/x", "/dev/x", "/proc/1/oom_score_adj", "/proc/sysrq-trigger"]
    paths += ["/proc/irq/default_smp_affinity", "/proc/sys/kernel/hostname", "/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches"]
    paths += ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/ns_last_pid"]
    for path in paths:
        attempt(path, lambda: os.write(os.open(path, os.O_WRONLY | (os.O_CREAT if not path.startswith("/proc") else 0)), b"1"))
    attempt("rename", os.rename, "/var/task/app.py", "/var/task/other.py")
    attempt("unlink", os.unlink, "/var/task/app.py")
    attempt("chmod", os.chmod, "/var/task/app.py", 0o777)
    attempt("utime", os.utime, "/var/task/app.py")
    attempt("link", os.link, "/var/task/app.py", "/tmp/app.py")
    attempt("symlink", os.symlink, "/etc", "/var/task/etc")
    attempt("reopen", lambda: os.open("/proc/self/fd/%d" % os.open("/var/task/app.py", os.O_RDONLY), os.O_RDWR))
    """
    assert await tried(world, code) == []


@attack()
async def leaving_the_root(world: World) -> None:
    code = """
    fd = os.open("/", os.O_RDONLY)
    attempt("chroot", os.chroot, "/tmp")
    top = os.stat("/")
    os.chdir("/")
    for _ in range(40):
        os.chdir("..")
    worked.extend([".."] if os.stat(".").st_ino != top.st_ino or os.stat(".").st_dev != top.st_dev else [])
    os.fchdir(fd)
    seen = os.stat("/proc/self/root/..")
    worked.extend(["root/.."] if (seen.st_dev, seen.st_ino) != (top.st_dev, top.st_ino) else [])
    for name in ("mnt", "pid", "net", "user", "cgroup", "ipc", "uts"):
        for pid in ("1", "self"):
            def enter():
                return libc.setns(os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY), 0)
            attempt(f"{pid} {name}", enter)
    os.symlink("/", "/tmp/root")
    worked.extend(set(os.listdir("/tmp/root")) - set("bin boot dev etc lib lib32 lib64 libx32 mnt opt proc sbin tmp usr var".split()))
    """
    assert await tried(world, code) == []


# -- the network --------------------------------------------------------------------------------------------------------------------


@attack()
async def raw_and_strange_sockets(world: World) -> None:
    code = """
    kinds = [(2, 3, 1), (2, 3, 255), (10, 3, 58), (17, 3, 768), (17, 2, 0), (2, 10, 0), (40, 1, 0), (38, 5, 0), (29, 3, 1), (30, 5, 0)]
    for family, kind, protocol in [*kinds, (16, 3, 12), (16, 3, 9), (16, 3, 15), (15, 3, 2), (44, 3, 0), (31, 3, 1), (21, 5, 0)]:
        attempt(f"socket {family} {kind} {protocol}", socket.socket, family, kind, protocol)
    route = socket.socket(16, 3, 0)
    route.settimeout(5)
    import struct
    link = struct.pack("=BxHiII", 0, 0, 1, 0, 1)  # take the loopback down
    route.send(struct.pack("=IHHII", 16 + len(link), 16, 5, 1, 0) + link)
    worked.extend(["route netlink"] if struct.unpack_from("=i", route.recv(4096), 16)[0] == 0 else [])
    attempt("low port", lambda: socket.socket().bind(("127.0.0.1", 80)) and None)
    """
    assert await tried(world, code) in ([], ["low port"]), "the namespace is its own, ports and all"


@attack()
async def connecting_to_the_host(world: World) -> None:
    name = b"\0lambent-escape-" + uuid.uuid4().hex.encode()
    folder = Path(world.root).parent
    with contextlib.ExitStack() as stack:
        inner = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        outer = stack.enter_context(socket.create_server(("0.0.0.0", 0)))
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(name)
        abstract.listen()
        named = stack.enter_context(socket.socket(socket.AF_UNIX))
        named.bind(str(folder / "s"))
        named.listen()
        addresses = [("127.0.0.1", inner.getsockname()[1])]
        addresses += [(address, outer.getsockname()[1]) for address in own_addresses()]
        code = f"""
        for address in {addresses!r}:
            attempt(str(address), lambda: socket.create_connection(address, 2))
        for address in {[name, str(folder / "s")]!r}:
            attempt(str(address), lambda: socket.socket(socket.AF_UNIX).connect(address))
        for address in ("169.254.169.254", "169.254.170.2", "fd00:ec2::254"):
            attempt(address, lambda: socket.create_connection((address, 80), 2))
        """
        assert await tried(world, code) == []
        for server in (inner, outer, abstract, named):
            server.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                raise AssertionError(f"somebody came to {server.accept()}")


# -- what stands beside the function -------------------------------------------------------------------------------------------------


@attack()
async def an_extension_before_the_runtime(world: World) -> None:
    """While the runtime process waits, what it is made of must be out of reach for the extensions of the same function."""
    probe = """#!/bin/bash
for pid in $(ls /proc | grep -E '^[0-9]+$'); do
  [ "$pid" = $$ ] && continue
  for file in mem environ maps fd/3 root/etc/shadow cwd/x; do
    (exec 4< /proc/$pid/$file) 2> /dev/null && [ "$(readlink /proc/$pid/exe)" ] && echo "read $file of $(tr '\\0' ' ' < /proc/$pid/cmdline)"
  done
  grep -qE '^CapEff:.*[1-9a-f]' /proc/$pid/status 2> /dev/null && echo "privileged $pid"
done
echo done
sleep 1000
"""
    folder = Path(world.function())
    (folder / "extensions").mkdir()
    (folder / "extensions" / "probe").write_text(probe)
    (folder / "extensions" / "probe").chmod(0o755)
    environment = await world.start(opt_dir=str(folder), extensions=("/opt/extensions/probe",), hold=True)
    said = ""
    while "done" not in said:
        with contextlib.suppress(BlockingIOError):
            said += os.read(environment.sandbox.extension_logs, 65_536).decode()
        await asyncio.sleep(0.01)  # another process works; its pipe is not ours to wait at
    assert "privileged" not in said, said
    assert "launcher" not in said, said  # forks of it that have not executed their program yet
    if not world.is_forked and not world.is_warm:
        assert "read mem" not in said, said
    environment.sandbox.release()
    await environment.ready()


@attack("root")
async def links_in_an_image(world: World) -> None:
    """Layers are strangers' folders: a link in one leads nowhere but into the image."""
    layer = world.root / uuid.uuid4().hex
    (layer / "bin").mkdir(parents=True)
    for name in ("etc", "proc", "dev", "tmp", "mnt", "var"):
        (layer / name).symlink_to("/usr")
    (layer / "bin" / "escape").symlink_to("../../../../../../bin/bash")
    (layer / "lib").symlink_to("/proc/1/root/lib")
    for argv in (("/bin/escape",), ("/../../../bin/bash", "-c", "exit 0"), ("/proc/1/root/bin/bash", "-c", "exit 0")):
        environment = await world.start(runtime="", program=Program(argv, "/"), image_layers=(str(layer),))
        assert (await environment.sandbox.exited).code in (126, 127), argv
    outside = world.root / uuid.uuid4().hex
    outside.symlink_to("/usr")
    try:
        await world.start(runtime="", program=Program(("/bin/bash",), "/"), image_layers=(str(outside),))
    except SandboxFault:
        return
    raise AssertionError("a layer outside the code directory was mounted")


def own_addresses() -> list[str]:
    """Every IPv4 address of this machine."""
    from lambent.sandbox.netlink import Netlink

    with Netlink() as link:
        return sorted({socket.inet_ntoa(packed) for packed in link.addresses()})


@attack()
async def connecting_to_another_sandbox(world: World) -> None:
    victim = await world.started()
    await victim.call("import socket, builtins; builtins.keep = [socket.create_server((a, 8080)) for a in ('127.0.0.1', )]")
    code = """
    attempt("loopback", lambda: socket.create_connection(("127.0.0.1", 8080), 2))
    attempt("abstract", lambda: socket.socket(socket.AF_UNIX).connect("\\0victim"))
    """
    await victim.call(
        "import socket, builtins; s = socket.socket(socket.AF_UNIX); s.bind('\\0victim'); s.listen(); builtins.keep.append(s)"
    )
    assert await tried(world, code) == []


def main(runtime: str) -> None:
    """Run every attack that needs neither cgroups nor root, as whoever we are; print the names of those that were withstood."""
    os.environ["LAMBENT_ESCAPE_SECRET"] = SECRET

    async def run(function: Attack) -> None:
        async with World("namespaces", runtime) as world:
            await asyncio.wait_for(function(world), 60)
            await asyncio.wait_for(next_works(world), 20)

    for name, (function, needs) in ATTACKS.items():
        if not needs:
            try:
                asyncio.run(run(function))
                print("withstood", name, flush=True)
            except (AssertionError, OSError, TimeoutError):
                traceback.print_exc()


if __name__ == "__main__":
    main(sys.argv[1])

"""What this machine gives for isolation: facts, each found by trying, and one sentence of advice where something lacks.

A kernel's version says little: distributions switch user namespaces off, containers hide cgroups and forbid mounts, a ``/dev/kvm`` may
belong to a hypervisor that boots no ordinary kernel. So each probe does the thing, in a forked child that ends with it, and takes
milliseconds. Nothing stays behind. For ``lambent doctor`` and whoever must explain why there is no isolation.
"""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import select
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lambent.sandbox import kernel, network, seccomp
from lambent.sandbox.attempt import attempt

NOBODY = 65_534
_KERNEL = (5, 8)
_DESCRIPTORS = 16_384  # about ten for each of a thousand sandboxes, with room
_ALL = kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS | kernel.CLONE_NEWCGROUP
_LIMITS = {"memory": ("memory.max", "memory.limit_in_bytes"), "cpu": ("cpu.max", "cpu.cfs_quota_us"), "pids": ("pids.max", "pids.max")}


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact. ``detail`` says what was seen, ``advice`` what to do about it ("" where all is well)."""

    name: str
    ok: bool
    detail: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A cgroup hierarchy and the directory in it that we live in."""

    is_v2: bool
    controllers: tuple[str, ...]
    directory: str


def detect() -> tuple[Finding, ...]:
    """Every fact, in the order in which they matter. Forks; call it from a process with one thread."""
    hierarchies = find_hierarchies(_read("/proc/self/cgroup"), _read("/proc/self/mountinfo"))
    return (
        _kernel(),
        _root(),
        _user_namespaces(),
        _namespaces(),
        _mounts(),
        _tmpfs(),
        _pidfd(),
        _seccomp(),
        *_cgroups(hierarchies),
        _freezing(hierarchies),
        _egress(),
        _descriptors(),
        _kvm(os.path.exists("/dev/kvm"), os.access("/dev/kvm", os.R_OK | os.W_OK), _read("/proc/cpuinfo"), platform.machine()),
    )


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _try(name: str, action: Callable[[], str], good: str, advice: str) -> Finding:
    tried = attempt(action)
    return Finding(name, True, good) if tried.ok else Finding(name, False, tried.detail, advice)


def _kernel() -> Finding:
    release = platform.release()
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    if numbers >= _KERNEL:
        return Finding("kernel", True, f"Linux {release}")
    return Finding("kernel", False, f"Linux {release}", "use Linux 5.8 or newer; older ones lack calls that the sandbox is built with")


def _root() -> Finding:
    if os.geteuid() == 0:
        return Finding("root", True, "runs as root")
    return Finding("root", False, f"runs as user {os.geteuid()}", "run as root for a user id per sandbox, cgroup limits and egress")


def _enter_user_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _user_namespaces() -> Finding:
    def action() -> str:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
        _enter_user_namespace()
        kernel.unshare(kernel.CLONE_NEWNS)  # what AppArmor forbids while it lets the first call pass
        return ""

    advice = "run as root, or ask the administrator for user namespaces"
    if _read("/proc/sys/kernel/unprivileged_userns_clone").strip() == "0":
        advice = "enable user namespaces: sysctl kernel.unprivileged_userns_clone=1"
    elif _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").strip() == "1":
        advice = "let AppArmor allow user namespaces: sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    elif _read("/proc/sys/user/max_user_namespaces").strip() == "0":
        advice = "enable user namespaces: sysctl user.max_user_namespaces=10000"
    return _try("user namespaces", action, "may be made without root", advice)


def _isolated(then: Callable[[], None]) -> Callable[[], str]:
    """``then`` as it would run in the launcher: in namespaces of its own, by root or in a user namespace."""

    def action() -> str:
        if os.geteuid() != 0:
            _enter_user_namespace()
        kernel.unshare(_ALL)
        kernel.mount("none", "/", "none", kernel.MS_REC | kernel.MS_PRIVATE)
        then()
        return ""

    return action


def _namespaces() -> Finding:
    advice = "in a container, give it SYS_ADMIN (docker run --privileged); else see user namespaces"
    return _try("namespaces", _isolated(lambda: None), "mount, pid, net, ipc, uts and cgroup", advice)


def _mounts() -> Finding:
    def bind() -> None:
        tree = kernel.open_tree("/usr")
        kernel.mount("lambent", "/mnt", "tmpfs", kernel.MS_NOSUID, "size=64k")
        os.mkdir("/mnt/usr")
        kernel.move_mount(tree, "/mnt/usr")
        kernel.restrict_mount("/mnt/usr")
        with contextlib.suppress(OSError):
            os.mkdir("/mnt/usr/lambent-probe")
            os.rmdir("/mnt/usr/lambent-probe")
            raise RuntimeError("a read-only bind mount took a write")

    return _try("mounts", _isolated(bind), "read-only bind mounts hold", "in a container, allow mounts (docker run --privileged)")


def _tmpfs() -> Finding:
    def fill() -> None:
        kernel.mount("lambent", "/tmp", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=64k")
        with open("/tmp/probe", "wb", buffering=0) as file:
            try:
                for _ in range(64):
                    file.write(bytes(4096))
            except OSError:
                return
        raise RuntimeError("a tmpfs of 64 kB took 256 kB")

    return _try("tmpfs", _isolated(fill), "has the size that was asked for", "use a kernel with tmpfs, and allow mounts")


def _pidfd() -> Finding:
    def action() -> str:
        fd = kernel.pidfd_open(os.getpid())
        kernel.setns(fd, kernel.CLONE_NEWUTS) if os.geteuid() == 0 else signal.pidfd_send_signal(fd, 0)
        return ""

    return _try("pidfd", action, "opens, and leads into namespaces", "use Linux 5.8 or newer")


def _seccomp() -> Finding:
    def action() -> str:
        seccomp.load(seccomp.compile_filter(os.uname().machine))
        try:
            os.chroot("/")
        except PermissionError:
            return ""
        if os.geteuid() != 0:
            return ""
        raise RuntimeError("a filter was loaded and does not hold")

    advice = "use a kernel with CONFIG_SECCOMP_FILTER on x86_64 or aarch64"
    return _try("seccomp", action, "a filter can be loaded and holds", advice)


def find_hierarchies(own: str, mounts: str) -> tuple[Hierarchy, ...]:
    """What ``/proc/self/cgroup`` and ``/proc/self/mountinfo`` say: v2 first."""
    paths: dict[str, str] = {}
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller] = path
    found = []
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind not in ("cgroup", "cgroup2"):
            continue
        root, point = left.split()[3:5]
        names = ("",) if kind == "cgroup2" else tuple(name for name in options.split(",") if name in paths)
        if not names or names[0] not in paths:
            continue
        path = paths[names[0]]
        inside = path[len(root) :] if root != "/" and (path + "/").startswith(root + "/") else path
        directory = (point + "/" + inside.strip("/")).rstrip("/")
        if not os.path.isdir(directory):
            directory = point
        if kind == "cgroup2":
            controllers_here = tuple(_read(directory + "/cgroup.controllers").split())
            found.append(Hierarchy(True, controllers_here, directory))
        elif set(names) & {*_LIMITS, "freezer"}:
            found.append(Hierarchy(False, names, directory))
    return tuple(sorted(found, key=lambda hierarchy: not hierarchy.is_v2))


@contextlib.contextmanager
def _child_group(hierarchy: Hierarchy) -> Iterator[str]:
    directory = f"{hierarchy.directory}/lambent-probe-{os.getpid()}"
    os.mkdir(directory)
    try:
        yield directory
    finally:
        for _ in range(100):
            with contextlib.suppress(OSError):  # the dead leave a moment later
                os.rmdir(directory)
                break
            select.select([], [], [], 0.001)


def _cgroups(hierarchies: tuple[Hierarchy, ...]) -> list[Finding]:
    """The layout, and for each controller whether a limit could be set."""
    v1 = any(not hierarchy.is_v2 for hierarchy in hierarchies)
    v2 = any(hierarchy.is_v2 for hierarchy in hierarchies)
    layout = {(True, True): "v1 with v2 beside it", (True, False): "v1", (False, True): "v2", (False, False): "none"}[v1, v2]
    advice = "" if v1 or v2 else "mount a cgroup hierarchy at /sys/fs/cgroup"
    findings = [Finding("cgroups", v1 or v2, layout, advice)]
    for controller, files in _LIMITS.items():
        reasons = []
        for hierarchy in hierarchies:
            if controller not in hierarchy.controllers:
                continue
            why = _limit_trouble(hierarchy, controller, files[0] if hierarchy.is_v2 else files[1])
            if not why:
                findings.append(Finding(f"{controller} limit", True, f"cgroup v{2 if hierarchy.is_v2 else 1} at {hierarchy.directory}"))
                break
            reasons.append(why)
        else:
            detail = "; ".join(reasons) or f"no cgroup hierarchy has the {controller} controller"
            advice = "run as root, or in a delegated cgroup (systemd-run --user -p Delegate=yes --scope)"
            findings.append(Finding(f"{controller} limit", False, detail, advice))
    return findings


def _limit_trouble(hierarchy: Hierarchy, controller: str, file: str) -> str:
    """Why a limit cannot be set, or ""."""
    try:
        with _child_group(hierarchy) as directory:
            if os.access(f"{directory}/{file}", os.W_OK):
                return ""
    except OSError as error:
        return f"{hierarchy.directory}: {error.strerror}"
    if hierarchy.is_v2 and os.access(hierarchy.directory + "/cgroup.subtree_control", os.W_OK):
        return ""  # not handed down yet, and ours to hand down
    return f"{controller} is not handed down in {hierarchy.directory}"


def _freezing(hierarchies: tuple[Hierarchy, ...]) -> Finding:
    """Freeze, thaw and kill a process of our own, by v2 if there is one."""
    usable = [hierarchy for hierarchy in hierarchies if hierarchy.is_v2 or "freezer" in hierarchy.controllers]
    advice = "run as root, or in a delegated cgroup; without, idle functions go on running"
    if not usable:
        return Finding("freeze and kill", False, "neither a v2 hierarchy nor a v1 freezer", advice)
    hierarchy = usable[0]

    def action() -> str:
        with _child_group(hierarchy) as directory:
            return _freeze_someone(directory) if hierarchy.is_v2 else _freeze_someone_v1(directory)

    tried = attempt(action)
    return Finding("freeze and kill", tried.ok, tried.detail, "" if tried.ok else advice)


def _sleeper(directory: str) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            signal.pause()
        finally:
            os._exit(0)
    try:
        _write(directory + "/cgroup.procs", str(pid))
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    return pid


def _freeze_someone(directory: str) -> str:
    pid = _sleeper(directory)
    try:
        events = os.open(directory + "/cgroup.events", os.O_RDONLY)
        _write(directory + "/cgroup.freeze", "1")
        while b"frozen 1" not in os.pread(events, 4096, 0):
            poller = select.poll()
            poller.register(events, select.POLLPRI)
            if not poller.poll(1000):
                raise OSError("a process did not freeze within a second")
        if os.path.exists(directory + "/cgroup.kill"):
            _write(directory + "/cgroup.kill", "1")
            return "cgroup.freeze and cgroup.kill"
        _write(directory + "/cgroup.freeze", "0")
        return "cgroup.freeze; killing by pid namespace (cgroup.kill came with Linux 5.14)"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _freeze_someone_v1(directory: str) -> str:
    pid = _sleeper(directory)
    try:
        _write(directory + "/freezer.state", "FROZEN")
        _write(directory + "/freezer.state", "THAWED")
        return "v1 freezer; killing by pid namespace"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _egress() -> Finding:
    ability = network.probe()
    if ability.full:
        return Finding("egress", True, "virtual interfaces, forwarding and nftables work")
    return Finding("egress", False, "functions reach the platform only", "; ".join(ability.missing))


def _descriptors() -> Finding:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    detail = "unlimited descriptors" if hard == resource.RLIM_INFINITY else f"{hard} descriptors"
    if hard == resource.RLIM_INFINITY or hard >= _DESCRIPTORS:
        return Finding("open files", True, detail)
    return Finding("open files", False, detail, f"raise the hard limit for a thousand environments: ulimit -Hn {4 * _DESCRIPTORS}")


def _kvm(exists: bool, usable: bool, cpuinfo: str, machine: str) -> Finding:
    """Whether hardware virtualisation may be hoped for. The device alone proves nothing: some hosts' boots no ordinary kernel."""
    flags = {flag for line in cpuinfo.splitlines() if line.startswith(("flags", "Features")) for flag in line.split(":", 1)[-1].split()}
    advice = "for code that nobody trusts use a host with hardware virtualisation, or gVisor; namespaces do not need it"
    if not exists:
        return Finding("kvm", False, "there is no /dev/kvm", advice)
    if machine == "x86_64" and not flags & {"vmx", "svm"}:
        detail = "/dev/kvm exists, but the CPU shows neither vmx nor svm, so an ordinary kernel would not boot in it"
        return Finding("kvm", False, detail, advice)
    if not usable:
        return Finding("kvm", False, "/dev/kvm exists, but may not be opened", "add the user to the group kvm")
    return Finding("kvm", True, "/dev/kvm opens and the CPU has the extensions; only booting something in it would prove more")

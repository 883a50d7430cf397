"""Control groups: limits, freezing and killing, on either layout of the kernel.

A machine has v2, v1, or v1 with an empty v2 tree beside it, and what this module uses of each is the same short list:

| | v2 (all of it, or beside v1 for freezing and killing) | v1 |
|---|---|---|
| memory limit | ``memory.max`` | ``memory.limit_in_bytes`` |
| memory peak | ``memory.peak`` | ``memory.max_usage_in_bytes`` |
| OOM count | ``memory.events`` | ``memory.oom_control`` |
| CPU share | ``cpu.max`` | ``cpu.cfs_quota_us`` |
| processes | ``pids.max`` | ``pids.max`` |
| freeze | ``cgroup.freeze`` | ``freezer.state`` |
| kill | ``cgroup.kill`` | none: whoever owns the pid namespace kills |

Everything lives in ``<hierarchy>/<our own cgroup>/lambent/<instance>/<sandbox>``; where our own cgroup does not allow it, root falls
back on the hierarchy's root. An *instance* is named after the process that owns it, so that a later start recognises what a ``kill -9``
left behind. Nothing outside ``lambent`` is ever touched.

Attaching a process waits for a grace period of the kernel (16 ms when alone), so nobody here attaches: the blank that is to be held
writes "0" into the descriptors of ``Leaf.attach_points`` itself, long before it is needed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

CPU_PERIOD_US = 100_000
_CONTROLLERS = ("memory", "cpu", "pids")


def vcpus(memory_mb: int, mb_per_vcpu: int = 1769) -> float:
    """The CPU share that goes with ``memory_mb``; by default as much as AWS gives (contract 03 §6)."""
    return memory_mb / mb_per_vcpu


def instance_name(pid: int) -> str:
    """The name of the sub-tree that process ``pid`` owns: pid, start time in ticks, pid namespace."""
    return f"{pid}-{_start_time(pid)}-{os.stat('/proc/self/ns/pid').st_ino}"


def _start_time(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[19])
    except OSError:
        return 0


def _is_dead(instance: str) -> bool:
    """Whether the owner of ``instance`` is known to have ended. A name from another pid namespace says nothing."""
    parts = instance.split("-")
    if len(parts) != 3 or not all(part.isdigit() for part in parts) or int(parts[2]) != os.stat("/proc/self/ns/pid").st_ino:
        return False
    return _start_time(int(parts[0])) != int(parts[1])


def _write(path: str, text: str) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, text.encode())
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _field(text: str, name: str) -> int:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


class Leaf:
    """The cgroups of one sandbox."""

    __slots__ = ("_cpu", "_freezer", "_memory", "_pids", "_v2_limits", "dirs")

    def __init__(self, dirs: list[str], memory: str, cpu: str, pids: str, freezer: str, v2_limits: bool) -> None:
        self.dirs = dirs
        self._memory = memory
        self._cpu = cpu
        self._pids = pids
        self._freezer = freezer
        self._v2_limits = v2_limits

    def attach_points(self) -> list[int]:
        """Open descriptors; a process that writes "0" into each is held by this leaf."""
        return [os.open(directory + "/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for directory in self.dirs]

    def limit_memory(self, size: int) -> None:
        """Set the most that processes of the sandbox may use together, bytes."""
        if self._memory and self._v2_limits:
            _write(self._memory + "/memory.max", str(size))
            _write(self._memory + "/memory.swap.max", "0")
            _write(self._memory + "/memory.oom.group", "1")
        elif self._memory:
            _write(self._memory + "/memory.limit_in_bytes", str(size))
            _write(self._memory + "/memory.memsw.limit_in_bytes", str(size))

    def limit_cpu(self, share: float) -> None:
        """Set the share of one CPU, 1.0 for a whole one."""
        if not self._cpu:
            return
        quota = max(1_000, int(share * CPU_PERIOD_US))
        if self._v2_limits:
            _write(self._cpu + "/cpu.max", f"{quota} {CPU_PERIOD_US}")
            _write(self._cpu + "/cpu.max.burst", str(quota))
        else:
            _write(self._cpu + "/cpu.cfs_period_us", str(CPU_PERIOD_US))
            _write(self._cpu + "/cpu.cfs_quota_us", str(quota))
            _write(self._cpu + "/cpu.cfs_burst_us", str(quota))

    def limit_pids(self, count: int) -> None:
        if self._pids:
            _write(self._pids + "/pids.max", str(count))

    def freeze_file(self) -> tuple[str, bytes, bytes]:
        """Path, what to write to freeze, what to write to thaw. An empty path where the machine cannot freeze."""
        if not self._freezer:
            return "", b"", b""
        if self._freezer.startswith("v1:"):
            return self._freezer[3:] + "/freezer.state", b"FROZEN", b"THAWED"
        return self._freezer + "/cgroup.freeze", b"1", b"0"

    def peak_file(self) -> str:
        if not self._memory:
            return ""
        for name in ("memory.peak", "memory.current") if self._v2_limits else ("memory.max_usage_in_bytes",):
            if os.path.exists(f"{self._memory}/{name}"):
                return f"{self._memory}/{name}"
        return ""

    @property
    def memory_dir(self) -> str:
        """The directory of the memory controller, or "" where there is none."""
        return self._memory

    def peak(self) -> int:
        path = self.peak_file()
        return int(_read(path) or 0) if path else 0

    def oom_kills(self) -> int:
        """How many processes of the sandbox the kernel has killed for memory."""
        if not self._memory:
            return 0
        return _field(_read(self._memory + ("/memory.events" if self._v2_limits else "/memory.oom_control")), "oom_kill")

    def kill(self) -> None:
        """Kill what the kernel lets us kill at once, and thaw what could not die otherwise."""
        if self._freezer.startswith("v1:"):
            _write(self._freezer[3:] + "/freezer.state", "THAWED")
        elif self._freezer and not _write(self._freezer + "/cgroup.kill", "1"):
            _write(self._freezer + "/cgroup.freeze", "0")

    def remove(self) -> bool:
        """Remove the directories. False while the kernel still holds one of them."""
        gone = True
        for directory in self.dirs:
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                pass
            except OSError:
                gone = False
        return gone


class Cgroups:
    """The sub-tree of one instance in every hierarchy that may be used. ``facts`` and ``missing`` tell what that came to."""

    def __init__(self, instance: str, root: str = "") -> None:
        """``root`` is prefixed to ``/proc`` and to mount points, for tests."""
        self._instance = instance
        self._bases: dict[str, str] = {}  # controller, or "v2", to the directory that holds "lambent"
        self._v2_limits = False
        self.missing: list[str] = []
        self._discover(root)
        self.facts = {"cgroups": self._layout()}

    def _discover(self, root: str) -> None:
        own: dict[str, str] = {}
        for line in _read(root + "/proc/self/cgroup").splitlines():
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                own[controller or "v2"] = path.removesuffix("/lambent-node")
        for line in _read(root + "/proc/self/mountinfo").splitlines():
            left, _, right = line.partition(" - ")
            kind, _, options = right.split(" ", 2)
            if kind not in ("cgroup", "cgroup2"):
                continue
            mount_root, point = left.split()[3:5]
            names = ["v2"] if kind == "cgroup2" else [name for name in options.split(",") if name in (*_CONTROLLERS, "freezer")]
            for name in names:
                if name not in own or name in self._bases:
                    continue
                base = self._base(root + point, mount_root, own[name], name == "v2")
                if base:
                    self._bases[name] = base
        if "v2" in self._bases and "freezer" in self._bases:
            self._leave(self._bases.pop("freezer"), 1)  # not needed
        self._v2_limits = "v2" in self._bases and all(
            name in _read(f"{self._bases['v2']}/lambent/cgroup.controllers").split() for name in ("memory", "pids")
        )
        if self._v2_limits:
            self._bases = {"v2": self._bases["v2"]}
            lacking = [name for name in _CONTROLLERS if name not in _read(f"{self._bases['v2']}/lambent/cgroup.controllers").split()]
        else:
            lacking = [name for name in _CONTROLLERS if name not in self._bases]
        for name in lacking:
            self.missing.append(f"no {name} limit: no cgroup of the {name} controller can be made here")
        if "v2" not in self._bases and "freezer" not in self._bases:
            self.missing.append("no freezing by cgroup: neither a v2 hierarchy nor a v1 freezer can be used here")

    def _base(self, point: str, mount_root: str, own: str, is_v2: bool) -> str:
        """The directory under which ``lambent`` could be made, or "" for none."""
        if mount_root != "/" and (own + "/").startswith(mount_root + "/"):
            own = own[len(mount_root) :] or "/"
        candidates = [point + own.rstrip("/")] if ".." not in own else []
        if os.geteuid() == 0 and point not in candidates:
            candidates.append(point)
        fallback = ""
        for base in candidates:
            if not _make_tree(f"{base}/lambent/{self._instance}"):
                continue
            if not is_v2 or self._enable(base):
                return base
            fallback = fallback or base
        return fallback

    def _enable(self, base: str) -> bool:
        """Hand the v2 controllers down to the leaves. False where none can be handed down; freezing needs none."""
        available = _read(base + "/cgroup.controllers").split()
        wanted = [name for name in _CONTROLLERS if name in available]
        if not wanted:
            return False
        if not _write(base + "/cgroup.subtree_control", " ".join("+" + name for name in wanted)):
            inside = {int(pid) for pid in _read(base + "/cgroup.procs").split()}
            if not inside or not inside <= {os.getpid(), os.getppid()}:
                return False
            # Only leaves may hold processes once controllers are handed down; this cgroup is all ours, so we move into a leaf.
            with contextlib.suppress(OSError):
                os.mkdir(base + "/lambent-node")
            for pid in inside:
                _write(base + "/lambent-node/cgroup.procs", str(pid))
            if not _write(base + "/cgroup.subtree_control", " ".join("+" + name for name in wanted)):
                return False
        text = " ".join("+" + name for name in wanted)
        return _write(base + "/lambent/cgroup.subtree_control", text) and _write(
            f"{base}/lambent/{self._instance}/cgroup.subtree_control", text
        )

    def _layout(self) -> str:
        if self._v2_limits:
            return "v2"
        if not any(name in self._bases for name in _CONTROLLERS):
            return "v2, freezing only" if "v2" in self._bases else "none"
        return "v1 with v2 beside it" if "v2" in self._bases else "v1"

    @property
    def limits_memory(self) -> bool:
        return self._v2_limits or "memory" in self._bases

    @property
    def limits_pids(self) -> bool:
        return self._v2_limits or "pids" in self._bases

    @property
    def usable(self) -> bool:
        return bool(self._bases)

    def make(self, name: str) -> Leaf:
        """Create the cgroups of the sandbox ``name``. Raises ``OSError``."""
        dirs: dict[str, str] = {}
        made: list[str] = []
        for controller, base in self._bases.items():
            directory = f"{base}/lambent/{self._instance}/{name}"
            if directory not in made:  # v1 hierarchies may share a mount ("cpu,cpuacct")
                os.mkdir(directory)
                made.append(directory)
            dirs[controller] = directory
        v2 = dirs.get("v2", "")
        if self._v2_limits:
            return Leaf(made, v2, v2, v2, v2, True)
        freezer = v2 or ("v1:" + dirs["freezer"] if "freezer" in dirs else "")
        return Leaf(made, dirs.get("memory", ""), dirs.get("cpu", ""), dirs.get("pids", ""), freezer, False)

    def sweep(self) -> int:
        """Kill and remove what instances whose owner has ended left behind; returns how many instances."""
        swept = set()
        for base in set(self._bases.values()):
            for instance in _children(base + "/lambent"):
                if instance != self._instance and _is_dead(instance):
                    swept.add(instance)
                    _destroy(f"{base}/lambent/{instance}")
        return len(swept)

    def close(self) -> None:
        """Remove the instance's own sub-tree, and ``lambent`` where it is empty then."""
        for base in set(self._bases.values()):
            self._leave(base)

    def _leave(self, base: str, rounds: int = 500) -> None:
        _destroy(f"{base}/lambent/{self._instance}", rounds)
        with contextlib.suppress(OSError):
            os.rmdir(base + "/lambent")


def _make_tree(path: str) -> bool:
    for _ in range(10):
        try:
            os.makedirs(path, exist_ok=True)
        except FileNotFoundError:
            continue  # another instance has just removed the parent as its last one
        except OSError:
            return False
        return True
    return False


def _children(directory: str) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _destroy(tree: str, rounds: int = 500) -> None:
    """Kill what runs in ``tree`` (two levels: sandboxes and their instance) and remove it, for 5 s at most."""
    for _ in range(rounds):
        for directory in [*(f"{tree}/{child}" for child in _children(tree)), tree]:
            _write(directory + "/freezer.state", "THAWED")
            if not _write(directory + "/cgroup.kill", "1"):
                for pid in _read(directory + "/cgroup.procs").split():
                    if int(pid) > 0:  # 0 is a process of a foreign pid namespace
                        with contextlib.suppress(OSError):
                            os.kill(int(pid), signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        if not os.path.exists(tree):
            return
        time.sleep(0.01)  # the dead of another process are reaped when the kernel gets to it

"""The launcher: the only privileged part of Lambent, and as little as possible.

The node starts it as a program of its own (``bootstrap``), with one end of a ``SOCK_SEQPACKET`` pair. It speaks JSON messages there and
hands descriptors over with them; ``namespaces.py`` is the other side. The launcher makes a pid namespace for everything that it will
start and is process 1 of it, so that its end, however it comes, is the end of every zygote and sandbox. It holds no secret, parses
nothing that comes from a sandbox but short messages of blanks that have not seen user code yet, and mounts only what lies below the
code directory it was configured with.

    node                                     launcher
      ── configure {code_root, blanks, ...} ─▶
      ◀───────────── hello {facts, missing} ──
      ── prepare {runtime, executable, ...} ─▶      start a zygote, fill its pool
      ◀──────────────── prepared {runtime} ──      or unprepared {runtime, message}
      ── start {id, runtime, code, ...} ─────▶
      ◀──────────────────────── started {id} ──     with descriptors, named in "carries"; or refused {id, message}
      ── settled {id} ───────────────────────▶     init is over: the CPU share applies
      ◀──── exited {id, status, oom, peak, fault} ──      the runtime process has ended
      ◀─ extension_exited {id, number, status}      so has an extension
      ── terminate {id} ─────────────────────▶      SIGTERM to the runtime process
      ── socket {id, number} ────────────────▶      a TCP socket in the sandbox's network, please
      ◀──────────────────── socket {number} ──      with it, or without if there is none any more
      ── forget {id} ────────────────────────▶      nobody will want the /tmp of that sandbox
      ── kill {id} ──────────────────────────▶
      ◀─────────────────────────── gone {id} ──     nothing of the sandbox exists any more

The loop blocks only on writing to the node. It reads the monotonic clock itself, for two coarse things: not to make blanks while starts
come in, and to end the CPU boost of an initialisation that does not end.

Without root the same code runs in a user namespace of its own, which maps one user id; what that cannot give (cgroups that are not
delegated, a user id per sandbox) is told in the report.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from lambent.errors import LambentError
from lambent.sandbox import kernel
from lambent.sandbox.assignment import Assignment
from lambent.sandbox.bytecode import Bytecodes, Pipe
from lambent.sandbox.cell import Cell
from lambent.sandbox.cgroups import Cgroups, instance_name, vcpus
from lambent.sandbox.machine_code import executable, in_memory
from lambent.sandbox.memory_keeper import MemoryWatch
from lambent.sandbox.nursery import QUIET_S, Nursery
from lambent.sandbox.shell import ShellStarter

if TYPE_CHECKING:
    from lambent.sandbox.cgroups import Leaf
    from lambent.sandbox.network import Network

MAX_MESSAGE = 1 << 20
HOST_NAME = "sandbox"
_BOOST_S = 10.0
_REMOVE_TRIES = 500
_SHELL_UID = 900_000  # above the first uid; shells share it, since they run nothing


def bootstrap(fd: int) -> NoReturn:
    """The outer process: sweep what dead instances left, make the namespaces, start the launcher proper and wait for it."""
    node = socket.socket(fileno=fd)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the launcher proper hears of the node's end, and tidies up before it ends
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGTERM)
    instance = instance_name(os.getpid())
    try:
        Cgroups(instance).sweep()
        waiter = in_memory("lambent-wait", executable([("wait4", 0xFFFFFFFF, 0, 0)]))
        rootless = _isolate()
        if os.fork() == 0:
            _start_inner(node, instance, rootless)
        node.close()
        os.execve(waiter, ["lambent-launcher"], {})
    except (OSError, KeyError) as error:
        _complain(node, f"this machine does not let us make namespaces: {error}")
        os._exit(1)


def _isolate() -> bool:
    """Make mount and pid namespaces, in a user namespace where root is lacking. True for the latter."""
    flags = kernel.CLONE_NEWNS | kernel.CLONE_NEWPID
    if os.geteuid() == 0:
        with contextlib.suppress(PermissionError):
            kernel.unshare(flags)
            return False
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    # Having namespaces of its own at all, the launcher may return to them from those that it makes for shells.
    kernel.unshare(flags | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS)
    return True


def _start_inner(node: socket.socket, instance: str, rootless: bool) -> NoReturn:
    """Process 1 of the new pid namespace. Executed anew, so that its memory belongs to the new user namespace, too."""
    try:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        kernel.mount("none", "/", "none", kernel.MS_REC | kernel.MS_SLAVE)
        kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
        node.set_inheritable(True)
        source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        arguments = f"{node.fileno()}, {instance!r}, {rootless}"
        code = f"import sys; sys.path.insert(0, {source!r}); from lambent.sandbox.launcher import main; main({arguments})"
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", code])
    except OSError as error:
        _complain(node, f"this machine does not let us prepare a sandbox: {error}")
    os._exit(1)


def _complain(node: socket.socket, message: str) -> None:
    with contextlib.suppress(OSError):
        node.send(json.dumps({"event": "fatal", "message": message}).encode())


def main(fd: int, instance: str, rootless: bool) -> NoReturn:
    """The launcher proper."""
    kernel.set_name("lambent-launch")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    launcher = Launcher(socket.socket(fileno=fd), instance, rootless)
    try:
        launcher.open()
        launcher.run()
    except (OSError, LambentError) as error:
        _complain(launcher.node, str(error))
        raise
    finally:
        launcher.close()
    os._exit(0)


class Launcher:
    """The loop, the node's requests, and what all nurseries share."""

    def __init__(self, node: socket.socket, instance: str, rootless: bool) -> None:
        self.rootless = rootless
        self.cgroups = Cgroups(instance)
        self.first_uid = 100_000_000 + int(instance.partition("-")[0]) % 1_000 * 1_000_000  # two instances share no user id
        self.program = b""
        self.resolv_conf = ""
        self.blanks = 0
        self.pids = 1024
        self.mb_per_vcpu = 1769  # 0: nobody's share of the CPU is limited
        self.closing = False
        self.code_root = "/"
        self.node = node
        self.file_systems: list[str] = []  # folders of the host that may be seen at /mnt
        self._network: Network | None = None
        self._nurseries: dict[str, Nursery] = {}
        self._assigned: dict[str, Cell] = {}  # by the node's id
        self._shells: dict[int, Cell] = {}  # by the shell's pid
        self._boosted: list[tuple[float, str]] = []  # (deadline, node id)
        self._memory_mb: dict[str, int] = {}
        self.kept_tmps: dict[str, int] = {}  # detached mounts that outlived their sandboxes, by the node's id
        self._letter = bytearray(MAX_MESSAGE)  # what the node writes; made anew each time, its pages would be, too
        self.bytecodes = Bytecodes(self)
        self._memory = MemoryWatch()
        self._stubborn: list[tuple[int, Cell]] = []
        self._free_slots: list[int] = []
        self._slots = 0
        self._made = 0
        self._last_start = 0.0
        self._poller = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}

    # -- life ------------------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Take the configuration and answer hello."""
        bell, clapper = socket.socketpair()
        for end in (bell, clapper):
            end.setblocking(False)
        self._bell, self._clapper = bell, clapper
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(clapper.fileno(), warn_on_full_buffer=False)
        self.watch(bell, self._on_bell)
        order = json.loads(self.node.recv(MAX_MESSAGE) or b"{}")
        if not order:
            self.closing = True
            return
        self.code_root, self.blanks, self.pids = order["code_root"], order["blanks"], order["pids"]
        self.mb_per_vcpu = order["mb_per_vcpu"]
        self.file_systems = order["file_systems"]
        missing = list(self.cgroups.missing)
        self._starter = ShellStarter(HOST_NAME, order["port"], 0 if self.rootless else self.first_uid + _SHELL_UID)
        self._load_filter(missing)
        egress = self._open_network(order["egress"], missing)
        if self.rootless:
            missing.append("without root all sandboxes share one user id of the host; only namespaces keep them apart")
        facts = {
            **self.cgroups.facts,
            "uid": "shared, in user namespaces" if self.rootless else "one per sandbox",
            "seccomp": "on" if self.program else "off",
            "egress": egress,
        }
        self.tell({"event": "hello", "facts": facts, "missing": missing})
        self.watch(self.node, self._on_node)

    def _load_filter(self, missing: list[str]) -> None:
        from lambent.sandbox import seccomp

        try:
            self.program = seccomp.compile_filter(os.uname().machine)
        except (KeyError, ValueError) as error:
            missing.append(f"no system call filter for this machine: {error}")

    def _open_network(self, egress: str, missing: list[str]) -> str:
        if egress == "none":
            return "none"
        if self.rootless:
            if egress == "full":
                raise OSError("egress is set to full, which needs root")
            missing.append("no egress without root: functions reach the platform's endpoint only")
            return "none"
        from lambent.sandbox.network import Network

        network = Network(egress)
        network.open()
        if network.mode == "none":
            missing.append(network.reason)
            return "none"
        self._network = network
        self.resolv_conf = network.resolv_conf
        return f"full, {network.reason}"

    def _on_sigterm(self, *_: object) -> None:
        self.closing = True

    def run(self) -> None:
        """Serve until the node goes away or a signal says stop."""
        while not self.closing:
            for fd, _ in self._poller.poll(self._patience()):
                reader = self._readers.get(fd)
                if reader is not None:
                    reader()
            self._tick()

    def close(self) -> None:
        """Kill everything, wait for it, and remove what is ours on the machine."""
        self.closing = True
        for nursery in self._nurseries.values():
            nursery.stop()
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, 0)
                self._reaped(pid, status)
        if self._network is not None:
            self._network.close()
        self.cgroups.close()

    # -- the loop --------------------------------------------------------------------------------------------------------------

    def watch(self, channel: socket.socket | MemoryWatch | Pipe, reader: Callable[[], None]) -> None:
        self._readers[channel.fileno()] = reader
        self._poller.register(channel, select.EPOLLIN)

    def unwatch(self, channel: socket.socket | Pipe) -> None:
        if self._readers.pop(channel.fileno(), None) is not None:
            self._poller.unregister(channel)

    def is_quiet(self, quiet_s: float = QUIET_S) -> bool:
        """Whether no start came in just now, so that making blanks delays nobody."""
        return time.monotonic() - self._last_start >= quiet_s

    def _patience(self) -> float:
        """How long the loop may sleep, seconds; -1 for ever."""
        waits = []
        if self._stubborn:
            waits.append(0.01)
        if self._boosted:
            waits.append(max(0.0, self._boosted[0][0] - time.monotonic()))
        next_look = self._memory.patience(time.monotonic())
        if next_look >= 0:
            waits.append(next_look)
        quiet = [nursery.quiet_s for nursery in self._nurseries.values() if nursery.wants_blanks()]
        if quiet:
            waits.append(max(0.001, min(quiet) - (time.monotonic() - self._last_start)))
        return min(waits, default=-1)

    def _tick(self) -> None:
        now = time.monotonic()
        while self._boosted and self._boosted[0][0] <= now:
            self._settle(self._boosted[0][1])
            heapq.heappop(self._boosted)
        for node_id in self._memory.due(now):
            cell = self._assigned[node_id]
            if cell.stage == "assigned":
                cell.out_of_memory = True
                cell.nursery.kill(cell)
        if self._stubborn:
            waiting, self._stubborn = self._stubborn, []
            for tries, cell in waiting:
                self._remove(cell, tries)
        if self.is_quiet():
            for nursery in self._nurseries.values():
                nursery.refill()

    def _on_bell(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._bell.recv(4096)
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self._reaped(pid, status)

    def _reaped(self, pid: int, status: int) -> None:
        cell = self._shells.pop(pid, None)
        if cell is not None:
            cell.shell_pid = 0
            cell.nursery.kill(cell)  # a shell does not end by itself
            self.bury(cell)
            return
        for nursery in self._nurseries.values():
            if nursery.zygote_pid == pid:
                nursery.zygote_pid = 0
            nursery.on_end(pid, status)  # orphans of a dead zygote come to us

    # -- the node's requests ---------------------------------------------------------------------------------------------------

    def _on_node(self) -> None:
        try:
            size = self.node.recv_into(self._letter)
        except OSError:
            size = 0
        if not size:
            self.closing = True
            return
        message = json.loads(self._letter[:size])
        {
            "prepare": self._prepare,
            "start": self._start,
            "settled": self._on_settled,
            "terminate": self._terminate,
            "socket": self._make_socket,
            "forget": self._forget,
            "kill": self._kill,
        }[message["op"]](message)

    def _prepare(self, order: dict[str, Any]) -> None:
        nursery = self._nurseries.get(order["runtime"])
        if nursery is not None:
            if nursery.is_given_up:
                nursery.revive()
            elif nursery.is_ready and not nursery.lacks_blanks():
                self.tell_prepared(order["runtime"])
            nursery.is_weary = False
            return
        nursery = self._nurseries[order["runtime"]] = Nursery(self, order["runtime"], order)
        try:
            nursery.start()
        except OSError as error:
            del self._nurseries[order["runtime"]]
            self.tell({"event": "unprepared", "runtime": order["runtime"], "message": str(error)})

    def _start(self, order: dict[str, Any]) -> None:
        nursery = self._nurseries.get(order["runtime"])
        if nursery is None:
            self._refuse(order["id"], f"runtime {order['runtime']} has not been prepared")
            return
        self._last_start = time.monotonic()
        cell = nursery.take(order)
        if cell is not None:
            self.assign(cell, order)
            return
        nursery.waiting.append(order)
        if nursery.is_given_up:
            nursery.revive()
        nursery.refill()

    def _refuse(self, node_id: str, message: str) -> None:
        self.tell({"event": "refused", "id": node_id, "message": message})

    def _on_settled(self, order: dict[str, Any]) -> None:
        self._settle(order["id"])

    def _settle(self, node_id: str) -> None:
        memory_mb = self._memory_mb.pop(node_id, 0)
        cell = self._assigned.get(node_id)
        if memory_mb and self.mb_per_vcpu and cell is not None and cell.leaf is not None:
            cell.leaf.limit_cpu(vcpus(memory_mb, self.mb_per_vcpu))

    def _terminate(self, order: dict[str, Any]) -> None:
        cell = self._assigned.get(order["id"])
        if cell is not None:
            cell.nursery.signal_runtime(cell, signal.SIGTERM)

    def _make_socket(self, order: dict[str, Any]) -> None:
        cell = self._assigned.get(order["id"])
        made = None
        if cell is not None and cell.shell_pid:
            with contextlib.suppress(OSError):
                made = self._starter.open_socket(cell.shell_pid)
        answer = {"event": "socket", "number": order["number"]}
        if made is None:
            self.tell(answer)
            return
        with made:
            self.tell(answer, [made.fileno()])

    def _kill(self, order: dict[str, Any]) -> None:
        cell = self._assigned.get(order["id"])
        if cell is not None:
            cell.nursery.kill(cell)
            return
        for nursery in self._nurseries.values():
            for request in nursery.waiting:
                if request["id"] == order["id"]:
                    nursery.waiting.remove(request)
                    break
        self.tell({"event": "gone", "id": order["id"]})

    def _forget(self, order: dict[str, Any]) -> None:
        cell = self._assigned.get(order["id"])
        if cell is not None:
            cell.keeps_tmp = False
        kept = self.kept_tmps.pop(order["id"], -1)
        if kept >= 0:
            os.close(kept)

    def assign(self, cell: Cell, order: dict[str, Any]) -> None:
        """Turn the blank ``cell`` into the environment that ``order`` asks for."""
        refusal = Assignment(self, cell, order).carry_out()
        if refusal:
            self._refuse(order["id"], refusal)
            cell.nursery.pool.append(cell)
        elif cell.fault:
            cell.nursery.kill(cell)

    def limit_memory(self, leaf: Leaf, order: dict[str, Any]) -> None:
        """The hard limit holds files in /tmp as well; the watch keeps the two apart. Raises ``OSError``."""
        memory_mb, ephemeral_mb = order["memory_mb"], order["ephemeral_mb"]
        leaf.limit_memory(memory_mb + ephemeral_mb << 20)
        if leaf.memory_dir:
            self._memory.add(order["id"], leaf.memory_dir, memory_mb, ephemeral_mb, time.monotonic())

    def note_assigned(self, cell: Cell, order: dict[str, Any]) -> None:
        """``cell`` serves ``order`` from now on."""
        node_id = order["id"]
        cell.stage, cell.node_id = "assigned", node_id
        cell.keeps_tmp = order["keep_tmp"]
        self._assigned[node_id] = cell
        self._memory_mb[node_id] = order["memory_mb"]
        heapq.heappush(self._boosted, (time.monotonic() + _BOOST_S, node_id))
        if cell.pidfd >= 0:
            os.close(cell.pidfd)
            cell.pidfd = -1

    # -- what nurseries need ---------------------------------------------------------------------------------------------------

    def tell(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        try:
            socket.send_fds(self.node, [json.dumps(message).encode()], fds or [])
        except OSError:
            self.closing = True

    def tell_prepared(self, runtime: str) -> None:
        self.tell({"event": "prepared", "runtime": runtime})

    def tell_exited(self, cell: Cell, status: int, oom: bool) -> None:
        peak = cell.leaf.peak() if cell.leaf is not None else 0
        self.tell({"event": "exited", "id": cell.node_id, "status": status, "oom": oom, "peak": peak, "fault": cell.fault})

    def take_slot(self) -> tuple[str, int]:
        """A name that was never used and the lowest slot (user id, network index) that is free."""
        self._made += 1
        if self._free_slots:
            return str(self._made), heapq.heappop(self._free_slots)
        self._slots += 1
        return str(self._made), self._slots - 1

    def free_slot(self, slot: int) -> None:
        heapq.heappush(self._free_slots, slot)

    def uid_of(self, slot: int) -> int:
        return 0 if self.rootless else self.first_uid + slot

    def start_shell(self, cell: Cell) -> None:
        """Start process 1 of ``cell``. Raises ``OSError``."""
        shell = self._starter.start()
        cell.shell_pid, cell.pidfd, cell.door, cell.api = shell.pid, shell.pidfd, shell.door, shell.api
        self._shells[shell.pid] = cell

    def wire(self, cell: Cell) -> None:
        """Give the sandbox its way out; the kernel takes it away with the network namespace. Raises ``OSError``."""
        if self._network is not None:
            from lambent.sandbox.network import CAPACITY

            namespace = os.open(f"/proc/{cell.shell_pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._network.attach(namespace, int(cell.name) % CAPACITY)
            finally:
                os.close(namespace)

    def bury(self, cell: Cell) -> None:
        """If all of ``cell`` is dead, remove what is left of it and tell the node."""
        if cell.shell_pid or (cell.runtime_pid and cell.runtime_status is None):
            return
        self._remove(cell, 0)

    def _remove(self, cell: Cell, tries: int) -> None:
        if cell.leaf is not None and not cell.leaf.remove() and tries < _REMOVE_TRIES:
            self._stubborn.append((tries + 1, cell))
            return
        if cell.node_id and cell.keeps_tmp and cell.kept_tmp >= 0:
            self.kept_tmps[cell.node_id], cell.kept_tmp = cell.kept_tmp, -1
        cell.nursery.forget(cell)
        self.free_slot(cell.slot)
        if cell.node_id:
            del self._assigned[cell.node_id]
            self._memory_mb.pop(cell.node_id, None)
            self._memory.remove(cell.node_id)
            self.tell({"event": "gone", "id": cell.node_id})

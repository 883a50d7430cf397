"""The nursery of one runtime: its zygote, and its sandboxes from the first fork until somebody gets them.

A sandbox as the launcher sees it is a ``Cell``: the pids of shell and runtime, the cgroups, the user id. Its stages:

    fork ──▶ setup ──▶ blank ──▶ assigned ──▶ dying ──▶ (gone)

``fork``: process 1 sleeps in its namespaces, and the zygote has been asked for the runtime process. ``setup``: that process joins its
cgroups and builds its mounts. ``blank``: it waits, ready, in the pool. From any stage a cell may die: then the shell is killed, and the
kernel kills everything in its pid namespace. A cell is gone, and its user id free for another, when both the shell and the runtime
process have been reaped.

Requests that find no blank wait for the next one that becomes ready, whoever it was made for.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, NoReturn

from lambent.sandbox import kernel, rootfs

if TYPE_CHECKING:
    from lambent.sandbox.cgroups import Leaf
    from lambent.sandbox.launcher import Launcher

BLANK_TMP_MB = 512
_IN_THE_MAKING = 6  # at once; more would only make each of them slower
_TRIES = 3  # zygotes or cells that fail in a row before requests are refused


class Cell:
    """One sandbox, from its shell to its end."""

    __slots__ = (
        "control",
        "door",
        "fault",
        "killed_by_node",
        "leaf",
        "name",
        "node_id",
        "nursery",
        "out_of_memory",
        "pidfd",
        "runtime_pid",
        "runtime_status",
        "shell_pid",
        "slot",
        "stage",
    )

    def __init__(self, nursery: Nursery, name: str, slot: int, leaf: Leaf | None) -> None:
        self.nursery = nursery
        self.name = name
        self.slot = slot
        self.leaf = leaf
        self.stage = "fork"
        self.node_id = ""  # the id of the request that it serves
        self.killed_by_node = False
        self.fault = ""
        self.out_of_memory = False  # and killed for it by us; what the kernel kills is told by its count
        self.shell_pid = 0  # 0 once reaped
        self.runtime_pid = 0  # 0 before the fork is known
        self.runtime_status: int | None = None  # wait status once reaped
        self.pidfd = -1
        self.door: socket.socket | None = None  # the listening socket inside
        self.control: socket.socket | None = None

    def close_descriptors(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        if self.door is not None:
            self.door.close()
            self.door = None


class Nursery:
    """One zygote and the sandboxes that were born from it. Driven by the launcher's loop."""

    def __init__(self, launcher: Launcher, runtime: str, order: dict[str, Any]) -> None:
        self.runtime = runtime
        self._launcher = launcher
        self._order = order
        self.cells: dict[str, Cell] = {}
        self.by_runtime_pid: dict[int, Cell] = {}
        self.pool: deque[Cell] = deque()
        self.waiting: deque[dict[str, Any]] = deque()  # start requests
        self._forking: deque[Cell] = deque()  # in the order of the requests to the zygote
        self._making = 0
        self._control: socket.socket | None = None
        self.zygote_pid = 0
        self.is_ready = False
        self._failures = 0
        self.is_weary = False  # cells have failed; no more are made until one is asked for
        self._complaint = ""

    # -- the zygote ------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the zygote."""
        launcher = self._launcher
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ear, mouth = socket.socketpair()  # what the zygote prints; not a file, since children must not take their output for seekable
        plan = self._plan()
        pid = os.fork()
        if pid == 0:
            _become_zygote(plan, theirs, mouth, self._order.get("library_path", ""))
        theirs.close()
        mouth.close()
        launcher.watch(ear, lambda: self._on_print(ear))
        self.zygote_pid, self._control, self._complaint = pid, ours, ""
        ours.send(launcher.program or b"\0")
        launcher.watch(ours, self._on_zygote)

    def _plan(self) -> rootfs.RootPlan:
        launcher, order = self._launcher, self._order
        files = [("lambent_runtime_client.py", order["client"])]
        files += [
            (f"lambent_{name}.py", f"{os.path.dirname(__file__)}/{name}.py") for name in ("zygote", "blank", "kernel", "seccomp", "packing")
        ]
        contents = []
        for name, path in files:
            with open(path, "rb") as file:
                contents.append((name, file.read()))
        return rootfs.RootPlan(
            executable=order["executable"],
            prefix=order["prefix"],
            version=tuple(order["version"]),
            packages=tuple((name, path) for name, path in order["packages"]),
            files=tuple(contents),
            first_uid=launcher.first_uid,
            resolv_conf=launcher.resolv_conf,
            rootless=launcher.rootless,
        )

    def _on_print(self, ear: socket.socket) -> None:
        """Keep the end of what the zygote says; it is of interest only when it does not start."""
        text = ear.recv(4096)
        if text:
            self._complaint = (self._complaint + text.decode(errors="replace"))[-2000:]
        else:
            self._launcher.unwatch(ear)
            ear.close()

    def _on_zygote(self) -> None:
        assert self._control is not None
        try:
            data = self._control.recv(65_536)
        except OSError:
            data = b""
        if not data:
            self._zygote_gone()
            return
        message = json.loads(data)
        if "forked" in message:
            self._on_forked(message["forked"], message.get("fault", ""))
        elif "ended" in message:
            self.on_runtime_end(*message["ended"])
        elif "ready" in message:
            self.is_ready, self._failures = True, 0
            if not self._launcher.blanks:
                self._launcher.tell_prepared(self.runtime)
            self.refill()
        elif "fault" in message:
            self._complaint += message["fault"]

    def _zygote_gone(self) -> None:
        """Its children die with it, by their parent-death signal; a new one starts with the next request."""
        assert self._control is not None
        self._launcher.unwatch(self._control)
        self._control.close()
        self._control = None
        if self.zygote_pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.zygote_pid, signal.SIGKILL)
        self.is_ready = False
        self.pool.clear()
        self._forking.clear()
        for cell in list(self.cells.values()):
            self.kill(cell)
        self._failures += 1
        if self._failures < _TRIES and not self._launcher.closing:
            self.start()
        else:
            self._refuse(f"the zygote of {self.runtime} does not start: {self._complaint.strip() or 'it says nothing'}")

    def _refuse(self, message: str) -> None:
        self._launcher.tell({"event": "unprepared", "runtime": self.runtime, "message": message})
        while self.waiting:
            self._launcher.tell({"event": "refused", "id": self.waiting.popleft()["id"], "message": message})

    @property
    def is_given_up(self) -> bool:
        return self._control is None

    def revive(self) -> None:
        """Try again after a refusal."""
        if self._control is None:
            self._failures, self.is_weary = 0, False
            self.start()

    # -- making cells ----------------------------------------------------------------------------------------------------------

    def refill(self) -> None:
        """Bring as many cells under way as requests and the pool call for."""
        if not self.is_ready or self._launcher.closing:
            return
        wanted = len(self.waiting)
        if self._launcher.is_quiet() and not self.is_weary:
            wanted += max(0, self._launcher.blanks - len(self.pool))
        while self._making < min(wanted, _IN_THE_MAKING):
            try:
                self._make()
            except OSError as error:
                self._failed(str(error))
                return

    def lacks_blanks(self) -> bool:
        return len(self.pool) + self._making < self._launcher.blanks

    def wants_blanks(self) -> bool:
        """Whether the loop should come back to make some as soon as it is quiet."""
        return self.is_ready and not self.is_weary and self.lacks_blanks()

    def _make(self) -> None:
        launcher = self._launcher
        name, slot = launcher.take_slot()
        leaf = None
        try:
            leaf = launcher.cgroups.make(name) if launcher.cgroups.usable else None
            cell = Cell(self, name, slot, leaf)
            launcher.start_shell(cell)
        except OSError:
            if leaf is not None:
                leaf.remove()
            launcher.free_slot(slot)
            raise
        self.cells[name] = cell
        self._making += 1
        self._request_fork(cell)
        try:
            launcher.wire(cell)
        except OSError as error:
            self._cell_failed(cell, f"no network: {error}")

    def _request_fork(self, cell: Cell) -> None:
        launcher = self._launcher
        assert self._control is not None
        cell.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        launcher.watch(cell.control, lambda: self._on_control(cell))
        if cell.leaf is not None:
            cell.leaf.limit_pids(launcher.pids)
        doors = cell.leaf.attach_points() if cell.leaf is not None else []
        config = {"uid": launcher.uid_of(cell.slot), "rootless": launcher.rootless, "pids": launcher.pids, "tmp_mb": BLANK_TMP_MB}
        self._forking.append(cell)
        try:
            socket.send_fds(self._control, [json.dumps(config).encode()], [cell.pidfd, theirs.fileno(), *doors])
        except OSError as error:
            cell.fault = f"the zygote is gone: {error}"  # _on_zygote hears of it too
        finally:
            theirs.close()
            for fd in doors:
                os.close(fd)

    def _on_forked(self, pid: int, fault: str) -> None:
        cell = self._forking.popleft()
        cell.runtime_pid = pid
        if not pid:
            self._cell_failed(cell, fault)
            return
        self.by_runtime_pid[pid] = cell
        if cell.stage == "fork":  # it may have been quicker to say that it is blank
            cell.stage = "setup"

    def _on_control(self, cell: Cell) -> None:
        assert cell.control is not None
        try:
            data = cell.control.recv(4096, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        message = json.loads(data) if data else {}
        if "fault" in message:
            cell.fault = message["fault"]
        elif "blank" in message and cell.stage != "dying":
            self._made(cell)
        elif not data:  # sealed before user code, or dead
            self._launcher.unwatch(cell.control)
            cell.control.close()
            cell.control = None
            if cell.stage != "assigned":
                self._cell_failed(cell, "the runtime process ended before it was assigned")

    def _made(self, cell: Cell) -> None:
        cell.stage = "blank"
        self._making -= 1
        self._failures, self.is_weary = 0, False
        if self.waiting:
            self._launcher.assign(cell, self.waiting.popleft())
        else:
            self.pool.append(cell)
            if len(self.pool) >= self._launcher.blanks:
                self._launcher.tell_prepared(self.runtime)
        self.refill()

    def _cell_failed(self, cell: Cell, why: str) -> None:
        if cell.stage != "dying":
            cell.fault = cell.fault or why
            self.kill(cell)

    def _failed(self, why: str) -> None:
        self._failures += 1
        if self._failures >= _TRIES:
            self._failures, self.is_weary = 0, True
            self._refuse(f"no sandbox can be made: {why}")
        else:
            self.refill()

    # -- the end of cells --------------------------------------------------------------------------------------------------------

    def kill(self, cell: Cell) -> None:
        """Begin the end of ``cell``, whatever its stage."""
        if cell.stage == "dying":
            return
        was, cell.stage = cell.stage, "dying"
        if was == "blank" and cell in self.pool:
            self.pool.remove(cell)
        if cell.leaf is not None:
            cell.leaf.kill()
        if cell.shell_pid:
            os.kill(cell.shell_pid, signal.SIGKILL)
        cell.close_descriptors()
        if was in ("fork", "setup"):
            self._making -= 1
            self._failed(cell.fault or "a sandbox ended while it was made")

    def on_runtime_end(self, pid: int, status: int) -> None:
        """The runtime process has been reaped, by the zygote or, where that is dead, by the launcher."""
        cell = self.by_runtime_pid.pop(pid, None)
        if cell is None:
            return
        cell.runtime_status = status
        if cell.control is not None:
            self._on_control(cell)  # its last words may still be on the way
        oom = cell.out_of_memory or (cell.leaf is not None and cell.leaf.oom_kills() > 0)
        if cell.node_id:
            self._launcher.tell_exited(cell, status, oom)
        self.kill(cell)
        self._launcher.bury(cell)

    def forget(self, cell: Cell) -> None:
        """``cell`` is gone."""
        if cell.control is not None:
            self._launcher.unwatch(cell.control)
            cell.control.close()
            cell.control = None
        del self.cells[cell.name]

    def stop(self) -> None:
        """Kill the zygote and every cell."""
        for cell in list(self.cells.values()):
            self.kill(cell)
        if self.zygote_pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.zygote_pid, signal.SIGKILL)


def _become_zygote(plan: rootfs.RootPlan, control: socket.socket, mouth: socket.socket, library_path: str) -> NoReturn:
    """In the forked child: into the new root, then the interpreter."""
    try:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        rootfs.enter(plan)
        keep = control.detach()
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(mouth.fileno(), 1)
        os.dup2(mouth.fileno(), 2)
        os.dup2(keep, 3)
        kernel.close_range(4)
        environment = {"PATH": "/var/lang/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
        if library_path:
            environment["LD_LIBRARY_PATH"] = library_path
        program = plan.inner_executable()
        os.execve(program, [program, "-u", "/var/runtime/lambent_zygote.py", "3"], environment)
    except BaseException as error:  # the child of a fork must not return into the launcher's loop
        with contextlib.suppress(OSError):
            (control if control.fileno() >= 0 else socket.socket(fileno=3)).send(json.dumps({"fault": str(error)}).encode())
    os._exit(1)

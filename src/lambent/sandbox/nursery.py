"""The nursery of one runtime: its zygote, and its sandboxes from the first fork until somebody gets them.

Its sandboxes are cells (``cell.py``). Where a runtime can be started before its function is known (``warm``), every blank of it has an
interpreter waiting beside it. One that must know at its start how much memory its function has (``{memory_mb}`` in its command line) is
started for functions of the size that was last asked for.

Requests that find no blank wait for the next one that becomes ready, whoever it was made for.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any

from lambent.sandbox import origins
from lambent.sandbox.cell import HELPER, RUNTIME, WARM, Cell

if TYPE_CHECKING:
    from lambent.sandbox.launcher import Launcher

BLANK_TMP_MB = 512
QUIET_S = 0.02  # after a start before blanks are made
_SIZED_QUIET_S = 0.25  # the same for warm interpreters that fit one memory size: they are big, and a start without one takes long
_IN_THE_MAKING = 6  # at once; more would only make each of them slower
_WARM_BLANKS = 2  # at most, where each holds an interpreter of tens of megabytes
_FIRST_SIZE_MB = 512  # until somebody has asked for another
_TRIES = 3  # zygotes or cells that fail in a row before requests are refused


class Nursery:
    """One zygote and the sandboxes that were born from it. Driven by the launcher's loop."""

    def __init__(self, launcher: Launcher, runtime: str, order: dict[str, Any]) -> None:
        self.runtime = runtime
        self._launcher = launcher
        self._order = order
        self.cells: dict[str, Cell] = {}
        self.by_pid: dict[int, Cell] = {}  # the zygote's living children
        self.pool: deque[Cell] = deque()
        self.waiting: deque[dict[str, Any]] = deque()  # start requests
        self._forking: deque[Cell] = deque()  # in the order of the requests to the zygote
        self._making = 0
        self._control: socket.socket | None = None
        self.zygote_pid = 0
        self.is_ready = False
        self._failures = 0
        self.is_weary = False  # cells have failed; no more are made until one is asked for
        self._warm_failures = 0
        self._size_mb = _FIRST_SIZE_MB
        self._complaint = ""

    # -- the zygote ------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the zygote."""
        launcher = self._launcher
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ear, mouth = socket.socketpair()  # what the zygote prints; not a file, since children must not take their output for seekable
        plan = origins.root_plan(launcher, self._order)
        pid = os.fork()
        if pid == 0:
            origins.become(self._order, plan, theirs, mouth)
        theirs.close()
        mouth.close()
        launcher.watch(ear, lambda: self._on_print(ear))
        self.zygote_pid, self._control, self._complaint = pid, ours, ""
        ours.send(launcher.program or b"\0")
        launcher.watch(ours, self._on_zygote)

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
            self.on_end(*message["ended"])
        elif "ready" in message:
            self.is_ready, self._failures = True, 0
            if not self._pool_size:
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

    def take(self, order: dict[str, Any]) -> Cell | None:
        """A blank for a start request, if there is one: rather one whose warm interpreter can serve it."""
        self._size_mb = order["memory_mb"]
        if not self.pool:
            return None
        cell = next((each for each in self.pool if each.warm_mb in (0, self._size_mb)), self.pool[0])
        self.pool.remove(cell)
        return cell

    # -- making cells ----------------------------------------------------------------------------------------------------------

    def refill(self) -> None:
        """Bring as many cells under way as requests and the pool call for."""
        if not self.is_ready or self._launcher.closing:
            return
        wanted = len(self.waiting)
        if self._launcher.is_quiet(self.quiet_s) and not self.is_weary:
            wanted += max(0, self._pool_size - len(self.pool))
        while self._making < min(wanted, _IN_THE_MAKING):
            try:
                self._make()
            except OSError as error:
                self._failed(str(error))
                return

    @property
    def _pool_size(self) -> int:
        return min(self._launcher.blanks, _WARM_BLANKS) if self._order.get("warm") else self._launcher.blanks

    @property
    def quiet_s(self) -> float:
        """How long after a start it is left in peace."""
        return _SIZED_QUIET_S if any("{memory_mb}" in part for part in self._order.get("warm", ())) else QUIET_S

    def lacks_blanks(self) -> bool:
        return len(self.pool) + self._making < self._pool_size

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
        cell.control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # siblings of the blank are known by their pid only
        launcher.watch(cell.control, lambda: self._on_control(cell))
        if cell.leaf is not None:
            cell.leaf.limit_pids(launcher.pids)
        doors = cell.leaf.attach_points() if cell.leaf is not None else []
        config: dict[str, Any] = {
            "uid": launcher.uid_of(cell.slot),
            "rootless": launcher.rootless,
            "pids": launcher.pids,
            "tmp_mb": BLANK_TMP_MB,
        }
        if self._order.get("warm") and self._warm_failures < _TRIES and not launcher.rootless:  # one's namespaces would nest
            warm = [part.replace("{memory_mb}", str(self._size_mb)) for part in self._order["warm"]]
            cell.warm_mb = self._size_mb if warm != self._order["warm"] else 0
            config.update(warm=warm, warm_env=self._order["warm_env"])
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
        if not pid:
            self._cell_failed(cell, fault)
            return
        if cell.runtime_pid:  # it has been quick enough to have handed over already
            self._adopt(cell, pid, HELPER)
        else:
            cell.runtime_pid = pid
            self._adopt(cell, pid, RUNTIME)
        if cell.stage == "fork":  # it may have been quicker to say that it is blank
            cell.stage = "setup"

    def _adopt(self, cell: Cell, pid: int, part: int) -> None:
        self.by_pid[pid] = cell
        cell.parts[pid] = part

    def _on_control(self, cell: Cell) -> None:
        while cell.control is not None:
            try:
                data, fds, pid = _receive(cell.control)
            except BlockingIOError:
                return
            except OSError:
                data, fds, pid = b"", [], 0
            message = json.loads(data) if data else {}
            if "fault" in message:
                cell.fault = message["fault"]
            elif "tmp" in message:
                cell.forget_tmp()
                cell.kept_tmp = fds[0]
            elif "born" in message:
                self._adopt(cell, pid, message["born"])
                if message["born"] == WARM:
                    cell.warm_pid = pid
                    self._perhaps_made(cell)
            elif "blank" in message:
                cell.is_furnished, cell.warm_ends = True, fds
                self._perhaps_made(cell)
            elif not data:  # sealed before user code, or dead
                self._hung_up(cell)

    def _hung_up(self, cell: Cell) -> None:
        assert cell.control is not None
        self._launcher.unwatch(cell.control)
        cell.control.close()
        cell.control = None
        if cell.stage != "assigned":
            self._cell_failed(cell, "the runtime process ended before it was assigned")

    def _perhaps_made(self, cell: Cell) -> None:
        """A blank is ready when it has said so, and its warm interpreter, if it has one, has said that it is there."""
        if cell.is_furnished and bool(cell.warm_ends) == bool(cell.warm_pid) and cell.stage in ("fork", "setup"):
            self._made(cell)

    def _made(self, cell: Cell) -> None:
        cell.stage = "blank"
        self._making -= 1
        self._failures, self.is_weary = 0, False
        if self.waiting:
            self._launcher.assign(cell, self.waiting.popleft())
        else:
            self.pool.append(cell)
            if len(self.pool) >= self._pool_size:
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

    def on_end(self, pid: int, status: int) -> None:
        """A child of the zygote has been reaped, by the zygote or, where that is dead, by the launcher."""
        if pid not in self.by_pid:  # whoever is new says so before it can end, but on another socket
            for other in list(self.cells.values()):
                self._on_control(other)
        cell = self.by_pid.pop(pid, None)
        if cell is None:
            return
        self._on_control(cell)  # its last words may still be on the way
        part = cell.parts.pop(pid)
        if part == RUNTIME or (part == HELPER and status):
            self._on_runtime_end(cell, status)
        elif part == WARM and cell.stage in ("setup", "blank"):
            self._warm_failures += 1
            self._cell_failed(cell, "the waiting interpreter ended")
        elif part >= 0:
            cell.living_extensions -= 1
            if cell.stage == "assigned":
                self._launcher.tell({"event": "extension_exited", "id": cell.node_id, "number": part, "status": status})
                self._end_if_empty(cell)

    def _on_runtime_end(self, cell: Cell, status: int) -> None:
        if cell.runtime_status is None:
            cell.runtime_status = status
            oom = cell.out_of_memory or (cell.leaf is not None and cell.leaf.oom_kills() > 0)
            if cell.node_id:
                self._launcher.tell_exited(cell, status, oom)
        self._end_if_empty(cell)
        self._launcher.bury(cell)

    def _end_if_empty(self, cell: Cell) -> None:
        """The runtime's end is the end of all, except that extensions live to hear of it; whoever owns the sandbox kills it then."""
        if cell.runtime_status is not None and cell.living_extensions <= 0:
            self.kill(cell)

    def signal_runtime(self, cell: Cell, number: int) -> None:
        """Send a signal to the runtime process, if it lives."""
        if self._control is not None and cell.runtime_pid and cell.runtime_status is None:
            with contextlib.suppress(OSError):
                self._control.send(json.dumps({"signal": [cell.runtime_pid, number]}).encode())

    def forget(self, cell: Cell) -> None:
        """``cell`` is gone."""
        if cell.control is not None:
            self._launcher.unwatch(cell.control)
            cell.control.close()
            cell.control = None
        cell.close_descriptors()
        cell.forget_tmp()
        for pid in cell.parts:
            self.by_pid.pop(pid, None)
        del self.cells[cell.name]

    def stop(self) -> None:
        """Kill the zygote and every cell."""
        for cell in list(self.cells.values()):
            self.kill(cell)
        if self.zygote_pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.zygote_pid, signal.SIGKILL)


def _receive(control: socket.socket) -> tuple[bytes, list[int], int]:
    """The next message, its descriptors, and the pid of its sender in our terms. Does not wait."""
    space = socket.CMSG_SPACE(12) + socket.CMSG_SPACE(8)
    data, ancillary, _, _ = control.recvmsg(4096, space, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    pid = 0
    for _, kind, payload in ancillary:
        if kind == socket.SCM_RIGHTS:
            fds += struct.unpack(f"={len(payload) // 4}i", payload)
        elif kind == socket.SCM_CREDENTIALS:
            pid = struct.unpack("=iII", payload)[0]
    return data, fds, pid

"""An assignment: how a blank becomes the environment that the node has asked for.

Everything of the host that the function will see is opened here, as detached mounts, and travels to the blank as descriptors: its code and
its layers or its image from below the code directory, and folders for ``/mnt`` from below those that the administrator has named. No
symbolic link is followed on the way. The ends of the channel, of the pipes and the control files of the cgroup go to the node.

Folders at ``/mnt`` are written by sandboxes of many user ids and must look the same to all of them. So they are mounted with *mapped
owners*: who owns the folder on the host is, in each sandbox, the sandbox's own user, and the other way round. Folders of root are refused,
since a function could leave a program there that runs as root for whoever starts it. Without root there is one user id, and nothing to map.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

from lambent.sandbox import kernel

if TYPE_CHECKING:
    from lambent.sandbox.cell import Cell
    from lambent.sandbox.launcher import Launcher

_PYTHON_HEADROOM_MB = 64  # RLIMIT_DATA counts the interpreter's own pages too
_PROGRAM_HEADROOM_MB = 1_024  # and heaps and stacks that a virtual machine reserves without using them


class Assignment:
    """One start request on its way to one blank."""

    def __init__(self, launcher: Launcher, cell: Cell, order: dict[str, Any]) -> None:
        self._launcher = launcher
        self._cell = cell
        self._order = order if cell.warm_mb in (0, order["memory_mb"]) else {**order, "warm": False}
        self._inside: list[tuple[str, int]] = []  # descriptors for the blank, closed here afterwards
        self._outside: list[tuple[str, int]] = []  # for the node, likewise
        self._freeze = (b"", b"")

    def carry_out(self) -> str:
        """Assign; why that cannot be done for this request, or "". What goes wrong with the blank is the blank's ``fault``."""
        try:
            try:
                self._open_sources()
            except OSError as error:
                return f"{error.filename or self._order['code']} cannot be mounted: {error.strerror or error}"
            self._open_lines()
            self._send()
            self._hand_over()
        finally:
            for _, fd in (*self._inside, *self._outside):
                os.close(fd)
        return ""

    # -- what is opened ----------------------------------------------------------------------------------------------------------

    def _open_sources(self) -> None:
        order, launcher = self._order, self._launcher
        for name, path in (("code", order["code"]), ("opt", order["opt"])):
            if path:
                self._inside.append((name, open_below(launcher.code_root, path)))
        if order["id"] in launcher.kept_tmps:
            self._inside.append(("tmp", launcher.kept_tmps.pop(order["id"])))
        for number, path in enumerate(order["layers"]):
            self._inside.append((f"layer{number}", open_below(launcher.code_root, path)))
        for number, mount in enumerate(order["mounts"]):
            fd = open_below(mount["root"], mount["source"], launcher.file_systems)
            self._inside.append((f"mount{number}", fd))
            if not launcher.rootless:
                _map_owner(fd, mount["source"] or mount["root"], launcher.uid_of(self._cell.slot))

    def _open_lines(self) -> None:
        cell = self._cell
        if self._order["warm"] and cell.warm_ends:
            self._outside += zip(("channel", "logs"), cell.warm_ends, strict=True)
            cell.warm_ends = []
        else:
            ours, theirs = socket.socketpair()
            self._outside.append(("channel", ours.detach()))
            self._inside.append(("channel", theirs.detach()))
            self._open_pipe("logs")
        if self._order["code_key"]:
            self._open_bytecode(self._order["code_key"])
        if self._order["extensions"]:
            self._open_pipe("extension_logs")
        if self._order["hold"]:
            reading, writing = os.pipe()
            self._inside.append(("hold", reading))
            self._outside.append(("hold", writing))

    def _open_bytecode(self, key: str) -> None:
        """What the handler was compiled to, or where to say it."""
        known = self._launcher.bytecodes.lend(key)
        if known >= 0:
            self._inside.append(("bytecode", os.dup(known)))
            return
        tell = self._launcher.bytecodes.learn(key)
        if tell >= 0:
            self._inside.append(("learn", tell))

    def _open_pipe(self, name: str) -> None:
        reading, writing = os.pipe()
        self._outside.append((name, reading))
        self._inside.append((name, writing))

    def _open_files(self) -> None:
        leaf = self._cell.leaf
        assert leaf is not None
        path, freeze, thaw = leaf.freeze_file()
        self._freeze = (freeze, thaw)
        if path:
            self._outside.append(("freeze", os.open(path, os.O_WRONLY | os.O_CLOEXEC)))
        path = leaf.peak_file()
        if path:
            self._outside.append(("peak", os.open(path, os.O_RDONLY | os.O_CLOEXEC)))

    # -- what is said ------------------------------------------------------------------------------------------------------------

    def _send(self) -> None:
        cell, launcher = self._cell, self._launcher
        try:
            if cell.leaf is not None:
                launcher.limit_memory(cell.leaf, self._order)
                self._open_files()
            if cell.control is None:
                raise OSError("its control socket is closed")
            cell.living_extensions = len(self._order["extensions"])
            socket.send_fds(cell.control, [json.dumps(self._message()).encode()], [fd for _, fd in self._inside])
        except OSError as error:
            cell.fault = f"the sandbox ended before it was assigned: {error}"

    def _message(self) -> dict[str, Any]:
        order, launcher = self._order, self._launcher
        headroom = _PROGRAM_HEADROOM_MB if order["argv"] else _PYTHON_HEADROOM_MB
        return {
            "handler": order["handler"],
            "env": order["environment"],
            "argv": order["argv"],
            "cwd": order["cwd"],
            "warm": self._order["warm"] and self._cell.warm_pid != 0,
            "extensions": order["extensions"],
            "mounts": [{"target": mount["target"], "read_only": mount["read_only"]} for mount in order["mounts"]],
            "tmp_mb": order["ephemeral_mb"],
            "keep_tmp": order["keep_tmp"],
            "data_mb": 0 if launcher.cgroups.limits_memory else order["memory_mb"] + headroom,
            "carries": [name for name, _ in self._inside],
        }

    def _hand_over(self) -> None:
        cell, node_id = self._cell, self._order["id"]
        if self._order["warm"] and cell.warm_pid:
            cell.hand_over_to_warm()
        for name, listener in (("door", cell.door), ("api", cell.api)):
            if listener is not None:
                self._outside.append((name, listener.detach()))
        cell.door = cell.api = None
        started = {
            "event": "started",
            "id": node_id,
            "carries": [name for name, _ in self._outside],
            "freeze": [word.decode() for word in self._freeze],
        }
        self._launcher.note_assigned(cell, self._order)
        self._launcher.tell(started, [fd for _, fd in self._outside])


def open_below(root: str, path: str, among: list[str] | None = None) -> int:
    """A detached mount of ``path`` below ``root``, which must be one of ``among`` if that is given. Raises ``OSError``."""
    if among is not None and root not in among:
        raise OSError(f"{root} is not configured")
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in path.split("/") if path else ():
            if part in ("", ".", ".."):
                raise OSError(f"{path!r} is not a plain path below {root}")
            below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            os.close(fd)
            fd = below
        return kernel.open_tree("", dir_fd=fd)
    finally:
        os.close(fd)


def _map_owner(fd: int, path: str, uid: int) -> None:
    """Let the owner of the detached mount ``fd`` be ``uid`` in the sandbox. Raises ``OSError``."""
    owner = os.fstat(fd)
    if owner.st_uid == 0:
        raise OSError(f"{path} belongs to root: give it to another user (chown), as whom functions will write there")
    namespace = _user_namespace(f"{owner.st_uid} {uid} 1", f"{owner.st_gid} {uid} 1")
    try:
        kernel.map_owner(fd, namespace)
    except OSError as error:
        reason = "mapping owners needs Linux 5.12 and a file system that supports it"
        raise OSError(error.errno, f"{reason} ({os.strerror(error.errno or 0)})", path) from error
    finally:
        os.close(namespace)


def _user_namespace(uids: str, gids: str) -> int:
    """A user namespace with these maps and nobody in it. Raises ``OSError``."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(OSError):
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            kernel.unshare(kernel.CLONE_NEWUSER)
            theirs.send(b"+")
            ours.close()
            theirs.recv(1)
        os._exit(0)
    try:
        theirs.close()
        if not ours.recv(1):
            raise OSError("the machine allows no user namespace, which mapping owners needs")
        for name, text in (("uid_map", uids), ("gid_map", gids)):
            with open(f"/proc/{pid}/{name}", "w") as file:
                file.write(text)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        ours.close()
        os.waitpid(pid, 0)

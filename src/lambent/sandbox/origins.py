"""Where the processes of sandboxes come from: the two kinds of zygote, and the root that each lives in.

*Python*: an interpreter of the function's version is executed in the runtime's root and warms up there (``zygote.py``). *Carrier*: for
runtimes that are programs of their own a fork of the launcher does the same work in their root, where no Python need be; what it forks
executes the program. A carrier may hold remains of what the launcher has read, so its children stay undumpable until then (``seal.py``).

An *order* is the launcher's message about a runtime: how its root is made up, and for Python which interpreter is executed.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import json
import os
import signal
import socket
from typing import TYPE_CHECKING, Any, NoReturn

from lambent.sandbox import kernel, rootfs, zygote

if TYPE_CHECKING:
    from lambent.sandbox.launcher import Launcher

_INSIDE = ("blank", "companions", "furnish", "immortals", "kernel", "packing", "seal", "seccomp", "zygote")
# What the interpreter is given to run where a function's wrapper script stands between (AWS_LAMBDA_EXEC_WRAPPER).
_BOOTSTRAP = b"import os\n\nimport lambent_runtime_client\n\nlambent_runtime_client.serve(3, os.environ['_HANDLER'])\n"


def root_plan(launcher: Launcher, order: dict[str, Any]) -> rootfs.RootPlan:
    """The root that ``order`` asks for. Reads files; raises ``OSError``."""
    files = [(name, base64.b64decode(content)) for name, content in order.get("files", ())]
    if not order["carrier"]:
        paths = [("lambent_runtime_client.py", order["client"])]
        paths += [(f"lambent_{name}.py", f"{os.path.dirname(__file__)}/{name}.py") for name in _INSIDE]
        for name, path in paths:
            with open(path, "rb") as file:
                files.append((name, file.read()))
        files.append(("bootstrap.py", _BOOTSTRAP))
    return rootfs.RootPlan(
        executable=order["executable"],
        prefix=order["prefix"],
        version=tuple(order["version"]),
        packages=tuple((name, path) for name, path in order["packages"]),
        files=tuple(files),
        first_uid=launcher.first_uid,
        resolv_conf=launcher.resolv_conf,
        rootless=launcher.rootless,
        links=tuple((name, target) for name, target in order.get("links", ())),
    )


def become(order: dict[str, Any], plan: rootfs.RootPlan, control: socket.socket, mouth: socket.socket) -> NoReturn:
    """In a forked child of the launcher: enter the root and be a zygote on ``control``, with ``mouth`` for stdout and stderr."""
    try:
        gc.freeze()  # the sockets of the launcher are not ours to finalise
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        rootfs.enter(plan)
        keep = control.detach()
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(mouth.fileno(), 1)
        os.dup2(mouth.fileno(), 2)
        os.dup2(keep, 3)
        kernel.close_range(4)
        if order["carrier"]:
            _carry()
        _execute(order, plan)
    except BaseException as error:  # the child of a fork must not return into the launcher's loop
        with contextlib.suppress(OSError):
            (control if control.fileno() >= 0 else socket.socket(fileno=3)).send(json.dumps({"fault": str(error)}).encode())
    os._exit(1)


def _carry() -> None:
    kernel.set_name("lambent-carrier")
    control = socket.socket(fileno=3)
    os.environ.clear()
    zygote.serve(control, control.recv(1 << 20), None)


def _execute(order: dict[str, Any], plan: rootfs.RootPlan) -> NoReturn:
    environment = {"PATH": "/var/lang/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    if order["library_path"]:
        environment["LD_LIBRARY_PATH"] = order["library_path"]
    program = plan.inner_executable()
    os.execve(program, [program, "-u", "/var/runtime/lambent_zygote.py", "3"], environment)

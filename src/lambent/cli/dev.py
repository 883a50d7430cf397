"""``lambent dev``: a function that follows its folder.

    edit ──▶ watcher (inotify) ──▶ snapshot of the folder ──▶ UpdateFunctionCode ──▶ ready      one line on the screen
                   ▲                     │ same hash as before: nothing
                   └── and every second, in case an event was lost

An edit is a deployment like any other, only made by a machine: it goes through the public API, so everything that holds of a deployment
holds of it. What runs is named by the hash of its bytes; the environments of the old hash take no invocation that begins after the new one
is ready. Stale code is therefore not a bug that can happen here: when a line says that a hash is live, it is what runs, and while an edit
is on its way what runs is the whole folder as it was before, never half of each.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import hashlib
import signal
import threading
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from lambent.cli import deploy, logs
from lambent.cli.api import DEFAULT_ENDPOINT, EndpointOption, client, plain_errors
from lambent.cli.dev_debug import debugging
from lambent.cli.dev_server import server_at
from lambent.cli.dev_snapshot import Snapshot
from lambent.cli.dev_watch import watching
from lambent.cli.screen import Trouble, remark, styled
from lambent.clock import Clock, SystemClock

_POLL_S = 0.002
_PATIENCE_S = 60.0
_STILL_S = 0.003  # as long as a file must stay as it is to count as written
_EMPTY_S = 0.05  # and an empty one
_WRITING_S = 1.0
_PAUSE = threading.Event()  # never set


def dev(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder with the function's code.")],
    name: Annotated[str | None, typer.Option("--function", "--name", help="Name of the function. [default: the folder's name]")] = None,
    runtime: Annotated[str | None, typer.Option(help="For example python3.12. [default: a guess]")] = None,
    handler: Annotated[str | None, typer.Option(help="For example app.handler. [default: a guess]")] = None,
    memory: Annotated[int | None, typer.Option(help="In MB. [default: 128]")] = None,
    timeout: Annotated[int | None, typer.Option(help="In seconds. [default: 3]")] = None,
    env: Annotated[list[str] | None, typer.Option(metavar="K=V", help="Set an environment variable; may be repeated.")] = None,
    follow: Annotated[bool, typer.Option("--logs/--no-logs", help="Show what the function prints.")] = True,
    debug: Annotated[bool, typer.Option("--debug", help="Let a debugger attach at any time (Python, Node.js).")] = False,
    debug_port: Annotated[int | None, typer.Option(help="Where, on this machine. [default: 5678 for Python, 9229 for Node.js]")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Of the server that is started where none runs.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings of the server that is started where none runs.")] = None,
    endpoint: EndpointOption = DEFAULT_ENDPOINT,
) -> None:
    """Watch a folder: every edit is live at once. Starts a server where none runs."""
    if not folder.is_dir():
        raise Trouble(f"{folder} is not a folder")
    wanted = {"Runtime": runtime, "Handler": handler, "MemorySize": memory, "Timeout": timeout}
    given = {key: value for key, value in wanted.items() if value is not None}
    signal.signal(signal.SIGTERM, _interrupt)
    clock = SystemClock()
    with server_at(endpoint, data_dir, config), watching(folder, clock) as moments:
        session = Session(folder, name or deploy.name_of(folder), endpoint, clock)
        session.begin(given, deploy.variables(env))
        attachable = debugging(session.api, endpoint, session.name, debug_port, folder) if debug else contextlib.nullcontext()
        if follow:
            threading.Thread(target=_follow, args=(session.name, endpoint, clock, clock.now()), daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt), attachable:
            remark(f"Watching {folder}. Try: lambent invoke {session.name}    Ctrl-C stops.")
            while True:
                session.reload(moments.get())


class Session:
    """One function and its folder."""

    def __init__(self, folder: Path, name: str, endpoint: str, clock: Clock) -> None:
        self.name = name
        self._clock = clock
        self._folder = folder
        self._endpoint = endpoint
        self._snapshot = Snapshot(folder, clock)
        self.api = client("lambda", endpoint)
        self._live = ""

    def begin(self, given: dict[str, Any], variables: dict[str, str]) -> None:
        """Create the function, or bring it up to date. Raises ``Trouble``."""
        code, _ = self._snapshot.take()
        with plain_errors(self._endpoint):
            before = deploy.current(self.api, self.name)
            if before is None:
                outcome = deploy.create(self.api, self.name, self._folder, code, given, variables)
            else:
                outcome = deploy.update(self.api, self.name, before, code, given, variables)
            configuration = self.api.get_function_configuration(FunctionName=self.name)
        gc.freeze()  # the snapshot of a large folder and botocore stay: the collector need not go through them at an edit
        self._live = configuration["CodeSha256"]
        remark(f"{outcome} {self.name}: {configuration['Runtime']}, {configuration['Handler']}, {_short(self._live)}")

    def reload(self, noticed: float) -> bool:
        """Make the folder as it is now live, if it differs from what is; ``noticed`` is on the clock. Gives whether it did.

        What goes wrong is said and the next edit awaited: a folder that cannot be deployed now may be fine after the next edit.
        """
        try:
            code, changed = self._settled()
            sha256 = base64.b64encode(hashlib.sha256(code).digest()).decode()
            if sha256 == self._live:
                return False
            with plain_errors(self._endpoint):
                self._deploy(code)
        except Trouble as trouble:
            _tell(f"not reloaded: {trouble}", "red")
            return False
        self._live = sha256
        took = (self._clock.monotonic() - noticed) * 1000
        _tell(f"reloaded in {took:.0f} ms: {_list(changed)}  {_short(sha256)}", "green")
        return True

    def _settled(self) -> tuple[bytes, list[str]]:
        """The folder once nobody is in the midst of writing to it: editors empty a file before they fill it. Waits, but not for ever."""
        deadline = self._clock.monotonic() + _WRITING_S
        code, changed = self._snapshot.take()
        every = dict.fromkeys(changed)
        while changed:
            _PAUSE.wait(_EMPTY_S if self._snapshot.emptied(changed) else _STILL_S)
            if self._snapshot.still(changed) or self._clock.monotonic() > deadline:
                break
            code, changed = self._snapshot.take()
            every |= dict.fromkeys(changed)
        return code, list(every)

    def _deploy(self, code: bytes) -> None:
        deadline = self._clock.monotonic() + _PATIENCE_S
        conflict = self.api.exceptions.ResourceConflictException
        while True:
            try:
                self._upload(code)
                break
            except conflict:  # somebody else's update is under way
                if self._clock.monotonic() > deadline:
                    raise
                _PAUSE.wait(_POLL_S)
        while True:
            state = self.api.get_function_configuration(FunctionName=self.name)
            if state["LastUpdateStatus"] == "Successful":
                return
            if state["LastUpdateStatus"] == "Failed" or self._clock.monotonic() > deadline:
                raise Trouble(state.get("LastUpdateStatusReason") or "the update did not end")
            _PAUSE.wait(_POLL_S)

    def _upload(self, code: bytes) -> None:
        """UpdateFunctionCode with a body of our own making: botocore takes several times as long to write megabytes as JSON."""
        body = b'{"ZipFile": "' + base64.b64encode(code) + b'"}'

        def fill(params: dict[str, Any], **_: object) -> None:
            params["body"] = body

        events, name = self.api.meta.events, "before-call.lambda.UpdateFunctionCode"
        events.register(name, fill)
        try:
            self.api.update_function_code(FunctionName=self.name, ZipFile=b"")
        finally:
            events.unregister(name, fill)


def _follow(name: str, endpoint: str, clock: Clock, since: float) -> None:
    """Print the function's log from ``since`` on, for as long as the process lives."""
    api = client("logs", endpoint)

    def fetch(start: int) -> list[logs.Event]:
        try:
            pages = api.get_paginator("filter_log_events").paginate(logGroupName=f"/aws/lambda/{name}", startTime=start)
            return [event for page in pages for event in page["events"]]
        except api.exceptions.ResourceNotFoundException:
            return []

    try:
        with plain_errors(endpoint):
            asyncio.run(logs.watch(fetch, int(since * 1000), clock, logs.show_event))
    except Trouble as trouble:
        remark(f"the log is no longer followed: {trouble}")


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _tell(text: str, style: str) -> None:
    at = datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-3]
    styled(f"{at} {text}", style)


def _list(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _short(sha256: str) -> str:
    """The beginning of the hash in hexadecimal, as ``lambent ps`` and the data folder have it."""
    return base64.b64decode(sha256).hex()[:12]

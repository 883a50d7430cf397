"""``lambent deploy``: zip a folder, then create the function or bring it up to date.

Only what differs is sent: the code if its hash changed, the configuration if a given option says something new. Deploying twice in a row
is therefore free, and never drains a warm environment.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from lambent.cli.api import DEFAULT_ENDPOINT, EndpointOption, JsonOption, client, plain_errors
from lambent.cli.bundle import bundle, guess_handler, guess_runtime
from lambent.cli.screen import Trouble, is_terminal, remark, say, show_json, size

DEFAULT_ROLE = "arn:aws:iam::000000000000:role/lambent"

Progress = Callable[[int, int], None]


def deploy(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder with the function's code.")],
    name: Annotated[str | None, typer.Option(help="Name of the function. [default: the folder's name]")] = None,
    runtime: Annotated[str | None, typer.Option(help="For example python3.12. [default: a guess]")] = None,
    handler: Annotated[str | None, typer.Option(help="For example app.handler. [default: a guess]")] = None,
    memory: Annotated[int | None, typer.Option(help="In MB; CPU comes with it, a whole one at 1769. [default: 128]")] = None,
    timeout: Annotated[int | None, typer.Option(help="In seconds. [default: 3]")] = None,
    env: Annotated[list[str] | None, typer.Option(metavar="K=V", help="Set an environment variable; may be repeated.")] = None,
    role: Annotated[str | None, typer.Option(help="Execution role.")] = None,
    endpoint: EndpointOption = DEFAULT_ENDPOINT,
    as_json: JsonOption = False,
) -> None:
    """Zip a folder and create or update the function; wait until it is ready."""
    if not folder.is_dir():
        raise Trouble(f"{folder} is not a folder")
    wanted = {
        "Runtime": runtime,
        "Handler": handler,
        "MemorySize": memory,
        "Timeout": timeout,
        "Role": role,
    }
    given = {key: value for key, value in wanted.items() if value is not None}
    target = name or name_of(folder)
    with _bar("Packing") as progress:
        code = bundle(folder, progress)
    api = client("lambda", endpoint)
    with plain_errors(endpoint):
        present = current(api, target)
        if present is None:
            outcome = create(api, target, folder, code, given, variables(env))
        else:
            outcome = update(api, target, present, code, given, variables(env))
        configuration = api.get_function_configuration(FunctionName=target)
    configuration.pop("ResponseMetadata", None)
    if as_json:
        show_json({"Outcome": outcome, **configuration})
        return
    say(configuration["FunctionArn"])
    remark(f"{outcome}: {configuration['Runtime']}, {configuration['Handler']}, {size(configuration['CodeSize'])}")
    if outcome == "Created":
        remark(f"Try: lambent invoke {target}")


def create(api: Any, name: str, folder: Path, code: bytes, given: dict[str, Any], settings: dict[str, str]) -> str:
    """Create the function with what is given and guesses for the rest; ``settings`` are its environment variables. Gives "Created"."""
    request = {
        "FunctionName": name,
        "Runtime": guess_runtime(folder),
        "Role": DEFAULT_ROLE,
        **given,
        "Handler": given.get("Handler") or guess_handler(folder),
        **({"Environment": {"Variables": settings}} if settings else {}),
    }
    with _upload(api):
        api.create_function(**request, Code={"ZipFile": code})
    wait(api, "function_active_v2", name)
    return "Created"


def update(api: Any, name: str, before: dict[str, Any], code: bytes, given: dict[str, Any], settings: dict[str, str]) -> str:
    """Bring the function, whose configuration was ``before``, up to date. Gives "Updated" or "Unchanged"."""
    changed = False
    wait(api, "function_active_v2", name)
    wait(api, "function_updated_v2", name)
    if base64.b64encode(hashlib.sha256(code).digest()).decode() != before["CodeSha256"]:
        with _upload(api):
            api.update_function_code(FunctionName=name, ZipFile=code)
        wait(api, "function_updated_v2", name)
        changed = True
    present = before.get("Environment", {}).get("Variables", {})
    news = {key: value for key, value in given.items() if before.get(key) != value}
    if not settings.items() <= present.items():
        news["Environment"] = {"Variables": {**present, **settings}}
    if news:
        api.update_function_configuration(FunctionName=name, **news)
        wait(api, "function_updated_v2", name)
        changed = True
    return "Updated" if changed else "Unchanged"


def current(api: Any, name: str) -> dict[str, Any] | None:
    """The function's configuration, if there is such a function."""
    try:
        found: dict[str, Any] = api.get_function_configuration(FunctionName=name)
    except api.exceptions.ResourceNotFoundException:
        return None
    return found


def wait(api: Any, waiter: str, name: str) -> None:
    """Until boto3's ``waiter`` is content with the function."""
    api.get_waiter(waiter).wait(FunctionName=name, WaiterConfig={"Delay": 0.05, "MaxAttempts": 2_400})


def name_of(folder: Path) -> str:
    """A function's name made of a folder's. Raises ``Trouble`` where nothing is left of it."""
    name = re.sub(r"[^a-zA-Z0-9-_]+", "-", folder.resolve().name).strip("-")
    if not name:
        raise Trouble(f"cannot make a function name of {folder}: give one with --name")
    return name[:64]


def variables(pairs: list[str] | None) -> dict[str, str]:
    """``["K=V", ...]`` as a mapping. Raises ``Trouble``."""
    found: dict[str, str] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise Trouble(f"--env {pair}: expected NAME=VALUE")
        found[key] = value
    return found


@contextmanager
def _upload(api: Any) -> Iterator[None]:
    """Show the progress of the requests that ``api`` sends inside the block."""
    with _bar("Uploading") as progress:

        def watch(request: Any, **_: Any) -> None:
            if isinstance(request.body, bytes):
                request.body = _Watched(request.body, progress)

        if is_terminal():
            api.meta.events.register("before-send.lambda", watch, unique_id="lambent-progress")
        try:
            yield
        finally:
            api.meta.events.unregister("before-send.lambda", unique_id="lambent-progress")


class _Watched(io.BytesIO):
    """A request body that tells how far it has been read."""

    def __init__(self, content: bytes, progress: Progress) -> None:
        super().__init__(content)
        self._progress = progress
        self._total = len(content)

    def read(self, count: int | None = -1, /) -> bytes:
        chunk = super().read(count)
        self._progress(self.tell(), self._total)
        return chunk


@contextmanager
def _bar(title: str) -> Iterator[Progress]:
    """A progress bar in a terminal, nothing elsewhere."""
    if not is_terminal():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn
    from rich.progress import Progress as Bars

    with Bars(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)

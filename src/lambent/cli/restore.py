"""``lambent restore FILE``: a backup becomes the state of a running server, or of one that does not run yet."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from lambent.cli.api import DEFAULT_ENDPOINT, EndpointOption, page
from lambent.cli.backup import admin_request, check, describe, pieces_of
from lambent.cli.screen import Trouble, remark, say
from lambent.clock import Clock, SystemClock
from lambent.store.backup_archive import ArchiveReader, BadArchive

_START_S = 120.0
_LOOK_S = 0.1


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `lambent backup` wrote.", exists=True, dir_okay=False)],
    endpoint: EndpointOption = DEFAULT_ENDPOINT,
    data_dir: Annotated[Path | None, typer.Option(help="Restore into this empty folder, for a server that does not run yet.")] = None,
    database: Annotated[str | None, typer.Option(help="postgresql://...: with --data-dir, put the state there.")] = None,
    check_only: Annotated[bool, typer.Option("--check", help="Only check the file and say what it holds.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a running server's state is replaced.")] = False,
) -> None:
    """Replace the state of a running server, or fill an empty folder, from a backup."""
    if database and data_dir is None:
        raise Trouble("--database needs --data-dir: packages, objects and logs lie in a folder")
    try:
        with file.open("rb") as archive:
            if data_dir is not None and not check_only:
                _offline(archive, data_dir, database or "")
                return
            contents, sha256 = asyncio.run(_checked(archive))
            say(f"{file}: {describe(contents)}.")
            if check_only:
                return
            if sys.stdin.isatty() and not yes:
                typer.confirm(f"Replace everything that the server at {endpoint} keeps?", abort=True)
            archive.seek(0)
            _online(archive, endpoint, sha256)
    except BadArchive as error:
        raise Trouble(f"{file}: {error}") from error
    except OSError as error:
        raise Trouble(f"{file}: {error.strerror or error}") from error


async def _checked(archive: IO[bytes]) -> tuple[dict[str, Any], str]:
    digest = hashlib.sha256()
    return await check(pieces_of(archive.read, digest.update)), digest.hexdigest()


def _online(archive: IO[bytes], endpoint: str, sha256: str) -> None:
    before = page(endpoint, "health")["startedAt"]
    with admin_request(endpoint, "PUT", "restore", archive, sha256) as answer:
        answer.read()
    if asyncio.run(_started_again(endpoint, before, SystemClock())):
        remark(f"Restored; the server at {endpoint} has started again on it.")
        return
    raise Trouble(f"the server at {endpoint} has taken the backup and did not start again within {_START_S:.0f} s; see its output")


async def _started_again(endpoint: str, before: object, clock: Clock) -> bool:
    deadline = clock.monotonic() + _START_S
    while clock.monotonic() < deadline:
        if await asyncio.to_thread(_started_at, endpoint) not in (None, before):
            return True
        await clock.sleep(_LOOK_S)
    return False


def _started_at(endpoint: str) -> object:
    """When the server began, or ``None`` while it does not say."""
    try:
        with urllib.request.urlopen(f"{endpoint.rstrip('/')}/_lambent/health", timeout=_START_S) as answer:
            return json.load(answer).get("startedAt")
    except (urllib.error.URLError, OSError, ValueError):
        return None


def _offline(archive: IO[bytes], data_dir: Path, database: str) -> None:
    from lambent.store.backup_restore import Staging, finish, holds_state

    async def work() -> dict[str, Any]:
        staging = Staging(data_dir, database, SystemClock())
        contents = await staging.take(ArchiveReader(pieces_of(archive.read)))
        staging.commit()
        return contents

    finish(data_dir, database)
    if held := holds_state(data_dir, database):
        raise Trouble(f"{held}; choose an empty place, or restore into a running server")
    contents = asyncio.run(work())
    finish(data_dir, database)
    say(f"Restored to {data_dir}: {describe(contents)}.")

"""``lambent backup FILE``: everything that a running server keeps, in one file, while it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, Any
from urllib.parse import urlsplit

import typer

from lambent.cli.api import DEFAULT_ENDPOINT, EndpointOption, JsonOption
from lambent.cli.screen import Trouble, remark, say, show_json, size
from lambent.store.backup_archive import PIECE, ArchiveReader, BadArchive

_PATIENCE_S = 300.0  # without a byte
_SAID_MOST = 65_536


def backup(
    file: Annotated[Path, typer.Argument(help="Where to write it. What is there is replaced once the new one is whole.", dir_okay=False)],
    endpoint: EndpointOption = DEFAULT_ENDPOINT,
    as_json: JsonOption = False,
) -> None:
    """Save everything that a running server keeps to one file."""
    draft = file.with_name(file.name + ".part")
    try:
        with admin_request(endpoint, "GET", "backup") as answer, _created(draft) as target:
            contents = asyncio.run(_keep(answer, target))
            target.flush()
            os.fsync(target.fileno())
        draft.replace(file)
    except OSError as error:
        raise Trouble(f"{file}: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)
    if as_json:
        show_json({"file": str(file), **contents})
    else:
        say(f"{file}: {size(file.stat().st_size)}, {describe(contents)}.")
    for name in contents.get("missing", []):
        remark(f"WARNING: not on the server's disk, and so not in the backup: {name}")


def describe(contents: dict[str, Any]) -> str:
    """What an archive holds, in words."""
    parts = [
        f"{contents.get('documents', 0)} documents",
        f"{contents.get('messages', 0)} messages",
        f"{contents.get('blobs', 0)} packages ({size(contents.get('blobBytes', 0))})",
        f"{contents.get('objects', 0)} objects ({size(contents.get('objectBytes', 0))})",
        "logs",
    ]
    taken = datetime.fromtimestamp(contents.get("taken", 0), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"{', '.join(parts)}, taken {taken} by Lambent {contents.get('lambent', '?')}"


async def check(source: AsyncIterator[bytes]) -> dict[str, Any]:
    """Read a whole archive and give what it says of itself. Raises ``BadArchive``."""
    reader = ArchiveReader(source)
    async for member in reader.members():
        async for _ in member.pieces():
            pass
    return {**reader.head, **reader.contents}


async def pieces_of(read: Callable[[int], bytes], write: Callable[[bytes], object] | None = None) -> AsyncIterator[bytes]:
    """What ``read`` gives, piece by piece, passed on to ``write`` too."""
    while data := read(PIECE):
        if write is not None:
            write(data)
        yield data


async def _keep(answer: http.client.HTTPResponse, target: IO[bytes]) -> dict[str, Any]:
    try:
        return await check(pieces_of(answer.read, target.write))
    except BadArchive as error:
        raise Trouble(f"the server broke off: {error}; see its output") from error
    except http.client.HTTPException as error:
        raise Trouble("the server broke off; see its output") from error


def _created(path: Path) -> IO[bytes]:
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb")


@contextlib.contextmanager
def admin_request(
    endpoint: str, method: str, page: str, body: IO[bytes] | None = None, sha256: str = ""
) -> Iterator[http.client.HTTPResponse]:
    """A page that only the owner of a server gets, signed where ``LAMBENT_ACCESS_KEY_ID`` is set. Raises ``Trouble``."""
    from lambent.cli.api import message_of, require_address, signature, unreachable

    require_address(endpoint)

    url = urlsplit(endpoint)
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    headers = {"x-lambent-admin": "1", **signature(f"{endpoint.rstrip('/')}/_lambent/{page}", method, sha256)}
    if body is not None:
        headers["Content-Length"] = str(os.fstat(body.fileno()).st_size)
    try:
        with contextlib.closing(kind(url.netloc, timeout=_PATIENCE_S)) as connection:
            connection.request(method, f"/_lambent/{page}", body, headers)
            answer = connection.getresponse()
            if answer.status != 200:
                text = answer.read(_SAID_MOST).decode(errors="replace")
                raise Trouble(message_of(text) or f"{endpoint} answered {answer.status} to {method} /_lambent/{page}")
            yield answer
    except (ConnectionError, TimeoutError, http.client.HTTPException) as error:
        raise Trouble(unreachable(endpoint)) from error

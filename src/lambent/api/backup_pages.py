"""``GET /_lambent/backup`` and ``PUT /_lambent/restore``: the whole state leaves the server, or comes.

Who has a backup has everything: code, variables of functions, messages. So these pages answer only

- with ``auth = "signature"``, whoever signs with a configured credential; the credential that functions get is none of those;
- otherwise, on a server that listens on a loopback address, requests that name such an address as their host and carry the header
  ``x-lambent-admin``: no web page that a browser on this machine has open can send them;
- in no case a request that comes out of a sandbox.

The pages that only show (environments, stories, events) are open to everyone outside of sandboxes, or to the configured credentials.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

from lambent.api.http_server import INSIDE
from lambent.errors import ClientFault
from lambent.iam.credentials import FUNCTION, Authenticator
from lambent.iam.sessions import PREFIX
from lambent.settings import Settings
from lambent.store.backup_archive import ArchiveReader, BadArchive
from lambent.store.schema import SchemaTooNew
from lambent.wire.http import HttpRequest, HttpResponse

BACKUP, RESTORE = "/_lambent/backup", "/_lambent/restore"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_LOOKING = "What runs on a server is shown to its owner."
_TAKING = "Backing up and restoring is for the owner of the server."
_HOST = re.compile(r"\[?([^\]]*?)\]?(:\d+)?")


class Gate:
    """Who may."""

    def __init__(self, settings: Settings, authenticator: Authenticator) -> None:
        self._settings = settings
        self._authenticator = authenticator

    def look(self, request: HttpRequest, source_ip: str) -> None:
        """To see what runs here and what became of it, for all functions and accounts. Raises ``ClientFault``."""
        if source_ip == INSIDE:
            raise _denied(f"{_LOOKING} Functions may not.")
        if self._settings.auth == "signature":
            self._require_key(request, _LOOKING)

    def require(self, request: HttpRequest, source_ip: str) -> None:
        """To take the whole state away, or to replace it. Raises ``ClientFault``."""
        if source_ip == INSIDE:
            raise _denied(f"{_TAKING} Functions may not.")
        if self._settings.auth == "signature":
            self._require_key(request, _TAKING)
            return
        if self._settings.host not in LOOPBACK:
            raise _denied(f'{_TAKING} On a server that others can reach it needs auth = "signature".')
        host = _HOST.fullmatch(request.headers.get("host", ""))
        if "x-lambent-admin" not in request.headers or host is None or host[1] not in LOOPBACK:
            raise _denied(f"{_TAKING} Use `lambent backup` and `lambent restore`, or send the header x-lambent-admin to 127.0.0.1.")

    def _require_key(self, request: HttpRequest, what: str) -> None:
        """One of the settings."""
        key = self._authenticator.identify(request).access_key
        if key.startswith((FUNCTION, PREFIX)):  # a function may have assumed a role
            raise _denied(f"{what} Functions and sessions may not.")


class BackupPages:
    """``save`` makes the archive; ``restore`` takes one in, and has begun to replace the state when it returns what the archive holds."""

    def __init__(
        self,
        gate: Gate,
        save: Callable[[], AsyncGenerator[bytes, None]],
        restore: Callable[[ArchiveReader], Awaitable[dict[str, Any]]],
    ) -> None:
        self._gate = gate
        self._save = save
        self._restore = restore
        self._restoring = False

    async def serve(self, request: HttpRequest, source_ip: str) -> HttpResponse | None:
        """``None`` where the request is for another page. Raises ``ClientFault``."""
        if request.path == BACKUP and request.method == "GET":
            self._gate.require(request, source_ip)
            return HttpResponse(200, [("content-type", "application/x-tar")], _Stream(self._save()))
        if request.path == RESTORE and request.method == "PUT":
            self._gate.require(request, source_ip)
            return await self._take(request)
        return None

    async def _take(self, request: HttpRequest) -> HttpResponse:
        if request.stream is None:
            raise ClientFault("InvalidParameterValueException", 400, "The backup is missing.")
        if self._restoring:
            raise ClientFault("ResourceConflictException", 409, "A restore is under way.")
        self._restoring = True
        try:
            contents = await self._restore(ArchiveReader(request.stream))
        except (BadArchive, SchemaTooNew) as error:
            self._restoring = False
            raise ClientFault("InvalidParameterValueException", 400, f"{error}; nothing has been changed") from error
        except BaseException:
            self._restoring = False
            raise
        return HttpResponse(200, [("content-type", "application/json")], json.dumps(contents).encode())


class _Stream:
    """A generator as the body of an answer, closed when nobody reads on."""

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        self._pieces = pieces
        self._closing: asyncio.Task[None] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    def __anext__(self) -> Awaitable[bytes]:
        return anext(self._pieces)

    def close(self) -> None:
        async def end() -> None:
            await self._pieces.aclose()

        self._closing = asyncio.get_running_loop().create_task(end())


def streams(request: HttpRequest) -> bool:
    """Whether the body of a request is read as it comes."""
    return request.path == RESTORE


def _denied(why: str) -> ClientFault:
    return ClientFault("AccessDeniedException", 403, why)

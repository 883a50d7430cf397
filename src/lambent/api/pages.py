"""Lambent's own pages under ``/_lambent/``: what AWS has no API for.

| page | answer |
|---|---|
| GET /_lambent/health | 200 once the node can serve: status, version, data dir, isolation and why |
| GET /_lambent/environments | every execution environment and its state |
| GET /_lambent/events/NAME | the asynchronous events of a function: queued, running, to be retried, being delivered, dead |
| POST /_lambent/events/NAME?id=ID | gives its dead events another chance: those of the ids, or all; answers with their number |
| GET /_lambent/story/ID | what happened to an environment, an invocation or a function, and what caused it |
| POST /_lambent/debug/NAME?inside=PORT&port=PORT | 200 and the port here that leads into the function's newest environment |
| GET /_lambent/backup, PUT /_lambent/restore | the whole state leaves, or comes (``backup_pages.py``) |
| GET /_lambent/code/SHA256?expires=…&token=… | a function's zip, under a URL that GetFunction gave (``Code.Location``) |
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, unquote

from lambent.api.backup_pages import BackupPages
from lambent.errors import ClientFault
from lambent.wire.http import HttpRequest, HttpResponse

_OPEN = ("health", "code")  # the second has URLs that we signed


class Pages:
    """Each page is a callable given by ``node.py``, so that this file knows no other part.

    ``story(id)`` gives a list of entries, empty if the id is unknown. ``code(sha256, expires, token)`` gives the zip, or ``None`` where
    the URL is not one that we signed or has expired. ``look(request, source ip)`` raises where the caller may not see what runs here.
    """

    def __init__(
        self,
        health: Callable[[], dict[str, Any]],
        environments: Callable[[], list[dict[str, Any]]],
        story: Callable[[str], list[dict[str, Any]]],
        code: Callable[[str, str, str], Awaitable[bytes | None]],
        debug: Callable[[str, int, int], Awaitable[int]] | None = None,
        events: Callable[[str], Awaitable[dict[str, Any]]] | None = None,
        redrive: Callable[[str, list[str]], Awaitable[int]] | None = None,
        backups: BackupPages | None = None,
        look: Callable[[HttpRequest, str], None] | None = None,
    ) -> None:
        self._health = health
        self._environments = environments
        self._story = story
        self._code = code
        self._debug = debug
        self._events = events
        self._redrive = redrive
        self._backups = backups
        self._look = look

    async def serve(self, request: HttpRequest, source_ip: str = "") -> HttpResponse:
        """Answer a request whose path starts with ``/_lambent/``. Raises ``ClientFault``."""
        if self._backups is not None and (answer := await self._backups.serve(request, source_ip)) is not None:
            return answer
        page, _, rest = unquote(request.path.removeprefix("/_lambent/")).partition("/")
        if self._look is not None and page not in _OPEN:
            self._look(request, source_ip)
        if page == "debug" and rest and request.method == "POST":
            return await self._open_debug_port(rest, request)
        if page == "events" and rest and request.method == "POST":
            return await self._redrive_events(rest, request)
        if request.method not in ("GET", "HEAD"):
            raise ClientFault("MethodNotAllowedException", 405, "Lambent's own pages are read with GET.")
        if page == "health" and not rest:
            return _json(self._health())
        if page == "environments" and not rest:
            return _json({"environments": self._environments()})
        if page == "story" and rest:
            entries = self._story(rest)
            if not entries:
                raise ClientFault("ResourceNotFoundException", 404, f"No story is known of {rest}.")
            return _json({"id": rest, "story": entries})
        if page == "events" and rest and self._events is not None:
            return _json(await self._events(rest))
        if page == "code" and rest:
            return await self._download(rest, request)
        raise ClientFault("ResourceNotFoundException", 404, f"There is no page {request.path}.")

    async def _download(self, sha256: str, request: HttpRequest) -> HttpResponse:
        query = parse_qs(request.query)
        content = await self._code(sha256, query.get("expires", [""])[0], query.get("token", [""])[0])
        if content is None:
            raise ClientFault("AccessDeniedException", 403, "The URL is wrong or has expired.")
        return HttpResponse(200, [("content-type", "application/zip")], content)

    async def _redrive_events(self, name: str, request: HttpRequest) -> HttpResponse:
        """Not for a web page that a browser here has open: those cannot set headers."""
        if self._redrive is None or "x-lambent-redrive" not in request.headers:
            raise ClientFault("AccessDeniedException", 403, "Events are redriven with the header X-Lambent-Redrive.")
        return _json({"redriven": await self._redrive(name, parse_qs(request.query).get("id", []))})

    async def _open_debug_port(self, name: str, request: HttpRequest) -> HttpResponse:
        """Only on a server for its own machine's user, and not for a web page that a browser there has open: those cannot set headers."""
        if self._debug is None or "x-lambent-debug" not in request.headers:
            raise ClientFault("AccessDeniedException", 403, 'Functions are debugged only on a server on 127.0.0.1 with auth = "any".')
        query = parse_qs(request.query)
        numbers = [query.get(key, ["0"])[0] for key in ("inside", "port")]
        if not all(number.isascii() and number.isdigit() and int(number) < 65_536 for number in numbers) or not int(numbers[0]):
            raise ClientFault("InvalidParameterValueException", 400, "inside and port must be ports.")
        return _json({"port": await self._debug(name, int(numbers[0]), int(numbers[1]))})


def _json(document: dict[str, Any]) -> HttpResponse:
    return HttpResponse(200, [("content-type", "application/json")], json.dumps(document).encode())

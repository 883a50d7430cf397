"""One request while its body arrives, and what the routes may ask of the server that they belong to.

A route looks at the head of a request and gives an ``Exchange``; the connection feeds it the body. The answer goes through the ``Desk`` by
the caller's number, at once or, for those who wait, whenever there is something to tell them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from lambent.runtime_api.extension_state import ExtensionSession
from lambent.runtime_api.http_parser import Head
from lambent.runtime_api.session_state import RuntimeSession
from lambent.runtime_api.session_words import Answer, Instruction
from lambent.runtime_api.telemetry import Outbox, TelemetryHub

LINGER = 32 * 2**20  # read beyond what is kept, for clients that listen only when they have sent everything
SMALL_BODY = 65_536

Headers = tuple[tuple[str, str], ...]


class Desk(Protocol):
    """The server, as routes see it."""

    runtime: RuntimeSession
    registry: ExtensionSession
    hub: TelemetryHub
    response_cap: int
    telemetry_supported: bool

    def answer(self, caller: int, status: int, body: bytes, headers: Headers = (), content_type: str = "application/json") -> None: ...

    def carry_out(self, instructions: Iterable[Instruction]) -> None: ...

    def subscribed(self, name: str, types: tuple[str, ...], outbox: Outbox | None, replaced: list[Outbox]) -> None: ...


class Exchange:
    """Takes the body of one request."""

    __slots__ = ()
    refused = False  # the answer stands already: a client that asks whether to send its body need not

    def data(self, piece: bytes) -> bool:
        """A piece of the body. ``True``: enough, ``end`` is to follow and the connection to be closed after the answer."""
        raise NotImplementedError

    def end(self, trailers: dict[str, str]) -> None:
        """The request is complete."""
        raise NotImplementedError

    def flush(self) -> None:
        """For now there is no more."""

    def cut(self) -> bool:
        """There will be no more. ``True`` if the caller has been answered."""
        return False


class Collected(Exchange):
    """Holds up to ``cap`` bytes; ``done`` gets the body, or an empty one and the true length of one that is longer."""

    __slots__ = ("_cap", "_done", "_pieces", "_size")

    def __init__(self, cap: int, done: Callable[[bytes, int], None]) -> None:
        self._cap = cap
        self._done = done
        self._pieces: list[bytes] = []
        self._size = 0

    def data(self, piece: bytes) -> bool:
        self._size += len(piece)
        if self._size <= self._cap:
            self._pieces.append(piece)
            return False
        self._pieces.clear()
        return self._size > self._cap + LINGER

    def end(self, trailers: dict[str, str]) -> None:
        oversize = self._size if self._size > self._cap else 0
        self._done(b"".join(self._pieces), oversize)


class Refused(Exchange):
    """Reads past the body, then gives an answer that was clear from the head."""

    __slots__ = ("_desk", "_final", "_size")
    refused = True

    def __init__(self, desk: Desk, final: Answer, content_type: str = "application/json") -> None:
        self._desk = desk
        self._final = (final.caller, final.status, final.body, final.headers, content_type)
        self._size = 0

    def data(self, piece: bytes) -> bool:
        self._size += len(piece)
        return self._size > LINGER

    def end(self, trailers: dict[str, str]) -> None:
        self._desk.answer(*self._final)


def ignoring_body(done: Callable[[], None]) -> Exchange:
    """For requests whose body says nothing."""
    return Collected(0, lambda body, oversize: done())


def not_found(desk: Desk, caller: int) -> Exchange:
    return Refused(desk, Answer(caller, 404, b"404 page not found\n"), "text/plain; charset=utf-8")


def wrong_method(desk: Desk, caller: int, allowed: str) -> Exchange:
    return Refused(desk, Answer(caller, 405, b"", (("Allow", allowed),)))


def text_of(head: Head, name: str) -> str:
    """A header as text; UTF-8 where it is that."""
    value = head.headers.get(name, "")
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        return value

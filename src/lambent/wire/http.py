"""Requests and responses as plain values, so that everything in ``wire/`` is pure and needs no server to be tested."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lambent.wire.body import BodyStream


@dataclass(slots=True)
class HttpRequest:
    """One received request. ``headers`` has lower-case names; a repeated header is joined with ``,``. ``path`` and ``query`` are raw."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    stream: BodyStream | None = None  # the body where it is read as it comes; ``body`` is empty then


@dataclass(slots=True)
class HttpResponse:
    """One answer. A streamed body is an async iterator of chunks, sent as they come.

    If it has a method ``close()``, that is called once when nobody will read on, whether or not it came to its end.
    """

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | AsyncIterator[bytes] = b""

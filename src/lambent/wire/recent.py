"""Requests that come again: an invocation differs from the one before it in its payload, and in nothing else that its operation reads.

What a method, a path, a query string and the bound headers mean is the same every time, so after the first such request routing, parsing
and validation are one look-up each. Only operations qualify whose body is a blob without bounds (it is looked at by nobody here), and only
requests of ordinary size; what is remembered is bounded, and all forgotten at once when there is too much of it.
"""

from __future__ import annotations

from typing import Any

from lambent.wire.http import HttpRequest
from lambent.wire.models import Operation

_LINES = 4_096
_VARIANTS = 64  # of one line
_LENGTH = 1_024  # of a line, and of the headers of a variant

Line = tuple[str | None, str, str, str]


class Recent:
    """By request line and scope what the headers are called that count, and by their values the parameters without the payload."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines: dict[Line, tuple[Operation, tuple[str, ...], str, dict[tuple[str | None, ...], dict[str, Any]]]] = {}

    def find(self, request: HttpRequest, scope: str | None) -> tuple[Operation, dict[str, Any]] | None:
        """The operation and the validated parameters of a request that was seen before with another payload, at most."""
        line = self._lines.get((scope, request.method, request.path, request.query))
        if line is None:
            return None
        operation, wires, payload, variants = line
        headers = request.headers
        known = variants.get(tuple([headers.get(wire) for wire in wires]))
        if known is None or not request.body:  # whether a body may be missing is another question
            return None
        return operation, {**known, payload: request.body}

    def learn(self, request: HttpRequest, scope: str | None, operation: Operation, params: dict[str, Any]) -> None:
        """``request`` is ``operation`` with ``params``, all validated."""
        payload = operation.payload
        if operation.protocol != "rest-json" or payload is None or payload.shape.kind != "blob" or payload.shape.high is not None:
            return
        wires = tuple(member.wire for member in operation.headers)
        values = tuple(request.headers.get(wire) for wire in wires)
        line: Line = (scope, request.method, request.path, request.query)
        if len(request.path) + len(request.query) > _LENGTH or sum(len(value or "") for value in values) > _LENGTH:
            return
        if len(self._lines) >= _LINES:
            self._lines.clear()
        variants = self._lines.setdefault(line, (operation, wires, payload.name, {}))[3]
        if len(variants) >= _VARIANTS:
            variants.clear()
        variants[values] = {name: value for name, value in params.items() if name != payload.name}

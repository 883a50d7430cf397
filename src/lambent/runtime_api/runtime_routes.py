"""The Runtime API over HTTP: requests become events of ``session_state`` (contract 03 section 2)."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from typing import Any

from lambent.runtime_api.events import InvokeEvent
from lambent.runtime_api.exchange import Collected, Desk, Exchange, Refused, ignoring_body, text_of, wrong_method
from lambent.runtime_api.frames import MAX_CHUNK
from lambent.runtime_api.http_parser import Head
from lambent.runtime_api.session_words import Answer, AnswerBegan, AnswerCame, AnswerCut, InitFailed, Next, Piece

ROOT = "/2018-06-01"
_INVOCATION = f"{ROOT}/runtime/invocation/"
_NEXT = f"{_INVOCATION}next"
_ERROR_TYPE = "lambda-runtime-function-error-type"
_ERROR_BODY = "lambda-runtime-function-error-body"
_CAUSE = "lambda-runtime-function-xray-error-cause"
_WITH_CAUSE = "application/vnd.aws.lambda.error.cause+json"
MAX_CAUSE = 1024 * 1024


def open_runtime(desk: Desk, caller: int, head: Head) -> Exchange | None:
    """The exchange that a request to the Runtime API begins; ``None`` if it is to another API."""
    path = head.path
    if path.startswith(_INVOCATION):
        return _invocation(desk, caller, head)
    route = _ROUTES.get(path)
    if route is None:
        return None
    method, begin = route
    return begin(desk, caller, head) if head.method == method else wrong_method(desk, caller, method)


def _invocation(desk: Desk, caller: int, head: Head) -> Exchange | None:
    if head.path == _NEXT:
        if head.method != "GET":
            return wrong_method(desk, caller, "GET")
        return ignoring_body(lambda: desk.carry_out(desk.runtime.handle(Next(caller))))
    request_id, _, what = head.path[len(_INVOCATION) :].partition("/")
    if what not in ("response", "error"):
        return None
    if head.method != "POST":
        return wrong_method(desk, caller, "POST")
    headers = head.headers
    error = what == "error"
    mode = "" if error else headers.get("lambda-runtime-function-response-mode", "")
    echo = headers.get("lambda-runtime-invocation-id", "")
    began = desk.runtime.handle(AnswerBegan(caller, request_id, echo, error, mode, text_of(head, "content-type")))
    for instruction in began:
        if isinstance(instruction, Answer):
            return Refused(desk, instruction)
    desk.carry_out(began)
    if desk.runtime.streaming_caller == caller:
        return _Stream(desk, caller)
    return _Whole(desk, caller, head, error)


class _Whole(Collected):
    """A buffered response, or an error."""

    __slots__ = ("_caller", "_desk", "_error", "_head")

    def __init__(self, desk: Desk, caller: int, head: Head, error: bool) -> None:
        super().__init__(desk.response_cap, self._came)
        self._desk = desk
        self._caller = caller
        self._head = head
        self._error = error

    def _came(self, body: bytes, oversize: int) -> None:
        event = AnswerCame(self._caller, body, oversize)
        if self._error:
            event.error_type = text_of(self._head, _ERROR_TYPE)
            event.cause = _cause(text_of(self._head, _CAUSE))
            if self._head.headers.get("content-type") == _WITH_CAUSE and not oversize:
                event.body, event.cause = _split_cause(body)
            event.error_type = event.error_type or _type_in(event.body)
        self._desk.carry_out(self._desk.runtime.handle(event))

    def cut(self) -> bool:
        self._desk.carry_out(self._desk.runtime.handle(AnswerCut(self._caller)))
        return True


class _Stream(Exchange):
    """A streamed response: what one read brought is passed on as one piece."""

    __slots__ = ("_caller", "_desk", "_pieces", "_size")

    def __init__(self, desk: Desk, caller: int) -> None:
        self._desk = desk
        self._caller = caller
        self._pieces: list[bytes] = []
        self._size = 0

    def data(self, piece: bytes) -> bool:
        if self._size + len(piece) > MAX_CHUNK:
            self.flush()
        self._pieces.append(piece)
        self._size += len(piece)
        return False

    def flush(self) -> None:
        if self._pieces:
            whole = b"".join(self._pieces)
            self._pieces.clear()
            self._size = 0
            for start in range(0, len(whole), MAX_CHUNK):
                self._desk.carry_out(self._desk.runtime.handle(Piece(self._caller, whole[start : start + MAX_CHUNK])))

    def end(self, trailers: dict[str, str]) -> None:
        self.flush()
        event = AnswerCame(self._caller, b"")
        event.error_type = trailers.get(_ERROR_TYPE, "")
        if _ERROR_BODY in trailers:
            event.body = _error_body(trailers[_ERROR_BODY])
            event.error_type = event.error_type or "Function.Unknown"
        self._desk.carry_out(self._desk.runtime.handle(event))

    def cut(self) -> bool:
        self.flush()
        self._desk.carry_out(self._desk.runtime.handle(AnswerCut(self._caller)))
        return True


def _error_body(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _cause(value: str) -> str:
    """The header, if it is the JSON object that it should be."""
    if not value or len(value) > MAX_CAUSE:
        return ""
    try:
        return value if isinstance(json.loads(value), dict) else ""
    except (ValueError, RecursionError):
        return ""


def _type_in(body: bytes) -> str:
    """The error's type as its document names it: clients made with aws-lambda-cpp, awslambdaric among them, send no header."""
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    error_type = document.get("errorType") if isinstance(document, dict) else None
    return " ".join(error_type.split()) if isinstance(error_type, str) else ""


def _split_cause(body: bytes) -> tuple[bytes, str]:
    """An error document that holds its own cause: what the caller sees, and the cause."""
    try:
        document: Any = json.loads(body)
        if not isinstance(document, dict):
            raise ValueError
        seen = {name: document[name] for name in ("errorMessage", "errorType", "stackTrace") if name in document}
        cause = document.get("errorCause")
        return _json(seen), _json(cause).decode()[:MAX_CAUSE] if isinstance(cause, dict) else ""
    except (ValueError, RecursionError):
        return b'"Invalid error body"', ""


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def _init_error(desk: Desk, caller: int, head: Head) -> Exchange:
    error_type = text_of(head, _ERROR_TYPE)
    return Collected(
        desk.response_cap,
        lambda body, oversize: desk.carry_out(desk.runtime.handle(InitFailed(caller, error_type or _type_in(body), body, oversize))),
    )


def _ping(desk: Desk, caller: int, head: Head) -> Exchange:
    return ignoring_body(lambda: desk.answer(caller, 200, b"pong", (), "text/plain; charset=utf-8"))


_ROUTES: dict[str, tuple[str, Callable[[Desk, int, Head], Exchange]]] = {
    f"{ROOT}/runtime/init/error": ("POST", _init_error),
    f"{ROOT}/ping": ("GET", _ping),
    "/ping": ("GET", _ping),
}

# ---------------------------------------------------------------------------------------------------------- the waiting next


def invocation_head(event: InvokeEvent) -> bytes:
    """The response to a waiting ``next``, up to the event itself. Empty headers are left out."""
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        f"Lambda-Runtime-Aws-Request-Id: {event.request_id}\r\n"
        f"Lambda-Runtime-Deadline-Ms: {event.deadline_ms}\r\n"
        f"Lambda-Runtime-Invoked-Function-Arn: {event.invoked_arn}\r\n"
        f"Lambda-Runtime-Invocation-Id: {event.token}\r\n"
    )
    if event.trace:
        head += f"Lambda-Runtime-Trace-Id: {_one_line(event.trace)}\r\n"
    if event.client_context:
        head += f"Lambda-Runtime-Client-Context: {_one_line(event.client_context)}\r\n"
    if event.cognito:
        head += f"Lambda-Runtime-Cognito-Identity: {_one_line(event.cognito)}\r\n"
    if event.tenant:
        head += f"Lambda-Runtime-Aws-Tenant-Id: {_one_line(event.tenant)}\r\n"
    return f"{head}Content-Length: {len(event.payload)}\r\n\r\n".encode()


def _one_line(value: str) -> str:
    """A caller chose it: it must not begin a header of its own."""
    if value.isprintable():
        return value
    return "".join(letter if letter >= " " and letter != "\x7f" else " " for letter in value)

"""What passes between the HTTP side of the APIs inside and the pure machines that decide who may call what when.

``caller`` is the number of a connection, unique within one sandbox. A machine never answers a caller twice for one request, and leaves one
unanswered only where the contract lets it wait.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from lambent.runtime_api.events import ExtensionFailed, InvokeEvent, Registered
from lambent.runtime_api.frames import Frame

NOT_ALLOWED = "State transition is not allowed"

# ------------------------------------------------------------------------------------------------- what a runtime asks, and what befalls it


@dataclass(slots=True)
class Next:
    """``GET /runtime/invocation/next``."""

    caller: int


@dataclass(slots=True)
class AnswerBegan:
    """The head of a response or an error.

    ``echo`` is the ``Lambda-Runtime-Invocation-Id`` that the client sends back, or ``""``; ``mode`` is the header
    ``Lambda-Runtime-Function-Response-Mode``.
    """

    caller: int
    request_id: str
    echo: str
    error: bool = False
    mode: str = ""
    content_type: str = ""


@dataclass(slots=True)
class Piece:
    """Bytes of a streamed response, at most 1 MB."""

    caller: int
    data: bytes


@dataclass(slots=True)
class AnswerCame:
    """The response or error is complete. ``oversize`` is the true length of a body over the cap, which is not kept.

    ``error_type`` and ``cause`` are headers of an error; for a stream, ``error_type`` and ``body`` come from its trailers.
    """

    caller: int
    body: bytes
    oversize: int = 0
    error_type: str = ""
    cause: str = ""


@dataclass(slots=True)
class AnswerCut:
    """The connection closed before the response was complete."""

    caller: int


@dataclass(slots=True)
class InitFailed:
    """``POST /runtime/init/error``."""

    caller: int
    error_type: str
    body: bytes
    oversize: int = 0


@dataclass(slots=True)
class Delivered:
    """An invocation has been written to ``caller``, the first that waits."""

    caller: int
    event: InvokeEvent


@dataclass(slots=True)
class Lost:
    """The connection of somebody who waits is gone."""

    caller: int


# -------------------------------------------------------------------------------------------- what extensions ask, and what befalls them


@dataclass(slots=True)
class Register:
    """``POST /extension/register``, its body read: ``events`` as given."""

    caller: int
    name: str
    events: tuple[str, ...]
    with_account: bool = False


@dataclass(slots=True)
class EventNext:
    """``GET /extension/event/next``."""

    caller: int
    identifier: str


@dataclass(slots=True)
class ExtensionError:
    """``POST /extension/init/error`` or ``.../exit/error``. ``during``: init or exit."""

    caller: int
    identifier: str
    during: str
    error_type: str


@dataclass(slots=True)
class InvokeAll:
    """An invocation, for the extensions that asked for INVOKE."""

    event: InvokeEvent


@dataclass(slots=True)
class ShutDown:
    """The environment ends. ``reason``: spindown, timeout, failure."""

    reason: str
    deadline_ms: int


@dataclass(slots=True)
class InitOver:
    """No more registrations."""


RuntimeEvent = Next | AnswerBegan | Piece | AnswerCame | AnswerCut | InitFailed | Delivered | Lost
ExtensionEvent = Register | EventNext | ExtensionError | InvokeAll | ShutDown | InitOver | Lost

# ------------------------------------------------------------------------------------------------------------------------ instructions


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer ``caller``. ``headers`` go beside the content type (JSON) and the length."""

    caller: int
    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class TellFrames:
    """What the runtime said, for the environment: the same frames as over the channel."""

    frames: list[Frame]


@dataclass(frozen=True, slots=True)
class TellRegistered:
    event: Registered


@dataclass(frozen=True, slots=True)
class TellReady:
    """Every registered extension waits in ``event/next``."""


@dataclass(frozen=True, slots=True)
class TellFailed:
    event: ExtensionFailed


Instruction = Answer | TellFrames | TellRegistered | TellReady | TellFailed

OK_BODY = b'{"status":"OK"}'


def error_body(error_type: str, message: str) -> bytes:
    """The error document of all three APIs."""
    return json.dumps({"errorMessage": message, "errorType": error_type}, separators=(",", ":"), ensure_ascii=False).encode()


def refusal(caller: int, status: int, error_type: str, message: str) -> Answer:
    return Answer(caller, status, error_body(error_type, message))

"""One invocation as it enters the front door, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field

from lambent.arn import FunctionArn


@dataclass(slots=True)
class Invocation:
    """What any caller (sync, async, event source, ...) hands to ``FrontDoor.invoke``.

    ``target`` carries the qualifier as addressed, if any. ``client_context`` is decoded JSON text. ``cause`` is the id of what caused this
    invocation (a message, a schedule, a parent) for the story. ``rated``: requests a second count, as they do for synchronous callers.
    """

    target: FunctionArn
    payload: bytes
    request_id: str
    client_context: str = ""
    trace: str = ""
    tenant: str = ""
    want_log: bool = False
    cause: str = ""
    rated: bool = True


@dataclass(slots=True)
class InvocationResult:
    """``function_error`` is ``None`` or ``"Unhandled"``; ``log_tail`` is at most the last 4,096 bytes of this invocation's log.

    ``payload`` is empty where the response was streamed.
    """

    payload: bytes
    executed_version: str
    function_error: str | None = None
    content_type: str = "application/json"
    log_tail: bytes = b""
    trace: str = ""
    billed_ms: int = 0
    spans: dict[str, float] = field(default_factory=dict)
    error_type: str = ""

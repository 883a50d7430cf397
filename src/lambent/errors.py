"""The one tree of errors, split by whose fault it is.

    LambentError
    ├── ClientFault          the caller's: an AWS error code, an HTTP status, a message      (contract 01 §1, §7)
    │   └── NotImplementedFault   modelled by AWS, honestly absent here
    ├── FunctionFault        the function's: becomes the payload of a 200 answer              (contract 02 §2.1)
    └── PlatformFault        ours: becomes a 5xx answer, and carries the story
        ├── IllegalTransition     a state machine was fed an event that its table lacks
        └── SandboxFault          a sandbox could not be made, reached or removed

``ClientFault`` knows its wire form in AWS's terms only; ``wire/serialize.py`` turns it into bytes. Broad ``except`` stands at three
boundaries and nowhere else: a request (``api/app.py``), a background task group (``node.py``), a plugin.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class LambentError(Exception):
    """Base of every error that Lambent raises on purpose."""


class ClientFault(LambentError):
    """An AWS-shaped refusal.

    ``code`` is the exception's name on the wire (``ResourceNotFoundException``), ``status`` the HTTP status, ``message`` AWS's text.
    ``extra`` holds further modelled members of the error body, e.g. ``{"Reason": "ConcurrentInvocationLimitExceeded"}``.
    """

    def __init__(self, code: str, status: int, message: str, extra: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.status = status
        self.message = message
        self.extra: Mapping[str, Any] = extra or {}


class NotImplementedFault(ClientFault):
    """The operation exists at AWS and is parsed and validated here, but does nothing yet. See ``docs/parity.md``."""

    def __init__(self, service: str, operation: str) -> None:
        super().__init__("NotImplementedException", 501, f"Lambent does not implement {service}.{operation} yet; see docs/parity.md.")


class FunctionFault(LambentError):
    """An error of the function itself; the caller sees 200, ``X-Amz-Function-Error`` and this payload (contract 02 §2.1)."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(f"{error_type}: {message}")
        self.error_type = error_type
        self.message = message


class PlatformFault(LambentError):
    """Ours. The caller gets a 5xx ``ServiceException``, or ``answer`` where AWS has one of its own; the log gets the story."""

    def __init__(self, message: str, story: str = "", answer: ClientFault | None = None) -> None:
        super().__init__(message if not story else f"{message}\n{story}")
        self.message = message
        self.story = story
        self.answer = answer


class IllegalTransition(PlatformFault):
    """A (state, event) pair that the machine's table lacks: a bug of ours, never a user's."""

    def __init__(self, machine: str, state: str, event: str, story: str = "") -> None:
        super().__init__(f"{machine}: no transition from {state} on {event}", story)
        self.machine = machine
        self.state = state
        self.event = event


class SandboxFault(PlatformFault):
    """A sandbox could not be made, reached or removed."""


def invalid_parameter(message: str) -> ClientFault:
    """400 ``InvalidParameterValueException`` (IPV in contract 01)."""
    return ClientFault("InvalidParameterValueException", 400, message)


def not_found(message: str) -> ClientFault:
    """404 ``ResourceNotFoundException`` (RNF)."""
    return ClientFault("ResourceNotFoundException", 404, message)


def conflict(message: str) -> ClientFault:
    """409 ``ResourceConflictException`` (RC)."""
    return ClientFault("ResourceConflictException", 409, message)


def precondition_failed(api: str = "GetFunction/GetAlias") -> ClientFault:
    """412 ``PreconditionFailedException`` with AWS's text for a stale RevisionId (contract 01 §3.1)."""
    return ClientFault(
        "PreconditionFailedException",
        412,
        f"The Revision Id provided does not match the latest Revision Id. Call the {api} API to retrieve the latest Revision Id",
    )


def throttled(reason: str, message: str = "Rate Exceeded.") -> ClientFault:
    """429 ``TooManyRequestsException`` with its ``Reason`` (contract 02 §2.2)."""
    return ClientFault("TooManyRequestsException", 429, message, {"Reason": reason})

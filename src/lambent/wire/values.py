"""Scalars on the wire: timestamps in their three spellings, base64, and text from paths, queries and headers.

Inside Lambent a timestamp is a ``float`` of epoch seconds and a blob is ``bytes``. A timestamp that a service already holds as text goes
out untouched: AWS spells dates of one service in four ways (contract 01 §1), and only the service knows which one a member wants.
``None`` says that a member is absent, ``NULL`` that AWS writes ``null`` for it.

``Mistyped`` means that a value cannot be what its shape says; its text is the one that AWS's JSON reader gives.
"""

from __future__ import annotations

import base64
import binascii
import math
from datetime import UTC, datetime
from typing import Any, Final

from lambent.errors import ClientFault
from lambent.wire.models import Shape

NULL: Final = object()
INTEGERS = {"integer": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
FLOATS = ("float", "double")
NOUNS = {
    "integer": "an Integer",
    "long": "a Long",
    "float": "a Float",
    "double": "a Double",
    "boolean": "a Boolean",
    "string": "a String",
    "timestamp": "a Timestamp",
    "blob": "a Blob",
}

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Mistyped(ClientFault):
    """400 ``SerializationException``."""

    def __init__(self, message: str) -> None:
        super().__init__("SerializationException", 400, message)


def cannot(token: str, kind: str) -> Mistyped:
    """``cannot("STRING_VALUE", "integer")``: the text of AWS's reader."""
    return Mistyped(f"{token} can not be converted to {NOUNS[kind]}")


def read_blob(text: str) -> bytes:
    """Strict base64, line breaks allowed."""
    if "\n" in text or "\r" in text:
        text = text.replace("\n", "").replace("\r", "")
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (ValueError, UnicodeEncodeError) as error:
        raise Mistyped("Invalid base64 in a blob") from error


def write_blob(data: bytes | bytearray | memoryview) -> str:
    return base64.b64encode(data).decode("ascii")


def read_text(shape: Shape, text: str) -> Any:
    """A value from a path, a query string or a header."""
    kind = shape.kind
    if kind == "string":
        return text
    if kind in INTEGERS:
        low, high = INTEGERS[kind]
        digits = text[1:] if text[:1] in "+-" else text
        if digits.isascii() and digits.isdigit() and len(digits) < 20 and low <= (number := int(text)) <= high:
            return number
    elif kind == "boolean":
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
    elif kind in FLOATS:
        return _read_float(text, kind)
    elif kind == "timestamp":
        return read_timestamp(text)
    elif kind == "blob":
        return read_blob(text)
    raise cannot("STRING_VALUE", kind)


def _read_float(text: str, kind: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise cannot("STRING_VALUE", kind) from None
    if not math.isfinite(number):
        raise cannot("STRING_VALUE", kind)
    return number


def read_timestamp(value: object) -> float:
    """Epoch seconds from a number, an ISO 8601 or RFC 822 text, or digits in a text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if -1e14 < value < 1e14:
            return float(value)
    elif isinstance(value, str):
        seconds = _read_date(value.strip())
        if seconds is not None:
            return seconds
    raise cannot("STRING_VALUE" if isinstance(value, str) else "NUMBER_VALUE", "timestamp")


def _read_date(text: str) -> float | None:
    if len(text) > 64:
        return None
    try:
        number = float(text)
    except ValueError:
        return _read_spelled_date(text)
    return number if -1e14 < number < 1e14 else None


def _read_spelled_date(text: str) -> float | None:
    try:
        moment = _read_rfc822(text) if text[:3] in _DAYS else datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _read_rfc822(text: str) -> datetime:
    _, day, month, year, clock, *_ = [*text.split(), "", "", "", "", ""]
    hour, minute, second = clock.split(":")
    return datetime(int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second), tzinfo=UTC)


def write_timestamp(value: Any, form: str) -> Any:
    """``form`` is ``unixTimestamp``, ``iso8601`` or ``rfc822``; text passes untouched."""
    if isinstance(value, str) or form == "unixTimestamp":
        return value
    moment = datetime.fromtimestamp(value, UTC)
    if form == "iso8601":
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
    return f"{_DAYS[moment.weekday()]}, {moment.day:02d} {_MONTHS[moment.month - 1]} {moment.year:04d} {moment:%H:%M:%S} GMT"


def write_text(shape: Shape, value: Any, time_form: str) -> str:
    """A value for a header or an XML element."""
    if shape.kind == "boolean":
        return "true" if value else "false"
    if shape.kind == "blob":
        return write_blob(value)
    if shape.kind == "timestamp":
        return str(write_timestamp(value, shape.time_format or time_form))
    return str(value)

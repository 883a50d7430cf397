"""Log levels, and which level a line has that a function printed (contract 03 §8).

A function with LogFormat JSON has two levels, one for its own lines and one for the platform's. Its own lines carry their level inside: a
JSON object with a ``level`` that AWS knows and a time that is one by RFC 3339. Whatever lacks either counts as INFO, plain text included.
"""

from __future__ import annotations

import json
import re
from typing import Any

TRACE, DEBUG, INFO, WARN, ERROR, FATAL = range(1, 7)
UNKNOWN = 0

RANKS = {
    "TRACE": TRACE,
    "DEBUG": DEBUG,
    "INFO": INFO,
    "INFORMATION": INFO,  # .NET
    "WARN": WARN,
    "WARNING": WARN,  # Python, .NET
    "ERROR": ERROR,
    "FATAL": FATAL,
    "CRITICAL": FATAL,  # Python, .NET
}
_TIMES = ("timestamp", "time", "@timestamp")
_is_time = re.compile(
    r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])[Tt ](?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60)(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)"
).fullmatch


def rank(name: str, default: int = INFO) -> int:
    """A level by name; ``default`` for an empty or unknown one."""
    return RANKS.get(name.upper(), default)


def parsed(line: str) -> dict[str, Any] | None:
    """The JSON object that a line is, or ``None``."""
    if not line.startswith("{"):
        return None
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def level_of(document: dict[str, Any] | None) -> int:
    """The level that a printed object has for the filter."""
    if document is None:
        return INFO
    named = document.get("level", document.get("Level"))
    if not isinstance(named, str):
        return INFO
    time = next((document[key] for key in _TIMES if key in document), None)
    return rank(named) if isinstance(time, str) and _is_time(time) else INFO

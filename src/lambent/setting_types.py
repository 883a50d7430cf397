"""Whether the values of a configuration file are of the kinds that the settings have.

The dataclasses of ``settings.py`` say so once, in their annotations; here these are read. Without it ``port = "9000"`` would fail far from
the file, and a limit that is text only when somebody comes near it. Numbers below zero are nonsense for every setting that there is.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

_WORDS = {int: "a whole number", float: "a number", str: "text", Path: "text"}


def complaint(kind: Any, values: Mapping[str, Any]) -> str:
    """What is wrong with the first of ``values`` for the dataclass ``kind`` that is wrong; ``""`` where all are right."""
    hints = typing.get_type_hints(kind)
    for name, value in values.items():
        wanted = _missing(hints[name], value)
        if wanted:
            return f"{name}: {value!r} is not {wanted}"
    return ""


def lacking(kind: Any, values: Mapping[str, Any]) -> list[str]:
    """The names without a default that ``values`` does not give."""
    return [each.name for each in fields(kind) if each.default is each.default_factory and each.name not in values]


def _missing(hint: Any, value: object) -> str:
    """What ``value`` had to be; ``""`` if it is that."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        fits = isinstance(value, Sequence) and not isinstance(value, str) and not any(_missing(arguments[0], each) for each in value)
        return "" if fits else f"a list, each {_missing(arguments[0], None)}"
    if origin is Mapping:
        fits = isinstance(value, Mapping) and not any(_missing(arguments[1], each) for each in value.values())
        return "" if fits else f"a table, each value {_missing(arguments[1], None)}"
    accepted: type | types.UnionType = {float: int | float, Path: str | Path}.get(hint, hint)
    if not isinstance(value, accepted) or isinstance(value, bool):
        return _WORDS[hint]
    return "0 or more" if isinstance(value, int | float) and not value >= 0 else ""

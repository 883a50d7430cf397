"""One filter pattern, compiled: contract 04 §5. Pure.

A pattern has the shape of what it matches. Its keys are AND-ed, the values in a list are OR-ed, and a list in the data matches if one of
its elements does. What a leaf looks like decides what it asks for:

    ["a", 100, true, null, ""]          one of these values; 1 and true are different, 1 and 1.0 are not
    [{"exists": false}]                 no such leaf: neither a scalar nor a list there
    [{"prefix": "us-"}, {"suffix": ".png"}, {"equals-ignore-case": "AbC"}]
    [{"anything-but": ["x", 1]}]        there is a value, and it is none of these; {"prefix": "x"} in place of the list: it starts otherwise
    [{"numeric": [">", 0, "<=", 5]}]    a number in the range; EventBridge's bounds on the numbers hold
    "$or": [{...}, {...}]               one of these patterns, beside the other keys

A *payload key* (``body`` of SQS, ``data`` of Kinesis) holds what a producer wrote, and there the kinds must agree: a pattern that is an
object is for JSON, a list of strings is for plain text, and whatever is of the other kind does not match, whatever the pattern asks for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from lambent.errors import ClientFault, invalid_parameter

Matcher = Callable[[Any], bool]

ABSENT = object()
_BOUND = 1e9
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "=": lambda value, bound: value == bound,
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
    ">": lambda value, bound: value > bound,
    ">=": lambda value, bound: value >= bound,
}


def invalid() -> ClientFault:
    """AWS says no more than this, whatever is wrong."""
    return invalid_parameter("Invalid filter pattern definition.")


def compile_pattern(text: str, payload_keys: Collection[str] = ()) -> Matcher:
    """A function of the data (as ``json.loads`` gives it) that says whether it matches. Raises ``ClientFault``."""
    try:
        pattern = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise invalid() from error
    if not isinstance(pattern, dict):
        raise invalid()
    return _object(pattern, payload_keys)


def _refuse(name: str) -> Any:
    raise ValueError(name)


def _object(pattern: Mapping[str, Any], payload_keys: Collection[str] = ()) -> Matcher:
    members: list[tuple[str, Matcher]] = []
    choices: list[list[Matcher]] = []
    for key, wanted in pattern.items():
        if key == "$or":
            choices.append(_either(wanted, payload_keys))
        elif isinstance(wanted, dict):
            inner = _object(wanted)
            members.append((key, _only((dict, list), inner) if key in payload_keys else inner))
        elif isinstance(wanted, list):
            leaf = _leaf(wanted)
            members.append((key, _only(str, leaf) if key in payload_keys else leaf))
        else:
            raise invalid()

    def match(value: Any) -> bool:
        if isinstance(value, list):
            return any(match(each) for each in value)
        found = value if isinstance(value, dict) else {}
        return all(matcher(found.get(key, ABSENT)) for key, matcher in members) and all(
            any(matcher(found) for matcher in choice) for choice in choices
        )

    return match


def _either(wanted: Any, payload_keys: Collection[str]) -> list[Matcher]:
    if not isinstance(wanted, list) or not wanted or not all(isinstance(each, dict) and each for each in wanted):
        raise invalid()
    return [_object(each, payload_keys) for each in wanted]


def _only(kind: type | tuple[type, ...], inner: Matcher) -> Matcher:
    return lambda value: isinstance(value, kind) and inner(value)


def _leaf(wanted: list[Any]) -> Matcher:
    if not wanted:
        raise invalid()
    tests = [_test(each) for each in wanted if not _is_exists(each)]
    exists = {each["exists"] for each in wanted if _is_exists(each)}

    def match(value: Any) -> bool:
        there = value is not ABSENT and not isinstance(value, dict)
        if there in exists:
            return True
        if not there:
            return False
        values = value if isinstance(value, list) else (value,)
        return any(test(each) for each in values for test in tests)

    return match


def _is_exists(wanted: Any) -> bool:
    if not isinstance(wanted, dict) or "exists" not in wanted:
        return False
    if len(wanted) != 1 or not isinstance(wanted["exists"], bool):
        raise invalid()
    return True


def _test(wanted: Any) -> Matcher:
    if isinstance(wanted, dict):
        if len(wanted) != 1:
            raise invalid()
        ((name, operand),) = wanted.items()
        maker = _OPERATORS.get(name)
        if maker is None:
            raise invalid()
        return maker(operand)
    if isinstance(wanted, list):
        raise invalid()
    return lambda value: _same(value, wanted)


def _same(value: Any, wanted: Any) -> bool:
    """Equal as in JSON, where ``true`` is no number."""
    return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(operand: Any) -> str:
    if not isinstance(operand, str):
        raise invalid()
    return operand


def _prefix(operand: Any) -> Matcher:
    start = _text(operand)
    return lambda value: isinstance(value, str) and value.startswith(start)


def _suffix(operand: Any) -> Matcher:
    end = _text(operand)
    return lambda value: isinstance(value, str) and value.endswith(end)


def _case_blind(operand: Any) -> Matcher:
    wanted = _text(operand).casefold()
    return lambda value: isinstance(value, str) and value.casefold() == wanted


def _anything_but(operand: Any) -> Matcher:
    if isinstance(operand, dict):
        if set(operand) != {"prefix"}:
            raise invalid()
        start = _text(operand["prefix"])
        return lambda value: not isinstance(value, dict | list) and not (isinstance(value, str) and value.startswith(start))
    refused = operand if isinstance(operand, list) else [operand]
    if not refused or not all(isinstance(each, str) or _is_number(each) for each in refused):
        raise invalid()
    return lambda value: not isinstance(value, dict | list) and not any(_same(value, each) for each in refused)


def _numeric(operand: Any) -> Matcher:
    if not isinstance(operand, list) or len(operand) not in {2, 4}:
        raise invalid()
    pairs = list(zip(operand[::2], operand[1::2], strict=True))
    for name, bound in pairs:
        if not isinstance(name, str) or name not in _COMPARE or not _is_number(bound) or not -_BOUND <= bound <= _BOUND:
            raise invalid()
    if len(pairs) == 2:
        (low, bottom), (high, top) = pairs
        if not low.startswith(">") or not high.startswith("<") or bottom >= top:
            raise invalid()
    return lambda value: _is_number(value) and all(_COMPARE[name](value, bound) for name, bound in pairs)


_OPERATORS: dict[str, Callable[[Any], Matcher]] = {
    "prefix": _prefix,
    "suffix": _suffix,
    "equals-ignore-case": _case_blind,
    "anything-but": _anything_but,
    "numeric": _numeric,
}

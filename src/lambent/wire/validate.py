"""Parameters against the constraints of the model, in the words of AWS (grammar: contract 01 §1.1).

Each shape is compiled once, at its first use, into a check: a callable that appends its complaints to a list. Complaints come in the order
of the model and are all reported at once, as AWS does::

    2 validation errors detected: Value '4097' at 'memorySize' failed to satisfy constraint: Member must have value less than or equal to
    3008; Value null at 'code' failed to satisfy constraint: Member must not be null

A scalar in a list or a map does not complain itself: the whole list is quoted with every constraint of its items. Sensitive values are
never quoted. Some constraints that AWS applies in the service behind its front (the supported runtimes, memory against the account's
quota) are left to ``control/``, which can speak the same grammar with ``violation`` and ``validation_fault``; ``LEFT_TO_CONTROL`` lists
the modelled ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from lambent.errors import ClientFault
from lambent.wire.models import Member, Operation, Shape
from lambent.wire.patterns import accepts

NOT_NULL: Final = "Member must not be null"

CODES: Final = {"logs": "InvalidParameterException", "sts": "ValidationError"}
"""Services whose validation errors are not called ``ValidationException``."""

LEFT_TO_CONTROL: Final = {("CreateFunction", "Runtime"), ("UpdateFunctionConfiguration", "Runtime")}
"""(operation, member) of lambda whose enum is not checked here: AWS answers ``InvalidParameterValueException`` (contract 01 §1.1)."""

_QUOTE_MOST = 32_768
Check = Callable[[Any, str, list[str]], None]
_Rule = tuple[Callable[[Any], bool], str]


def validate(operation: Operation, params: Mapping[str, Any]) -> None:
    """Raises ``ClientFault`` 400 ``ValidationException`` (see ``CODES``) with every violation."""
    shape = operation.input
    if shape is None:
        return
    complaints: list[str] = []
    plan = shape.check
    if plan is None:
        plan = shape.check = _structure_plan(shape, operation.name if operation.service == "lambda" else "")
    for name, path, required, check in plan:
        value = params.get(name)
        if value is None:
            if required:
                complaints.append(violation(path, None, NOT_NULL))
        elif check is not None:
            check(value, path, complaints)
    if complaints:
        raise validation_fault(complaints, operation.service)


def validation_fault(complaints: list[str], service: str = "lambda") -> ClientFault:
    """The fault for one or more texts made by ``violation``."""
    noun = "error" if len(complaints) == 1 else "errors"
    message = f"{len(complaints)} validation {noun} detected: {'; '.join(complaints)}"
    return ClientFault(CODES.get(service, "ValidationException"), 400, message)


def violation(path: str, value: Any, constraint: str) -> str:
    """``Value '20000' at 'memorySize' failed to satisfy constraint: <constraint>``."""
    return f"Value {_quoted(value, None)} at '{path}' failed to satisfy constraint: {constraint}"


def at_most(bound: object) -> str:
    return f"Member must have value less than or equal to {bound}"


def at_least(bound: object) -> str:
    return f"Member must have value greater than or equal to {bound}"


# -- how values are quoted ----------------------------------------------------------------------------------------------------------------


def _quoted(value: Any, shape: Shape | None) -> str:
    if value is None:
        return "null"
    text = _java(value, shape)
    return f"'{text if len(text) <= _QUOTE_MOST else text[:_QUOTE_MOST] + '...'}'"


def _java(value: Any, shape: Shape | None) -> str:
    """The value as Java's ``toString`` gives it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return f"java.nio.HeapByteBuffer[pos=0 lim={len(value)} cap={len(value)}]"
    if isinstance(value, list):
        return f"[{', '.join(_java(each, shape.item if shape else None) for each in value)}]"
    if isinstance(value, dict):
        return _java_mapping(value, shape)
    return str(value)


def _java_mapping(value: dict[str, Any], shape: Shape | None) -> str:
    if shape is not None and shape.kind == "structure":
        members = (f"{each.path}={_java(value.get(name), each.shape)}" for name, each in shape.members.items())
        return f"{shape.name}({', '.join(members)})"
    inner = shape.value if shape else None
    return "{" + ", ".join(f"{key}={_java(each, inner)}" for key, each in value.items()) + "}"


def _complain(value: Any, shape: Shape, path: str, constraint: str) -> str:
    hidden = shape.sensitive or any(part is not None and part.sensitive for part in (shape.item, shape.key, shape.value))
    quoted = "" if hidden else f" {_quoted(value, shape)}"
    return f"Value{quoted} at '{path}' failed to satisfy constraint: {constraint}"


# -- compiling ----------------------------------------------------------------------------------------------------------------------------

_Plan = tuple[tuple[str, str, bool, Check | None], ...]


def _structure_plan(shape: Shape, operation: str = "") -> _Plan:
    """(member, path, required, check) in model order."""
    return tuple((name, each.path, each.required, _member_check(operation, each)) for name, each in shape.members.items())


def _member_check(operation: str, member: Member) -> Check | None:
    return _compile(member.shape, with_enum=(operation, member.name) not in LEFT_TO_CONTROL)


def _compile(shape: Shape, with_enum: bool = True) -> Check | None:
    if shape.kind == "structure":
        return _structure_check(shape) if shape.members else None
    rules = _rules(shape, with_enum)
    if shape.kind == "list" and shape.item is not None:
        return _list_check(shape, rules, shape.item)
    if shape.kind == "map" and shape.key is not None and shape.value is not None:
        return _map_check(shape, rules, shape.key, shape.value)
    return _scalar_check(shape, rules) if rules else None


def _rules(shape: Shape, with_enum: bool = True) -> list[_Rule]:
    """(predicate, text) for the constraints that stand on the shape itself."""
    rules: list[_Rule] = []
    low, high = shape.low, shape.high
    sized = shape.kind in ("string", "blob", "list", "map")
    if high is not None:
        text = f"Member must have length less than or equal to {high}" if sized else at_most(high)
        rules.append(((lambda value: len(value) <= high) if sized else (lambda value: value <= high), text))
    if low:
        text = f"Member must have length greater than or equal to {low}" if sized else at_least(low)
        rules.append(((lambda value: len(value) >= low) if sized else (lambda value: value >= low), text))
    elif low is not None and not sized:
        rules.append((lambda value: value >= low, at_least(low)))
    if shape.pattern is not None:
        source = shape.pattern
        rules.append((lambda value: accepts(source, value), f"Member must satisfy regular expression pattern: {source}"))
    if shape.enum and with_enum:
        rules.append((frozenset(shape.enum).__contains__, f"Member must satisfy enum value set: [{', '.join(shape.enum)}]"))
    return rules


def _scalar_check(shape: Shape, rules: list[_Rule]) -> Check:
    def check(value: Any, path: str, complaints: list[str]) -> None:
        for holds, text in rules:
            if not holds(value):
                complaints.append(_complain(value, shape, path, text))

    return check


def _structure_check(shape: Shape) -> Check:
    def check(value: Any, path: str, complaints: list[str]) -> None:
        plan = shape.check
        if plan is None:  # compiled here and not above, so that a shape may contain itself
            plan = shape.check = _structure_plan(shape)
        for name, part, required, inner in plan:
            member = value.get(name)
            if member is None:
                if required:
                    complaints.append(violation(f"{path}.{part}", None, NOT_NULL))
            elif inner is not None:
                inner(member, f"{path}.{part}", complaints)

    return check


def _list_check(shape: Shape, rules: list[_Rule], item: Shape) -> Check:
    nested = _nested(item)
    item_rules = [] if nested else _rules(item)
    texts = [text for _, text in item_rules] + [NOT_NULL]

    def check(value: Any, path: str, complaints: list[str]) -> None:
        for holds, text in rules:
            if not holds(value):
                complaints.append(_complain(value, shape, path, text))
        if any(each is None or not all(holds(each) for holds, _ in item_rules) for each in value):
            complaints.append(_complain(value, shape, path, f"Member must satisfy constraint: [{', '.join(texts)}]"))
        if nested:
            for index, each in enumerate(value, 1):
                if each is not None:
                    nested(each, f"{path}.{index}.member", complaints)

    return check


def _map_check(shape: Shape, rules: list[_Rule], key: Shape, inner: Shape) -> Check:
    nested = _nested(inner)
    key_rules = _rules(key)
    value_rules = [] if nested else _rules(inner)
    key_text = f"Map keys must satisfy constraint: [{', '.join(text for _, text in key_rules)}]"
    value_text = f"Map value must satisfy constraint: [{', '.join(text for _, text in value_rules) or NOT_NULL}]"

    def check(value: Any, path: str, complaints: list[str]) -> None:
        for holds, text in rules:
            if not holds(value):
                complaints.append(_complain(value, shape, path, text))
        if not all(holds(each) for each in value for holds, _ in key_rules):
            complaints.append(_complain(value, shape, path, key_text))
        if any(each is None or not all(holds(each) for holds, _ in value_rules) for each in value.values()):
            complaints.append(_complain(value, shape, path, value_text))
        if nested:
            for name, each in value.items():
                if each is not None:
                    nested(each, f"{path}.{name}.member", complaints)

    return check


def _nested(shape: Shape) -> Check | None:
    """The check of an item that complains for itself; ``None`` for scalars, whose rules the container quotes."""
    if shape.kind in ("structure", "list", "map"):
        return _compile(shape) or _nothing
    return None


def _nothing(value: Any, path: str, complaints: list[str]) -> None:
    """The check of a structure without members."""

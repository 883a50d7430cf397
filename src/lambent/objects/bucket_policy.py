"""What a bucket's policy says to Lambda, which reads code that stays in a bucket of another account. Pure.

This is the one question that is asked of bucket policies here: may ``lambda.amazonaws.com`` get these objects, in any version, for this
function or layer? A statement that has anything which is not understood grants nothing, and denies what it may deny.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

SERVICE = "lambda.amazonaws.com"
_ACTIONS = ("s3:getobject", "s3:getobjectversion")  # names of actions are alike in capitals and small letters
_OPERATORS = frozenset({"stringequals", "stringlike", "arnequals", "arnlike"})


def lets_lambda_read(policy: str, path: str, arn: str, account: str) -> bool:
    """Whether the policy lets Lambda read ``path``, a bucket and a key, for the function or layer ``arn`` of ``account``."""
    try:
        statements = _listed(json.loads(policy).get("Statement")) if policy else []
    except (ValueError, AttributeError):
        return False
    known = {"aws:sourcearn": arn, "aws:sourceaccount": account}
    return all(_allows(statements, action, path, known) for action in _ACTIONS)


def _allows(statements: list[Any], action: str, path: str, known: Mapping[str, str]) -> bool:
    found = False
    for statement in statements:
        if not isinstance(statement, dict):
            return False
        if statement.get("Effect") != "Allow":
            if _meets(statement, action, path, known, unknown=True):
                return False
        elif _meets(statement, action, path, known, unknown=False):
            found = True
    return found


def _meets(statement: Mapping[str, Any], action: str, path: str, known: Mapping[str, str], unknown: bool) -> bool:
    """Whether a statement is about this reading; ``unknown`` is the answer where that cannot be told."""
    if statement.keys() & {"NotPrincipal", "NotAction", "NotResource"}:
        return unknown
    return (
        _is_lambda(statement.get("Principal"))
        and any(_like(action, each.lower()) for each in _texts(statement.get("Action")))
        and any(_like(path, each.partition(":s3:::")[2] if each != "*" else each) for each in _texts(statement.get("Resource")))
        and all(_holds(*condition, known, unknown) for condition in _conditions(statement.get("Condition")))
    )


def _is_lambda(principal: Any) -> bool:
    if not isinstance(principal, dict):
        return bool(principal == "*")
    return SERVICE in _texts(principal.get("Service")) or "*" in [*_texts(principal.get("AWS")), *_texts(principal.get("Service"))]


def _conditions(given: Any) -> list[tuple[str, str, list[str]]]:
    """Operator, key and values, in small letters where these do not matter."""
    if given is None:
        return []
    if not isinstance(given, dict) or not all(isinstance(each, dict) for each in given.values()):
        return [("", "", [])]
    return [(operator.lower(), key.lower(), _texts(values)) for operator, pairs in given.items() for key, values in pairs.items()]


def _holds(operator: str, key: str, values: list[str], known: Mapping[str, str], unknown: bool) -> bool:
    if operator not in _OPERATORS or key not in known:
        return unknown
    if operator == "stringequals":
        return known[key] in values
    return any(_like(known[key], value) for value in values)


def _like(text: str, pattern: str) -> bool:
    """``*`` stands for any text, ``?`` for any character."""
    return fnmatchcase(text, pattern.replace("[", "[[]"))


def _listed(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [given]


def _texts(given: Any) -> list[str]:
    return [each for each in _listed(given) if isinstance(each, str)]

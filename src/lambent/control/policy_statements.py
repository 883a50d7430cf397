"""Statements of function policies: from AddPermission's parameters to what AWS stores, and whole policies checked (contract 04 §8).

Pure. A policy is a dictionary ``{"Version", "Id", "Statement": [...]}`` in the order in which statements were added; on the wire it is
compact JSON in a string.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from lambent.errors import ClientFault, conflict, invalid_parameter, not_found

Params = Mapping[str, Any]
Policy = Mapping[str, Any]

_SERVICE = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*\.amazonaws\.com(\.cn)?|alexa-[a-z]+\.amazon\.com")
_IDENTITY = re.compile(r"arn:aws[a-zA-Z-]*:(iam|sts)::\d{12}:(root|[a-z-]+/.+)")
_UNIQUE_ID = re.compile(r"A(ID|RO)A[A-Z0-9]{12,}")

_CONDITIONS = (
    ("SourceArn", "ArnLike", "AWS:SourceArn"),
    ("SourceAccount", "StringEquals", "AWS:SourceAccount"),
    ("PrincipalOrgID", "StringEquals", "aws:PrincipalOrgID"),
    ("EventSourceToken", "StringEquals", "lambda:EventSourceToken"),
    ("FunctionUrlAuthType", "StringEquals", "lambda:FunctionUrlAuthType"),
)


def statement(params: Params, resource: str, partition: str = "aws") -> dict[str, Any]:
    """The statement that AddPermission makes for ``resource``, the ARN with its qualifier. Raises IPV."""
    made: dict[str, Any] = {
        "Sid": params["StatementId"],
        "Effect": "Allow",
        "Principal": principal(params["Principal"], partition),
        "Action": params["Action"],
        "Resource": resource,
    }
    if params.get("FunctionUrlAuthType") and params["Action"] != "lambda:InvokeFunctionUrl":
        raise invalid_parameter("FunctionUrlAuthType is only supported for lambda:InvokeFunctionUrl action")
    condition: dict[str, dict[str, str]] = {}
    for member, operator, key in _CONDITIONS:
        if params.get(member):
            condition.setdefault(operator, {})[key] = params[member]
    if params.get("InvokedViaFunctionUrl"):
        condition["Bool"] = {"lambda:InvokedViaFunctionUrl": "true"}
    if condition:
        made["Condition"] = condition
    return made


def principal(text: str, partition: str = "aws") -> str | dict[str, str]:
    """Who is meant: everybody, a service, an account, or a user or role. Raises IPV."""
    if text == "*":
        return "*"
    if _SERVICE.fullmatch(text):
        return {"Service": text}
    if re.fullmatch(r"\d{12}", text):
        return {"AWS": f"arn:{partition}:iam::{text}:root"}
    if _IDENTITY.fullmatch(text) or _UNIQUE_ID.fullmatch(text):
        return {"AWS": text}
    raise invalid_parameter("The provided principal was invalid. Please check the principal and try again.")


def with_statement(policy: Policy | None, added: Mapping[str, Any]) -> Policy:
    """``policy`` with one statement more. Raises 409 where its Sid is taken."""
    before = policy or {"Version": "2012-10-17", "Id": "default", "Statement": []}
    if any(each.get("Sid") == added["Sid"] for each in before["Statement"]):
        raise conflict(
            f"The statement id ({added['Sid']}) provided already exists. "
            "Please provide a new statement id, or remove the existing statement."
        )
    return {**before, "Statement": [*before["Statement"], added]}


def without_statement(policy: Policy | None, sid: str) -> Policy | None:
    """``policy`` without that statement; ``None`` when it was the last. Raises RNF."""
    if policy is None:
        raise not_found("No policy is associated with the given resource.")
    kept = [each for each in policy["Statement"] if each.get("Sid") != sid]
    if len(kept) == len(policy["Statement"]):
        raise not_found(f"Statement {sid} is not found in resource policy.")
    return {**policy, "Statement": kept} if kept else None


def parse(text: str, resource: str) -> Policy:
    """A whole policy for ``resource`` as a caller wrote it. Raises IPV."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid_parameter(f"The policy is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise invalid_parameter("The policy must be a JSON object.")
    unknown = document.keys() - {"Version", "Id", "Statement"}
    if unknown:
        raise invalid_parameter(f"The policy has an unknown element: {sorted(unknown)[0]}")
    if document.get("Version", "2012-10-17") not in ("2012-10-17", "2008-10-17"):
        raise invalid_parameter("The policy must have the version 2012-10-17 or 2008-10-17.")
    statements = document.get("Statement")
    if isinstance(statements, dict):
        statements = [statements]
    if not isinstance(statements, list) or not statements:
        raise invalid_parameter("The policy must have at least one statement.")
    sids: set[str] = set()
    for each in statements:
        _check(each, resource, sids)
    return {"Version": document.get("Version", "2012-10-17"), "Id": document.get("Id", "default"), "Statement": statements}


def _check(given: Any, resource: str, sids: set[str]) -> None:
    if not isinstance(given, dict):
        raise invalid_parameter("Each statement of the policy must be a JSON object.")
    unknown = given.keys() - {"Sid", "Effect", "Principal", "Action", "NotAction", "Resource", "Condition"}
    if unknown:
        raise invalid_parameter(f"A statement of the policy has an element that is not supported: {sorted(unknown)[0]}")
    sid = given.get("Sid")
    if sid is not None and (not isinstance(sid, str) or sid in sids):
        raise invalid_parameter("The statement ids of the policy must be texts, each different from the others.")
    sids.add(sid or "")
    if given.get("Effect") not in ("Allow", "Deny"):
        raise invalid_parameter("Each statement of the policy must have the effect Allow or Deny.")
    if not _principals(given.get("Principal")):
        raise invalid_parameter("The provided principal was invalid. Please check the principal and try again.")
    actions = _texts(given.get("Action", given.get("NotAction")))
    if not actions or not all(action == "*" or action.startswith("lambda:") for action in actions):
        raise invalid_parameter("Each statement of the policy must name actions of Lambda.")
    if _texts(given.get("Resource")) != [resource]:
        raise invalid_parameter(f"Each statement of the policy must have the resource {resource}.")
    if not isinstance(given.get("Condition", {}), dict):
        raise invalid_parameter("The condition of a statement must be a JSON object.")


def _principals(given: Any) -> bool:
    if given == "*":
        return True
    if not isinstance(given, dict) or not given:
        return False
    return all(kind in ("AWS", "Service", "Federated") and _texts(names) for kind, names in given.items())


def _texts(given: Any) -> list[str]:
    """A text or a list of them; empty for anything else."""
    listed = [given] if isinstance(given, str) else given
    if not isinstance(listed, list) or not all(isinstance(each, str) and each for each in listed):
        return []
    return listed


def compact(document: Mapping[str, Any]) -> str:
    """As it is on the wire."""
    return json.dumps(document, separators=(",", ":"))


def require_length(policy: Policy, limit: int) -> None:
    """Refuse a policy of more than ``limit`` bytes."""
    size = len(compact(policy).encode())
    if size > limit:
        raise ClientFault("PolicyLengthExceededException", 400, f"The final policy size ({size}) is bigger than the limit ({limit}).")

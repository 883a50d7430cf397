"""AddPermission and RemovePermission: statements of a queue's policy, by label. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lambent.queues import faults
from lambent.queues.queue import Queue


def _read(queue: Queue) -> dict[str, Any]:
    text = queue.given.get("Policy")
    policy: dict[str, Any] = json.loads(text) if text else {"Version": "2012-10-17", "Id": f"{queue.arn}/SQSDefaultPolicy", "Statement": []}
    return policy


def add_permission(queue: Queue, label: str, accounts: Sequence[str], actions: Sequence[str]) -> str:
    """The policy with the statement, as JSON text. Raises ``ClientFault`` where the label is taken."""
    policy = _read(queue)
    statements = policy.setdefault("Statement", [])
    if any(statement.get("Sid") == label for statement in statements):
        raise faults.invalid_value(f"Value {label} for parameter Label is invalid. Reason: Already exists.")
    principals = [f"arn:aws:iam::{account}:root" for account in accounts]
    named = [f"SQS:{action}" for action in actions]
    statements.append(
        {
            "Sid": label,
            "Effect": "Allow",
            "Principal": {"AWS": principals[0] if len(principals) == 1 else principals},
            "Action": named[0] if len(named) == 1 else named,
            "Resource": queue.arn,
        }
    )
    return json.dumps(policy)


def remove_permission(queue: Queue, label: str) -> str:
    """The policy without the statement, as JSON text; "" when none is left. Raises ``ClientFault`` where there is no such label."""
    policy = _read(queue)
    left = [statement for statement in policy.get("Statement", []) if statement.get("Sid") != label]
    if len(left) == len(policy.get("Statement", [])):
        raise faults.invalid_value(f"Value {label} for parameter Label is invalid. Reason: can't find label on existing policy.")
    return json.dumps({**policy, "Statement": left}) if left else ""

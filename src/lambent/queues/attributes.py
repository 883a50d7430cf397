"""Attributes of a queue: which there are, what they may hold, and what they are by default. Values are text, as on the wire."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from lambent.queues import faults

DEFAULTS = {
    "VisibilityTimeout": "30",
    "MaximumMessageSize": "1048576",
    "MessageRetentionPeriod": "345600",
    "DelaySeconds": "0",
    "ReceiveMessageWaitTimeSeconds": "0",
    "SqsManagedSseEnabled": "true",
}
FIFO_DEFAULTS = {
    "FifoQueue": "true",
    "ContentBasedDeduplication": "false",
    "DeduplicationScope": "queue",
    "FifoThroughputLimit": "perQueue",
}
_RANGES = {
    "VisibilityTimeout": (0, 43_200),
    "MaximumMessageSize": (1_024, 1_048_576),
    "MessageRetentionPeriod": (60, 1_209_600),
    "DelaySeconds": (0, 900),
    "ReceiveMessageWaitTimeSeconds": (0, 20),
    "KmsDataKeyReusePeriodSeconds": (60, 86_400),
}
_CHOICES = {
    "SqsManagedSseEnabled": ("true", "false"),
    "ContentBasedDeduplication": ("true", "false"),
    "FifoQueue": ("true",),
    "DeduplicationScope": ("queue", "messageGroup"),
    "FifoThroughputLimit": ("perQueue", "perMessageGroupId"),
}
_FIFO_ONLY = frozenset(FIFO_DEFAULTS)
_ARN = re.compile(r"arn:[\w-]+:sqs:[\w-]+:\d{12}:[\w-]{1,80}(\.fifo)?")


def check(given: Mapping[str, str], fifo: bool) -> dict[str, str]:
    """``given``, with every value found good; ``""`` takes an optional attribute away. Raises ``ClientFault``."""
    for name, value in given.items():
        if name in _FIFO_ONLY and not fifo:
            if name == "FifoQueue":
                raise faults.invalid_attribute("Invalid value for the parameter FifoQueue. Reason: A FIFO queue's name must end in .fifo.")
            raise faults.unknown_attribute(name)
        if name in _RANGES:
            _check_number(name, value)
        elif name in _CHOICES:
            if value not in _CHOICES[name]:
                raise _bad(name)
        elif name in _DOCUMENTS:
            if value:
                _DOCUMENTS[name](name, value)
        elif name != "KmsMasterKeyId":
            raise faults.unknown_attribute(name)
    return dict(given)


def _bad(name: str, why: str = "") -> Exception:
    return faults.invalid_attribute(f"Invalid value for the parameter {name}." + (f" Reason: {why}" if why else ""))


def _check_number(name: str, value: str) -> None:
    low, high = _RANGES[name]
    if not re.fullmatch(r"\d{1,9}", value) or not low <= int(value) <= high:
        raise _bad(name)


def _json(name: str, value: str) -> dict[str, Any]:
    try:
        document = json.loads(value)
    except ValueError as error:
        raise _bad(name, "Policy is not valid JSON" if name == "Policy" else "Value is not valid JSON.") from error
    if not isinstance(document, dict):
        raise _bad(name, "Value is not a JSON object.")
    return document


def _check_redrive(name: str, value: str) -> None:
    policy = _json(name, value)
    if "deadLetterTargetArn" not in policy or "maxReceiveCount" not in policy:
        raise faults.invalid_value(
            f"Value {value} for parameter RedrivePolicy is invalid. Reason: Redrive policy does not contain mandatory attribute: "
            + ("deadLetterTargetArn." if "deadLetterTargetArn" not in policy else "maxReceiveCount.")
        )
    count = str(policy["maxReceiveCount"])
    if not count.isdecimal() or not 1 <= int(count) <= 1_000:
        text = f"Value {value} for parameter RedrivePolicy is invalid. Reason: Invalid value for maxReceiveCount: {count}, "
        raise faults.invalid_value(text + "valid values are from 1 to 1000 both inclusive.")
    if not _ARN.fullmatch(str(policy["deadLetterTargetArn"])):
        raise faults.invalid_value(f"Value {value} for parameter RedrivePolicy is invalid. Reason: Invalid value for deadLetterTargetArn.")


def _check_allow(name: str, value: str) -> None:
    policy = _json(name, value)
    if policy.get("redrivePermission") not in {"allowAll", "denyAll", "byQueue"}:
        raise faults.invalid_value(f"Value {value} for parameter RedriveAllowPolicy is invalid. Reason: Invalid redrivePermission.")
    arns = policy.get("sourceQueueArns", [])
    if (policy["redrivePermission"] == "byQueue") != bool(arns) or len(arns) > 10:
        raise faults.invalid_value(f"Value {value} for parameter RedriveAllowPolicy is invalid. Reason: Invalid sourceQueueArns.")


_DOCUMENTS: dict[str, Callable[[str, str], object]] = {
    "Policy": _json,
    "RedrivePolicy": _check_redrive,
    "RedriveAllowPolicy": _check_allow,
}

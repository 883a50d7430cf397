"""Where results of invocations may be sent, checked when it is configured (contract 01 §5.6, 02 §4.1, §4.2).

Pure, but for the questions whether a function or a queue exists.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from lambent.arn import FunctionArn, parse_function
from lambent.errors import invalid_parameter

_ARN = re.compile(r"arn:aws[a-zA-Z-]*:(?P<service>[a-z0-9-]+):(?P<region>[a-z0-9-]*):(?P<account>\d*):(?P<resource>.+)", re.DOTALL)
_SUCCESS = frozenset({"sqs", "sns", "lambda", "events"})
_FAILURE = _SUCCESS | {"s3"}
_MAPPING = frozenset({"sqs", "sns", "s3"})
_DEAD_LETTERS = frozenset({"sqs", "sns"})

Exists = Callable[[str], bool]


class Destinations:
    """``function_exists`` is told an unqualified ARN, ``queue_exists`` the ARN of a queue."""

    def __init__(self, function_exists: Callable[[FunctionArn], bool], queue_exists: Exists) -> None:
        self._function_exists = function_exists
        self._queue_exists = queue_exists

    def of_invocations(self, config: Mapping[str, Any], function: FunctionArn) -> dict[str, Any]:
        """The DestinationConfig of asynchronous invocations of ``function``, checked, as it is shown. Raises IPV."""
        given = {side: (config.get(side) or {}).get("Destination") or "" for side in ("OnSuccess", "OnFailure")}
        for side, kinds in (("OnSuccess", _SUCCESS), ("OnFailure", _FAILURE)):
            if given[side] and not self._acceptable(given[side], kinds, function):
                raise _invalid(given["OnSuccess"], given["OnFailure"])
        return {side: {"Destination": arn} if arn else {} for side, arn in given.items()}

    def of_mapping(self, config: Mapping[str, Any], kafka: bool) -> dict[str, Any]:
        """The DestinationConfig of an event source mapping: failures only. Raises IPV."""
        if (config.get("OnSuccess") or {}).get("Destination"):
            raise invalid_parameter("Unsupported DestinationConfig parameter for given event source mapping type.")
        arn = (config.get("OnFailure") or {}).get("Destination") or ""
        if arn.startswith("kafka://") and kafka:
            return {"OnFailure": {"Destination": arn}}
        if arn and not self._acceptable(arn, _MAPPING, None):
            raise _invalid("", arn)
        return {"OnFailure": {"Destination": arn} if arn else {}}

    def _acceptable(self, arn: str, kinds: frozenset[str], function: FunctionArn | None) -> bool:
        match = _ARN.fullmatch(arn)
        if match is None or match["service"] not in kinds or _fifo(match):
            return False
        if match["service"] == "sqs" and not self._queue_exists(arn):
            raise invalid_parameter(f"The destination ARN {arn} is invalid.")
        if match["service"] == "lambda":
            self._require_other(arn, function)
        return True

    def _require_other(self, arn: str, function: FunctionArn | None) -> None:
        target = parse_function(arn, "", "")
        if target is None or not self._function_exists(target):
            raise invalid_parameter(f"The destination ARN {arn} is invalid.")
        if function is not None and target.unqualified == function.unqualified:
            raise invalid_parameter("You can't specify the function as a destination for itself.")


def check_dead_letters(arn: str) -> None:
    """Check the target of a DeadLetterConfig. Raises IPV."""
    match = _ARN.fullmatch(arn)
    if match is None or match["service"] not in _DEAD_LETTERS or _fifo(match):
        raise invalid_parameter(f"The dead letter target {arn} is invalid: it must be a standard SQS queue or a standard SNS topic.")


def _fifo(match: re.Match[str]) -> bool:
    return match["service"] in ("sqs", "sns") and match["resource"].endswith(".fifo")


def _invalid(success: str, failure: str) -> Exception:
    shown = [f"{kind}(destination={arn})" if arn else "null" for kind, arn in (("OnSuccess", success), ("OnFailure", failure))]
    return invalid_parameter(f"The provided destination config DestinationConfig(onSuccess={shown[0]}, onFailure={shown[1]}) is invalid.")

"""What an event source mapping may say, by the kind of its source, and what it says where nothing was given (contract 04 §1).

Pure: one literal table of kinds, and the checks that go beyond the model. ``create`` and ``update`` give the configuration in the shape of
the wire, without what the mapping's state adds.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lambent.control.destinations import Destinations
from lambent.errors import ClientFault, invalid_parameter
from lambent.sources.filters import validate_pattern
from lambent.wire.validate import at_least, at_most, validation_fault, violation

Params = Mapping[str, Any]
Config = dict[str, Any]

_ARN = re.compile(r"arn:aws[a-zA-Z-]*:(?P<service>[a-z0-9-]+):[a-z0-9-]*:\d*:(?P<resource>.+)", re.DOTALL)
_IDENTITY = frozenset({"FunctionName", "EventSourceArn", "Enabled", "Tags", "SelfManagedEventSource", "UUID"})
_EVERYWHERE = frozenset({"BatchSize", "FilterCriteria", "KMSKeyArn", "MaximumBatchingWindowInSeconds"})
_STREAM_DEFAULTS: Mapping[str, Any] = {
    "MaximumBatchingWindowInSeconds": 0,
    "ParallelizationFactor": 1,
    "MaximumRecordAgeInSeconds": -1,
    "MaximumRetryAttempts": -1,
    "BisectBatchOnFunctionError": False,
    "TumblingWindowInSeconds": 0,
    "FunctionResponseTypes": [],
    "DestinationConfig": {"OnFailure": {}},
}
_STREAM = frozenset({*_STREAM_DEFAULTS, "StartingPosition", "StartingPositionTimestamp", "MetricsConfig"})
_KAFKA = frozenset(
    {
        "StartingPosition",
        "StartingPositionTimestamp",
        "Topics",
        "SourceAccessConfigurations",
        "DestinationConfig",
        "ProvisionedPollerConfig",
    }
)
_KAFKA_PROVISIONED = frozenset(
    {
        "MaximumRecordAgeInSeconds",
        "MaximumRetryAttempts",
        "BisectBatchOnFunctionError",
        "FunctionResponseTypes",
        "LoggingConfig",
        "MetricsConfig",
    }
)
FIXED = frozenset({"StartingPosition", "StartingPositionTimestamp", "Topics", "Queues"})
"""Members that no update can change; the model of the update does not have them either."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of source: what may be given, what is filled in, what must be there."""

    name: str
    batch: int
    batch_max: int
    allowed: frozenset[str]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    reason: str = "USER_INITIATED"  # StateTransitionReason
    results: bool = True  # whether LastProcessingResult is shown
    pollers: tuple[int, int, int, int] | None = None  # lowest and highest minimum, highest maximum, default minimum


_SQS_POLLERS, _KAFKA_POLLERS = (2, 200, 10_000, 2), (1, 200, 2_000, 1)

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "sqs",
            10,
            10_000,
            frozenset({"FunctionResponseTypes", "ScalingConfig", "ProvisionedPollerConfig", "MetricsConfig"}),
            {"MaximumBatchingWindowInSeconds": 0, "FunctionResponseTypes": []},
            results=False,
            pollers=_SQS_POLLERS,
        ),
        Kind("kinesis", 100, 10_000, _STREAM, _STREAM_DEFAULTS, ("StartingPosition",), "User action"),
        Kind("dynamodb", 100, 10_000, _STREAM, _STREAM_DEFAULTS, ("StartingPosition",), "User action"),
        Kind("kafka", 100, 10_000, _KAFKA | {"AmazonManagedKafkaEventSourceConfig"}, required=("Topics",), pollers=_KAFKA_POLLERS),
        Kind(
            "self-managed-kafka",
            100,
            10_000,
            _KAFKA | {"SelfManagedKafkaEventSourceConfig"},
            required=("SourceAccessConfigurations", "Topics"),
            pollers=_KAFKA_POLLERS,
        ),
        Kind("mq", 100, 10_000, frozenset({"Queues", "SourceAccessConfigurations"}), required=("Queues", "SourceAccessConfigurations")),
        Kind(
            "rds",
            100,
            10_000,
            frozenset({"StartingPosition", "StartingPositionTimestamp", "SourceAccessConfigurations", "DocumentDBEventSourceConfig"}),
            required=("DocumentDBEventSourceConfig", "SourceAccessConfigurations"),
        ),
    )
}
_KAFKA_CONFIG = {"kafka": "AmazonManagedKafkaEventSourceConfig", "self-managed-kafka": "SelfManagedKafkaEventSourceConfig"}


class MappingRules:
    """``visibility`` gives a queue's visibility timeout in seconds, ``None`` for one that does not exist."""

    def __init__(
        self,
        destinations: Destinations,
        visibility: Callable[[str], int | None],
        filters: int,
    ) -> None:
        self._destinations = destinations
        self._visibility = visibility
        self._filters = filters

    def create(self, params: Params, timeout_s: int, now: float) -> tuple[Kind, Config]:
        """A new mapping's kind and configuration. ``timeout_s`` is the function's. Raises ``ClientFault``."""
        kind = kind_of(params)
        _check_members(kind, params)
        config: Config = {"BatchSize": kind.batch, **kind.defaults}
        for name in ("EventSourceArn", "SelfManagedEventSource"):
            if params.get(name):
                config[name] = params[name]
        self._starting(kind, params, now)
        self._fill_kafka(kind, params, config)
        self._take(kind, params, config)
        self._source(kind, config, timeout_s)
        return kind, config

    def update(self, kind: Kind, before: Config, params: Params, timeout_s: int) -> Config:
        """``before`` with what is given. Raises ``ClientFault``."""
        _check_members(kind, params, creating=False)
        config = dict(before)
        self._take(kind, params, config)
        self._source(kind, config, timeout_s)
        return config

    def _take(self, kind: Kind, params: Params, config: Config) -> None:
        """Lay the given members over ``config``, and check the whole."""
        for name, value in params.items():
            if name in _IDENTITY or value is None or (name in FIXED and name in config):
                continue
            config[name] = _without_none(value)
        if params.get("FilterCriteria") is not None:
            filters = params["FilterCriteria"].get("Filters") or []
            self._filter(filters)
            _set_or_drop(config, "FilterCriteria", {"Filters": [{"Pattern": each["Pattern"]} for each in filters]} if filters else None)
        if params.get("DestinationConfig") is not None:
            config["DestinationConfig"] = self._destinations.of_mapping(params["DestinationConfig"], kind.name in _KAFKA_CONFIG)
        for name in ("ScalingConfig", "ProvisionedPollerConfig", "KMSKeyArn", "MetricsConfig", "LoggingConfig"):
            if name in config and not config[name]:
                del config[name]
        _pollers(kind, config)
        _ranges(kind, config)
        _provisioned_only(kind, config, params)

    def _filter(self, filters: list[Params]) -> None:
        if len(filters) > self._filters:
            raise invalid_parameter(f"The number of filters must not be greater than {self._filters}.")
        for each in filters:
            if not each.get("Pattern"):
                raise invalid_parameter("Invalid filter pattern definition.")
            validate_pattern(each["Pattern"])

    def _starting(self, kind: Kind, params: Params, now: float) -> None:
        position, timestamp = params.get("StartingPosition"), params.get("StartingPositionTimestamp")
        if kind.name == "dynamodb" and position == "AT_TIMESTAMP":
            raise invalid_parameter(f"Unsupported starting position for arn type: {params['EventSourceArn']}")
        if position == "AT_TIMESTAMP" and timestamp is None:
            raise invalid_parameter("StartingPositionTimestamp is required when StartingPosition is AT_TIMESTAMP.")
        if timestamp is not None and position != "AT_TIMESTAMP":
            raise invalid_parameter("Timestamp only valid with StartingPosition AT_TIMESTAMP")
        if timestamp is not None and timestamp > now:
            raise invalid_parameter("StartingPositionTimestamp must not be in the future.")

    def _fill_kafka(self, kind: Kind, params: Params, config: Config) -> None:
        member = _KAFKA_CONFIG.get(kind.name)
        if member is None:
            return
        given = dict(params.get(member) or {})
        if given.get("ConsumptionMode") == "Queue":
            for name in ("StartingPosition", "StartingPositionTimestamp", "MaximumBatchingWindowInSeconds"):
                if params.get(name) is not None:
                    raise _unsupported(name)
            if params.get("MaximumRetryAttempts") == -1:
                raise invalid_parameter("MaximumRetryAttempts must not be -1 when ConsumptionMode is Queue.")
        else:
            config["StartingPosition"] = "TRIM_HORIZON"
        config[member] = {"ConsumerGroupId": str(uuid.uuid4()), **given}

    def _source(self, kind: Kind, config: Config, timeout_s: int) -> None:
        """Check what depends on the queue."""
        if kind.name != "sqs":
            return
        check_queue(self._visibility(config["EventSourceArn"]), timeout_s)


def check_queue(visibility: int | None, timeout_s: int) -> None:
    """Refuse a queue that does not exist (``None``), or whose messages are visible again before the function need have ended."""
    if visibility is None:
        raise invalid_parameter(
            "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. "
            "SQS Error Message: The specified queue does not exist."
        )
    if visibility < timeout_s:
        raise invalid_parameter(f"Queue visibility timeout: {visibility} seconds is less than Function timeout: {timeout_s} seconds")


def kind_of(params: Params) -> Kind:
    """The kind of source that is meant. Raises IPV."""
    if params.get("SelfManagedEventSource"):
        if params.get("EventSourceArn"):
            raise invalid_parameter("EventSourceArn and SelfManagedEventSource must not be given together.")
        return KINDS["self-managed-kafka"]
    match = _ARN.fullmatch(params.get("EventSourceArn") or "")
    kind = None if match is None else KINDS.get(match["service"])
    if kind is None:
        raise invalid_parameter("Unrecognized event source.")
    return kind


def is_fifo(config: Params) -> bool:
    return str(config.get("EventSourceArn", "")).endswith(".fifo")


def _check_members(kind: Kind, params: Params, creating: bool = True) -> None:
    """Refuse what this kind of source does not have, and miss what it must have."""
    if creating:
        for name in kind.required:
            if params.get(name):
                continue
            if name == "StartingPosition":
                constraint = "Member must not be null."
                raise invalid_parameter(f"1 validation error detected: {violation('startingPosition', None, constraint)}")
            raise invalid_parameter(f"Required '{name[0].lower()}{name[1:]}' parameter is missing.")
    allowed = kind.allowed | _EVERYWHERE | _IDENTITY | (_KAFKA_PROVISIONED if kind.name in _KAFKA_CONFIG else frozenset())
    for name, value in params.items():
        if value is not None and name not in allowed:
            if kind.name == "sqs" and name.startswith("StartingPosition"):
                raise invalid_parameter("StartingPosition is not valid for SQS event sources.")
            raise _unsupported(name)


def _unsupported(name: str) -> ClientFault:
    return invalid_parameter(f"Unsupported {name} parameter for given event source mapping type.")


def _pollers(kind: Kind, config: Config) -> None:
    given = config.get("ProvisionedPollerConfig")
    if given is None or kind.pollers is None:
        return
    if "ScalingConfig" in config:
        raise invalid_parameter("ScalingConfig and ProvisionedPollerConfig must not be given together.")
    lowest, highest, maximum, default = kind.pollers
    filled = {"MinimumPollers": default, "MaximumPollers": 200, **{name: value for name, value in given.items() if value not in (None, "")}}
    complaints = [
        *_outside("provisionedPollerConfig.minimumPollers", filled["MinimumPollers"], lowest, highest),
        *_outside("provisionedPollerConfig.maximumPollers", filled["MaximumPollers"], lowest, maximum),
    ]
    if complaints:
        raise validation_fault(complaints)
    if filled["MinimumPollers"] > filled["MaximumPollers"]:
        raise invalid_parameter("MinimumPollers must not be greater than MaximumPollers.")
    config["ProvisionedPollerConfig"] = filled


def _ranges(kind: Kind, config: Config) -> None:
    age = config.get("MaximumRecordAgeInSeconds")
    if age is not None and -1 < age < 60:
        raise validation_fault([violation("maximumRecordAgeInSeconds", age, at_least(60))])
    most = 10 if is_fifo(config) else kind.batch_max
    if config["BatchSize"] > most:
        raise validation_fault([violation("batchSize", config["BatchSize"], at_most(most))])
    window = config.get("MaximumBatchingWindowInSeconds", 0)
    if is_fifo(config) and window:
        raise invalid_parameter("Batching window is not supported for FIFO queues")
    if kind.name == "sqs" and config["BatchSize"] > 10 and not window:  # streams have 100 without a window by default
        raise invalid_parameter("Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10")


def _provisioned_only(kind: Kind, config: Config, params: Params) -> None:
    if kind.name not in _KAFKA_CONFIG or "ProvisionedPollerConfig" in config:
        return
    for name in sorted(_KAFKA_PROVISIONED):
        if params.get(name) is not None and (name != "MetricsConfig" or set(params[name].get("Metrics") or ()) - {"EventCount"}):
            raise invalid_parameter(f"{name} is only supported for event source mappings with ProvisionedPollerConfig.")


def _outside(member: str, value: int, low: int, high: int) -> list[str]:
    if low <= value <= high:
        return []
    return [violation(member, value, at_least(low) if value < low else at_most(high))]


def _without_none(value: Any) -> Any:
    return {name: each for name, each in value.items() if each is not None} if isinstance(value, dict) else value


def _set_or_drop(config: Config, name: str, value: Any) -> None:
    if value is None:
        config.pop(name, None)
    else:
        config[name] = value

"""An event source mapping as its poller sees it, and what its configuration asks for. The mappings themselves are the control plane's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from lambent.arn import FunctionArn
from lambent.sources.record import Plan, concurrency
from lambent.sources.source import ENVELOPE


class PolledMapping(Protocol):
    """One mapping as it stands. ``config`` is in the shape of the wire."""

    @property
    def uuid(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def function(self) -> FunctionArn: ...

    @property
    def config(self) -> Mapping[str, Any]: ...

    @property
    def source(self) -> str:
        """The ARN of the source."""
        ...

    @property
    def polled(self) -> bool:
        """Whether records are to be taken from the source now."""
        ...


class MappingTable(Protocol):
    """All mappings."""

    def serve(self, kind: str) -> None:
        """Say that somebody polls sources of ``kind``."""
        ...

    def listen(self, told: Callable[[Any, Any], None]) -> None:
        """Call ``told(before, after)`` for every change; ``None`` is no mapping."""
        ...

    def all(self) -> Iterator[PolledMapping]: ...


def queue_plan(config: Mapping[str, Any], payload: int) -> Plan:
    """The plan of an SQS mapping. ``payload``: the most that one event may have, in bytes."""
    maximum = (config.get("ScalingConfig") or {}).get("MaximumConcurrency")
    pollers = config.get("ProvisionedPollerConfig")
    provisioned = (pollers.get("MinimumPollers") or 2, pollers.get("MaximumPollers") or 200) if pollers else None
    start, most, growth = concurrency(maximum, provisioned)
    return Plan(
        batch_size=config.get("BatchSize") or 10,
        window=float(config.get("MaximumBatchingWindowInSeconds") or 0),
        payload_limit=payload - ENVELOPE,
        start=start,
        most=most,
        growth=growth,
        ordered=str(config.get("EventSourceArn", "")).endswith(".fifo"),
    )


def reports_failures(config: Mapping[str, Any]) -> bool:
    """Whether the function's answer names the records that failed."""
    return "ReportBatchItemFailures" in (config.get("FunctionResponseTypes") or ())

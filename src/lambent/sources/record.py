"""One record of a source on its way to a function, and what a poller needs to know of its mapping. Values, whatever the source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True, eq=False)
class Record:
    """``payload`` is the record as the function sees it, in JSON. ``receipt`` is the source's own; a ``group`` keeps its order."""

    id: str  # as ``itemIdentifier`` names it
    receipt: Any
    payload: bytes
    group: str = ""
    trace: str = ""  # X-Ray header that came with it
    wanted: bool = True  # False: filtered out


@dataclass(frozen=True, slots=True)
class Plan:
    """What a mapping asks of its poller. Sizes in bytes, times in seconds."""

    batch_size: int = 10
    window: float = 0.0
    payload_limit: int = 6_291_456  # of the records, their commas counted
    start: int = 5  # concurrent batches at first and when idle
    most: int = 1_250
    growth: float = 5.0  # further concurrent batches per second while all are in use
    ordered: bool = False  # records of one group in one batch at a time, in order
    redelivers: bool = True  # the source itself brings back what is not acknowledged; else a failed batch is held and tried again


def concurrency(maximum: int | None, provisioned: tuple[int, int] | None) -> tuple[int, int, float]:
    """(start, most, growth) of a queue's mapping: contract 04 §2.1.

    ``maximum`` is ScalingConfig.MaximumConcurrency; ``provisioned`` the fewest and the most pollers, each worth 10 concurrent invocations.
    """
    if provisioned is not None:
        low, high = provisioned
        most = min(high * 10, 20_000)
        return min(low * 10, most), most, 1_000 / 60
    most = maximum or 1_250
    return min(5, most), most, 300 / 60

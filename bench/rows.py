"""What a measurement gives: rows of a table, and the arithmetic of samples."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One line: what was measured, what is promised, what came out. ``met`` is ``None`` for information without a promise."""

    what: str
    target: str
    measured: str
    met: bool | None = None
    detail: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    rounds: int = 5
    requests: int = 2_000  # a round of warm invocations
    seconds: float = 3.0  # a round of throughput
    colds: int = 30
    environments: int = 1_000
    quick: bool = False


QUICK = Plan(rounds=2, requests=500, seconds=1.0, colds=8, environments=100, quick=True)


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that ``percent`` of all do not exceed."""
    return sorted(samples)[max(1, math.ceil(len(samples) * percent / 100)) - 1]


def middle(samples: Sequence[float]) -> float:
    return statistics.median(samples)


def milliseconds(seconds: float) -> str:
    value = seconds * 1000
    return f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"


def megabytes(count: float) -> str:
    return f"{count / 2**20:.1f} MB"


def verdict(row: Row) -> str:
    return {True: "met", False: "MISSED", None: ""}[row.met]


def render(rows: Sequence[Row]) -> str:
    """A plain table with aligned columns, and details below it."""
    head = ("what", "target", "measured", "")
    cells = [head, *((row.what, row.target, row.measured, verdict(row)) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    lines.insert(1, "  ".join("-" * width for width in widths[:3]))
    details = [f"  {row.what}: {row.detail}" for row in rows if row.detail]
    return "\n".join([*lines, "", *details])

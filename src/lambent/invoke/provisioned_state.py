"""Provisioned concurrency as arithmetic: which version keeps how many environments, and how the whole stands. Pure (06 §2).

A configuration belongs to a version or to an alias. That of an alias follows it: to the version that it points at, and where it points
at two, to both by their weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

FAILED_AFTER = 3  # starts in a row
INIT_FAILURE = "FUNCTION_ERROR_INIT_FAILURE"


@dataclass(frozen=True, slots=True)
class Kept:
    """How a version stands that environments are kept of.

    ``complete``: all of them were there at once since they were asked for. ``failures``: starts that failed in a row.
    """

    allocated: int
    complete: bool
    failures: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What AWS shows: ``status`` is IN_PROGRESS, READY or FAILED; ``available`` environments are initialised."""

    requested: int
    allocated: int
    available: int
    status: str
    reason: str = ""


def spread(count: int, version: str, weights: Mapping[str, float]) -> dict[str, int]:
    """``count`` environments over the version of an alias and the one that gets a share of its invocations."""
    found = {version: count}
    for other, share in weights.items():
        found[other] = int(count * share + 0.5)
        found[version] -= found[other]
    return {name: number for name, number in found.items() if number > 0}


def together(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Environments by version. A version that is meant twice, after an alias has moved to it, keeps the greater number."""
    found: dict[str, int] = {}
    for part in parts:
        for version, count in part.items():
            found[version] = max(found.get(version, 0), count)
    return found


def standing(wanted: Mapping[str, int], kept: Mapping[str, Kept]) -> Standing:
    """Of one configuration: what it asks for by version, and what there is.

    Once READY it stays so while an environment that died is replaced, and only ``available`` tells.
    """
    requested = sum(wanted.values())
    available = sum(min(kept[version].allocated, count) for version, count in wanted.items())
    if available < requested and any(kept[version].failures >= FAILED_AFTER for version in wanted):
        return Standing(requested, available, available, "FAILED", INIT_FAILURE)
    if requested and all(kept[version].complete for version in wanted):
        return Standing(requested, requested, available, "READY")
    return Standing(requested, available, available, "IN_PROGRESS")

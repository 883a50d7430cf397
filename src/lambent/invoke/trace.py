"""The X-Ray header of an invocation: ``Root=1-<8 hex>-<24 hex>;Parent=<16 hex>;Sampled=0|1[;Lineage=…]`` (contract 02 §2, 03 §9).

What the caller sent is kept, what is missing is added. Pure but for the random ids, which need to be distinct and not secret.

Whether an invocation is sampled is the caller's decision, if it made one. Else it is the function's: with TracingConfig Active the first
one of every second is, and 5 % of the others.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Hashable

_RANDOM = random.Random()
_WHOLE = re.compile(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=[01](?:;[ -~]{1,256})?")
_ROOT = re.compile(r"1-[0-9a-f]{8}-[0-9a-f]{24}")
_PARENT = re.compile(r"[0-9a-f]{16}")


class Sampler:
    """The default rule of X-Ray, kept for each function by itself. ``chance`` gives numbers from 0 to 1."""

    RATE = 0.05

    def __init__(self, chance: Callable[[], float] = _RANDOM.random) -> None:
        self._chance = chance
        self._seconds: dict[Hashable, int] = {}  # the second in which the last one was taken

    def decide(self, function: Hashable, now: float) -> bool:
        """Whether an invocation at ``now`` is sampled."""
        second = int(now)
        if self._seconds.get(function) == second:
            return self._chance() < self.RATE
        self._seconds[function] = second
        return True


def complete(header: str, now: float, decide: Callable[[], bool] | None = None) -> str:
    """The header that the function and the caller see. ``now`` in epoch seconds. A malformed part is replaced, not refused.

    ``decide`` says whether to sample where the caller has not said; without it nothing is.
    """
    if not header:
        sampled = "1" if decide is not None and decide() else "0"
        chance = f"{_RANDOM.getrandbits(160):040x}"
        return f"Root=1-{int(now):08x}-{chance[:24]};Parent={chance[24:]};Sampled={sampled}"
    if _WHOLE.fullmatch(header):
        return header
    parts = split(header)
    root = parts.get("Root", "")
    if not _ROOT.fullmatch(root):
        root = f"1-{int(now):08x}-{_RANDOM.getrandbits(96):024x}"
    parent = parts.get("Parent", "")
    if not _PARENT.fullmatch(parent):
        parent = f"{_RANDOM.getrandbits(64):016x}"
    lineage = parts.get("Lineage", "")
    sampled = parts.get("Sampled", "")
    if sampled not in {"0", "1"}:
        sampled = "1" if decide is not None and decide() else "0"
    made = f"Root={root};Parent={parent};Sampled={sampled}"
    return f"{made};Lineage={lineage}" if lineage and lineage.isascii() and lineage.isprintable() else made


def split(header: str) -> dict[str, str]:
    """The parts of a header by name."""
    return dict(part.strip().partition("=")[::2] for part in header[:1024].split(";"))

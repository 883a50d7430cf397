"""The X-Ray header of an invocation: ``Root=1-<8 hex>-<24 hex>;Parent=<16 hex>;Sampled=0|1[;Lineage=…]`` (contract 02 §2, 03 §9).

What the caller sent is kept, what is missing is added. Pure but for the random ids, which need to be distinct and not secret.
"""

from __future__ import annotations

import random
import re

_RANDOM = random.Random()
_WHOLE = re.compile(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=[01](?:;[ -~]{1,256})?")
_ROOT = re.compile(r"1-[0-9a-f]{8}-[0-9a-f]{24}")
_PARENT = re.compile(r"[0-9a-f]{16}")


def complete(header: str, now: float) -> str:
    """The header that the function and the caller see. ``now`` in epoch seconds. A malformed part is replaced, not refused."""
    if not header:
        return f"Root=1-{int(now):08x}-{_RANDOM.getrandbits(96):024x};Parent={_RANDOM.getrandbits(64):016x};Sampled=0"
    if _WHOLE.fullmatch(header):
        return header
    parts = dict(part.strip().partition("=")[::2] for part in header[:1024].split(";"))
    root = parts.get("Root", "")
    if not _ROOT.fullmatch(root):
        root = f"1-{int(now):08x}-{_RANDOM.getrandbits(96):024x}"
    parent = parts.get("Parent", "")
    if not _PARENT.fullmatch(parent):
        parent = f"{_RANDOM.getrandbits(64):016x}"
    lineage = parts.get("Lineage", "")
    made = f"Root={root};Parent={parent};Sampled={'1' if parts.get('Sampled') == '1' else '0'}"
    return f"{made};Lineage={lineage}" if lineage and lineage.isascii() and lineage.isprintable() else made

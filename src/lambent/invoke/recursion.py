"""Loops of functions that call each other without end, found by what travels in the trace header (contract 02 §5).

``Lineage`` counts, for each function in a chain of calls, how often it has run in it: ``Lineage=<hash>:<n>|<hash>:<n>``. AWS's SDKs pass
the header on from inside a function with every call that they make, SQS keeps it with a message and a destination hands it on, so a loop
through any of them comes back with its count. The 17th run of one function in a chain is refused with ``RecursiveInvocationException``,
unless the function's RecursiveLoop is Allow. AWS has also written entries as ``<depth>:<hash>:<n>``; both forms are read.

On the warm path this is one dictionary look-up and one concatenation: a call from outside carries no lineage yet.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

from lambent.arn import FunctionArn
from lambent.errors import ClientFault

MOST = 16  # runs of one function in a chain
ENTRIES = 16  # functions remembered of a chain, the latest

_ENTRY = re.compile(r"(?:\d{1,5}:)?([0-9a-f]{8}):(\d{1,5})")
_MARK = ";Lineage="


class Recursion:
    """``allowed(unqualified ARN)`` says whether the function may run in a loop."""

    def __init__(self, allowed: Callable[[FunctionArn], bool] = lambda arn: False) -> None:
        self._allowed = allowed
        self._first: dict[tuple[str, ...], str] = {}

    def extend(self, trace: str, arn: FunctionArn) -> str:
        """The complete header ``trace`` with this run of ``arn`` (unqualified) counted. Raises ``ClientFault`` on the run too many."""
        at = trace.find(_MARK)
        if at < 0:
            return trace + self._begin(arn)
        end = trace.find(";", at + 1)
        counts = _read(trace[at + len(_MARK) : len(trace) if end < 0 else end])
        digest = digest_of(arn)
        count = counts.pop(digest, 0) + 1
        if count > MOST and not self._allowed(arn):
            raise recursive()
        counts[digest] = count
        text = "|".join(f"{name}:{number}" for name, number in list(counts.items())[-ENTRIES:])
        return f"{trace[:at]}{_MARK}{text}{trace[end:] if end >= 0 else ''}"

    def _begin(self, arn: FunctionArn) -> str:
        key = (arn.partition, arn.region, arn.account, arn.name)  # an ARN's own hash would be a function of Python's
        text = self._first.get(key)
        if text is None:
            if len(self._first) >= 10_000:
                self._first.clear()
            text = self._first[key] = f"{_MARK}{digest_of(arn)}:1"
        return text


def digest_of(arn: FunctionArn) -> str:
    """How a function is called in a lineage: 8 hex digits."""
    return hashlib.sha256(str(arn).encode()).hexdigest()[:8]


def recursive() -> ClientFault:
    return ClientFault(
        "RecursiveInvocationException",
        400,
        "Lambda has detected your function being invoked in a recursive loop with other Amazon Web Services resources "
        "and stopped your function's invocation.",
    )


def _read(text: str) -> dict[str, int]:
    return {match[1]: min(int(match[2]), 9_999) for match in map(_ENTRY.fullmatch, text.split("|")) if match}

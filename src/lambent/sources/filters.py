"""The filters of a mapping: at most a few patterns, OR-ed (contract 04 §5). Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lambent.sources.filter_pattern import Matcher, compile_pattern


def validate_pattern(text: str) -> None:
    """Raises ``ClientFault`` (400 ``Invalid filter pattern definition.``) unless ``text`` is a filter pattern."""
    compile_pattern(text)


class Filters:
    """``patterns`` as they stand in FilterCriteria; without any, everything matches."""

    def __init__(self, patterns: Sequence[str] = (), payload_keys: Collection[str] = ()) -> None:
        self._matchers: list[Matcher] = [compile_pattern(text, payload_keys) for text in patterns]

    def __bool__(self) -> bool:
        return bool(self._matchers)

    def match(self, view: Mapping[str, Any]) -> bool:
        """``view`` is the record with its payload as ``as_payload`` gives it."""
        return not self._matchers or any(matcher(view) for matcher in self._matchers)


def patterns_of(criteria: Mapping[str, Any] | None) -> list[str]:
    """The patterns of a FilterCriteria document. A filter without a pattern matches everything."""
    return [each.get("Pattern") or "{}" for each in (criteria or {}).get("Filters") or []]


def as_payload(text: str) -> Any:
    """A payload for ``Filters.match``: what JSON says if ``text`` is an object or a list in JSON, else the text itself."""
    if text.lstrip()[:1] not in {"{", "["}:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text

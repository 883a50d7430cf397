"""What a function says of its batch under ``ReportBatchItemFailures``: contract 04 §3. Pure.

An answer that says nothing (no body, ``null``, ``""``, ``[]``, ``{}``, no list, an empty list) is success. A list names what failed.
Everything else fails as a whole, since nobody can tell what was meant: text that is no JSON, values of another kind, an entry without
``itemIdentifier``, with an empty one, or with one that is not of the batch.
"""

from __future__ import annotations

import json
from collections.abc import Collection


class Malformed(ValueError):
    """The whole batch has failed; the text says why."""


def failed_items(answer: bytes, batch: Collection[str]) -> frozenset[str]:
    """Those of ``batch`` (record ids) that failed. Raises ``Malformed``."""
    if not answer.strip():
        return frozenset()
    try:
        document = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise Malformed("the answer is no JSON") from error
    if document is None or document in ("", [], {}):
        return frozenset()
    if not isinstance(document, dict):
        raise Malformed("the answer is no object")
    entries = document.get("batchItemFailures")
    if entries is None:
        return frozenset()
    if not isinstance(entries, list):
        raise Malformed("batchItemFailures is no list")
    return frozenset(_identifier(entry, batch) for entry in entries)


def _identifier(entry: object, batch: Collection[str]) -> str:
    identifier = entry.get("itemIdentifier") if isinstance(entry, dict) else None
    if not isinstance(identifier, str) or not identifier:
        raise Malformed("an entry of batchItemFailures has no itemIdentifier")
    if identifier not in batch:
        raise Malformed(f"itemIdentifier {identifier[:100]} is not in the batch")
    return identifier

"""All that a store holds, as rows that any other store can take: what backups are made of, and how state moves between drivers.

    KeptDocument   a document of the KV, its revision with it
    KeptTopic      the last position that a topic has given out
    KeptEntry      an entry of a topic
    KeptMessage    a message, whether waiting, delayed or leased, with everything that is known of it
    KeptPosition   the last position that any message has got, so that no receipt of a past message ever fits a later one

``Store.snapshot`` gives them as of one moment, ``Store.load`` puts them into a store that holds nothing. In a file each is a line of JSON,
a list that begins with a letter. Batches are bounded by bytes, not rows, since one message may be a megabyte and a million of them tiny.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

BATCH_BYTES = 512 * 1024
BATCH_ROWS = 500
_ROW_BYTES = 200  # what a row costs beside its body


class KeptDocument(NamedTuple):
    """``text`` is the document as JSON."""

    kind: str
    key: str
    revision: int
    text: str


class KeptTopic(NamedTuple):
    topic: str
    head: int


class KeptEntry(NamedTuple):
    topic: str
    position: int
    body: bytes


class KeptMessage(NamedTuple):
    """The columns of the table ``messages``, which ``sql/0001_store.sql`` explains."""

    position: int
    queue: str
    body: bytes
    enqueued_at: float
    visible_at: float
    since: float
    attempt: int
    lease: int
    group: str
    first_leased: float


class KeptPosition(NamedTuple):
    last: int


Kept = KeptDocument | KeptTopic | KeptEntry | KeptMessage | KeptPosition

_LETTERS: dict[type, str] = {KeptDocument: "d", KeptTopic: "t", KeptEntry: "e", KeptMessage: "m", KeptPosition: "p"}
_KINDS: dict[str, Callable[..., Kept]] = {letter: kind for kind, letter in _LETTERS.items()}
_BODY = {"e": 2, "m": 2}  # where a row has bytes


def encode(rows: Sequence[Kept]) -> bytes:
    """Rows as lines of JSON."""
    lines = []
    for row in rows:
        letter = _LETTERS[type(row)]
        values: list[Any] = list(row)
        if letter in _BODY:
            values[_BODY[letter]] = base64.b64encode(values[_BODY[letter]]).decode()
        lines.append(json.dumps([letter, *values], separators=(",", ":")))
    return ("\n".join(lines) + "\n").encode() if lines else b""


def decode(data: bytes) -> list[Kept]:
    """The rows of ``encode``, each checked to be one. Raises ``ValueError``."""
    rows = []
    for line in data.splitlines():
        try:
            letter, *values = json.loads(line)
            if letter in _BODY:
                values[_BODY[letter]] = base64.b64decode(values[_BODY[letter]], validate=True)
            row = _KINDS[letter](*values)
            if not all(fits(value) for fits, value in zip(_FITS[letter], row, strict=True)):
                raise TypeError("a value is not what it should be")
            rows.append(row)
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            raise ValueError(f"no row of a store: {line[:80]!r}") from error
    return rows


def _is_text(value: object) -> bool:
    return type(value) is str and len(value.encode()) >= 0  # half a surrogate pair raises ValueError: no database takes it


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_small(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)  # no queue could order it


def _is_body(value: object) -> bool:
    return type(value) is bytes


def _is_document(value: object) -> bool:
    return type(value) is str and value.isascii() and type(json.loads(value)) is dict


_FITS: dict[str, tuple[Callable[[object], bool], ...]] = {
    "d": (_is_text, _is_text, _is_count, _is_document),
    "t": (_is_text, _is_count),
    "e": (_is_text, _is_count, _is_body),
    "m": (_is_count, _is_text, _is_body, _is_time, _is_time, _is_time, _is_small, _is_small, _is_text, _is_time),
    "p": (_is_count,),
}


def take(rows: Iterator[Kept]) -> list[Kept]:
    """The next batch; empty at the end."""
    batch: list[Kept] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += _ROW_BYTES + (len(row.body) if isinstance(row, KeptEntry | KeptMessage) else 0)
        if isinstance(row, KeptDocument):
            size += len(row.text)
        if size >= BATCH_BYTES or len(batch) >= BATCH_ROWS:
            break
    return batch


def in_order(
    documents: Iterable[KeptDocument],
    topics: Iterable[KeptTopic],
    entries: Iterable[KeptEntry],
    messages: Iterable[KeptMessage],
    position: Iterable[KeptPosition],
) -> Iterator[Kept]:
    """The order in which a snapshot comes."""
    return chain(documents, topics, entries, messages, position)

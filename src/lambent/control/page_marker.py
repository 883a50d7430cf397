"""Markers of paginated lists (contract 01 §6.1).

Opaque to callers, and good after a restart, since a marker says where to go on and nothing else.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from lambent.errors import invalid_parameter

_PREFIX = "lambent/1/"

Item = TypeVar("Item")


def encode(list_name: str, after: str) -> str:
    """A marker for ``list_name`` that goes on behind the item ``after``."""
    return base64.urlsafe_b64encode(f"{_PREFIX}{list_name}/{after}".encode()).decode()


def decode(list_name: str, marker: str) -> str:
    """What ``encode`` was given. Raises IPV for anything that it did not make for the same list."""
    try:
        text = base64.b64decode(marker.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError) as error:
        raise _invalid(marker) from error
    start = f"{_PREFIX}{list_name}/"
    if not text.startswith(start) or encode(list_name, text.removeprefix(start)) != marker:
        raise _invalid(marker)
    return text.removeprefix(start)


def page(list_name: str, params: Mapping[str, Any], items: Iterable[tuple[str, Item]], limit: int) -> tuple[list[Item], dict[str, str]]:
    """The page that ``Marker`` and ``MaxItems`` of ``params`` ask for, at most ``limit`` long, and ``NextMarker`` if there are more.

    ``items`` come with keys in ascending order.
    """
    after = decode(list_name, params["Marker"]) if params.get("Marker") else None
    size = min(params.get("MaxItems") or limit, limit)
    found: list[Item] = []
    last = ""
    for key, item in items:
        if after is not None and key <= after:
            continue
        if len(found) == size:
            return found, {"NextMarker": encode(list_name, last)}
        found.append(item)
        last = key
    return found, {}


def _invalid(marker: str) -> Exception:
    return invalid_parameter(f"The marker '{marker[:200]}' is not valid for this operation.")

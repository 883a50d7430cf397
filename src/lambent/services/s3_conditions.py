"""What a reader of an object may ask of it: conditions and ranges, from headers to decisions. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lambent.errors import ClientFault
from lambent.objects.faults import precondition_failed
from lambent.objects.records import Version

Params = Mapping[str, Any]

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def check_read(version: Version, params: Params, prefix: str = "") -> None:
    """Raises 412 or 304 where the caller wants something else than ``version``. ``prefix`` is ``CopySource`` for the source of a copy."""
    wanted, unwanted = params.get(f"{prefix}IfMatch"), params.get(f"{prefix}IfNoneMatch")
    modified, since = int(version.modified), params.get(f"{prefix}IfModifiedSince")
    until = params.get(f"{prefix}IfUnmodifiedSince")
    if wanted is not None and not _names(wanted, version.etag):
        raise precondition_failed("If-Match")
    if wanted is None and until is not None and modified > until:
        raise precondition_failed("If-Unmodified-Since")
    same = unwanted is not None and _names(unwanted, version.etag)
    if same or (unwanted is None and since is not None and modified <= since):
        if prefix:
            raise precondition_failed("If-None-Match" if same else "If-Modified-Since")
        raise ClientFault("NotModified", 304, "Not Modified", {"etag": f'"{version.etag}"'})


def _names(header: str, etag: str) -> bool:
    return any(each.strip().removeprefix("W/").strip('"') in ("*", etag) for each in header.split(","))


def read_range(header: str | None, size: int) -> tuple[int, int] | None:
    """(start, length) of ``Range``; ``None`` where there is none or it is one that S3 ignores. Raises 416."""
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match[0] == "bytes=-" or len(match[0]) > 64:
        return None
    first, last = match[1], match[2]
    if first:
        start = int(first)
        end = min(int(last), size - 1) if last else size - 1
        if last and int(last) < start:
            return None
    else:
        start, end = max(0, size - int(last)), size - 1
    if start > end or start >= size:
        about = {"RangeRequested": header, "ActualObjectSize": size, "content-range": f"bytes */{size}"}
        raise ClientFault("InvalidRange", 416, "The requested range is not satisfiable", about)
    return start, end - start + 1

"""Checksums of uploads: what the client says they are, computed on the way and compared.

MD5 is always computed, for the ETag. CRC-32, SHA-1 and SHA-256 are computed where the client names them. CRC-32C and CRC-64/NVME would take
Python minutes for what takes the client a second, so they are kept and shown as they came, unchecked.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Iterable, Mapping

from lambent.errors import ClientFault

ALGORITHMS = ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")
_LENGTHS = {"CRC32": 4, "CRC32C": 4, "CRC64NVME": 8, "SHA1": 20, "SHA256": 32}
_COMPUTED = ("CRC32", "SHA1", "SHA256")


class Digests:
    """Takes the bytes once and computes what is asked for."""

    def __init__(self, algorithms: Iterable[str] = ()) -> None:
        self.md5 = hashlib.md5(usedforsecurity=False)
        self._hashes = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms if name in ("SHA1", "SHA256")}
        self._crc: int | None = 0 if "CRC32" in algorithms else None

    def update(self, data: bytes) -> None:
        self.md5.update(data)
        for each in self._hashes.values():
            each.update(data)
        if self._crc is not None:
            self._crc = zlib.crc32(data, self._crc)

    def computed(self) -> dict[str, str]:
        """Algorithm -> checksum in base64."""
        found = {name: base64.b64encode(each.digest()).decode() for name, each in self._hashes.items()}
        if self._crc is not None:
            found["CRC32"] = base64.b64encode(self._crc.to_bytes(4, "big")).decode()
        return found


def announced(params: Mapping[str, object]) -> dict[str, str]:
    """The checksums among an operation's parameters: algorithm -> base64, ``""`` for one that comes behind the body.

    Raises 400 ``InvalidRequest`` for what cannot be a checksum of its kind.
    """
    found: dict[str, str] = {}
    for name in ALGORITHMS:
        value = params.get(f"Checksum{name}")
        if isinstance(value, str):
            _require_form(name, value)
            found[name] = value
    wanted = params.get("ChecksumAlgorithm")
    if isinstance(wanted, str) and wanted in ALGORITHMS:
        found.setdefault(wanted, "")
    return found


def compare(stated: Mapping[str, str], digests: Digests, trailers: Mapping[str, str]) -> dict[str, str]:
    """All checksums of what has been read, checked against what the client said of it. Raises 400 ``BadDigest``."""
    computed = digests.computed()
    kept: dict[str, str] = dict(computed)
    for name in ALGORITHMS:
        said = stated.get(name) or trailers.get(f"x-amz-checksum-{name.lower()}", "")
        if not said:
            continue
        _require_form(name, said)
        if name in computed and said != computed[name]:
            raise ClientFault("BadDigest", 400, f"The {name} you specified did not match the calculated checksum.")
        kept[name] = said
    return kept


def check_md5(stated: str | None, digests: Digests) -> None:
    """``Content-MD5``, if it was sent. Raises 400 ``InvalidDigest`` or ``BadDigest``."""
    if stated is None:
        return
    try:
        wanted = base64.b64decode(stated, validate=True)
    except binascii.Error:
        wanted = b""
    if len(wanted) != 16:
        raise ClientFault("InvalidDigest", 400, "The Content-MD5 you specified is not valid.")
    if wanted != digests.md5.digest():
        raise ClientFault("BadDigest", 400, "The Content-MD5 you specified did not match what we received.")


def computable(names: Iterable[str], trailers_may_come: bool) -> list[str]:
    """Which algorithms to compute for a body of which the client names these, or may name any behind it."""
    return [name for name in _COMPUTED if name in names or (trailers_may_come and name == "CRC32")]


def _require_form(name: str, value: str) -> None:
    try:
        length = len(base64.b64decode(value.partition("-")[0], validate=True))
    except binascii.Error:
        length = -1
    if length != _LENGTHS[name]:
        raise ClientFault("InvalidRequest", 400, f"Value for x-amz-checksum-{name.lower()} header is invalid.")

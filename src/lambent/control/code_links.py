"""``Code.Location``: URLs of ours that give a function's zip for ten minutes, as AWS's presigned S3 URLs do.

    <base>/_lambent/code/<sha256 hex>?expires=<epoch seconds>&token=<HMAC-SHA256 of both, hex>

The key of the HMAC belongs to the data directory and lives in its store, so that a URL outlives a restart and is worth nothing elsewhere.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

from lambent.clock import Clock
from lambent.store.contract import ABSENT, Put, Store, StoreConflict

LIFETIME_S = 600
_KIND, _KEY = "secret", "code-links"
_SHA256 = re.compile(r"[0-9a-f]{64}")


class CodeLinks:
    """Makes and verifies the URLs."""

    def __init__(self, secret: bytes, clock: Clock) -> None:
        self._secret = secret
        self._clock = clock

    @staticmethod
    async def open(store: Store, clock: Clock) -> CodeLinks:
        """With the secret of ``store``, which is made on first use."""
        while True:
            record = await store.get(_KIND, _KEY)
            if record is not None:
                return CodeLinks(bytes.fromhex(record.value["hex"]), clock)
            secret = secrets.token_bytes(32)
            try:
                await store.commit(Put(_KIND, _KEY, {"hex": secret.hex()}, ABSENT))
            except StoreConflict:
                continue
            return CodeLinks(secret, clock)

    def make(self, base_url: str, sha256: str) -> str:
        expires = str(int(self._clock.now()) + LIFETIME_S)
        return f"{base_url}/_lambent/code/{sha256}?expires={expires}&token={self._token(sha256, expires)}"

    def verify(self, sha256: str, expires: str, token: str) -> bool:
        """Whether the three are of a URL that we made and that has not expired. Takes any text."""
        if _SHA256.fullmatch(sha256) is None or not (expires.isascii() and expires.isdigit() and len(expires) <= 12):
            return False
        if not hmac.compare_digest(self._token(sha256, expires).encode(), token.encode("utf-8", "replace")):
            return False
        return self._clock.now() <= int(expires)

    def _token(self, sha256: str, expires: str) -> str:
        return hmac.new(self._secret, f"code:{sha256}:{expires}".encode(), hashlib.sha256).hexdigest()

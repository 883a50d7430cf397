"""Temporary credentials: what AssumeRole gives, and how they are known again.

There are no roles to look up: whoever may call may act as any role of the own account, and the session may do what the account may do. What
the session changes is who the caller is said to be, and when the credentials end.

Nothing is kept of a session. Its token says who, which key and until when, and is signed with a secret of the data directory; the secret
key follows from the access key by the same secret. So a session outlives a restart and is worth nothing elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from dataclasses import asdict, dataclass

from lambent.store.contract import ABSENT, Put, Store, StoreConflict

PREFIX = "ASIA"
_KIND, _KEY = "secret", "sessions"
_TOKEN = 4_096  # most characters of a token that is looked at


@dataclass(frozen=True, slots=True)
class Session:
    """``role`` and ``name`` as in the ARN of the assumed role; ``expires`` in epoch seconds."""

    account: str
    role: str
    name: str
    access_key: str
    expires: int

    @property
    def principal(self) -> str:
        return f"arn:aws:sts::{self.account}:assumed-role/{self.role}/{self.name}"


class Sessions:
    """Makes credentials and reads them back."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @staticmethod
    async def open(store: Store) -> Sessions:
        """With the secret of ``store``, which is made on first use."""
        while True:
            record = await store.get(_KIND, _KEY)
            if record is not None:
                return Sessions(bytes.fromhex(record.value["hex"]))
            secret = secrets.token_bytes(32)
            try:
                await store.commit(Put(_KIND, _KEY, {"hex": secret.hex()}, ABSENT))
            except StoreConflict:
                continue
            return Sessions(secret)

    def issue(self, account: str, role: str, name: str, expires: int) -> tuple[Session, str, str]:
        """A new session, its secret key and its token."""
        access_key = PREFIX + base64.b32encode(secrets.token_bytes(10)).decode()
        session = Session(account, role, name, access_key, expires)
        claims = base64.urlsafe_b64encode(json.dumps(asdict(session)).encode()).decode().rstrip("=")
        return session, self.secret_key(access_key), f"{claims}.{self._sign(f'token:{claims}')}"

    def secret_key(self, access_key: str) -> str:
        return self._sign(f"key:{access_key}")[:40]

    def read(self, access_key: str, token: str) -> Session | None:
        """The session that both belong to, whether or not it has ended; ``None`` where we did not make them. Takes any text."""
        claims, _, signature = token.partition(".")
        if len(token) > _TOKEN or not hmac.compare_digest(self._sign(f"token:{claims}").encode(), signature.encode("utf-8", "replace")):
            return None
        try:
            session = Session(**json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4))))
        except (binascii.Error, ValueError, TypeError):
            return None
        return session if session.access_key == access_key else None

    def _sign(self, text: str) -> str:
        return hmac.new(self._secret, text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()

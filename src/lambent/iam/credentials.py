"""Who calls: account, Region and principal from a request's signature.

The default mode, ``auth = "any"``, believes everyone: an access key id of 12 digits is the account that is meant (so that one server holds
many accounts), any other key and no key at all belong to the account of the settings. ``auth = "signature"`` verifies every request against
the configured credentials and refuses the rest with AWS's own errors.

What a caller says ends in ARNs, in stored keys and in log lines, so only texts of the right form are taken over, in either mode.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from urllib.parse import parse_qsl

from lambent.clock import Clock
from lambent.iam.sessions import PREFIX, Session, Sessions
from lambent.settings import Credential, Settings
from lambent.wire.chunked import is_chunked, unchunk
from lambent.wire.http import HttpRequest
from lambent.wire.sigv2 import read_signature_v2, verify_v2
from lambent.wire.sigv4 import BadSignature, Signature, expect_body, read_signature, verify

FUNCTION = "LAMBENTFUNCTION"  # how their keys begin
_ACCOUNT = re.compile(r"[0-9]{12}")
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+=,.@-]{0,127}")
_CLAIM, _CLAIMS = 512, 1024  # length and number of remembered claims
_REGION = re.compile(r"[a-z][a-z0-9-]{0,31}")


class FunctionKeys:
    """What functions sign with under ``auth = "signature"``: a key for each account, made anew by every process."""

    def __init__(self) -> None:
        self._made: dict[str, Credential] = {}

    def of(self, account: str) -> Credential:
        access_key = FUNCTION + account
        return self._made.setdefault(access_key, Credential(access_key, secrets.token_hex(20), account))

    def find(self, access_key: str) -> Credential | None:
        return self._made.get(access_key)


@dataclass(frozen=True, slots=True)
class Identity:
    """The caller. ``service`` is the SigV4 signing name, ``None`` where the request was not signed."""

    account: str
    region: str
    access_key: str
    principal: str
    service: str | None


class Authenticator:
    """Identifies callers as the settings ask for it."""

    def __init__(self, settings: Settings, clock: Clock, sessions: Sessions | None = None, functions: FunctionKeys | None = None) -> None:
        self._sessions = sessions
        self._functions = functions
        self._verifies = settings.auth == "signature"
        self._account = settings.account
        self._region = settings.region
        self._clock = clock
        self._credentials: dict[str, Credential] = {each.access_key: each for each in settings.credentials}
        self._believed: dict[str, Identity] = {}  # by the claim in the Authorization header, which a client repeats all day

    def identify(self, request: HttpRequest) -> Identity:
        """The caller of ``request``, whose body is replaced by the plain one where it came as ``aws-chunked``.

        In mode ``signature`` raises 403 ``MissingAuthenticationTokenException``, ``UnrecognizedClientException`` or
        ``InvalidSignatureException``; in either mode 400 for a broken ``aws-chunked`` body.
        """
        header = request.headers.get("authorization")
        claim = header.partition(",")[0] if header is not None and not self._verifies and not is_chunked(request) else ""
        known = self._believed.get(claim)
        if known is not None:
            return known
        identity = self._identify(request)
        if "Credential=" in claim and len(claim) <= _CLAIM:
            if len(self._believed) >= _CLAIMS:
                self._believed.clear()
            self._believed[claim] = identity
        return identity

    def _identify(self, request: HttpRequest) -> Identity:
        signature = read_signature(request)
        if signature is None:
            signature = read_signature_v2(request)
        if self._verifies:
            request.body = self._verify(request, signature)
        elif request.stream is not None:
            expect_body(request)
        elif is_chunked(request):
            request.body = unchunk(request)
        if signature is None:
            return Identity(self._account, self._region, "", f"arn:aws:iam::{self._account}:root", None)
        session = self._session(request, signature.access_key)
        return self._named(signature) if session is None else self._assumed(signature, session)

    def _verify(self, request: HttpRequest, signature: Signature | None) -> bytes:
        if signature is None:
            if "authorization" in request.headers:
                raise BadSignature("IncompleteSignatureException", "The Authorization header is no AWS4 signature.", None, 400)
            raise BadSignature("MissingAuthenticationTokenException", "Missing Authentication Token")
        credential = self._known(signature.access_key) or self._temporary(request, signature.access_key)
        if credential is None:
            text = "The security token included in the request is invalid."
            raise BadSignature("UnrecognizedClientException", text, signature.service)
        if signature.kind == "v2":
            verify_v2(request, signature, credential.secret_key, self._clock.now())
            expect_body(request)
            return request.body
        return verify(request, signature, credential.secret_key, self._clock.now())

    def _known(self, access_key: str) -> Credential | None:
        return self._credentials.get(access_key) or (None if self._functions is None else self._functions.find(access_key))

    def _session(self, request: HttpRequest, access_key: str) -> Session | None:
        """The session of ours that a request was signed with."""
        if self._sessions is None or not access_key.startswith(PREFIX):
            return None
        token = request.headers.get("x-amz-security-token") or dict(parse_qsl(request.query)).get("X-Amz-Security-Token", "")
        return self._sessions.read(access_key, token)

    def _temporary(self, request: HttpRequest, access_key: str) -> Credential | None:
        """The credential of a session of ours. Raises 403 ``ExpiredToken`` where it has ended."""
        session = self._session(request, access_key)
        if session is None or self._sessions is None:
            return None
        if session.expires <= self._clock.now():
            raise BadSignature("ExpiredTokenException", "The security token included in the request is expired")
        return Credential(access_key, self._sessions.secret_key(access_key), session.account)

    def _assumed(self, signature: Signature, session: Session) -> Identity:
        region = signature.region if _REGION.fullmatch(signature.region) else self._region
        return Identity(session.account, region, session.access_key, session.principal, signature.service or None)

    def _named(self, signature: Signature) -> Identity:
        key = signature.access_key if _KEY.fullmatch(signature.access_key) else ""
        region = signature.region if _REGION.fullmatch(signature.region) else self._region
        credential = self._known(key)
        user = key
        if credential is not None:
            account = credential.account
        elif _ACCOUNT.fullmatch(key):
            account, user = key, ""
        else:
            account = self._account
        who = f"user/{user}" if user else "root"
        return Identity(account, region, key, f"arn:aws:iam::{account}:{who}", signature.service or None)

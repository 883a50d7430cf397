"""A client of the OCI distribution protocol, for reading: manifests by tag or digest, blobs by digest.

Blocking; used from threads. What it gives is not yet checked against digests (``download.py`` does that), except a manifest asked for by
digest.

A registry first answers 401 and says how it wants to be addressed: ``Basic``, or ``Bearer`` with the address of a token service. The token
is asked for with the key that we have for the host, or anonymously, and kept for as long as this object lives, which is one pull.
Credentials never follow a redirect to another host (urllib3 sees to it): blobs often lie in an object store behind a signed URL.

Registries on this machine and those in ``insecure`` are tried over HTTPS without looking at the certificate, then over HTTP.
"""

from __future__ import annotations

import ipaddress
import json
import re
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, InsecureRequestWarning, MaxRetryError
from urllib3.response import BaseHTTPResponse

from lambent.images.faults import ImageFault, deleted, denied, invalid, unreachable
from lambent.images.manifest import ACCEPTED, MAX_DOCUMENT, Blob, digest_of
from lambent.images.registry_keys import Key

CHUNK = 1 << 18
PATIENCE = urllib3.Timeout(connect=10.0, read=30.0)
RETRIES = urllib3.Retry(
    total=3,
    connect=2,
    read=1,
    redirect=5,
    status_forcelist=(429, 500, 502, 503, 504),
    backoff_factor=0.3,
    raise_on_status=False,
    respect_retry_after_header=False,  # a registry that says "in an hour" must not hold a thread
)
_PARAMETER = re.compile(r'([a-zA-Z_]+)="([^"]*)"')
_AGENT = {"User-Agent": "lambent"}


class Registry:
    """One repository ``name`` at ``host``. ``close`` at the end."""

    def __init__(self, host: str, name: str, key: Key | None, *, insecure: bool = False) -> None:
        self._host = host
        self._name = name
        self._key = key
        self._lenient = insecure or _on_this_machine(host)
        self._schemes = ["https", "http"] if self._lenient else ["https"]
        self._authorization = ""
        self._pool = _pool(self._lenient, host)

    def close(self) -> None:
        self._pool.clear()

    def manifest(self, wanted: str) -> bytes:
        """The manifest or index with this tag or digest. Raises ``ImageFault``."""
        with self._get(f"manifests/{wanted}", {"Accept": ", ".join(ACCEPTED)}) as answer:
            try:
                content = answer.read(MAX_DOCUMENT + 1, decode_content=True)
            except HTTPError as error:
                raise unreachable(f"{self._host} broke off: {error}") from error
        if len(content) > MAX_DOCUMENT:
            raise invalid(f"the manifest is larger than {MAX_DOCUMENT} bytes")
        if wanted.startswith("sha256:") and digest_of(content) != wanted:
            raise invalid(f"{self._host} gave another manifest than {wanted}")
        return content

    def blob(self, blob: Blob, offset: int) -> tuple[int, Iterator[bytes]]:
        """The bytes of a blob from ``offset`` on, or from 0 where the registry cannot skip: gives where they begin.

        Raises ``ImageFault``, also from the iterator.
        """
        answer = self._get(f"blobs/{blob.digest}", {"Range": f"bytes={offset}-"} if offset else {})
        start = offset if answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {offset}-") else 0
        return start, self._pieces(answer)

    def _pieces(self, answer: BaseHTTPResponse) -> Iterator[bytes]:
        try:
            with answer:
                yield from answer.stream(CHUNK, decode_content=False)
        except (HTTPError, OSError) as error:
            raise unreachable(f"{self._host} broke off: {error}") from error

    def _get(self, path: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        answer = self._request(path, headers)
        if answer.status == 401:
            challenge = answer.headers.get("WWW-Authenticate", "")
            answer.drain_conn()
            self._authorization = self._authorize(challenge)
            answer = self._request(path, headers)
        if answer.status in (200, 206):
            return answer
        with answer:
            if answer.status in (401, 403):
                raise denied(f"{self._host} refuses {self._name}: HTTP {answer.status}")
            if answer.status in (404, 410):
                raise deleted(f"{self._host} has no {path} of {self._name}")
            if answer.status == 416:
                raise invalid(f"{self._host} has other bytes for {path} than the manifest says")
            raise unreachable(f"{self._host} answered HTTP {answer.status} for {path} of {self._name}")

    def _request(self, path: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """Over the first scheme that works, which then is the one."""
        failure: Exception | None = None
        sent = {**_AGENT, **headers}
        if self._authorization:
            sent["Authorization"] = self._authorization
        for scheme in list(self._schemes):
            # What speaks plain HTTP answers the beginning of TLS with a broken one, at once and each time.
            retries = RETRIES if len(self._schemes) == 1 or scheme == "http" else urllib3.Retry(total=0, redirect=5, raise_on_status=False)
            try:
                answer = self._pool.request(
                    "GET",
                    f"{scheme}://{self._host}/v2/{self._name}/{path}",
                    headers=sent,
                    preload_content=False,
                    timeout=PATIENCE,
                    retries=retries,
                )
            except (HTTPError, OSError, ValueError) as error:
                failure = error
                continue
            self._schemes = [scheme]
            return answer
        raise unreachable(f"{self._host} cannot be reached: {_cause(failure)}")

    def _authorize(self, challenge: str) -> str:
        """The ``Authorization`` header that ``challenge`` asks for. Raises ``ImageFault``."""
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and self._key is not None:
            return self._key.basic()
        parameters = dict(_PARAMETER.findall(rest))
        realm = parameters.get("realm", "")
        if scheme.lower() != "bearer" or urlsplit(realm).scheme not in ("https", "http"):
            raise denied(f"{self._host} wants credentials for {self._name}")
        if realm.startswith("http:") and self._key is not None and not (self._lenient or _on_this_machine(urlsplit(realm).netloc)):
            raise denied(f"{self._host} wants its password sent in the clear to {realm}")
        token = self._token(realm, parameters)
        return f"Bearer {token}"

    def _token(self, realm: str, parameters: Mapping[str, str]) -> str:
        fields = {"service": parameters.get("service", ""), "scope": parameters.get("scope") or f"repository:{self._name}:pull"}
        key = self._key
        try:
            if key is not None and key.refresh:
                form = {**fields, "grant_type": "refresh_token", "refresh_token": key.refresh, "client_id": "lambent"}
                answer = self._pool.request(
                    "POST", realm, fields=form, encode_multipart=False, headers=_AGENT, timeout=PATIENCE, retries=RETRIES
                )
            else:
                headers = dict(_AGENT) if key is None else {**_AGENT, "Authorization": key.basic()}
                mark = "&" if urlsplit(realm).query else "?"
                answer = self._pool.request("GET", f"{realm}{mark}{urlencode(fields)}", headers=headers, timeout=PATIENCE, retries=RETRIES)
        except (HTTPError, OSError, ValueError) as error:
            raise unreachable(f"the token service {realm} cannot be reached: {_cause(error)}") from error
        if answer.status != 200:
            raise _refused(realm, answer.status)
        try:
            document: Any = json.loads(answer.data)
            return str(document.get("token") or document["access_token"])
        except (ValueError, KeyError, AttributeError) as error:
            raise unreachable(f"the token service {realm} gives no token") from error


def _refused(realm: str, status: int) -> ImageFault:
    text = f"the token service {realm} answered HTTP {status}"
    return denied(text) if status in (400, 401, 403) else unreachable(text)


def _pool(lenient: bool, host: str) -> urllib3.PoolManager:
    options: dict[str, Any] = {"num_pools": 4, "maxsize": 4}
    if lenient:
        urllib3.disable_warnings(InsecureRequestWarning)
        options["cert_reqs"] = "CERT_NONE"
    proxies = urllib.request.getproxies()
    proxy = proxies.get("https") or proxies.get("http")
    name = urlsplit(f"//{host}").hostname or ""
    if proxy and not _on_this_machine(host) and not urllib.request.proxy_bypass(name):
        return urllib3.ProxyManager(proxy, **options)
    return urllib3.PoolManager(**options)


def _on_this_machine(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _cause(error: Exception | None) -> str:
    """The short reason inside urllib3's long one."""
    inner = error.reason if isinstance(error, MaxRetryError) and error.reason is not None else error
    text = str(inner)
    return text.rpartition(": ")[2] if text.startswith(("<", "HTTP")) or "object at 0x" in text else text

"""What an extension sends to subscribe, read and checked (contract 03 section 4).

Both APIs take the same document with small differences: the Telemetry API wants ``schemaVersion``, the Logs API may do without and lets the
destination choose the HTTP method. All that is wrong is told at once, as AWS does: ``URI port is not provided; types should not be empty``.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from lambent.runtime_api.telemetry import TYPES, Subscription

SCHEMAS = {
    "telemetry": ("2022-07-01", "2022-12-13", "2025-01-29"),
    "logs": ("2020-08-15", "2021-03-18"),
}
HOSTS = ("sandbox.localdomain", "sandbox")
RESERVED_PORT = 9001
_BUFFERING = (("maxItems", 1_000, 10_000, 10_000), ("maxBytes", 262_144, 1_048_576, 262_144), ("timeoutMs", 25, 30_000, 1_000))


class InvalidSubscription(ValueError):
    """The text is AWS's ``errorMessage`` of a ``ValidationError``."""


def read_subscription(api: str, body: bytes) -> Subscription:
    """Read the body of a subscription to ``api``, "telemetry" or "logs". Raises ``InvalidSubscription``."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidSubscription("Failed to parse the request body as JSON") from None
    if not isinstance(document, dict):
        raise InvalidSubscription("The request body should be a JSON object")
    faults: list[str] = []
    schema = _schema(api, document, faults)
    types = _types(document, faults)
    protocol, port, host, path, method = _destination(api, document.get("destination"), faults)
    items, size, timeout = _buffering(document.get("buffering"), faults)
    if faults:
        raise InvalidSubscription("; ".join(faults))
    return Subscription(api, schema, types, protocol, port, path, method, host, items, size, timeout / 1000)


def _schema(api: str, document: dict[str, Any], faults: list[str]) -> str:
    schema = document.get("schemaVersion")
    if schema is None and api == "logs":
        return SCHEMAS[api][0]
    if schema is None:
        faults.append("schemaVersion is not provided")
    elif schema not in SCHEMAS[api]:
        faults.append(f"schemaVersion should be one of {', '.join(SCHEMAS[api])}")
    return str(schema)


def _types(document: dict[str, Any], faults: list[str]) -> tuple[str, ...]:
    types = document.get("types")
    if not isinstance(types, list) or not types:
        faults.append("types should not be empty")
        return ()
    unknown = [kind for kind in types if kind not in TYPES]
    if unknown:
        faults.append(f"types should be among {', '.join(TYPES)}")
        return ()
    return tuple(kind for kind in TYPES if kind in types)


def _destination(api: str, destination: Any, faults: list[str]) -> tuple[str, int, str, str, str]:
    nowhere = ("", 0, "", "/", "POST")
    if not isinstance(destination, dict):
        faults.append("destination is not provided")
        return nowhere
    protocol = destination.get("protocol")
    if protocol == "TCP":
        port = destination.get("port")
        if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65_536:
            faults.append("port is not provided" if port is None else "port should be between 1 and 65535")
            return nowhere
        _check_reserved(port, faults)
        return "TCP", port, HOSTS[0], "/", "POST"
    if protocol != "HTTP":
        faults.append("protocol is not provided" if protocol is None else "protocol should be one of HTTP, TCP")
        return nowhere
    method = str(destination.get("method", "POST")).upper() if api == "logs" else "POST"
    if method not in ("POST", "PUT"):
        faults.append("method should be one of POST, PUT")
    if destination.get("encoding", "JSON") != "JSON":
        faults.append("encoding should be JSON")
    host, port, path = _uri(destination.get("URI"), faults)
    return "HTTP", port, host, path, method


def _uri(uri: Any, faults: list[str]) -> tuple[str, int, str]:
    if not isinstance(uri, str) or not uri:
        faults.append("URI is not provided")
        return "", 0, "/"
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        faults.append("URI is malformed")
        return "", 0, "/"
    if parts.scheme != "http":
        faults.append("URI scheme should be http")
    if host not in HOSTS:
        faults.append(f"URI host should be {HOSTS[0]}")
    if not port:
        faults.append("URI port is not provided")
    else:
        _check_reserved(port, faults)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not (target.isascii() and target.isprintable()) or " " in target:
        faults.append("URI is malformed")
    return host or "", port or 0, target


def _check_reserved(port: int, faults: list[str]) -> None:
    if port == RESERVED_PORT:
        faults.append(f"port {RESERVED_PORT} is reserved")


def _buffering(buffering: Any, faults: list[str]) -> tuple[int, int, int]:
    if buffering is None:
        buffering = {}
    if not isinstance(buffering, dict):
        faults.append("buffering should be an object")
        buffering = {}
    values = []
    for name, least, most, default in _BUFFERING:
        value = buffering.get(name)
        if value is None:
            value = default
        elif not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            faults.append(f"{name} should be between {least} and {most}")
        values.append(value)
    items, size, timeout = values
    return items, size, timeout

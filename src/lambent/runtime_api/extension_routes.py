"""The Extensions, Telemetry and Logs APIs over HTTP (contract 03 sections 3 and 4), and what else a sandbox may ask its platform."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lambent.runtime_api.exchange import SMALL_BODY, Collected, Desk, Exchange, Headers, ignoring_body, text_of, wrong_method
from lambent.runtime_api.extension_state import identifier_fault
from lambent.runtime_api.http_parser import Head
from lambent.runtime_api.session_words import Answer, EventNext, ExtensionError, Register, error_body, refusal
from lambent.runtime_api.subscription import InvalidSubscription, read_subscription

ROOT = "/2020-01-01/extension"
TELEMETRY = "/2022-07-01/telemetry"
LOGS = "/2020-08-15/logs"
CREDENTIALS = "/2021-04-23/credentials"
METADATA = "/2026-01-15/metadata/execution-environment"
_NAME = "lambda-extension-name"
_IDENTIFIER = "lambda-extension-identifier"
_FEATURES = "lambda-extension-accept-feature"
_ERROR_TYPE = "lambda-extension-function-error-type"


@dataclass(frozen=True, slots=True)
class Facilities:
    """What else is served beside the three APIs. Each is absent (404) unless given.

    ``credentials`` takes the Authorization header and gives the document (AccessKeyId, SecretAccessKey, Token, Expiration) or ``None``.
    """

    metadata_token: str = ""
    zone_id: str = "use1-az1"
    credentials: Callable[[str], Mapping[str, str] | None] | None = None


def open_extension(desk: Desk, caller: int, head: Head) -> Exchange | None:
    """The exchange that a request to one of these APIs begins; ``None`` if it is to none of them."""
    route = _ROUTES.get(head.path.rstrip("/"))
    if route is None:
        return None
    method, begin = route
    return begin(desk, caller, head) if head.method == method else wrong_method(desk, caller, method)


def open_facility(desk: Desk, caller: int, head: Head, facilities: Facilities) -> Exchange | None:
    """The same for metadata and credentials."""
    if head.path == METADATA and facilities.metadata_token:
        return ignoring_body(lambda: desk.answer(caller, *_metadata(head, facilities)))
    if head.path == CREDENTIALS and facilities.credentials is not None:
        if head.method != "GET":
            return wrong_method(desk, caller, "GET")
        document = facilities.credentials(head.headers.get("authorization", ""))
        if document is None:
            return ignoring_body(lambda: desk.answer(caller, 404, error_body("CredentialsNotFound", "Credentials not found")))
        return ignoring_body(lambda: desk.answer(caller, 200, json.dumps(dict(document)).encode()))
    return None


def _metadata(head: Head, facilities: Facilities) -> tuple[int, bytes, Headers]:
    scheme, _, token = head.headers.get("authorization", "").partition(" ")
    known = hmac.compare_digest(token.strip().encode("utf-8", "replace"), facilities.metadata_token.encode())
    if scheme.lower() != "bearer" or not known:
        return 401, error_body("Unauthorized", "Missing or invalid token"), (("WWW-Authenticate", "Bearer"),)
    if head.method != "GET":
        return 405, error_body("MethodNotAllowed", "Method not allowed"), (("Allow", "GET"),)
    body = json.dumps({"AvailabilityZoneID": facilities.zone_id}, separators=(",", ":")).encode()
    return 200, body, (("Cache-Control", "private, max-age=43200, immutable"),)


# -------------------------------------------------------------------------------------------------------------------- extensions


def _register(desk: Desk, caller: int, head: Head) -> Exchange:
    name = text_of(head, _NAME)
    features = {feature.strip() for feature in head.headers.get(_FEATURES, "").split(",")}

    def done(body: bytes, oversize: int) -> None:
        events = _read_events(body) if name and not oversize else ()
        if isinstance(events, str):
            desk.answer(caller, 403, error_body("InvalidRequestFormat", events))
        else:
            desk.carry_out(desk.registry.handle(Register(caller, name, events, "accountId" in features)))

    return Collected(SMALL_BODY, done)


def _read_events(body: bytes) -> tuple[str, ...] | str:
    """The events of a registration, or what is wrong with its body."""
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        return "The request body is not JSON"
    events = document.get("events") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not (events is None or isinstance(events, list)):
        return "The request body should be an object with a list of events"
    if document.get("configurationKeys"):
        return "configurationKeys are deprecated; use environment variables instead"
    if not all(isinstance(event, str) for event in events or ()):
        return "An event should be a string"
    return tuple(events or ())


def _event_next(desk: Desk, caller: int, head: Head) -> Exchange:
    identifier = head.headers.get(_IDENTIFIER, "")
    return ignoring_body(lambda: desk.carry_out(desk.registry.handle(EventNext(caller, identifier))))


def _failing(during: str) -> Callable[[Desk, int, Head], Exchange]:
    def begin(desk: Desk, caller: int, head: Head) -> Exchange:
        event = ExtensionError(caller, head.headers.get(_IDENTIFIER, ""), during, text_of(head, _ERROR_TYPE))
        return Collected(SMALL_BODY, lambda body, oversize: desk.carry_out(desk.registry.handle(event)))

    return begin


# ------------------------------------------------------------------------------------------------------------------ subscriptions

_API_NAMES = {"telemetry": "Telemetry", "logs": "Logs"}


def _subscribing(api: str) -> Callable[[Desk, int, Head], Exchange]:
    def begin(desk: Desk, caller: int, head: Head) -> Exchange:
        identifier = head.headers.get(_IDENTIFIER, "")
        return Collected(SMALL_BODY, lambda body, oversize: _subscribe(desk, caller, identifier, api, body))

    return begin


def _subscribe(desk: Desk, caller: int, identifier: str, api: str, body: bytes) -> None:
    fault = _subscriber_fault(desk, caller, identifier, api)
    if fault is not None:
        desk.carry_out((fault,))
        return
    name = desk.registry.name_of(identifier) or ""
    try:
        subscription = read_subscription(api, body)
        before = desk.hub.api_of(name)
        if before not in ("", api):
            raise InvalidSubscription(f"The extension has subscribed with the {_API_NAMES[before]} API already")
    except InvalidSubscription as error:
        desk.answer(caller, 400, error_body("ValidationError", str(error)))
        return
    outbox, replaced = desk.hub.subscribe(name, subscription)
    desk.answer(caller, 200, b'"OK"')
    desk.subscribed(name, subscription.types, outbox, replaced)


def _subscriber_fault(desk: Desk, caller: int, identifier: str, api: str) -> Answer | None:
    fault = identifier_fault(caller, identifier)
    if fault is not None:
        return fault
    if desk.registry.name_of(identifier) is None:
        return refusal(caller, 403, "Extension.UnknownExtensionIdentifier", f"Unknown extension {identifier}")
    title = _API_NAMES[api]
    if not desk.telemetry_supported:
        return refusal(caller, 202, f"{title}.NotSupported", f"{title} API is not supported")
    if not desk.registry.registering:
        return refusal(caller, 403, f"{title}.SubscriptionClosed", f"{title} API subscription is closed already")
    return None


_ROUTES: dict[str, tuple[str, Callable[[Desk, int, Head], Exchange]]] = {
    f"{ROOT}/register": ("POST", _register),
    f"{ROOT}/event/next": ("GET", _event_next),
    f"{ROOT}/init/error": ("POST", _failing("init")),
    f"{ROOT}/exit/error": ("POST", _failing("exit")),
    TELEMETRY: ("PUT", _subscribing("telemetry")),
    LOGS: ("PUT", _subscribing("logs")),
}

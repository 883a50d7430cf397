"""Subscriptions and what waits for them: AWS's checks and texts, batches, drops, early events, the Logs API's words."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambent.runtime_api.subscription import InvalidSubscription, read_subscription
from lambent.runtime_api.telemetry import EARLY_BYTES, EARLY_ITEMS, FELL_BEHIND, Outbox, Subscription, TelemetryHub, encode_event

HTTP = {"protocol": "HTTP", "URI": "http://sandbox.localdomain:8080/in?a=b"}


def request(**members) -> bytes:
    return json.dumps({"schemaVersion": "2022-12-13", "types": ["platform"], "destination": HTTP, **members}).encode()


def subscription(types=("platform", "function", "extension"), api="telemetry", schema="2022-12-13", **more) -> Subscription:
    return Subscription(api, schema, tuple(types), "HTTP", 8080, **more)


def decoded(batch: list[bytes]) -> list[dict]:
    return [json.loads(event) for event in batch]


def told(outbox: Outbox) -> list[tuple]:
    return [(event["type"], event["record"]) for event in decoded(outbox.take(0.0))]


# ----------------------------------------------------------------------------------------------------------------- requests


@pytest.mark.parametrize("schema", ["2022-07-01", "2022-12-13", "2025-01-29"])
def test_a_whole_request(schema):
    buffering = {"maxItems": 1000, "maxBytes": 1_048_576, "timeoutMs": 25}
    body = request(schemaVersion=schema, types=["extension", "platform", "platform"], buffering=buffering)
    assert read_subscription("telemetry", body) == Subscription(
        "telemetry", schema, ("platform", "extension"), "HTTP", 8080, "/in?a=b", "POST", "sandbox.localdomain", 1000, 1_048_576, 0.025
    )


def test_defaults():
    found = read_subscription("telemetry", request(destination={"protocol": "HTTP", "URI": "http://sandbox:1"}))
    assert (found.host, found.path, found.max_items, found.max_bytes, found.timeout_s) == ("sandbox", "/", 10_000, 262_144, 1.0)


def test_tcp():
    found = read_subscription("telemetry", request(destination={"protocol": "TCP", "port": 4243}))
    assert (found.protocol, found.port) == ("TCP", 4243)


def test_the_logs_api_does_without_a_schema_and_knows_a_method():
    body = json.dumps({"types": ["function"], "destination": {**HTTP, "method": "PUT", "encoding": "JSON"}}).encode()
    found = read_subscription("logs", body)
    assert (found.schema, found.method) == ("2020-08-15", "PUT")
    assert read_subscription("logs", request(schemaVersion="2021-03-18")).schema == "2021-03-18"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "Failed to parse the request body as JSON"),
        (b"[" * 100_000, "Failed to parse the request body as JSON"),
        (b"[]", "The request body should be a JSON object"),
        (
            request(types=[], destination={"protocol": "HTTP", "URI": "http://sandbox.localdomain"}),
            "types should not be empty; URI port is not provided",
        ),
        (request(types=["platform", "other"]), "types should be among platform, function, extension"),
        (request(types="platform"), "types should not be empty"),
        (request(types=[{}]), "types should be among platform, function, extension"),
        (request(schemaVersion="2020-08-15"), "schemaVersion should be one of 2022-07-01, 2022-12-13, 2025-01-29"),
        (request(schemaVersion=None), "schemaVersion is not provided"),
        (request(destination=None), "destination is not provided"),
        (request(destination={}), "protocol is not provided"),
        (request(destination={"protocol": "UDP"}), "protocol should be one of HTTP, TCP"),
        (request(destination={"protocol": "HTTP"}), "URI is not provided"),
        (request(destination={**HTTP, "URI": "http://sandbox.localdomain:9001"}), "port 9001 is reserved"),
        (request(destination={**HTTP, "URI": "http://example.com:80"}), "URI host should be sandbox.localdomain"),
        (request(destination={**HTTP, "URI": "https://sandbox:80"}), "URI scheme should be http"),
        (request(destination={**HTTP, "URI": "http://sandbox:99999"}), "URI is malformed"),
        (request(destination={**HTTP, "URI": "http://sandbox:80/a b"}), "URI is malformed"),
        (request(destination={**HTTP, "URI": "http://[sandbox:80"}), "URI is malformed"),
        (request(destination={**HTTP, "URI": "http://sandbox:80/é"}), "URI is malformed"),
        (request(destination={"protocol": "TCP"}), "port is not provided"),
        (request(destination={"protocol": "TCP", "port": True}), "port should be between 1 and 65535"),
        (request(destination={"protocol": "TCP", "port": 9001}), "port 9001 is reserved"),
        (request(buffering=[]), "buffering should be an object"),
        (request(buffering={"maxItems": 999}), "maxItems should be between 1000 and 10000"),
        (request(buffering={"maxBytes": 1_048_577}), "maxBytes should be between 262144 and 1048576"),
        (request(buffering={"timeoutMs": 24.5}), "timeoutMs should be between 25 and 30000"),
    ],
)
def test_what_is_wrong_is_said(body, text):
    with pytest.raises(InvalidSubscription) as caught:
        read_subscription("telemetry", body)
    assert str(caught.value) == text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["HTTP", "TCP", "http://sandbox:1", "platform"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["protocol", "URI", "port", "maxItems"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("schemaVersion", "types", "destination", "buffering"), json_values)))
def test_any_document_is_read_or_refused(document):
    try:
        found = read_subscription("logs", json.dumps(document).encode())
    except InvalidSubscription:
        return
    assert found.types
    assert 0 < found.port < 65_536


# ------------------------------------------------------------------------------------------------------------------- events


def test_the_shape_of_an_event():
    assert (
        encode_event("function", "hällo", 1_767_225_600.1234)
        == '{"time":"2026-01-01T00:00:00.123Z","type":"function","record":"hällo"}'.encode()
    )


def test_each_gets_the_types_that_it_asked_for():
    hub = TelemetryHub()
    platform, _ = hub.subscribe("a", subscription(["platform"]))
    function, _ = hub.subscribe("b", subscription(["function", "extension"]))
    assert hub.types == {"platform", "function", "extension"}
    assert hub.publish("platform.start", {"requestId": "1"}, 0.0, "platform") == [platform]
    assert hub.publish("function", "line", 0.0, "function") == [function]
    assert told(platform) == [("platform.start", {"requestId": "1"})]
    assert told(function) == [("function", "line")]


def test_early_events_reach_whoever_subscribes_during_init():
    hub = TelemetryHub()
    hub.publish("platform.initStart", {"phase": "init"}, 0.0, "platform")
    hub.publish("function", "early", 0.0, "function")
    first, _ = hub.subscribe("a", subscription(["platform"]))
    second, _ = hub.subscribe("b", subscription(["platform", "function"]))
    hub.end_init()
    hub.publish("function", "late", 0.0, "function")
    assert told(first) == [("platform.initStart", {"phase": "init"})]
    assert told(second) == [("platform.initStart", {"phase": "init"}), ("function", "early"), ("function", "late")]


@pytest.mark.parametrize(("line", "fit"), [("x", EARLY_ITEMS), ("x" * 9_900, EARLY_BYTES // 10_000)])
def test_early_events_are_bounded_and_the_lost_are_counted(line, fit):
    hub = TelemetryHub()
    for _ in range(fit + 5):
        hub.publish("function", line, 0.0, "function")
    outbox, _ = hub.subscribe("a", subscription(["function"]))
    other, _ = hub.subscribe("b", subscription(["platform"]))
    dropped, *rest = told(outbox)
    assert (dropped[0], dropped[1]["droppedRecords"], len(rest)) == ("platform.logsDropped", 5, fit)
    assert other.empty


def test_nothing_is_kept_once_init_is_over_and_nobody_subscribed():
    hub = TelemetryHub()
    hub.publish("function", "x", 0.0, "function")
    hub.end_init()
    assert hub.publish("function", "x", 0.0, "function") == []
    assert hub._early is None


def test_subscribing_again_changes_nothing_or_moves_the_types():
    hub = TelemetryHub()
    first, replaced = hub.subscribe("a", subscription(["platform", "function"]))
    assert replaced == []
    assert hub.subscribe("a", subscription(["platform", "function"])) == (None, [])
    assert hub.subscribe("b", subscription(["platform"]))[0] is not None
    second, replaced = hub.subscribe("a", subscription(["function"], path="/elsewhere"))
    assert replaced == [first]
    assert len(hub.outboxes) == 2
    assert hub.publish("function", "x", 0.0, "function") == [second]
    assert hub.api_of("a") == "telemetry"
    assert hub.api_of("nobody") == ""


# ------------------------------------------------------------------------------------------------------------------- batches


def test_a_batch_is_full_by_items_or_bytes():
    by_items = Outbox(subscription(max_items=3))
    for _ in range(3):
        assert not by_items.full
        by_items.add(b"x")
    assert by_items.full
    by_bytes = Outbox(subscription(max_bytes=10))
    by_bytes.add(b"x" * 9)
    assert not by_bytes.full
    by_bytes.add(b"x")
    assert by_bytes.full


def test_what_does_not_fit_is_counted_and_told_first():
    outbox = Outbox(subscription(max_items=2))
    assert [outbox.add(b'{"n":%d}' % number) for number in range(5)] == [True, True, False, False, False]
    dropped, *rest = decoded(outbox.take(0.0))
    assert dropped == {
        "time": "1970-01-01T00:00:00.000Z",
        "type": "platform.logsDropped",
        "record": {"reason": FELL_BEHIND, "droppedRecords": 3, "droppedBytes": 21},
    }
    assert rest == [{"n": 0}, {"n": 1}]
    outbox.done(delivered=True)
    assert outbox.empty


def test_a_batch_that_was_given_up_is_counted():
    outbox = Outbox(subscription())
    outbox.add(b'"a"')
    outbox.take(0.0)
    outbox.done(delivered=False)
    assert not outbox.empty
    (dropped,) = decoded(outbox.take(0.0))
    assert (dropped["record"]["droppedRecords"], dropped["record"]["droppedBytes"]) == (1, 3)


def test_one_event_larger_than_a_batch_goes_alone():
    outbox = Outbox(subscription(max_bytes=10))
    assert outbox.add(b"x" * 100)
    assert not outbox.add(b"y")


@given(st.lists(st.one_of(st.integers(1, 60), st.sampled_from(["take", "done", "fail"])), max_size=80))
def test_every_event_is_delivered_or_counted_and_memory_is_bounded(steps):
    outbox = Outbox(subscription(max_items=5, max_bytes=100))
    added = delivered = counted = 0
    for step in [*steps, "done", "take", "done", "take", "done"]:
        if isinstance(step, int):
            outbox.add(b"x" * step)
            added += 1
        elif step == "take" and not outbox.taken and not outbox.empty:
            outbox.take(0.0)
        elif step in ("done", "fail") and outbox.taken:
            report = [json.loads(event) for event in outbox.taken if event.startswith(b"{")]
            if step == "done":
                counted += sum(event["record"]["droppedRecords"] for event in report)
                delivered += len(outbox.taken) - len(report)
            else:
                counted -= len(report)  # the report of a batch that is given up is counted as one more
                counted += sum(event["record"]["droppedRecords"] for event in report)
            outbox.done(delivered=step == "done")
        assert sum(map(len, outbox._waiting)) <= 200
    assert delivered + counted == added


# -------------------------------------------------------------------------------------------------------------- the Logs API

START = {"requestId": "1", "version": "7", "tracing": {"type": "X-Amzn-Trace-Id", "value": "Root=1"}}
REPORT = {"requestId": "1", "status": "success", "metrics": {"durationMs": 1.0}, "spans": []}


@pytest.mark.parametrize(
    ("kind", "record", "schema", "seen"),
    [
        ("platform.start", START, "2020-08-15", [("platform.start", START)]),
        (
            "platform.report",
            REPORT,
            "2020-08-15",
            [("platform.end", {"requestId": "1"}), ("platform.report", {"requestId": "1", "metrics": {"durationMs": 1.0}})],
        ),
        ("platform.runtimeDone", {"requestId": "1", "status": "success", "metrics": {}}, "2020-08-15", []),
        (
            "platform.runtimeDone",
            {"requestId": "1", "status": "success", "metrics": {}},
            "2021-03-18",
            [("platform.runtimeDone", {"requestId": "1", "status": "success"})],
        ),
        ("platform.initStart", {"phase": "init"}, "2021-03-18", []),
        (
            "platform.telemetrySubscription",
            {"name": "a", "state": "Subscribed", "types": ["platform"]},
            "2020-08-15",
            [("platform.logsSubscription", {"name": "a", "state": "Subscribed", "types": ["platform"]})],
        ),
        ("platform.fault", "RequestId: 1 Error", "2020-08-15", [("platform.fault", "RequestId: 1 Error")]),
        ("function", "line", "2020-08-15", [("function", "line")]),
    ],
)
def test_the_logs_api_speaks_its_own_words(kind, record, schema, seen):
    hub = TelemetryHub()
    outbox, _ = hub.subscribe("a", subscription(api="logs", schema=schema))
    changed = hub.publish(kind, record, 0.0, kind.partition(".")[0])
    assert changed == ([outbox] if seen else [])
    assert told(outbox) == seen

"""Requests that come again get what the long way gives, and nothing is remembered that could differ."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambent.errors import ClientFault
from lambent.wire import recent
from lambent.wire.gateway import Gateway
from lambent.wire.http import HttpRequest

PATH = "/2015-03-31/functions/{}/invocations"
NAMES = st.sampled_from(["f", "g", "function:f", "f:1", "a%2Fb", "x" * 200])
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "x-amz-invocation-type": st.sampled_from(["Event", "RequestResponse", "DryRun", "Never", ""]),
        "x-amz-log-type": st.sampled_from(["Tail", "None"]),
        "x-amz-client-context": st.sampled_from(["e30=", "x" * 2_000]),
        "x-amz-tenant-id": st.sampled_from(["a", "b", "!"]),
        "user-agent": st.text("ab", max_size=2),
    },
)
REQUESTS = st.builds(
    lambda name, query, headers, body: HttpRequest("POST", PATH.format(name), query, headers, body),
    NAMES,
    st.sampled_from(["", "Qualifier=1", "Qualifier=prod", "Qualifier="]),
    HEADERS,
    st.sampled_from([b"", b"{}", b"[1]", b"no json"]),
)


def the_long_way(gateway: Gateway, request: HttpRequest) -> tuple[str, Any]:
    try:
        operation, path_params = gateway.route(request, "lambda")
        params = gateway.parse(operation, request, path_params)
    except ClientFault as fault:
        return fault.code, fault.message
    gateway.learn(request, "lambda", operation, params)
    return operation.name, params


@given(st.lists(REQUESTS, max_size=20))
def test_the_short_way_gives_what_the_long_way_gives(requests: list[HttpRequest]):
    gateway = Gateway()
    for request in requests * 2:
        known = gateway.known(request, "lambda")
        wanted = the_long_way(gateway, request)
        assert known is None or (known[0].name, known[1]) == wanted


def test_the_second_of_two_invocations_is_known():
    gateway = Gateway()
    headers = {"x-amz-log-type": "Tail", "user-agent": "one"}
    the_long_way(gateway, HttpRequest("POST", PATH.format("f"), "Qualifier=1", headers, b"1"))
    known = gateway.known(HttpRequest("POST", PATH.format("f"), "Qualifier=1", {**headers, "user-agent": "two"}, b"2"), "lambda")
    assert known is not None
    assert known[1] == {"FunctionName": "f", "Qualifier": "1", "LogType": "Tail", "Payload": b"2"}
    assert gateway.known(HttpRequest("POST", PATH.format("f"), "Qualifier=1", headers, b"2"), "lambda-core") is None
    assert gateway.known(HttpRequest("POST", PATH.format("f"), "Qualifier=1", headers, b""), "lambda") is None


def test_parameters_are_not_shared():
    gateway = Gateway()
    request = HttpRequest("POST", PATH.format("f"), "", {}, b"1")
    the_long_way(gateway, request)
    first, second = gateway.known(request, "lambda"), gateway.known(request, "lambda")
    assert first is not None
    assert second is not None
    first[1]["FunctionName"] = "g"
    assert second[1]["FunctionName"] == "f"


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recent, "_LINES", 3)
    monkeypatch.setattr(recent, "_VARIANTS", 3)
    gateway = Gateway()
    for number in range(10):
        the_long_way(gateway, HttpRequest("POST", PATH.format(f"f{number}"), "", {}, b"1"))
        the_long_way(gateway, HttpRequest("POST", PATH.format("f"), "", {"x-amz-tenant-id": f"t{number}"}, b"1"))
    known = [gateway.known(HttpRequest("POST", PATH.format(f"f{number}"), "", {}, b"1"), "lambda") is not None for number in range(10)] + [
        gateway.known(HttpRequest("POST", PATH.format("f"), "", {"x-amz-tenant-id": f"t{number}"}, b"1"), "lambda") is not None
        for number in range(10)
    ]
    assert 1 <= sum(known) <= 6


def test_documents_are_never_remembered():
    gateway = Gateway()
    request = HttpRequest("GET", "/2015-03-31/functions/f", "", {}, b"")
    the_long_way(gateway, request)
    assert gateway.known(request, "lambda") is None

"""Whatever arrives, the wire answers with an operation and its parameters or with a ClientFault that can be sent."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lambent.errors import ClientFault
from lambent.wire.gateway import Gateway
from lambent.wire.http import HttpRequest
from lambent.wire.models import SERVICES, Operation, load_service

GATEWAY = Gateway()
OPERATIONS = [operation for name in SERVICES for operation in load_service(name).operations.values()]
HEADS = sorted({member.wire for operation in OPERATIONS for member in operation.headers})
KEYS = sorted({member.wire for operation in OPERATIONS for member in (*operation.query, *operation.body)})
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", "..", "%", "%2F", "%zz", "%ff", "arn:aws:lambda:x", "$LATEST", "a" * 300, "{", "\x00", "\ud800"]),
)
ANY_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)
BODIES = st.one_of(
    st.binary(max_size=60),
    ANY_JSON.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from(KEYS), ANY_JSON, max_size=6).map(lambda value: json.dumps(value).encode()),
    st.lists(
        st.tuples(st.sampled_from(["Action", "Tags.member.1.Key", "PolicyArns.member", ".", "..", *KEYS[:5]]), st.text(max_size=5)),
        max_size=5,
    ).map(lambda pairs: "&".join(f"{key}={value}" for key, value in pairs).encode("utf-8", "replace")),
)


def spoken(request: HttpRequest, scope: str | None) -> None:
    operation: Operation | None = None
    try:
        operation, path_params = GATEWAY.route(request, scope)
        params: Any = GATEWAY.parse(operation, request, path_params)
        assert isinstance(params, dict)
    except ClientFault as caught:
        fault = caught
    else:
        return
    response = GATEWAY.refuse(operation, fault, "id")
    assert 400 <= response.status < 500
    assert isinstance(response.body, bytes)
    assert fault.code.encode() in response.body or ("x-amzn-ErrorType", fault.code) in response.headers


@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "BREW", ""]),
    st.lists(TEXTS, max_size=6).map(lambda parts: "/" + "/".join(parts)) | TEXTS,
    TEXTS,
    st.dictionaries(st.sampled_from([*HEADS, "x-amz-target", "content-type"]), TEXTS, max_size=3),
    BODIES,
    st.sampled_from([None, "lambda", "logs", "sts", "s3", ""]),
)
@settings(max_examples=300, deadline=None)
def test_garbage(method, path, query, headers, body, scope):
    spoken(HttpRequest(method, path, query, headers, body), scope)


@given(st.sampled_from(OPERATIONS), st.data())
@settings(max_examples=600, deadline=None)
def test_operations_with_odd_parameters(operation, data):
    path = operation.uri
    for member in operation.uri_members:
        path = path.replace("{" + member.wire + "}", data.draw(TEXTS).replace("/", "%2F"))
    pairs = data.draw(st.lists(st.tuples(st.sampled_from([each.wire for each in operation.query] or ["x"]), TEXTS), max_size=4))
    query = "&".join([*operation.literal_query, *(f"{key}={value}" for key, value in pairs)])
    headers = {member.wire: data.draw(TEXTS) for member in operation.headers}
    scope = operation.service if operation.service in ("logs", "sts") else "lambda"
    if operation.protocol == "json":
        headers["x-amz-target"] = f"{operation.model.target_prefix}.{operation.name}"
    keys = [member.wire for member in operation.body] or ["x"]
    body = data.draw(BODIES | st.dictionaries(st.sampled_from(keys), ANY_JSON, max_size=6).map(lambda value: json.dumps(value).encode()))
    if operation.protocol == "query":
        body = f"Action={operation.name}&".encode() + body
    spoken(HttpRequest(operation.method, path, query, headers, body), scope)

"""AWS Lambda: operation name -> method, and nothing more than the translation between the wire and ``control``, ``invoke``.

A result is a dictionary in the shape of the model. The key ``__headers__`` holds further response headers, which the model does not
know but AWS sends.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Protocol

from lambent.arn import FunctionArn
from lambent.control.account import Account
from lambent.control.function_names import resolve
from lambent.control.functions import Functions
from lambent.control.layers import Layers
from lambent.control.tags import Tags
from lambent.errors import ClientFault, NotImplementedFault, invalid_parameter
from lambent.invoke.invocation import Invocation, InvocationResult
from lambent.invoke.response_stream import InvocationStream
from lambent.services.response_events import ResponseEvents
from lambent.wire.call import Call

CLIENT_CONTEXT = 3_583  # bytes as sent (contract 01 §8)

_USUAL = frozenset({"", "application/json", "application/octet-stream", "application/x-www-form-urlencoded"})
_NEVER_JSON = frozenset({"text", "image", "audio", "video", "font", "multipart"})

Params = dict[str, Any]


class FrontDoor(Protocol):
    """The one way into the data plane."""

    async def invoke(self, call: Invocation) -> InvocationResult: ...

    async def invoke_stream(self, call: Invocation) -> InvocationStream: ...

    async def dry_run(self, call: Invocation) -> None:
        """Check all that can be checked without running anything."""
        ...


class Events(Protocol):
    """Asynchronous invocations."""

    async def accept(self, call: Invocation) -> str:
        """Durable when this returns; gives the trace header."""
        ...


class LambdaService:
    """One method per operation that does something."""

    def __init__(
        self, functions: Functions, tags: Tags, account: Account, front_door: FrontDoor, layers: Layers, events: Events | None = None
    ) -> None:
        self._functions = functions
        self._tags = tags
        self._account = account
        self._front_door = front_door
        self._layers = layers
        self._events = events

    async def create_function(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._functions.create(call, params)

    async def get_function(self, call: Call, params: Params) -> dict[str, Any]:
        return self._functions.get(call, params)

    async def get_function_configuration(self, call: Call, params: Params) -> dict[str, Any]:
        return self._functions.get_configuration(call, params)

    async def list_functions(self, call: Call, params: Params) -> dict[str, Any]:
        return self._functions.list_functions(call, params)

    async def update_function_code(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._functions.update_code(call, params)

    async def update_function_configuration(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._functions.update_configuration(call, params)

    async def delete_function(self, call: Call, params: Params) -> dict[str, Any]:
        await self._functions.delete(call, params)
        return {"StatusCode": 200}

    async def publish_layer_version(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._layers.publish(call, params)

    async def get_layer_version(self, call: Call, params: Params) -> dict[str, Any]:
        return self._layers.get(call, params)

    async def get_layer_version_by_arn(self, call: Call, params: Params) -> dict[str, Any]:
        return self._layers.get_by_arn(call, params)

    async def list_layers(self, call: Call, params: Params) -> dict[str, Any]:
        return self._layers.list_layers(call, params)

    async def list_layer_versions(self, call: Call, params: Params) -> dict[str, Any]:
        return self._layers.list_versions(call, params)

    async def delete_layer_version(self, call: Call, params: Params) -> dict[str, Any]:
        await self._layers.delete(call, params)
        return {}

    async def add_layer_version_permission(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._layers.add_permission(call, params)

    async def remove_layer_version_permission(self, call: Call, params: Params) -> dict[str, Any]:
        await self._layers.remove_permission(call, params)
        return {}

    async def get_layer_version_policy(self, call: Call, params: Params) -> dict[str, Any]:
        return self._layers.get_policy(call, params)

    async def tag_resource(self, call: Call, params: Params) -> dict[str, Any]:
        await self._tags.tag(call, params)
        return {}

    async def untag_resource(self, call: Call, params: Params) -> dict[str, Any]:
        await self._tags.untag(call, params)
        return {}

    async def list_tags(self, call: Call, params: Params) -> dict[str, Any]:
        return {"Tags": self._tags.list_tags(call, params)}

    async def get_account_settings(self, call: Call, params: Params) -> dict[str, Any]:
        del params
        return self._account.settings(call)

    async def invoke(self, call: Call, params: Params) -> dict[str, Any]:
        """Contract 02 §1, §2, §4. Not yet: durable executions."""
        target = resolve(call, "InvokeFunction", params["FunctionName"], params.get("Qualifier"))
        kind = params.get("InvocationType") or "RequestResponse"
        invocation = _invocation(call, target, params, kind)
        if kind == "Event":
            return await self._accept(invocation)
        if kind == "DryRun":
            await self._front_door.dry_run(invocation)
            return {"StatusCode": 204}
        return _answer(await self._front_door.invoke(invocation), invocation.want_log)

    async def invoke_async(self, call: Call, params: Params) -> dict[str, Any]:
        """The deprecated way to say InvocationType Event."""
        target = resolve(call, "InvokeAsync", params["FunctionName"])
        await self._accept(_invocation(call, target, {"Payload": params["InvokeArgs"]}, "Event"))
        return {"Status": 202}

    async def _accept(self, invocation: Invocation) -> dict[str, Any]:
        if self._events is None:
            raise NotImplementedFault("lambda", "Invoke with InvocationType Event")
        traced = await self._events.accept(invocation)
        return {"StatusCode": 202, "__headers__": {"x-amzn-Remapped-Content-Length": "0", "X-Amzn-Trace-Id": traced}}

    async def invoke_with_response_stream(self, call: Call, params: Params) -> dict[str, Any]:
        """Contract 02 §3. What fails before the first sign of a response is an ordinary refusal."""
        target = resolve(call, "InvokeFunction", params["FunctionName"], params.get("Qualifier"))
        kind = params.get("InvocationType") or "RequestResponse"
        invocation = _invocation(call, target, params, kind)
        if kind == "DryRun":
            await self._front_door.dry_run(invocation)
            return {"StatusCode": 204}
        stream = await self._front_door.invoke_stream(invocation)
        return {
            "StatusCode": 200,
            "ExecutedVersion": stream.executed_version,
            "EventStream": ResponseEvents(stream, invocation.want_log),
            "__headers__": {"X-Amzn-Trace-Id": stream.trace},
        }


def _invocation(call: Call, target: FunctionArn, params: Mapping[str, Any], kind: str) -> Invocation:
    if call.content_type not in _USUAL:
        _check_media(call.content_type)
    if params.get("DurableExecutionName") is not None:
        raise invalid_parameter("The function is not a durable function; a durable execution name is not allowed.")
    return Invocation(
        target=target,
        payload=params.get("Payload") or b"",
        request_id=call.request_id,
        client_context=_client_context(context) if kind == "RequestResponse" and (context := params.get("ClientContext")) else "",
        trace=call.trace,
        want_log=params.get("LogType") == "Tail" and kind == "RequestResponse",
        cause=call.request_id,
        tenant=params.get("TenantId") or "",
    )


def _check_media(content_type: str) -> None:
    """415 for an event that is said to be something that JSON is not (contract 02 §1).

    Only for what cannot be meant as JSON: AWS's SDKs call an event ``application/octet-stream``, and curl calls it a form.
    """
    kind = content_type.partition(";")[0].strip().lower()
    main, _, sub = kind.partition("/")
    if main in _NEVER_JSON or sub in ("xml", "pdf", "zip") or sub.endswith("+xml"):
        raise ClientFault("UnsupportedMediaTypeException", 415, f"The content type of the request body is not JSON: {kind}")


def _client_context(text: str) -> str:
    """The JSON text in the header. Raises ``InvalidRequestContentException``."""
    if len(text) > CLIENT_CONTEXT:
        raise _bad_context(f"Client context must be at most {CLIENT_CONTEXT} bytes of Base64-encoded data.")
    try:
        decoded = base64.b64decode(text, validate=True).decode()
        document = json.loads(decoded)
    except (binascii.Error, ValueError, RecursionError) as error:
        raise _bad_context("Client context must be a valid Base64-encoded JSON object.") from error
    if not isinstance(document, dict):
        raise _bad_context("Client context must be a valid Base64-encoded JSON object.")
    # In one line of ASCII, since the Runtime API hands it over in a header.
    return json.dumps(document, separators=(",", ":"))


def _bad_context(message: str) -> ClientFault:
    return ClientFault("InvalidRequestContentException", 400, message)


def _answer(result: InvocationResult, want_log: bool) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "StatusCode": 200,
        "ExecutedVersion": result.executed_version,
        "Payload": result.payload,
        "__headers__": {"x-amzn-Remapped-Content-Length": "0"},
    }
    if result.trace:
        answer["__headers__"]["X-Amzn-Trace-Id"] = result.trace
    if result.function_error is not None:
        answer["FunctionError"] = result.function_error
    if want_log:
        answer["LogResult"] = base64.b64encode(result.log_tail).decode()
    return answer

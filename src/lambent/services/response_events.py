"""A streamed response as the events of InvokeWithResponseStream (contract 02 §3): PayloadChunk as often as needed, InvokeComplete once."""

from __future__ import annotations

import base64
import json
from typing import Any

from lambent.errors import PlatformFault
from lambent.invoke.invocation import InvocationResult
from lambent.invoke.response_stream import InvocationStream


class ResponseEvents:
    """An async iterator of events in the shape of the model. ``close`` when nobody reads on: the function then runs on by itself."""

    def __init__(self, stream: InvocationStream, want_log: bool) -> None:
        self._stream = stream
        self._want_log = want_log
        self._complete = False

    def __aiter__(self) -> ResponseEvents:
        return self

    async def __anext__(self) -> dict[str, Any]:
        if self._complete:
            raise StopAsyncIteration
        try:
            return {"PayloadChunk": {"Payload": await self._stream.__anext__()}}
        except StopAsyncIteration:
            end = _complete(self._stream.result, self._want_log)
        except PlatformFault as fault:  # too late for a refusal
            end = {
                "ErrorCode": "Sandbox.Failure",
                "ErrorDetails": json.dumps({"errorType": "Sandbox.Failure", "errorMessage": fault.message}),
            }
        self._complete = True
        return {"InvokeComplete": end}

    def close(self) -> None:
        self._stream.abandon()


def _complete(result: InvocationResult, want_log: bool) -> dict[str, str]:
    end: dict[str, str] = {}
    if result.function_error is not None:
        end["ErrorCode"] = result.error_type or result.function_error
        end["ErrorDetails"] = result.payload.decode("utf-8", "replace")
    if want_log:
        end["LogResult"] = base64.b64encode(result.log_tail).decode()
    return end

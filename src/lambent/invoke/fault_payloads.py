"""The payloads of failures that the function's own runtime did not word: AWS's JSON, byte for byte (contract 02 §2.1).

Key order differs from one kind to the next because it does on AWS.
"""

from __future__ import annotations

import json

from lambent.errors import FunctionFault
from lambent.sandbox.driver import SandboxExit

TIMED_OUT = "Sandbox.Timedout"
TOO_LARGE = "Function.ResponseSizeTooLarge"


def payload(fault: FunctionFault) -> bytes:
    """``{"errorType":…,"errorMessage":…}``; for an over-long response the other way round."""
    members = {"errorType": fault.error_type, "errorMessage": fault.message}
    if fault.error_type == TOO_LARGE:
        members = {"errorMessage": fault.message, "errorType": fault.error_type}
    return json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode()


def timed_out(request_id: str, timeout_s: float) -> FunctionFault:
    return FunctionFault(TIMED_OUT, f"RequestId: {request_id} Error: Task timed out after {timeout_s:.2f} seconds")


def exited(request_id: str, how: SandboxExit) -> FunctionFault:
    return FunctionFault(exit_type(how), f"RequestId: {request_id} Error: {how.reason()}")


def exit_type(how: SandboxExit) -> str:
    """The error type of a runtime process that ended."""
    if how.fault:
        return "Sandbox.Failure"
    if how.entry:
        return how.entry_type
    return "Runtime.OutOfMemory" if how.out_of_memory else "Runtime.ExitError"


def too_large(limit: int) -> FunctionFault:
    return FunctionFault(TOO_LARGE, f"Response payload size exceeded maximum allowed payload size ({limit} bytes).")


def lost_extension(request_id: str, error_type: str, detail: str) -> FunctionFault:
    """An extension ended, said that it failed, or could not be started: ``Extension.Crash`` and its like."""
    return FunctionFault(error_type, f"RequestId: {request_id} Error: {detail}")


def broke_protocol(request_id: str, detail: str) -> FunctionFault:
    """The runtime, or function code posing as it, said something that the conversation does not allow. AWS has no text for this."""
    return FunctionFault("Runtime.Unknown", f"RequestId: {request_id} Error: Runtime broke the invocation protocol: {detail}")

"""``lambent invoke``: one invocation; the answer to stdout and nothing else there."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lambent.cli.api import DEFAULT_ENDPOINT, EndpointOption, JsonOption, client, plain_errors
from lambent.cli.screen import Trouble, is_terminal, remark, say, show_json

_LONGEST = 5_400 + 30  # seconds: the longest timeout that the model knows, and some more


def invoke(
    name: Annotated[str, typer.Argument(help="Name or ARN of the function.")],
    payload: Annotated[str | None, typer.Option(help="The event: JSON, @FILE, or - for stdin.")] = None,
    qualifier: Annotated[str | None, typer.Option(help="Version or alias.")] = None,
    log: Annotated[bool, typer.Option("--log", help="Print the end of the invocation's log to stderr.")] = False,
    event: Annotated[bool, typer.Option("--async", help="Queue the event and return at once.")] = False,
    endpoint: EndpointOption = DEFAULT_ENDPOINT,
    as_json: JsonOption = False,
) -> None:
    """Invoke a function; exits with 1 when the function failed."""
    request: dict[str, Any] = {"FunctionName": name, "InvocationType": "Event" if event else "RequestResponse"}
    if payload is not None:
        request["Payload"] = _payload(payload)
    if qualifier is not None:
        request["Qualifier"] = qualifier
    if (log or as_json) and not event:
        request["LogType"] = "Tail"
    api = client("lambda", endpoint, read_timeout=_LONGEST, attempts=1)
    with plain_errors(endpoint):
        answer = api.invoke(**request)
        body = answer["Payload"].read()
    tail = base64.b64decode(answer.get("LogResult", "")).decode(errors="replace")
    if as_json:
        show_json(_document(answer, body, tail))
    else:
        if log and tail:
            remark(tail.rstrip("\n"))
        _show(body)
    if answer.get("FunctionError"):
        if not as_json:
            remark(f"lambent: {name} failed ({answer['FunctionError']})")
        raise typer.Exit(1)


def _show(body: bytes) -> None:
    """As it is for pipes; a line for people."""
    if is_terminal():
        if body:
            say(body.decode(errors="replace"))
        return
    sys.stdout.buffer.write(body)
    sys.stdout.buffer.flush()


def _payload(text: str) -> bytes:
    if text == "-":
        return sys.stdin.buffer.read()
    if text.startswith("@"):
        try:
            return Path(text[1:]).read_bytes()
        except OSError as error:
            raise Trouble(f"--payload {text}: {error.strerror}") from error
    return text.encode()


def _document(answer: dict[str, Any], body: bytes, tail: str) -> dict[str, Any]:
    try:
        payload: Any = json.loads(body) if body else None
    except ValueError:
        payload = body.decode(errors="replace")
    return {
        "statusCode": answer["StatusCode"],
        "executedVersion": answer.get("ExecutedVersion"),
        "functionError": answer.get("FunctionError"),
        "requestId": answer["ResponseMetadata"]["RequestId"],
        "payload": payload,
        "log": tail,
    }

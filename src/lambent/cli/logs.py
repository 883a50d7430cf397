"""``lambent logs``: what a function printed, through the CloudWatch Logs API, once or as it comes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from lambent.cli.api import DEFAULT_ENDPOINT, EndpointOption, JsonOption, client, plain_errors
from lambent.cli.screen import Trouble, say, show_json, styled
from lambent.clock import Clock, SystemClock

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_POLL = 0.25  # seconds between two looks for new lines
_LATE = 2_000  # ms: how far behind the newest line seen a late one may still appear

Event = dict[str, Any]


def logs(
    name: Annotated[str, typer.Argument(help="Name of the function, or a log group that starts with a slash.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come, until Ctrl-C.")] = False,
    since: Annotated[str, typer.Option(help="How far back: 30s, 10m, 2h, 1d, or a time like 2026-11-21T09:00:00.")] = "1h",
    pattern: Annotated[str | None, typer.Option("--filter", help="Only lines that match this CloudWatch filter pattern.")] = None,
    endpoint: EndpointOption = DEFAULT_ENDPOINT,
    as_json: JsonOption = False,
) -> None:
    """Show a function's log."""
    clock = SystemClock()
    api = client("logs", endpoint)
    group = name if name.startswith("/") else f"/aws/lambda/{_bare(name)}"
    fixed = {"logGroupName": group, **({"filterPattern": pattern} if pattern else {})}

    def fetch(start: int) -> list[Event]:
        try:
            pages = api.get_paginator("filter_log_events").paginate(**fixed, startTime=start)
            return [event for page in pages for event in page["events"]]
        except api.exceptions.ResourceNotFoundException as error:
            if follow:
                return []
            raise Trouble(f"{group} has no log yet: invoke the function first") from error

    start = beginning(since, clock.now())
    with plain_errors(endpoint):
        if follow:
            asyncio.run(watch(fetch, start, clock, lambda event: show_event(event, as_json)))
            return
        found = fetch(start)
    if as_json:
        show_json(found)
        return
    for event in found:
        show_event(event, False)


async def watch(fetch: Callable[[int], list[Event]], start: int, clock: Clock, emit: Callable[[Event], None]) -> None:
    """Emit every event from ``start`` (epoch ms) on, each once, for ever. Events may arrive out of order within ``_LATE``."""
    seen: dict[str, int] = {}
    while True:
        for event in fetch(start):
            if event["eventId"] not in seen:
                seen[event["eventId"]] = event["timestamp"]
                emit(event)
        start = max(start, max(seen.values(), default=0) - _LATE)
        seen = {identity: at for identity, at in seen.items() if at >= start}
        await clock.sleep(_POLL)


def beginning(since: str, now: float) -> int:
    """Epoch milliseconds of ``30s``, ``10m``, ``2h``, ``1d`` ago, or of an ISO 8601 time (UTC unless it says otherwise)."""
    match = re.fullmatch(r"(\d+)([smhdw])", since)
    if match:
        return max(0, int((now - int(match[1]) * _UNITS[match[2]]) * 1000))
    try:
        moment = datetime.fromisoformat(since)
    except ValueError as error:
        raise Trouble(f"--since {since}: expected something like 30s, 10m, 2h, 1d or 2026-11-21T09:00:00") from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _bare(name: str) -> str:
    """``f`` of ``f``, ``f:1``, ``function:f`` or a full ARN."""
    parts = name.split(":")
    return parts[parts.index("function") + 1] if "function" in parts[:-1] else parts[0]


def show_event(event: Event, as_json: bool = False) -> None:
    if as_json:
        say(json.dumps(event))  # a line each: somebody reads them as they come
        return
    at = datetime.fromtimestamp(event["timestamp"] / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    message = event["message"].rstrip("\n").replace("\r", "\n")
    if message.startswith("[ERROR]") or "Task timed out" in message or "Runtime exited" in message:
        styled(f"{at} {message}", "red")
    elif message.startswith(("INIT_START", "START ", "END ", "REPORT ")):
        styled(f"{at} {message}", "dim")
    else:
        say(f"{at} {message}")

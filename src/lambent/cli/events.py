"""``lambent events`` shows what becomes of a function's asynchronous events, and gives dead ones another chance."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from lambent.cli.api import DEFAULT_ENDPOINT, EndpointOption, JsonOption, order, page
from lambent.cli.screen import remark, say, show_json, table


def events(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A function's name or ARN.")],
    redrive: Annotated[bool, typer.Option("--redrive", help="Try dead events again: all, or those of --id.")] = False,
    identity: Annotated[list[str] | None, typer.Option("--id", metavar="ID", help="A dead event's request id; may be repeated.")] = None,
    endpoint: EndpointOption = DEFAULT_ENDPOINT,
    as_json: JsonOption = False,
) -> None:
    """List a function's asynchronous events: queued, running, retrying, delivering, dead."""
    path = f"events/{quote(name, safe='')}"
    if redrive:
        query = urlencode([("id", each) for each in identity or ()])
        moved = order(endpoint, f"{path}?{query}", {"X-Lambent-Redrive": "yes"})["redriven"]
        if as_json:
            show_json({"redriven": moved})
        else:
            say(f"{moved} {'event' if moved == 1 else 'events'} redriven")
        return
    found: dict[str, Any] = page(endpoint, path)
    shown = [each for each in found["events"] if not identity or each["requestId"] in identity]
    if as_json:
        show_json({**found, "events": shown})
        return
    rows = [
        (each["requestId"], each["state"], each["acceptedAt"], each["invocations"], each["nextAt"] or "", each["detail"], each["event"])
        for each in shown
    ]
    table(("REQUEST", "STATE", "SINCE", "TRIES", "NEXT", "DETAIL", "EVENT"), rows, "No events: nothing is on its way.")
    totals = {state: number for state, number in found["counts"].items() if number}
    if sum(totals.values()) > len(found["events"]):
        remark("in all: " + ", ".join(f"{number:,} {state}" for state, number in totals.items()))

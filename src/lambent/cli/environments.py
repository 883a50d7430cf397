"""``lambent ps`` shows the execution environments; ``lambent story`` tells what happened to one of them, and why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote

import typer

from lambent.cli.api import DEFAULT_ENDPOINT, EndpointOption, JsonOption, page
from lambent.cli.screen import duration, show_json, table


def ps(endpoint: EndpointOption = DEFAULT_ENDPOINT, as_json: JsonOption = False) -> None:
    """List the execution environments and their states."""
    found: list[dict[str, Any]] = page(endpoint, "environments")["environments"]
    if as_json:
        show_json(found)
        return
    rows = [
        (
            entry["id"],
            entry["function"].rsplit(":", 1)[-1],
            entry["version"],
            entry["state"],
            duration(entry["sinceSeconds"]),
            entry["invocations"],
            f"{entry['memoryMb']} MB",
        )
        for entry in found
    ]
    table(("ENVIRONMENT", "FUNCTION", "VERSION", "STATE", "SINCE", "INVOCATIONS", "MEMORY"), rows, "No environments: nothing runs.")


def story(
    identity: Annotated[str, typer.Argument(metavar="ID", help="An environment's id (`lambent ps`) or an invocation's request id.")],
    endpoint: EndpointOption = DEFAULT_ENDPOINT,
    as_json: JsonOption = False,
) -> None:
    """Tell what happened to an environment or an invocation, step by step, with causes."""
    told: dict[str, Any] = page(endpoint, f"story/{quote(identity, safe='')}")
    if as_json:
        show_json(told)
        return
    rows = [(_clock_face(step["at"]), step["event"], step["cause"] or "", step["detail"] or "") for step in told["story"]]
    table(("AT", "EVENT", "CAUSE", "DETAIL"), rows, "Nothing has happened to it yet.")


def _clock_face(at: object) -> str:
    """Epoch seconds as ISO 8601 in UTC with milliseconds; anything else as it is."""
    if isinstance(at, int | float):
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return str(at)

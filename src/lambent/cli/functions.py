"""``lambent functions`` lists what is deployed; ``lambent delete`` removes one."""

from __future__ import annotations

from typing import Annotated

import typer

from lambent.cli.api import DEFAULT_ENDPOINT, EndpointOption, JsonOption, client, plain_errors
from lambent.cli.screen import remark, show_json, size, table


def functions(endpoint: EndpointOption = DEFAULT_ENDPOINT, as_json: JsonOption = False) -> None:
    """List the deployed functions."""
    api = client("lambda", endpoint)
    with plain_errors(endpoint):
        found = [entry for page in api.get_paginator("list_functions").paginate() for entry in page["Functions"]]
    if as_json:
        show_json(found)
        return
    rows = [
        (
            entry["FunctionName"],
            entry.get("Runtime", ""),
            entry.get("Handler", ""),
            f"{entry['MemorySize']} MB",
            f"{entry['Timeout']}s",
            size(entry["CodeSize"]),
            entry["LastModified"],
        )
        for entry in found
    ]
    table(("NAME", "RUNTIME", "HANDLER", "MEMORY", "TIMEOUT", "CODE", "MODIFIED"), rows, "No functions yet: lambent deploy FOLDER")


def delete(
    name: Annotated[str, typer.Argument(help="Name or ARN of the function.")],
    endpoint: EndpointOption = DEFAULT_ENDPOINT,
) -> None:
    """Delete a function."""
    api = client("lambda", endpoint)
    with plain_errors(endpoint):
        api.delete_function(FunctionName=name)
    remark(f"Deleted {name}.")

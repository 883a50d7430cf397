"""Which runtime version functions run with: the ARN in ``RuntimeVersionConfig``, and what a function can be held to.

The answer is the runtime's own, an object as ``lambda-core`` has it (``runtimes/runtime_objects.py``), the same that INIT_START prints.
It is written into a function's document when the function changes; where this machine's interpreter has changed since, what runs is
shown, not what is written. A runtime that nobody asked for since the start is not looked for: then the document is believed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lambent.runtimes.runtime_objects import Place, Runtime

RuntimeOf = Callable[[str], Runtime | None]
"""A runtime by its name, if it was found already."""


def current_arn(runtime_of: RuntimeOf, document: Mapping[str, Any]) -> str | None:
    """The version that functions with this configuration run with, if it is known without looking."""
    runtime = runtime_of(document["Runtime"]) if document.get("RuntimeVersionConfig") else None
    version = None if runtime is None else runtime.at()
    if runtime is None or version is None:
        return None
    _, partition, _, region, *_ = document["FunctionArn"].split(":")
    return runtime.version_arn(version, Place(region, partition))


def renewed(runtime_of: RuntimeOf, document: Mapping[str, Any]) -> dict[str, Any]:
    """``document`` with the version that runs."""
    arn = current_arn(runtime_of, document)
    return dict(document) if arn is None else {**document, "RuntimeVersionConfig": {"RuntimeVersionArn": arn}}

"""How an image is started: what its configuration says, with the function's ImageConfig over it (contract 06 §8). Pure.

``EntryPoint``, ``Command`` and ``WorkingDirectory`` replace ENTRYPOINT, CMD and WORKDIR one by one: whoever gives another entry point
keeps the image's CMD as its arguments, unlike with ``docker run``. An empty list or text counts as not given. USER is ignored, as on AWS.

``workdir`` is ``/`` where neither names one. It is kept as given, even where it is not absolute: the platform then answers
``Runtime.InvalidWorkingDir`` to invocations, which is when AWS says so, not while the function is created.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lambent.function_version import ImageRoot
from lambent.images.manifest import ImageConfiguration

_DEFAULT_WORKDIR = "/"


def image_root(digest: str, layers: Sequence[str], image: ImageConfiguration, overrides: Mapping[str, Any]) -> ImageRoot:
    """``digest`` is hex, ``layers`` folders of this host, bottom first; ``overrides`` a function's ImageConfig."""
    entrypoint = tuple(overrides.get("EntryPoint") or image.entrypoint)
    command = tuple(overrides.get("Command") or image.command)
    return ImageRoot(
        digest=digest,
        layers=tuple(layers),
        argv=entrypoint + command,
        workdir=overrides.get("WorkingDirectory") or image.workdir or _DEFAULT_WORKDIR,
        environment=dict(image.environment),
        command=command,
    )


def handler(image: ImageConfiguration, overrides: Mapping[str, Any]) -> str:
    """``_HANDLER``: the first word of CMD, which is the handler in images built on AWS's base images; "" where there is none."""
    command = tuple(overrides.get("Command") or image.command)
    return command[0] if command else ""

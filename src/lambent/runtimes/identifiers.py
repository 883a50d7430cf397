"""The names of managed runtimes, as AWS knows them, and what Lambent makes of each.

Pure: a name goes in, a verdict comes out. Whether this machine has the interpreter is the catalogue's question (``catalogue.py``).
A runtime is *supported* (Lambent runs it), *known* (AWS runs it, Lambent does not yet), *deprecated* (AWS refuses to create or update
functions with it, contract 01 §5.1) or *unknown*. Supported runtimes come in families, which share a finder in the catalogue.
``tests/states/test_runtimes_identifiers.py`` holds the table against the enumeration in the installed botocore, so that a runtime that AWS
adds cannot go unnoticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from lambent.errors import ClientFault, invalid_parameter


class Status(Enum):
    """What ``CreateFunction`` is told about a runtime."""

    SUPPORTED = "supported"
    KNOWN = "known"
    DEPRECATED = "deprecated"
    UNKNOWN = "unknown"


FAMILIES: Mapping[str, tuple[str, ...]] = {
    "python": tuple(f"python3.{minor}" for minor in range(8, 15)),
    "nodejs": tuple(f"nodejs{major}.x" for major in range(16, 27, 2)),
    "java": ("java8.al2", "java8.al2023", "java11", "java11.al2023", "java17", "java17.al2023", "java21", "java25"),
    "ruby": ("ruby3.2", "ruby3.3", "ruby3.4", "ruby4.0"),
    "dotnet": ("dotnet6", "dotnet8", "dotnet10"),
    "provided": ("provided.al2", "provided.al2023"),
}

SUPPORTED = tuple(name for names in FAMILIES.values() for name in names)

KNOWN = ("python3.15", "custom")

DEPRECATED = (
    *("nodejs", "nodejs4.3", "nodejs4.3-edge", "nodejs6.10", "nodejs8.10", "nodejs10.x", "nodejs12.x", "nodejs14.x"),
    *("python2.7", "python3.6", "python3.7"),
    *("java8", "ruby2.5", "ruby2.7", "go1.x", "provided"),
    *("dotnetcore1.0", "dotnetcore2.0", "dotnetcore2.1", "dotnetcore3.1"),
)

_FAMILY = {name: family for family, names in FAMILIES.items() for name in names}

_STATUS = {
    **dict.fromkeys(SUPPORTED, Status.SUPPORTED),
    **dict.fromkeys(KNOWN, Status.KNOWN),
    **dict.fromkeys(DEPRECATED, Status.DEPRECATED),
}


def family(runtime: str) -> str | None:
    """The family of a supported name: "nodejs" of "nodejs22.x"."""
    return _FAMILY.get(runtime) if runtime in SUPPORTED else None


def status(runtime: str) -> Status:
    """The verdict on a name; any text is allowed."""
    return _STATUS.get(runtime, Status.UNKNOWN)


def refusal(runtime: str) -> ClientFault | None:
    """Why a function with ``runtime`` may not be created, in AWS's words where AWS has any; ``None`` if it may."""
    match status(runtime):
        case Status.SUPPORTED:
            return None
        case Status.KNOWN:
            return invalid_parameter(
                f"Lambent does not run {runtime} functions yet. It runs {_enumeration()}; docs/parity.md lists what is missing."
            )
        case Status.DEPRECATED:
            return invalid_parameter(
                f"The runtime parameter of {runtime} is no longer supported for creating or updating AWS Lambda functions. "
                "We recommend you use a supported runtime while creating or updating functions."
            )
        case Status.UNKNOWN:
            names = ", ".join((*SUPPORTED, *KNOWN))
            return invalid_parameter(
                f"Value {runtime} at 'runtime' failed to satisfy constraint: "
                f"Member must satisfy enum value set: [{names}] or be a valid ARN"
            )


def _enumeration() -> str:
    """The supported names for a sentence, a family at a time."""
    return "; ".join(", ".join(names) for names in FAMILIES.values())

"""LoggingConfig: what a function may say of its logs, and what that means for its environments (contract 01 §3.2, 03 §8).

The format is Text or JSON. Only JSON has levels, one for what the function logs and one for the platform's own lines; both are INFO unless
given, and they vanish when the format goes back to Text. An update is merged member by member, unlike every other nested member.
"""

from __future__ import annotations

from collections.abc import Mapping

from lambent.errors import invalid_parameter

LEVELS = ("ApplicationLogLevel", "SystemLogLevel")

Config = Mapping[str, str]


def default_logging(function_name: str) -> dict[str, str]:
    """What a function has that says nothing."""
    return {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{function_name}"}


def merge_logging(before: Config, given: Config) -> dict[str, str]:
    """``before`` with the given members. LoggingConfig is merged per member (contract 01 §6, recorded)."""
    merged = {**before, **{name: value for name, value in given.items() if value is not None}}
    for level in LEVELS:
        if merged["LogFormat"] == "JSON":
            merged.setdefault(level, "INFO")
        else:
            merged.pop(level, None)
    return merged


def check_logging(before: Config, given: Config | None) -> None:
    """Refuse levels without JSON, in AWS's words. ``before`` is what the function has."""
    if given and any(given.get(level) for level in LEVELS) and merge_logging(before, given)["LogFormat"] != "JSON":
        raise invalid_parameter(
            'LogLevel is not supported when LogFormat is set to "Text". '
            'Remove LogLevel from your request or change the LogFormat to "JSON" and try again.'
        )

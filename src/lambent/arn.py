"""Function names, qualifiers and ARNs, in every form that AWS accepts (contract 01 §2).

A function may be addressed by name, by partial ARN (``123456789012:function:name``, ``function:name``) or by full ARN, each with or
without a qualifier. ``parse_function`` is the only reader of those forms and ``FunctionArn`` the only writer. Partition, Region and
account come from the caller where the form leaves them out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

LATEST = "$LATEST"
LATEST_PUBLISHED = "$LATEST.PUBLISHED"

_NAME = r"[a-zA-Z0-9-_]+"
_QUALIFIER = r"\$LATEST(?:\.PUBLISHED)?|[a-zA-Z0-9-_]+"
_FORMS = re.compile(
    rf"(?:(?:arn:(?P<partition>aws[a-zA-Z-]*):lambda:(?P<region>[a-z0-9-]+):)?(?P<account>\d{{12}}):)?"
    rf"(?P<word>function:)?(?P<name>{_NAME})(?::(?P<qualifier>{_QUALIFIER}))?"
)
_NAMELESS = re.compile(r"arn:aws[a-zA-Z-]*:lambda:[a-z0-9-]+:\d{12}:function")


@dataclass(frozen=True, slots=True)
class FunctionArn:
    """One function, or with ``qualifier`` one version or alias of it. ``str()`` gives the full ARN."""

    region: str
    account: str
    name: str
    qualifier: str | None = None
    partition: str = "aws"

    def __str__(self) -> str:
        base = f"arn:{self.partition}:lambda:{self.region}:{self.account}:function:{self.name}"
        return base if self.qualifier is None else f"{base}:{self.qualifier}"

    @property
    def unqualified(self) -> FunctionArn:
        return self if self.qualifier is None else replace(self, qualifier=None)

    def qualified(self, qualifier: str) -> FunctionArn:
        return replace(self, qualifier=qualifier)


@lru_cache(maxsize=4_096)
def parse_function(text: str, region: str, account: str) -> FunctionArn | None:
    """Read any accepted form; ``None`` where the text is none of them.

    ``arn:…:<account>:function`` with nothing after it is a function that is named ``function`` (recorded on AWS).
    """
    if _NAMELESS.fullmatch(text):
        parts = text.split(":")
        return FunctionArn(parts[3], parts[4], "function", None, parts[1])
    match = _FORMS.fullmatch(text)
    if match is None or (match["account"] and not match["word"]):
        return None
    return FunctionArn(
        match["region"] or region,
        match["account"] or account,
        match["name"],
        match["qualifier"],
        match["partition"] or "aws",
    )


_DIRECTIONS = {"north": "n", "south": "s", "east": "e", "west": "w", "central": "c", "gov": "g", "iso": "i", "isob": "ib"}


def zone_id(region: str) -> str:
    """The id of the first availability zone of a Region: ``use1-az1`` for ``us-east-1``, ``apse2-az1`` for ``ap-southeast-2``."""
    area, *middle, number = region.split("-") if region.count("-") >= 2 else (region, "")
    words = re.findall("north|south|east|west|central|gov|isob|iso", "-".join(middle))
    return f"{area}{''.join(_DIRECTIONS[word] for word in words)}{number}-az1"

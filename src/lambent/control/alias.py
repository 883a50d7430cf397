"""An alias as a value: a name that points at a version, or at two, with the share of invocations that the second gets (contract 01 §4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lambent.arn import FunctionArn


@dataclass(frozen=True, slots=True)
class Alias:
    """``weights`` has at most one entry: an additional version and its share, 0.0 to 1.0."""

    name: str
    version: str
    description: str
    revision_id: str
    weights: Mapping[str, float] = field(default_factory=dict)

    def points_at(self, version: str) -> bool:
        return version == self.version or version in self.weights

    def show(self, function: FunctionArn) -> dict[str, Any]:
        """The AliasConfiguration."""
        shown: dict[str, Any] = {
            "AliasArn": str(function.qualified(self.name)),
            "Name": self.name,
            "FunctionVersion": self.version,
            "Description": self.description,
            "RevisionId": self.revision_id,
        }
        if self.weights:
            shown["RoutingConfig"] = {"AdditionalVersionWeights": dict(self.weights)}
        return shown

    def to_document(self) -> dict[str, Any]:
        return asdict(self)

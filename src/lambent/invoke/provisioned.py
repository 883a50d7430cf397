"""Versions that environments are kept of: what was asked for stays true while versions come, change and go.

The pools do the keeping; here stands for how many of which version, so that a version that becomes Active, or whose environments are built
from something else now, gets them without anybody asking again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from lambent.arn import FunctionArn
from lambent.errors import ClientFault
from lambent.function_version import FunctionVersion
from lambent.invoke.provisioned_state import Kept
from lambent.invoke.registry import Change, Registry

NOTHING = Kept(0, False, 0)


class Keeper(Protocol):
    """The pools."""

    def keep(self, version: FunctionVersion, count: int) -> None: ...

    def kept(self, version: FunctionVersion) -> Kept: ...


class Provisioned:
    """Make it after the pools, which must hear of changes first. Nothing is started before ``begin``."""

    def __init__(self, registry: Registry, pools: Keeper) -> None:
        self._registry = registry
        self._pools = pools
        self._wanted: dict[FunctionArn, dict[str, int]] = {}
        self._begun = False
        registry.listen(self._on_change)

    def begin(self) -> None:
        """Start what was asked for so far, and from now on at once."""
        self._begun = True
        for arn, wanted in self._wanted.items():
            for version, count in wanted.items():
                self._keep(arn, version, count)

    def want(self, arn: FunctionArn, wanted: Mapping[str, int]) -> None:
        """From now on keep so many environments of each version of the function, and of others none."""
        before = self._wanted.pop(arn, {})
        if wanted:
            self._wanted[arn] = dict(wanted)
        for version in before:
            if version not in wanted:
                self._keep(arn, version, 0)
        for version, count in wanted.items():
            if before.get(version) != count:
                self._keep(arn, version, count)

    def again(self, arn: FunctionArn, version: str) -> None:
        """Forget failures, and try at once."""
        self._keep(arn, version, self._wanted.get(arn, {}).get(version, 0))

    def kept(self, arn: FunctionArn, version: str) -> Kept:
        found = self._find(arn, version)
        return NOTHING if found is None else self._pools.kept(found)

    def _keep(self, arn: FunctionArn, version: str, count: int) -> None:
        found = self._find(arn, version) if self._begun else None
        if found is not None:
            self._pools.keep(found, count)

    def _find(self, arn: FunctionArn, version: str) -> FunctionVersion | None:
        try:
            return self._registry.resolve(arn.qualified(version))
        except ClientFault:
            return None  # not there, or not yet able to run

    def _on_change(self, change: Change) -> None:
        before, after = change.before, change.after
        if after is None or not self._begun or (count := self._wanted.get(after.arn, {}).get(after.version)) is None:
            return
        if before is None or (before.environment_key, before.state) != (after.environment_key, after.state):
            self._keep(after.arn, after.version, count)

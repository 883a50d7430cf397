"""The function versions that this node can run, in memory: where a name and a qualifier become an immutable value.

The control plane writes here after its own commit; the front door reads here and nowhere else, so that a warm invocation touches no
database. A change replaces a value as a whole, and listeners hear of it at once, in the same call: pools drain by comparing
environment keys.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from lambent.arn import LATEST, LATEST_PUBLISHED, FunctionArn
from lambent.errors import ClientFault, NotImplementedFault, conflict, not_found
from lambent.function_version import DURABLE, INACTIVE, UNPUBLISHED, FunctionVersion


@dataclass(frozen=True, slots=True)
class Change:
    """What a listener hears: ``before`` is ``None`` for a new version, ``after`` for a removed one."""

    before: FunctionVersion | None
    after: FunctionVersion | None


@dataclass(frozen=True, slots=True)
class Pointer:
    """An alias: a version, and another that gets ``share`` of the invocations."""

    version: str
    other: str = ""
    share: float = 0.0

    def draw(self) -> str:
        return self.other if self.share and random.random() < self.share else self.version


Listener = Callable[[Change], None]


class Registry:
    """Versions by function and qualifier."""

    def __init__(self) -> None:
        self._functions: dict[tuple[str, str, str], dict[str, FunctionVersion]] = {}
        self._aliases: dict[tuple[str, str, str], dict[str, Pointer]] = {}
        self._listeners: list[Listener] = []
        self.inactive: Callable[[FunctionVersion], ClientFault | None] = lambda version: None
        """Called with a version that is to be invoked and rests; gives what the invocation is told, if not the common text."""

    def listen(self, listener: Listener) -> None:
        """Call ``listener`` after every change."""
        self._listeners.append(listener)

    def put(self, version: FunctionVersion) -> None:
        """Add a version or replace it. A value without an ``environment_key`` gets its own."""
        if not version.environment_key:
            version = replace(version, environment_key=version.keyed())
        versions = self._functions.setdefault(_key(version.arn), {})
        before = versions.get(version.version)
        versions[version.version] = version
        self._tell(Change(before, version))

    def remove(self, arn: FunctionArn, version: str | None = None) -> None:
        """Forget one version, or the whole function. What is not there is no error."""
        versions = self._functions.get(_key(arn), {})
        gone = list(versions) if version is None else [version] if version in versions else []
        changes = [Change(versions.pop(name), None) for name in gone]
        if not versions:
            self._functions.pop(_key(arn), None)
        if version is None:
            self._aliases.pop(_key(arn), None)
        for change in changes:
            self._tell(change)

    def point(self, arn: FunctionArn, name: str, version: str, weights: Mapping[str, float]) -> None:
        """Let the alias ``name`` mean ``version``, but for the share of invocations that ``weights`` gives to another."""
        other, share = next(iter(weights.items()), ("", 0.0))
        self._aliases.setdefault(_key(arn), {})[name] = Pointer(version, other, share)

    def unpoint(self, arn: FunctionArn, name: str) -> None:
        """Forget an alias. What is not there is no error."""
        self._aliases.get(_key(arn), {}).pop(name, None)

    def resolve(self, target: FunctionArn) -> FunctionVersion:
        """The version that ``target`` means; no qualifier means ``$LATEST``. An alias with two versions draws anew each time.

        Raises ``ClientFault``: 404 with Invoke's own text (contract 01 §2), 409 while the version cannot run (contract 01 §3).
        """
        versions = self._functions.get((target.account, target.region, target.name))
        qualifier = target.qualifier or LATEST
        found = versions.get(qualifier) if versions is not None else None
        if found is None and versions is not None:
            pointer = self._aliases.get((target.account, target.region, target.name), {}).get(qualifier)
            found = versions.get(pointer.draw()) if pointer is not None else None
        if found is None:
            raise not_found(f"Function not found: {target.qualified(qualifier)}")
        return found if found.state == "Active" else self._instead(target, found)

    def _instead(self, target: FunctionArn, found: FunctionVersion) -> FunctionVersion:
        """What runs for ``found``, which does not. Without a qualifier a function on a capacity provider means what it published last."""
        if found.state == UNPUBLISHED and target.qualifier is None:
            if LATEST_PUBLISHED not in self._functions[_key(target)]:
                raise ClientFault("NoPublishedVersionException", 400, "The function has no published versions available.")
            return self.resolve(target.qualified(LATEST_PUBLISHED))
        if found.state == INACTIVE and (refusal := self.inactive(found)) is not None:
            raise refusal
        if found.state == DURABLE:
            raise NotImplementedFault("lambda", "Invoke of functions with DurableConfig")
        raise conflict(f"The operation cannot be performed at this time. The function is currently in the following state: {found.state}")

    def __iter__(self) -> Iterator[FunctionVersion]:
        for versions in self._functions.values():
            yield from versions.values()

    def _tell(self, change: Change) -> None:
        for listener in self._listeners:
            listener(change)


def _key(arn: FunctionArn) -> tuple[str, str, str]:
    return (arn.account, arn.region, arn.name)

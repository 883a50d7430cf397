"""Runtimes as the objects that ``lambda-core`` has of them: a runtime, its versions, its aliases (contract 06 §16). Pure.

    Runtime "python3.12"
      ├── Version "3.12.v4"     one build: an interpreter with a runtime client, or, of a customer, an image; immutable, named by its hash
      └── Alias   "current"     points at the version that functions run with, unless they are held to one

AWS's managed runtimes and those of customers differ in two things only, who owns them and how they are named:

    managed     arn:aws:lambda:REGION::runtime:HASH                               of a version; nothing else has an ARN
    customer's  arn:aws:lambda:REGION:ACCOUNT:runtime/NAME[/(version|alias)/X]

so what asks "which version does this function run with" asks a ``Runtime``, whoever's it is: ``RuntimeVersionConfig``, the INIT_START line
and PutRuntimeManagementConfig all have their answer from here. ``documents`` of customers' objects are those of the model's answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

CURRENT = "current"  # the alias of managed runtimes: what UpdateRuntimeOn Auto follows
ACTIVE = "ACTIVE"


@dataclass(frozen=True, slots=True)
class Place:
    """Where ARNs are of."""

    region: str
    partition: str = "aws"


@dataclass(frozen=True, slots=True)
class Compatibility:
    """What a version can be used for."""

    architectures: tuple[str, ...] = ()
    managed_instances: bool = True

    def document(self) -> dict[str, Any]:
        return {
            "IntegrationModels": ["RuntimeAPI"],
            "Architectures": list(self.architectures),
            "ManagedInstances": "Supported" if self.managed_instances else "NotSupported",
        }


@dataclass(frozen=True, slots=True)
class Version:
    """One build. ``identity`` is 64 hex digits over all that it is made of; ``created`` seconds since the epoch."""

    name: str
    identity: str
    text: str = ""  # what INIT_START prints of it
    resolved_uri: str = ""
    compatibility: Compatibility = Compatibility()
    state: str = ACTIVE
    created: float = 0.0


@dataclass(frozen=True, slots=True)
class Alias:
    """A name that points at one version, by the version's name."""

    name: str
    version: str
    state: str = ACTIVE
    created: float = 0.0
    modified: float = 0.0


@dataclass(frozen=True, slots=True)
class Runtime:
    """``owner`` is the account of a customer's runtime, empty for a managed one. Versions and aliases by name."""

    name: str
    owner: str = ""
    description: str = ""
    state: str = ACTIVE
    created: float = 0.0
    versions: Mapping[str, Version] = field(default_factory=dict)
    aliases: Mapping[str, Alias] = field(default_factory=dict)

    def with_version(self, version: Version) -> Runtime:
        """With one more version. A name stands for one build for ever: ``ValueError`` for another build under a name that is taken."""
        held = self.versions.get(version.name)
        if held is not None and held.identity != version.identity:
            raise ValueError(f"{self.name} has another version {version.name}")
        return self if held is not None else replace(self, versions={**self.versions, version.name: version})

    def pointing(self, alias: str, version: str, now: float = 0.0) -> Runtime:
        """With ``alias`` at the version of that name. ``KeyError`` where there is none."""
        target = self.versions[version]
        held = self.aliases.get(alias)
        created = now if held is None else held.created
        return replace(self, aliases={**self.aliases, alias: Alias(alias, target.name, created=created, modified=now)})

    def at(self, alias: str = CURRENT) -> Version | None:
        """The version that ``alias`` points at."""
        held = self.aliases.get(alias)
        return None if held is None else self.versions.get(held.version)

    # -- names ------------------------------------------------------------------------------------------------------------------

    def arn(self, place: Place) -> str:
        """Of a customer's runtime; a managed one has none: ``""``."""
        return f"arn:{place.partition}:lambda:{place.region}:{self.owner}:runtime/{self.name}" if self.owner else ""

    def version_arn(self, version: Version, place: Place) -> str:
        if self.owner:
            return f"{self.arn(place)}/version/{version.name}"
        return f"arn:{place.partition}:lambda:{place.region}::runtime:{version.identity}"

    def alias_arn(self, alias: Alias, place: Place) -> str:
        return f"{self.arn(place)}/alias/{alias.name}" if self.owner else ""

    def find(self, arn: str, place: Place) -> Version | None:
        """The version that ``arn`` names: by itself, or by an alias that points at it."""
        for version in self.versions.values():
            if self.version_arn(version, place) == arn:
                return version
        for alias in self.aliases.values():
            if self.owner and self.alias_arn(alias, place) == arn:
                return self.versions.get(alias.version)
        return None

    # -- documents of customers' objects, members as in the model ----------------------------------------------------------------

    def document(self, place: Place) -> dict[str, Any]:
        """As GetRuntime answers."""
        shown = {"Arn": self.arn(place), "Name": self.name, "State": self.state, **_times(self.created, self.created)}
        return {**shown, "Description": self.description} if self.description else shown

    def version_document(self, version: Version, place: Place) -> dict[str, Any]:
        """As GetRuntimeVersion answers."""
        return {
            "Name": version.name,
            "Arn": self.version_arn(version, place),
            "ResolvedUri": version.resolved_uri,
            "State": version.state,
            "Compatibility": version.compatibility.document(),
            **_times(version.created, version.created),
        }

    def alias_document(self, alias: Alias, place: Place) -> dict[str, Any]:
        """As GetRuntimeAlias answers."""
        version = self.versions[alias.version]
        return {
            "Name": alias.name,
            "Arn": self.alias_arn(alias, place),
            "RuntimeVersion": version.name,
            "RuntimeVersionArn": self.version_arn(version, place),
            "State": alias.state,
            "Compatibility": version.compatibility.document(),
            **_times(alias.created, alias.modified),
        }


def managed(runtime: str, version: Version) -> Runtime:
    """A managed runtime with the one version that this machine has."""
    return Runtime(runtime).with_version(version).pointing(CURRENT, version.name)


def _times(created: float, modified: float) -> dict[str, str]:
    return {"Created": _timestamp(created), "LastModified": _timestamp(modified)}


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""All layers, in memory and in the store at once.

    store, kind "layer"           <account>/<region>/<name>               {"next": the version number that comes next}
    store, kind "layer-version"   <account>/<region>/<name>/<12 digits>   one published version

The counter outlives every version, so that a number is never given twice, whatever is deleted (contract 06 §7). A new version and the
counter's step are one commit with compare-and-set: two publishers at once get two numbers. What a version says never changes after that,
but for its policy; writers of policies take turns by the revision of the document.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lambent.control.code_source import Reference
from lambent.errors import PlatformFault
from lambent.store.contract import ABSENT, Delete, Put, Record, Store, StoreConflict

LAYER, VERSION = "layer", "layer-version"
ATTEMPTS = 100

_ARN = re.compile(
    r"arn:(?P<partition>aws[a-zA-Z-]*):lambda:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):layer:(?P<name>[a-zA-Z0-9-_]+)(?::(?P<version>\d{1,18}))?"
)
_NAME = re.compile(r"[a-zA-Z0-9-_]+")


@dataclass(frozen=True, slots=True)
class LayerName:
    """One layer, all its versions. ``str()`` gives its ARN."""

    region: str
    account: str
    name: str
    partition: str = "aws"

    def __str__(self) -> str:
        return f"arn:{self.partition}:lambda:{self.region}:{self.account}:layer:{self.name}"

    @property
    def key(self) -> str:
        return f"{self.account}/{self.region}/{self.name}"


def parse_layer(text: str, region: str, account: str) -> tuple[LayerName, int | None] | None:
    """Read a layer's name, its ARN, or a version's ARN; ``None`` where it is none of them. A bare name is of ``region`` and ``account``."""
    if _NAME.fullmatch(text):
        return LayerName(region, account, text), None
    match = _ARN.fullmatch(text)
    if match is None:
        return None
    version = match["version"]
    return LayerName(match["region"], match["account"], match["name"], match["partition"]), int(version) if version else None


@dataclass(frozen=True, slots=True)
class LayerVersion:
    """One published version. ``size`` is that of the zip, ``unzipped`` that of its files. ``created`` is in epoch seconds.

    ``runtimes`` and ``architectures`` are ``None`` where the publisher said nothing of them.
    ``reference`` is where the zip is if it stays in a bucket.
    ``statements`` are those of its policy by their Sid, as AWS shows them; ``policy_revision`` is ``""`` before the first.
    """

    layer: LayerName
    version: int
    sha256: str
    size: int
    unzipped: int
    created: float
    description: str = ""
    license: str | None = None
    runtimes: tuple[str, ...] | None = None
    architectures: tuple[str, ...] | None = None
    policy_revision: str = ""
    statements: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reference: Reference | None = None

    @property
    def kept(self) -> int:
        """Bytes of its files, if the zip is kept here."""
        return self.unzipped if self.reference is None else 0

    @property
    def arn(self) -> str:
        return f"{self.layer}:{self.version}"

    @property
    def key(self) -> str:
        return f"{self.layer.key}/{self.version:012d}"

    def to_document(self) -> dict[str, Any]:
        layer = self.layer
        document = {
            "layer": [layer.region, layer.account, layer.name, layer.partition],
            "version": self.version,
            "sha256": self.sha256,
            "size": self.size,
            "unzipped": self.unzipped,
            "created": self.created,
            "description": self.description,
            "license": self.license,
            "runtimes": None if self.runtimes is None else list(self.runtimes),
            "architectures": None if self.architectures is None else list(self.architectures),
            "policy_revision": self.policy_revision,
            "statements": {sid: dict(statement) for sid, statement in self.statements.items()},
        }
        return document if self.reference is None else {**document, "reference": self.reference.to_document()}

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> LayerVersion:
        given = dict(document)
        given["layer"] = LayerName(*given["layer"])
        for name in ("runtimes", "architectures"):
            given[name] = None if given[name] is None else tuple(given[name])
        if "reference" in given:
            given["reference"] = Reference.from_document(given["reference"])
        return LayerVersion(**given)


@dataclass(frozen=True, slots=True)
class ResolvedLayers:
    """The layers of a function as they were when it was configured: what is shown, and what they consist of, bottom first.

    ``references`` has where each one is, or ``None`` for one that is kept here.
    """

    shown: tuple[Mapping[str, Any], ...] = ()
    hashes: tuple[str, ...] = ()
    unzipped: int = 0
    references: tuple[Reference | None, ...] = ()

    def to_document(self) -> dict[str, Any]:
        """All but what is shown."""
        document: dict[str, Any] = {"hashes": list(self.hashes), "unzipped": self.unzipped}
        if any(self.references):
            document["references"] = [None if each is None else each.to_document() for each in self.references]
        return document

    @staticmethod
    def from_document(shown: Sequence[Mapping[str, Any]], document: Mapping[str, Any]) -> ResolvedLayers:
        hashes = tuple(document["hashes"])
        given = document.get("references") or [None] * len(hashes)
        references = tuple(None if each is None else Reference.from_document(each) for each in given)
        return ResolvedLayers(tuple(shown), hashes, document["unzipped"], references)


@dataclass(slots=True)
class _Layer:
    """The versions that exist, by number in ascending order, with the revisions of their documents."""

    name: LayerName
    versions: dict[int, tuple[LayerVersion, int]] = field(default_factory=dict)


class LayerTable:
    """``load`` first. ``removed`` is told the SHA-256 of every version that goes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._layers: dict[str, _Layer] = {}
        self._hashes: Counter[str] = Counter()
        self._copies: Counter[str] = Counter()  # of these, zips that are kept here
        self._unzipped: Counter[tuple[str, str]] = Counter()
        self.removed: Callable[[str], None] = lambda sha256: None

    async def load(self) -> None:
        """Read every version from the store."""
        after = ""
        while page := await self._store.scan(VERSION, "", after):
            for record in page:
                self._show(*_read(record))
            after = page[-1].key

    def get(self, layer: LayerName, version: int) -> LayerVersion | None:
        held = self._layers.get(layer.key)
        found = None if held is None else held.versions.get(version)
        return None if found is None else found[0]

    def versions(self, layer: LayerName) -> list[LayerVersion]:
        """Newest first; empty where there is no such layer."""
        held = self._layers.get(layer.key)
        return [] if held is None else [version for version, _ in reversed(held.versions.values())]

    def layers(self, account: str, region: str) -> Iterator[LayerName]:
        """Every layer of an account and Region that has a version, in no order."""
        return (held.name for held in self._layers.values() if held.name.account == account and held.name.region == region)

    def unzipped(self, account: str, region: str) -> int:
        """Bytes of all versions of an account and Region that are kept here."""
        return self._unzipped[account, region]

    def uses(self, sha256: str) -> bool:
        """Whether any version consists of this zip."""
        return self._hashes[sha256] > 0

    def copies(self, sha256: str) -> bool:
        """Whether any version needs this zip to be kept here."""
        return self._copies[sha256] > 0

    def references(self, sha256: str) -> list[Reference]:
        """The objects with this content that versions refer to."""
        versions = (version for held in self._layers.values() for version, _ in held.versions.values())
        return [each.reference for each in versions if each.sha256 == sha256 and each.reference is not None]

    async def publish(self, make: Callable[[int], LayerVersion], layer: LayerName) -> LayerVersion:
        """Store what ``make(number)`` gives under the next number, durably."""
        for _ in range(ATTEMPTS):
            counter = await self._store.get(LAYER, layer.key)
            number = 1 if counter is None else int(counter.value["next"])
            version = make(number)
            try:
                _, revision = await self._store.commit(
                    Put(LAYER, layer.key, {"next": number + 1}, ABSENT if counter is None else counter.revision),
                    Put(VERSION, version.key, version.to_document(), ABSENT),
                )
            except StoreConflict:
                continue
            self._show(version, revision)
            return version
        raise PlatformFault(f"layer {layer}: {ATTEMPTS} commits in a row met a newer revision")

    async def change(
        self, layer: LayerName, number: int, mutate: Callable[[LayerVersion | None], LayerVersion | None]
    ) -> LayerVersion | None:
        """Replace one version by what ``mutate`` makes of it (``None``: delete it), durably. ``mutate`` may refuse by raising."""
        for _ in range(ATTEMPTS):
            held = self._layers.get(layer.key)
            before, revision = (None, ABSENT) if held is None else held.versions.get(number, (None, ABSENT))
            after = mutate(before)
            if after is before or before is None:
                return after
            try:
                if after is None:
                    await self._store.commit(Delete(VERSION, before.key, revision))
                    self._hide(before)
                else:
                    [revision] = await self._store.commit(Put(VERSION, before.key, after.to_document(), revision))
                    self._show(after, revision)
            except StoreConflict:
                await self._reread(before)
                continue
            return after
        raise PlatformFault(f"layer version {layer}:{number}: {ATTEMPTS} commits in a row met a newer revision")

    async def _reread(self, version: LayerVersion) -> None:
        found = await self._store.get(VERSION, version.key)
        if found is None:
            self._hide(version)
        else:
            self._show(*_read(found))

    def _show(self, version: LayerVersion, revision: int) -> None:
        layer = version.layer
        held = self._layers.setdefault(layer.key, _Layer(layer))
        if version.version not in held.versions:
            self._hashes[version.sha256] += 1
            self._copies[version.sha256] += version.reference is None
            self._unzipped[layer.account, layer.region] += version.kept
            held.versions[version.version] = (version, revision)
            if len(held.versions) > 1 and next(reversed(held.versions)) != max(held.versions):
                held.versions = dict(sorted(held.versions.items()))
        elif held.versions[version.version][1] < revision:
            held.versions[version.version] = (version, revision)

    def _hide(self, version: LayerVersion) -> None:
        layer = version.layer
        held = self._layers.get(layer.key)
        if held is None or held.versions.pop(version.version, None) is None:
            return
        if not held.versions:
            del self._layers[layer.key]
        self._unzipped[layer.account, layer.region] -= version.kept
        self._hashes[version.sha256] -= 1
        self._copies[version.sha256] -= version.reference is None
        if not self._hashes[version.sha256]:
            del self._hashes[version.sha256], self._copies[version.sha256]
        self.removed(version.sha256)


def with_statement(version: LayerVersion, sid: str, statement: Mapping[str, Any] | None, revision: str) -> LayerVersion:
    """``version`` with one statement more, or with ``None`` without the one of that Sid."""
    statements = {name: value for name, value in version.statements.items() if name != sid}
    if statement is not None:
        statements[sid] = statement
    return replace(version, statements=statements, policy_revision=revision)


def _read(record: Record) -> tuple[LayerVersion, int]:
    return LayerVersion.from_document(record.value), record.revision

"""AWS's FunctionConfiguration documents: made with their defaults, merged on an update, shown, and compiled for the data plane.

Pure functions over plain dictionaries in the shape of the wire (contract 01 §3.2). A document here holds what a caller configured and what
follows from it; State, LastUpdateStatus and RevisionId live beside it in ``FunctionRecord`` and are joined in by ``show``. ``rules``
(``function_rules.py``) has looked at the parameters before they come here. Members
whose names begin with ``_`` are ours and are never shown.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from lambent.arn import LATEST, LATEST_PUBLISHED, FunctionArn
from lambent.control.alias import Alias
from lambent.control.code import Code
from lambent.control.code_source import Reference
from lambent.control.file_systems import FileSystems
from lambent.control.function_kinds import members, on_provider
from lambent.control.function_state import RESTING, FunctionState, Phase
from lambent.control.image_code import is_image, overrides
from lambent.control.layer_merge import merged_key
from lambent.control.layer_table import ResolvedLayers
from lambent.control.logging_config import default_logging, merge_logging
from lambent.function_version import DURABLE, MANAGED, ON_DEMAND, UNPUBLISHED, FunctionVersion, ImageRoot

Configuration = dict[str, Any]
Images = Callable[[Configuration], tuple[ImageRoot, str] | None]

_COPIED = ("Runtime", "Role", "Handler", "Description", "Timeout", "MemorySize")
_UNLISTED = frozenset(
    {
        "State",
        "StateReason",
        "StateReasonCode",
        "LastUpdateStatus",
        "LastUpdateStatusReason",
        "LastUpdateStatusReasonCode",
        "RuntimeVersionConfig",
    }
)


_PLACES = {LATEST_PUBLISHED: 1 << 62}


@dataclass(frozen=True, slots=True)
class FunctionRecord:
    """A function as the store keeps it.

    ``configuration`` is what is shown; ``serving`` is the last one that was prepared successfully, which is what runs, or ``None``
    before the first. ``unzipped`` is the size of the shown code in bytes. ``attached`` holds what other families keep with a function, a
    version or an alias of it: policies, URLs and the like (``attachments.py``).
    """

    arn: FunctionArn
    configuration: Configuration
    state: FunctionState
    revision_id: str
    serving: Configuration | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    unzipped: int = 0
    attached: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    versions: Mapping[str, FunctionRecord] = field(default_factory=dict)  # by number or $LATEST.PUBLISHED; with documents of their own
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    last_version: int = 0  # the greatest number that was ever given
    published: str = ""  # what was published last (versions.fingerprint)

    def codes(self) -> set[str]:
        """SHA-256 (hex) of all code that this function may still need."""
        needed: set[str] = set()
        for document in (self.configuration, self.serving):
            if document is not None:
                hashes = layers_of(document).hashes
                needed.update((code_of(document), *hashes))
                if hashes:
                    needed.add(merged_key(hashes))
        for version in self.versions.values():
            needed |= version.codes()
        return needed

    def copies(self) -> set[str]:
        """SHA-256 (hex) of the zips among them that are kept here, not in a bucket."""
        needed: set[str] = set()
        for document in (self.configuration, self.serving):
            if document is not None:
                layers = layers_of(document)
                needed.update(sha256 for sha256, each in zip(layers.hashes, layers.references, strict=True) if each is None)
                if "_reference" not in document:
                    needed.add(code_of(document))
        for version in self.versions.values():
            needed |= version.copies()
        return needed

    @property
    def kept(self) -> int:
        """Bytes of the shown code, unzipped, if it is kept here."""
        return 0 if "_reference" in self.configuration else self.unzipped

    @property
    def stored(self) -> int:
        """Bytes of code that are kept for it, unzipped, all versions counted as AWS does."""
        return self.kept + sum(version.kept for version in self.versions.values())

    def at(self, qualifier: str | None) -> FunctionRecord | None:
        """``$LATEST``, a version, or the version that an alias names first; ``None`` where there is none such."""
        alias = self.aliases.get(qualifier or LATEST)
        version = alias.version if alias is not None else qualifier or LATEST
        return self if version == LATEST else self.versions.get(version)

    def listed(self, after: int = -1) -> list[tuple[int, str, FunctionRecord]]:
        """Versions in the order of lists, each with a number that grows: ``$LATEST``, the numbers, ``$LATEST.PUBLISHED``."""
        numbered = [(_PLACES.get(name) or int(name), name, version) for name, version in self.versions.items()]
        return sorted((each for each in [(0, LATEST, self), *numbered] if each[0] > after), key=lambda each: each[0])

    def to_document(self) -> dict[str, Any]:
        return {
            "arn": [self.arn.region, self.arn.account, self.arn.name, self.arn.partition],
            "configuration": self.configuration,
            "state": self.state.to_document(),
            "revision_id": self.revision_id,
            "serving": self.serving,
            "tags": dict(self.tags),
            "unzipped": self.unzipped,
            "attached": {family: dict(held) for family, held in self.attached.items()},
            "aliases": [alias.to_document() for alias in self.aliases.values()],
            "last_version": self.last_version,
            "published": self.published,
        }

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> FunctionRecord:
        region, account, name, partition = document["arn"]
        return FunctionRecord(
            arn=FunctionArn(region, account, name, None, partition),
            configuration=document["configuration"],
            state=FunctionState.from_document(document["state"]),
            revision_id=document["revision_id"],
            serving=document["serving"],
            tags=document["tags"],
            unzipped=document["unzipped"],
            attached=document.get("attached", {}),
            aliases={alias["name"]: Alias(**alias) for alias in document.get("aliases", ())},
            last_version=document.get("last_version", 0),
            published=document.get("published", ""),
        )


def build(
    arn: FunctionArn, params: Mapping[str, Any], code: Code, now: float, architecture: str, layers: ResolvedLayers | None = None
) -> Configuration:
    """The document of a new function, with every default that AWS shows. ``architecture`` is that of this machine."""
    document: Configuration = {
        "FunctionName": arn.name,
        "FunctionArn": str(arn),
        "Description": "",
        "Timeout": 3,
        "MemorySize": 128,
        "Version": LATEST,
        "PackageType": params.get("PackageType") or "Zip",
        "Architectures": list(params.get("Architectures") or [architecture]),
        "EphemeralStorage": {"Size": 512},
        "TracingConfig": {"Mode": "PassThrough"},
        "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
        "LoggingConfig": default_logging(arn.name),
    }
    if params.get("TenancyConfig"):
        document["TenancyConfig"] = {"TenantIsolationMode": params["TenancyConfig"]["TenantIsolationMode"]}
    if on_provider(params):  # always JSON (contract 06 §4)
        document["LoggingConfig"] = merge_logging(document["LoggingConfig"], {"LogFormat": "JSON"})
    return merge_code(merge(document, params, now, layers), code, None, now, params["Code"].get("SourceKMSKeyArn"))


def merge(document: Configuration, params: Mapping[str, Any], now: float, layers: ResolvedLayers | None = None) -> Configuration:
    """``document`` with the given configuration members; nested members are replaced whole, LoggingConfig per field.

    ``layers`` are those of ``params``, resolved; ``None`` leaves the function's alone.
    """
    merged = dict(document)
    for name in _COPIED:
        if params.get(name) is not None:
            merged[name] = params[name]
    if params.get("Environment") is not None:
        merged["Environment"] = {"Variables": dict(params["Environment"].get("Variables") or {})}
    if (params.get("EphemeralStorage") or {}).get("Size") is not None:
        merged["EphemeralStorage"] = {"Size": params["EphemeralStorage"]["Size"]}
    if (params.get("TracingConfig") or {}).get("Mode") is not None:
        merged["TracingConfig"] = {"Mode": params["TracingConfig"]["Mode"]}
    if params.get("LoggingConfig") is not None:
        merged["LoggingConfig"] = merge_logging(document["LoggingConfig"], params["LoggingConfig"])
    merged |= members(document, params)
    configs = params.get("FileSystemConfigs")
    _set_or_drop(merged, "FileSystemConfigs", configs, configs)
    if layers is not None:
        _set_or_drop(merged, "Layers", layers.shown, [dict(layer) for layer in layers.shown])
        _set_or_drop(merged, "_layers", layers.hashes, layers.to_document())
    _set_or_drop(merged, "KMSKeyArn", params.get("KMSKeyArn"), params.get("KMSKeyArn"))
    dead_letters = params.get("DeadLetterConfig")
    if dead_letters is not None:
        target = dead_letters.get("TargetArn") or ""
        _set_or_drop(merged, "DeadLetterConfig", target, {"TargetArn": target})
    if params.get("ImageConfig") is not None:
        response = overrides(params["ImageConfig"])
        _set_or_drop(merged, "ImageConfigResponse", response or "", response)
    if not is_image(merged):
        merged["RuntimeVersionConfig"] = {"RuntimeVersionArn": runtime_version_arn(merged["FunctionArn"], merged["Runtime"])}
    merged["LastModified"] = timestamp(now)
    return merged


def merge_code(document: Configuration, code: Code, architectures: list[str] | None, now: float, key: str | None = None) -> Configuration:
    """``document`` with other code; ``key`` is the SourceKMSKeyArn that came with it."""
    merged = {name: value for name, value in document.items() if name not in ("_source_key", "_reference")}
    if key:
        merged["_source_key"] = key
    if code.reference is not None:
        merged["_reference"] = code.reference.to_document()
    merged["CodeSha256"] = code.sha256 if is_image(document) else base64.b64encode(bytes.fromhex(code.sha256)).decode()
    merged["CodeSize"] = code.size
    if code.image_uri:
        merged["_image"] = {"uri": code.image_uri, "resolved": code.resolved_uri}
    if architectures:
        merged["Architectures"] = list(architectures)
    merged["LastModified"] = timestamp(now)
    return merged


def show(record: FunctionRecord, qualifier: str | None = None) -> Configuration:
    """The FunctionConfiguration that a caller sees, who asked with ``qualifier``."""
    document = {name: value for name, value in record.configuration.items() if not name.startswith("_")}
    shown = {**document, **record.state.shown(), "RevisionId": record.revision_id}
    if shown["State"] == "Active":
        shown["State"] = _standing(record)
    if qualifier is not None:
        shown["FunctionArn"] = str(record.arn.qualified(qualifier))
    return shown


def _standing(record: FunctionRecord) -> str:
    """The State of a function or version whose code is ready."""
    document = record.configuration
    if "_deactivated" in document:
        return "Deactivated"
    unpublished = document["Version"] == LATEST and on_provider(document) and not record.versions
    return UNPUBLISHED if unpublished else "Active"


def show_listed(record: FunctionRecord, qualifier: str | None = None) -> Configuration:
    """An item of ListFunctions: without the members that lists omit."""
    return {name: value for name, value in show(record, qualifier).items() if name not in _UNLISTED}


def compile_version(
    record: FunctionRecord, code_root: str, file_systems: FileSystems | None = None, images: Images = lambda document: None
) -> FunctionVersion:
    """What the data plane gets of ``$LATEST``, or of a version's own record: what serves, or, where nothing ever did, what is shown, in
    a state that does not run.

    ``code_root`` is the folder that holds a folder per SHA-256; ``images`` tells what a document with a container image runs, and its
    handler, or ``None`` for any other and for one whose image is not on record yet.
    """
    serving = record.serving
    lost = record.state.phase is Phase.FAILED or record.state.phase in RESTING
    document = record.configuration if serving is None else serving
    sha256 = code_of(document)
    shown = record.state.shown()
    layers = merged_key(layers_of(document).hashes)
    logging = document["LoggingConfig"]
    image, image_handler = images(document) or (None, "")
    version = FunctionVersion(
        arn=record.arn,
        version=document["Version"],
        runtime=document.get("Runtime", ""),
        handler=document.get("Handler", image_handler),
        code_sha256=sha256,
        code_dir="" if is_image(document) else f"{code_root}/{sha256}",
        image=image,
        memory_mb=document["MemorySize"],
        timeout_s=document["Timeout"],
        ephemeral_mb=document["EphemeralStorage"]["Size"],
        environment=document.get("Environment", {}).get("Variables", {}),
        role=document["Role"],
        log_group=logging["LogGroup"],
        state=shown["State"] if serving is None or lost else _runnable(document),
        state_reason=record.state.reason if serving is None or lost else "",
        opt_dir=f"{code_root}/{layers}" if layers else "",
        layer_sha256=layers,
        mounts=(file_systems or FileSystems({})).mounts(document.get("FileSystemConfigs", ())),
        tenant_isolation="TenancyConfig" in document,
        initialization=MANAGED if on_provider(document) else ON_DEMAND,
        log_format=logging["LogFormat"],
        application_log_level=logging.get("ApplicationLogLevel", ""),
        system_log_level=logging.get("SystemLogLevel", ""),
        dead_letters=document.get("DeadLetterConfig", {}).get("TargetArn", ""),
        tracing=document.get("TracingConfig", {}).get("Mode", "PassThrough"),
    )
    return replace(version, environment_key=version.keyed())


def _runnable(document: Configuration) -> str:
    """``Active``, or why a version whose code is ready is not invoked."""
    if "_deactivated" in document:
        return "Deactivated"
    if "DurableConfig" in document:
        return DURABLE
    return UNPUBLISHED if on_provider(document) and document["Version"] == LATEST else "Active"


def code_of(document: Mapping[str, Any]) -> str:
    """The SHA-256 of a document's code, in hex; of an image, its digest."""
    if is_image(document):
        return str(document["CodeSha256"])
    return base64.b64decode(document["CodeSha256"]).hex()


def layers_of(document: Mapping[str, Any]) -> ResolvedLayers:
    """The layers of a document."""
    held = document.get("_layers")
    return ResolvedLayers() if held is None else ResolvedLayers.from_document(document["Layers"], held)


def reference_of(document: Mapping[str, Any]) -> Reference | None:
    """Where a document's code is, if it stays in a bucket."""
    held = document.get("_reference")
    return None if held is None else Reference.from_document(held)


def runtime_version_arn(function_arn: str, runtime: str) -> str:
    """Names the runtime; opaque, but the same for the same runtime, as clients expect."""
    _, partition, _, region, *_ = function_arn.split(":")
    return f"arn:{partition}:lambda:{region}::runtime:{hashlib.sha256(f'lambent runtime {runtime}'.encode()).hexdigest()}"


def timestamp(now: float) -> str:
    """``2026-11-21T09:00:00.123+0000``, AWS's form for functions (contract 01 §1)."""
    moment = datetime.fromtimestamp(now, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}+0000"


def _set_or_drop(document: Configuration, name: str, given: Any, value: Any) -> None:
    """``None`` leaves a member alone, an empty text takes it away."""
    if given is None:
        return
    if given:
        document[name] = value
    else:
        document.pop(name, None)

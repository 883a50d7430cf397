"""Every setting, with AWS's values as the defaults.

A setting comes from, in order of weight: the command line, the file given with ``--config`` (TOML, one table per group below), the
default here. Unknown names in the file are refused, since a silent misspelling of a limit is worse than an error.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lambent.errors import LambentError
from lambent.setting_types import complaint, lacking


class BadSetting(LambentError):
    """The configuration file has a name or a value that Lambent does not know."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Quotas of contract 01 §8; sizes in bytes unless the name says otherwise."""

    sync_payload: int = 6_291_456
    response_payload: int = 6_291_556
    streamed_payload: int = 209_715_200
    stream_burst: int = 6_291_456  # bytes of a stream at full speed; after them
    stream_rate: int = 2_097_152  # bytes a second; 0: no limit
    async_payload: int = 1_048_576
    zip_direct: int = 52_428_800
    code_unzipped: int = 262_144_000
    request_body: int = 70_167_211
    environment: int = 4_096
    request_head: int = 1_048_576
    concurrent_executions: int = 1_000
    unreserved_executions: int = 100  # what reserved and provisioned concurrency must leave for all others
    requests_per_concurrency: int = 10  # synchronous requests a second for each unit of concurrency; 0: no limit
    scaling_environments: int = 1_000  # environments that one function may start in
    scaling_seconds: float = 10.0  # so many seconds; 0 environments: no limit
    control_rate: int = 0  # requests a second to the control plane together, per account; AWS has 15; 0: no limit
    get_function_rate: int = 0  # GetFunction; AWS has 100
    get_policy_rate: int = 0  # GetPolicy; AWS has 15
    memory_min_mb: int = 128
    memory_max_mb: int = 10_240
    timeout_max_s: int = 900
    ephemeral_min_mb: int = 512
    ephemeral_max_mb: int = 10_240
    tags: int = 50
    layers: int = 5
    policy: int = 20_480
    code_storage: int = 322_122_547_200
    image_unpacked: int = 10_737_418_240
    page: int = 50
    idle_seconds: float = 0.0  # after which functions with a network, file systems or an image become Inactive; 0: never
    code_check_seconds: float = 86_400.0  # between two looks at code that stays in buckets; 0: never
    filters: int = 5  # of an event source mapping
    capacity_providers: int = 1_000
    capacity_provider_versions: int = 100  # function versions on each


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """How functions are isolated and how long their environments live. Times in seconds."""

    isolation: str = "auto"  # auto | namespaces | process
    egress: str = "auto"  # auto | full | none: what a function may reach beyond the platform's endpoint
    blanks: int = 4  # ready-made sandboxes kept per runtime
    freeze_after: float = 0.05
    idle_after: float = 600.0
    idle_memory_mb: int = 0  # what idle environments may hold together; 0: half of the machine's memory
    provisioned_at_once: int = 4  # provisioned environments of a function that start at the same time
    init_timeout: float = 10.0
    pids: int = 1_024
    mb_per_vcpu: int = 1_769  # memory of a function that a whole CPU comes with; 0: no limit
    interpreters: tuple[str, ...] = ()  # further folders or binaries to search for interpreters
    file_systems: Mapping[str, str] = field(default_factory=dict)  # ARN of an access point to the folder that stands for it at /mnt
    packages: tuple[str, ...] = ()  # folders like ".../python3.8" with boto3 for interpreters that the newest one left behind


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """Where container images may come from."""

    allowed: tuple[str, ...] = ("*",)  # registries, as "host" or "host:port"; "*" stands for any text
    insecure: tuple[str, ...] = ()  # those spoken to over HTTP or with any certificate; those on this machine always are
    mirrors: tuple[str, ...] = ()  # "host=other host": ask the other for images of the first; "*" as above
    folders: tuple[str, ...] = ()  # folders in which OCI layouts and docker archives may lie
    docker_config: str = ""  # a config.json with credentials; by default Docker's own


@dataclass(frozen=True, slots=True)
class RegistryCredential:
    """What a registry wants to hear."""

    host: str
    username: str
    password: str


@dataclass(frozen=True, slots=True)
class Credential:
    """A configured access key; only ``auth = "signature"`` looks at the secret."""

    access_key: str
    secret_key: str
    account: str


@dataclass(frozen=True, slots=True)
class S3Settings:
    """Where the code of functions is read from if not from the object store in the box. Without a key boto3 finds credentials itself."""

    endpoint: str = ""
    access_key: str = ""
    secret_key: str = ""
    region: str = ""  # of the bucket; by default the caller's


@dataclass(frozen=True, slots=True)
class AsyncSettings:
    """Asynchronous invocations (contract 02 §4): AWS's times, in seconds, and how much of them runs at once."""

    retry_waits: tuple[float, ...] = (60.0, 120.0)  # before the first retry of a function error, and the second
    backoff_first: float = 1.0  # after a throttle or a fault of the platform; doubles each time
    backoff_most: float = 300.0
    age: float = 21_600.0  # of an event, where the function's settings name none
    in_flight: int = 256
    per_function: int = 128
    in_flight_bytes: int = 67_108_864
    delivery_age: float = 3_600.0  # how long a result is offered to its destination
    dead_days: int = 14  # dead letters without a queue are kept


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """Other services that results are sent to. Without a key botocore looks for credentials itself; "" for s3 and sqs means this server."""

    sqs: str = ""
    sns: str = ""
    events: str = ""
    s3: str = ""
    access_key: str = ""
    secret_key: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``lambent up`` runs with."""

    host: str = "127.0.0.1"
    port: int = 4566
    data_dir: Path = Path(".lambent")
    auth: str = "any"  # any | signature
    account: str = "000000000000"
    region: str = "us-east-1"
    zone: str = ""  # id of the availability zone that functions are told, "use1-az4"; by default the first one of their Region
    database: str = ""  # "postgresql://..." keeps the state there; by default it lies in the data directory
    credentials: tuple[Credential, ...] = ()
    limits: Limits = field(default_factory=Limits)
    sandbox: SandboxSettings = field(default_factory=SandboxSettings)
    images: ImageSettings = field(default_factory=ImageSettings)
    s3: S3Settings = field(default_factory=S3Settings)
    registries: tuple[RegistryCredential, ...] = ()
    async_events: AsyncSettings = field(default_factory=AsyncSettings)  # the table "async"
    endpoints: EndpointSettings = field(default_factory=EndpointSettings)


def load(path: Path | None, **overrides: Any) -> Settings:
    """Read ``path`` (if any) and lay ``overrides`` that are not ``None`` over it. Raises ``BadSetting``."""
    document: dict[str, Any] = {}
    if path is not None:
        try:
            document = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise BadSetting(f"{path}: {error.strerror}") from error
        except ValueError as error:  # not TOML, or not even text
            raise BadSetting(f"{path}: {error}") from error
    settings = Settings(
        limits=_group(Limits, document.pop("limits", {}), "limits"),
        sandbox=_group(SandboxSettings, document.pop("sandbox", {}), "sandbox"),
        images=_group(ImageSettings, document.pop("images", {}), "images"),
        s3=_group(S3Settings, document.pop("s3", {}), "s3"),
        async_events=_group(AsyncSettings, document.pop("async", {}), "async"),
        endpoints=_group(EndpointSettings, document.pop("endpoints", {}), "endpoints"),
        registries=_groups(RegistryCredential, document.pop("registries", []), "registries"),
        credentials=_groups(Credential, document.pop("credentials", []), "credentials"),
    )
    _check_names({entry.name for entry in fields(Settings)} - {"async_events"} | {"async"}, document, "top level")
    if wrong := complaint(Settings, document):
        raise BadSetting(wrong)
    given = {**document, **{name: value for name, value in overrides.items() if value is not None}}
    if "data_dir" in given:
        given["data_dir"] = Path(given["data_dir"])
    return _check_values(replace(settings, **given))


def _groups(kind: Any, entries: object, where: str) -> tuple[Any, ...]:
    if not isinstance(entries, list):
        raise BadSetting(f"{where}: expected tables [[{where}]]")
    return tuple(_group(kind, entry, where) for entry in entries)


def _group(kind: Any, values: object, where: str) -> Any:
    if not isinstance(values, dict):
        raise BadSetting(f"{where}: {values!r} is not a table")
    _check_names({entry.name for entry in fields(kind)}, values, where)
    if missing := lacking(kind, values):
        raise BadSetting(f"{where}: {' and '.join(missing)} must be given, too")
    if wrong := complaint(kind, values):
        raise BadSetting(f"{where}.{wrong}")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _check_names(known: set[str], values: dict[str, Any], where: str) -> None:
    for name in values:
        if name not in known:
            raise BadSetting(f"{where}: unknown setting {name!r}; known are {', '.join(sorted(known))}")


def _check_values(settings: Settings) -> Settings:
    choices = {
        "auth": (settings.auth, ("any", "signature")),
        "sandbox.isolation": (settings.sandbox.isolation, ("auto", "namespaces", "process")),
        "sandbox.egress": (settings.sandbox.egress, ("auto", "full", "none")),
    }
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise BadSetting(f"{name}: {value!r} is none of {', '.join(allowed)}")
    if not 1 <= settings.port <= 65_535:
        raise BadSetting(f"port: {settings.port} is not between 1 and 65535")
    for where, account in (("account", settings.account), *(("credentials.account", key.account) for key in settings.credentials)):
        if not re.fullmatch("[0-9]{12}", account):
            raise BadSetting(f"{where}: {account!r} is not 12 digits")
    for mirror in settings.images.mirrors:
        if not all(mirror.partition("=")):
            raise BadSetting(f"images.mirrors: {mirror!r} is not of the form host=host")
    return settings

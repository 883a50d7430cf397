"""The environment of a runtime process, from nothing but the function's configuration (contract 03 §5). Pure.

Three layers, the later over the earlier: what AWS sets and a function may override, the function's own variables, and what AWS
reserves. The control plane refuses reserved names with ``reserved``; here they win in any case.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lambent.function_version import FunctionVersion

RESERVED = frozenset(
    {
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_MAX_CONCURRENCY",
        "AWS_LAMBDA_METADATA_API",
        "AWS_LAMBDA_METADATA_TOKEN",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
    }
)

_XRAY_HOST, _XRAY_PORT = "169.254.79.129", "2000"


@dataclass(frozen=True, slots=True)
class RoleCredentials:
    """What the function signs its own calls with. Lambent tells accounts by access key ids of 12 digits (``auth = "any"``)."""

    access_key: str
    secret_key: str = "lambent"
    session_token: str = "lambent"


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are as the function sees them. A driver without a mount namespace has other folders."""

    task_root: str = "/var/task"
    runtime_dir: str = "/var/runtime"
    runtime_api: str = "127.0.0.1:9001"
    endpoint_url: str = ""  # the platform's own endpoint, for the AWS SDKs


def reserved(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that AWS does not let a function set, in the given order."""
    return [name for name in names if name in RESERVED]


def environment_variables(
    version: FunctionVersion,
    log_stream: str,
    *,
    credentials: RoleCredentials | None = None,
    places: Places | None = None,
    initialization_type: str = "on-demand",
    log_format: str = "Text",
    log_level: str = "",
    defaults: Mapping[str, str] | None = None,
    metadata_token: str = "",
) -> dict[str, str]:
    """The whole environment of the process that runs ``version``.

    ``credentials`` are by default those of the function's account. ``log_level`` counts only with ``log_format`` "JSON", as on AWS.
    ``defaults`` are what the runtime adds and a function may override (``RuntimePlan.environment``). ``metadata_token`` opens the
    metadata of the environment (contract 03 §2), which the Runtime API serves too.
    """
    places = places or Places()
    environment = _overridable(places, log_format, log_level)
    if version.runtime.startswith("python"):
        environment["PYTHONPATH"] = places.runtime_dir
    environment.update(defaults or {})
    environment.update(version.environment)
    for name in RESERVED:
        environment.pop(name, None)
    environment.update(_platform(version, log_stream, places, initialization_type))
    if metadata_token:
        environment.update({"AWS_LAMBDA_METADATA_API": places.runtime_api, "AWS_LAMBDA_METADATA_TOKEN": metadata_token})
    environment.update(_credentials(credentials or RoleCredentials(version.arn.account)))
    return environment


def _overridable(places: Places, log_format: str, log_level: str) -> dict[str, str]:
    task, runtime = places.task_root, places.runtime_dir
    environment = {
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
        "LD_LIBRARY_PATH": f"/var/lang/lib:/lib64:/usr/lib64:{runtime}:{runtime}/lib:{task}:{task}/lib:/opt/lib",
        "PWD": task,
        "SHLVL": "0",
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        "AWS_XRAY_DAEMON_ADDRESS": f"{_XRAY_HOST}:{_XRAY_PORT}",
        "_AWS_XRAY_DAEMON_ADDRESS": _XRAY_HOST,
        "_AWS_XRAY_DAEMON_PORT": _XRAY_PORT,
        "AWS_LAMBDA_LOG_FORMAT": log_format,
    }
    if log_format == "JSON":
        environment["AWS_LAMBDA_LOG_LEVEL"] = log_level or "INFO"
    if places.endpoint_url:
        environment["AWS_ENDPOINT_URL"] = places.endpoint_url
    return environment


def _platform(version: FunctionVersion, log_stream: str, places: Places, initialization_type: str) -> dict[str, str]:
    environment = {
        "AWS_LAMBDA_FUNCTION_NAME": version.arn.name,
        "AWS_LAMBDA_FUNCTION_VERSION": version.version,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(version.memory_mb),
        "AWS_LAMBDA_LOG_GROUP_NAME": version.log_group or f"/aws/lambda/{version.arn.name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": log_stream,
        "AWS_LAMBDA_INITIALIZATION_TYPE": initialization_type,
        "AWS_LAMBDA_RUNTIME_API": places.runtime_api,
        "AWS_REGION": version.arn.region,
        "AWS_DEFAULT_REGION": version.arn.region,
        "LAMBDA_TASK_ROOT": places.task_root,
        "LAMBDA_RUNTIME_DIR": places.runtime_dir,
        "_HANDLER": version.handler,
    }
    if not version.runtime.startswith("provided"):
        environment["AWS_EXECUTION_ENV"] = f"AWS_Lambda_{version.runtime}"
    return environment


def _credentials(credentials: RoleCredentials) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
        "AWS_SESSION_TOKEN": credentials.session_token,
    }

"""What makes a function more than an ordinary one: a network, SnapStart, a capacity provider, accelerators, durable executions.

All of it is validated, kept and shown as on AWS (contract 01 §5, §9; 05 §1; 06 §3, §4). What comes of it here today:

    VpcConfig               nothing: functions reach what the setting ``sandbox.egress`` lets them reach
    SnapStart               nothing: no snapshot is taken, and ``OptimizationStatus`` says ``Off`` on every version
    CapacityProviderConfig  versions and ``$LATEST.PUBLISHED`` are invoked as on AWS, ``$LATEST`` is not; their environments are those of
                            this machine and have one invocation at a time
    AcceleratorConfig       nothing: no accelerator is given to an environment
    DurableConfig           an invocation is refused with ``NotImplementedException``: to run its handler once would be something else

``docs/parity.md`` says so, too. Pure functions over parameters and documents; ``function_rules.py`` and ``function_configuration.py`` call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lambent.errors import ClientFault, invalid_parameter

Params = Mapping[str, Any]
Document = Mapping[str, Any]

MANAGED_MIN_MB = 2_048  # contract 01 §8
MODEL_MAX_MB = 32_768  # memory on capacity providers, and /tmp beside accelerators
DURABLE_RETENTION_DAYS = 14  # contract 05 §1

_SNAPPED = re.compile(r"java(\d+)|python3\.(\d+)|dotnet(\d+)")
_SNAPPED_FROM = (11, 12, 8)


def on_provider(document: Document) -> bool:
    """Whether a function, by its configuration or the request that makes it, runs on a capacity provider."""
    return bool(document.get("CapacityProviderConfig"))


def provider_of(document: Document) -> str:
    """The ARN of its capacity provider, or ``""``."""
    config = document.get("CapacityProviderConfig") or {}
    return str((config.get("LambdaManagedInstancesCapacityProviderConfig") or {}).get("CapacityProviderArn", ""))


def begins_pending(document: Document) -> bool:
    """Whether a version of it is Pending first even where nothing has to be prepared."""
    return on_provider(document) or document["SnapStart"]["ApplyOn"] != "None"


def check_create(params: Params) -> None:
    """What CreateFunction may not combine. Raises IPV."""
    managed = on_provider(params)
    _check_snap_start(params.get("SnapStart"), params)
    _check_network(params.get("VpcConfig"))
    _check_accelerator(params, managed)
    if params.get("PublishTo") and not managed:
        raise only_on_provider("PublishTo")
    if managed:
        _check_managed(params)


def check_update(before: Document, params: Params) -> None:
    """What UpdateFunctionConfiguration may not make of the function that has the document ``before``. Raises IPV."""
    managed = on_provider(before)
    if params.get("CapacityProviderConfig") is not None:
        if not managed:
            raise invalid_parameter("CapacityProviderConfig isn't supported for Lambda Default functions.")
        if provider_of(params) != provider_of(before):
            raise invalid_parameter("The capacity provider of a function cannot be changed.")
    if params.get("DurableConfig") is not None and "DurableConfig" not in before:
        raise invalid_parameter("You cannot add DurableConfig to an existing function. Create a new function with DurableConfig instead.")
    together = {**before, **{name: value for name, value in params.items() if value is not None}}
    _check_snap_start(together.get("SnapStart"), together)
    _check_network(params.get("VpcConfig"))
    _check_accelerator(params, managed)
    if managed:
        _check_managed(together)


def most_memory(document: Document, limit: int) -> int:
    """MB, where ``limit`` is what ordinary functions may have."""
    return max(limit, MODEL_MAX_MB) if on_provider(document) else limit


def most_storage(document: Document, limit: int) -> int:
    """MB of ``/tmp``."""
    return max(limit, MODEL_MAX_MB) if document.get("AcceleratorConfig") else limit


def members(document: Document, params: Params) -> dict[str, Any]:
    """The members of a document that has ``params`` merged into it."""
    found: dict[str, Any] = {}
    if (params.get("SnapStart") or {}).get("ApplyOn") is not None:
        found["SnapStart"] = {"ApplyOn": params["SnapStart"]["ApplyOn"], "OptimizationStatus": "Off"}
    network = params.get("VpcConfig")
    if network is not None:
        found["VpcConfig"] = {
            "SubnetIds": list(network.get("SubnetIds") or ()),
            "SecurityGroupIds": list(network.get("SecurityGroupIds") or ()),
            "VpcId": "",  # only the network that AWS has could tell
            "Ipv6AllowedForDualStack": bool(network.get("Ipv6AllowedForDualStack")),
        }
    managed = (params.get("CapacityProviderConfig") or {}).get("LambdaManagedInstancesCapacityProviderConfig")
    if managed is not None:
        held = (document.get("CapacityProviderConfig") or {}).get("LambdaManagedInstancesCapacityProviderConfig") or {}
        found["CapacityProviderConfig"] = {"LambdaManagedInstancesCapacityProviderConfig": {**held, **_given(managed)}}
    if params.get("AcceleratorConfig") is not None:
        found["AcceleratorConfig"] = _given(params["AcceleratorConfig"])
    if params.get("DurableConfig") is not None:
        held = document.get("DurableConfig") or {"RetentionPeriodInDays": DURABLE_RETENTION_DAYS}
        durable = {**held, **_given(params["DurableConfig"])}
        found["DurableConfig"] = {name: value for name, value in durable.items() if value != ""}
    return found


def only_on_provider(what: str) -> ClientFault:
    return invalid_parameter(f"{what} isn't supported for Lambda Default functions.")


def _check_snap_start(snap_start: Params | None, params: Params) -> None:
    if (snap_start or {}).get("ApplyOn", "None") == "None":
        return
    runtime = params.get("Runtime") or ""
    match = _SNAPPED.match(runtime)
    if match is None or not any(group and int(group) >= least for group, least in zip(match.groups(), _SNAPPED_FROM, strict=True)):
        raise invalid_parameter(f"{runtime or 'ContainerImage'} is not supported for SnapStart enabled functions.")
    if params.get("FileSystemConfigs"):
        raise invalid_parameter("SnapStart is not supported for functions with FileSystemConfigs.")
    if ((params.get("EphemeralStorage") or {}).get("Size") or 512) > 512:
        raise invalid_parameter("SnapStart is not supported for functions with more than 512 MB of ephemeral storage.")
    if on_provider(params):
        raise invalid_parameter("SnapStart is not supported for functions on a capacity provider.")


def _check_network(network: Params | None) -> None:
    if network is not None and bool(network.get("SubnetIds")) != bool(network.get("SecurityGroupIds")):
        raise invalid_parameter("SubnetIds and SecurityIds must coexist or be both empty list.")


def _check_accelerator(params: Params, managed: bool) -> None:
    if params.get("AcceleratorConfig") is None:
        return
    if not managed:
        raise only_on_provider("AcceleratorConfig")
    if params["AcceleratorConfig"]["AcceleratorMemorySize"] < 1:
        raise invalid_parameter("AcceleratorMemorySize must be at least 1.")


def _check_managed(params: Params) -> None:
    if (params.get("MemorySize") or 0) < MANAGED_MIN_MB:
        raise invalid_parameter(f"MemorySize of a function on a capacity provider must be at least {MANAGED_MIN_MB} MB.")
    if params.get("TenancyConfig"):
        raise invalid_parameter("TenancyConfig is not supported for functions on a capacity provider.")
    if (params.get("LoggingConfig") or {}).get("LogFormat") == "Text":
        raise invalid_parameter("LogFormat Text is not supported for functions on a capacity provider.")


def _given(document: Params) -> dict[str, Any]:
    return {name: value for name, value in document.items() if value is not None}

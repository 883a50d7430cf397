"""Capacity providers: kept, with their states, and the function versions that use them (contract 01 §6, 06 §4).

The machine is what it is: a provider names no other one, and functions on it run in environments as all others do.

A provider is Pending for ``TRANSITION_S`` after its creation and Deleting as long before it is gone; a transition that a killed process
left open is ended by the next one.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, Protocol

from lambent.clock import Clock
from lambent.control import page_marker
from lambent.control.function_configuration import FunctionRecord, show, timestamp
from lambent.control.function_kinds import provider_of
from lambent.control.function_names import denied
from lambent.control.function_table import FunctionTable
from lambent.control.small_table import Document, SmallTable
from lambent.errors import ClientFault, conflict, invalid_parameter, not_found
from lambent.settings import Limits
from lambent.store.contract import Store, StoreUnavailable
from lambent.wire.call import Call

Params = Mapping[str, Any]
CheckTags = Callable[[Mapping[str, str]], None]

TRANSITION_S = 0.2
RETRY_S = 1.0
_GIVEN = ("VpcConfig", "PermissionsConfig", "InstanceRequirements", "KmsKeyArn", "PropagateTags", "TelemetryConfig")
_SCALING = {"MaxVCpuCount": 400, "ScalingMode": "Auto"}
_NAME = re.compile(r"[a-zA-Z0-9-_]{1,64}")


class Tasks(Protocol):
    """A task group."""

    def create_task(self, coro: Coroutine[Any, Any, None]) -> object: ...


class CapacityProviders:
    """``load`` first. Keys are ``<account>/<region>/<name>``."""

    def __init__(self, store: Store, functions: FunctionTable, tasks: Tasks, clock: Clock, limits: Limits, check_tags: CheckTags) -> None:
        self._table = SmallTable(store, "capacity-provider")
        self._functions = functions
        self._tasks = tasks
        self._clock = clock
        self._limits = limits
        self._check_tags = check_tags

    async def load(self) -> None:
        await self._table.load()
        for key, document in self._table.items():
            if document["fence"]:
                self._tasks.create_task(self._settle(key, document["fence"]))

    async def create(self, call: Call, params: Params) -> dict[str, Any]:
        name = self._name(call, "CreateCapacityProvider", params["CapacityProviderName"])
        if not _NAME.fullmatch(name):
            raise invalid_parameter("CapacityProviderName must have at most 64 characters.")
        tags = dict(params.get("Tags") or {})
        self._check_tags(tags)
        fence = str(uuid.uuid4())
        shown = {
            "CapacityProviderArn": f"arn:aws:lambda:{call.region}:{call.account}:capacity-provider:{name}",
            "State": "Pending",
            **_checked(name, params),
            "CapacityProviderScalingConfig": _scaling(params.get("CapacityProviderScalingConfig") or {}),
            "LastModified": timestamp(self._clock.now()),
        }
        key, scope = f"{call.account}/{call.region}/{name}", f"{call.account}/{call.region}/"

        def mutate(before: Document | None) -> Document:
            if before is not None:
                raise conflict(f"Capacity provider already exists: {shown['CapacityProviderArn']}")
            if sum(1 for _ in self._table.items(scope)) >= self._limits.capacity_providers:
                raise ClientFault(
                    "CapacityProviderLimitExceededException",
                    400,
                    f"The maximum number of capacity providers ({self._limits.capacity_providers}) has been reached.",
                )
            return {"shown": shown, "tags": tags, "fence": fence}

        await self._table.change(key, mutate)
        self._tasks.create_task(self._settle(key, fence))
        return {"CapacityProvider": shown}

    def get(self, call: Call, params: Params) -> dict[str, Any]:
        return {"CapacityProvider": self._existing(call, "GetCapacityProvider", params["CapacityProviderName"])[1]["shown"]}

    async def update(self, call: Call, params: Params) -> dict[str, Any]:
        key, _ = self._existing(call, "UpdateCapacityProvider", params["CapacityProviderName"])

        def mutate(before: Document | None) -> Document:
            found = _settled(before, key)
            shown = {**found["shown"], **_checked(key.rpartition("/")[2], params), "LastModified": timestamp(self._clock.now())}
            if params.get("CapacityProviderScalingConfig") is not None:
                shown["CapacityProviderScalingConfig"] = _scaling(
                    {**shown["CapacityProviderScalingConfig"], **_given(params["CapacityProviderScalingConfig"])}
                )
            return {**found, "shown": shown}

        after = await self._table.change(key, mutate)
        assert after is not None
        return {"CapacityProvider": after["shown"]}

    async def delete(self, call: Call, params: Params) -> dict[str, Any]:
        key, found = self._existing(call, "DeleteCapacityProvider", params["CapacityProviderName"])
        arn = found["shown"]["CapacityProviderArn"]
        if next(self._versions(arn), None) is not None:
            raise conflict(f"The capacity provider {arn} cannot be deleted because function versions use it.")
        fence = str(uuid.uuid4())

        def mutate(before: Document | None) -> Document:
            document = _settled(before, key)
            shown = {**document["shown"], "State": "Deleting", "LastModified": timestamp(self._clock.now())}
            return {**document, "shown": shown, "fence": fence}

        after = await self._table.change(key, mutate)
        assert after is not None
        self._tasks.create_task(self._settle(key, fence))
        return {"CapacityProvider": after["shown"]}

    def list_all(self, call: Call, params: Params) -> dict[str, Any]:
        wanted = params.get("State")
        found = (
            (key, document["shown"])
            for key, document in self._table.items(f"{call.account}/{call.region}/")
            if wanted in (None, document["shown"]["State"])
        )
        page, more = page_marker.page("capacity-providers", params, found, self._limits.page)
        return {"CapacityProviders": page, **more}

    def list_versions(self, call: Call, params: Params) -> dict[str, Any]:
        arn = self._existing(call, "ListFunctionVersionsByCapacityProvider", params["CapacityProviderName"])[1]["shown"][
            "CapacityProviderArn"
        ]
        items = ((shown["FunctionArn"], shown) for shown in sorted(self._versions(arn), key=lambda each: each["FunctionArn"]))
        page, more = page_marker.page("function-versions-by-capacity-provider", params, items, self._limits.page)
        return {"CapacityProviderArn": arn, "FunctionVersions": page, **more}

    # -- functions ------------------------------------------------------------------------------------------------------------------------

    def admit(self, call: Call, arn: str) -> None:
        """Refuse a function on a provider that is not there or not Active."""
        key, found = self._existing(call, "PassCapacityProvider", arn)
        if found["shown"]["State"] != "Active":
            _settled(found, key)

    def admit_version(self, record: FunctionRecord) -> None:
        """Refuse what makes too many versions on one provider; ``record`` is the function as it would be."""
        arn = provider_of(record.configuration)
        if not arn:
            return
        others = (each for each in self._functions if each.arn != record.arn and provider_of(each.configuration) == arn)
        if len(record.versions) + sum(len(each.versions) for each in others) > self._limits.capacity_provider_versions:
            raise ClientFault(
                "FunctionVersionsPerCapacityProviderLimitExceededException",
                400,
                f"The maximum number of function versions ({self._limits.capacity_provider_versions}) of capacity provider {arn} "
                "has been reached.",
            )

    # -- tags -----------------------------------------------------------------------------------------------------------------------------

    def tags_of(self, call: Call, name: str) -> Mapping[str, str]:
        tags: Mapping[str, str] = self._existing(call, "ListTags", name)[1]["tags"]
        return tags

    async def set_tags(self, call: Call, name: str, change: Callable[[Mapping[str, str]], Mapping[str, str]]) -> None:
        key, _ = self._existing(call, "TagResource", name)

        def mutate(before: Document | None) -> Document:
            if before is None:
                raise _not_found(key)
            return {**before, "tags": dict(change(before["tags"]))}

        await self._table.change(key, mutate)

    # -- inside ---------------------------------------------------------------------------------------------------------------------------

    def _name(self, call: Call, action: str, text: str) -> str:
        """The name in a name or an ARN. Raises 403 or 404 for what lies elsewhere."""
        if not text.startswith("arn:"):
            return text
        parts = text.split(":")
        if parts[3] != call.region:
            raise not_found(f"Capacity provider not found: {text}")
        if parts[4] != call.account:
            raise denied(call, action, text)
        return parts[-1]

    def _existing(self, call: Call, action: str, text: str) -> tuple[str, Document]:
        key = f"{call.account}/{call.region}/{self._name(call, action, text)}"
        found = self._table.get(key)
        if found is None:
            raise _not_found(key)
        return key, found

    def _versions(self, arn: str) -> Iterator[dict[str, str]]:
        """The functions on a provider and their versions."""
        for record in self._functions:
            for number, version in {"": record, **record.versions}.items():
                if provider_of(version.configuration) == arn:
                    function = record.arn.qualified(number) if number else record.arn
                    yield {"FunctionArn": str(function), "State": show(version)["State"]}

    async def _settle(self, key: str, fence: str) -> None:
        """End a transition, however long the store is unavailable."""

        def mutate(before: Document | None) -> Document | None:
            if before is None or before["fence"] != fence:
                return before
            if before["shown"]["State"] == "Deleting":
                return None
            return {**before, "shown": {**before["shown"], "State": "Active"}, "fence": ""}

        await self._clock.sleep(TRANSITION_S)
        while True:
            try:
                await self._table.change(key, mutate)
                return
            except StoreUnavailable:
                await self._clock.sleep(RETRY_S)


def _checked(name: str, params: Params) -> dict[str, Any]:
    """The given members. Raises IPV for those that exclude each other."""
    needs = params.get("InstanceRequirements") or {}
    if needs.get("AllowedInstanceTypes") and needs.get("ExcludedInstanceTypes"):
        raise invalid_parameter("AllowedInstanceTypes and ExcludedInstanceTypes must not be given together.")
    given = {
        member: _given(params[member]) if isinstance(params[member], dict) else params[member] for member in _GIVEN if params.get(member)
    }
    if "TelemetryConfig" in given:
        logging = given["TelemetryConfig"].get("LoggingConfig") or {}
        given["TelemetryConfig"] = {"LoggingConfig": {"LogGroup": f"/aws/lambda/capacity-provider/{name}", **_given(logging)}}
    return given


def _scaling(given: Params) -> dict[str, Any]:
    scaling = {**_SCALING, **_given(given)}
    if (scaling["ScalingMode"] == "Manual") != bool(scaling.get("ScalingPolicies")):
        if scaling["ScalingMode"] == "Manual":
            raise invalid_parameter("ScalingPolicies must be given when ScalingMode is Manual.")
        raise invalid_parameter("ScalingPolicies must only be given when ScalingMode is Manual.")
    return scaling


def _given(document: Params) -> dict[str, Any]:
    return {name: value for name, value in document.items() if value is not None}


def _settled(document: Document | None, key: str) -> Document:
    """The document, if nothing is under way. Raises 404 or 409."""
    if document is None:
        raise _not_found(key)
    if document["fence"]:
        state = document["shown"]["State"]
        raise conflict(
            f"The operation cannot be performed at this time. The capacity provider is currently in the following state: {state}"
        )
    return document


def _not_found(key: str) -> ClientFault:
    account, region, name = key.split("/")
    return not_found(f"Capacity provider not found: arn:aws:lambda:{region}:{account}:capacity-provider:{name}")

"""Code signing configurations, and which functions they hold (contract 01 §6, 06 §6).

There are no signing profiles here, so no zip can carry a signature that a configuration trusts. That settles what a policy means: ``Warn``
lets every zip in, ``Enforce`` lets none in. Which configuration a function has lies in the function's record.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Mapping
from typing import Any

from lambent.arn import FunctionArn
from lambent.clock import Clock
from lambent.control import page_marker
from lambent.control.attachments import CODE_SIGNING as FAMILY
from lambent.control.attachments import attach, attached
from lambent.control.function_configuration import FunctionRecord, timestamp
from lambent.control.function_names import denied, missing, resolve_function
from lambent.control.function_table import FunctionTable
from lambent.control.image_code import is_image
from lambent.control.small_table import Document, SmallTable
from lambent.errors import ClientFault, conflict, invalid_parameter, not_found
from lambent.settings import Limits
from lambent.store.contract import Store
from lambent.wire.call import Call

Params = Mapping[str, Any]
CheckTags = Callable[[Mapping[str, str]], None]

_ALPHABET = string.ascii_lowercase + string.digits
_ID_LENGTH = 17


class CodeSigning:
    """``load`` first. Keys are ``<account>/<region>/csc-...``."""

    def __init__(self, store: Store, functions: FunctionTable, clock: Clock, limits: Limits, check_tags: CheckTags) -> None:
        self._table = SmallTable(store, "code-signing-config")
        self._functions = functions
        self._clock = clock
        self._limits = limits
        self._check_tags = check_tags

    async def load(self) -> None:
        await self._table.load()

    # -- configurations -------------------------------------------------------------------------------------------------------------------

    async def create(self, call: Call, params: Params) -> dict[str, Any]:
        tags = dict(params.get("Tags") or {})
        self._check_tags(tags)
        name = "csc-" + "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))
        shown = {
            "CodeSigningConfigId": name,
            "CodeSigningConfigArn": _arn(call, name),
            "AllowedPublishers": dict(params["AllowedPublishers"]),
            "CodeSigningPolicies": _policies(params.get("CodeSigningPolicies")),
            "LastModified": timestamp(self._clock.now()),
        }
        if params.get("Description"):
            shown["Description"] = params["Description"]
        await self._table.change(f"{call.account}/{call.region}/{name}", lambda before: {"shown": shown, "tags": tags})
        return {"CodeSigningConfig": shown}

    def get(self, call: Call, params: Params) -> dict[str, Any]:
        return {"CodeSigningConfig": self._existing(call, "GetCodeSigningConfig", params["CodeSigningConfigArn"])["shown"]}

    async def update(self, call: Call, params: Params) -> dict[str, Any]:
        arn = params["CodeSigningConfigArn"]
        self._existing(call, "UpdateCodeSigningConfig", arn)

        def mutate(before: Document | None) -> Document:
            if before is None:
                raise _not_found(arn)
            shown = {**before["shown"], "LastModified": timestamp(self._clock.now())}
            for name in ("Description", "AllowedPublishers"):
                if params.get(name) is not None:
                    shown[name] = params[name]
            if params.get("CodeSigningPolicies") is not None:
                shown["CodeSigningPolicies"] = {**shown["CodeSigningPolicies"], **_policies(params["CodeSigningPolicies"])}
            return {**before, "shown": shown}

        after = await self._table.change(self._key(call, arn), mutate)
        assert after is not None
        return {"CodeSigningConfig": after["shown"]}

    async def delete(self, call: Call, params: Params) -> None:
        arn = params["CodeSigningConfigArn"]
        self._existing(call, "DeleteCodeSigningConfig", arn)
        async with self._table.turn(f"use of {arn}"):
            if self._users(arn):
                raise conflict(f"The code signing configuration {arn} cannot be deleted because functions use it.")
            await self._table.change(self._key(call, arn), lambda before: None)

    def list_all(self, call: Call, params: Params) -> dict[str, Any]:
        items = ((key, document["shown"]) for key, document in self._table.items(f"{call.account}/{call.region}/"))
        page, more = page_marker.page("code-signing-configs", params, items, self._limits.page)
        return {"CodeSigningConfigs": page, **more}

    def list_functions(self, call: Call, params: Params) -> dict[str, Any]:
        arn = params["CodeSigningConfigArn"]
        self._existing(call, "ListFunctionsByCodeSigningConfig", arn)
        items = ((record.arn.name, str(record.arn)) for record in self._users(arn))
        page, more = page_marker.page("functions-by-code-signing-config", params, items, self._limits.page)
        return {"FunctionArns": page, **more}

    # -- functions ------------------------------------------------------------------------------------------------------------------------

    async def put_for(self, call: Call, params: Params) -> dict[str, Any]:
        function, arn = resolve_function(call, "PutFunctionCodeSigningConfig", params["FunctionName"]), params["CodeSigningConfigArn"]

        def mutate(record: FunctionRecord | None) -> FunctionRecord:
            self.require(call, arn)
            if record is None:
                raise missing(function)
            _require_zip(record)
            return attach(record, FAMILY, "", arn)

        async with self._table.turn(f"use of {arn}"):
            await self._functions.change(function, mutate)
        return {"CodeSigningConfigArn": arn, "FunctionName": function.name}

    def get_for(self, call: Call, params: Params) -> dict[str, Any]:
        """Without a configuration the ARN is empty: the model wants one, and tools read every function's."""
        function = resolve_function(call, "GetFunctionCodeSigningConfig", params["FunctionName"])
        record = self._functions.get(function)
        if record is None:
            raise missing(function)
        _require_zip(record)
        return {"FunctionName": function.name, "CodeSigningConfigArn": attached(record, FAMILY) or ""}

    async def delete_for(self, call: Call, params: Params) -> None:
        """One that is not there is no error."""
        function = resolve_function(call, "DeleteFunctionCodeSigningConfig", params["FunctionName"])

        def mutate(record: FunctionRecord | None) -> FunctionRecord:
            if record is None:
                raise missing(function)
            return record if attached(record, FAMILY) is None else attach(record, FAMILY, "", None)

        await self._functions.change(function, mutate)

    def require(self, call: Call, arn: str) -> Mapping[str, Any]:
        """The configuration that a function is to have. Raises 404 in its own words."""
        document = self._table.get(self._key(call, arn))
        if document is None:
            raise ClientFault(
                "CodeSigningConfigNotFoundException",
                404,
                f"The code signing configuration cannot be found. Check that the provided configuration is not deleted: {arn}.",
            )
        shown: Mapping[str, Any] = document["shown"]
        return shown

    def admit(self, call: Call, function: FunctionArn, arn: str | None) -> None:
        """Check a zip for a function with the configuration ``arn``, or with none. Raises ``CodeVerificationFailedException``."""
        if arn and self.require(call, arn)["CodeSigningPolicies"]["UntrustedArtifactOnDeployment"] == "Enforce":
            raise ClientFault(
                "CodeVerificationFailedException",
                400,
                "Lambda cannot deploy the function. The function or layer might be signed using a signature that the client is not "
                f"configured to accept. Check the provided signature for {function.name}.",
            )

    # -- tags -----------------------------------------------------------------------------------------------------------------------------

    def tags_of(self, call: Call, name: str) -> Mapping[str, str]:
        tags: Mapping[str, str] = self._existing(call, "ListTags", _arn(call, name))["tags"]
        return tags

    async def set_tags(self, call: Call, name: str, change: Callable[[Mapping[str, str]], Mapping[str, str]]) -> None:
        def mutate(before: Document | None) -> Document:
            if before is None:
                raise _not_found(_arn(call, name))
            return {**before, "tags": dict(change(before["tags"]))}

        await self._table.change(self._key(call, name), mutate)

    def _existing(self, call: Call, action: str, arn: str) -> Document:
        """The document. Raises 404, and 403 for one of another account."""
        parts = arn.split(":")
        if len(parts) > 4 and parts[3] == call.region and parts[4] != call.account:
            raise denied(call, action, arn)
        found = self._table.get(self._key(call, arn))
        if found is None:
            raise _not_found(arn)
        return found

    def _key(self, call: Call, arn: str) -> str:
        """Where the configuration of that ARN, or of that id, would be; one of another account or Region is nowhere."""
        parts = arn.split(":")
        if len(parts) > 1 and (parts[3], parts[4]) != (call.region, call.account):
            return "elsewhere"
        return f"{call.account}/{call.region}/{parts[-1]}"

    def _users(self, arn: str) -> list[FunctionRecord]:
        return sorted((record for record in self._functions if attached(record, FAMILY) == arn), key=lambda record: record.arn.name)


def _require_zip(record: FunctionRecord) -> None:
    if is_image(record.configuration):
        raise invalid_parameter("Code signing is not supported for functions created with container images.")


def _arn(call: Call, name: str) -> str:
    return f"arn:aws:lambda:{call.region}:{call.account}:code-signing-config:{name}"


def _policies(given: Mapping[str, Any] | None) -> dict[str, str]:
    return {"UntrustedArtifactOnDeployment": (given or {}).get("UntrustedArtifactOnDeployment") or "Warn"}


def _not_found(arn: str) -> ClientFault:
    return not_found(f"The Lambda code signing configuration {arn} can not be found.")

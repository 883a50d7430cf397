"""Layers: published, shown, listed, shared, deleted, and resolved for the functions that name them (contract 01 §5.2, §6; 06 §7).

A version is made whole before it is shown: its zip is unpacked and stored by content like any code, then its number is taken and its
document committed at once. Deleting a version removes the document only. Functions that use it keep the hashes of its content in their
own documents, so they go on running, and the content stays as long as one of them, or one of their environments, needs it.

Texts of the refusals are AWS's where contract 01 has them; those of a layer that is too large and of a policy that is too long are from
AWS's own answers as users report them.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lambent.clock import Clock
from lambent.control import page_marker
from lambent.control.code import CodeStore
from lambent.control.code_room import CodeRoom
from lambent.control.code_source import CodeSource, ObjectLost, Reference
from lambent.control.function_configuration import timestamp
from lambent.control.function_names import denied
from lambent.control.layer_table import LayerName, LayerTable, LayerVersion, ResolvedLayers, parse_layer, with_statement
from lambent.errors import ClientFault, conflict, invalid_parameter, not_found, precondition_failed
from lambent.settings import Limits
from lambent.wire.call import Call

Params = Mapping[str, Any]

_NO_RESOURCE = "The resource you requested does not exist."


class Layers:
    """``load`` once before anything else."""

    def __init__(self, table: LayerTable, code: CodeStore, source: CodeSource, room: CodeRoom, clock: Clock, limits: Limits) -> None:
        self._table = table
        self._code = code
        self._source = source
        self._room = room
        self._clock = clock
        self._limits = limits

    async def load(self) -> None:
        await self._table.load()

    def uses(self, sha256: str) -> bool:
        """Whether any version consists of this content."""
        return self._table.uses(sha256)

    def copies(self, sha256: str) -> bool:
        """Whether any version needs this zip to be kept here."""
        return self._table.copies(sha256)

    def references(self, sha256: str) -> list[Reference]:
        """The objects with this content that versions refer to."""
        return self._table.references(sha256)

    async def require_accessible(self, layers: ResolvedLayers | None) -> None:
        """Refuse layers whose zips cannot be had from their buckets. Raises IPV."""
        for reference in () if layers is None else layers.references:
            if reference is not None:
                await self._require_accessible(reference)

    @property
    def removed(self) -> Callable[[str], None]:
        """Told the SHA-256 of the content of every version that goes."""
        return self._table.removed

    @removed.setter
    def removed(self, told: Callable[[str], None]) -> None:
        self._table.removed = told

    async def publish(self, call: Call, params: Params) -> dict[str, Any]:
        layer = self._own(call, "PublishLayerVersion", params["LayerName"])
        content, is_direct, reference = await self._source.layer(call, params["Content"], str(layer))
        async with self._code.put(content, direct=is_direct, reference=reference) as code:
            if reference is None:
                self._room.require(call.account, call.region, code.unzipped)

            def make(number: int) -> LayerVersion:
                return LayerVersion(
                    layer=layer,
                    version=number,
                    sha256=code.sha256,
                    size=code.size,
                    unzipped=code.unzipped,
                    created=self._clock.now(),
                    description=params.get("Description") or "",
                    license=params.get("LicenseInfo"),
                    runtimes=_given(params.get("CompatibleRuntimes")),
                    architectures=_given(params.get("CompatibleArchitectures")),
                    reference=reference,
                )

            return self._show_whole(call, await self._table.publish(make, layer))

    def get(self, call: Call, params: Params) -> dict[str, Any]:
        layer, number = self._named(params["LayerName"], call), params["VersionNumber"]
        return self._show_whole(call, self._readable(call, layer, number))

    def get_by_arn(self, call: Call, params: Params) -> dict[str, Any]:
        layer, number = parse_layer(params["Arn"], call.region, call.account) or (None, None)
        if layer is None or number is None:
            raise not_found(_NO_RESOURCE)
        return self._show_whole(call, self._readable(call, layer, number))

    async def delete(self, call: Call, params: Params) -> None:
        """A version that does not exist is no error."""
        layer, number = self._own(call, "DeleteLayerVersion", params["LayerName"]), params["VersionNumber"]
        _require_number(number)
        await self._table.change(layer, number, lambda before: None)

    def list_versions(self, call: Call, params: Params) -> dict[str, Any]:
        """Newest first."""
        layer = self._own(call, "ListLayerVersions", params["LayerName"])
        before = page_marker.decode("layer-versions", params["Marker"]) if params.get("Marker") else ""
        if before and not (before.isascii() and before.isdigit()):
            raise invalid_parameter(f"The marker '{params['Marker'][:200]}' is not valid for this operation.")
        found = [each for each in self._table.versions(layer) if _matches(each, params) and (not before or each.version < int(before))]
        page = found[: self._page(params)]
        answer: dict[str, Any] = {"LayerVersions": [_show(version) for version in page]}
        if len(found) > len(page):
            answer["NextMarker"] = page_marker.encode("layer-versions", str(page[-1].version))
        return answer

    def list_layers(self, call: Call, params: Params) -> dict[str, Any]:
        """Each layer with its latest matching version, the one published last first."""
        after = _read_place(params["Marker"]) if params.get("Marker") else None
        latest = (
            next((each for each in self._table.versions(layer) if _matches(each, params)), None)
            for layer in self._table.layers(call.account, call.region)
        )
        found = sorted((each for each in latest if each is not None and (after is None or _place(each) > after)), key=_place)
        page = found[: self._page(params)]
        answer: dict[str, Any] = {
            "Layers": [{"LayerName": each.layer.name, "LayerArn": str(each.layer), "LatestMatchingVersion": _show(each)} for each in page]
        }
        if len(found) > len(page):
            created, name = _place(page[-1])
            answer["NextMarker"] = page_marker.encode("layers", f"{created!r}/{name}")
        return answer

    # -- policies -----------------------------------------------------------------------------------------------------------------------

    async def add_permission(self, call: Call, params: Params) -> dict[str, Any]:
        layer, number = self._own(call, "AddLayerVersionPermission", params["LayerName"]), params["VersionNumber"]
        sid = params["StatementId"]
        if params.get("OrganizationId") and params["Principal"] != "*":
            raise invalid_parameter("Principal must be * when an organization id is provided.")

        def mutate(before: LayerVersion | None) -> LayerVersion:
            version = _existing(before, layer, number)
            _require_revision(version, params)
            if sid in version.statements:
                raise conflict(
                    f"The statement id ({sid}) provided already exists. "
                    "Please provide a new statement id, or remove the existing statement."
                )
            after = with_statement(version, sid, _statement(version, params), str(uuid.uuid4()))
            size = len(_policy(after).encode())
            if size > self._limits.policy:
                raise ClientFault(
                    "PolicyLengthExceededException",
                    400,
                    f"The final policy size ({size}) is bigger than the limit ({self._limits.policy}).",
                )
            return after

        after = await self._table.change(layer, number, mutate)
        assert after is not None
        return {"Statement": _compact(after.statements[sid]), "RevisionId": after.policy_revision}

    async def remove_permission(self, call: Call, params: Params) -> None:
        layer, number = self._own(call, "RemoveLayerVersionPermission", params["LayerName"]), params["VersionNumber"]
        sid = params["StatementId"]

        def mutate(before: LayerVersion | None) -> LayerVersion:
            version = _existing(before, layer, number)
            _require_revision(version, params)
            if sid not in version.statements:
                raise not_found(f"Statement {sid} is not found in resource policy.")
            return with_statement(version, sid, None, str(uuid.uuid4()))

        await self._table.change(layer, number, mutate)

    def get_policy(self, call: Call, params: Params) -> dict[str, Any]:
        layer, number = self._own(call, "GetLayerVersionPolicy", params["LayerName"]), params["VersionNumber"]
        _require_number(number)
        version = _existing(self._table.get(layer, number), layer, number)
        if not version.statements:
            raise not_found("No policy is associated with the given resource.")
        return {"Policy": _policy(version), "RevisionId": version.policy_revision}

    # -- for functions ------------------------------------------------------------------------------------------------------------------

    def resolve(self, call: Call, arns: Sequence[str]) -> ResolvedLayers:
        """The layers that a function names, bottom first. Raises IPV in AWS's words (contract 01 §5.2), 403 for those of others."""
        if len(arns) > self._limits.layers:
            raise invalid_parameter(f"Cannot reference more than {self._limits.layers} layers.")
        seen: dict[LayerName, str] = {}
        found: list[LayerVersion] = []
        for arn in arns:
            version = self._referenced(call, arn)
            if version.layer in seen:
                raise invalid_parameter(
                    "Two different versions of the same layer are not allowed to be referenced in the same function. "
                    f"{seen[version.layer]} and {arn} are versions of the same layer."
                )
            seen[version.layer] = arn
            found.append(version)
        total = sum(version.unzipped for version in found)
        if total > self._limits.code_unzipped:
            raise invalid_parameter(f"Layers consume more than the available size of {self._limits.code_unzipped} bytes")
        return ResolvedLayers(
            tuple({"Arn": version.arn, "CodeSize": version.size} for version in found),
            tuple(version.sha256 for version in found),
            total,
            tuple(version.reference for version in found),
        )

    async def _require_accessible(self, reference: Reference) -> None:
        try:
            await self._source.look(reference)
        except ObjectLost as fault:
            raise invalid_parameter(f"Error occurred while GetObject. {fault.said}") from fault

    def _referenced(self, call: Call, arn: str) -> LayerVersion:
        layer, number = parse_layer(arn, call.region, call.account) or (None, None)
        if layer is None or number is None:
            raise invalid_parameter(f"Layer version {arn} does not exist.")
        if layer.account != call.account:
            return self._readable(call, layer, number)
        if layer.region != call.region:
            raise invalid_parameter(
                f"Layers are not in the same region as the function. Layers are expected to be in region {call.region}."
            )
        version = self._table.get(layer, number)
        if version is None:
            raise invalid_parameter(f"Layer version {arn} does not exist.")
        return version

    # -- finding and showing --------------------------------------------------------------------------------------------------------------

    def _named(self, text: str, call: Call) -> LayerName:
        found = parse_layer(text, call.region, call.account)
        if found is None or found[1] is not None:
            raise not_found(_NO_RESOURCE)
        return found[0]

    def _own(self, call: Call, action: str, text: str) -> LayerName:
        """The layer, if it is of the caller's account and Region."""
        layer = self._named(text, call)
        if layer.account != call.account:
            raise denied(call, action, str(layer))
        if layer.region != call.region:
            raise not_found(_NO_RESOURCE)
        return layer

    def _readable(self, call: Call, layer: LayerName, number: int) -> LayerVersion:
        """A version of the caller's, or one whose owner lets the caller read it."""
        _require_number(number)
        version = self._table.get(layer, number) if layer.region == call.region else None
        if layer.account != call.account and (version is None or not _allows(version, call.account)):
            raise denied(call, "GetLayerVersion", f"{layer}:{number}")
        if version is None:
            raise not_found(_NO_RESOURCE)
        return version

    def _page(self, params: Params) -> int:
        return min(params.get("MaxItems") or self._limits.page, self._limits.page)

    def _show_whole(self, call: Call, version: LayerVersion) -> dict[str, Any]:
        content: dict[str, Any] = {
            "Location": self._code.location(call.base_url, version.sha256),
            "CodeSha256": base64.b64encode(bytes.fromhex(version.sha256)).decode(),
            "CodeSize": version.size,
        }
        if version.reference is not None:
            content["ResolvedS3Object"] = version.reference.shown()
        return {**_show(version), "LayerArn": str(version.layer), "Content": content}


def _show(version: LayerVersion) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "LayerVersionArn": version.arn,
        "Version": version.version,
        "Description": version.description,
        "CreatedDate": timestamp(version.created),
    }
    if version.runtimes is not None:
        shown["CompatibleRuntimes"] = list(version.runtimes)
    if version.architectures is not None:
        shown["CompatibleArchitectures"] = list(version.architectures)
    if version.license is not None:
        shown["LicenseInfo"] = version.license
    return shown


def _matches(version: LayerVersion, params: Params) -> bool:
    """Whether a version is compatible with what a list asks for. One that names nothing is compatible with nothing in particular."""
    runtime, architecture = params.get("CompatibleRuntime"), params.get("CompatibleArchitecture")
    if runtime and runtime not in (version.runtimes or ()):
        return False
    return not architecture or architecture in (version.architectures or ())


def _given(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)


def _place(version: LayerVersion) -> tuple[float, str]:
    """Where a layer stands in ListLayers."""
    return -version.created, version.layer.name


def _read_place(marker: str) -> tuple[float, str]:
    created, _, name = page_marker.decode("layers", marker).partition("/")
    try:
        return float(created), name
    except ValueError as error:
        raise invalid_parameter(f"The marker '{marker[:200]}' is not valid for this operation.") from error


def _require_number(number: int) -> None:
    if number < 1:
        raise invalid_parameter("Layer Version Cannot be less than 1")


def _existing(version: LayerVersion | None, layer: LayerName, number: int) -> LayerVersion:
    if version is None:
        raise not_found(f"Layer version {layer}:{number} does not exist.")
    return version


def _require_revision(version: LayerVersion, params: Params) -> None:
    if params.get("RevisionId") and params["RevisionId"] != version.policy_revision:
        raise precondition_failed("GetLayerPolicy")


def _statement(version: LayerVersion, params: Params) -> dict[str, Any]:
    principal = params["Principal"]
    if principal.isdigit():
        principal = f"arn:{version.layer.partition}:iam::{principal}:root"
    statement: dict[str, Any] = {
        "Sid": params["StatementId"],
        "Effect": "Allow",
        "Principal": "*" if principal == "*" else {"AWS": principal},
        "Action": params["Action"],
        "Resource": version.arn,
    }
    if params.get("OrganizationId"):
        statement["Condition"] = {"StringEquals": {"aws:PrincipalOrgID": params["OrganizationId"]}}
    return statement


def _allows(version: LayerVersion, account: str) -> bool:
    """Whether the policy lets ``account`` use this version. There are no organizations here, so whoever needs one is left out."""
    for statement in version.statements.values():
        principal = statement["Principal"]
        if "Condition" not in statement and (principal == "*" or principal["AWS"].split(":")[4] == account):
            return True
    return False


def _policy(version: LayerVersion) -> str:
    return _compact({"Version": "2012-10-17", "Id": "default", "Statement": list(version.statements.values())})


def _compact(document: Mapping[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))

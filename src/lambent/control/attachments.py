"""What other families keep with a function, one of its versions or an alias: policies, URLs, settings for asynchronous invocations.

They lie in the function's own record, so that one commit changes them together with the RevisionId, no concurrent writer loses an update,
and the deletion of the function takes them along whatever happens meanwhile. Within the record:

    attached = {family: {qualifier: document}}

The qualifier is ``""`` for what belongs to the function as a whole. Documents are JSON and never changed in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lambent.arn import LATEST, FunctionArn
from lambent.control.function_configuration import FunctionRecord
from lambent.control.function_names import missing, resolve
from lambent.control.function_table import FunctionTable
from lambent.errors import ClientFault, not_found
from lambent.wire.call import Call

Document = Mapping[str, Any]

CODE_SIGNING = "code-signing"


def attached(record: FunctionRecord, family: str, qualifier: str = "") -> Any | None:
    """The document of ``family`` at ``qualifier``, or ``None``."""
    return record.attached.get(family, {}).get(qualifier)


def all_attached(record: FunctionRecord, family: str) -> Mapping[str, Any]:
    """Every document of ``family``, by qualifier."""
    return record.attached.get(family, {})


def attach(record: FunctionRecord, family: str, qualifier: str, document: Any | None) -> FunctionRecord:
    """``record`` with this document, or with ``None`` without the one that it has."""
    held = {name: value for name, value in record.attached.get(family, {}).items() if name != qualifier}
    if document is not None:
        held[qualifier] = document
    families = {name: value for name, value in record.attached.items() if name != family}
    if held:
        families[family] = held
    return replace(record, attached=families)


def detach_all(record: FunctionRecord, qualifier: str) -> FunctionRecord:
    """``record`` without anything that belongs to ``qualifier``: its version or alias goes."""
    kept = {family: {name: value for name, value in held.items() if name != qualifier} for family, held in record.attached.items()}
    return replace(record, attached={family: held for family, held in kept.items() if held})


def signed(params: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """What CreateFunction attaches to a new function."""
    arn = params.get("CodeSigningConfigArn")
    return {CODE_SIGNING: {"": arn}} if arn else {}


def has_qualifier(record: FunctionRecord, qualifier: str | None) -> bool:
    """Whether ``$LATEST``, a version or an alias of that name exists."""
    if qualifier in (None, LATEST):
        return True
    return qualifier in record.versions or qualifier in record.aliases


def find(table: FunctionTable, call: Call, action: str, text: str, qualifier: str | None = None) -> tuple[FunctionArn, FunctionRecord]:
    """The function that ``text`` names; it and the qualifier must exist. Raises ``ClientFault``: RNF and those of ``resolve``."""
    arn = resolve(call, action, text, qualifier)
    return arn, require(table.get(arn), arn)


def require(record: FunctionRecord | None, arn: FunctionArn) -> FunctionRecord:
    """``record``, if there is one and it has the qualifier of ``arn``. A missing alias has words of its own, of a missing function, too."""
    if record is None or not has_qualifier(record, arn.qualifier):
        raise missing_qualifier(arn)
    return record


def missing_qualifier(arn: FunctionArn) -> ClientFault:
    name = arn.qualifier or LATEST
    if name.isdigit() or "$" in name:  # no alias has such a name
        return missing(arn)
    return not_found(f"Cannot find alias arn: {arn}")

"""How ``$LATEST`` becomes a numbered version. Pure; who asks for it is ``functions.py`` (Publish) and ``versions.py`` (PublishVersion)."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import replace

from lambent.control.function_configuration import Configuration, FunctionRecord
from lambent.control.function_state import CREATING_REASON, FunctionState, Phase

_NO_CHANGE = frozenset({"LastModified", "Version", "FunctionArn", "RuntimeVersionConfig", "_deactivated"})  # nobody configured these


def fingerprint(configuration: Configuration) -> str:
    """The same for two documents that would make the same version."""
    document = {name: value for name, value in configuration.items() if name not in _NO_CHANGE}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def publish(record: FunctionRecord, description: str | None = None, fence: str = "", name: str | None = None) -> tuple[FunctionRecord, str]:
    """``record`` with a new version of what it shows, and its number; the last version where nothing has changed since.

    With ``fence`` the version waits for the preparation of that id. ``name`` is ``$LATEST.PUBLISHED``, which takes the place of the one
    that there is, and no number.
    """
    printed = fingerprint(record.configuration)
    if name is not None:
        held = record.versions.get(name)
        if held is not None and description is None and fingerprint(held.configuration) == printed:
            return record, name
        version = _version(record, name, description, fence)
        return replace(record, versions={**record.versions, name: version}), name
    last = str(record.last_version)
    if printed == record.published and last in record.versions:
        return record, last
    number = str(record.last_version + 1)
    versions = {**record.versions, number: _version(record, number, description, fence)}
    return replace(record, versions=versions, last_version=int(number), published=printed), number


def _version(record: FunctionRecord, number: str, description: str | None, fence: str) -> FunctionRecord:
    configuration = {**record.configuration, "Version": number, "FunctionArn": str(record.arn.qualified(number))}
    if description is not None:
        configuration["Description"] = description
    state = FunctionState(Phase.CREATING, fence, "Creating", CREATING_REASON) if fence else FunctionState(Phase.ACTIVE)
    runs = record.versions[number].serving if number in record.versions else None  # what it replaces runs until it is ready
    return FunctionRecord(
        arn=record.arn,
        configuration=configuration,
        state=state,
        revision_id=str(uuid.uuid4()),
        serving=runs if fence else configuration,
        unzipped=record.unzipped,
    )

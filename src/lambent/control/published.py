"""How ``$LATEST`` becomes a numbered version. Pure; who asks for it is ``functions.py`` (Publish) and ``versions.py`` (PublishVersion)."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import replace

from lambent.control.function_configuration import Configuration, FunctionRecord
from lambent.control.function_state import CREATING_REASON, FunctionState, Phase

_NO_CHANGE = frozenset({"LastModified", "Version", "FunctionArn"})


def fingerprint(configuration: Configuration) -> str:
    """The same for two documents that would make the same version."""
    document = {name: value for name, value in configuration.items() if name not in _NO_CHANGE}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def publish(record: FunctionRecord, description: str | None = None, fence: str = "") -> tuple[FunctionRecord, str]:
    """``record`` with a new version of what it shows, and its number; the last version where nothing has changed since.

    With ``fence`` the version waits for the preparation of that id.
    """
    printed = fingerprint(record.configuration)
    last = str(record.last_version)
    if printed == record.published and last in record.versions:
        return record, last
    number = str(record.last_version + 1)
    configuration = {**record.configuration, "Version": number, "FunctionArn": str(record.arn.qualified(number))}
    if description is not None:
        configuration["Description"] = description
    state = FunctionState(Phase.CREATING, fence, "Creating", CREATING_REASON) if fence else FunctionState(Phase.ACTIVE)
    version = FunctionRecord(
        arn=record.arn,
        configuration=configuration,
        state=state,
        revision_id=str(uuid.uuid4()),
        serving=None if fence else configuration,
        unzipped=record.unzipped,
    )
    versions = {**record.versions, number: version}
    return replace(record, versions=versions, last_version=int(number), published=printed), number

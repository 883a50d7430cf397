"""CloudWatch Logs, as far as functions and those who read their logs need it: operation name -> method, over the log store.

JSON 1.1 errors are all 400. Bounds of single members (lengths, patterns, ranges) have been checked by the request path from botocore's
model; what depends on several members or on the store is checked here. Operations that are not here answer the honest
not-implemented error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from lambent.clock import Clock
from lambent.errors import ClientFault
from lambent.observe.log_blocks import EVENT_OVERHEAD, Event
from lambent.observe.log_entities import (
    FilterQuery,
    GroupExists,
    GroupInfo,
    LogGroup,
    LogRefusal,
    NoSuchGroup,
    NoSuchStream,
    StreamExists,
    StreamInfo,
)
from lambent.observe.log_store import LogStore
from lambent.store.contract import StoreUnavailable
from lambent.wire.call import Call

RETENTIONS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653)
_HOUR = 3_600_000
_DAY = 24 * _HOUR
_BATCH_BYTES = 1_048_576
_TAGS = 50
_CODES: dict[type[LogRefusal], str] = {
    NoSuchGroup: "ResourceNotFoundException",
    NoSuchStream: "ResourceNotFoundException",
    GroupExists: "ResourceAlreadyExistsException",
    StreamExists: "ResourceAlreadyExistsException",
}


class LogsService:
    """One coroutine per operation: the call and its parsed parameters in, the answer's members out."""

    def __init__(self, store: LogStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    # -- groups

    async def create_log_group(self, call: Call, params: dict[str, Any]) -> dict[str, Any]:
        if params.get("deletionProtectionEnabled"):
            raise _invalid("Lambent does not protect log groups from deletion yet.")
        with _translated():
            await self._store.create_group(
                _named(call, params["logGroupName"]), params.get("logGroupClass") or "STANDARD", params.get("tags") or {}
            )
        return {}

    async def delete_log_group(self, call: Call, params: dict[str, Any]) -> dict[str, Any]:
        with _translated():
            await self._store.delete_group(_named(call, params["logGroupName"]))
        return {}

    async def describe_log_groups(self, call: Call, params: dict[str, Any]) -> dict[str, Any]:
        prefix, pattern = params.get("logGroupNamePrefix") or "", params.get("logGroupNamePattern") or ""
        if prefix and pattern:
            raise _invalid("LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.")
        if params.get("logGroupIdentifiers"):
            if prefix or pattern:
                raise _invalid("logGroupIdentifiers cannot be combined with a name prefix or a name pattern.")
            return await self._describe_named(call, params["logGroupIdentifiers"])
        with _translated():
            page = await self._store.describe_groups(
                call.account, call.region, prefix, pattern, params.get("limit") or 50, params.get("nextToken")
            )
        wanted = params.get("logGroupClass")
        groups = [_group_document(info) for info in page.groups if wanted in (None, info.log_class)]
        return _with_token({"logGroups": groups}, page.token)

    async def _describe_named(self, call: Call, identifiers: list[str]) -> dict[str, Any]:
        groups = []
        for identifier in identifiers:
            group = _identified(call, identifier)
            with _translated():  # a name sorts before all longer ones that it starts
                page = await self._store.describe_groups(group.account, group.region, prefix=group.name, limit=1)
            groups += [_group_document(info) for info in page.groups if info.group == group]
        return {"logGroups": groups}

    async def put_retention_policy(self, call: Call, params: dict[str, Any]) -> dict[str, Any]:
        days = params["retentionInDays"]
        if days not in RETENTIONS:
            raise _invalid(f"Invalid retention value: {days}. Valid values are: {', '.join(map(str, RETENTIONS))}.")
        with _translated():
            await self._store.put_retention(_named(call, params["logGroupName"]), days)
        return {}

    async def delete_retention_policy(self, call: Call, params: dict[str, Any]) -> dict[str, Any]:
        with _translated():
            await self._store.delete_retention(_named(call, params["logGroupName"]))
        return {}

    # -- tags

    async def tag_resource(self, call: Call, params: dict[str, Any]) -> dict[str, Any]:
        return await self._tag(_identified(call, params["resourceArn"]), params["tags"])

    async def untag_resource(self, call: Call, params: dict[str, Any]) -> dict[str, Any]:
        with _translated():
            await self._store.change_tags(_identified(call, params["resourceArn"]), remove=params["tagKeys"])
        return {}

    async def list_tags_for_resource(self, call: Call, params: dict[str, Any]) -> dict[str, Any]:
        with _translated():
            return {"tags": await self._store.change_tags(_identified(call, params["resourceArn"]))}

    async def tag_log_group(self, call: Call, params: dict[str, Any]) -> dict[str, Any]:
        return await self._tag(_named(call, params["logGroupName"]), params["tags"])

    async def untag_log_group(self, call: Call, params: dict[str, Any]) -> dict[str, Any]:
        with _translated():
            await self._store.change_tags(_named(call, params["logGroupName"]), remove=params["tags"])
        return {}

    async def list_tags_log_group(self, call: Call, params: dict[str, Any]) -> dict[str, Any]:
        with _translated():
            return {"tags": await self._store.change_tags(_named(call, params["logGroupName"]))}

    async def _tag(self, group: LogGroup, tags: dict[str, str]) -> dict[str, Any]:
        with _translated():
            present = await self._store.change_tags(group)
            if len(present | tags) > _TAGS:
                raise ClientFault("TooManyTagsException", 400, f"A log group can have at most {_TAGS} tags.")
            await self._store.change_tags(group, tags)
        return {}

    # -- streams

    async def create_log_stream(self, call: Call, params: dict[str, Any]) -> dict[str, Any]:
        with _translated():
            await self._store.create_stream(_named(call, params["logGroupName"]).stream(params["logStreamName"]))
        return {}

    async def delete_log_stream(self, call: Call, params: dict[str, Any]) -> dict[str, Any]:
        with _translated():
            await self._store.delete_stream(_named(call, params["logGroupName"]).stream(params["logStreamName"]))
        return {}

    async def describe_log_streams(self, call: Call, params: dict[str, Any]) -> dict[str, Any]:
        group = _group(call, params)
        prefix, by_time = params.get("logStreamNamePrefix") or "", params.get("orderBy") == "LastEventTime"
        if prefix and by_time:
            raise _invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
        with _translated():
            page = await self._store.describe_streams(
                group, prefix, by_time, bool(params.get("descending")), params.get("limit") or 50, params.get("nextToken")
            )
        return _with_token({"logStreams": [_stream_document(group, info) for info in page.streams]}, page.token)

    # -- events

    async def put_log_events(self, call: Call, params: dict[str, Any]) -> dict[str, Any]:
        stream = _named(call, params["logGroupName"]).stream(params["logStreamName"])
        lines = [(event["timestamp"], event["message"]) for event in params["logEvents"]]
        _check_batch(lines)
        with _translated():
            retention = await self._retention(_named(call, params["logGroupName"]))
            accepted, rejected = _accept(lines, int(self._clock.now() * 1000), retention)
            await self._store.put_events(stream, accepted)
        answer: dict[str, Any] = {"nextSequenceToken": f"{int(self._clock.now() * 1000):056d}"}
        if rejected:
            answer["rejectedLogEventsInfo"] = rejected
        return answer

    async def _retention(self, group: LogGroup) -> int | None:
        page = await self._store.describe_groups(group.account, group.region, prefix=group.name, limit=1)
        return page.groups[0].retention if page.groups and page.groups[0].group == group else None

    async def get_log_events(self, call: Call, params: dict[str, Any]) -> dict[str, Any]:
        stream = _group(call, params).stream(params["logStreamName"])
        start, end = params.get("startTime"), params.get("endTime")
        _check_times(start, end)
        with _translated():
            page = await self._store.get_events(
                stream, start, end, bool(params.get("startFromHead")), params.get("limit") or 10_000, params.get("nextToken")
            )
        return {
            "events": [_event_document(event) for event in page.events],
            "nextForwardToken": page.forward,
            "nextBackwardToken": page.backward,
        }

    async def filter_log_events(self, call: Call, params: dict[str, Any]) -> dict[str, Any]:
        group = _group(call, params)
        start, end = params.get("startTime"), params.get("endTime")
        _check_times(start, end)
        names, prefix = params.get("logStreamNames") or (), params.get("logStreamNamePrefix") or ""
        if names and prefix:
            raise _invalid("logStreamNames and logStreamNamePrefix are mutually exclusive parameters.")
        query = FilterQuery(
            start,
            end,
            tuple(names),
            prefix,
            params.get("filterPattern") or "",
            params.get("limit") or 10_000,
            params.get("nextToken"),
            params.get("startFromHead") is not False,
        )
        with _translated():
            page = await self._store.filter_events(group, query)
        events = [{"logStreamName": name, **_event_document(event), "eventId": f"{event.key:056d}"} for name, event in page.events]
        return _with_token({"events": events, "searchedLogStreams": []}, page.token)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """The store's refusals in AWS's terms."""
    try:
        yield
    except LogRefusal as refusal:
        raise ClientFault(_CODES.get(type(refusal), "InvalidParameterException"), 400, str(refusal)) from refusal
    except StoreUnavailable as error:
        raise ClientFault("ServiceUnavailableException", 500, "The service cannot complete the request.") from error


def _invalid(message: str) -> ClientFault:
    return ClientFault("InvalidParameterException", 400, message)


def _named(call: Call, name: str) -> LogGroup:
    return LogGroup(call.account, call.region, name)


def _identified(call: Call, identifier: str) -> LogGroup:
    """A group by its name or by its ARN, with or without ``:*`` at the end."""
    if not identifier.startswith("arn:"):
        return _named(call, identifier)
    parts = identifier.removesuffix(":*").split(":")
    if len(parts) != 7 or parts[2] != "logs" or parts[5] != "log-group":
        raise _invalid("The ARN is not the ARN of a log group.")
    if (parts[4], parts[3]) != (call.account, call.region):
        raise ClientFault("ResourceNotFoundException", 400, NoSuchGroup.text)
    return _named(call, parts[6])


def _group(call: Call, params: dict[str, Any]) -> LogGroup:
    """The group that ``logGroupName`` or ``logGroupIdentifier`` names; exactly one of them is given."""
    name, identifier = params.get("logGroupName"), params.get("logGroupIdentifier")
    if (name is None) is (identifier is None):
        raise _invalid("Exactly one of logGroupName and logGroupIdentifier must be specified.")
    return _named(call, name) if name is not None else _identified(call, str(identifier))


def _check_times(start: int | None, end: int | None) -> None:
    if start is not None and end is not None and end < start:
        raise _invalid("endTime must not be before startTime.")


def _check_batch(lines: list[tuple[int, str]]) -> None:
    size = sum(len(message.encode("utf-8", "replace")) + EVENT_OVERHEAD for _, message in lines)
    if size > _BATCH_BYTES:
        raise _invalid(f"Upload too large: {size} bytes exceeds limit of {_BATCH_BYTES}")
    if any(later[0] < earlier[0] for earlier, later in pairwise(lines)):
        raise _invalid("Log events in a single PutLogEvents request must be in chronological order.")


def _accept(lines: list[tuple[int, str]], now: int, retention: int | None) -> tuple[list[tuple[int, str]], dict[str, int]]:
    """Which events are neither too old nor too new, and what to tell about the others. The lines are in order of time."""
    expired = 0 if retention is None else sum(stamp < now - retention * _DAY for stamp, _ in lines)
    old = sum(stamp < now - 14 * _DAY for stamp, _ in lines)
    fresh = len(lines) - sum(stamp > now + 2 * _HOUR for stamp, _ in lines)
    accepted = lines[max(expired, old) : fresh]
    if accepted and accepted[-1][0] - accepted[0][0] > _DAY:
        raise _invalid("The batch of log events in a single PutLogEvents request cannot span more than 24 hours.")
    rejected = {}
    if fresh < len(lines):
        rejected["tooNewLogEventStartIndex"] = fresh
    if old:
        rejected["tooOldLogEventEndIndex"] = old
    if expired:
        rejected["expiredLogEventEndIndex"] = expired
    return accepted, rejected


def _with_token(answer: dict[str, Any], token: str | None) -> dict[str, Any]:
    return answer if token is None else {**answer, "nextToken": token}


def _arn(group: LogGroup) -> str:
    return f"arn:aws:logs:{group.region}:{group.account}:log-group:{group.name}"


def _group_document(info: GroupInfo) -> dict[str, Any]:
    document: dict[str, Any] = {
        "logGroupName": info.group.name,
        "creationTime": info.created,
        "metricFilterCount": 0,
        "arn": f"{_arn(info.group)}:*",
        "storedBytes": info.size,
        "logGroupClass": info.log_class,
        "logGroupArn": _arn(info.group),
        "deletionProtectionEnabled": False,
    }
    if info.retention is not None:
        document["retentionInDays"] = info.retention
    return document


def _stream_document(group: LogGroup, info: StreamInfo) -> dict[str, Any]:
    document: dict[str, Any] = {
        "logStreamName": info.name,
        "creationTime": info.created,
        "arn": f"{_arn(group)}:log-stream:{info.name}",
        "storedBytes": 0,  # AWS has reported 0 for every stream since 2019
    }
    times = {"firstEventTimestamp": info.first_event, "lastEventTimestamp": info.last_event, "lastIngestionTime": info.last_ingestion}
    return document | {name: value for name, value in times.items() if value is not None}


def _event_document(event: Event) -> dict[str, Any]:
    return {"timestamp": event.timestamp, "message": event.message, "ingestionTime": event.ingested}

"""Amazon SQS: operation name -> method. Shapes are those of botocore's ``sqs`` model; what a queue is, is ``lambent.queues``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lambent.clock import Clock
from lambent.errors import ClientFault
from lambent.queues import faults, messages
from lambent.queues.attributes import DEFAULTS, FIFO_DEFAULTS
from lambent.queues.directory import Directory
from lambent.queues.facts import system_attributes
from lambent.queues.mailbox import Mailbox, Outgoing, Received, Sent
from lambent.queues.moves import Moves
from lambent.queues.policy import add_permission, remove_permission
from lambent.queues.queue import Queue
from lambent.wire.call import Call

Params = dict[str, Any]

BATCH = 10
EVERYBODY = 1 << 30
PURGE_S = 60.0
_ENTRY_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")
_SHOWN = (*DEFAULTS, "Policy", "RedrivePolicy", "RedriveAllowPolicy", "KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds")
_COUNTED = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed")
_FACTS = ("QueueArn", "CreatedTimestamp", "LastModifiedTimestamp")
_KNOWN = frozenset((*_SHOWN, *_COUNTED, *_FACTS, *FIFO_DEFAULTS))


class SqsService:
    """One method per operation."""

    def __init__(self, directory: Directory, mailbox: Mailbox, moves: Moves, clock: Clock, in_flight: int = 120_000) -> None:
        self._directory = directory
        self._mailbox = mailbox
        self._moves = moves
        self._clock = clock
        self._in_flight = in_flight
        self._purged: dict[str, float] = {}

    # -- queues ----------------------------------------------------------------------------------------------------------------

    async def create_queue(self, call: Call, params: Params) -> dict[str, Any]:
        name = params["QueueName"]
        queue = await self._directory.create(call.account, call.region, name, params.get("Attributes") or {}, params.get("tags") or {})
        return {"QueueUrl": _url(call, queue)}

    async def delete_queue(self, call: Call, params: Params) -> dict[str, Any]:
        queue = self._queue(call, params)
        await self._directory.delete(queue)
        self._mailbox.bell.ring(queue.store_name, EVERYBODY)
        return {}

    async def get_queue_url(self, call: Call, params: Params) -> dict[str, Any]:
        owner = params.get("QueueOwnerAWSAccountId") or call.account
        return {"QueueUrl": _url(call, self._directory.find(owner, call.region, params["QueueName"]))}

    async def list_queues(self, call: Call, params: Params) -> dict[str, Any]:
        queues = self._directory.list_queues(call.account, call.region, params.get("QueueNamePrefix") or "")
        return _page(params, [_url(call, queue) for queue in queues], "QueueUrls")

    async def list_dead_letter_source_queues(self, call: Call, params: Params) -> dict[str, Any]:
        sources = self._directory.sources_of(self._queue(call, params))
        return {"queueUrls": [], **_page(params, [_url(call, queue) for queue in sources], "queueUrls")}

    async def get_queue_attributes(self, call: Call, params: Params) -> dict[str, Any]:
        queue = self._queue(call, params)
        asked = params.get("AttributeNames") or []
        for name in asked:
            if name != "All" and name not in _KNOWN:
                raise faults.unknown_attribute(name)
        wanted = _KNOWN if "All" in asked else frozenset(asked)
        found = await self._attributes(queue, wanted)
        return {"Attributes": found} if found else {}

    async def _attributes(self, queue: Queue, wanted: frozenset[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        if wanted & set(_COUNTED):
            counts = await self._mailbox.counts(queue)
            found.update(zip(_COUNTED, map(str, (counts.visible, counts.leased, counts.delayed)), strict=True))
        found["QueueArn"] = queue.arn
        found["CreatedTimestamp"], found["LastModifiedTimestamp"] = str(queue.created), str(queue.modified)
        for name in (*_SHOWN, *(FIFO_DEFAULTS if queue.is_fifo else ())):
            if name == "SqsManagedSseEnabled" and queue.attribute("KmsMasterKeyId"):
                found[name] = "false"
            elif queue.attribute(name):
                found[name] = queue.attribute(name)
        return {name: value for name, value in found.items() if name in wanted}

    async def set_queue_attributes(self, call: Call, params: Params) -> dict[str, Any]:
        await self._directory.set_attributes(self._queue(call, params), params["Attributes"])
        return {}

    async def purge_queue(self, call: Call, params: Params) -> dict[str, Any]:
        queue = self._queue(call, params)
        now = self._clock.monotonic()
        if now - self._purged.get(queue.uid, -PURGE_S) < PURGE_S:
            raise faults.purge_in_progress(queue.name)
        self._purged[queue.uid] = now
        await self._directory.empty(queue)
        return {}

    async def tag_queue(self, call: Call, params: Params) -> dict[str, Any]:
        queue = self._queue(call, params)
        await self._directory.set_tags(queue, {**queue.tags, **params["Tags"]})
        return {}

    async def untag_queue(self, call: Call, params: Params) -> dict[str, Any]:
        queue = self._queue(call, params)
        gone = set(params["TagKeys"])
        await self._directory.set_tags(queue, {key: value for key, value in queue.tags.items() if key not in gone})
        return {}

    async def list_queue_tags(self, call: Call, params: Params) -> dict[str, Any]:
        tags = dict(self._queue(call, params).tags)
        return {"Tags": tags} if tags else {}

    async def add_permission(self, call: Call, params: Params) -> dict[str, Any]:
        queue = self._queue(call, params)
        policy = add_permission(queue, params["Label"], params["AWSAccountIds"], params["Actions"])
        await self._directory.set_attributes(queue, {"Policy": policy})
        return {}

    async def remove_permission(self, call: Call, params: Params) -> dict[str, Any]:
        queue = self._queue(call, params)
        await self._directory.set_attributes(queue, {"Policy": remove_permission(queue, params["Label"])})
        return {}

    # -- messages --------------------------------------------------------------------------------------------------------------

    async def send_message(self, call: Call, params: Params) -> dict[str, Any]:
        queue = self._queue(call, params)
        outgoing = _outgoing(call, params)
        (sent,) = await self._mailbox.send(queue, [outgoing])
        if isinstance(sent, ClientFault):
            raise sent
        return _told(queue, outgoing, sent)

    async def send_message_batch(self, call: Call, params: Params) -> dict[str, Any]:
        queue = self._queue(call, params)
        entries = _entries(params, "SendMessageBatchRequestEntry")
        outgoing = [_outgoing(call, entry) for entry in entries]
        limit = int(DEFAULTS["MaximumMessageSize"])
        size = sum(messages.size_of(each.text, each.attributes) for each in outgoing)
        if size > limit:
            raise faults.batch_too_long(limit, size)
        results = await self._mailbox.send(queue, outgoing)
        told = zip(entries, outgoing, results, strict=True)
        return _batch(
            {"Id": entry["Id"], **_told(queue, each, sent)} if isinstance(sent, Sent) else messages.as_failure(entry["Id"], sent)
            for entry, each, sent in told
        )

    async def receive_message(self, call: Call, params: Params) -> dict[str, Any]:
        queue = self._queue(call, params)
        limit = _within(params, "MaxNumberOfMessages", 1, BATCH, 1)
        visibility = _within(params, "VisibilityTimeout", 0, 43_200, queue.number("VisibilityTimeout"))
        wait = _within(params, "WaitTimeSeconds", 0, 20, queue.number("ReceiveMessageWaitTimeSeconds"))
        received = await self._mailbox.receive(queue, limit, visibility, wait)
        shown = [show(queue, each, _system_names(params), params.get("MessageAttributeNames") or []) for each in received]
        return {"Messages": shown} if shown else {}

    async def delete_message(self, call: Call, params: Params) -> dict[str, Any]:
        queue = self._queue(call, params)
        await self._mailbox.delete(queue, [messages.read_handle(params["ReceiptHandle"], queue.uid)[0]])
        return {}

    async def delete_message_batch(self, call: Call, params: Params) -> dict[str, Any]:
        queue = self._queue(call, params)
        entries = _entries(params, "DeleteMessageBatchRequestEntry")
        receipts, results = _read_handles(queue, entries)
        await self._mailbox.delete(queue, [receipt for receipt, _ in receipts.values()])
        return _batch(results)

    async def change_message_visibility(self, call: Call, params: Params) -> dict[str, Any]:
        queue = self._queue(call, params)
        receipt, message_id = messages.read_handle(params["ReceiptHandle"], queue.uid)
        seconds = _within(params, "VisibilityTimeout", 0, 43_200, 0)
        if await self._mailbox.change_visibility(queue, [(receipt, seconds)]) == [False]:
            raise faults.not_in_flight(message_id)
        return {}

    async def change_message_visibility_batch(self, call: Call, params: Params) -> dict[str, Any]:
        queue = self._queue(call, params)
        entries = _entries(params, "ChangeMessageVisibilityBatchRequestEntry")
        receipts, results = _read_handles(queue, entries)
        changes = []
        for entry in entries:
            if entry["Id"] in receipts:
                try:
                    changes.append((entry["Id"], receipts[entry["Id"]], _within(entry, "VisibilityTimeout", 0, 43_200, 0)))
                except ClientFault as fault:
                    results = [each if each["Id"] != entry["Id"] else messages.as_failure(entry["Id"], fault) for each in results]
        held = await self._mailbox.change_visibility(queue, [(receipt, seconds) for _, (receipt, _), seconds in changes])
        for (entry_id, (_, message_id), _), still in zip(changes, held, strict=True):
            if not still:
                failure = messages.as_failure(entry_id, faults.not_in_flight(message_id))
                results = [each if each["Id"] != entry_id else failure for each in results]
        return _batch(results)

    # -- moves -----------------------------------------------------------------------------------------------------------------

    async def start_message_move_task(self, call: Call, params: Params) -> dict[str, Any]:
        source = self._by_arn(params["SourceArn"])
        destination = self._by_arn(params["DestinationArn"]) if params.get("DestinationArn") else None
        per_second = _within(params, "MaxNumberOfMessagesPerSecond", 1, 500, 0)
        return {"TaskHandle": (await self._moves.start(source, destination, per_second)).handle}

    async def cancel_message_move_task(self, call: Call, params: Params) -> dict[str, Any]:
        return {"ApproximateNumberOfMessagesMoved": await self._moves.cancel(params["TaskHandle"])}

    async def list_message_move_tasks(self, call: Call, params: Params) -> dict[str, Any]:
        limit = _within(params, "MaxResults", 1, 10, 1)
        results = []
        for move in self._moves.of(self._by_arn(params["SourceArn"]).arn)[:limit]:
            shown: dict[str, Any] = {
                "Status": move.status,
                "SourceArn": move.source,
                "ApproximateNumberOfMessagesMoved": move.moved,
                "ApproximateNumberOfMessagesToMove": move.total,
                "StartedTimestamp": move.started_ms,
            }
            optional = {"DestinationArn": move.destination, "MaxNumberOfMessagesPerSecond": move.per_second, "FailureReason": move.reason}
            shown.update({name: value for name, value in optional.items() if value})
            if move.status == "RUNNING":
                shown["TaskHandle"] = move.handle
            results.append(shown)
        return {"Results": results}

    # -- helpers ---------------------------------------------------------------------------------------------------------------

    def _queue(self, call: Call, params: Params) -> Queue:
        return self._directory.by_url(params["QueueUrl"], call.region)

    def _by_arn(self, arn: str) -> Queue:
        queue = self._directory.by_arn(arn)
        if queue is None:
            raise faults.not_found("The resource that you specified for the SourceArn parameter doesn't exist.")
        return queue


def _url(call: Call, queue: Queue) -> str:
    return f"{call.base_url}/{queue.account}/{queue.name}"


def _page(params: Params, urls: list[str], member: str) -> dict[str, Any]:
    """Pages of ``MaxResults``, without which there is one page of 1,000 and no token."""
    limit = params.get("MaxResults")
    token = params.get("NextToken") or ""
    rest = [url for url in urls if not token or url > token]
    page = rest[: limit or 1_000]
    answer: dict[str, Any] = {member: page} if page else {}
    if limit and len(rest) > limit:
        answer["NextToken"] = page[-1]
    return answer


def _within(params: Mapping[str, Any], name: str, low: int, high: int, default: int) -> int:
    value = params.get(name)
    if value is None:
        return default
    if not low <= value <= high:
        reason = (
            f"Must be between {low} and {high}, if provided." if name != "VisibilityTimeout" else "VisibilityTimeout must be 0 to 43200."
        )
        raise faults.invalid_value(f"Value {value} for parameter {name} is invalid. Reason: {reason}")
    return int(value)


def _entries(params: Params, kind: str) -> list[Params]:
    entries: list[Params] = params.get("Entries") or []
    if not entries:
        raise faults.empty_batch(kind)
    if len(entries) > BATCH:
        raise faults.too_many_entries(len(entries))
    seen: set[str] = set()
    for entry in entries:
        if not _ENTRY_ID.fullmatch(entry["Id"]):
            raise faults.bad_entry_id()
        if entry["Id"] in seen:
            raise faults.same_ids(entry["Id"])
        seen.add(entry["Id"])
    return entries


def _outgoing(call: Call, params: Params) -> Outgoing:
    given = params.get("MessageAttributes") or {}
    attributes = {
        name: {key: value[key] for key in ("DataType", "StringValue", "BinaryValue") if value.get(key) is not None}
        for name, value in given.items()
    }
    system = params.get("MessageSystemAttributes") or {}
    if set(system) - {"AWSTraceHeader"}:
        raise faults.invalid_value("Message system attribute name is invalid. The supported one is AWSTraceHeader.")
    return Outgoing(
        text=params["MessageBody"],
        sender=call.principal.rpartition("/")[2] if "/" in call.principal else call.account,
        delay=params.get("DelaySeconds"),
        attributes=attributes,
        trace=(system.get("AWSTraceHeader") or {}).get("StringValue") or "",
        group=params.get("MessageGroupId") or "",
        deduplication=params.get("MessageDeduplicationId") or "",
    )


def _told(queue: Queue, outgoing: Outgoing, sent: Sent) -> dict[str, Any]:
    told = {"MessageId": sent.message_id, "MD5OfMessageBody": messages.md5_of(outgoing.text)}
    if outgoing.attributes:
        told["MD5OfMessageAttributes"] = messages.md5_of_attributes(outgoing.attributes)
    if outgoing.trace:
        trace = {"AWSTraceHeader": {"DataType": "String", "StringValue": outgoing.trace}}
        told["MD5OfMessageSystemAttributes"] = messages.md5_of_attributes(trace)
    if queue.is_fifo and sent.position:
        told["SequenceNumber"] = messages.sequence_number(sent.position)
    return told


def _batch(results: Any) -> dict[str, Any]:
    successful: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for each in results:
        (failed if "SenderFault" in each else successful).append(each)
    return {"Successful": successful, **({"Failed": failed} if failed else {})}


def _read_handles(queue: Queue, entries: Sequence[Params]) -> tuple[dict[str, tuple[str, str]], list[dict[str, Any]]]:
    """Receipts and message ids by entry, and a result for each entry."""
    receipts: dict[str, tuple[str, str]] = {}
    results: list[dict[str, Any]] = []
    for entry in entries:
        try:
            receipts[entry["Id"]] = messages.read_handle(entry["ReceiptHandle"], queue.uid)
            results.append({"Id": entry["Id"]})
        except ClientFault as fault:
            results.append(messages.as_failure(entry["Id"], fault))
    return receipts, results


def _system_names(params: Params) -> set[str]:
    return {*(params.get("AttributeNames") or []), *(params.get("MessageSystemAttributeNames") or [])}


def show(queue: Queue, received: Received, system: set[str], attributes: Sequence[str]) -> dict[str, Any]:
    """A message in the shape of the model."""
    body = received.body
    shown: dict[str, Any] = {
        "MessageId": body.message_id,
        "ReceiptHandle": messages.receipt_handle(queue.uid, received.receipt, body.message_id),
        "MD5OfBody": messages.md5_of(body.text),
        "Body": body.text,
    }
    facts = system_attributes(queue, received)
    wanted = facts if "All" in system else {name: value for name, value in facts.items() if name in system}
    if wanted:
        shown["Attributes"] = wanted
    chosen = messages.selected(body.attributes, attributes)
    if chosen:
        shown["MessageAttributes"] = {name: dict(value) for name, value in chosen.items()}
        shown["MD5OfMessageAttributes"] = messages.md5_of_attributes(chosen)
    return shown

"""All queues of the node: made, found, changed, listed, deleted. The documents are in the store; what is asked often is in memory."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lambent.clock import Clock
from lambent.queues import attributes as rules
from lambent.queues import faults
from lambent.queues.queue import Queue, queue_key
from lambent.store.contract import Delete, Put, Store

_KIND = "sqs-queue"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo")
_ARN = re.compile(r"arn:[\w-]+:sqs:([\w-]+):(\d{12}):(.+)")
TAGS = 50


class Directory:
    """Queues by account, region and name."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._queues: dict[str, Queue] = {}

    async def load(self) -> None:
        """Read what there is, and sweep the messages of queues that were deleted when the node was killed."""
        after = ""
        while records := await self._store.scan(_KIND, after=after):
            for record in records:
                self._queues[record.key] = Queue(**record.value)
            after = records[-1].key
        alive = {queue.store_name for queue in self._queues.values()}
        for name in await self._store.queues("sqs/"):
            if name not in alive:
                await self._empty(name)

    def find(self, account: str, region: str, name: str) -> Queue:
        """Raises ``ClientFault``: QueueDoesNotExist."""
        queue = self._queues.get(queue_key(account, region, name))
        if queue is None:
            raise faults.no_such_queue()
        return queue

    def by_arn(self, arn: str) -> Queue | None:
        match = _ARN.fullmatch(arn)
        return self._queues.get(queue_key(match[2], match[1], match[3])) if match else None

    def by_url(self, url: str, region: str) -> Queue:
        """The queue at ``http://.../account/name``. Raises ``ClientFault``."""
        parts = url.rstrip("/").rsplit("/", 2)
        if len(parts) < 2:
            raise faults.fault("InvalidAddress", f"The address {url} is not valid for this endpoint.")
        account = parts[-2] if len(parts) > 2 else ""
        return self.find(account, region, parts[-1])

    def current(self, queue: Queue) -> Queue | None:
        """``queue`` as it stands now; ``None`` if it has been deleted."""
        found = self._queues.get(queue.key)
        return found if found is not None and found.uid == queue.uid else None

    def list_queues(self, account: str, region: str, prefix: str = "") -> list[Queue]:
        start = queue_key(account, region, prefix)
        return [self._queues[key] for key in sorted(self._queues) if key.startswith(start)]

    def all_queues(self) -> list[Queue]:
        return list(self._queues.values())

    def sources_of(self, target: Queue) -> list[Queue]:
        """The queues whose dead letters go to ``target``."""
        return [queue for queue in self._queues.values() if queue.redrive is not None and queue.redrive.target == target.arn]

    async def create(self, account: str, region: str, name: str, given: Mapping[str, str], tags: Mapping[str, str]) -> Queue:
        """A new queue, or the one that there is if all that is ``given`` agrees with it. Raises ``ClientFault``."""
        if not _NAME.fullmatch(name):
            raise faults.invalid_value("Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length")
        fifo = name.endswith(".fifo")
        if fifo and given.get("FifoQueue") != "true":
            raise faults.invalid_value(
                "The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, "
                "must end with .fifo suffix and be 1 to 80 in length, and its attribute FifoQueue must be true."
            )
        checked = rules.check(given, fifo)
        found = self._queues.get(queue_key(account, region, name))
        if found is not None:
            for attribute, value in checked.items():
                if not _same(found.attribute(attribute), value):
                    raise faults.name_taken(attribute)
            return found
        now = int(self._clock.now())
        queue = Queue(account, region, name, uuid.uuid4().hex, now, now, checked, dict(tags))
        self._check_redrive(queue)
        await self._keep(queue)
        return queue

    async def set_attributes(self, queue: Queue, given: Mapping[str, str]) -> None:
        """Raises ``ClientFault``."""
        checked = rules.check(given, queue.is_fifo)
        if "FifoQueue" in checked:
            raise faults.unknown_attribute("FifoQueue")
        changed = replace(queue, given={**queue.given, **checked}, modified=int(self._clock.now()))
        self._check_redrive(changed)
        await self._keep(changed)

    async def set_tags(self, queue: Queue, tags: Mapping[str, str]) -> None:
        if len(tags) > TAGS:
            raise faults.invalid_value(f"Too many tags added for queue {queue.name}.")
        await self._keep(replace(queue, tags=dict(tags)))

    async def delete(self, queue: Queue) -> None:
        await self._store.commit(Delete(_KIND, queue.key))
        self._queues.pop(queue.key, None)
        await self._empty(queue.store_name)

    async def empty(self, queue: Queue) -> None:
        """Take every message off."""
        await self._empty(queue.store_name)

    async def _empty(self, name: str) -> None:
        while await self._store.purge(name):
            pass

    async def _keep(self, queue: Queue) -> None:
        await self._store.commit(Put(_KIND, queue.key, queue.document()))
        self._queues[queue.key] = queue

    def _check_redrive(self, queue: Queue) -> None:
        redrive = queue.redrive
        if redrive is None:
            return
        text = queue.given["RedrivePolicy"]
        target = self.by_arn(redrive.target)
        problem = ""
        if target is None:
            problem = "Dead letter target does not exist."
        elif target.is_fifo != queue.is_fifo:
            problem = "Dead-letter queue must be same type of queue as the source."
        elif not target.lets_redrive(queue.arn):
            problem = "Dead-letter queue does not allow this queue as its source."
        if problem:
            raise faults.invalid_value(f"Value {text} for parameter RedrivePolicy is invalid. Reason: {problem}")


def _same(held: str, given: str) -> bool:
    if held == given:
        return True
    try:
        one: Any = json.loads(held)
        other: Any = json.loads(given)
    except ValueError:
        return False
    return bool(one == other)

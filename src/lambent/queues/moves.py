"""Message move tasks: dead letters go back to where they came from, or to a queue of one's choice.

A task is a document; its progress is written as it goes, so that a restart goes on where it was. Each message changes queues in one commit.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass, replace
from typing import Any

from lambent.clock import Clock
from lambent.queues import faults, messages
from lambent.queues.bell import Bell
from lambent.queues.directory import Directory
from lambent.queues.queue import Queue
from lambent.store.contract import Acknowledge, Enqueue, Put, Store

_KIND = "sqs-move"
_BATCH = 10
_HOLD_S = 60.0
_KEPT = 10

Spawn = Callable[[Coroutine[Any, Any, None]], object]


@dataclass(frozen=True, slots=True)
class Move:
    """One task. ``status`` is RUNNING, COMPLETED, CANCELLING, CANCELLED or FAILED."""

    task: str
    source: str  # ARN
    destination: str  # ARN, or "" for where each message came from
    per_second: int  # 0: as fast as it goes
    total: int
    started_ms: int
    status: str = "RUNNING"
    moved: int = 0
    reason: str = ""

    @property
    def handle(self) -> str:
        return base64.b64encode(json.dumps({"taskId": self.task, "sourceArn": self.source}).encode()).decode()


class Moves:
    """All move tasks of the node."""

    def __init__(self, store: Store, directory: Directory, bell: Bell, clock: Clock, spawn: Spawn) -> None:
        self._store = store
        self._directory = directory
        self._bell = bell
        self._clock = clock
        self._spawn = spawn
        self._moves: dict[str, Move] = {}

    async def load(self) -> None:
        """Go on with what was running."""
        for record in await self._store.scan(_KIND):
            move = Move(**record.value)
            self._moves[move.task] = move
            if move.status == "CANCELLING":
                await self._keep(replace(move, status="CANCELLED"))
            elif move.status == "RUNNING":
                self._spawn(self._run(move.task))

    def of(self, source: str) -> list[Move]:
        """The tasks that empty ``source``, newest first."""
        found = [move for move in self._moves.values() if move.source == source]
        return sorted(found, key=lambda move: -move.started_ms)[:_KEPT]

    async def start(self, source: Queue, destination: Queue | None, per_second: int) -> Move:
        """Raises ``ClientFault``."""
        if any(move.status in {"RUNNING", "CANCELLING"} for move in self.of(source.arn)):
            raise faults.unsupported(
                "There is already a task running. Only one active task is allowed for a source queue arn at a given time."
            )
        if not self._directory.sources_of(source):
            raise faults.invalid_value("Source queue must be configured as a Dead Letter Queue.")
        now = self._clock.now()
        total = (await self._store.counts(source.store_name, now)).visible
        move = Move(str(uuid.uuid4()), source.arn, destination.arn if destination else "", per_second, total, int(now * 1000))
        await self._keep(move)
        self._spawn(self._run(move.task))
        return move

    async def cancel(self, handle: str) -> int:
        """How many messages it had moved. Raises ``ClientFault``."""
        try:
            task = str(json.loads(base64.b64decode(handle, validate=True))["taskId"])
        except (ValueError, KeyError, TypeError) as error:
            raise faults.invalid_value("Value for parameter TaskHandle is invalid.") from error
        move = self._moves.get(task)
        if move is None:
            raise faults.not_found("Task does not exist.")
        if move.status != "RUNNING":
            raise faults.unsupported("Only active tasks can be cancelled.")
        await self._keep(replace(move, status="CANCELLING"))
        return move.moved

    async def _run(self, task: str) -> None:
        while True:
            move = self._moves[task]
            if move.status != "RUNNING":
                await self._keep(replace(move, status="CANCELLED"))
                return
            moved, problem = await self._step(move)
            move = replace(self._moves[task], moved=move.moved + moved)
            if problem or not moved:
                done = "FAILED" if problem else "COMPLETED"
                await self._keep(replace(move, status=done if move.status == "RUNNING" else "CANCELLED", reason=problem))
                return
            await self._keep(move)
            if move.per_second:
                await self._clock.sleep(moved / move.per_second)

    async def _step(self, move: Move) -> tuple[int, str]:
        """(how many were moved, why not all)."""
        source = self._directory.by_arn(move.source)
        if source is None:
            return 0, "AWS.SimpleQueueService.NonExistentQueue"
        limit = min(_BATCH, move.per_second or _BATCH)
        held = await self._store.lease(source.store_name, limit, self._clock.now(), _HOLD_S, ordered=source.is_fifo)
        moved = 0
        for message in held:
            body = messages.decode(message.body)
            target = self._directory.by_arn(move.destination or body.source)
            if target is None:
                return moved, "CouldNotDetermineMessageSource" if not body.source else "AWS.SimpleQueueService.NonExistentQueue"
            fresh = replace(body, source="")
            await self._store.commit(
                Acknowledge(source.store_name, message.receipt), Enqueue(target.store_name, fresh.encode(), 0.0, message.group)
            )
            self._bell.ring(target.store_name)
            moved += 1
        return moved, ""

    async def _keep(self, move: Move) -> None:
        self._moves[move.task] = move
        await self._store.commit(Put(_KIND, move.task, asdict(move)))

"""All mappings at work: a poller for each that is enabled, started, changed and drained as the control plane says.

A kind of source is a line in a table: how to open it, how to read a plan off a mapping's configuration, and under which keys its payload
lies for filters. Streams, Kafka and brokers are further lines, with one file each that implements ``source.Source``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lambent.clock import Clock
from lambent.errors import LambentError
from lambent.invoke.fittings import StoryRecorder
from lambent.invoke.lanes import Point
from lambent.sources.mapping import MappingTable, PolledMapping
from lambent.sources.poller import Door, Poller
from lambent.sources.record import Plan
from lambent.sources.source import Source

log = logging.getLogger("lambent.sources")


@dataclass(frozen=True, slots=True)
class SourceKind:
    """How sources of one kind are polled."""

    open: Callable[[str], Source]  # by ARN
    plan: Callable[[Mapping[str, Any]], Plan]
    payload_keys: tuple[str, ...]


class Pollers:
    """``start`` once, when everything else is there; ``close`` before the data plane closes. ``at``: see ``poller.MAPPING_POINTS``."""

    def __init__(
        self, kinds: Mapping[str, SourceKind], door: Door, clock: Clock, story: StoryRecorder, at: Point = lambda name: None
    ) -> None:
        self._kinds = kinds
        self._door = door
        self._clock = clock
        self._story = story
        self._at = at
        self._running: dict[str, Poller] = {}
        self._draining: dict[str, set[Poller]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def start(self, mappings: MappingTable) -> None:
        for kind in self._kinds:
            mappings.serve(kind)
        mappings.listen(self._changed)
        for mapping in mappings.all():
            self._changed(None, mapping)

    async def drained(self, mapping_uuid: str) -> None:
        """Until no batch of the mapping is in flight that began before it was switched off."""
        for poller in list(self._draining.get(mapping_uuid, ())):
            await poller.stopped.wait()

    async def close(self, seconds: float) -> None:
        """Drain all; what runs for longer than ``seconds`` is left to its visibility timeout. The second time there is nothing to do."""
        if self._closed:
            return
        self._closed = True
        for mapping_uuid in list(self._running):
            self._stop(mapping_uuid)
        left = [poller for pollers in self._draining.values() for poller in pollers]
        waits = [asyncio.ensure_future(poller.stopped.wait()) for poller in left]
        if waits:
            timer = self._clock.call_later(seconds, lambda: [wait.cancel() for wait in waits])
            await asyncio.gather(*waits, return_exceptions=True)
            timer.cancel()
        for poller in left:
            if not poller.stopped.is_set():
                await poller.abandon()
        for task in list(self._tasks):
            task.cancel()

    def _changed(self, before: PolledMapping | None, after: PolledMapping | None) -> None:
        mapping = after or before
        if mapping is None or mapping.kind not in self._kinds or self._closed:
            return
        running = self._running.get(mapping.uuid)
        if after is None or not after.polled:
            if running is not None:
                self._stop(mapping.uuid)
        elif running is None:
            self._begin(after)
        else:
            running.change(after, self._kinds[after.kind].plan(after.config))

    def _begin(self, mapping: PolledMapping) -> None:
        kind = self._kinds[mapping.kind]
        try:
            poller = Poller(
                mapping,
                kind.plan(mapping.config),
                kind.payload_keys,
                kind.open(mapping.source),
                self._door,
                self._clock,
                self._story,
                self._at,
            )
        except LambentError as error:  # a mapping of an older version that is not understood must not keep the node from starting
            log.error("mapping %s cannot be polled: %s", mapping.uuid, error)
            return
        self._running[mapping.uuid] = poller
        poller.start()

    def _stop(self, mapping_uuid: str) -> None:
        poller = self._running.pop(mapping_uuid)
        self._draining.setdefault(mapping_uuid, set()).add(poller)
        poller.stop()
        task = asyncio.get_running_loop().create_task(self._forget(mapping_uuid, poller))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forget(self, mapping_uuid: str, poller: Poller) -> None:
        await poller.stopped.wait()
        pollers = self._draining.get(mapping_uuid, set())
        pollers.discard(poller)
        if not pollers:
            self._draining.pop(mapping_uuid, None)

"""Functions that nobody uses for long become Inactive, and the invocation that finds one so wakes it (contract 01 §3).

AWS does it to functions that hold something dear while they rest: a network interface, a mounted file system, an optimised image. So do
we, for the same functions, after the setting ``limits.idle_seconds``; AWS's time is some weeks and not told, ours is never, unless it is
set. In use is what has an environment, so nothing is counted per invocation: the environments of the moment are looked at, now and then.
A restart of the server begins the time anew. Published versions do not rest; their function does not either while they have environments.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from lambent.arn import LATEST, FunctionArn
from lambent.clock import Clock
from lambent.control.function_configuration import reference_of
from lambent.control.function_state import IDLE_REASON, Event, Idle, Phase, Wake
from lambent.control.function_table import FunctionTable
from lambent.control.image_code import is_image
from lambent.errors import ClientFault
from lambent.function_version import FunctionVersion

Report = Callable[[FunctionArn, Event], Coroutine[Any, Any, None]]
Spawn = Callable[[Coroutine[Any, Any, None]], object]

LOOKS = 4  # in the time after which a function counts as idle
MOST_S = 3_600.0  # between two of them
_NOT_READY = (
    "The function is inactive and its VPC connection is no longer available. Wait for the VPC connection to reestablish and try again."
)


def may_rest(document: Mapping[str, Any]) -> bool:
    """Whether a function with this configuration is one of those that become Inactive."""
    return is_image(document) or bool(document.get("VpcConfig", {}).get("SubnetIds")) or bool(document.get("FileSystemConfigs"))


class Idleness:
    """``in_use`` gives the unqualified ARNs of functions that have environments; ``report`` commits what happens to a function."""

    def __init__(
        self,
        table: FunctionTable,
        clock: Clock,
        after_s: float,
        report: Report,
        in_use: Callable[[], Iterable[str]],
        spawn: Spawn,
    ) -> None:
        self._table = table
        self._clock = clock
        self._after_s = after_s
        self._report = report
        self._in_use = in_use
        self._spawn = spawn
        self._used: dict[str, float] = {}  # when each was last seen in use, or first seen

    async def run(self) -> None:
        """For as long as the server lives."""
        while self._after_s > 0:
            await self._clock.sleep(min(self._after_s / LOOKS, MOST_S))
            await self.look()

    async def look(self) -> None:
        """Let go to rest what was not in use for long."""
        now, busy, before = self._clock.monotonic(), set(self._in_use()), self._used
        self._used = {}
        for record in list(self._table):
            if record.state.phase is not Phase.ACTIVE or not may_rest(record.configuration):
                continue
            name = str(record.arn)
            since = self._used[name] = now if name in busy else before.get(name, now)
            if now - since >= self._after_s:
                await self._report(record.arn, Idle(f"idle-{uuid.uuid4()}", self._clock.now()))

    def refuse(self, version: FunctionVersion) -> ClientFault | None:
        """An invocation found this version inactive: wake it. Gives what the caller is told, if not the text of all that cannot run.

        A published version does not rest; one whose code is gone from its bucket is brought back in the background.
        """
        if version.version == LATEST:
            self._spawn(self._report(version.arn, Wake(f"wake-{uuid.uuid4()}", self._clock.now())))
        record = self._table.get(version.arn)
        if record is None or is_image(record.configuration):
            return None
        if reference_of(record.configuration) is not None and version.state_reason != IDLE_REASON:
            return None
        return ClientFault("ResourceNotReadyException", 502, _NOT_READY)

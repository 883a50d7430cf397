"""Where log lines go: the port between the data plane, which writes them, and the log store, which keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class LogStream:
    """A CloudWatch Logs stream, and the group that it stands in."""

    account: str
    region: str
    group: str
    name: str


class LogSink(Protocol):
    """Takes lines at once and never blocks for a disk flush."""

    def write(self, stream: LogStream, lines: Sequence[tuple[int, str]]) -> None:
        """Append ``(epoch ms, message)`` pairs. Group and stream are made where they are missing.

        On return the lines have been handed to the operating system: they survive ``kill -9`` of this process.
        """
        ...

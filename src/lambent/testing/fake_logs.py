"""A log sink in memory, for tests."""

from __future__ import annotations

from collections.abc import Sequence

from lambent.observe.log_sink import LogStream


class FakeLogs:
    """Keeps everything; ``writes`` counts the calls, since batching is a promise."""

    def __init__(self) -> None:
        self.streams: dict[LogStream, list[tuple[int, str]]] = {}
        self.writes = 0

    def write(self, stream: LogStream, lines: Sequence[tuple[int, str]]) -> None:
        self.writes += 1
        self.streams.setdefault(stream, []).extend(lines)

    def text(self, group: str | None = None) -> str:
        """All lines of all streams (of ``group``), in order within each."""
        return "".join(line for stream, lines in self.streams.items() if group in {None, stream.group} for _, line in lines)

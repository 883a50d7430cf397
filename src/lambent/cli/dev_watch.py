"""When to look at a folder again: as soon as something in it changes, and now and then in any case.

Events come from the kernel through ``watchfiles``. They only say *when* to look, never what is there: whoever looks reads the folder itself
(``dev_snapshot.py``). So a lost event (network file systems, an overflow, a link to a folder elsewhere) costs a second, never an edit.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from watchfiles import Change
from watchfiles import watch as notifications

from lambent.cli.bundle import ignored, ignored_patterns
from lambent.clock import Clock

_SETTLE_MS = 10  # without a further event: an editor writes a file in several steps
_GROUP_MS = 60  # but no longer than this: a build may go on for minutes
_LOOK_ANYWAY_MS = 1_000


@contextmanager
def watching(folder: Path, clock: Clock) -> Iterator[queue.SimpleQueue[float]]:
    """Moments (``clock.monotonic``) at which to look, in a queue, for the length of the block."""
    moments: queue.SimpleQueue[float] = queue.SimpleQueue()
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(folder, clock, moments, stop), daemon=True)
    watcher.start()
    try:
        yield moments
    finally:
        stop.set()
        watcher.join()


def _watch(folder: Path, clock: Clock, moments: queue.SimpleQueue[float], stop: threading.Event) -> None:
    root = os.path.realpath(folder)

    def counts(change: Change, path: str) -> bool:
        below = os.path.relpath(path, root)
        if below == ".lambdaignore":
            return True
        patterns = ignored_patterns(folder)
        parts = below.split("/")
        return not any(ignored("/".join(parts[: depth + 1]), patterns) for depth in range(len(parts)))

    for _ in notifications(
        root,
        watch_filter=counts,
        stop_event=stop,
        debounce=_GROUP_MS,
        step=_SETTLE_MS,
        rust_timeout=_LOOK_ANYWAY_MS,
        yield_on_timeout=True,
        raise_interrupt=False,
    ):
        moments.put(clock.monotonic())

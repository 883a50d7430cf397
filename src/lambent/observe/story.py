"""The story: what happened to an environment, an invocation or a function, and because of what.

Every part of the platform tells its transitions here in one line, on the hot path too, so telling costs an append to a ring of bounded
length and nothing more: no formatting, no lock, no I/O. Reading is for people and may take its time. Two bounds hold: entries per
subject, and subjects overall, of which the one that was silent for longest goes first. All calls come from the loop's thread.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any, NamedTuple


class StoryEntry(NamedTuple):
    """One thing that happened. ``cause`` is the id of what caused it; ``at`` is wall time in seconds."""

    subject: str
    event: str
    cause: str
    detail: str
    at: float

    def document(self) -> dict[str, Any]:
        """For JSON answers."""
        return self._asdict()


class Story:
    """Bounded rings of entries, one per subject."""

    __slots__ = ("_per_subject", "_rings", "_subjects")

    def __init__(self, per_subject: int = 64, subjects: int = 10_000) -> None:
        self._per_subject = per_subject
        self._subjects = subjects
        self._rings: OrderedDict[str, deque[tuple[str, str, str, float]]] = OrderedDict()

    def record(self, subject_id: str, event: str, cause: str = "", detail: str = "", at: float = 0.0) -> None:
        """Append to the subject's ring; the oldest entry, or the subject silent for longest, makes room."""
        rings = self._rings
        ring = rings.get(subject_id)
        if ring is None:
            ring = rings[subject_id] = deque(maxlen=self._per_subject)
            if len(rings) > self._subjects:
                rings.popitem(last=False)
        else:
            rings.move_to_end(subject_id)
        ring.append((event, cause, detail, at))

    def tell(self, subject_id: str) -> list[StoryEntry]:
        """The subject's entries, oldest first; empty if it is unknown or forgotten."""
        return [StoryEntry(subject_id, *entry) for entry in self._rings.get(subject_id, ())]

    def caused_by(self, cause: str) -> list[StoryEntry]:
        """Every remembered entry with that cause, in order of time. Walks all rings."""
        found = [StoryEntry(subject, *entry) for subject, ring in self._rings.items() for entry in ring if entry[1] == cause]
        found.sort(key=lambda entry: entry.at)
        return found

    def text(self, subject_id: str) -> str:
        """The story as lines, for ``PlatformFault`` and the log."""
        return "\n".join(
            f"{entry.at:.3f} {entry.event}"
            + (f" because of {entry.cause}" if entry.cause else "")
            + (f": {entry.detail}" if entry.detail else "")
            for entry in self.tell(subject_id)
        )

    def forget(self, subject_id: str) -> None:
        self._rings.pop(subject_id, None)

    def __len__(self) -> int:
        return len(self._rings)

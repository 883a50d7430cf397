"""Tests of pure machines that read like a transcript.

    (
        Playbook(PoolMachine("f"))
        >> Submit("job 1") << Start(1, "job 1")
        >> Free(1, at=0.1) << Begin(1, "job 1")
        >> Free(1, at=0.2) << nothing
    ).end()

``>>`` gives the machine an event, ``<<`` expects the next of the instructions that came of it: a value to be equal to, a class to
be an instance of, a predicate such as ``like(Answer, status="timeout")`` to hold for, or ``nothing``, when none may be left. An
event is refused while instructions of the one before it are unasserted, so a transcript is complete. ``state`` is asserted in
between with ``<< In("idle")``. ``end`` asserts that nothing is left and gives the machine back. A failure prints the transcript up
to there.

A machine is anything with ``handle(event) -> sequence of instructions``, and for ``In`` a ``state`` or ``phase``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar


class Machine(Protocol):
    """A pure state machine."""

    def handle(self, event: Any, /) -> Sequence[Any]: ...


M = TypeVar("M", bound=Machine)


@dataclass(frozen=True, slots=True)
class In:
    """Expects the machine to be in ``state``."""

    state: str


class _Nothing:
    def __repr__(self) -> str:
        return "nothing"


nothing = _Nothing()


class like:
    """Matches an object of ``kind`` whose named attributes equal, or satisfy, what is given.

    A dotted attribute is written with a double underscore: ``like(Answer, outcome__status="timeout")``.
    """

    def __init__(self, kind: type[Any], **members: Any) -> None:
        self._kind = kind
        self._members = members

    def __call__(self, candidate: Any) -> bool:
        return isinstance(candidate, self._kind) and all(
            _matches(expected, _reach(candidate, path)) for path, expected in self._members.items()
        )

    def __repr__(self) -> str:
        members = ", ".join(f"{name}={value!r}" for name, value in self._members.items())
        return f"like({self._kind.__name__}{', ' if members else ''}{members})"


def contains(part: Any) -> Callable[[Any], bool]:
    """For ``like``: the member contains ``part``."""
    return lambda whole: part in whole


class Playbook(Generic[M]):
    """See above."""

    def __init__(self, machine: M) -> None:
        self.machine = machine
        self._left: deque[Any] = deque()
        self._transcript: list[str] = []

    def __rshift__(self, event: Any) -> Playbook[M]:
        self._expect_none_left()
        self._transcript.append(f">> {event!r}")
        try:
            self._left.extend(self.machine.handle(event))
        except Exception as error:
            error.add_note(self._story())
            raise
        return self

    def __lshift__(self, expected: Any) -> Playbook[M]:
        if isinstance(expected, In):
            found = getattr(self.machine, "state", None) or getattr(self.machine, "phase", None)
            if found != expected.state:
                raise AssertionError(f"expected the state {expected.state!r}, found {found!r}\n{self._story()}")
        elif expected is nothing:
            self._expect_none_left()
        elif not self._left:
            raise AssertionError(f"expected {expected!r}, found no further instruction\n{self._story()}")
        else:
            found = self._left.popleft()
            if not _matches(expected, found):
                raise AssertionError(f"expected {expected!r}\n   found {found!r}\n{self._story()}")
        self._transcript.append(f"<< {expected!r}")
        return self

    def end(self) -> M:
        """Nothing may be left unsaid."""
        self._expect_none_left()
        return self.machine

    def _expect_none_left(self) -> None:
        if self._left:
            raise AssertionError(f"unasserted: {', '.join(map(repr, self._left))}\n{self._story()}")

    def _story(self) -> str:
        return "\n".join(["the transcript:", *(f"  {line}" for line in self._transcript)])


def _matches(expected: Any, found: Any) -> bool:
    if isinstance(expected, type):
        return isinstance(found, expected)
    if isinstance(expected, like) or (callable(expected) and not callable(found)):
        return bool(expected(found))
    return bool(expected == found)


def _reach(candidate: Any, path: str) -> Any:
    for name in path.split("__"):
        candidate = getattr(candidate, name)
    return candidate

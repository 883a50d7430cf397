"""What the log store is asked for and what it gives: groups, streams, pages, and its refusals."""

from __future__ import annotations

from dataclasses import dataclass

from lambent.errors import LambentError
from lambent.observe.log_blocks import Event
from lambent.observe.log_sink import LogStream


@dataclass(frozen=True, slots=True)
class LogGroup:
    """The name of a log group and where it stands."""

    account: str
    region: str
    name: str

    def stream(self, name: str) -> LogStream:
        return LogStream(self.account, self.region, self.name, name)


def group_of(stream: LogStream) -> LogGroup:
    return LogGroup(stream.account, stream.region, stream.group)


class LogRefusal(LambentError):
    """The log store cannot do what it was asked for; the subclass says why, in AWS's words."""

    text = "The request is invalid."

    def __init__(self, message: str = "") -> None:
        super().__init__(message or self.text)


class NoSuchGroup(LogRefusal):
    """There is no such group."""

    text = "The specified log group does not exist."


class NoSuchStream(LogRefusal):
    """There is no such stream in the group."""

    text = "The specified log stream does not exist."


class GroupExists(LogRefusal):
    """A group of that name stands there already."""

    text = "The specified log group already exists"


class StreamExists(LogRefusal):
    """A stream of that name stands there already."""

    text = "The specified log stream already exists"


class BadToken(LogRefusal):
    """The token is none of ours."""

    text = "The specified nextToken is invalid."


class BadPattern(LogRefusal):
    """The filter pattern is wrong, or of a kind that we do not know."""

    text = "Invalid filter pattern"


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """A log group as it stands. Times in epoch ms; ``retention`` in days, ``None`` is for ever."""

    group: LogGroup
    created: int
    retention: int | None
    size: int
    log_class: str
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """A log stream as it stands; the three times of events are ``None`` where it never had one."""

    name: str
    created: int
    first_event: int | None
    last_event: int | None
    last_ingestion: int | None


@dataclass(frozen=True, slots=True)
class GroupPage:
    groups: list[GroupInfo]
    token: str | None


@dataclass(frozen=True, slots=True)
class StreamPage:
    streams: list[StreamInfo]
    token: str | None


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events of one stream, oldest first, and the tokens to go on in either direction. They are never empty."""

    events: list[Event]
    forward: str
    backward: str


@dataclass(frozen=True, slots=True)
class FoundPage:
    """Events of a group, each with its stream's name; ``token`` is ``None`` once there are no more."""

    events: list[tuple[str, Event]]
    token: str | None


@dataclass(frozen=True, slots=True)
class FilterQuery:
    """What ``LogStore.filter_events`` looks for. Times in epoch ms, both inclusive.

    Either ``streams`` or ``prefix`` narrows the streams, or neither.
    """

    start: int | None = None
    end: int | None = None
    streams: tuple[str, ...] = ()
    prefix: str = ""
    pattern: str = ""
    limit: int = 10_000
    token: str | None = None
    from_head: bool = True


@dataclass(frozen=True, slots=True)
class LogHealth:
    """How the log store fares: bytes that wait in memory, its last trouble (``""`` is none), and lines that it had to give up."""

    waiting: int
    trouble: str
    dropped: int = 0
    unjournalled: int = 0

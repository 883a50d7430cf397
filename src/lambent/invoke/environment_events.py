"""The words of ``environment_state``: what can happen to an execution environment, and what it can ask for.

Times (``at``) are seconds of the monotonic clock. Nothing here is frozen, for speed; nobody changes one after it was made.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lambent.errors import PlatformFault
from lambent.runtime_api.frames import Frame, FrameType
from lambent.sandbox.driver import SandboxExit

# ---------------------------------------------------------------------------------------------------------------------- events


@dataclass(slots=True)
class Started:
    """The sandbox is there and its runtime has begun to initialise. ``extensions``: so have external extensions."""

    at: float
    extensions: bool = False


@dataclass(slots=True)
class StartFailed:
    """The driver could not make a sandbox."""

    fault: PlatformFault


@dataclass(slots=True)
class InitDeadlinePassed:
    at: float


@dataclass(slots=True)
class Assigned:
    """An invocation for this environment. Its function timeout starts now. ``streams``: its caller takes a response in chunks."""

    request_id: str
    at: float
    streams: bool = False


@dataclass(slots=True)
class NextFrame:
    """The runtime asks for an invocation."""

    at: float


@dataclass(slots=True)
class ResponseFrame:
    """``head`` as it came: token, request id, content type, one a line. ``oversize`` is the true length of a body over the cap."""

    head: str
    body: bytes
    at: float
    oversize: int = 0


@dataclass(slots=True)
class ErrorFrame:
    """``head``: token, request id, error type, X-Ray cause."""

    head: str
    body: bytes
    at: float
    oversize: int = 0


@dataclass(slots=True)
class InitErrorFrame:
    """``error_type`` as the runtime named it, ``body`` its payload."""

    error_type: str
    body: bytes
    at: float


@dataclass(slots=True)
class StreamStart:
    """The response begins and will come in chunks. ``head``: token, request id, content type."""

    head: str
    at: float


@dataclass(slots=True)
class Chunk:
    """The next piece of the response. ``head`` is the token."""

    head: str
    body: bytes
    at: float


@dataclass(slots=True)
class StreamEnd:
    """``head``: token, request id, error type (empty: all is well). ``body`` is the error payload if there is an error type."""

    head: str
    body: bytes
    at: float


@dataclass(slots=True)
class Registered:
    """An extension registered; ``invoke`` if it wants to hear of invocations."""

    invoke: bool
    at: float


@dataclass(slots=True)
class ExtensionsReady:
    """Every extension waits for its next event."""

    at: float


@dataclass(slots=True)
class ExtensionFailed:
    """An extension said so, ended, or could not be started: ``error_type`` (contract 02 §2.1), ``detail`` what follows ``Error: ``."""

    error_type: str
    detail: str
    at: float


@dataclass(slots=True)
class Exited:
    """The runtime process ended; all that it had written has been fed before."""

    how: SandboxExit
    at: float


@dataclass(slots=True)
class Violated:
    """What arrived is no conversation at all: a broken frame, or a closed channel with the process still there."""

    detail: str
    at: float


@dataclass(slots=True)
class Undeliverable:
    """The invocation could not be handed over: nobody holds the other end, and not a byte of it was taken."""

    at: float


@dataclass(slots=True)
class DeadlinePassed:
    """The function's timeout is over."""

    at: float


@dataclass(slots=True)
class IdleLong:
    """Idle for long enough to be frozen."""


@dataclass(slots=True)
class Kill:
    """The platform wants it gone: ``reason`` is for the story and for whoever was still waiting."""

    reason: str
    at: float


Event = (
    Started
    | StartFailed
    | InitDeadlinePassed
    | Assigned
    | NextFrame
    | ResponseFrame
    | ErrorFrame
    | InitErrorFrame
    | StreamStart
    | Chunk
    | StreamEnd
    | Registered
    | ExtensionsReady
    | ExtensionFailed
    | Exited
    | Violated
    | Undeliverable
    | DeadlinePassed
    | IdleLong
    | Kill
)


def event_of(frame: Frame, at: float, unread: bool) -> Event:
    """What a runtime said. ``unread``: it has yet to take some of the invocation."""
    kind = frame.type
    if kind == FrameType.NEXT:
        return NextFrame(at)
    if unread:
        return Violated("it answers before it has read the invocation", at)
    if kind == FrameType.RESPONSE:
        return ResponseFrame(frame.head, frame.body, at, frame.oversize)
    if kind == FrameType.CHUNK:
        return Chunk(frame.head, frame.body, at)
    if kind == FrameType.ERROR:
        return ErrorFrame(frame.head, frame.body, at, frame.oversize)
    if kind == FrameType.RESPONSE_START:
        return StreamStart(frame.head, at)
    if kind == FrameType.RESPONSE_END:
        return StreamEnd(frame.head, frame.body, at)
    return InitErrorFrame(frame.head.partition("\n")[0], frame.body, at)


# ---------------------------------------------------------------------------------------------------------------- instructions


@dataclass(slots=True)
class Outcome:
    """How an invocation ended. Times are monotonic seconds; ``init_s`` is set for the first one after a successful init phase.

    ``payload`` is empty where it has been passed on in chunks. ``produced`` counts the bytes of a streamed response, passed on or not.
    ``first_at`` and ``answered_at`` are when the response began and was complete, ``done_at`` when the runtime asked for more; 0 if never.
    ``told``: telemetry has heard that the runtime is done.

    ``status`` is what the report says: ``success``, ``error`` or ``timeout``. ``note`` is a log line of the platform that precedes END.
    ``fault`` is set where the platform failed; there is no payload then.
    """

    payload: bytes = b""
    content_type: str = "application/json"
    function_error: bool = False
    status: str = "success"
    error_type: str = ""
    note: str = ""
    began_at: float = 0.0
    ended_at: float = 0.0
    init_s: float | None = None
    fault: PlatformFault | None = None
    produced: int = 0
    first_at: float = 0.0
    answered_at: float = 0.0
    done_at: float = field(default=0.0, compare=False)
    told: bool = field(default=False, compare=False)


@dataclass(slots=True)
class SendInvoke:
    """Write the INVOKE frame of the assigned invocation, with this lease epoch."""

    token: int


@dataclass(slots=True)
class Answer:
    """Report the assigned invocation and answer it. Exactly one follows every ``Assigned`` that is not requeued."""

    outcome: Outcome


@dataclass(slots=True)
class OpenStream:
    """Tell the caller that a response in chunks begins."""

    content_type: str


@dataclass(slots=True)
class PassOn:
    """Give the caller a piece of the response."""

    data: bytes


@dataclass(slots=True)
class Respond:
    """Answer the assigned invocation now; its report, and the ``Answer`` with it, follows when the environment is through with it."""

    outcome: Outcome


@dataclass(slots=True)
class ReportInit:
    """An init that failed: ``phase`` is ``init`` or ``invoke``, ``status`` ``error`` or ``timeout``.

    ``ready_at`` is when the runtime itself had been ready, or 0.
    """

    phase: str
    status: str
    seconds: float
    error_type: str
    ready_at: float = field(default=0.0, compare=False)


@dataclass(slots=True)
class InitDone:
    """The runtime and every extension are ready: no more registrations. ``ready_at`` is when the runtime was."""

    seconds: float = field(default=0.0, compare=False)
    ready_at: float = field(default=0.0, compare=False)


@dataclass(slots=True)
class Gone:
    """Nothing more will come of this environment. ``fault`` is set if it never came to be."""

    reason: str
    fault: PlatformFault | None = None


@dataclass(slots=True)
class StartSandbox:
    """Make a fresh sandbox once the old one has gone."""


@dataclass(slots=True)
class KillSandbox:
    """Drop the sandbox with all that runs in it. ``reason`` is what extensions hear: spindown, timeout or failure (contract 03 §3)."""

    reason: str = field(default="failure", compare=False)


@dataclass(slots=True)
class Freeze: ...


@dataclass(slots=True)
class Thaw: ...


@dataclass(slots=True)
class Requeue:
    """Take the assigned invocation back: it never arrived."""


@dataclass(slots=True)
class Ready:
    """Free for an invocation."""


@dataclass(slots=True)
class ReadyBroken:
    """Init failed: good for one invocation that needs the second attempt, and for nothing else."""


@dataclass(slots=True)
class ReadyAgain:
    """Free for an invocation, which will run init first: what was inside has gone, and why."""

    reason: str


Instruction = (
    SendInvoke
    | Answer
    | OpenStream
    | PassOn
    | Respond
    | ReportInit
    | InitDone
    | Gone
    | StartSandbox
    | KillSandbox
    | Freeze
    | Thaw
    | Requeue
    | Ready
    | ReadyBroken
    | ReadyAgain
)

INIT_DONE = InitDone()
START_SANDBOX = StartSandbox()
KILL_SANDBOX = KillSandbox()
SPIN_DOWN = KillSandbox("spindown")
KILL_TIMED_OUT = KillSandbox("timeout")
FREEZE = Freeze()
THAW = Thaw()
REQUEUE = Requeue()
READY = Ready()
READY_BROKEN = ReadyBroken()

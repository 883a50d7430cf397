"""Who may say what when on the Runtime API, as a pure machine (contract 03 section 2).

The runtime's side of an execution environment, with AWS's names for its states, since they stand in the texts of refusals:

    Started ──next──▶ Ready ──(invocation delivered)──▶ Running ──response or error begins──▶ InvocationResponse
       │                ▲                                  ▲                                        │
       │ init/error     │ next                             └─────────── cut short ──────────────────┤ complete
       ▼                └──────────────── RuntimeResponseSentState ◀────────────────────────────────┘
    InitError

**One conversation, any number of connections.** A runtime may speak over one connection, over a new one each time (a shell script with
``curl``), or over several at once. The first ``next`` in a state that allows it makes the runtime ready; whoever else calls ``next``
meanwhile waits in line, as does a ``next`` that arrives while the response before it is still on its way. With ``concurrency`` above one,
the line may also be joined while an invocation runs. So "ready" is told once for each invocation, whoever it was that asked.

**A waiting connection may die.** That does not take back that the runtime is ready: a client that timed out asks again, and waits again. If
nobody is in line when an invocation is to be delivered, the environment takes it back.

**What counts as an answer.** The request id in the path, and the invocation id where a client echoes it, must be those of the invocation
that runs: else 400, and nothing has happened. A second answer to the same invocation is a 403. An answer is *begun* with its head, so that
of two at once one is refused before its body is read. One that is cut short has not happened if it was buffered (the runtime may try
again); a stream ends with an error, since part of it has been passed on.

``TABLE`` is the whole behaviour. ``refuse`` and ``unknown`` are answers to a client that is out of turn; a pair that is missing cannot
happen, and is our own bug.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from lambent.errors import IllegalTransition
from lambent.runtime_api.frames import Frame, FrameType
from lambent.runtime_api.session_words import (
    NOT_ALLOWED,
    OK_BODY,
    Answer,
    AnswerBegan,
    AnswerCame,
    AnswerCut,
    Delivered,
    InitFailed,
    Instruction,
    Lost,
    Next,
    Piece,
    RuntimeEvent,
    TellFrames,
    refusal,
)

MAX_WAITING = 128


class RuntimeState(StrEnum):
    """AWS's names."""

    STARTED = "Started"
    FAILED = "InitError"
    READY = "Ready"
    RUNNING = "Running"
    ANSWERING = "InvocationResponse"
    ANSWERED = "RuntimeResponseSentState"


_S = RuntimeState

TABLE: dict[tuple[RuntimeState, type[Any]], tuple[str, tuple[RuntimeState, ...]]] = {
    (_S.STARTED, Next): ("announce", (_S.READY,)),
    (_S.STARTED, InitFailed): ("fail_init", (_S.FAILED,)),
    (_S.STARTED, AnswerBegan): ("unknown", (_S.STARTED,)),
    (_S.STARTED, Lost): ("forget", (_S.STARTED,)),
    (_S.FAILED, Next): ("refuse", (_S.FAILED,)),
    (_S.FAILED, InitFailed): ("refuse", (_S.FAILED,)),
    (_S.FAILED, AnswerBegan): ("unknown", (_S.FAILED,)),
    (_S.FAILED, Lost): ("forget", (_S.FAILED,)),
    (_S.READY, Next): ("join", (_S.READY,)),
    (_S.READY, InitFailed): ("refuse", (_S.READY,)),
    (_S.READY, AnswerBegan): ("unknown", (_S.READY,)),
    (_S.READY, Delivered): ("run", (_S.RUNNING,)),
    (_S.READY, Lost): ("forget", (_S.READY,)),
    (_S.RUNNING, Next): ("join_if_concurrent", (_S.RUNNING,)),
    (_S.RUNNING, InitFailed): ("refuse", (_S.RUNNING,)),
    (_S.RUNNING, AnswerBegan): ("begin_answer", (_S.RUNNING, _S.ANSWERING)),
    (_S.RUNNING, Lost): ("forget", (_S.RUNNING,)),
    (_S.ANSWERING, Next): ("join", (_S.ANSWERING,)),
    (_S.ANSWERING, InitFailed): ("refuse", (_S.ANSWERING,)),
    (_S.ANSWERING, AnswerBegan): ("refuse_answer", (_S.ANSWERING,)),
    (_S.ANSWERING, Piece): ("pass_on", (_S.ANSWERING,)),
    (_S.ANSWERING, AnswerCame): ("end_answer", (_S.ANSWERED, _S.READY)),
    (_S.ANSWERING, AnswerCut): ("cut", (_S.RUNNING, _S.ANSWERED, _S.READY)),
    (_S.ANSWERING, Lost): ("forget", (_S.ANSWERING,)),
    (_S.ANSWERED, Next): ("announce", (_S.READY,)),
    (_S.ANSWERED, InitFailed): ("refuse", (_S.ANSWERED,)),
    (_S.ANSWERED, AnswerBegan): ("refuse_answer", (_S.ANSWERED,)),
    (_S.ANSWERED, Lost): ("forget", (_S.ANSWERED,)),
}

_NOTHING: tuple[Instruction, ...] = ()
_TRUNCATED = json.dumps(
    {"errorType": "Runtime.TruncatedResponse", "errorMessage": "The runtime closed its connection in the middle of the response."},
    separators=(",", ":"),
).encode()


class RuntimeSession:
    """Feed it with ``handle``; carry out what it returns, in order."""

    __slots__ = (
        "_answering",
        "_concurrent",
        "_content_type",
        "_error",
        "_response_cap",
        "_streamed",
        "line",
        "request_id",
        "state",
        "token",
    )

    def __init__(self, response_cap: int, concurrency: int = 1) -> None:
        self.state = RuntimeState.STARTED
        self.line: deque[int] = deque()  # callers that wait in next
        self.request_id = ""  # of the invocation that runs, or ran last
        self.token = ""
        self._response_cap = response_cap
        self._concurrent = concurrency > 1
        self._answering = -1
        self._error = False
        self._streamed = False
        self._content_type = ""

    def handle(self, event: RuntimeEvent) -> Sequence[Instruction]:
        """Take one event. Raises ``IllegalTransition``."""
        action = _ACTIONS[self.state].get(type(event))
        if action is None:
            raise IllegalTransition("runtime session", self.state, type(event).__name__)
        instructions: Sequence[Instruction] = action(self, event)
        return instructions

    @property
    def streaming_caller(self) -> int:
        """Who streams a response right now, or -1."""
        return self._answering if self._streamed else -1

    # ------------------------------------------------------------------------------------------------------------ next

    def announce(self, event: Next) -> Sequence[Instruction]:
        self.line.append(event.caller)
        self.state = RuntimeState.READY
        return (TellFrames([Frame(FrameType.NEXT, "", b"")]),)

    def join(self, event: Next) -> Sequence[Instruction]:
        if len(self.line) >= MAX_WAITING:
            return self.refuse(event)
        self.line.append(event.caller)
        return _NOTHING

    def join_if_concurrent(self, event: Next) -> Sequence[Instruction]:
        return self.join(event) if self._concurrent else self.refuse(event)

    def forget(self, event: Lost) -> Sequence[Instruction]:
        if event.caller in self.line:
            self.line.remove(event.caller)
        return _NOTHING

    def run(self, event: Delivered) -> Sequence[Instruction]:
        if event.caller in self.line:  # else it has hung up with the last byte
            self.line.remove(event.caller)
        self.request_id = event.event.request_id
        self.token = str(event.event.token)
        self.state = RuntimeState.RUNNING
        return _NOTHING

    # --------------------------------------------------------------------------------------------------------- answers

    def begin_answer(self, event: AnswerBegan) -> Sequence[Instruction]:
        if not self._is_current(event):
            return self.unknown(event)
        mode = event.mode.lower()
        if mode not in ("", "buffered", "streaming"):
            return (refusal(event.caller, 400, "InvalidFunctionResponseMode", "Invalid function response mode"),)
        self.state = RuntimeState.ANSWERING
        self._answering = event.caller
        self._error = event.error
        self._streamed = mode == "streaming"
        self._content_type = event.content_type
        if self._streamed:
            return (self._tell(FrameType.RESPONSE_START, event.content_type or "application/octet-stream"),)
        return _NOTHING

    def pass_on(self, event: Piece) -> Sequence[Instruction]:
        self._expect_answering(event.caller)
        return (TellFrames([Frame(FrameType.CHUNK, self.token, event.data)]),)

    def end_answer(self, event: AnswerCame) -> Sequence[Instruction]:
        self._expect_answering(event.caller)
        if self._streamed:
            told = self._tell(FrameType.RESPONSE_END, event.error_type, event.body, event.oversize)
        elif self._error:
            told = self._tell(FrameType.ERROR, f"{event.error_type}\n{event.cause}", event.body, event.oversize)
        else:
            told = self._tell(FrameType.RESPONSE, self._content_type, event.body, event.oversize)
        self._settle(told)
        if event.oversize and not self._streamed:
            text = f"Exceeded maximum allowed payload size ({self._response_cap} bytes)."
            return (refusal(event.caller, 413, "RequestEntityTooLarge", text), told)
        return (Answer(event.caller, 202, OK_BODY), told)

    def cut(self, event: AnswerCut) -> Sequence[Instruction]:
        self._expect_answering(event.caller)
        answer = refusal(event.caller, 400, "TruncatedHTTPRequest", "HTTP request detected as truncated")
        if not self._streamed:
            self.state = RuntimeState.RUNNING
            self._answering = -1
            return (answer,)
        told = self._tell(FrameType.RESPONSE_END, "Runtime.TruncatedResponse", _TRUNCATED)
        self._settle(told)
        return (answer, told)

    def _settle(self, told: TellFrames) -> None:
        """The answer is complete. Somebody may wait for the next invocation already."""
        self._answering = -1
        self.state = RuntimeState.ANSWERED
        if self.line:
            self.state = RuntimeState.READY
            told.frames.append(Frame(FrameType.NEXT, "", b""))

    def _tell(self, kind: FrameType, last: str, body: bytes = b"", oversize: int = 0) -> TellFrames:
        return TellFrames([Frame(kind, f"{self.token}\n{self.request_id}\n{last}", body, oversize)])

    def _is_current(self, event: AnswerBegan) -> bool:
        return event.request_id == self.request_id and event.echo in ("", self.token)

    def _expect_answering(self, caller: int) -> None:
        if caller != self._answering:
            raise IllegalTransition("runtime session", self.state, f"the answer of caller {caller}, while {self._answering} answers")

    # ------------------------------------------------------------------------------------------------- init and refusals

    def fail_init(self, event: InitFailed) -> Sequence[Instruction]:
        self.state = RuntimeState.FAILED
        frame = Frame(FrameType.INIT_ERROR, event.error_type, event.body, event.oversize)
        return (Answer(event.caller, 202, OK_BODY), TellFrames([frame]))

    def unknown(self, event: AnswerBegan) -> Sequence[Instruction]:
        return (refusal(event.caller, 400, "InvalidRequestID", "Invalid request ID"),)

    def refuse_answer(self, event: AnswerBegan) -> Sequence[Instruction]:
        return self.refuse(event) if self._is_current(event) else self.unknown(event)

    def refuse(self, event: Next | AnswerBegan | InitFailed) -> Sequence[Instruction]:
        wanted = _WANTED[type(event)]
        if isinstance(event, AnswerBegan) and event.error:
            wanted = "InvocationErrorResponse"
        text = f"State transition from {self.state} to {wanted} failed for runtime. Error: {NOT_ALLOWED}"
        return (refusal(event.caller, 403, "InvalidStateTransition", text),)


_WANTED: dict[type[Any], str] = {Next: RuntimeState.READY, AnswerBegan: RuntimeState.ANSWERING, InitFailed: RuntimeState.FAILED}

_ACTIONS: dict[RuntimeState, dict[type[Any], Any]] = {
    state: {event: getattr(RuntimeSession, action) for (at, event), (action, _) in TABLE.items() if at is state} for state in RuntimeState
}

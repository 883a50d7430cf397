"""The transitions of ``environment_state``, as one literal table: (state, event) -> (action, states that may follow).

What is missing here cannot happen; if it does, that is our own bug. An action is a method of ``EnvironmentMachine``. Events that mean the
same in a state stand in one row: whatever a runtime says out of turn (``_ANSWERS``), however an extension or a process ends.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from lambent.invoke.environment_events import (
    Assigned,
    Chunk,
    DeadlinePassed,
    ErrorFrame,
    Exited,
    ExtensionFailed,
    ExtensionsReady,
    IdleLong,
    InitDeadlinePassed,
    InitErrorFrame,
    Kill,
    NextFrame,
    Registered,
    ResponseFrame,
    Started,
    StartFailed,
    StreamEnd,
    StreamStart,
    Undeliverable,
    Violated,
)


class State(StrEnum):
    """Where an environment stands. The values are what people see."""

    STARTING = "starting"
    INITIALIZING = "initializing"
    SETTLING = "settling"
    BROKEN = "broken"
    RESET = "reset"
    IDLE = "idle"
    FROZEN = "frozen"
    RESTARTING = "restarting"
    REINITIALIZING = "reinitializing"
    RESETTLING = "resettling"
    BUSY = "busy"
    STREAMING = "streaming"
    ANSWERED = "answered"
    LINGERING = "lingering"
    STOPPED = "stopped"


_S = State
_ENDS = (_S.STOPPED,)
_RESETS = (_S.RESET,)
_ANSWERS = (ResponseFrame, ErrorFrame, StreamStart, Chunk, StreamEnd)

_Row = tuple[State, tuple[type[Any], ...], str, tuple[State, ...]]

ROWS: tuple[_Row, ...] = (
    # before init is over
    (_S.STARTING, (Started,), "begin_init", (_S.INITIALIZING,)),
    (_S.STARTING, (StartFailed,), "stillborn", _ENDS),
    (_S.STARTING, (Kill,), "stop", _ENDS),
    (_S.INITIALIZING, (NextFrame,), "runtime_ready", (_S.IDLE, _S.SETTLING)),
    (_S.INITIALIZING, (Registered,), "register", (_S.INITIALIZING,)),
    (_S.INITIALIZING, (ExtensionsReady,), "extensions_ready", (_S.INITIALIZING,)),
    (_S.INITIALIZING, (InitErrorFrame,), "init_failed", (_S.BROKEN,)),
    (_S.INITIALIZING, (ExtensionFailed,), "init_lost_extension", (_S.BROKEN,)),
    (_S.INITIALIZING, (Exited,), "init_exited", (_S.BROKEN,)),
    (_S.INITIALIZING, (InitDeadlinePassed,), "init_timed_out", (_S.BROKEN,)),
    (_S.INITIALIZING, (*_ANSWERS, Violated), "init_violated", (_S.BROKEN,)),
    (_S.INITIALIZING, (Kill,), "stop", _ENDS),
    (_S.SETTLING, (ExtensionsReady,), "initialized", (_S.IDLE,)),
    (_S.SETTLING, (Registered,), "register", (_S.SETTLING,)),
    (_S.SETTLING, (ExtensionFailed,), "init_lost_extension", (_S.BROKEN,)),
    (_S.SETTLING, (Exited,), "init_exited", (_S.BROKEN,)),
    (_S.SETTLING, (InitDeadlinePassed,), "init_timed_out", (_S.BROKEN,)),
    (_S.SETTLING, (*_ANSWERS, NextFrame, InitErrorFrame, Violated), "init_violated", (_S.BROKEN,)),
    (_S.SETTLING, (Kill,), "stop", _ENDS),
    # the second attempt at init, inside an invocation
    (_S.BROKEN, (Assigned,), "restart", (_S.RESTARTING,)),
    (_S.BROKEN, (Kill,), "stop", _ENDS),
    (_S.RESET, (Assigned,), "restart", (_S.RESTARTING,)),
    (_S.RESET, (IdleLong,), "nothing", (_S.RESET,)),
    (_S.RESET, (Kill,), "stop", _ENDS),
    (_S.RESTARTING, (Started,), "begin_init", (_S.REINITIALIZING,)),
    (_S.RESTARTING, (StartFailed,), "fail_restart", _ENDS),
    (_S.RESTARTING, (DeadlinePassed,), "time_out", _ENDS),
    (_S.RESTARTING, (Kill,), "abandon", _ENDS),
    (_S.REINITIALIZING, (NextFrame,), "runtime_ready_again", (_S.BUSY, _S.RESETTLING)),
    (_S.REINITIALIZING, (Registered,), "register", (_S.REINITIALIZING,)),
    (_S.REINITIALIZING, (ExtensionsReady,), "extensions_ready", (_S.REINITIALIZING,)),
    (_S.REINITIALIZING, (InitErrorFrame,), "fail_init", _ENDS),
    (_S.REINITIALIZING, (ExtensionFailed,), "fail_init_extension", _ENDS),
    (_S.REINITIALIZING, (Exited,), "fail_init_exit", _ENDS),
    (_S.REINITIALIZING, (DeadlinePassed,), "time_out_init", _ENDS),
    (_S.REINITIALIZING, (*_ANSWERS, Violated), "violate", _ENDS),
    (_S.REINITIALIZING, (Kill,), "abandon", _ENDS),
    (_S.RESETTLING, (ExtensionsReady,), "send", (_S.BUSY,)),
    (_S.RESETTLING, (Registered,), "register", (_S.RESETTLING,)),
    (_S.RESETTLING, (ExtensionFailed,), "fail_init_extension", _ENDS),
    (_S.RESETTLING, (Exited,), "fail_init_exit", _ENDS),
    (_S.RESETTLING, (DeadlinePassed,), "time_out_init", _ENDS),
    (_S.RESETTLING, (*_ANSWERS, NextFrame, InitErrorFrame, Violated), "violate", _ENDS),
    (_S.RESETTLING, (Kill,), "abandon", _ENDS),
    # free
    (_S.IDLE, (Assigned,), "lease", (_S.BUSY,)),
    (_S.IDLE, (IdleLong,), "freeze", (_S.FROZEN,)),
    (_S.IDLE, (*_ANSWERS, NextFrame, InitErrorFrame, Violated), "violate_idle", _ENDS),
    (_S.IDLE, (ExtensionsReady,), "nothing", (_S.IDLE,)),
    (_S.IDLE, (ExtensionFailed,), "lose_extension_idle", _ENDS),
    (_S.IDLE, (Exited,), "exit_idle", _ENDS),
    (_S.IDLE, (Kill,), "stop", _ENDS),
    (_S.FROZEN, (Assigned,), "thaw_and_lease", (_S.BUSY,)),
    (_S.FROZEN, (IdleLong, ExtensionsReady), "nothing", (_S.FROZEN,)),
    (_S.FROZEN, (*_ANSWERS, NextFrame, InitErrorFrame, Violated), "violate_idle", _ENDS),  # written before the freeze, read after it
    (_S.FROZEN, (ExtensionFailed,), "lose_extension_idle", _ENDS),
    (_S.FROZEN, (Exited,), "exit_idle", _ENDS),
    (_S.FROZEN, (Kill,), "stop", _ENDS),
    # at work
    (_S.BUSY, (ResponseFrame,), "respond", (_S.ANSWERED, _S.STOPPED)),
    (_S.BUSY, (ErrorFrame,), "respond_error", (_S.ANSWERED, _S.STOPPED)),
    (_S.BUSY, (StreamStart,), "begin_stream", (_S.STREAMING, _S.STOPPED)),
    (_S.BUSY, (Chunk, StreamEnd, NextFrame, InitErrorFrame, Violated), "violate", _ENDS),
    (_S.BUSY, (ExtensionsReady,), "extensions_ready", (_S.BUSY,)),
    (_S.BUSY, (ExtensionFailed,), "lose_extension", _RESETS),
    (_S.BUSY, (Undeliverable,), "take_back", _ENDS),
    (_S.BUSY, (Exited,), "exit_busy", _RESETS),
    (_S.BUSY, (DeadlinePassed,), "time_out", _RESETS),
    (_S.BUSY, (Kill,), "abandon", _ENDS),
    (_S.STREAMING, (Chunk,), "take_chunk", (_S.STREAMING, _S.STOPPED)),
    (_S.STREAMING, (StreamEnd,), "end_stream", (_S.ANSWERED, _S.STOPPED)),
    (_S.STREAMING, (StreamStart, ResponseFrame, ErrorFrame, NextFrame, InitErrorFrame, Violated), "violate", _ENDS),
    (_S.STREAMING, (ExtensionsReady,), "extensions_ready", (_S.STREAMING,)),
    (_S.STREAMING, (ExtensionFailed,), "lose_extension", _RESETS),
    (_S.STREAMING, (Exited,), "exit_busy", _RESETS),
    (_S.STREAMING, (DeadlinePassed,), "time_out", _RESETS),
    (_S.STREAMING, (Kill,), "abandon", _ENDS),
    (_S.ANSWERED, (NextFrame,), "runtime_done", (_S.IDLE, _S.LINGERING)),
    (_S.ANSWERED, (ExtensionsReady,), "extensions_ready", (_S.ANSWERED,)),
    (
        _S.ANSWERED,
        (*_ANSWERS, InitErrorFrame, Violated, Exited, ExtensionFailed, DeadlinePassed, Kill),
        "finish_and_stop",
        (*_ENDS, *_RESETS),
    ),
    (_S.LINGERING, (ExtensionsReady,), "finish", (_S.IDLE,)),
    (
        _S.LINGERING,
        (*_ANSWERS, NextFrame, InitErrorFrame, Violated, Exited, ExtensionFailed, DeadlinePassed, Kill),
        "finish_and_stop",
        (*_ENDS, *_RESETS),
    ),
    # over: what was under way when it stopped still arrives
    (_S.STOPPED, (Started,), "drop", _ENDS),
    (
        _S.STOPPED,
        (
            *_ANSWERS,
            StartFailed,
            NextFrame,
            InitErrorFrame,
            Violated,
            Registered,
            ExtensionsReady,
            ExtensionFailed,
            Exited,
            DeadlinePassed,
            InitDeadlinePassed,
            IdleLong,
            Kill,
        ),
        "nothing",
        _ENDS,
    ),
)

TABLE: dict[tuple[State, type[Any]], tuple[str, tuple[State, ...]]] = {
    (state, event): (action, follows) for state, events, action, follows in ROWS for event in events
}

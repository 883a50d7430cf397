"""The table of function states, alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambent.control.function_state import (
    REFUSED,
    SHOWN,
    STORY_LENGTH,
    TRANSITIONS,
    CodeLost,
    Create,
    Delete,
    Event,
    FunctionState,
    Idle,
    Instruction,
    Operation,
    Phase,
    Prepared,
    PrepareFailed,
    SourceLost,
    Update,
    Wake,
)
from lambent.errors import IllegalTransition

ARN = "arn:aws:lambda:us-east-1:123456789012:function:f"
N, PREPARE, PUBLISH, WITHDRAW = Instruction.NEW_REVISION, Instruction.PREPARE, Instruction.PUBLISH, Instruction.WITHDRAW


def walk(*events: Event) -> FunctionState:
    state = FunctionState()
    for event in events:
        state, _ = state.handle(event)
    return state


def make(kind: type[Event], cause: str = "c", at: float = 1.0) -> Event:
    if kind is PrepareFailed:
        return PrepareFailed(cause, at, "InternalError", "no room")
    if kind in (CodeLost, SourceLost):
        return kind(cause, at, "gone")
    return kind(cause, at)


def test_creation_is_pending_then_active():
    state, todo = FunctionState().handle(Create("c1", 1.0))
    assert todo == (N, PUBLISH, PREPARE)
    assert state.shown() == {"State": "Pending", "StateReason": "The function is being created.", "StateReasonCode": "Creating"}
    state, todo = state.handle(Prepared("c1", 2.0))
    assert todo == (N, PUBLISH)
    assert state.shown() == {"State": "Active", "LastUpdateStatus": "Successful"}


def test_failed_creation_says_why():
    state = walk(Create("c1", 1.0), PrepareFailed("c1", 2.0, "InternalError", "no room"))
    assert state.shown() == {"State": "Failed", "StateReason": "no room", "StateReasonCode": "InternalError"}


def test_update_is_in_progress_then_successful_and_publishes_only_at_its_end():
    state = walk(Create("c1", 1.0), Prepared("c1", 2.0))
    state, todo = state.handle(Update("u1", 3.0))
    assert todo == (N, PREPARE)
    assert state.shown() == {
        "State": "Active",
        "LastUpdateStatus": "InProgress",
        "LastUpdateStatusReason": "The function is being created.",
        "LastUpdateStatusReasonCode": "Creating",
    }
    state, todo = state.handle(Prepared("u1", 4.0))
    assert todo == (N, PUBLISH)
    assert state.shown() == {"State": "Active", "LastUpdateStatus": "Successful"}


def test_failed_update_stays_active_and_may_be_mended():
    state = walk(Create("c", 1), Prepared("c", 2), Update("u", 3))
    state, todo = state.handle(PrepareFailed("u", 4.0, "InvalidRuntime", "no python"))
    assert todo == (N,)
    assert state.shown() == {
        "State": "Active",
        "LastUpdateStatus": "Failed",
        "LastUpdateStatusReason": "no python",
        "LastUpdateStatusReasonCode": "InvalidRuntime",
    }
    assert state.refuse(Operation.UPDATE_CODE, ARN) is None
    assert state.handle(Update("u2", 5.0))[0].phase is Phase.UPDATING


@pytest.mark.parametrize("report", [Prepared("old", 9.0), PrepareFailed("old", 9.0, "InternalError", "x")])
def test_late_report_changes_nothing(report: Event):
    for state in (walk(Create("new", 1)), walk(Create("c", 1), Prepared("c", 2)), FunctionState()):
        assert state.handle(report) == (state, ())


def test_what_the_table_lacks_is_illegal_and_tells_the_story():
    state = walk(Create("c1", 1.0))
    with pytest.raises(IllegalTransition) as caught:
        state.handle(Create("c2", 2.0))
    assert "Create (c1) -> creating" in caught.value.story


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("kind", [Create, Update, Prepared, PrepareFailed, CodeLost, Delete, Idle, SourceLost, Wake])
def test_every_pair_either_stands_in_the_table_or_is_illegal(phase: Phase, kind: type[Event]):
    state = FunctionState(phase, fence="c")
    if (phase, kind) in TRANSITIONS:
        after, todo = state.handle(make(kind))
        assert (after.phase, todo) == TRANSITIONS[phase, kind]
    elif kind in (Idle, SourceLost, Wake):  # these may come late
        assert state.handle(make(kind)) == (state, ())
    else:
        with pytest.raises(IllegalTransition):
            state.handle(make(kind))


def test_an_idle_function_rests_and_is_woken():
    state, todo = walk(Create("c", 1), Prepared("c", 2)).handle(Idle("i", 3.0))
    assert todo == (N, PUBLISH)
    assert state.shown() == {
        "State": "Inactive",
        "StateReason": "The function is inactive because it was not invoked for a long time.",
        "StateReasonCode": "Idle",
        "LastUpdateStatus": "Successful",
    }
    assert state.refuse(Operation.UPDATE_CODE, ARN) is None
    state, todo = state.handle(Wake("w", 4.0))
    assert todo == (N, PUBLISH, PREPARE)
    assert (state.shown()["State"], state.shown()["StateReasonCode"]) == ("Pending", "Restoring")
    assert state.handle(Wake("again", 5.0)) == (state, ())
    failed, _ = state.handle(PrepareFailed("w", 5.0, "ImageDeleted", "gone"))
    assert (failed.shown()["State"], failed.shown()["StateReasonCode"]) == ("Inactive", "ImageDeleted")
    state, todo = state.handle(Prepared("w", 5.0))
    assert (todo, state.shown()) == ((N, PUBLISH), {"State": "Active", "LastUpdateStatus": "Successful"})


def test_a_function_whose_object_is_gone_rests_until_it_is_back():
    active = walk(Create("c", 1), Prepared("c", 2))
    failed = walk(Create("c", 1), Prepared("c", 2), Update("u", 3), PrepareFailed("u", 4, "InvalidRuntime", "no python"))
    for state in (active, failed):
        lost, todo = state.handle(SourceLost("s", 5.0, "s3://b/k is gone"))
        assert todo == (N, PUBLISH)
        assert lost.shown() == {
            "State": "Inactive",
            "StateReason": "s3://b/k is gone",
            "StateReasonCode": "Idle",
            "LastUpdateStatus": "Successful",
        }
        assert lost.refuse(Operation.UPDATE_CODE, ARN) is None
        woken, todo = lost.handle(Wake("w", 6.0))
        assert (todo, woken.shown()["StateReasonCode"]) == ((N, PUBLISH, PREPARE), "Restoring")
        still, _ = woken.handle(PrepareFailed("w", 7.0, "Idle", "still gone"))
        assert (still.shown()["State"], still.shown()["StateReasonCode"], still.reason) == ("Inactive", "Idle", "still gone")
        assert woken.handle(Prepared("w", 7.0))[0].shown() == {"State": "Active", "LastUpdateStatus": "Successful"}


def test_refusals_are_aws_texts():
    pending = walk(Create("c", 1)).refuse(Operation.UPDATE_CODE, ARN)
    assert pending is not None
    assert (pending.code, pending.status) == ("ResourceConflictException", 409)
    assert pending.message == ("The operation cannot be performed at this time. The function is currently in the following state: Pending")
    updating = walk(Create("c", 1), Prepared("c", 2), Update("u", 3))
    refusal = updating.refuse(Operation.TAG, ARN)
    assert refusal is not None
    assert refusal.message == f"The operation cannot be performed at this time. An update is in progress for resource: {ARN}"
    assert updating.refuse(Operation.INVOKE, ARN) is None
    assert walk(Create("c", 1)).refuse(Operation.TAG, ARN) is None


events = st.builds(
    make,
    st.sampled_from([Create, Update, Prepared, PrepareFailed, CodeLost, Delete, Idle, SourceLost, Wake]),
    st.sampled_from(["a", "b", "c"]),
    st.floats(0, 10),
)


@given(st.lists(events, max_size=40))
def test_invariants_hold_whatever_happens(happening: list[Event]):
    state = FunctionState()
    for event in happening:
        try:
            after, todo = state.handle(event)
        except IllegalTransition:
            continue
        # A preparation is under way exactly while a fence stands, and it is the last accepted change's.
        assert bool(after.fence) == (after.phase in (Phase.CREATING, Phase.UPDATING, Phase.RESTORING))
        assert (PREPARE in todo) == (isinstance(event, Create | Update | Wake) and after is not state)
        # What changes and stays gets a new revision; what goes is withdrawn.
        if after is not state and after.phase is not Phase.ABSENT and after.phase is not state.phase:
            assert N in todo
        assert (WITHDRAW in todo) == (after.phase is Phase.ABSENT and state.phase is not Phase.ABSENT)
        assert len(after.story) <= STORY_LENGTH
        assert FunctionState.from_document(after.to_document()) == after
        if after.phase is not Phase.ABSENT:
            shown = after.shown()
            assert (shown["State"], shown.get("LastUpdateStatus")) == SHOWN[after.phase]
            # An update may be refused or legal, never neither.
            assert (Operation.UPDATE_CODE in REFUSED.get(after.phase, ())) != ((after.phase, Update) in TRANSITIONS)
        state = after

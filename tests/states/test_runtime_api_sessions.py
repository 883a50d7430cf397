"""Who may say what when on the Runtime and Extensions APIs: transcripts, every pair of state and call, and random conversations."""

from __future__ import annotations

import itertools
import json
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lambent.errors import IllegalTransition
from lambent.runtime_api import extension_state, session_state
from lambent.runtime_api.events import ExtensionFailed, Identity, InvokeEvent
from lambent.runtime_api.extension_state import ExtensionSession, ExtensionState
from lambent.runtime_api.frames import Frame, FrameType
from lambent.runtime_api.session_state import MAX_WAITING, RuntimeSession, RuntimeState
from lambent.runtime_api.session_words import (
    OK_BODY,
    Answer,
    AnswerBegan,
    AnswerCame,
    AnswerCut,
    Delivered,
    EventNext,
    ExtensionError,
    InitFailed,
    InitOver,
    InvokeAll,
    Lost,
    Next,
    Piece,
    Register,
    ShutDown,
    TellFailed,
    TellFrames,
    TellReady,
    TellRegistered,
)
from lambent.testing.playbook import In, Playbook, like, nothing

CAP = 100
IDENTITY = Identity("f", "7", "app.handler", "123456789012")
NEXT = TellFrames([Frame(FrameType.NEXT, "", b"")])


def invocation(token: int = 1) -> InvokeEvent:
    return InvokeEvent(token, f"request-{token}", 1_000, "arn:f:live", "Root=1-a-b", b"{}")


def says(kind: FrameType, head: str, body: bytes = b"", oversize: int = 0) -> TellFrames:
    return TellFrames([Frame(kind, head, body, oversize)])


def refused(status: int, error_type: str):
    return lambda found: isinstance(found, Answer) and (found.status, json.loads(found.body)["errorType"]) == (status, error_type)


OK = like(Answer, status=202, body=OK_BODY)

# ------------------------------------------------------------------------------------------------------------------ the runtime


def test_an_invocation_on_one_connection():
    (
        Playbook(RuntimeSession(CAP))
        >> Next(1) << NEXT << In("Ready")
        >> Delivered(1, invocation()) << nothing << In("Running")
        >> AnswerBegan(1, "request-1", "1", content_type="application/json") << nothing << In("InvocationResponse")
        >> AnswerCame(1, b'"hi"') << OK << says(FrameType.RESPONSE, "1\nrequest-1\napplication/json", b'"hi"')
        >> Next(1) << NEXT << In("Ready")
    ).end()  # fmt: skip


def test_an_error_carries_type_and_cause():
    (
        Playbook(running())
        >> AnswerBegan(2, "request-1", "", error=True) << nothing
        >> AnswerCame(2, b"{}", error_type="Function.Oops", cause='{"paths":[]}')
        << OK << says(FrameType.ERROR, '1\nrequest-1\nFunction.Oops\n{"paths":[]}', b"{}")
    ).end()  # fmt: skip


def test_a_stream_in_pieces_with_an_error_in_its_trailers():
    (
        Playbook(running())
        >> AnswerBegan(1, "request-1", "1", mode="Streaming") << says(FrameType.RESPONSE_START, "1\nrequest-1\napplication/octet-stream")
        >> Piece(1, b"ab") << says(FrameType.CHUNK, "1", b"ab")
        >> AnswerCame(1, b"{}", error_type="Function.Late") << OK << says(FrameType.RESPONSE_END, "1\nrequest-1\nFunction.Late", b"{}")
    ).end()  # fmt: skip


def test_a_next_that_comes_during_the_response_is_told_after_it():
    book = Playbook(running())
    book >> AnswerBegan(1, "request-1", "") << nothing >> Next(2) << nothing
    (
        book
        >> AnswerCame(1, b"x")
        << OK
        << like(TellFrames, frames=lambda frames: [f.type for f in frames] == [FrameType.RESPONSE, FrameType.NEXT])
    )
    book << In("Ready")
    assert list(book.end().line) == [2]


def test_the_second_of_two_that_wait_gets_the_second_invocation():
    book = Playbook(RuntimeSession(CAP))
    book >> Next(1) << NEXT >> Next(2) << nothing >> Delivered(1, invocation(1)) << nothing
    (
        book
        >> AnswerBegan(1, "request-1", "1")
        << nothing
        >> AnswerCame(1, b"")
        << OK
        << like(TellFrames, frames=lambda frames: len(frames) == 2)
    )
    book >> Next(1) << nothing >> Delivered(2, invocation(2)) << nothing
    book >> AnswerBegan(2, "request-2", "2") << nothing
    assert list(book.end().line) == [1]


def test_with_concurrency_others_may_line_up_while_one_runs():
    assert running(concurrency=1).handle(Next(9)) == refusal_of("Running", "Ready")
    concurrent = running(concurrency=4)
    assert concurrent.handle(Next(9)) == ()
    assert list(concurrent.line) == [9]


def test_the_line_is_bounded():
    session = RuntimeSession(CAP)
    for caller in range(MAX_WAITING):
        session.handle(Next(caller))
    assert refused(403, "InvalidStateTransition")(session.handle(Next(-5))[0])
    assert len(session.line) == MAX_WAITING


def test_a_waiting_connection_that_dies_may_be_replaced_without_being_told_twice():
    (Playbook(RuntimeSession(CAP)) >> Next(1) << NEXT >> Lost(1) << nothing << In("Ready") >> Next(2) << nothing << In("Ready")).end()


def test_a_response_over_the_cap_settles_the_invocation():
    book = Playbook(running()) >> AnswerBegan(1, "request-1", "") << nothing >> AnswerCame(1, b"", 5_000)
    (
        book
        << refused(413, "RequestEntityTooLarge")
        << says(FrameType.RESPONSE, "1\nrequest-1\n", b"", 5_000)
        << In("RuntimeResponseSentState")
    )
    book.end()


def test_a_response_that_breaks_off_may_be_sent_again():
    book = Playbook(running()) >> AnswerBegan(1, "request-1", "") << nothing >> AnswerCut(1) << refused(400, "TruncatedHTTPRequest")
    book << In("Running") >> AnswerBegan(2, "request-1", "") << nothing >> AnswerCame(2, b"x") << OK << TellFrames
    book.end()


def test_a_stream_that_breaks_off_is_over():
    book = Playbook(running()) >> AnswerBegan(1, "request-1", "", mode="streaming") << TellFrames >> AnswerCut(1)
    book << refused(400, "TruncatedHTTPRequest")
    book << like(TellFrames, frames=lambda frames: frames[0].head == "1\nrequest-1\nRuntime.TruncatedResponse")
    book << In("RuntimeResponseSentState")
    book.end()


@pytest.mark.parametrize(
    ("event", "status", "error_type"),
    [
        (AnswerBegan(1, "request-2", ""), 400, "InvalidRequestID"),
        (AnswerBegan(1, "", ""), 400, "InvalidRequestID"),
        (AnswerBegan(1, "request-1", "2"), 400, "InvalidRequestID"),
        (AnswerBegan(1, "request-1", "1", mode="trickling"), 400, "InvalidFunctionResponseMode"),
        (InitFailed(1, "x", b""), 403, "InvalidStateTransition"),
        (Next(1), 403, "InvalidStateTransition"),
    ],
)
def test_refusals_while_an_invocation_runs_change_nothing(event, status, error_type):
    (Playbook(running()) >> event << refused(status, error_type) << nothing << In("Running")).end()


def test_the_words_of_a_refused_transition():
    (answer,) = running().handle(Next(3))
    assert json.loads(answer.body) == {
        "errorMessage": "State transition from Running to Ready failed for runtime. Error: State transition is not allowed",
        "errorType": "InvalidStateTransition",
    }


def test_init_error_comes_once_and_only_at_first():
    book = Playbook(RuntimeSession(CAP)) >> InitFailed(1, "Runtime.X", b"{}") << OK << says(FrameType.INIT_ERROR, "Runtime.X", b"{}")
    book << In("InitError") >> InitFailed(2, "Runtime.Y", b"{}") << refused(403, "InvalidStateTransition")
    book >> Next(1) << refused(403, "InvalidStateTransition") >> AnswerBegan(1, "", "") << refused(400, "InvalidRequestID")
    book.end()


def test_answers_out_of_turn():
    book = Playbook(RuntimeSession(CAP)) >> AnswerBegan(1, "", "") << refused(400, "InvalidRequestID") >> Next(1) << NEXT
    book >> AnswerBegan(1, "request-1", "") << refused(400, "InvalidRequestID") >> Delivered(1, invocation()) << nothing
    book >> AnswerBegan(1, "request-1", "") << nothing >> AnswerBegan(2, "request-1", "") << refused(403, "InvalidStateTransition")
    book >> AnswerCame(1, b"") << OK << TellFrames >> AnswerBegan(2, "request-1", "", error=True) << refused(403, "InvalidStateTransition")
    book.end()


def test_our_own_mistakes_are_told_from_the_clients():
    with pytest.raises(IllegalTransition):
        RuntimeSession(CAP).handle(Delivered(1, invocation()))
    answering = running()
    answering.handle(AnswerBegan(1, "request-1", ""))
    with pytest.raises(IllegalTransition):
        answering.handle(AnswerCame(2, b""))


def running(concurrency: int = 1) -> RuntimeSession:
    session = RuntimeSession(CAP, concurrency)
    session.handle(Next(1))
    session.handle(Delivered(1, invocation()))
    return session


def refusal_of(state: str, wanted: str):
    session = running()
    (answer,) = session.handle(Next(9))
    assert f"from {state} to {wanted}" in answer.body.decode()
    return (answer,)


def test_every_state_answers_every_call():
    """A client may say anything at any time; only what the node does has pairs that cannot happen."""
    for state, call in itertools.product(RuntimeState, (Next, InitFailed, AnswerBegan, Lost)):
        assert (state, call) in session_state.TABLE


class RuntimeConversation(RuleBasedStateMachine):
    """Callers do as they like. Each is answered exactly once for each request, in order, and only one invocation runs at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.session = RuntimeSession(CAP)
        self.ready = False  # as the environment knows it
        self.token = 0
        self.settled = 0
        self.answering: int | None = None
        self.streaming = False
        self.waiting: set[int] = set()

    callers = st.integers(1, 5)

    def feed(self, event, caller: int):
        answered = 0
        for instruction in self.session.handle(event):
            if isinstance(instruction, Answer):
                assert instruction.status in {202, 400, 403, 413}
                answered += instruction.caller == caller
            else:
                for frame in instruction.frames:
                    self.hear(frame)
        assert answered <= 1
        return bool(answered)

    def hear(self, frame: Frame) -> None:
        if frame.type == FrameType.NEXT:
            assert not self.ready
            self.ready = True
        elif frame.type in (FrameType.RESPONSE, FrameType.ERROR, FrameType.RESPONSE_END):
            assert frame.head.startswith(f"{self.token}\nrequest-{self.token}\n")
            self.settled += 1
            assert self.settled == self.token
        elif frame.type == FrameType.CHUNK:
            assert frame.head == str(self.token)

    def idle(self, caller: int) -> bool:
        return caller != self.answering and caller not in self.waiting

    @rule(caller=callers)
    def next(self, caller):
        if self.idle(caller) and not self.feed(Next(caller), caller):
            self.waiting.add(caller)

    @rule()
    def deliver(self):
        if self.ready and self.session.line:
            self.ready = False
            self.token += 1
            first = self.session.line[0]
            self.waiting.discard(first)
            self.session.handle(Delivered(first, invocation(self.token)))

    @rule(caller=callers, token=st.integers(-1, 0), mode=st.sampled_from(["", "streaming", "odd"]), error=st.booleans(), echo=st.booleans())
    def begin(self, caller, token, mode, error, echo):
        if not self.idle(caller):
            return
        event = AnswerBegan(caller, f"request-{self.token + token}", str(self.token) if echo else "", error, "" if error else mode)
        if not self.feed(event, caller):
            assert self.answering is None
            self.answering = caller
            self.streaming = mode == "streaming" and not error

    @rule(size=st.sampled_from([0, CAP + 1]))
    def end(self, size):
        if self.answering is not None:
            caller, self.answering = self.answering, None
            assert self.feed(AnswerCame(caller, b"", size), caller)

    @rule()
    def piece(self):
        if self.answering is not None and self.streaming:
            self.feed(Piece(self.answering, b"x"), self.answering)

    @rule()
    def cut(self):
        if self.answering is not None:
            caller, self.answering = self.answering, None
            self.feed(AnswerCut(caller), caller)

    @rule(caller=callers)
    def init_error(self, caller):
        if self.idle(caller) and self.token == 0 and not self.ready:
            assert self.feed(InitFailed(caller, "t", b""), caller)

    @rule(caller=callers)
    def die(self, caller):
        if caller != self.answering:
            self.waiting.discard(caller)
            self.feed(Lost(caller), caller)

    @invariant()
    def the_line_is_who_waits(self):
        assert set(self.session.line) == self.waiting
        assert len(self.session.line) == len(self.waiting)


RuntimeConversation.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestRuntimeConversation = RuntimeConversation.TestCase

# --------------------------------------------------------------------------------------------------------------- extensions


def registry(*external: str) -> ExtensionSession:
    numbers = itertools.count(1)
    return ExtensionSession(IDENTITY, frozenset(external), lambda: str(uuid.UUID(int=next(numbers))))


def ident(number: int) -> str:
    return str(uuid.UUID(int=number))


BOTH = ("INVOKE", "SHUTDOWN")


def event_body(caller: int, **members):
    def matches(found):
        return (
            isinstance(found, Answer)
            and found.caller == caller
            and found.status == 200
            and members.items() <= json.loads(found.body).items()
        )

    return matches


def test_the_life_of_an_external_extension():
    book = Playbook(registry("ext"))
    book >> Register(1, "ext", BOTH, with_account=True)
    book << event_body(1, functionName="f", functionVersion="7", handler="app.handler", accountId="123456789012") << TellRegistered
    book >> EventNext(1, ident(1)) << TellReady()
    book >> InitOver() << nothing
    (
        book
        >> InvokeAll(invocation(3))
        << event_body(
            1,
            eventType="INVOKE",
            deadlineMs=1_000,
            requestId="request-3",
            invokedFunctionArn="arn:f:live",
            tracing={"type": "X-Amzn-Trace-Id", "value": "Root=1-a-b"},
        )
    )
    book >> EventNext(1, ident(1)) << TellReady()
    book >> ShutDown("spindown", 2_000) << event_body(1, eventType="SHUTDOWN", shutdownReason="spindown", deadlineMs=2_000)
    book >> EventNext(1, ident(1)) << nothing
    book.end()


def test_ready_waits_for_every_external_extension():
    book = Playbook(registry("a", "b"))
    book >> Register(1, "a", BOTH) << Answer << TellRegistered >> EventNext(1, ident(1)) << nothing
    assert not book.machine.all_ready
    book >> Register(2, "b", ()) << Answer << TellRegistered >> EventNext(2, ident(2)) << TellReady()
    assert book.machine.all_ready
    book >> Register(3, "inside", ("INVOKE",)) << Answer << TellRegistered
    assert not book.machine.all_ready
    book >> EventNext(3, ident(3)) << TellReady()
    book.end()


def test_ready_after_an_invocation_waits_for_those_who_take_part_only():
    book = Playbook(registry("a", "b"))
    book >> Register(1, "a", ("INVOKE",)) << Answer << TellRegistered >> Register(2, "b", ("SHUTDOWN",)) << Answer << TellRegistered
    book >> EventNext(1, ident(1)) << nothing >> EventNext(2, ident(2)) << TellReady()
    book >> InvokeAll(invocation()) << event_body(1, eventType="INVOKE") << nothing
    book >> EventNext(1, ident(1)) << TellReady()
    book.end()


def test_nobody_takes_part_nobody_is_told():
    book = Playbook(registry())
    book >> Register(1, "quiet", ()) << Answer << TellRegistered >> EventNext(1, ident(1)) << TellReady()
    assert not book.machine.attended
    book >> InvokeAll(invocation()) << nothing
    book.end()


def test_an_event_that_meets_an_extension_at_work_is_kept_and_shutdown_takes_its_place():
    book = Playbook(registry("a"))
    book >> Register(1, "a", BOTH) << Answer << TellRegistered >> InvokeAll(invocation()) << nothing
    book >> EventNext(1, ident(1)) << event_body(1, eventType="INVOKE") >> InvokeAll(invocation(2)) << nothing
    book >> ShutDown("timeout", 5) << nothing >> EventNext(4, ident(1)) << event_body(4, eventType="SHUTDOWN", shutdownReason="timeout")
    book >> ShutDown("timeout", 5) << nothing >> EventNext(4, ident(1)) << nothing
    book.end()


def test_a_connection_that_dies_while_it_waits_loses_no_event():
    book = Playbook(registry("a"))
    book >> Register(1, "a", BOTH) << Answer << TellRegistered >> EventNext(1, ident(1)) << TellReady()
    book >> Lost(1) << nothing >> InvokeAll(invocation()) << nothing
    book >> EventNext(2, ident(1)) << event_body(2, eventType="INVOKE")
    book >> EventNext(2, ident(1)) << TellReady() >> Lost(2) << nothing >> EventNext(3, ident(1)) << nothing
    book >> InvokeAll(invocation()) << event_body(3, eventType="INVOKE")
    book.end()


def fails(status: int, error_type: str, message: str):
    def matches(found):
        return isinstance(found, Answer) and (found.status, json.loads(found.body)) == (
            status,
            {"errorMessage": message, "errorType": error_type},
        )

    return matches


NOT_ALLOWED = "State transition is not allowed"


def test_registrations_that_are_refused():
    book = Playbook(registry("a"))
    book >> Register(1, "", ()) << fails(403, "Extension.InvalidExtensionName", "Empty extension name")
    book >> Register(1, "a", ("RESTART",)) << fails(403, "Extension.InvalidEventType", "RESTART: ErrorInvalidEventType")
    book >> Register(1, "inside", BOTH) << fails(403, "Extension.InvalidEventType", "SHUTDOWN: ErrorInvalidEventType")
    book >> Register(1, "a", BOTH) << Answer << TellRegistered
    text = f"State transition from Registered to Registered failed for extension a. Error: {NOT_ALLOWED}"
    book >> Register(1, "a", BOTH) << fails(403, "Extension.InvalidExtensionState", text)
    book >> Register(1, "inside", ("INVOKE",)) << Answer << TellRegistered
    book >> Register(1, "inside", ()) << fails(403, "Extension.InvalidExtensionState", "Extension with this name already registered")
    book >> InitOver() << nothing
    book >> Register(1, "late", ()) << fails(403, "Extension.RegistrationClosed", "Extension registration closed already")
    book.end()


def test_there_are_ten_places_and_external_extensions_have_theirs_kept():
    book = Playbook(registry("a", "b"))
    for number in range(8):
        book >> Register(1, f"inside-{number}", ()) << Answer << TellRegistered
    book >> Register(1, "one too many", ()) << fails(403, "Extension.TooManyExtensions", "Extension limit (10) reached")
    book >> Register(1, "a", BOTH) << Answer << TellRegistered >> Register(1, "b", BOTH) << Answer << TellRegistered
    book.end()
    crowd = Playbook(registry(*(f"x{number}" for number in range(12))))
    for number in range(10):
        crowd >> Register(1, f"x{number}", ()) << Answer << TellRegistered
    crowd >> Register(1, "x10", ()) << refused(403, "Extension.TooManyExtensions")
    crowd.end()


def test_identifiers():
    book = Playbook(registry())
    book >> EventNext(1, "") << fails(403, "Extension.MissingExtensionIdentifier", "Missing Lambda-Extension-Identifier header")
    book >> EventNext(1, "me") << fails(403, "Extension.InvalidExtensionIdentifier", "Invalid Lambda-Extension-Identifier")
    book >> EventNext(1, ident(9)) << fails(403, "Extension.UnknownExtensionIdentifier", f"Unknown extension {ident(9)}")
    (
        book
        >> ExtensionError(1, ident(9), "init", "X")
        << fails(403, "Extension.UnknownExtensionIdentifier", "Unknown Lambda-Extension-Identifier")
    )
    (
        book
        >> ExtensionError(1, ident(9), "exit", "")
        << fails(403, "Extension.MissingHeader", "Lambda-Extension-Function-Error-Type not found")
    )
    book.end()


def test_errors_of_extensions():
    book = Playbook(registry("a", "b"))
    book >> Register(1, "a", BOTH) << Answer << TellRegistered >> Register(2, "b", BOTH) << Answer << TellRegistered
    book >> ExtensionError(1, ident(1), "init", "Extension.X") << OK << TellFailed(ExtensionFailed("a", "init", "Extension.X"))
    book >> ExtensionError(1, ident(1), "init", "Extension.Y") << OK << nothing
    book >> EventNext(1, ident(1)) << refused(403, "Extension.InvalidExtensionState")
    book >> EventNext(2, ident(2)) << nothing
    text = f"State transition from Ready to InitError failed for extension {ident(2)}. Error: {NOT_ALLOWED}"
    book >> ExtensionError(3, ident(2), "init", "X") << fails(403, "Extension.InvalidExtensionState", text)
    book >> EventNext(3, ident(2)) << refused(403, "Extension.InvalidExtensionState")
    book >> ExtensionError(3, ident(2), "exit", "Extension.Z") << OK << TellFailed(ExtensionFailed("b", "exit", "Extension.Z"))
    book >> ExtensionError(3, ident(2), "exit", "again") << OK << nothing
    book.end()


@pytest.mark.parametrize("state", list(ExtensionState))
@pytest.mark.parametrize("call", ["next", "init", "exit"])
def test_the_table_of_extensions_is_what_happens(state, call):
    session = registry("a")
    session.handle(Register(1, "a", BOTH))
    (extension,) = session._by_id.values()
    extension.state, extension.caller = state, 7
    event = EventNext(1, ident(1)) if call == "next" else ExtensionError(1, ident(1), call, "X")
    answers = [found for found in session.handle(event) if isinstance(found, Answer)]
    expected = extension_state.TABLE.get((state, call))
    assert extension.state is (expected or state)
    assert any(answer.status == 403 for answer in answers) is (expected is None)


class ExtensionConversation(RuleBasedStateMachine):
    """Callers with right and wrong identifiers. Ready is told only when all wait, and nobody is answered who did not ask."""

    def __init__(self) -> None:
        super().__init__()
        self.session = registry("a", "b")
        self.waiting: dict[int, str] = {}
        self.callers = itertools.count(1)
        self.known: list[str] = []

    def feed(self, event, caller: int = -1) -> bool:
        answered = False
        for instruction in self.session.handle(event):
            if isinstance(instruction, Answer):
                assert instruction.status < 500
                if instruction.caller == caller:
                    assert not answered
                    answered = True
                else:
                    del self.waiting[instruction.caller]
            elif isinstance(instruction, TellReady):
                assert self.session.all_ready
                if caller >= 0:
                    self.waiting[caller] = "told"
            elif isinstance(instruction, TellRegistered):
                self.known.append(instruction.event.identifier)
        return answered

    @rule(name=st.sampled_from(["a", "b", "c", ""]), events=st.lists(st.sampled_from(["INVOKE", "SHUTDOWN", "?"]), max_size=2))
    def register(self, name, events):
        caller = next(self.callers)
        assert self.feed(Register(caller, name, tuple(events)), caller)

    @rule(which=st.integers(0, 4))
    def next(self, which):
        caller = next(self.callers)
        identifier = self.known[which] if which < len(self.known) else ident(99)
        if not self.feed(EventNext(caller, identifier), caller):
            self.waiting[caller] = identifier

    @rule(which=st.integers(0, 4), during=st.sampled_from(["init", "exit"]), error_type=st.sampled_from(["", "X"]))
    def fail(self, which, during, error_type):
        caller = next(self.callers)
        identifier = self.known[which] if which < len(self.known) else "odd"
        assert self.feed(ExtensionError(caller, identifier, during, error_type), caller)

    @rule()
    def invoke(self):
        self.feed(InvokeAll(invocation()))

    @rule()
    def init_over(self):
        self.feed(InitOver())

    @rule()
    def shut_down(self):
        self.feed(ShutDown("failure", 1))

    @rule(which=st.integers(0, 9))
    def die(self, which):
        if which < len(self.waiting):
            caller = list(self.waiting)[which]
            del self.waiting[caller]
            self.feed(Lost(caller))

    @invariant()
    def at_most_one_connection_waits_for_each(self):
        assert len(self.waiting) <= len(self.known)
        assert len(self.session.extensions) <= extension_state.MAX_EXTENSIONS


ExtensionConversation.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestExtensionConversation = ExtensionConversation.TestCase


@given(st.text(max_size=40))
def test_any_identifier_is_answered(identifier):
    (answer,) = registry().handle(EventNext(1, identifier))
    assert answer.status == 403

"""The environment machine where responses come in chunks and where extensions are at work, transcript by transcript."""

from __future__ import annotations

import json

import pytest

from lambent.invoke.environment_events import (
    INIT_DONE,
    KILL_SANDBOX,
    READY,
    READY_BROKEN,
    START_SANDBOX,
    Answer,
    Assigned,
    Chunk,
    DeadlinePassed,
    ErrorFrame,
    Exited,
    ExtensionFailed,
    ExtensionsReady,
    Gone,
    InitDeadlinePassed,
    InitErrorFrame,
    Kill,
    KillSandbox,
    NextFrame,
    OpenStream,
    PassOn,
    ReadyAgain,
    Registered,
    ReportInit,
    Respond,
    ResponseFrame,
    SendInvoke,
    Started,
    StreamEnd,
    StreamStart,
    Violated,
)
from lambent.invoke.environment_state import EnvironmentMachine
from lambent.sandbox.driver import SandboxExit
from lambent.testing.playbook import In, Playbook, contains, like, nothing

CAP, STREAM_CAP = 100, 40
START = StreamStart("1\nr1\ntext/plain", 2.1)


def fresh(extensions: bool = False) -> Playbook[EnvironmentMachine]:
    return Playbook(EnvironmentMachine("e1", 3, CAP, STREAM_CAP)) >> Started(1.0, extensions) << In("initializing")


def busy(streams: bool) -> Playbook[EnvironmentMachine]:
    return fresh() >> NextFrame(1.5) << INIT_DONE << READY >> Assigned("r1", 2.0, streams) << SendInvoke(1)


def streaming(streams: bool = True) -> Playbook[EnvironmentMachine]:
    book = busy(streams) >> START
    return (book << OpenStream("text/plain") if streams else book << nothing) << In("streaming")


def chunk(data: bytes, token: int = 1) -> Chunk:
    return Chunk(str(token), data, 2.2)


def end(error_type: str = "", body: bytes = b"") -> StreamEnd:
    return StreamEnd(f"1\nr1\n{error_type}", body, 2.3)


class TestStreams:
    def test_chunks_pass_as_they_come_and_the_answer_follows_the_next(self):
        book = streaming() >> chunk(b"ab") << PassOn(b"ab") >> chunk(b"c") << PassOn(b"c") >> end() << nothing << In("answered")
        whole = like(Answer, outcome__payload=b"", outcome__produced=3, outcome__function_error=False, outcome__ended_at=2.5)
        (book >> NextFrame(2.5) << whole << READY << In("idle")).end()

    def test_a_caller_that_takes_no_chunks_gets_them_in_one_piece(self):
        book = streaming(False) >> chunk(b"ab") << nothing >> chunk(b"c") << nothing >> end() << nothing
        whole = like(Answer, outcome__payload=b"abc", outcome__content_type="text/plain")
        (book >> NextFrame(2.5) << whole << READY).end()

    def test_the_next_stream_begins_anew(self):
        book = streaming(False) >> chunk(b"x" * 60) >> end() >> NextFrame(2.5) << Answer << READY
        book >> Assigned("r2", 3.0) << SendInvoke(2) >> StreamStart("2\nr2\n", 3.1) >> chunk(b"y" * 60, 2) >> StreamEnd("2\nr2\n", b"", 3.2)
        expected = like(Answer, outcome__payload=b"y" * 60, outcome__content_type="application/octet-stream", outcome__produced=60)
        (book >> NextFrame(3.3) << expected << READY).end()

    def test_the_cap_of_a_buffered_answer(self):
        book = streaming(False) >> chunk(b"x" * CAP) >> end() >> NextFrame(2.5)
        (book << like(Answer, outcome__payload=b"x" * CAP) << READY).end()
        book = streaming(False) >> chunk(b"x" * CAP) >> chunk(b"x") >> chunk(b"more") << nothing >> end() >> NextFrame(2.5)
        too_large = like(Answer, outcome__error_type="Function.ResponseSizeTooLarge", outcome__payload=contains(b"(100 bytes)"))
        (book << too_large << READY).end()

    def test_an_over_long_stream_is_cut_at_the_limit_and_its_caller_told_at_once(self):
        book = streaming() >> chunk(b"x" * 30) << PassOn >> chunk(b"y" * 30) << PassOn(b"y" * 10)
        told = like(Respond, outcome__function_error=True, outcome__payload=contains(b"(40 bytes)"), outcome__produced=STREAM_CAP)
        book << told << In("streaming") >> chunk(b"z") << nothing >> end() << nothing
        (book >> NextFrame(2.5) << like(Answer, outcome__error_type="Function.ResponseSizeTooLarge", outcome__produced=61) << READY).end()
        (
            streaming() >> chunk(b"x" * 40) << PassOn(b"x" * 40) >> end() >> NextFrame(2.5) << like(Answer, outcome__status="success")
        ) << READY

    @pytest.mark.parametrize("streams", [True, False])
    def test_an_error_halfway_is_the_functions_own(self, streams):
        book = streaming(streams) >> chunk(b"ab")
        if streams:
            book << PassOn
        expected = like(Answer, outcome__payload=b'{"e":1}', outcome__error_type="ValueError", outcome__function_error=True)
        (book >> end("ValueError", b'{"e":1}') >> NextFrame(2.5) << expected << READY).end()

    def test_an_error_without_words_gets_some(self):
        book = streaming() >> end("Function.Odd") >> NextFrame(2.5)
        (book << like(Answer, outcome__payload=b'{"errorType":"Function.Odd","errorMessage":""}') << READY).end()

    @pytest.mark.parametrize(
        ("event", "error_type", "kill"),
        [
            (DeadlinePassed(5.0), "Sandbox.Timedout", "timeout"),
            (Exited(SandboxExit(1, None), 2.4), "Runtime.ExitError", "failure"),
            (Exited(SandboxExit(None, 9, True), 2.4), "Runtime.OutOfMemory", "failure"),
            (Violated("garbage", 2.4), "Runtime.Unknown", "failure"),
            (NextFrame(2.4), "Runtime.Unknown", "failure"),
            (START, "Runtime.Unknown", "failure"),
            (ResponseFrame("1\nr1\n", b"x", 2.4), "Runtime.Unknown", "failure"),
            (ErrorFrame("1\nr1\nX\n", b"x", 2.4), "Runtime.Unknown", "failure"),
            (InitErrorFrame("X", b"x", 2.4), "Runtime.Unknown", "failure"),
            (Chunk("0", b"late", 2.4), "Runtime.Unknown", "failure"),
            (Chunk("", b"forged", 2.4), "Runtime.Unknown", "failure"),
            (StreamEnd("0\nr0\n", b"", 2.4), "Runtime.Unknown", "failure"),
            (ExtensionFailed("Extension.Crash", "exit status 1", 2.4), "Extension.Crash", "failure"),
        ],
    )
    @pytest.mark.parametrize("streams", [True, False])
    def test_what_ends_an_invocation_ends_its_stream(self, event, error_type, kill, streams):
        book = streaming(streams) >> event << like(Answer, outcome__function_error=True, outcome__error_type=error_type)
        book << like(KillSandbox, reason=kill)
        if error_type == "Runtime.Unknown":  # one that cannot be trusted is not used again
            (book << Gone << In("stopped")).end()
            book >> chunk(b"late") << nothing >> end() << nothing
        else:
            (book << ReadyAgain << In("reset")).end()

    def test_a_stream_of_somebody_elses_is_refused(self):
        for head in ("1\nr0\n", "0\nr1\n", "r1\n1\n"):
            (busy(True) >> StreamStart(head, 2.1) << like(Answer, outcome__error_type="Runtime.Unknown") << KILL_SANDBOX << Gone).end()

    @pytest.mark.parametrize("event", [Chunk("1", b"x", 2.1), StreamEnd("1\nr1\n", b"", 2.1)])
    def test_no_chunk_without_a_start(self, event):
        (busy(True) >> event << like(Answer, outcome__error_type="Runtime.Unknown") << KILL_SANDBOX << Gone).end()
        (streaming() >> end() >> event << like(Answer, outcome__status="success") << KILL_SANDBOX << Gone("a second answer")).end()


def with_extension(events: bool = True) -> Playbook[EnvironmentMachine]:
    """Idle, with one that wants to hear of invocations, or not."""
    book = fresh(True) >> Registered(events, 1.1) >> NextFrame(1.5) << nothing << In("settling")
    return book >> ExtensionsReady(1.7) << INIT_DONE << READY << In("idle")


class TestExtensions:
    def test_init_lasts_until_all_are_ready_in_whatever_order(self):
        machine = (with_extension() >> Assigned("r1", 2.0) << SendInvoke(1)).machine
        assert machine._init_s == pytest.approx(0.7)
        book = fresh(True) >> Registered(True, 1.1) >> ExtensionsReady(1.3) << nothing >> NextFrame(1.5) << INIT_DONE << READY
        (book << In("idle")).end()

    def test_an_internal_one_is_waited_for_as_well(self):
        book = fresh() >> Registered(True, 1.1) >> NextFrame(1.5) << In("settling")
        (book >> Registered(True, 1.6) >> ExtensionsReady(1.7) << INIT_DONE << READY).end()

    def test_the_caller_is_answered_before_and_the_report_waits(self):
        book = with_extension() >> Assigned("r1", 2.0) << SendInvoke(1) >> ResponseFrame("1\nr1\n", b"1", 2.2) << nothing
        book >> NextFrame(2.3) << like(Respond, outcome__payload=b"1", outcome__ended_at=2.3, outcome__began_at=2.0) << In("lingering")
        (book >> ExtensionsReady(2.9) << like(Answer, outcome__payload=b"1", outcome__ended_at=2.9) << READY << In("idle")).end()

    def test_one_that_is_through_first_is_not_waited_for(self):
        book = with_extension() >> Assigned("r1", 2.0) << SendInvoke(1) >> ExtensionsReady(2.1) << nothing
        (book >> ResponseFrame("1\nr1\n", b"1", 2.2) >> NextFrame(2.3) << Answer << READY).end()

    def test_nor_one_that_hears_of_shutdown_only(self):
        book = with_extension(False) >> Assigned("r1", 2.0) << SendInvoke(1)
        (book >> ResponseFrame("1\nr1\n", b"1", 2.2) >> NextFrame(2.3) << Answer << READY).end()

    @pytest.mark.parametrize(
        ("event", "status", "error_type"),
        [
            (DeadlinePassed(5.0), "timeout", ""),
            (ExtensionFailed("Extension.Crash", "exit code 0", 2.5), "error", "Extension.Crash"),
            (Exited(SandboxExit(1, None), 2.5), "error", "Runtime.ExitError"),
            (Kill("enough", 2.5), "success", ""),
            (NextFrame(2.5), "success", ""),
        ],
    )
    def test_what_comes_after_the_answer_shows_in_the_report(self, event, status, error_type):
        book = with_extension() >> Assigned("r1", 2.0) << SendInvoke(1) >> ResponseFrame("1\nr1\n", b"1", 2.2) >> NextFrame(2.3) << Respond
        expected = like(Answer, outcome__payload=b"1", outcome__status=status, outcome__error_type=error_type)
        book >> event << expected << KILL_SANDBOX
        (book << Gone << In("stopped") if status == "success" else book << ReadyAgain << In("reset")).end()

    def test_one_that_fails_takes_the_invocation_with_it(self):
        book = with_extension() >> Assigned("r1", 2.0) << SendInvoke(1) >> ExtensionFailed("Extension.Crash", "exit status 1", 2.5)
        payload = {"errorType": "Extension.Crash", "errorMessage": "RequestId: r1 Error: exit status 1"}
        (book << like(Answer, outcome__payload=json.dumps(payload, separators=(",", ":")).encode()) << KILL_SANDBOX << ReadyAgain).end()
        (
            with_extension()
            >> ExtensionFailed("Extension.Crash", "exit code 0", 2.5)
            << KILL_SANDBOX
            << Gone("Extension.Crash: exit code 0")
        ).end()

    @pytest.mark.parametrize("ready", [True, False])
    def test_one_that_fails_in_init_fails_again_in_the_invocation(self, ready):
        failure = ExtensionFailed("Extension.InitError", "Extension.Config", 1.6)
        book = fresh(True)
        if ready:
            book >> NextFrame(1.5)
        book >> failure << ReportInit("init", "error", pytest.approx(0.6), "Extension.InitError") << KILL_SANDBOX << READY_BROKEN
        book >> Assigned("r1", 2.0) << START_SANDBOX >> Started(2.1, True)
        if ready:
            book >> NextFrame(2.2) << In("resettling")
        book >> failure << like(ReportInit, phase="invoke", error_type="Extension.InitError")
        (book << like(Answer, outcome__payload=contains(b"RequestId: r1 Error: Extension.Config")) << KILL_SANDBOX << Gone).end()

    def test_the_second_attempt_waits_for_them_too(self):
        book = (
            fresh(True) >> NextFrame(1.5) >> InitDeadlinePassed(11.0) << ReportInit << like(KillSandbox, reason="timeout") << READY_BROKEN
        )
        book >> Assigned("r1", 20.0) << START_SANDBOX >> Started(20.1, True) >> NextFrame(20.2) << nothing
        (book >> ExtensionsReady(20.3) << INIT_DONE << SendInvoke(1) << In("busy")).end()

    def test_a_stream_ends_for_its_caller_before_the_extension_is_through(self):
        book = with_extension() >> Assigned("r1", 2.0, True) << SendInvoke(1) >> START << OpenStream >> chunk(b"x") << PassOn >> end()
        (book >> NextFrame(2.4) << like(Respond, outcome__produced=1) >> ExtensionsReady(2.9) << Answer << READY).end()

    def test_what_they_hear_at_the_end(self):
        (with_extension() >> Kill("idle for long", 2.0) << like(KillSandbox, reason="spindown") << Gone).end()
        book = with_extension() >> Assigned("r1", 2.0) << SendInvoke(1) >> DeadlinePassed(5.0) << Answer
        (book << like(KillSandbox, reason="timeout") << ReadyAgain).end()

"""The environment machine, transcript by transcript."""

from __future__ import annotations

import itertools
import json

import pytest

from lambent.errors import IllegalTransition, PlatformFault, SandboxFault
from lambent.invoke import environment_state
from lambent.invoke.environment_events import (
    FREEZE,
    INIT_DONE,
    KILL_SANDBOX,
    READY,
    READY_BROKEN,
    REQUEUE,
    START_SANDBOX,
    THAW,
    Answer,
    Assigned,
    DeadlinePassed,
    ErrorFrame,
    Exited,
    Gone,
    IdleLong,
    InitDeadlinePassed,
    InitErrorFrame,
    Kill,
    NextFrame,
    ReadyAgain,
    ReportInit,
    ResponseFrame,
    SendInvoke,
    Started,
    StartFailed,
    Undeliverable,
    Violated,
)
from lambent.invoke.environment_state import EnvironmentMachine
from lambent.invoke.environment_table import TABLE, State
from lambent.sandbox.driver import SandboxExit
from lambent.testing.playbook import In, Playbook, contains, like, nothing

CAP = 6_291_556


def fresh() -> Playbook[EnvironmentMachine]:
    return Playbook(EnvironmentMachine("e1", 3, CAP))


def idle() -> Playbook[EnvironmentMachine]:
    return fresh() >> Started(1.0) << In("initializing") >> NextFrame(1.5) << INIT_DONE << READY << In("idle")


def busy(request_id: str = "r1") -> Playbook[EnvironmentMachine]:
    return idle() >> Assigned(request_id, 2.0) << SendInvoke(1) << In("busy")


def body(answer: Answer) -> dict:
    return json.loads(answer.outcome.payload)


class TestWarm:
    def test_an_invocation_ends_with_the_answer_and_the_next(self):
        (
            busy()
            >> ResponseFrame("1\nr1\napplication/json", b'"ok"', 2.25)
            << nothing
            << In("answered")
            >> NextFrame(2.5)
            << like(Answer, outcome__payload=b'"ok"', outcome__status="success", outcome__began_at=2.0, outcome__ended_at=2.5)
            << READY
            << In("idle")
        ).end()

    def test_init_is_reported_with_the_first_invocation_only(self):
        book = busy() >> ResponseFrame("1\nr1\n", b"1", 2.1) >> NextFrame(2.1) << like(Answer, outcome__init_s=0.5) << READY
        book >> Assigned("r2", 3.0) << SendInvoke(2) >> ResponseFrame("2\nr2\n", b"2", 3.1)
        (book >> NextFrame(3.1) << like(Answer, outcome__init_s=None) << READY).end()

    def test_an_empty_content_type_means_json_and_another_is_kept(self):
        book = busy() >> ResponseFrame("1\nr1\n", b"1", 2.1) >> NextFrame(2.1)
        book << like(Answer, outcome__content_type="application/json") << READY
        book >> Assigned("r2", 3.0) << SendInvoke >> ResponseFrame("2\nr2\napplication/unknown", b"1", 2.1) >> NextFrame(2.1)
        (book << like(Answer, outcome__content_type="application/unknown") << READY).end()

    def test_an_error_of_the_function_passes_through_and_is_no_error_of_the_report(self):
        payload = b'{"errorMessage":"no","errorType":"ValueError"}'
        book = busy() >> ErrorFrame("1\nr1\nValueError\n{}", payload, 2.1) >> NextFrame(2.1)
        expected = like(
            Answer, outcome__payload=payload, outcome__function_error=True, outcome__status="success", outcome__error_type="ValueError"
        )
        (book << expected << READY).end()

    def test_freeze_and_thaw(self):
        book = idle() >> IdleLong() << FREEZE << In("frozen") >> IdleLong() << nothing
        (book >> Assigned("r1", 9.0) << THAW << SendInvoke(1) << In("busy")).end()

    @pytest.mark.parametrize("kind", [ResponseFrame, ErrorFrame])
    def test_a_response_over_the_cap(self, kind):
        machine = busy().machine
        assert not machine.handle(kind("1\nr1\n", b"", 2.1, CAP + 1))
        answer, ready = machine.handle(NextFrame(2.2))
        assert answer.outcome.payload == (
            b'{"errorMessage":"Response payload size exceeded maximum allowed payload size (6291556 bytes).",'
            b'"errorType":"Function.ResponseSizeTooLarge"}'
        )
        assert answer.outcome.function_error
        assert ready is READY


class TestFailures:
    def test_timeout(self):
        book = busy() >> DeadlinePassed(5.0)
        payload = b'{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: r1 Error: Task timed out after 3.00 seconds"}'
        expected = like(Answer, outcome__payload=payload, outcome__status="timeout", outcome__function_error=True)
        (book << expected << KILL_SANDBOX << ReadyAgain("timed out") << In("reset")).end()

    @pytest.mark.parametrize(
        ("how", "error_type", "text"),
        [
            (SandboxExit(0, None), "Runtime.ExitError", "Runtime exited without providing a reason"),
            (SandboxExit(1, None), "Runtime.ExitError", "Runtime exited with error: exit status 1"),
            (SandboxExit(None, 9), "Runtime.ExitError", "Runtime exited with error: signal: killed"),
            (SandboxExit(None, 9, True), "Runtime.OutOfMemory", "Runtime exited with error: signal: killed"),
        ],
    )
    def test_exit(self, how, error_type, text):
        answer, kill, free = busy().machine.handle(Exited(how, 2.5))
        assert answer.outcome.payload == f'{{"errorType":"{error_type}","errorMessage":"RequestId: r1 Error: {text}"}}'.encode()
        assert answer.outcome.note == f"RequestId: r1 Error: {text}\n{error_type}\n"
        assert (answer.outcome.status, answer.outcome.error_type) == ("error", error_type)
        assert (kill, free) == (KILL_SANDBOX, ReadyAgain(text))

    def test_a_sandbox_that_could_not_be_made_is_our_fault(self):
        how = SandboxExit(70, None, fault="umount /tmp: busy")
        answer, kill, gone = busy().machine.handle(Exited(how, 2.5))
        assert isinstance(answer.outcome.fault, PlatformFault)
        assert "umount /tmp: busy" in str(answer.outcome.fault)
        assert (answer.outcome.status, answer.outcome.error_type, answer.outcome.payload) == ("error", "Sandbox.Failure", b"")
        assert (kill, gone) == (KILL_SANDBOX, Gone(how.reason()))

    def test_exit_after_the_answer_leaves_the_answer_standing(self):
        book = busy() >> ResponseFrame("1\nr1\n", b'"ok"', 2.1) >> Exited(SandboxExit(0, None), 2.2)
        expected = like(Answer, outcome__payload=b'"ok"', outcome__function_error=False, outcome__status="error")
        (book << expected << KILL_SANDBOX << ReadyAgain).end()

    def test_no_next_before_the_deadline_leaves_the_answer_standing(self):
        book = busy() >> ResponseFrame("1\nr1\n", b'"ok"', 2.1) >> DeadlinePassed(5.0)
        (book << like(Answer, outcome__payload=b'"ok"', outcome__status="timeout") << KILL_SANDBOX << ReadyAgain).end()

    def test_a_reset_environment_runs_init_inside_the_next_invocation(self):
        book = busy() >> DeadlinePassed(5.0) << Answer << KILL_SANDBOX << ReadyAgain << In("reset") >> IdleLong() << nothing
        book >> Assigned("r2", 9.0) << START_SANDBOX << In("restarting") >> Started(9.1) >> NextFrame(9.5) << INIT_DONE << SendInvoke(2)
        book >> ResponseFrame("2\nr2\n", b"1", 9.6) >> NextFrame(9.7)
        (book << like(Answer, outcome__began_at=9.0, outcome__ended_at=9.7, outcome__init_s=None) << READY << In("idle")).end()

    def test_a_reset_environment_whose_init_fails_then_is_given_up(self):
        book = busy() >> Exited(SandboxExit(1, None), 2.5) << Answer << KILL_SANDBOX << ReadyAgain >> Assigned("r2", 9.0) << START_SANDBOX
        book >> Started(9.1) >> DeadlinePassed(12.0) << ReportInit("invoke", "timeout", pytest.approx(2.9), "")
        (book << like(Answer, outcome__status="timeout") << KILL_SANDBOX << Gone("timed out") << In("stopped")).end()

    def test_a_reset_environment_that_nobody_wants(self):
        (busy() >> DeadlinePassed(5.0) << Answer << KILL_SANDBOX << ReadyAgain >> Kill("idle", 9.0) << KILL_SANDBOX << Gone("idle")).end()

    def test_killed_by_the_platform(self):
        book = busy() >> Kill("shutdown", 2.5)
        (book << like(Answer, outcome__fault=lambda fault: isinstance(fault, PlatformFault)) << KILL_SANDBOX << Gone("shutdown")).end()

    def test_an_invocation_that_nobody_took_goes_back(self):
        (busy() >> Undeliverable(2.0) << REQUEUE << KILL_SANDBOX << Gone("died while idle") << In("stopped")).end()

    def test_death_while_idle_or_frozen(self):
        (idle() >> Exited(SandboxExit(1, None), 3.0) << KILL_SANDBOX << Gone).end()
        (idle() >> IdleLong() << FREEZE >> Exited(SandboxExit(None, 9), 3.0) << KILL_SANDBOX << Gone).end()


class TestFencing:
    """What comes out of a sandbox is never trusted; the caller still gets exactly one answer."""

    @pytest.mark.parametrize(
        "head", ["0\nr1\n", "2\nr1\n", "1\nr2\n", "1\nr1", "", "x\nr1\n", "01\nr1\n", "9" * 5000 + "\nr1\n", "²\nr1\n"]
    )
    @pytest.mark.parametrize("kind", [ResponseFrame, ErrorFrame])
    def test_a_forged_or_late_answer_is_refused(self, head, kind):
        book = busy() >> kind(head, b'"forged"', 2.1)
        refused = like(
            Answer, outcome__function_error=True, outcome__error_type="Runtime.Unknown", outcome__payload=contains(b"Runtime.Unknown")
        )
        (book << refused << KILL_SANDBOX << Gone << In("stopped")).end()

    def test_a_second_answer_costs_the_environment_and_not_the_first_answer(self):
        book = busy() >> ResponseFrame("1\nr1\n", b'"first"', 2.1) >> ResponseFrame("1\nr1\n", b'"second"', 2.2)
        (book << like(Answer, outcome__payload=b'"first"', outcome__status="success") << KILL_SANDBOX << Gone).end()

    @pytest.mark.parametrize(
        "event", [ResponseFrame("1\nr1\n", b"", 3.0), ErrorFrame("1\nr1\n\n", b"", 3.0), NextFrame(3.0), InitErrorFrame("X", b"", 3.0)]
    )
    @pytest.mark.parametrize("frozen", [False, True])
    def test_nothing_may_be_said_while_nothing_runs(self, event, frozen):
        book = idle()
        if frozen:
            book >> IdleLong() << FREEZE
        (book >> event << KILL_SANDBOX << like(Gone, reason=contains("no invocation")) << In("stopped")).end()

    def test_next_before_the_answer(self):
        (busy() >> NextFrame(2.1) << like(Answer, outcome__error_type="Runtime.Unknown") << KILL_SANDBOX << Gone).end()

    def test_the_answer_of_the_invocation_before(self):
        book = busy() >> ResponseFrame("1\nr1\n", b"1", 2.1) >> NextFrame(2.1) << Answer << READY >> Assigned("r2", 3.0) << SendInvoke(2)
        late = like(Answer, outcome__payload=contains(b"an invocation that is over"), outcome__function_error=True)
        (book >> ResponseFrame("1\nr1\n", b"late", 3.1) << late << KILL_SANDBOX << Gone).end()

    def test_what_arrives_after_the_end_changes_nothing(self):
        book = busy() >> Violated("nonsense", 5.0) << Answer << KILL_SANDBOX << Gone
        for event in (
            ResponseFrame("1\nr1\n", b"late", 5.1),
            NextFrame(5.1),
            Exited(SandboxExit(None, 9), 5.1),
            Kill("x", 5.2),
            Violated("y", 5.2),
        ):
            book >> event << nothing << In("stopped")


class TestInit:
    def test_a_start_that_fails(self):
        fault = SandboxFault("no cgroup")
        (fresh() >> StartFailed(fault) << KILL_SANDBOX << Gone("start failed", fault) << In("stopped")).end()

    def test_a_sandbox_that_comes_too_late_is_dropped(self):
        (fresh() >> Kill("not wanted", 0.5) << KILL_SANDBOX << Gone("not wanted") >> Started(1.0) << KILL_SANDBOX << In("stopped")).end()

    @pytest.mark.parametrize(
        ("event", "report"),
        [
            (InitErrorFrame("Runtime.ImportModuleError", b"{}", 1.25), ReportInit("init", "error", 0.25, "Runtime.ImportModuleError")),
            (Exited(SandboxExit(1, None), 1.25), ReportInit("init", "error", 0.25, "Runtime.ExitError")),
            (Exited(SandboxExit(None, 9, True), 1.25), ReportInit("init", "error", 0.25, "Runtime.OutOfMemory")),
            (InitDeadlinePassed(11.0), ReportInit("init", "timeout", 10.0, "")),
            (ResponseFrame("0\n\n", b"", 1.25), ReportInit("init", "error", 0.25, "Runtime.Unknown")),
            (Violated("garbage", 1.25), ReportInit("init", "error", 0.25, "Runtime.Unknown")),
        ],
    )
    def test_a_failed_init_waits_for_an_invocation_to_try_again(self, event, report):
        book = fresh() >> Started(1.0) >> event << report << KILL_SANDBOX << READY_BROKEN << In("broken")
        (book >> Assigned("r1", 20.0) << START_SANDBOX << In("restarting") >> Started(20.1) << In("reinitializing")).end()

    def retried(self) -> Playbook[EnvironmentMachine]:
        book = fresh() >> Started(1.0) >> InitDeadlinePassed(11.0) << ReportInit << KILL_SANDBOX << READY_BROKEN
        return book >> Assigned("r1", 20.0) << START_SANDBOX >> Started(20.5)

    def test_the_second_attempt_is_part_of_the_invocation(self):
        book = self.retried() >> NextFrame(22.0) << INIT_DONE << SendInvoke(1) >> ResponseFrame("1\nr1\n", b'"ok"', 22.5) >> NextFrame(22.5)
        (book << like(Answer, outcome__began_at=20.0, outcome__ended_at=22.5, outcome__init_s=None) << READY << In("idle")).end()

    def test_a_second_init_error_is_the_answer_in_the_runtimes_words(self):
        payload = b'{"errorType":"Runtime.ImportModuleError","errorMessage":"Unable to import module","requestId":""}'
        book = self.retried() >> InitErrorFrame("Runtime.ImportModuleError", payload, 21.0)
        book << ReportInit("invoke", "error", 0.5, "Runtime.ImportModuleError")
        (
            book << like(Answer, outcome__payload=payload, outcome__function_error=True, outcome__status="error") << KILL_SANDBOX << Gone
        ).end()

    def test_the_second_attempt_runs_on_the_functions_time(self):
        book = self.retried() >> DeadlinePassed(23.0) << ReportInit("invoke", "timeout", 2.5, "")
        (
            book << like(Answer, outcome__status="timeout", outcome__payload=contains(b"Task timed out after 3.00")) << KILL_SANDBOX << Gone
        ).end()

    def test_the_second_attempt_dies(self):
        book = self.retried() >> Exited(SandboxExit(0, None), 21.0) << ReportInit("invoke", "error", 0.5, "Runtime.ExitError")
        (book << like(Answer, outcome__payload=contains(b"without providing a reason")) << KILL_SANDBOX << Gone).end()

    def test_no_sandbox_for_the_second_attempt(self):
        fault = SandboxFault("no memory")
        book = fresh() >> Started(1.0) >> InitDeadlinePassed(11.0) << ReportInit << KILL_SANDBOX << READY_BROKEN
        (
            book
            >> Assigned("r1", 20.0)
            << START_SANDBOX
            >> StartFailed(fault)
            << like(Answer, outcome__fault=fault)
            << KILL_SANDBOX
            << Gone
        ).end()

    def test_the_timeout_passes_before_there_is_a_sandbox(self):
        book = fresh() >> Started(1.0) >> InitDeadlinePassed(11.0) << ReportInit << KILL_SANDBOX << READY_BROKEN
        (
            book
            >> Assigned("r1", 20.0)
            << START_SANDBOX
            >> DeadlinePassed(23.0)
            << like(Answer, outcome__status="timeout")
            << KILL_SANDBOX
            << Gone
        )
        (book >> Started(24.0) << KILL_SANDBOX).end()


class TestTable:
    def test_what_the_table_lacks_is_refused_with_the_story(self):
        machine = busy().machine
        with pytest.raises(IllegalTransition, match="no transition from busy on Assigned") as caught:
            machine.handle(Assigned("r2", 2.1))
        assert "idle: Assigned of r1" in caught.value.story
        assert machine.state is State.BUSY

    def test_two_assignments_are_never_legal(self):
        takers = {state for state, event in TABLE if event is Assigned}
        assert takers == {State.IDLE, State.FROZEN, State.BROKEN, State.RESET}

    def test_every_state_but_the_last_can_be_killed_and_every_action_exists(self):
        for state in State:
            assert (state, Kill) in TABLE
        for (action, after), _ in itertools.product(TABLE.values(), [None]):
            assert callable(getattr(EnvironmentMachine, action))
            assert after

    def test_the_machine_is_pure(self):
        names = set(vars(environment_state))
        assert not names & {"asyncio", "time", "os", "logging", "socket"}

"""The platform's log lines, byte for byte, and the splitting of a pipe's bytes into lines."""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambent.observe import log_lines
from lambent.observe.log_lines import LINE_LIMIT, TAIL_LIMIT, LineSplitter, LogTail, Report

ID = "8f507cfc-example-4d3f-b5a9-4b4b1f2c9d10"


def test_the_lines_of_an_invocation():
    arn = "arn:aws:lambda:us-east-1::runtime:abc"
    assert log_lines.init_start("python:3.14.v5", arn) == f"INIT_START Runtime Version: python:3.14.v5\tRuntime Version ARN: {arn}\n"
    assert log_lines.restore_start("python:3.14.v5", arn) == f"RESTORE_START Runtime Version: python:3.14.v5\tRuntime Version ARN: {arn}\n"
    assert log_lines.start(ID, "$LATEST") == f"START RequestId: {ID} Version: $LATEST\n"
    assert log_lines.end(ID) == f"END RequestId: {ID}\n"


BASE = f"REPORT RequestId: {ID}\tDuration: 1.93 ms\tBilled Duration: 2 ms\tMemory Size: 128 MB\tMax Memory Used: 36 MB"


@pytest.mark.parametrize(
    ("extras", "expected"),
    [
        ({}, "\t\n"),
        ({"init_ms": 95.114}, "\tInit Duration: 95.11 ms\t\n"),
        ({"status": "timeout"}, "\tStatus: timeout\n"),
        ({"init_ms": 1.0, "status": "timeout"}, "\tInit Duration: 1.00 ms\tStatus: timeout\n"),
        ({"status": "error", "error_type": "Runtime.ExitError"}, "\tStatus: error\tError Type: Runtime.ExitError\n"),
        ({"restore_ms": 521.926, "billed_restore_ms": 101}, "\tRestore Duration: 521.93 ms\tBilled Restore Duration: 101 ms\t\n"),
        (
            {"status": "timeout", "restore_ms": 5.0, "billed_restore_ms": 6},
            "\tStatus: timeout\tRestore Duration: 5.00 ms\tBilled Restore Duration: 6 ms\t\n",
        ),
        ({"trace_id": "1-5e-ab", "segment_id": "0f"}, "\t\nXRAY TraceId: 1-5e-ab\tSegmentId: 0f\tSampled: true\t\n"),
        ({"trace_id": "1-5e-ab", "segment_id": "0f", "sampled": False}, "\t\nXRAY TraceId: 1-5e-ab\tSegmentId: 0f\tSampled: false\t\n"),
    ],
)
def test_the_report(extras, expected):
    assert log_lines.report(Report(ID, 1.931, 2, 128, 36, **extras)) == BASE + expected


def test_the_lines_of_what_went_wrong():
    assert log_lines.init_report(9999.67, "init", "timeout") == "INIT_REPORT Init Duration: 9999.67 ms\tPhase: init\tStatus: timeout\n"
    assert (
        log_lines.init_report(12, "invoke", "error", "Runtime.ImportModuleError")
        == "INIT_REPORT Init Duration: 12.00 ms\tPhase: invoke\tStatus: error\tError Type: Runtime.ImportModuleError\n"
    )
    assert log_lines.restore_report(12.3) == "RESTORE_REPORT Restore Duration: 12.30 ms\n"
    assert log_lines.restore_report(12.3, "timeout") == "RESTORE_REPORT Restore Duration: 12.30 ms\tStatus: timeout\n"
    assert log_lines.timed_out(1_767_225_600.9996, ID, 3) == f"2026-01-01T00:00:00.999Z {ID} Task timed out after 3.00 seconds\n\n"
    assert (
        log_lines.runtime_exited(ID, "Runtime.ExitError", "Runtime exited with error: exit status 1")
        == f"RequestId: {ID} Error: Runtime exited with error: exit status 1\nRuntime.ExitError\n"
    )


def test_the_lines_of_extensions():
    assert log_lines.extension("x", "Ready", ("INVOKE", "SHUTDOWN")) == "EXTENSION\tName: x\tState: Ready\tEvents: [INVOKE, SHUTDOWN]\n"
    assert (
        log_lines.extension("x", "LaunchError", (), "Extension.LaunchError")
        == "EXTENSION\tName: x\tState: LaunchError\tEvents: []\tError Type: Extension.LaunchError\n"
    )
    assert log_lines.telemetry("x", ("Platform",)) == "TELEMETRY\tName: x\tState: Subscribed\tTypes: [Platform]\n"


def test_a_line_is_whole_with_its_line_feed():
    splitter = LineSplitter()
    assert splitter.feed(b"one\ntw") == ["one\n"]
    assert splitter.feed(b"o\n\n") == ["two\n", "\n"]
    assert splitter.feed(b"rest") == []
    assert splitter.flush() == ["rest"]
    assert splitter.flush() == []


def test_a_record_joined_with_carriage_returns_stays_whole():
    record = '[ERROR] ValueError: no\rTraceback (most recent call last):\r\u00a0\u00a0File "/var/task/app.py", line 3\n'
    assert LineSplitter().feed(record.encode()) == [record]


def test_bytes_that_are_no_utf8_are_replaced():
    assert LineSplitter().feed(b"a\xff\xc3b\n") == ["a\ufffd\ufffdb\n"]


def test_a_character_may_arrive_in_two_pieces():
    splitter = LineSplitter()
    assert splitter.feed(b"caf\xc3") == []
    assert splitter.feed(b"\xa9\n") == ["café\n"]


def test_an_endless_line_is_cut_at_the_limit():
    splitter = LineSplitter()
    lines = splitter.feed(b"x" * (2 * LINE_LIMIT + 10))
    assert [len(line) for line in lines] == [LINE_LIMIT, LINE_LIMIT]
    assert splitter.feed(b"\n") == ["x" * 10 + "\n"]


@given(st.lists(st.binary(max_size=40), max_size=12), st.integers(4, 20))
def test_no_byte_is_lost_however_the_pipe_cuts(pieces, limit):
    """Split lines, joined again, are the input as a lenient decoder reads it; the finished ones respect the limit."""
    splitter = LineSplitter(limit)
    lines = [line for piece in pieces for line in splitter.feed(piece)]
    lines += splitter.flush()
    whole = b"".join(pieces)
    for line in lines:
        assert "\n" not in line[:-1]
    assert [ord(c) for c in "".join(lines) if c != "\ufffd"] == [ord(c) for c in whole.decode("utf-8", "replace") if c != "\ufffd"]


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=200), st.integers(4, 20), st.integers(1, 30))
def test_valid_text_is_never_cut_inside_a_character(text, limit, step):
    data = text.encode()
    splitter = LineSplitter(limit)
    lines = [line for at in range(0, len(data), step) for line in splitter.feed(data[at : at + step])] + splitter.flush()
    assert "".join(lines) == text
    assert all(len(line.encode()) <= limit for line in lines)
    assert codecs.decode(data, "utf-8") == text


@given(st.lists(st.binary(max_size=9_000), max_size=8))
def test_the_tail_is_exactly_the_last_4096_bytes(pieces):
    tail = LogTail()
    for piece in pieces:
        tail.add(piece)
    assert tail.value() == b"".join(pieces)[-TAIL_LIMIT:]

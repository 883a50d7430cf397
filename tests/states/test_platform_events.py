"""Every platform event in its three forms, against the texts of the contract; levels; the filter of printed lines."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambent.observe import log_levels, log_lines
from lambent.observe import platform_events as events
from lambent.observe.log_levels import DEBUG, ERROR, FATAL, INFO, TRACE, WARN, level_of, parsed, rank

ID = "8f507cfc-example-4d3f-b5a9-4b4b1f2c9d10"
ARN = "arn:aws:lambda:us-east-1::runtime:abc"
TRACE_HEADER = "Root=1-5e9f2f0c-0123456789abcdef01234567;Parent=53995c3f42cd8ad8;Sampled=1"
TRACING = {"spanId": "53995c3f42cd8ad8", "type": "X-Amzn-Trace-Id", "value": TRACE_HEADER}
AT = 1_767_225_600.0015
SPAN = events.Span("responseLatency", AT, 1.23456)
SPAN_SEEN = {"name": "responseLatency", "start": "2026-01-01T00:00:00.001Z", "durationMs": 1.235}
START_OF_INIT = ("python:3.14.v5", ARN, "f", "$LATEST", "arn:aws:lambda:us-east-1:1:function:f", "2026/01/01/[$LATEST]ab", 128)
FIGURES = log_lines.Report(ID, 1.9312, 2, 128, 36, 95.1149)

FORMS = [
    (
        events.InitStart("init", *START_OF_INIT),
        (f"INIT_START Runtime Version: python:3.14.v5\tRuntime Version ARN: {ARN}\n",),
        {
            "initializationType": "on-demand",
            "phase": "init",
            "runtimeVersion": "python:3.14.v5",
            "runtimeVersionArn": ARN,
            "functionName": "f",
            "functionArn": "arn:aws:lambda:us-east-1:1:function:f",
            "functionVersion": "$LATEST",
            "instanceId": "2026/01/01/[$LATEST]ab",
            "instanceMaxMemory": 134_217_728,
        },
        INFO,
    ),
    (
        events.InitRuntimeDone("init", "success"),
        (),
        {"initializationType": "on-demand", "phase": "init", "status": "success"},
        DEBUG,
    ),
    (
        events.InitRuntimeDone("invoke", "error", "ValueError"),
        (),
        {"initializationType": "on-demand", "phase": "invoke", "status": "error", "errorType": "Runtime.Unknown"},
        WARN,
    ),
    (
        events.InitReport("init", "success", 95.1149),
        (),
        {"initializationType": "on-demand", "phase": "init", "status": "success", "metrics": {"durationMs": 95.115}},
        DEBUG,
    ),
    (
        events.InitReport("init", "success", 1.0, initialization_type="provisioned-concurrency"),
        (),
        {"initializationType": "provisioned-concurrency", "phase": "init", "status": "success", "metrics": {"durationMs": 1.0}},
        INFO,
    ),
    (
        events.InitReport("init", "timeout", 9999.67),
        ("INIT_REPORT Init Duration: 9999.67 ms\tPhase: init\tStatus: timeout\n",),
        {"initializationType": "on-demand", "phase": "init", "status": "timeout", "metrics": {"durationMs": 9999.67}},
        WARN,
    ),
    (
        events.InitReport("invoke", "error", 12, "Runtime.ImportModuleError"),
        ("INIT_REPORT Init Duration: 12.00 ms\tPhase: invoke\tStatus: error\tError Type: Runtime.ImportModuleError\n",),
        {
            "initializationType": "on-demand",
            "phase": "invoke",
            "status": "error",
            "errorType": "Runtime.ImportModuleError",
            "metrics": {"durationMs": 12},
        },
        WARN,
    ),
    (
        events.RestoreStart("java:21.v3", ARN, "f", "7"),
        (f"RESTORE_START Runtime Version: java:21.v3\tRuntime Version ARN: {ARN}\n",),
        {"functionName": "f", "functionVersion": "7", "runtimeVersion": "java:21.v3", "runtimeVersionArn": ARN},
        INFO,
    ),
    (events.RestoreRuntimeDone("success", "", (SPAN,)), (), {"status": "success", "spans": [SPAN_SEEN]}, DEBUG),
    (
        events.RestoreReport("success", 12.3),
        ("RESTORE_REPORT Restore Duration: 12.30 ms\n",),
        {"status": "success", "metrics": {"durationMs": 12.3}},
        INFO,
    ),
    (
        events.RestoreReport("timeout", 10_000.0),
        ("RESTORE_REPORT Restore Duration: 10000.00 ms\tStatus: timeout\n",),
        {"status": "timeout", "metrics": {"durationMs": 10_000.0}},
        WARN,
    ),
    (
        events.Start(ID, "$LATEST", TRACE_HEADER, "blue"),
        (f"START RequestId: {ID} Version: $LATEST\n",),
        {"requestId": ID, "version": "$LATEST", "tenantId": "blue", "tracing": TRACING},
        INFO,
    ),
    (
        events.RuntimeDone(ID, "success", 1.5, 42, (SPAN,), "", TRACE_HEADER),
        (),
        {
            "requestId": ID,
            "status": "success",
            "metrics": {"durationMs": 1.5, "producedBytes": 42},
            "spans": [SPAN_SEEN],
            "tracing": TRACING,
        },
        DEBUG,
    ),
    (
        events.RuntimeDone(ID, "timeout", 3000.0, 0),
        (),
        {"requestId": ID, "status": "timeout", "metrics": {"durationMs": 3000.0, "producedBytes": 0}},
        WARN,
    ),
    (
        events.Report(FIGURES, "success"),
        (
            f"END RequestId: {ID}\n",
            f"REPORT RequestId: {ID}\tDuration: 1.93 ms\tBilled Duration: 2 ms\tMemory Size: 128 MB\tMax Memory Used: 36 MB"
            "\tInit Duration: 95.11 ms\t\n",
        ),
        {
            "requestId": ID,
            "status": "success",
            "metrics": {"durationMs": 1.931, "billedDurationMs": 2, "memorySizeMB": 128, "maxMemoryUsedMB": 36, "initDurationMs": 95.115},
        },
        INFO,
    ),
    (
        events.Report(
            log_lines.Report(
                ID, 5.0, 5, 128, 36, status="error", error_type="Runtime.ExitError", restore_ms=521.9264, billed_restore_ms=101
            ),
            "error",
            "Runtime.ExitError",
            (events.Span("extensionOverhead", AT, 0.5),),
            TRACE_HEADER,
        ),
        (
            f"END RequestId: {ID}\n",
            f"REPORT RequestId: {ID}\tDuration: 5.00 ms\tBilled Duration: 5 ms\tMemory Size: 128 MB\tMax Memory Used: 36 MB"
            "\tStatus: error\tError Type: Runtime.ExitError\tRestore Duration: 521.93 ms\tBilled Restore Duration: 101 ms\t\n",
        ),
        {
            "requestId": ID,
            "status": "error",
            "errorType": "Runtime.ExitError",
            "metrics": {
                "durationMs": 5.0,
                "billedDurationMs": 5,
                "memorySizeMB": 128,
                "maxMemoryUsedMB": 36,
                "restoreDurationMs": 521.926,
                "billedRestoreDurationMs": 101,
            },
            "spans": [{"name": "extensionOverhead", "start": "2026-01-01T00:00:00.001Z", "durationMs": 0.5}],
            "tracing": TRACING,
        },
        WARN,
    ),
    (
        events.Fault(f"RequestId: {ID} Error: Runtime exited with error: exit status 1\nRuntime.ExitError\n"),
        (f"RequestId: {ID} Error: Runtime exited with error: exit status 1\nRuntime.ExitError\n",),
        f"RequestId: {ID} Error: Runtime exited with error: exit status 1\nRuntime.ExitError",
        WARN,
    ),
    (
        events.Extension("x", "Ready", ("INVOKE", "SHUTDOWN")),
        ("EXTENSION\tName: x\tState: Ready\tEvents: [INVOKE, SHUTDOWN]\n",),
        {"name": "x", "state": "Ready", "events": ["INVOKE", "SHUTDOWN"]},
        INFO,
    ),
    (
        events.Extension("x", "LaunchError", (), "Extension.LaunchError"),
        ("EXTENSION\tName: x\tState: LaunchError\tEvents: []\tError Type: Extension.LaunchError\n",),
        {"name": "x", "state": "LaunchError", "events": [], "errorType": "Extension.LaunchError"},
        WARN,
    ),
    (
        events.TelemetrySubscription("x", ("platform", "function")),
        ("TELEMETRY\tName: x\tState: Subscribed\tTypes: [Platform, Function]\n",),
        {"name": "x", "state": "Subscribed", "types": ["platform", "function"]},
        INFO,
    ),
    (
        events.LogsSubscription("x", ("extension",)),
        ("LOGS\tName: x\tState: Subscribed\tTypes: [Extension]\n",),
        {"name": "x", "state": "Subscribed", "types": ["extension"]},
        INFO,
    ),
    (events.LogsDropped("slow", 7, 900), (), {"reason": "slow", "droppedRecords": 7, "droppedBytes": 900}, WARN),
]


@pytest.mark.parametrize(("event", "lines", "record", "level"), FORMS, ids=[f"{event.kind}-{i}" for i, (event, *_) in enumerate(FORMS)])
def test_three_forms(event, lines, record, level):
    assert event.lines() == lines
    assert event.record() == record
    assert event.level() == level
    line = events.json_line(event, AT)
    assert line.endswith("}\n")
    assert "\n" not in line[:-1]
    assert json.loads(line) == {"time": "2026-01-01T00:00:00.001Z", "type": event.kind, "record": record}


def test_every_kind_is_one_of_the_contracts():
    known = "initStart initRuntimeDone initReport restoreStart restoreRuntimeDone restoreReport start runtimeDone report extension"
    known += " telemetrySubscription logsSubscription logsDropped fault"
    assert {event.kind for event, *_ in FORMS} == {"platform." + kind for kind in known.split()}


def test_what_text_logs_do_not_tell():
    assert events.InitStart("invoke", *START_OF_INIT).lines() == ()
    of_an_image = events.InitStart("init", "", "", *START_OF_INIT[2:])
    assert of_an_image.lines() == ()
    assert not {"runtimeVersion", "runtimeVersionArn"} & set(of_an_image.record())


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("", ""),
        ("Runtime.ExitError", "Runtime.ExitError"),
        ("Function.ResponseSizeTooLarge", "Function.ResponseSizeTooLarge"),
        ("Extension.Crash", "Extension.Crash"),
        ("Sandbox.Timedout", "Sandbox.Timedout"),
        ("ValueError", "Runtime.Unknown"),
        ("Runtime.lower", "Runtime.Unknown"),
        ("Runtime.X1", "Runtime.Unknown"),
        ("Function.no such", "Function.Unknown"),
        ("Runtime.Exit\nError", "Runtime.Unknown"),
    ],
)
def test_error_types_of_strangers_are_not_repeated(named, told):
    assert events.error_type(named) == told


class TestLevels:
    TIME = '"timestamp": "2026-11-21T16:00:00Z"'

    @pytest.mark.parametrize(
        ("line", "level"),
        [
            (f'{{"level": "trace", {TIME}}}\n', TRACE),
            (f'{{"level": "DEBUG", {TIME}}}', DEBUG),
            (f'{{"level": "Information", {TIME}}}', INFO),
            (f'{{"level": "warning", {TIME}}}', WARN),
            (f'{{"level": "WARN", {TIME}}}', WARN),
            (f'{{"Level": "error", {TIME}}}', ERROR),
            (f'{{"level": "CRITICAL", {TIME}}}', FATAL),
            ('{"level": "error", "time": "2026-11-21t16:00:00.123456+01:00"}', ERROR),
            ('{"level": "error", "@timestamp": "2026-11-21 16:00:00.1-11:30"}', ERROR),
            ('{"level": "error"}', INFO),
            ('{"level": "error", "timestamp": 5}', INFO),
            ('{"level": "error", "timestamp": "2026-13-21T16:00:00Z"}', INFO),
            ('{"level": "error", "timestamp": "2026-11-21T16:00:00"}', INFO),
            (f'{{"level": "loud", {TIME}}}', INFO),
            (f'{{"level": 4, {TIME}}}', INFO),
            (f"{{{TIME}}}", INFO),
            ("plain\n", INFO),
            ("[]", INFO),
            ('{"level": "error"', INFO),
            ("{" * 100_000, INFO),
            ('{"a":' * 100_000, INFO),
            ('{"a": ' + "9" * 10_000 + "}", INFO),
        ],
    )
    def test_of_a_line(self, line, level):
        assert level_of(parsed(line)) == level

    def test_by_name(self):
        assert [rank(name) for name in ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")] == [1, 2, 3, 4, 5, 6]
        assert rank("") == log_levels.INFO

    @given(st.text())
    def test_no_line_is_too_odd(self, text):
        assert level_of(parsed(text)) in range(1, 7)
        assert level_of(parsed("{" + text)) in range(1, 7)

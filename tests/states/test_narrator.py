"""Who is told what: the log as text or JSON, and subscribers, early and late; what the pump does to lines on their way."""

from __future__ import annotations

import json
import os
import struct
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from lambent.arn import parse_function
from lambent.function_version import FunctionVersion
from lambent.invoke.log_pump import Behind, LogPump
from lambent.invoke.narrator import EARLY_CHARACTERS, EARLY_ITEMS, Narrator
from lambent.observe.log_levels import rank
from lambent.observe.log_sink import LogStream
from lambent.observe.platform_events import Extension, Fault, InitReport, RuntimeDone
from lambent.testing.clock import ManualClock
from lambent.testing.fake_logs import FakeLogs

ARN = parse_function("f", "us-east-1", "000000000000")
TEXT = FunctionVersion(ARN, "$LATEST", "python3.12", "a.b", "", "")
JSON = replace(TEXT, log_format="JSON", application_log_level="INFO", system_log_level="INFO")
STREAM = LogStream("000000000000", "us-east-1", "g", "s")
JOB: Any = SimpleNamespace(call=SimpleNamespace(request_id="r1", want_log=True, tenant=""), trace="Root=1-a-b;Parent=c;Sampled=0")


class Api:
    """What a narrator needs of a RuntimeApi."""

    def __init__(self, *wanted: str) -> None:
        self.wants_telemetry = frozenset(wanted)
        self.heard: list[tuple[str, Any, float, str]] = []

    def publish(self, kind: str, record: Any, time: float, category: str) -> None:
        self.heard.append((kind, record, time, category))

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, *_ in self.heard]


class House:
    def __init__(self, version: FunctionVersion = TEXT) -> None:
        self.clock = ManualClock()
        self.logs = FakeLogs()
        least = rank(version.application_log_level) if version.log_format == "JSON" else 0
        self.pump = LogPump(STREAM, self.logs, self.clock, least)
        self.narrator = Narrator(self.pump, version, self.clock)

    def printed(self, data: bytes) -> None:
        """As if the function had written it."""
        self.pump._take(data)

    def lines(self) -> list[str]:
        self.pump.flush()
        return [line for lines in self.logs.streams.values() for _, line in lines]

    def stamps(self) -> list[int]:
        self.pump.flush()
        return [stamp for lines in self.logs.streams.values() for stamp, _ in lines]


def frame(text: str, micros: int, level: int = 3) -> bytes:
    return struct.pack(">IIQ", 0xA55A0003 | level << 2, len(text.encode()), micros) + text.encode()


class TestNarrator:
    def test_plain_is_text_with_nobody_listening(self):
        for version, wanted, plain in (
            (TEXT, None, True),
            (TEXT, (), True),
            (TEXT, ("function",), True),
            (TEXT, ("platform",), False),
            (JSON, None, False),
        ):
            house = House(version)
            assert not house.narrator.plain
            if wanted is not None:
                house.narrator.opened(Api(*wanted))
            house.narrator.settle()
            assert house.narrator.plain is plain

    def test_a_text_log_is_the_same_with_and_without_listeners(self):
        seen = []
        for wanted in ((), ("platform",)):
            house = House()
            house.narrator.opened(Api(*wanted))
            house.narrator.init_start("python:3.12.v1", "arn", "s")
            house.narrator.settle()
            house.narrator.begin(JOB, house.clock.now())
            seen.append(house.lines())
        assert seen[0] == seen[1] == [
            "INIT_START Runtime Version: python:3.12.v1\tRuntime Version ARN: arn\n",
            "START RequestId: r1 Version: $LATEST\n",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("level", "kinds"), [("DEBUG", ["initReport", "runtimeDone", "fault"]), ("INFO", ["fault"]), ("WARN", ["fault"])]
    )
    def test_a_json_log_has_its_level_and_subscribers_have_none(self, level, kinds):
        house = House(replace(JSON, system_log_level=level))
        api = Api("platform")
        house.narrator.opened(api)
        house.narrator.tell(InitReport("init", "success", 1.0))
        house.narrator.tell(RuntimeDone("r1", "success", 1.0, 2), house.clock.now() + 5)
        house.narrator.tell(Fault("bad\n"))
        assert [json.loads(line)["type"] for line in house.lines()] == ["platform." + kind for kind in kinds]
        assert api.kinds == ["platform.initReport", "platform.runtimeDone", "platform.fault"]
        assert api.heard[1][2] == house.clock.now() + 5
        if level == "DEBUG":
            assert json.loads(house.lines()[1])["time"] == "2026-01-01T00:00:05.000Z"

    def test_what_is_early_waits_for_an_api_that_is_opened_late(self):
        house = House()
        house.narrator.init_start("python:3.12.v1", "arn", "s")
        house.printed(b"loading\n")
        api = Api()
        house.narrator.opened(api)
        house.narrator.tell(Extension("x", "Ready", ("INVOKE",)))
        assert api.kinds == ["platform.initStart", "function", "platform.extension"]

    def test_and_not_for_one_that_is_opened_after_init(self):
        house = House()
        house.narrator.init_start("python:3.12.v1", "arn", "s")
        house.narrator.settle()
        api = Api()
        house.narrator.opened(api)
        house.narrator.begin(JOB, house.clock.now())
        house.printed(b"line\n")
        assert api.heard == []

    def test_what_is_early_is_bounded(self):
        for line, most in ((b"x\n", EARLY_ITEMS), (b"x" * 10_000 + b"\n", EARLY_CHARACTERS // 10_001)):
            house = House()
            for _ in range(2_000):
                house.printed(line)
            api = Api()
            house.narrator.opened(api)
            assert len(api.heard) == most

    def test_lines_go_to_those_who_asked_for_them(self):
        for wanted, categories in ((("function",), ["function"]), (("extension",), ["extension"]), (("platform",), [])):
            house = House()
            extension = LogPump(STREAM, Behind(house.pump), house.clock)
            house.narrator.adopt(extension)
            api = Api(*wanted)
            house.narrator.opened(api)
            house.narrator.settle()
            house.printed(b"function's\n")
            extension._take(b"extension's\n")
            extension.flush()
            assert [category for *_, category in api.heard] == categories
            assert house.lines() == ["function's\n", "extension's\n"]

    def test_objects_where_the_log_is_json_and_never_filtered(self):
        house = House(JSON)
        api = Api("function")
        house.narrator.opened(api)
        house.narrator.settle()
        debug = '{"level": "DEBUG", "timestamp": "2026-01-01T00:00:00Z"}'
        house.printed(f"{debug}\nplain\n".encode())
        assert [record for _, record, *_ in api.heard] == [json.loads(debug), "plain\n"]
        assert house.lines() == ["plain\n"]


class TestPump:
    def test_levels_of_frames_count_more_than_what_is_in_them(self):
        house = House(replace(JSON, application_log_level="WARN"))
        house.printed(frame("low", 0, 2) + frame("high", 0, 4) + b"plain\n" + frame("unknown", 0, 0))
        assert house.lines() == ["high\n"]

    def test_times_of_frames_never_go_back(self):
        house = House()
        now = int(house.clock.now() * 1000)
        house.clock.advance(10)
        house.printed(frame("early", (now + 4_000) * 1000) + frame("before it", (now + 3_000) * 1000) + b"printed\n")
        house.printed(frame("behind what was printed", (now + 5_000) * 1000) + frame("of the future", (now + 99_000) * 1000))
        assert [stamp - now for stamp in house.stamps()] == [4_000, 4_000, 10_000, 10_000, 10_000]

    @pytest.mark.parametrize("version", [TEXT, JSON], ids=["text", "json"])
    def test_nothing_that_a_function_says_stands_before_its_start(self, version):
        """It may be at work, and have stamped its first record, before the node comes to write START."""
        house = House(version)
        house.narrator.settle()
        given = house.clock.now()
        house.clock.advance(0.02)
        house.narrator.begin(JOB, given)
        house.printed(frame("quick", int((given + 0.005) * 1_000_000)) + frame("of a clock that went back", int((given - 9) * 1_000_000)))
        (start, quick, odd) = house.stamps()
        assert start == int(given * 1000)
        assert start <= quick <= odd < int(house.clock.now() * 1000)

    @pytest.mark.parametrize("version", [TEXT, JSON], ids=["text", "json"])
    def test_the_tail_is_the_end_of_what_the_log_has(self, version):
        house = House(version)
        house.narrator.settle()
        house.printed(b"before\n")
        house.narrator.begin(JOB, house.clock.now())
        extension = LogPump(STREAM, Behind(house.pump), house.clock)
        for number in range(200):
            house.printed(f"line {number} ö\n".encode() + frame(f"record {number}\nof two lines", 0))
            house.printed(b'{"level": "DEBUG", "timestamp": "2026-01-01T00:00:00Z"}\n')
            extension._take(b"said\n")
            extension.flush()
        house.printed(b"unfinished")
        house.pump.end_line()
        tail = house.pump.finish()
        whole = "".join(house.lines()).encode()
        assert len(tail) == 4_096
        assert whole.endswith(tail)
        assert (b"DEBUG" in whole) == (version is TEXT)
        house.narrator.begin(JOB, house.clock.now())
        assert house.pump.finish() == house.lines()[-1].encode()

    def test_frames_through_a_real_pipe(self):
        async def main() -> None:
            house = House()
            reading, writing = os.pipe()
            os.set_blocking(reading, False)
            house.pump.attach(reading)
            os.write(writing, b"printed\n" + frame("two\nlines", 0) + b"\xa5\x5a\x00\x0f\x00\x00")
            house.pump.drain()
            assert house.lines() == ["printed\n", "two\nlines\n"]
            os.write(writing, b"\x00\x05" + bytes(8) + b"wh")
            os.close(writing)
            house.pump.drain()
            house.pump.end_line()
            assert house.lines()[2:] == ["wh\n"]
            house.pump.last_words(house.pump.detach() if house.pump._fd >= 0 else reading)

        uvloop.run(main())

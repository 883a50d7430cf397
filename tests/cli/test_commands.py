"""The parts of the command line that need no server: options of ``up``, the banner, following a log, times and tables."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lambent.cli import screen
from lambent.cli.logs import beginning, watch
from lambent.cli.up import banner, parse
from lambent.sandbox.driver import IsolationReport
from lambent.settings import Settings

NAMESPACES = IsolationReport("namespaces", "the kernel allows it", {"cgroups": "v2"})


def test_options_of_up_are_read_without_help():
    assert parse([]) == {}
    assert parse(["--port", "9000", "--host=0.0.0.0", "--data-dir", "d", "--config=c"]) == {
        "port": 9000,
        "host": "0.0.0.0",
        "data_dir": Path("d"),
        "config": Path("c"),
    }


@pytest.mark.parametrize("arguments", [["--help"], ["--port"], ["--port", "x"], ["--nonsense", "1"], ["stray"], ["-h"]])
def test_what_up_does_not_understand_is_left_to_typer(arguments):
    assert parse(arguments) is None


def test_the_server_process_loads_no_library_of_the_other_commands():
    code = (
        "import sys; sys.argv = ['lambent', 'up', '--config', '/nowhere/at/all'];"
        "from lambent.cli.main import main; assert main() == 1;"
        "print(sorted({'typer', 'rich', 'pydantic', 'boto3'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert done.stderr.startswith("lambent: /nowhere/at/all: ")


def test_the_banner_says_where_and_how():
    lines = banner(Settings(port=9000), NAMESPACES)
    text = "\n".join(lines)
    assert "http://127.0.0.1:9000" in text
    assert "namespaces: the kernel allows it" in text
    assert "cgroups v2" in text
    assert str(Path(".lambent").absolute()) in text
    assert not [line for line in lines if line.startswith("WARNING")]


def test_the_banner_warns_loudly():
    report = IsolationReport("process", "no namespaces", {}, ("unshare is forbidden: set kernel.unprivileged_userns_clone=1",))
    warnings = [line for line in banner(Settings(), report) if line.startswith("WARNING")]
    assert "WITHOUT ISOLATION" in warnings[0]
    assert "unprivileged_userns_clone" in warnings[-1]
    open_to_all = banner(replace(Settings(), host="0.0.0.0"), NAMESPACES)
    assert "can be reached from outside" in open_to_all[-1]
    assert "http://127.0.0.1:4566" in "\n".join(open_to_all)
    assert "http://[::1]:4566" in "\n".join(banner(replace(Settings(), host="::1"), NAMESPACES))


class _Stepping:
    """A clock whose sleep counts, and ends the loop after some."""

    def __init__(self, naps: int) -> None:
        self.naps = naps

    async def sleep(self, delay: float) -> None:
        self.naps -= 1
        if not self.naps:
            raise asyncio.CancelledError


def event(identity: str, at: int) -> dict:
    return {"eventId": identity, "timestamp": at}


def test_following_shows_each_event_once_even_when_it_comes_late():
    store = [event("a", 10_000), event("b", 10_500)]
    arriving = [[event("c", 12_000)], [event("late", 11_000)], [event("d", 20_000)], []]
    asked = []
    shown = []

    def fetch(start):
        asked.append(start)
        found = sorted((entry for entry in store if entry["timestamp"] >= start), key=lambda entry: entry["timestamp"])
        if arriving:
            store.extend(arriving.pop(0))
        return found

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(watch(fetch, 5_000, _Stepping(6), lambda entry: shown.append(entry["eventId"])))
    assert shown == ["a", "b", "c", "late", "d"]
    assert asked == sorted(asked)
    assert asked[-1] == 18_000


def test_beginnings():
    assert beginning("30s", 1_000.0) == 970_000
    assert beginning("10m", 1_000.0) == 400_000
    assert beginning("1d", 1_000.0) == 0
    assert beginning("2026-11-21T09:00:00", 0) == 1_795_251_600_000
    assert beginning("2026-11-21T10:00:00+01:00", 0) == 1_795_251_600_000
    with pytest.raises(screen.Trouble):
        beginning("soon", 0)


def test_durations_and_sizes():
    assert [screen.duration(value) for value in (0.44, 59.94, 61, 7_260, 90_000)] == ["0.4s", "59.9s", "1m 1s", "2h 1m", "1d 1h"]
    assert [screen.size(value) for value in (12, 2_048, 5 * 2**20, 3 * 2**30)] == ["12 B", "2.0 KB", "5.0 MB", "3.0 GB"]


def test_piped_tables_are_plain(capsys):
    screen.table(("A", "B"), [("x", 1), ("y\tz\nw", 2)], "nothing")
    screen.table(("A", "B"), [], "nothing")
    screen.show_json({"a": [1]})
    out, err = capsys.readouterr()
    assert out.splitlines()[:2] == ["x\t1", "y z w\t2"]
    assert json.loads("".join(out.splitlines()[2:])) == {"a": [1]}
    assert err == ""

"""``lambent dev``: a real command, a real server, real edits. What an invocation runs is compared with what lies in the folder."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
from acceptance_helpers import below

from lambent.cli.bundle import bundle
from lambent.cli.dev_snapshot import Snapshot
from lambent.cli.screen import Trouble
from lambent.clock import SystemClock
from lambent.testing.local_server import LocalServer

HANG_S = 60.0
SOURCE = "import helper\n\ndef handler(event, context):\n    print('in', helper.VALUE)\n    return {!r}\n"


class Dev:
    """A running ``lambent dev``; ``lines`` is what it has said."""

    def __init__(self, *arguments):
        self.lines = []
        self._said = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lambent.cli.main", "dev", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        with self.process.stdout as stream:
            for line in stream:
                with self._said:
                    self.lines.append(line)
                    self._said.notify_all()
        with self._said:
            self.lines.append("")
            self._said.notify_all()

    def expect(self, pattern, after=0):
        """Wait for a line that matches; gives its number and the match."""
        with self._said:
            while True:
                for number, line in enumerate(self.lines[after:], after):
                    if match := re.search(pattern, line):
                        return number, match
                assert "" not in self.lines, "".join(self.lines)
                assert self._said.wait(HANG_S), "".join(self.lines)

    def stop(self, number=signal.SIGINT):
        self.process.send_signal(number)
        code = self.process.wait(HANG_S)
        self._reader.join(HANG_S)
        return code

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(HANG_S)
        self._reader.join(HANG_S)


@pytest.fixture
def dev():
    started = []

    def start(*arguments):
        started.append(Dev(*map(str, arguments)))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "shop"
    path.mkdir()
    (path / "app.py").write_text(SOURCE.format("first"))
    (path / "helper.py").write_text("VALUE = 'helper one'\n")
    return path


def invoke(api, name="shop"):
    answer = api.invoke(FunctionName=name)
    return json.load(answer["Payload"])


def test_edits_are_live_when_the_line_says_so(server, api, dev, folder):
    session = dev(folder, "--endpoint", server.endpoint)
    number, _ = session.expect(r"^Watching ")
    assert invoke(api) == "first"
    for edit in range(8):
        (folder / "app.py").write_text(SOURCE.format(edit))
        number, match = session.expect(r"reloaded in (\d+) ms: app\.py  ([0-9a-f]{12})", number + 1)
        assert invoke(api) == edit
        configuration = api.get_function_configuration(FunctionName="shop")
        assert base64.b64decode(configuration["CodeSha256"]).hex().startswith(match[2])
    (folder / "helper.py").write_text("VALUE = 'helper two'\n")
    number, _ = session.expect(r"reloaded .*: helper\.py", number + 1)
    invoke(api)
    session.expect(r"in helper two", number)
    assert session.stop() == 0
    assert "Traceback" not in "".join(session.lines)


def test_files_come_and_go_and_litter_does_not_count(server, api, dev, folder):
    session = dev(folder, "--endpoint", server.endpoint, "--function", "litter", "--no-logs")
    number, _ = session.expect(r"^Watching ")
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "data.txt").write_text("new")
    number, _ = session.expect(r"reloaded .*: deep/er/data\.txt", number + 1)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "app.pyc").write_bytes(b"x")
    (folder / "app.py").write_text(SOURCE.format("same"))
    number, match = session.expect(r"reloaded .*: (.*)  ", number + 1)
    assert match[1] == "app.py"
    replacement = folder / "app.py~"  # as editors save: another file, moved into place
    replacement.write_text(SOURCE.format("moved"))
    os.replace(replacement, folder / "app.py")
    number, _ = session.expect(r"reloaded .*app\.py", number + 1)
    shutil.rmtree(folder / "deep")
    number, _ = session.expect(r"reloaded .*: deep/er/data\.txt", number + 1)
    assert invoke(api, "litter") == "moved"
    assert session.stop(signal.SIGTERM) == 0


def test_a_broken_edit_is_survived(server, api, dev, folder):
    session = dev(folder, "--endpoint", server.endpoint, "--name", "broken", "--no-logs")
    number, _ = session.expect(r"^Watching ")
    (folder / "app.py").write_text("def handler(:\n")
    number, _ = session.expect(r"reloaded", number + 1)
    assert invoke(api, "broken")["errorType"] == "Runtime.UserCodeSyntaxError"
    (folder / "app.py").write_text(SOURCE.format("mended"))
    number, _ = session.expect(r"reloaded", number + 1)
    assert invoke(api, "broken") == "mended"
    api.delete_function(FunctionName="broken")
    (folder / "app.py").write_text(SOURCE.format("orphan"))
    session.expect(r"not reloaded: ResourceNotFoundException", number + 1)
    assert session.stop() == 0


def test_many_edits_at_once_end_with_the_last(server, api, dev, folder):
    session = dev(folder, "--endpoint", server.endpoint, "--name", "many", "--no-logs")
    number, _ = session.expect(r"^Watching ")
    stop = threading.Event()
    answers = set()

    def call():
        own = server.client("lambda")
        while not stop.is_set():
            answers.add(json.dumps(invoke(own, "many")))

    caller = threading.Thread(target=call)
    (folder / ".lambdaignore").write_text(".lambent-edit\n")
    caller.start()
    for edit in range(60):
        (folder / ".lambent-edit").write_text(SOURCE.format(edit))
        os.replace(folder / ".lambent-edit", folder / "app.py")
    expected = bundle(folder)
    session.expect(rf"reloaded .*  {hashlib.sha256(expected).hexdigest()[:12]}", number + 1)
    assert invoke(api, "many") == 59
    stop.set()
    caller.join(HANG_S)
    assert answers <= {json.dumps(answer) for answer in ("first", *range(60))}
    assert session.stop() == 0


def test_it_brings_its_own_server_and_takes_it_along(dev, folder, tmp_path):
    spare = LocalServer(data_dir=tmp_path / "unused")  # for its free port and its client; never started
    session = dev(folder, "--endpoint", spare.endpoint, "--data-dir", tmp_path / "data", "--runtime", _runtime(), "--env", "AB=C")
    session.expect(r"Lambent is up at")
    number, _ = session.expect(r"^Watching ")
    api = spare.client("lambda")
    assert invoke(api) == "first"
    assert api.get_function_configuration(FunctionName="shop")["Environment"] == {"Variables": {"AB": "C"}}
    session.expect(r"in helper one", number)  # the log is followed
    pids = below(session.process.pid)
    assert len(pids) > 1
    assert session.stop() == 0
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


def test_a_server_elsewhere_is_not_started(dev, folder):
    session = dev(folder, "--endpoint", "http://203.0.113.1.invalid:4566")
    session.expect(r"^lambent: ")
    assert session.process.wait(HANG_S) == 1


def _runtime():
    return f"python3.{sys.version_info[1]}"


# ---------------------------------------------------------------------------------------------------------------- snapshots


def test_a_snapshot_is_the_bundle(folder):
    (folder / "pkg").mkdir()
    (folder / "pkg" / "data.bin").write_bytes(os.urandom(10_000))
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / ".lambdaignore").write_text("*.log\n")
    (folder / "noise.log").write_text("x")
    snapshot = Snapshot(folder, SystemClock())
    code, changed = snapshot.take()
    assert code == bundle(folder)
    assert changed == ["app.py", "helper.py", "pkg/data.bin", "run.sh"]
    assert snapshot.take() == (code, [])
    (folder / "pkg" / "data.bin").write_bytes(b"other")
    (folder / "helper.py").unlink()
    (folder / "run.sh").chmod(0o644)
    code, changed = snapshot.take()
    assert code == bundle(folder)
    assert changed == ["pkg/data.bin", "run.sh", "helper.py"]
    with zipfile.ZipFile(io.BytesIO(code)) as archive:
        assert archive.testzip() is None
        assert archive.read("pkg/data.bin") == b"other"


def test_an_edit_that_hides_its_time_is_seen(folder):
    snapshot = Snapshot(folder, SystemClock())
    snapshot.take()
    before = (folder / "helper.py").stat()
    (folder / "helper.py").write_text("VALUE = 'helper two'\n")  # the same size
    os.utime(folder / "helper.py", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert snapshot.take()[1] == ["helper.py"]


def test_a_file_in_the_midst_of_being_written_is_told(folder):
    snapshot = Snapshot(folder, SystemClock())
    snapshot.take()
    (folder / "helper.py").write_text("")
    _, changed = snapshot.take()
    assert changed == ["helper.py"]
    assert snapshot.still(changed)
    assert snapshot.emptied(changed)
    (folder / "helper.py").write_text("VALUE = 3")
    assert not snapshot.still(changed)
    assert snapshot.take()[1] == changed
    assert snapshot.still(changed)
    assert not snapshot.emptied(changed)
    (folder / "helper.py").unlink()
    assert not snapshot.still(changed)


def test_links_that_go_in_circles_end(folder):
    (folder / "loop").symlink_to(folder)
    (folder / "nowhere").symlink_to("/no/such/file")
    _, changed = Snapshot(folder, SystemClock()).take()
    assert "app.py" in changed
    assert len(changed) <= 4


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(Trouble, match="holds no files"):
        Snapshot(tmp_path, SystemClock()).take()

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
from lambent.cli.dev import Session
from lambent.cli.dev_server import server_at
from lambent.cli.dev_snapshot import Snapshot
from lambent.cli.screen import Trouble
from lambent.clock import SystemClock
from lambent.control.code_spares import MIN_FILES
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


def fill(path):
    path.mkdir()
    (path / "app.py").write_text(SOURCE.format("first"))
    (path / "helper.py").write_text("VALUE = 'helper one'\n")
    return path


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path / "shop")


class Shop:
    """The one command that most tests here share, and its folder."""

    def __init__(self, folder, endpoint):
        self.folder = folder
        self.session = Dev(str(folder), "--endpoint", endpoint)
        self._number, _ = self.session.expect(r"^Watching ")

    def write(self, content, name="app.py"):
        (self.folder / name).write_text(content)

    def expect(self, pattern):
        """Wait for a line behind those that were waited for before."""
        self._number, match = self.session.expect(pattern, self._number + 1)
        return match


@pytest.fixture(scope="module")
def shop(server, tmp_path_factory):
    running = Shop(fill(tmp_path_factory.mktemp("dev") / "shop"), server.endpoint)
    try:
        yield running
        assert running.session.stop() == 0
        assert "lambent/cli" not in "".join(running.session.lines)  # a traceback of ours
    finally:
        running.session.close()


def invoke(api, name="shop"):
    answer = api.invoke(FunctionName=name)
    return json.load(answer["Payload"])


def test_edits_are_live_when_the_line_says_so(api, shop):
    assert invoke(api) == "first"
    for edit in range(5):
        shop.write(SOURCE.format(edit))
        match = shop.expect(r"reloaded in (\d+) ms: app\.py  ([0-9a-f]{12})")
        assert invoke(api) == edit
        configuration = api.get_function_configuration(FunctionName="shop")
        assert base64.b64decode(configuration["CodeSha256"]).hex().startswith(match[2])
    shop.write("VALUE = 'helper two'\n", "helper.py")
    shop.expect(r"reloaded .*: helper\.py")
    invoke(api)
    shop.expect(r"in helper two")


def test_files_come_and_go_and_litter_does_not_count(api, shop):
    folder = shop.folder
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "data.txt").write_text("new")
    shop.expect(r"reloaded .*: deep/er/data\.txt")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "app.pyc").write_bytes(b"x")
    shop.write(SOURCE.format("same"))
    assert shop.expect(r"reloaded .*: (.*)  ")[1] == "app.py"
    replacement = folder / "app.py~"  # as editors save: another file, moved into place
    replacement.write_text(SOURCE.format("moved"))
    os.replace(replacement, folder / "app.py")
    shop.expect(r"reloaded .*app\.py")
    shutil.rmtree(folder / "deep")
    shop.expect(r"reloaded .*: deep/er/data\.txt")
    assert invoke(api) == "moved"


def test_a_folder_of_many_files(api, shop):
    """More than are unpacked anew for one edit."""
    for number in range(MIN_FILES):
        shop.write(f"VALUE = {number}\n", f"many_{number}.py")
    shop.write("from many_7 import VALUE\n\ndef handler(event, context):\n    import many_99\n    return [VALUE, many_99.VALUE]\n")
    expected = hashlib.sha256(bundle(shop.folder)).hexdigest()[:12]
    shop.expect(rf"reloaded .*  {expected}")
    assert invoke(api) == [7, 99]
    for edit in range(3):
        shop.write(f"VALUE = 'edit {edit}'\n", "many_7.py")
        shop.expect(r"reloaded .*: many_7\.py  ")
        assert invoke(api) == [f"edit {edit}", 99]
    for path in shop.folder.glob("many_*.py"):
        path.unlink()
    shop.write(SOURCE.format("few"))
    expected = hashlib.sha256(bundle(shop.folder)).hexdigest()[:12]
    shop.expect(rf"reloaded .*  {expected}")
    assert invoke(api) == "few"


def test_a_broken_edit_is_survived(api, shop):
    shop.write("def handler(:\n")
    shop.expect(r"reloaded")
    assert invoke(api)["errorType"] == "Runtime.UserCodeSyntaxError"
    shop.write(SOURCE.format("mended"))
    shop.expect(r"reloaded")
    assert invoke(api) == "mended"


def test_a_function_that_was_deleted_is_told(server, api, folder, capsys):
    session = Session(folder, "orphan", server.endpoint, SystemClock())
    session.begin({"Runtime": _runtime(), "Handler": "app.handler"}, {})
    api.delete_function(FunctionName="orphan")
    (folder / "app.py").write_text(SOURCE.format("orphan"))
    assert not session.reload(0.0)
    assert "not reloaded: ResourceNotFoundException" in capsys.readouterr().out


def test_many_edits_at_once_end_with_the_last(server, api, shop):
    folder = shop.folder
    (folder / ".lambdaignore").write_text(".lambent-edit\n")
    shop.write(SOURCE.format("before"))
    shop.expect(r"reloaded")
    stop = threading.Event()
    answers = set()

    def call():
        own = server.client("lambda")
        while not stop.is_set():
            answers.add(json.dumps(invoke(own)))

    caller = threading.Thread(target=call)
    caller.start()
    for edit in range(60):
        (folder / ".lambent-edit").write_text(SOURCE.format(edit))
        os.replace(folder / ".lambent-edit", folder / "app.py")
    shop.expect(rf"reloaded .*  {hashlib.sha256(bundle(folder)).hexdigest()[:12]}")
    assert invoke(api) == 59
    stop.set()
    caller.join(HANG_S)
    assert answers <= {json.dumps(answer) for answer in ("before", *range(60))}


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
    assert session.stop(signal.SIGTERM) == 0
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


def test_a_server_elsewhere_is_not_started():
    with pytest.raises(Trouble, match=r"203\.0\.113\.1\.invalid"), server_at("http://203.0.113.1.invalid:4566", None, None):
        raise AssertionError("there is no such server")


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

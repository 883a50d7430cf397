"""The ``lambent`` command as a user or a script runs it: a process, its output, its exit code."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lambent.testing.local_server import free_port

_LAMBENT = Path(sys.executable).with_name("lambent")
_HELLO = Path(__file__).parents[2] / "examples" / "hello"


def lambent(endpoint: str, *words: str, code: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command with its output piped."""
    done = subprocess.run(
        [str(_LAMBENT), *words],
        env={**os.environ, "LAMBENT_ENDPOINT": endpoint},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def run(server):
    def bound(*words: str, code: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return lambent(server.endpoint, *words, code=code, stdin=stdin)

    return bound


@pytest.fixture(scope="module")
def hello(run) -> str:
    run("deploy", str(_HELLO))
    return "hello"


def in_terminal(endpoint: str, *words: str, columns: int = 200) -> str:
    """Run the command with a terminal as its output, and give what it drew."""
    master, slave = pty.openpty()
    environment = {**os.environ, "LAMBENT_ENDPOINT": endpoint, "TERM": "xterm", "COLUMNS": str(columns)}
    process = subprocess.Popen([str(_LAMBENT), *words], env=environment, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    drawn = b""
    try:
        while chunk := os.read(master, 65_536):
            drawn += chunk
    except OSError:  # the other end is closed
        pass
    os.close(master)
    assert process.wait() == 0, drawn.decode()
    return drawn.decode()


# deploy


def test_deploy_creates_then_updates_what_changed(run, tmp_path):
    folder = tmp_path / "my service"
    folder.mkdir()
    (folder / "main.py").write_text("import os\ndef handler(event, context):\n    return [1, os.environ.get('AA')]\n")
    first = run("deploy", str(folder), "--env", "AA=x=y")
    assert first.stdout == "arn:aws:lambda:us-east-1:000000000000:function:my-service\n"
    assert "Created" in first.stderr
    assert run("invoke", "my-service").stdout == '[1, "x=y"]'
    assert "Unchanged" in run("deploy", str(folder)).stderr
    (folder / "main.py").write_text("import os\ndef handler(event, context):\n    return [2, os.environ.get('AA')]\n")
    document = json.loads(run("deploy", str(folder), "--memory", "256", "--timeout", "9", "--json").stdout)
    assert (document["Outcome"], document["MemorySize"], document["Timeout"]) == ("Updated", 256, 9)
    assert document["Handler"] == "main.handler"
    assert run("invoke", "my-service").stdout == '[2, "x=y"]'
    assert run("delete", "my-service").returncode == 0
    assert "ResourceNotFoundException" in run("invoke", "my-service", code=1).stderr


def test_deploy_explains_what_it_cannot_do(run, tmp_path):
    assert "is not a folder" in run("deploy", str(tmp_path / "absent"), code=1).stderr
    assert "no files to deploy" in run("deploy", str(tmp_path), "--name", "x", code=1).stderr
    (tmp_path / "a.py").write_text("x = 1\n")
    assert "--handler" in run("deploy", str(tmp_path), "--name", "x", code=1).stderr
    assert "NAME=VALUE" in run("deploy", str(tmp_path), "--name", "x", "--handler", "a.x", "--env", "nonsense", code=1).stderr
    answer = run("deploy", str(tmp_path), "--name", "x", "--handler", "a.x", "--memory", "1", code=1)
    assert len(answer.stderr.strip().splitlines()) == 1
    assert "MemorySize" in answer.stderr


# invoke


def test_invoke_takes_the_event_from_anywhere(run, hello, tmp_path):
    (tmp_path / "event.json").write_text('{"name": "file"}')
    assert json.loads(run("invoke", hello).stdout)["message"] == "Hello, world!"
    assert json.loads(run("invoke", hello, "--payload", '{"name": "Ada"}').stdout)["message"] == "Hello, Ada!"
    assert json.loads(run("invoke", hello, "--payload", f"@{tmp_path / 'event.json'}").stdout)["message"] == "Hello, file!"
    assert json.loads(run("invoke", hello, "--payload", "-", stdin='{"name": "pipe"}').stdout)["message"] == "Hello, pipe!"
    assert "No such file" in run("invoke", hello, "--payload", "@/nowhere", code=1).stderr
    assert "InvalidRequestContentException" in run("invoke", hello, "--payload", "{", code=1).stderr


def test_invoke_shows_log_and_details_on_request(run, hello):
    answer = run("invoke", hello, "--log", "--payload", '{"name": "Log"}')
    assert json.loads(answer.stdout)["message"] == "Hello, Log!"
    assert answer.stderr.splitlines()[0].startswith("START RequestId: ")
    assert "greeting Log" in answer.stderr
    document = json.loads(run("invoke", hello, "--json").stdout)
    assert (document["statusCode"], document["functionError"], document["executedVersion"]) == (200, None, "$LATEST")
    assert document["payload"]["message"] == "Hello, world!"
    assert "REPORT RequestId: " + document["requestId"] in document["log"]


def test_a_failing_function_exits_with_1(run, tmp_path):
    (tmp_path / "app.py").write_text("def handler(event, context):\n    raise KeyError('x')\n")
    run("deploy", str(tmp_path), "--name", "failing")
    answer = run("invoke", "failing", code=1)
    assert json.loads(answer.stdout)["errorType"] == "KeyError"
    assert "failing failed (Unhandled)" in answer.stderr
    assert json.loads(run("invoke", "failing", "--json", code=1).stdout)["functionError"] == "Unhandled"


# logs, ps, story, functions


def test_logs_are_shown_and_followed(server, run, hello):
    run("invoke", hello, "--payload", '{"name": "Early"}')
    assert "greeting Early" in run("logs", hello).stdout
    assert "greeting Early" in run("logs", hello, "--filter", "greeting").stdout
    assert "REPORT" not in run("logs", hello, "--filter", "greeting").stdout
    assert {"message", "timestamp", "logStreamName"} <= set(json.loads(run("logs", hello, "--json").stdout)[0])
    environment = {**os.environ, "LAMBENT_ENDPOINT": server.endpoint}
    with subprocess.Popen([str(_LAMBENT), "logs", hello, "--follow"], env=environment, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        lines = iter(follower.stdout)
        assert any("greeting Early" in line for line in lines)
        run("invoke", hello, "--payload", '{"name": "Later"}')
        assert any("greeting Later" in line for line in lines)
        follower.terminate()
    assert "no log yet" in run("logs", "never-invoked", code=1).stderr
    assert "--since" in run("logs", hello, "--since", "yesterday", code=1).stderr


def test_environments_and_their_stories(server, run, hello):
    run("invoke", hello)
    rows = [line.split("\t") for line in run("ps").stdout.splitlines()]
    mine = next(row for row in rows if "hello" in row[1])
    assert len(mine) == 7
    document = next(entry for entry in json.loads(run("ps", "--json").stdout) if entry["id"] == mine[0])
    assert document["invocations"] >= 1
    steps = run("story", mine[0]).stdout.splitlines()
    assert len(steps) >= 2
    assert all(len(step.split("\t")) == 4 for step in steps)
    assert json.loads(run("story", mine[0], "--json").stdout)["id"] == mine[0]
    assert mine[0] in in_terminal(server.endpoint, "ps", columns=80)
    assert len(run("story", "f" * 32, code=1).stderr.strip().splitlines()) == 1


def test_functions_are_listed(server, run, hello):
    assert any(line.split("\t")[0] == hello for line in run("functions").stdout.splitlines())
    assert hello in [entry["FunctionName"] for entry in json.loads(run("functions", "--json").stdout)]
    drawn = in_terminal(server.endpoint, "functions")
    assert "RUNTIME" in drawn
    assert hello in drawn


def test_a_terminal_sees_progress_and_tables(server, hello, tmp_path):
    shutil.copytree(_HELLO, tmp_path / "drawn")
    (tmp_path / "drawn" / "data.bin").write_bytes(os.urandom(3 * 2**20))
    drawn = in_terminal(server.endpoint, "deploy", str(tmp_path / "drawn"))
    assert "Uploading" in drawn
    assert "Created" in drawn
    assert "INVOCATIONS" in in_terminal(server.endpoint, "ps")


@pytest.mark.skipif(shutil.which("curl") is None, reason="the bootstrap of this test needs curl")
def test_what_a_function_prints_does_nothing_to_a_terminal(server, run, tmp_path):
    (tmp_path / "painter").mkdir()
    (tmp_path / "painter" / "bootstrap").write_text(_PAINTER)
    (tmp_path / "painter" / "bootstrap").chmod(0o755)
    run("deploy", str(tmp_path / "painter"), "--runtime", "provided.al2023", "--handler", "x")
    assert run("invoke", "painter").stdout == "\x1b]0;title\x07\x1b[31mred"
    for words in (("invoke", "painter", "--log"), ("logs", "painter")):
        drawn = in_terminal(server.endpoint, *words)
        assert "\x1b[31mred" in drawn
        assert "\\x1b]0;title\\x07" in drawn
        assert "\x1b]" not in drawn
        assert "\x07" not in drawn
    assert "\x1b]0;title\x07" in run("logs", "painter").stdout


_PAINTER = r"""#!/bin/bash
while true; do
  printf '\033]0;title\007\033[31mred\n'
  head=$(mktemp)
  curl -sS -D "$head" "http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/next" > /dev/null
  id=$(grep -i '^lambda-runtime-aws-request-id:' "$head" | tr -d '\r' | cut -d' ' -f2)
  answer="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/$id/response"
  printf '\033]0;title\007\033[31mred' | curl -sS --data-binary @- "$answer" > /dev/null
done
"""


# without a server


def test_no_server_is_one_friendly_line():
    endpoint = f"http://127.0.0.1:{free_port()}"
    for words in (("functions",), ("ps",), ("invoke", "f"), ("logs", "f"), ("story", "x"), ("deploy", str(_HELLO))):
        answer = lambent(endpoint, *words, code=1)
        assert answer.stdout == ""
        assert len(answer.stderr.strip().splitlines()) == 1
        assert "lambent up" in answer.stderr


def test_doctor_needs_no_server():
    document = json.loads(lambent("http://127.0.0.1:9", "doctor", "--json").stdout)
    assert document["interpreters"]
    assert document["isolation"]["driver"] in {"namespaces", "process"}
    assert document["isolation"]["reason"]
    text = lambent("http://127.0.0.1:9", "doctor").stdout
    assert document["isolation"]["driver"] in text
    assert document["searched"]
    assert all(place in text for place in document["searched"])


def test_mistakes_in_up_are_told(tmp_path):
    config = tmp_path / "lambent.toml"
    config.write_text("prot = 4566\n")
    answer = lambent("", "up", "--config", str(config), code=1)
    assert "unknown setting 'prot'" in answer.stderr
    assert "port" in lambent("", "up", "--port", "many", code=2).stderr
    assert "--nonsense" in lambent("", "up", "--nonsense", code=2).stderr
    assert "--data-dir" in lambent("", "up", "--help").stdout
    for port in ("0", "-1", "65536"):
        assert "--port" in lambent("", "up", "--port", port, code=2).stderr
    for place in (config, config / "sub", Path("/proc/nowhere")):
        answer = lambent("", "up", "--port", str(free_port()), "--data-dir", str(place), code=1)
        assert str(place) in answer.stderr
        assert len(answer.stderr.splitlines()) == 1


@pytest.mark.parametrize("endpoint", ["nonsense", "127.0.0.1:4566", "http://127.0.0.1:99999", "http://", "ftp://127.0.0.1:4566"])
def test_what_is_no_endpoint_is_told(endpoint):
    for words in (("functions",), ("ps",), ("invoke", "f"), ("logs", "f"), ("deploy", str(_HELLO))):
        answer = lambent("", *words, "--endpoint", endpoint, code=1)
        assert answer.stderr == f"lambent: --endpoint {endpoint}: expected something like http://127.0.0.1:4566\n"


def test_a_taken_port_is_told(server, tmp_path):
    answer = lambent("", "up", "--port", str(server.port), "--data-dir", str(tmp_path / "other"), code=1)
    assert str(server.port) in answer.stderr

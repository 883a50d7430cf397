"""The Ruby runtime client, on every Ruby that this machine has, against a peer that speaks frames; no sandbox is involved.

"cold" runs the client with the function's environment, "warm" starts it ahead and tells it over descriptor 4, as the drivers do.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

from lambent.runtime_api.frames import Frame, FrameReader, FrameType, encode_invoke
from lambent.runtimes import ruby

HANG_S = 60.0
RUBIES = [found for path in ruby._searched(dict(os.environ)) if isinstance(found := ruby.ask(path), ruby.Ruby)]
pytestmark = pytest.mark.skipif(not RUBIES, reason="this machine has no Ruby")

FUNCTION = """
require 'set'
require 'stringio'

class OwnError < StandardError; end

module Deep
  class Greeter
    def self.greet(event:, context:)
      "hello #{event['name']} from #{context.function_name}"
    end
  end
end

def handler(event:, context:)
  event.is_a?(Hash) && event['do'] ? send(event.delete('do'), event, context) : event
end

def describe(event, context)
  {
    request: context.aws_request_id, arn: context.invoked_function_arn, tenant: context.tenant_id, name: context.function_name,
    version: context.function_version, memory: context.memory_limit_in_mb, group: context.log_group_name,
    stream: context.log_stream_name, remaining: context.get_remaining_time_in_millis, deadline: context.deadline_ms,
    client: context.client_context, w3c: context.w3c, identity: context.identity, trace: ENV['_X_AMZN_TRACE_ID']
  }
end

def place(event, context)
  {
    cwd: Dir.pwd, load_path: $LOAD_PATH.first(4), gem_path: Gem.path, environ: ENV.to_h, zone: Time.at(0).strftime('%H %Z'),
    encoding: Encoding.default_external.to_s, net: defined?(Net::HTTP), argv: ARGV, pid: Process.pid
  }
end

def fail(event, context) = raise(OwnError, event['message'])

def argument(event, context) = raise(ArgumentError, 'bad')

def undefined(event, context) = no_such_thing

def nan(event, context) = Float::NAN

def stream(event, context) = StringIO.new("\\x00\\xffraw".b)

def large(event, context) = 'x' * event['size']

def measure(event, context) = event['text'].bytesize

def leave(event, context) = exit(event['code'])

def vanish(event, context) = exit!(event['code'])

def die(event, context) = Process.kill('KILL', Process.pid)

def talk(event, context)
  puts 'to stdout', 'two lines'
  warn 'to stderr'
  Logger.new($stdout).info('said')
  Logger.new($stderr, progname: 'mine', level: :warn).info('not said')
  Logger.new($stdout, formatter: ->(*, message) { "own #{message}\\n" }).warn('format')
  Logger.new($stdout, progname: 'mine').error(begin; raise OwnError, 'logged'; rescue StandardError => e; e; end)
  Logger.new(StringIO.new).error('kept away')
  nil
end

def child(event, context) = IO.popen(['sh', '-c', 'ls /proc/self/fd'], &:read).split

at_exit { puts 'goodbye' }
"""


class Runtime:
    """A started client and the node's side of its channel."""

    def __init__(self, folder, found, mode, handler, extra, telemetry=None):
        self.task = folder / "task"
        environment = {
            "LAMBDA_TASK_ROOT": str(self.task),
            "RUBYLIB": f"{self.task}:{folder}/layer/lib",
            "GEM_PATH": f"{self.task}/vendor/bundle/ruby/{found.abi}",
            "PATH": "/usr/bin:/bin",
            "TZ": ":UTC",
            "LANG": "en_US.UTF-8",
            "AWS_LAMBDA_FUNCTION_NAME": "greeter",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
            "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/greeter",
            "AWS_LAMBDA_LOG_STREAM_NAME": "stream",
            "AWS_LAMBDA_LOG_FORMAT": "Text",
            "_HANDLER": handler,
            **extra,
        }
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(HANG_S)
        self._reader, self._frames = FrameReader(8_000_000), list[Frame]()
        self._token = 0
        told, telling = os.pipe()
        self.runtime = found.executable
        # descriptors 3 and 4 as the drivers give them; the shell only moves them into place
        places = {3: theirs.fileno()} | ({4: told} if mode == "warm" else {}) | ({5: telemetry} if telemetry is not None else {})
        moved = {place: os.dup2(fd, 50 + place) for place, fd in places.items()}
        script = "exec " + " ".join(f"{place}<&{fd} {fd}<&-" for place, fd in moved.items()) + '; exec "$@"'
        program = [found.executable, str(ruby.client_folder() / "client.rb"), *(["--warm"] if mode == "warm" else [])]
        base = {"PATH": "/usr/bin:/bin", "TZ": "America/New_York"} if mode == "warm" else environment
        if telemetry is not None:
            environment["_LAMBDA_TELEMETRY_LOG_FD"] = "5"
            base = {**base, "_LAMBDA_TELEMETRY_LOG_FD": "5"}
        self.process = subprocess.Popen(
            ["bash", "-c", script, "bash", *program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=base,
            pass_fds=list(moved.values()),
        )
        for fd in moved.values():
            os.close(fd)
        theirs.close()
        os.close(told)
        if mode == "warm":
            os.write(telling, json.dumps({"env": environment, "handler": handler}).encode())
        os.close(telling)

    def frame(self):
        """The next frame; ``EOFError`` if the process has ended instead."""
        while not self._frames:
            try:
                data = self.channel.recv(1 << 20)
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError
            self._frames = self._reader.feed(data)
        return self._frames.pop(0)

    def ready(self):
        assert self.frame().type == FrameType.NEXT

    def send(self, event, **fields):
        self._token += 1
        self.request = f"00000000-0000-4000-8000-{self._token:012d}"
        self.deadline = int(time.time() * 1000) + 60_000
        arn = "arn:aws:lambda:eu-west-1:123456789012:function:greeter:live"
        self.channel.sendall(encode_invoke(self._token, self.request, self.deadline, arn, fields.pop("trace", ""), event, **fields))

    def answer(self):
        answer = self.frame()
        assert answer.head.split("\n")[:2] == [str(self._token), self.request]
        return answer

    def invoke(self, event, **fields):
        self.send(event, **fields)
        answer = self.answer()
        self.ready()
        return answer

    def call(self, do, **event):
        answer = self.invoke(json.dumps({"do": do, **event}).encode())
        assert answer.type == FrameType.RESPONSE, answer
        assert answer.head.split("\n")[2] == "application/json"
        return json.loads(answer.body)

    def end(self):
        """Wait for the process: its exit status, and what it printed."""
        self.channel.close()
        output, _ = self.process.communicate(timeout=HANG_S)
        return self.process.returncode, output.decode()

    def close(self):
        self.channel.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=HANG_S)


@pytest.fixture(params=RUBIES, ids=lambda found: found.version_text)
def found(request):
    return request.param


@pytest.fixture
def mode():
    return "cold"


both_modes = pytest.mark.parametrize("mode", ["cold", "warm"])


@pytest.fixture
def start(tmp_path, found, mode):
    started = []

    def start(handler="function.handler", source=FUNCTION, file="function.rb", telemetry=None, **environment):
        path = tmp_path / "task" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        started.append(Runtime(tmp_path, found, mode, handler, environment, telemetry))
        return started[-1]

    yield start
    for runtime in started:
        runtime.close()


@both_modes
def test_events_and_answers(start):
    runtime = start()
    runtime.ready()
    for event in ({"a": [1, 2.5, None, True, "é 🎈"]}, [], "text", 7, None):
        answer = runtime.invoke(json.dumps(event).encode())
        assert json.loads(answer.body) == event
        assert answer.head.split("\n")[2] == "application/json"
    assert runtime.call("large", size=3_000_000) == "x" * 3_000_000
    assert runtime.call("measure", text="é" * 500_000) == 1_000_000
    status, output = runtime.end()
    assert (status, output) == (0, "")  # the node has gone: quietly, without at_exit


@both_modes
def test_context(start):
    runtime = start()
    runtime.ready()
    context = {"custom": {"a": "b"}, "w3c": {"traceparent": "00-1-2-01", "tracestate": 7, "other": "x"}}
    answer = runtime.invoke(
        b'{"do": "describe"}',
        trace="Root=1-2-3;Parent=4;Sampled=0",
        tenant="blue",
        cognito='{"cognitoIdentityId":"me","cognitoIdentityPoolId":"pool"}',
        client_context=json.dumps(context),
    )
    told = json.loads(answer.body)
    assert 0 < told.pop("remaining") <= 60_000
    assert told == {
        "request": runtime.request,
        "arn": "arn:aws:lambda:eu-west-1:123456789012:function:greeter:live",
        "tenant": "blue",
        "name": "greeter",
        "version": "$LATEST",
        "memory": "256",
        "group": "/aws/lambda/greeter",
        "stream": "stream",
        "deadline": runtime.deadline,
        "client": {"custom": {"a": "b"}},
        "w3c": {"traceparent": "00-1-2-01"},
        "identity": {"cognitoIdentityId": "me", "cognitoIdentityPoolId": "pool"},
        "trace": "Root=1-2-3;Parent=4;Sampled=0",
    }
    plain = runtime.call("describe")
    assert [plain[name] for name in ("tenant", "client", "identity", "trace", "w3c")] == [None, None, None, None, {}]


@both_modes
def test_place(start, tmp_path, found):
    (tmp_path / "layer" / "lib").mkdir(parents=True)
    (tmp_path / "layer" / "lib" / "from_layer.rb").write_text("LAYERED = 'from the layer'\n")
    runtime = start(source="require 'from_layer'\n" + FUNCTION, MINE="yes")
    runtime.ready()
    told = runtime.call("place")
    task = str(tmp_path / "task")
    assert told["cwd"] == task
    assert told["load_path"][:2] == [task, f"{tmp_path}/layer/lib"]
    assert f"{task}/vendor/bundle/ruby/{found.abi}" in told["gem_path"]
    assert told["zone"] == "00 UTC"
    assert told["encoding"] == "UTF-8"
    assert told["net"] == "constant"
    assert told["argv"] == []
    assert told["environ"]["MINE"] == "yes"
    assert told["environ"]["TZ"] == ":UTC"


@both_modes
def test_a_gem_of_the_function_is_found(start, tmp_path, found):
    home = tmp_path / "task" / "vendor" / "bundle" / "ruby" / found.abi
    (home / "gems" / "brought-1.0" / "lib").mkdir(parents=True)
    (home / "gems" / "brought-1.0" / "lib" / "brought.rb").write_text("BROUGHT = 42\n")
    (home / "specifications").mkdir()
    (home / "specifications" / "brought-1.0.gemspec").write_text(
        "Gem::Specification.new do |s|\n  s.name = 'brought'\n  s.version = '1.0'\n  s.summary = 's'\n  s.authors = ['a']\n"
        "  s.files = ['lib/brought.rb']\nend\n"
    )
    runtime = start(source="require 'brought'\ndef handler(event:, context:) = BROUGHT\n")
    runtime.ready()
    assert json.loads(runtime.invoke(b"{}").body) == 42


@pytest.mark.parametrize("handler", ["function.Deep::Greeter.greet", "deep/file.Deep::Greeter.greet"])
def test_handlers_of_classes(start, handler):
    runtime = start(handler, file=handler.split(".")[0] + ".rb")
    runtime.ready()
    assert json.loads(runtime.invoke(b'{"name": "Ada"}').body) == "hello Ada from greeter"


def test_an_error_is_answered_and_the_process_goes_on(start):
    runtime = start()
    runtime.ready()
    answer = runtime.invoke('{"do": "fail", "message": "oh é"}'.encode())
    assert answer.type == FrameType.ERROR
    payload = json.loads(answer.body)
    assert list(payload) == ["errorMessage", "errorType", "stackTrace"]
    assert (payload["errorMessage"], payload["errorType"]) == ("oh é", "Function<OwnError>")
    assert re.fullmatch(r".*/task/function\.rb:\d+:in [`'](Object#)?fail'", payload["stackTrace"][0])
    assert all("/ruby_client/" not in line for line in payload["stackTrace"])
    _, _, error_type, cause = answer.head.split("\n", 3)
    assert error_type == "Function<UserException>"
    told = json.loads(cause)["exceptions"][0]
    assert told["type"] == "Function<OwnError>"
    assert told["stack"][0]["path"].endswith("function.rb")
    assert runtime.invoke(b'{"do": "argument"}').head.split("\n")[2] == "Function<ArgumentError>"
    assert json.loads(runtime.invoke(b'{"do": "nan"}').body)["errorType"] == "Function<JSON::GeneratorError>"
    assert runtime.invoke(b"1").body == b"1"
    _, output = runtime.end()
    assert output.startswith('Error raised from handler method\n{\n  "errorMessage": "oh é",\n  "errorType": "Function<OwnError>",\n')


@pytest.mark.parametrize(("do", "error"), [("undefined", "NameError"), ("leave", "SystemExit"), ("handler_gone", "NoMethodError")])
def test_a_critical_error_is_answered_and_ends_the_process(start, do, error):
    runtime = start()
    runtime.ready()
    runtime.send(json.dumps({"do": do, "code": 0}).encode())
    answer = runtime.answer()
    assert answer.type == FrameType.ERROR
    assert json.loads(answer.body)["errorType"] == f"Function<{error}>"
    with pytest.raises(EOFError):
        runtime.frame()
    status, output = runtime.end()
    assert status == 255
    assert output.startswith("Critical exception from handler\n")
    assert output.endswith("goodbye\n")


@both_modes
@pytest.mark.parametrize(
    ("handler", "source", "error", "told", "message"),
    [
        ("absent.handler", "", "LoadError", "Init<LoadError>", "cannot load such file -- absent"),
        ("function.handler", "no_such_name", "NameError", "Init<NameError>", "undefined local variable or method"),
        ("function.handler", "def (", "SyntaxError", "Function<UserException>", "syntax error"),
        ("function.handler", "raise 'early'", "RuntimeError", "Function<UserException>", "early"),
        ("handler", "", "ArgumentError", "Init<ArgumentError>", "Invalid handler"),
    ],
)
def test_init_errors(start, handler, source, error, told, message):
    runtime = start(handler, source)
    frame = runtime.frame()
    assert (frame.type, frame.head) == (FrameType.INIT_ERROR, told)
    payload = json.loads(frame.body)
    assert payload["errorType"] == f"Init<{error}>"
    assert message in payload["errorMessage"]
    status, output = runtime.end()
    assert status == 252
    assert output.startswith(f"Init error when loading handler {handler}\n")


def test_a_method_that_is_missing_fails_at_the_first_invocation(start):
    runtime = start("function.absent")
    runtime.ready()
    runtime.send(b"{}")
    assert json.loads(runtime.answer().body)["errorType"] == "Function<NoMethodError>"


def test_ends(start):
    runtime = start()
    runtime.ready()
    runtime.send(b'{"do": "vanish", "code": 7}')
    assert runtime.end()[0] == 7
    runtime = start()
    runtime.ready()
    runtime.send(b'{"do": "die"}')
    assert runtime.end()[0] == -signal.SIGKILL
    runtime = start()
    runtime.ready()
    runtime.process.terminate()  # between events: at_exit runs, and all is well
    output, _ = runtime.process.communicate(timeout=HANG_S)
    assert (runtime.process.returncode, output) == (0, b"goodbye\n")


def test_an_answer_that_is_not_json(start):
    runtime = start()
    runtime.ready()
    answer = runtime.invoke(b'{"do": "stream"}')
    assert (answer.head.split("\n")[2], answer.body) == ("application/unknown", b"\x00\xffraw")


def test_a_function_may_replace_the_marshaller(start):
    own = (
        "module AwsLambda\n  class Marshaller\n    class << self\n"
        "      def marshall_request(raw) = raw.body.bytesize\n"
        "      def marshall_response(answer) = [answer.to_s, 'text/plain']\n    end\n  end\nend\n"
    )
    runtime = start(source=own + "def handler(event:, context:) = event + 1\n")
    runtime.ready()
    answer = runtime.invoke(b'{"a": 1}')
    assert (answer.head.split("\n")[2], answer.body) == ("text/plain", b"9")


@both_modes
def test_text_logs(start):
    runtime = start()
    runtime.ready()
    runtime.call("talk")
    _, output = runtime.end()
    lines = output.splitlines()
    assert lines[:3] == ["to stdout", "two lines", "to stderr"]
    said = rf"I, \[\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{6}} #\d+\]  INFO {runtime.request} -- : said"
    assert re.fullmatch(said, lines[3])
    assert lines[4] == "own format"
    assert re.match(rf"E, \[.* #\d+\] ERROR {runtime.request} -- mine: logged \(OwnError\)", lines[5])
    assert "not said" not in output
    assert "kept away" not in output


@both_modes
def test_json_logs(start):
    runtime = start(AWS_LAMBDA_LOG_FORMAT="JSON", AWS_LAMBDA_LOG_LEVEL="ERROR")
    runtime.ready()
    runtime.call("talk")
    _, output = runtime.end()
    lines = output.splitlines()
    assert lines[:3] == ["to stdout", "two lines", "to stderr"]
    assert "said" not in output  # below ERROR
    assert "own format" not in output
    record = json.loads(lines[3])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", record.pop("timestamp"))
    assert record.pop("stackTrace")[0].startswith(str(runtime.task))
    assert record.pop("location").startswith(f"{runtime.task}/function.rb:")
    assert record == {
        "level": "ERROR",
        "message": "logged",
        "logger": "mine",
        "errorType": "OwnError",
        "errorMessage": "logged",
        "requestId": runtime.request,
    }


def test_framed_logs(start):
    ours, theirs = os.pipe()
    runtime = start(telemetry=theirs)
    os.close(theirs)
    runtime.ready()
    runtime.call("talk")
    _, output = runtime.end()
    with open(ours, "rb") as file:
        data = file.read()
    records = []
    while data:
        assert int.from_bytes(data[:4], "big") == 0xA55A0003
        length = int.from_bytes(data[4:8], "big")
        assert abs(int.from_bytes(data[8:16], "big") / 1e6 - time.time()) < 3_600
        records.append(data[16 : 16 + length].decode())
        data = data[16 + length :]
    assert records[0] == "to stdout\ntwo lines"  # one record
    assert records[1].endswith("said\n")
    assert records[2] == "own format\n"
    assert output == "to stderr\n"


@both_modes
def test_children_inherit_nothing(start):
    runtime = start()
    runtime.ready()
    assert set(runtime.call("child")) <= {"0", "1", "2", "3"}  # the fourth is ls's own


@pytest.mark.parametrize("mode", ["warm"])
def test_a_warm_start_takes_up_what_only_a_new_interpreter_can(start):
    runtime = start(RUBYOPT="-W:no-experimental -rabbrev")
    runtime.ready()
    assert runtime.call("place")["environ"]["RUBYOPT"] == "-W:no-experimental -rabbrev"


def test_a_warm_start_that_is_never_used_ends(found):
    done = subprocess.run(
        ["bash", "-c", 'exec 4</dev/null; exec "$@"', "bash", found.executable, str(ruby.client_folder() / "client.rb"), "--warm"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=HANG_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_nothing_but_its_minor_version_is_a_managed_runtime(found):
    entry = found.executable
    plan = ruby.find(found.runtime, (), {})
    assert not isinstance(plan, str)
    assert plan.version == found.version_text
    refusal = ruby.find("ruby9.9", (), {})
    assert isinstance(refusal, str)
    assert found.version_text in refusal
    chosen = ruby.find("ruby9.9", (f"ruby9.9={entry}",), {})
    assert not isinstance(chosen, str)
    assert (chosen.runtime, chosen.version) == ("ruby9.9", found.version_text)
    assert isinstance(ruby.find("ruby9.9", (f"ruby9.9={shutil.which('true')}",), {}), str)
    assert isinstance(ruby.find("ruby9.9", ("ruby9.9=/nowhere/ruby",), {}), str)

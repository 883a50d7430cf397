"""Ruby functions against a real server with real sandboxes.

A managed runtime needs its own minor version; where this machine has none of them, the settings name the Ruby that there is for one, which
is what a user in the same place may do, and INIT_START then says what truly runs.
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile

import pytest
from acceptance_helpers import call, stop_cleanly, zipped

from lambent.runtimes import ruby
from lambent.runtimes.plan import RuntimePlan
from lambent.testing.local_server import LocalServer

RUBIES = [found for path in ruby._searched(dict(os.environ)) if isinstance(found := ruby.ask(path), ruby.Ruby)]
MANAGED = [name for name in ruby.RUNTIMES if isinstance(ruby.find(name, (), dict(os.environ)), RuntimePlan)]
pytestmark = pytest.mark.skipif(not RUBIES, reason="this machine has no Ruby")
RUNTIME = MANAGED[-1] if MANAGED else "ruby3.3"

FUNCTION = """
require 'logger'
LOG = Logger.new($stdout)
$count = 0

def handler(event:, context:)
  $count += 1
  puts "saw #{event}"
  LOG.info('logged')
  case event.is_a?(Hash) && event['do']
  when 'fail' then raise 'oh dear'
  when 'undefined' then nothing_of_that_name
  when 'exit' then exit!(3)
  when 'sleep' then sleep
  when 'memory' then (1..).map { 'x' * 1_000_000 }
  when 'place'
    { count: $count, cwd: Dir.pwd, task: ENV['LAMBDA_TASK_ROOT'], execution: ENV['AWS_EXECUTION_ENV'], mine: ENV['MINE'],
      trace: ENV['_X_AMZN_TRACE_ID'], name: context.function_name, memory: context.memory_limit_in_mb,
      left: context.get_remaining_time_in_millis, id: context.aws_request_id, tmp: (File.write('/tmp/a', 'b')),
      gems: ENV['GEM_PATH'], lib: ENV['RUBYLIB'], uid: Process.uid,
      layer: (require 'layered'; LAYERED) }
  else event
  end
end
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    config = tmp_path_factory.mktemp("ruby") / "lambent.toml"
    entries = [] if MANAGED else [f"{RUNTIME}={RUBIES[0].executable}"]
    config.write_text(f"[sandbox]\ninterpreters = {json.dumps(entries)}\n")
    with LocalServer(config=config) as running:
        yield running
        stop_cleanly(running)


@pytest.fixture
def function(deploy):
    def create(name, source=FUNCTION, **options):
        options = {"Runtime": RUNTIME, "Handler": "app.handler", "Timeout": 10, "MemorySize": 256, **options}
        deploy(name, "", Code={"ZipFile": zipped({"app.rb": source})}, **options)

    return create


def layer(api):
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("ruby/lib/layered.rb", "LAYERED = 'from the layer'\n")
    return api.publish_layer_version(LayerName="ruby-layer", Content={"ZipFile": memory.getvalue()})["LayerVersionArn"]


def test_events_answers_and_logs(api, function):
    function("ruby")
    for event in ({"a": [1, None, "é"]}, [], "text", None):
        answer, whole = call(api, "ruby", event)
        assert answer == event
        assert "FunctionError" not in whole
    id_ = whole["ResponseMetadata"]["RequestId"]
    assert re.search(rf"^I, \[[^\]]+ #\d+\]  INFO {id_} -- : logged$", whole["log"], re.MULTILINE)
    assert "saw " in whole["log"]


def test_init_start_says_what_truly_runs(api, logs, function):
    function("version")
    call(api, "version")
    events = logs.filter_log_events(logGroupName="/aws/lambda/version")["events"]
    first = next(event["message"] for event in events if event["message"].startswith("INIT_START"))
    if MANAGED:
        assert f"Runtime Version: ruby:{RUNTIME.removeprefix('ruby')}.v" in first
    else:
        assert f"Runtime Version: ruby:{RUBIES[0].version_text}\t" in first


def test_where_it_runs(api, function):
    function("place", Layers=[layer(api)], Environment={"Variables": {"MINE": "yes"}})
    call(api, "place", 1)
    told, answer = call(api, "place", {"do": "place"})
    assert 8_000 < told.pop("left") <= 10_000
    assert re.match(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24}", told.pop("trace"))
    assert told.pop("gems").startswith("/var/task/vendor/bundle/ruby/")
    assert told.pop("lib").startswith("/var/task:/var/runtime/lib:/opt/ruby/lib")
    assert told.pop("uid") != 0
    assert told == {
        "count": 2,
        "cwd": "/var/task",
        "task": "/var/task",
        "execution": f"AWS_Lambda_{RUNTIME}",
        "mine": "yes",
        "name": "place",
        "memory": "256",
        "id": answer["ResponseMetadata"]["RequestId"],
        "tmp": 1,
        "layer": "from the layer",
    }


def test_errors(api, function):
    function("errors")
    payload, answer = call(api, "errors", {"do": "fail"})
    assert answer["FunctionError"] == "Unhandled"
    assert (payload["errorMessage"], payload["errorType"]) == ("oh dear", "Function<RuntimeError>")
    assert re.fullmatch(r"/var/task/app\.rb:\d+:in [`'](Object#)?handler'", payload["stackTrace"][0])
    assert call(api, "errors", 1)[0] == 1  # the process went on
    payload, answer = call(api, "errors", {"do": "undefined"})
    assert payload["errorType"] == "Function<NameError>"
    assert "Critical exception from handler" in answer["log"]
    assert call(api, "errors", 2)[0] == 2  # another process
    payload, _ = call(api, "errors", {"do": "exit"})
    assert payload["errorType"] == "Runtime.ExitError"
    assert payload["errorMessage"].endswith("Runtime exited with error: exit status 3")
    assert call(api, "errors", 3)[0] == 3


def test_an_init_error(api, function):
    function("init", "require 'no_such_library'\n")
    for _ in range(2):
        payload, answer = call(api, "init")
        assert answer["FunctionError"] == "Unhandled"
        assert payload["errorType"] == "Init<LoadError>"
        assert payload["errorMessage"] == "cannot load such file -- no_such_library"


def test_a_timeout_and_a_memory_kill(api, function):
    function("limits", Timeout=1)
    payload, _ = call(api, "limits", {"do": "sleep"})
    assert payload["errorType"] == "Sandbox.Timedout"
    api.update_function_configuration(FunctionName="limits", Timeout=30)
    api.get_waiter("function_updated_v2").wait(FunctionName="limits", WaiterConfig={"Delay": 0.02, "MaxAttempts": 3_000})
    payload, _ = call(api, "limits", {"do": "memory"})
    assert payload["errorType"] in {"Runtime.OutOfMemory", "Function<NoMemoryError>"}
    assert call(api, "limits", 1)[0] == 1


def test_an_exec_wrapper(api, function, deploy):
    wrapper = '#!/bin/bash\nexport MINE=wrapped\nexec "$@"\n'
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        info = zipfile.ZipInfo("wrapper")
        info.create_system = 3
        info.external_attr = 0o100755 << 16
        archive.writestr(info, wrapper)
        archive.writestr("ruby/lib/layered.rb", "LAYERED = 1\n")
    arn = api.publish_layer_version(LayerName="wrapper", Content={"ZipFile": memory.getvalue()})["LayerVersionArn"]
    function("wrapped", Layers=[arn], Environment={"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrapper"}})
    assert call(api, "wrapped", {"do": "place"})[0]["mine"] == "wrapped"


def test_json_logs(api, function):
    function("json", LoggingConfig={"LogFormat": "JSON", "ApplicationLogLevel": "DEBUG"})
    _, answer = call(api, "json", 1)
    records = [json.loads(line) for line in answer["log"].splitlines() if '"logged"' in line]
    assert [(each["level"], each["requestId"]) for each in records] == [("INFO", answer["ResponseMetadata"]["RequestId"])]

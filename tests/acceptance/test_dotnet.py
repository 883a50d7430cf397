""".NET: the way to ``dotnet``, not .NET itself. No machine of ours has .NET; a script stands in its place and says how it was started.

What this holds: which installation is found, what is executed with which variables, and what is said where nothing can be.
"""

from __future__ import annotations

import json
import os

import pytest
from acceptance_helpers import ROLE, call, settle, stop_cleanly, zipped

from lambent.runtimes import dotnet
from lambent.runtimes.plan import RuntimePlan
from lambent.testing.local_server import LocalServer

STAND_IN = """\
#!/bin/bash
# Answers every event with the command line that it was started with, as the Runtime API wants it.
ask() {
  exec 5<>/dev/tcp/127.0.0.1/9001
  printf '%s /2018-06-01/runtime/invocation/%s HTTP/1.1\\r\\nHost: r\\r\\nConnection: close\\r\\nContent-Length: %s\\r\\n\\r\\n%s' \\
    "$1" "$2" "${#3}" "$3" >&5
  reply=$(cat <&5)
  exec 5>&-
}
while true; do
  ask GET next ''
  id=$(printf '%s' "$reply" | tr -d '\\r' | sed -n 's/^[Ll]ambda-[Rr]untime-[Aa]ws-[Rr]equest-[Ii]d: *//p')
  ask POST "$id/response" "[\\"$0\\",\\"$*\\",\\"$DOTNET_ROOT\\",\\"$AWS_EXECUTION_ENV\\"]"
done
"""


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    root = tmp_path_factory.mktemp("net")
    root.chmod(0o755)  # functions are another user
    (root / "dotnet").write_text(STAND_IN)
    (root / "dotnet").chmod(0o755)
    for version in ("8.0.2", "8.0.11", "8.1.0-preview.1", "10.0.0"):
        (root / "shared" / "Microsoft.NETCore.App" / version).mkdir(parents=True)
    return root


@pytest.fixture(scope="module")
def server(installation, tmp_path_factory):
    config = tmp_path_factory.mktemp("config") / "lambent.toml"
    config.write_text(f"[sandbox]\ninterpreters = {json.dumps([str(installation)])}\n")
    with LocalServer(config=config) as running:
        yield running
        stop_cleanly(running)


def test_the_newest_release_of_the_major_version_is_found(installation):
    plan = dotnet.find("dotnet8", (str(installation),), {})
    assert isinstance(plan, RuntimePlan)
    assert (plan.version, plan.prefix, plan.argv, plan.transport) == (
        "8.0.11",
        os.path.realpath(installation),
        ("/var/lang/dotnet",),
        "http",
    )
    missing = dotnet.find("dotnet6", (str(installation),), {})
    assert isinstance(missing, str)
    assert "no .NET 6" in missing


def create(api, name, handler, runtime="dotnet8"):
    code = {"ZipFile": zipped({"App.dll": "not really one"})}
    api.create_function(FunctionName=name, Runtime=runtime, Role=ROLE, Handler=handler, Code=code)
    settle(api, name)


@pytest.mark.parametrize("runtime", ["dotnet8", "dotnet10"])
def test_an_executable_assembly_is_started(api, runtime):
    create(api, f"exe-{runtime}", "App", runtime)
    answer, _ = call(api, f"exe-{runtime}", {})
    assert answer == ["/var/lang/dotnet", "/var/task/App.dll", "/var/lang", f"AWS_Lambda_{runtime}"]


@pytest.mark.parametrize(
    ("handler", "said"),
    [("App::Space.Class::Method", "Lambent runs executable assemblies only"), ("Other", "the function has no file Other.dll")],
)
def test_what_cannot_be_started_says_why(api, handler, said):
    name = handler.split(":")[0] + str(len(handler))
    create(api, name, handler)
    for _ in range(2):
        payload, answer = call(api, name, {})
        assert answer["FunctionError"] == "Unhandled"
        assert payload["errorType"] == "Runtime.InvalidEntrypoint"
        assert said in payload["errorMessage"]


def test_a_version_that_is_not_there_is_refused(api):
    with pytest.raises(api.exceptions.InvalidParameterValueException, match=r"no \.NET 6"):
        create(api, "six", "App", "dotnet6")

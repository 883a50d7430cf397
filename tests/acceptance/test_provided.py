"""Custom runtimes: what a function brings is executed and speaks the Runtime API. Real server, real sandboxes, boto3."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import textwrap
import zipfile

import pytest
from acceptance_helpers import call, settle

from lambent.runtimes import provided

RUNTIMES = provided.RUNTIMES

SHELL = """\
#!/bin/sh
set -eo pipefail
. ./"$(echo "$_HANDLER" | cut -d. -f1).sh"
handler=$(echo "$_HANDLER" | cut -d. -f2)

# one request over bash's own sockets: method, path, body; the answer's head in $head, its body in $body
ask() {
  exec 5<>"/dev/tcp/${AWS_LAMBDA_RUNTIME_API%:*}/${AWS_LAMBDA_RUNTIME_API#*:}"
  printf '%s /2018-06-01/runtime/%s HTTP/1.1\\r\\nHost: runtime\\r\\nConnection: close\\r\\nContent-Length: %s\\r\\n%s\\r\\n%s' \\
    "$1" "$2" "${#3}" "$4" "$3" >&5
  head='' length=0
  while IFS= read -r line <&5; do
    line=${line%$'\\r'}
    [ -z "$line" ] && break
    head="$head$line
"
    case $line in [Cc]ontent-[Ll]ength:*) length=$(echo "${line#*:}" | tr -d ' ') ;; esac
  done
  LC_ALL=C IFS= read -r -d '' -N "$length" body <&5 || true
  exec 5>&-
}

while true; do
  ask GET invocation/next '' ''
  event=$body
  id=$(echo "$head" | sed -n 's/^[Ll]ambda-[Rr]untime-[Aa]ws-[Rr]equest-[Ii]d: *//p')
  deadline=$(echo "$head" | sed -n 's/^[Ll]ambda-[Rr]untime-[Dd]eadline-[Mm]s: *//p')
  if answer=$("$handler" "$event"); then
    ask POST "invocation/$id/response" "$answer" ''
  else
    ask POST "invocation/$id/error" "{\\"errorMessage\\":\\"$answer\\",\\"errorType\\":\\"Shell.Failed\\"}" \\
      "Lambda-Runtime-Function-Error-Type: Runtime.ShellFailed"$'\\r\\n'
  fi
done
"""

FUNCTION = """\
echo_event() { echo "saw $1" >&2; printf '%s' "$1"; }
describe() {
  printf '{"env":"%s","execution":"%s","task":"%s","cwd":"%s","api":"%s","left":%s,"handler":"%s","layer":"%s"}' \\
    "$MINE" "${AWS_EXECUTION_ENV-unset}" "$LAMBDA_TASK_ROOT" "$PWD" "$AWS_LAMBDA_RUNTIME_API" \\
    "$((deadline / 1000 - $(date +%s)))" "$_HANDLER" "$(cat /opt/data.txt 2>/dev/null)"
}
fail() { printf 'it went wrong'; return 1; }
pipe() { if false | true; then printf '"no pipefail"'; else printf '"pipefail"'; fi; }
leave() { kill -9 $$; }
"""

COMPILED = r"""
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

static char reply[1 << 16];

static char *ask(const char *method, const char *path, const char *body) {
    char *api = strdup(getenv("AWS_LAMBDA_RUNTIME_API")), *colon = strchr(api, ':');
    *colon = 0;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(colon + 1))};
    inet_pton(AF_INET, api, &at.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&at, sizeof at)) exit(3);
    dprintf(fd, "%s /2018-06-01/runtime/%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
            method, path, api, strlen(body), body);
    size_t have = 0;
    ssize_t got;
    while ((got = read(fd, reply + have, sizeof reply - 1 - have)) > 0) have += got;
    reply[have] = 0;
    close(fd);
    char *end = strstr(reply, "\r\n\r\n");
    if (!end) exit(4);
    *end = 0;
    return end + 4;
}

int main(void) {
    puts("compiled and started");
    fflush(stdout);
    for (int count = 1;; count++) {
        char *event = strdup(ask("GET", "invocation/next", "")), path[200], answer[1 << 16];
        char *id = strcasestr(reply, "lambda-runtime-aws-request-id:") + 30;
        snprintf(path, sizeof path, "invocation/%.36s/response", id + strspn(id, " "));
        snprintf(answer, sizeof answer, "{\"count\":%d,\"event\":%s}", count, event);
        ask("POST", path, answer);
        free(event);
    }
}
"""


def bundle(files):
    """Name -> text or bytes, executable if it is given as ``(content, True)``."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, given in files.items():
            content, executable = given if isinstance(given, tuple) else (given, False)
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            info.external_attr = (0o100755 if executable else 0o100644) << 16
            archive.writestr(info, content)
    return memory.getvalue()


@pytest.fixture
def custom(api, deploy):
    """Deploy files as a custom runtime's function."""

    def create(name, files, **options):
        options = {"Runtime": "provided.al2023", "Handler": "function.echo_event", **options}
        deploy(name, "", Code={"ZipFile": bundle(files)}, **options)

    return create


def shell(handler="echo_event", **more):
    return {"Handler": f"function.{handler}", **more}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_shell_script(api, custom, runtime):
    custom("sh", {"bootstrap": (SHELL, True), "function.sh": FUNCTION}, Runtime=runtime)
    for event in ({"a": 1}, [1, "zwei", None], "text"):
        answer, whole = call(api, "sh", event)
        assert answer == event
        assert "FunctionError" not in whole
        assert "saw " in whole["log"]
    assert "REPORT RequestId" in whole["log"]


def test_what_a_custom_runtime_is_told(api, custom):
    custom(
        "told",
        {"bootstrap": (SHELL, True), "function.sh": FUNCTION},
        **shell("describe", Environment={"Variables": {"MINE": "yes"}}, Timeout=30),
    )
    answer, _ = call(api, "told")
    assert 25 <= answer.pop("left") <= 31
    assert answer == {
        "env": "yes",
        "execution": "unset",
        "task": "/var/task",
        "cwd": "/var/task",
        "api": "127.0.0.1:9001",
        "handler": "function.describe",
        "layer": "",
    }


def test_sh_has_pipefail(api, custom):
    custom("pipes", {"bootstrap": (SHELL, True), "function.sh": FUNCTION}, **shell("pipe"))
    assert call(api, "pipes")[0] == "pipefail"


def test_an_error_that_the_runtime_posts(api, custom):
    custom("fails", {"bootstrap": (SHELL, True), "function.sh": FUNCTION}, **shell("fail"))
    for _ in range(2):
        payload, answer = call(api, "fails")
        assert answer["FunctionError"] == "Unhandled"
        assert payload == {"errorMessage": "it went wrong", "errorType": "Shell.Failed"}


def test_a_bootstrap_that_dies(api, custom):
    custom("dies", {"bootstrap": (SHELL, True), "function.sh": FUNCTION}, **shell("leave"))
    for _ in range(2):
        payload, answer = call(api, "dies")
        assert payload == {
            "errorType": "Runtime.ExitError",
            "errorMessage": f"RequestId: {answer['ResponseMetadata']['RequestId']} Error: Runtime exited with error: signal: killed",
        }


def test_a_bootstrap_that_exits_at_once(api, custom):
    custom("exits", {"bootstrap": ("#!/bin/sh\necho early\nexit 3\n", True)})
    payload, answer = call(api, "exits")
    assert payload["errorType"] == "Runtime.ExitError"
    assert payload["errorMessage"].endswith("Error: Runtime exited with error: exit status 3")
    assert "early" in answer["log"]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="this machine has no C compiler")
@pytest.mark.parametrize("flags", [[], ["-static"]], ids=["dynamic", "static"])
def test_a_compiled_program(api, custom, tmp_path, flags):
    source, program = tmp_path / "bootstrap.c", tmp_path / "bootstrap"
    source.write_text(COMPILED)
    built = subprocess.run(["gcc", "-D_GNU_SOURCE", "-O1", *flags, "-o", program, source], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    custom("compiled", {"bootstrap": (program.read_bytes(), True)}, Handler="whatever")
    for count in (1, 2, 3):
        assert call(api, "compiled", {"n": count})[0] == {"count": count, "event": {"n": count}}


def layer(api, name, files):
    return api.publish_layer_version(LayerName=name, Content={"ZipFile": bundle(files)})["LayerVersionArn"]


def test_a_runtime_in_a_layer(api, custom):
    arn = layer(api, "sh-runtime", {"bootstrap": (SHELL, True), "data.txt": "from the layer"})
    custom("layered", {"function.sh": FUNCTION}, **shell("describe", Layers=[arn]))
    assert call(api, "layered")[0]["layer"] == "from the layer"


def test_code_comes_before_layers(api, custom):
    arn = layer(api, "other-runtime", {"bootstrap": ("#!/bin/sh\nexit 9\n", True)})
    custom("both", {"bootstrap": (SHELL, True), "function.sh": FUNCTION}, Layers=[arn])
    assert call(api, "both", 5)[0] == 5


def test_a_folder_named_bootstrap_is_passed_over(api, custom):
    arn = layer(api, "third-runtime", {"bootstrap": (SHELL, True)})
    custom("folder", {"bootstrap/readme.txt": "a folder", "function.sh": FUNCTION}, Layers=[arn])
    assert call(api, "folder", 6)[0] == 6


MISSING = "Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]"


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"function.sh": FUNCTION}, MISSING),
        ({"bootstrap/readme.txt": "a folder"}, MISSING),
        ({"bootstrap": SHELL}, "fork/exec /var/task/bootstrap: permission denied"),
        ({"bootstrap": ("#!/no/such/interpreter\n", True)}, "fork/exec /var/task/bootstrap: no such file or directory"),
        ({"bootstrap": (SHELL.replace("\n", "\r\n"), True)}, "fork/exec /var/task/bootstrap: no such file or directory"),
        ({"bootstrap": ("echo no first line\n", True)}, "fork/exec /var/task/bootstrap: exec format error"),
        (
            {"bootstrap": (b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x08\x00" + bytes(44), True)},
            "fork/exec /var/task/bootstrap: exec format error",
        ),
    ],
    ids=["absent", "folder", "mode", "interpreter", "crlf", "text", "machine"],
)
def test_a_bootstrap_that_cannot_be_executed(api, custom, files, why):
    custom("bad", files)
    for _ in range(2):
        payload, answer = call(api, "bad")
        request = answer["ResponseMetadata"]["RequestId"]
        assert answer["FunctionError"] == "Unhandled"
        assert payload == {"errorType": "Runtime.InvalidEntrypoint", "errorMessage": f"RequestId: {request} Error: {why}"}
        assert f"RequestId: {request} Error: {why}\nRuntime.InvalidEntrypoint\n" in answer["log"]
    api.update_function_code(FunctionName="bad", ZipFile=bundle({"bootstrap": (SHELL, True), "function.sh": FUNCTION}))
    settle(api, "bad")
    assert call(api, "bad", [1])[0] == [1]


def test_what_speaks_nonsense_to_the_runtime_api(api, custom):
    script = textwrap.dedent("""\
        #!/bin/bash
        exec 5<>/dev/tcp/127.0.0.1/9001
        printf 'GARBAGE\\r\\n\\r\\n\\x00\\xff' >&5
        cat <&5 >/dev/null
        exit 4
        """)
    custom("garbage", {"bootstrap": (script, True)}, Timeout=5)
    payload, answer = call(api, "garbage")
    assert answer["FunctionError"] == "Unhandled"
    assert json.dumps(payload).count("exit status 4") == 1
    api.update_function_code(FunctionName="garbage", ZipFile=bundle({"bootstrap": (SHELL, True), "function.sh": FUNCTION}))
    settle(api, "garbage")
    assert call(api, "garbage", 1)[0] == 1

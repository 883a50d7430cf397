"""Hostile functions, as a caller of the API meets them: each is contained, answered in AWS's words, and the next invocation works."""

from __future__ import annotations

import io
import json
import sys
import zipfile

import pytest

from lambent.testing.local_server import LocalServer

ROLE = "arn:aws:iam::000000000000:role/test"
RUNTIME = f"python{sys.version_info[0]}.{sys.version_info[1]}"

HEAD = "import os, sys, time, socket, threading, signal, struct, subprocess\n"
GOOD = "    if event != 'attack':\n        return 'well'\n"

# The frames of runtime_api/frames.py, spoken by user code on the descriptor that the runtime client holds.
FORGE = """
def channel():
    for name in os.listdir('/proc/self/fd'):
        try:
            if os.readlink('/proc/self/fd/' + name).startswith('socket:'):
                return int(name)
        except OSError:
            pass

def frame(kind, head, body):
    return struct.pack('>BII', kind, len(head), len(body)) + head + body
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    config = tmp_path_factory.mktemp("hostile") / "lambent.toml"
    config.write_text("[sandbox]\ninit_timeout = 1.0\n")
    with LocalServer(config=config) as running:
        if running.health()["isolation"]["driver"] != "namespaces":
            pytest.skip("without namespaces nothing contains a hostile function, as the banner says")
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.output


def attack(server, name, body, *, memory=128, timeout=3, top=""):
    """Deploy, attack once, and see that the next invocation works; gives the attack's answer."""
    source = HEAD + top + "def handler(event, context):\n" + GOOD + "".join(f"    {line}\n" for line in body.strip().splitlines())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("app.py", source)
    api = server.client("lambda")
    api.create_function(
        FunctionName=name,
        Runtime=RUNTIME,
        Role=ROLE,
        Handler="app.handler",
        MemorySize=memory,
        Timeout=timeout,
        Code={"ZipFile": packed.getvalue()},
    )
    api.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.02, "MaxAttempts": 3000})
    answer = api.invoke(FunctionName=name, Payload=b'"attack"')
    payload = json.loads(answer["Payload"].read())
    again = api.invoke(FunctionName=name, Payload=b'"peace"')
    assert (again.get("FunctionError"), json.loads(again["Payload"].read())) == (None, "well")
    return payload, answer.get("FunctionError")


def test_a_memory_bomb_is_aws_out_of_memory(server):
    payload, error = attack(server, "memory", "hoard = []\nwhile True:\n    hoard.append(bytearray(8 << 20))")
    assert error == "Unhandled"
    assert payload["errorType"] == "Runtime.OutOfMemory"
    assert "signal: killed" in payload["errorMessage"]


def test_a_fork_bomb_ends_with_its_sandbox(server):
    body = "while True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
    payload, error = attack(server, "forks", body, timeout=2)
    assert error == "Unhandled"
    assert payload["errorType"] in {"Sandbox.Timedout", "Runtime.OutOfMemory", "Runtime.ExitError", "Runtime.Unknown"}


def test_endless_output_does_not_grow_the_node(server):
    payload, error = attack(server, "prints", "while True:\n    sys.stdout.write('x' * 65536 + chr(10))", timeout=2)
    assert (error, payload["errorType"]) == ("Unhandled", "Sandbox.Timedout")
    with open(f"/proc/{server.pid}/status") as status:
        resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    assert resident < 400_000


def test_spinning_in_init_times_out_twice(server):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("app.py", "while True:\n    pass\n")
    api = server.client("lambda")
    api.create_function(
        FunctionName="spin", Runtime=RUNTIME, Role=ROLE, Handler="app.handler", Timeout=1, Code={"ZipFile": packed.getvalue()}
    )
    api.get_waiter("function_active_v2").wait(FunctionName="spin", WaiterConfig={"Delay": 0.02, "MaxAttempts": 3000})
    answer = api.invoke(FunctionName="spin")
    payload = json.loads(answer["Payload"].read())
    assert payload["errorType"] == "Sandbox.Timedout"
    assert payload["errorMessage"].endswith("Error: Task timed out after 1.00 seconds")


def test_killing_everything_it_sees_kills_only_itself(server):
    body = """
for pid in (-1, 1, os.getppid(), 0):
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
os._exit(3)
"""
    payload, error = attack(server, "killer", body)
    assert (error, payload["errorType"]) == ("Unhandled", "Runtime.ExitError")


def test_a_daemon_does_not_outlive_the_environment(server):
    body = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            time.sleep(1)
    os._exit(0)
return 'left a daemon'
"""
    payload, error = attack(server, "daemon", body)
    assert (payload, error) == ("left a daemon", None)
    server.client("lambda").delete_function(FunctionName="daemon")


def test_a_forged_answer_to_nobody_is_refused(server):
    body = "os.write(channel(), frame(0x12, b'999\\nnobody\\napplication/json', b'\"forged\"'))\ntime.sleep(1)\nreturn 'late'"
    payload, error = attack(server, "forger", body, top=FORGE)
    assert error == "Unhandled"
    assert "forged" not in json.dumps(payload.get("errorMessage", "")) or payload["errorType"].startswith("Runtime.")


def test_answering_twice_answers_once(server):
    body = """
token_and_id = b'1\\n' + context.aws_request_id.encode()
os.write(channel(), frame(0x12, token_and_id + b'\\napplication/json', b'"first"'))
return 'second'
"""
    payload, error = attack(server, "twice", body, top=FORGE)
    assert payload in ("first", "second") or error == "Unhandled"


def test_garbage_on_the_channel_costs_only_its_environment(server):
    payload, error = attack(server, "garbage", "os.write(channel(), os.urandom(4096))\ntime.sleep(1)\nreturn 1", top=FORGE)
    assert error == "Unhandled"
    assert payload["errorType"].startswith("Runtime.")


def test_host_services_cannot_be_reached(server):
    with socket_on_host() as (listener, port):
        body = f"""
found = []
for address in ('127.0.0.1', '{own_address()}'):
    try:
        socket.create_connection((address, {port}), 1).close()
        found.append(address)
    except OSError:
        pass
return found
"""
        payload, error = attack(server, "caller", body, timeout=10)
        listener.close()
    assert (payload, error) == ([], None)


def test_the_platform_s_own_endpoint_can_be_reached(server):
    body = """
import boto3
return boto3.client('sts').get_caller_identity()['Account']
"""
    payload, error = attack(server, "own", body, timeout=20, memory=512)
    assert (payload, error) == ("000000000000", None)


def test_files_of_the_host_and_the_platform_are_out_of_sight(server):
    body = f"""
seen = []
for path in ('/etc/shadow', '/root', '/home', {str(server.data_dir)!r}, '/proc/1/root', '/sys/fs/cgroup'):
    try:
        seen += [path] if (os.listdir(path) if os.path.isdir(path) else open(path).read()) else []
    except OSError:
        pass
return seen
"""
    payload, error = attack(server, "reader", body)
    assert (payload, error) == ([], None)


MISCHIEF = {
    "stops": ("os.kill(os.getpid(), signal.SIGSTOP)", {"Sandbox.Timedout"}),
    "closes": ("os.closerange(0, 2000)", {"Runtime.ExitError", "Runtime.Unknown"}),
    "scribbles": (
        """
for number in range(21):
    try:
        os.write(number, b'garbage' * 10)
    except OSError:
        pass
time.sleep(5)
""",
        {"Runtime.Unknown"},
    ),
    "drops-in": (
        "for number in range(20):\n    os.dup2(os.open('/dev/null', os.O_RDWR), number)",
        {"Runtime.ExitError", "Runtime.Unknown", "Sandbox.Timedout"},
    ),
    "promises": (
        "os.write(channel(), struct.pack('>BII', 0x12, 10, 0xFFFFFFFF))\nwhile True:\n    os.write(channel(), bytes(65536))",
        {"Runtime.Unknown", "Sandbox.Timedout"},
    ),
    "dawdles": (
        "for byte in frame(0x12, b'1\\nx\\napplication/json', b'1'):\n    os.write(channel(), bytes([byte]))\n    time.sleep(0.2)",
        {"Runtime.Unknown", "Sandbox.Timedout"},
    ),
}


@pytest.mark.parametrize("name", list(MISCHIEF))
def test_mischief_costs_only_its_environment(server, name):
    body, errors = MISCHIEF[name]
    payload, error = attack(server, name, body, top=FORGE, timeout=2)
    assert error == "Unhandled"
    assert payload["errorType"] in errors


@pytest.mark.parametrize(
    ("name", "body", "most"),
    [
        ("threads", "threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()", 1_024),
        ("files", "hoard.append(open('/dev/null'))", 1_024),
        ("sockets", "hoard.append(socket.socketpair())", 1_024),
        ("names", "open(f'/tmp/{len(hoard)}', 'x').close(); hoard.append(0)", 512 * 64),
    ],
)
def test_what_can_be_used_up_ends_for_the_function_alone(server, name, body, most):
    body = f"""
import threading
hoard, count = [], 0
try:
    while count < 100_000:
        {body}
        count += 1
except (OSError, RuntimeError):
    pass
hoard.clear()
return count
"""
    payload, error = attack(server, f"uses-up-{name}", body, timeout=30, memory=1024)
    assert error is None
    assert 0 < payload <= most


def test_late_answers_are_nobody_s(server):
    body = """
import sys, threading
answer = frame(0x12, b'1\\n' + context.aws_request_id.encode() + b'\\napplication/json', b'"late"')
def late():
    while sys._current_frames()[threading.main_thread().ident].f_code.co_name not in ('receive', '_read'):
        time.sleep(0.001)  # until the client has sent the first answer and waits for another event
    for _ in range(100):
        os.write(channel(), answer)
        time.sleep(0.002)
threading.Thread(target=late).start()
return 'first'
"""
    payload, error = attack(server, "late", body, top=FORGE)
    assert (payload, error) == ("first", None)


def test_what_else_runs_on_the_platform_is_not_told(server):
    body = """
import http.client
told = {}
pages = ('environments', 'story/own', 'events/own', 'debug/own?inside=1&port=0', 'backup', 'restore', 'code/x', 'health')
for page in pages:
    for method in ('GET', 'POST', 'PUT'):
        connection = http.client.HTTPConnection(os.environ['AWS_ENDPOINT_URL'].rpartition('/')[2], timeout=10)
        headers = {'x-lambent-redrive': 'yes', 'x-lambent-admin': '1', 'x-lambent-debug': '1'}
        connection.request(method, '/_lambent/' + page, headers=headers)
        told[method + ' ' + page] = connection.getresponse().status
return [page for page, status in told.items() if status < 400]
"""
    payload, error = attack(server, "inquisitive", body, timeout=20, memory=512)
    assert (payload, error) == (["GET health"], None)


def socket_on_host():
    import contextlib
    import socket

    @contextlib.contextmanager
    def listening():
        with socket.socket() as listener:
            listener.bind(("0.0.0.0", 0))
            listener.listen()
            yield listener, listener.getsockname()[1]

    return listening()


def own_address() -> str:
    """An address of this machine other than loopback, or loopback where there is none. Nothing is sent."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return probe.getsockname()[0]

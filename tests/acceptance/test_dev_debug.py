"""``lambent dev --debug``: a debugger's own protocol, spoken to a function in its sandbox. Breakpoints outlast the function's timeout."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import struct
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from test_dev import HANG_S, dev  # noqa: F401  (a fixture)

from lambent.cli.dev_debug import debugging
from lambent.cli.screen import Trouble
from lambent.testing.local_server import free_port

LONGER_THAN_TIMEOUT_S = 1.6
PYTHON = """\
def handler(event, context):
    secret = event["n"] * 2
    answer = secret + 1
    return answer
"""
NODE = """\
exports.handler = async (event) => {
  const secret = event.n * 2;
  const answer = secret + 1;
  return answer;
};
"""


class Dap:
    """Just enough of a debug adapter's client."""

    def __init__(self, port):
        self._socket = socket.create_connection(("127.0.0.1", port), HANG_S)
        self._file = self._socket.makefile("rb")
        self._sequence = 0
        self.events = []

    def send(self, command, **arguments):
        self._sequence += 1
        body = json.dumps({"seq": self._sequence, "type": "request", "command": command, "arguments": arguments}).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        return self._sequence

    def _read(self):
        length = 0
        while (line := self._file.readline().strip()) or not length:
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
            assert line or length, "the debugger has gone"
        return json.loads(self._file.read(length))

    def answer(self, sequence):
        while True:
            message = self._read()
            if message["type"] == "response" and message["request_seq"] == sequence:
                assert message["success"], message
                return message.get("body", {})
            if message["type"] == "event":
                self.events.append(message)

    def request(self, command, **arguments):
        return self.answer(self.send(command, **arguments))

    def event(self, name):
        while True:
            for message in self.events:
                if message["event"] == name:
                    self.events.remove(message)
                    return message.get("body", {})
            message = self._read()
            if message["type"] == "event":
                self.events.append(message)

    def close(self):
        self._file.close()
        self._socket.close()


class Inspector:
    """Just enough of a WebSocket client for Node.js's inspector."""

    def __init__(self, port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=HANG_S) as answer:
            path = "/" + json.load(answer)[0]["id"]
        self._socket = socket.create_connection(("127.0.0.1", port), HANG_S)
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self._file = self._socket.makefile("rb")
        assert b"101" in self._file.readline()
        while self._file.readline().strip():
            pass
        self._sequence = 0
        self.events = []

    def send(self, method, **params):
        self._sequence += 1
        data = json.dumps({"id": self._sequence, "method": method, "params": params}).encode()
        size = bytes([0x80 | len(data)]) if len(data) < 126 else bytes([0x80 | 126]) + struct.pack(">H", len(data))
        self._socket.sendall(b"\x81" + size + bytes(4) + data)  # masked with zeros
        return self._sequence

    def _read(self):
        head = self._file.read(2)
        assert len(head) == 2, "the inspector has gone"
        size = head[1] & 0x7F
        if size == 126:
            size = struct.unpack(">H", self._file.read(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", self._file.read(8))[0]
        return json.loads(self._file.read(size))

    def request(self, method, **params):
        sequence = self.send(method, **params)
        while True:
            message = self._read()
            if message.get("id") == sequence:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def event(self, method):
        while True:
            for message in self.events:
                if message.get("method") == method:
                    self.events.remove(message)
                    return message["params"]
            self.events.append(self._read())

    def close(self):
        self._file.close()
        self._socket.close()


def call(server, name, event):
    answer = server.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event))
    return json.load(answer["Payload"])


def begin(dev, server, folder, name, *options):  # noqa: F811
    port = free_port()
    session = dev(
        folder, "--endpoint", server.endpoint, "--name", name, "--timeout", "1", "--debug", "--debug-port", port, "--no-logs", *options
    )
    number, _ = session.expect(r"^Watching ")
    return session, port, number


def test_python(server, api, dev, tmp_path):  # noqa: F811
    pytest.importorskip("debugpy")
    (tmp_path / "app.py").write_text(PYTHON)
    session, port, number = begin(dev, server, tmp_path, "debugged")
    assert call(server, "debugged", {"n": 1}) == 3
    adapter = Dap(port)
    try:
        adapter.request("initialize", adapterID="test", clientID="test", linesStartAt1=True, pathFormat="path")
        attach = adapter.send("attach", pathMappings=[{"localRoot": str(tmp_path), "remoteRoot": "/var/task"}], justMyCode=True)
        adapter.event("initialized")
        source = {"path": str(tmp_path / "app.py")}
        placed = adapter.request("setBreakpoints", source=source, breakpoints=[{"line": 3}])
        assert placed["breakpoints"][0]["verified"]
        adapter.request("configurationDone")
        adapter.answer(attach)
        with ThreadPoolExecutor() as threads:
            answer = threads.submit(call, server, "debugged", {"n": 20})
            thread = adapter.event("stopped")["threadId"]
            frame = adapter.request("stackTrace", threadId=thread)["stackFrames"][0]
            assert (frame["name"], frame["line"], frame["source"]["path"]) == ("handler", 3, str(tmp_path / "app.py"))
            threading.Event().wait(LONGER_THAN_TIMEOUT_S)  # what would have been the end of it
            assert adapter.request("evaluate", expression="secret", frameId=frame["id"])["result"] == "40"
            assert not answer.done()
            adapter.request("continue", threadId=thread)
            assert answer.result(HANG_S) == 41
        adapter.request("disconnect", terminateDebuggee=False)
    finally:
        adapter.close()
    assert call(server, "debugged", {"n": 3}) == 7
    the_timeout_holds_again(server, session, port, number, tmp_path)
    assert session.stop() == 0
    after = api.get_function_configuration(FunctionName="debugged")
    assert (after.get("Layers", []), after["MemorySize"], after["Timeout"]) == ([], 128, 1)


def the_timeout_holds_again(server, session, port, number, folder):
    """As soon as the debugger has left, in an environment of other code, behind the same port."""
    (folder / "app.py").write_text("def handler(event, context):\n    while event: pass\n    return 1\n")
    session.expect(r"reloaded", number)
    assert call(server, "debugged", False) == 1
    with ThreadPoolExecutor() as threads:
        with socket.create_connection(("127.0.0.1", port), HANG_S) as held:
            assert held.recv(1)  # the adapter has something to say: the way is open
            answer = threads.submit(call, server, "debugged", True)
            threading.Event().wait(LONGER_THAN_TIMEOUT_S)
            assert not answer.done()
        assert answer.result(HANG_S)["errorType"] == "Sandbox.Timedout"


@pytest.mark.skipif(shutil.which("node") is None, reason="this machine has no Node.js")
def test_node(server, api, dev, tmp_path):  # noqa: F811
    major = os.popen("node --version").read().strip().removeprefix("v").split(".")[0]
    (tmp_path / "index.js").write_text(NODE)
    session, port, number = begin(dev, server, tmp_path, "inspected", "--runtime", f"nodejs{major}.x", "--handler", "index.handler")
    assert call(server, "inspected", {"n": 1}) == 3
    inspector = Inspector(port)
    try:
        inspector.request("Runtime.enable")
        inspector.request("Debugger.enable")
        inspector.request("Debugger.setBreakpointByUrl", lineNumber=2, urlRegex=r".*/var/task/index\.js")
        with ThreadPoolExecutor() as threads:
            answer = threads.submit(call, server, "inspected", {"n": 20})
            frame = inspector.event("Debugger.paused")["callFrames"][0]
            assert frame["functionName"] == "exports.handler"
            threading.Event().wait(LONGER_THAN_TIMEOUT_S)
            value = inspector.request("Debugger.evaluateOnCallFrame", callFrameId=frame["callFrameId"], expression="secret")
            assert value["result"]["value"] == 40
            assert not answer.done()
            inspector.request("Debugger.resume")
            assert answer.result(HANG_S) == 41
    finally:
        inspector.close()
    (tmp_path / "index.js").write_text(NODE.replace("+ 1", "+ 5"))  # the same port leads to the next environment
    session.expect(r"reloaded", number)
    assert call(server, "inspected", {"n": 1}) == 7
    Inspector(port).close()
    assert session.stop() == 0
    after = api.get_function_configuration(FunctionName="inspected")
    assert "AWS_LAMBDA_EXEC_WRAPPER" not in after.get("Environment", {}).get("Variables", {})


def test_other_runtimes_say_so(server, api, deploy, tmp_path):
    deploy("custom-debug", "", Runtime="provided.al2023")
    with (
        pytest.raises(Trouble, match=r"no debugger for provided\.al2023 functions"),
        debugging(api, server.endpoint, "custom-debug", None, tmp_path),
    ):
        raise AssertionError("there is one")


def test_a_web_page_cannot_open_ports(server):
    request = urllib.request.Request(f"{server.endpoint}/_lambent/debug/f?inside=9229&port=0", b"", method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=HANG_S)
    assert refused.value.code == 403
    refused.value.close()

"""A runtime client that speaks frames and knows nothing of AWS, so that the suite tests sandboxes and not the client. CPython 3.8+.

As a program its argument is the handler; without one it was started ahead and waits to be told what it is.
"""

import importlib
import json
import os
import socket
import struct
import sys
import traceback

_HEADER = struct.Struct(">BII")


def preload():
    pass


def _read(channel, count):
    data = b""
    while len(data) < count:
        chunk = channel.recv(count - len(data))
        if not chunk:
            os._exit(0)
        data += chunk
    return data


def run(descriptor, handler, bytecode=-1, learn=-1):
    channel = socket.socket(fileno=descriptor)
    channel.setblocking(True)
    try:
        os.chdir(os.environ.get("LAMBDA_TASK_ROOT", "/var/task"))
        sys.path.insert(0, os.environ.get("LAMBDA_TASK_ROOT", "/var/task"))
        module, _, name = handler.rpartition(".")
        function = getattr(importlib.import_module(module), name)
    except Exception as error:
        body = json.dumps({"errorMessage": str(error), "errorType": type(error).__name__}).encode()
        channel.sendall(_HEADER.pack(0x14, 0, len(body)) + body)
        os._exit(1)
    channel.sendall(_HEADER.pack(0x11, 0, 0))
    while True:
        _, head_length, body_length = _HEADER.unpack(_read(channel, _HEADER.size))
        token = "\n".join(_read(channel, head_length).decode().split("\n")[:2])
        kind, head = 0x12, (token + "\napplication/json").encode()
        event = json.loads(_read(channel, body_length))
        try:
            body = json.dumps(function(event, None)).encode()
        except Exception:
            kind, head, body = 0x13, (token + "\nError\n").encode(), json.dumps(traceback.format_exc()).encode()
        sys.stdout.flush()
        channel.sendall(_HEADER.pack(kind, len(head), len(body)) + head + body + _HEADER.pack(0x11, 0, 0))


def _become():
    data = b""
    while True:
        chunk = os.read(4, 65536)
        if not chunk:
            break
        data += chunk
    os.close(4)
    told = json.loads(data)
    os.environ.clear()
    os.environ.update(told["env"])
    return told["handler"]


if __name__ == "__main__":
    if "LC_CTYPE" in os.environ:  # CPython's own doing, where there is no locale
        del os.environ["LC_CTYPE"]
    run(3, sys.argv[1] if len(sys.argv) > 1 else _become())

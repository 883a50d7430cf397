"""HTTP by hand, for requests that no well-behaved client sends."""

from __future__ import annotations

import contextlib
import json
import socket
from dataclasses import dataclass
from typing import Any

AUTHORIZATION = (
    "AWS4-HMAC-SHA256 Credential=test/20261121/us-east-1/lambda/aws4_request, SignedHeaders=host;x-amz-date, Signature=" + "0" * 64
)


@dataclass(frozen=True)
class Answer:
    """``status`` is 0 where the server hung up without a word."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """AWS's error code."""
        return self.headers.get("x-amzn-errortype", "").split(":")[0]

    @property
    def message(self) -> str:
        document = self.json()
        return str(document.get("message") or document.get("Message") or "")

    def json(self) -> Any:
        return json.loads(self.body)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def head(method: str, path: str, length: int | None = None, **headers: str | None) -> bytes:
    """A request head with a signature of the right form; ``None`` takes a header away."""
    fields: dict[str, str | None] = {
        "Host": "127.0.0.1",
        "Authorization": AUTHORIZATION,
        "X-Amz-Date": "20261121T090000Z",
        "Content-Type": "application/json",
        "Content-Length": None if length is None else str(length),
    }
    fields.update({name.replace("_", "-"): value for name, value in headers.items()})
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode("latin-1")


def read_answer(connection: socket.socket) -> Answer:
    """Read one answer, whole."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = _receive(connection)
        if not chunk:
            return Answer(0, {}, data)
        data += chunk
    top, _, body = data.partition(b"\r\n\r\n")
    status, *lines = top.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", "0"))
    while len(body) < length:
        chunk = _receive(connection)
        if not chunk:
            break
        body += chunk
    return Answer(int(status.split(" ")[1]), headers, body)


def send(port: int, method: str, path: str, body: bytes = b"", **headers: str | None) -> Answer:
    """One request on a connection of its own."""
    with connect(port) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before all was sent: the answer is there to read
            connection.sendall(head(method, path, len(body), **headers) + body)
        return read_answer(connection)


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65_536)
    except ConnectionResetError:
        return b""

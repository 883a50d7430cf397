"""A real server for a test, a demonstration or a measurement: ``lambent up`` as a child process on a free port of this machine.

    with LocalServer() as server:
        server.client("lambda").list_functions()

The data directory is a temporary one unless one is given; give one to start a second server on what a first one left. Readiness comes from
the banner, which the server prints once it can answer, so nothing here polls.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from lambent.errors import LambentError

_READY = "Lambent is up at"
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0


class ServerFailed(LambentError):
    """``lambent up`` ended or said nothing for a minute; carries what it printed."""


class LocalServer:
    """One server process. A context manager; ``start`` and ``stop`` may be called as often as a test likes to restart."""

    def __init__(self, data_dir: Path | None = None, config: Path | None = None, arguments: Sequence[str] = ()) -> None:
        self.fatal: tuple[str, int] | None = None
        """A named point and n: the next process kills itself when it comes there for the n-th time (``fatal_points.py``)."""
        self._own_data = data_dir is None
        self.data_dir = Path(tempfile.mkdtemp(prefix="lambent-")) if data_dir is None else data_dir
        self._config = config
        self._arguments = list(arguments)
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.lines: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def output(self) -> str:
        """All that the server has printed so far."""
        return "".join(self.lines)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> LocalServer:
        """Start and wait until the server answers. Raises ``ServerFailed``."""
        program = ["lambent.cli.main", "up"] if self.fatal is None else ["lambent.testing.fatal_points", self.fatal[0], str(self.fatal[1])]
        command = [sys.executable, "-m", *program, "--port", str(self.port), "--data-dir", str(self.data_dir)]
        if self._config is not None:
            command += ["--config", str(self._config)]
        process = subprocess.Popen(
            [*command, *self._arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        settled, before = threading.Event(), len(self.lines)
        self._process = process
        self._reader = threading.Thread(target=self._read, args=(process, settled), daemon=True)
        self._reader.start()
        settled.wait(_START_SECONDS)
        if not any(_READY in line for line in self.lines[before:]) or process.poll() is not None:
            self.kill()
            raise ServerFailed(f"lambent up did not start:\n{self.output}")
        return self

    def stop(self) -> int:
        """SIGTERM, wait, and give the exit code (negative: the signal that it died of)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._end(_STOP_SECONDS)

    def kill(self) -> None:
        """``kill -9``, for tests of what survives it."""
        assert self._process is not None
        self._process.kill()
        self._end(_STOP_SECONDS)

    def died(self, patience: float = _STOP_SECONDS) -> int:
        """Wait until the process has ended by itself, and give its exit code (negative: the signal that it died of)."""
        return self._end(patience)

    def health(self) -> Any:
        """The JSON of ``/_lambent/health``."""
        return self.page("health")

    def page(self, path: str) -> Any:
        """The JSON of ``/_lambent/<path>``."""
        with urllib.request.urlopen(f"{self.endpoint}/_lambent/{path}", timeout=30) as answer:
            return json.load(answer)

    def client(self, service: str, **options: Any) -> Any:
        """A boto3 client of ``service`` for this server, without retries; ``options`` as for ``boto3.client``."""
        import boto3
        from botocore.config import Config

        defaults: dict[str, Any] = {
            "endpoint_url": self.endpoint,
            "region_name": "us-east-1",
            "aws_access_key_id": "test",
            "aws_secret_access_key": "test",
            "config": Config(retries={"total_max_attempts": 1}, max_pool_connections=64, read_timeout=120),
        }
        client = boto3.client(service, **{**defaults, **options})
        client.meta.events.register("after-call", _hold_to_model)
        return client

    def __enter__(self) -> LocalServer:
        try:
            return self.start()
        except ServerFailed:
            self._remove()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()
        self._remove()

    def _read(self, process: subprocess.Popen[str], settled: threading.Event) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.lines.append(line)
                if _READY in line:
                    settled.set()
        settled.set()

    def _end(self, patience: float) -> int:
        assert self._process is not None
        assert self._reader is not None
        try:
            code = self._process.wait(patience)
        except subprocess.TimeoutExpired as error:
            self._process.kill()
            self._process.wait()
            raise ServerFailed(f"lambent up did not stop within {patience:.0f} s:\n{self.output}") from error
        self._reader.join(patience)
        return code

    def _remove(self) -> None:
        if self._own_data:
            shutil.rmtree(self.data_dir, ignore_errors=True)


def _hold_to_model(parsed: dict[str, Any], model: Any, **_: Any) -> None:
    """Every answer that a test's client gets is one that the operation's model allows."""
    from botocore.validate import ParamValidator

    shape = model.output_shape
    if shape is None or model.has_event_stream_output or "Error" in parsed:
        return
    answer = {name: value for name, value in parsed.items() if name != "ResponseMetadata"}
    if model.service_model.service_name == "sqs" and model.name.endswith("Batch"):
        answer = {"Successful": [], "Failed": [], **answer}  # modelled as required, yet SQS leaves an empty one out
    report = ParamValidator().validate(answer, shape)
    if report.has_errors():
        raise ServerFailed(f"{model.name} answered beside its model: {report.generate_report()}")


def free_port() -> int:
    """A TCP port that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

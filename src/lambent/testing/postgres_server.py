"""A PostgreSQL server of one's own, for as long as a test or a benchmark lasts: a fresh cluster in a folder, on a local socket only.

The server refuses to run as root, so under root it runs as the user ``postgres`` that Debian's package made.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

_BINARIES = "/usr/lib/postgresql"
_OPTIONS = ("-c", "listen_addresses=", "-c", "shared_buffers=64MB", "-c", "max_connections=40", "-c", "log_min_messages=fatal")


def binaries() -> Path | None:
    """The folder with ``initdb`` and ``postgres``, of the newest version that is installed; ``None`` without any."""
    found = sorted(Path(_BINARIES).glob("*/bin/postgres"), key=lambda path: int(path.parent.parent.name), reverse=True)
    if found:
        return found[0].parent
    program = shutil.which("postgres")
    return Path(program).parent if program else None


def missing() -> str:
    """Why no server can be had here; "" if one can."""
    if binaries() is None:
        return "PostgreSQL is not installed"
    if os.geteuid() == 0 and _server_user() is None:
        return "PostgreSQL does not run as root, and there is no user postgres"
    return ""


@contextlib.contextmanager
def temporary() -> Iterator[PostgresServer]:
    """A server that runs, in a temporary folder, which goes with it."""
    with tempfile.TemporaryDirectory(prefix="lambent-pg-") as folder:
        for path in (folder, tempfile.gettempdir()):
            os.chmod(path, os.stat(path).st_mode | 0o011)  # the server is another user
        server = PostgresServer(Path(folder) / "server")
        server.create()
        try:
            yield server
        finally:
            server.destroy()


def _server_user() -> str | None:
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return None


class PostgresServer:
    """A cluster in ``folder``, which must be reachable for the server's user (mode 0711 above it)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._user = _server_user() if os.geteuid() == 0 else None

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres@/postgres?host={self._folder}"

    def create(self) -> None:
        """Make the cluster and start the server."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        self._run("initdb", "--no-sync", "--no-instructions", "-A", "trust", "-U", "postgres", "-D", str(self._data))
        self.start()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        command = [self._program("postgres"), "-D", str(self._data), "-k", str(self._folder), *_OPTIONS]
        self._process = subprocess.Popen(command, user=self._user, cwd="/", stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        ready = [self._program("pg_isready"), "-q", "-h", str(self._folder), "-U", "postgres", "-t", "1"]
        while subprocess.run(ready, check=False).returncode:
            if self._process.poll() is not None:
                raise RuntimeError(f"PostgreSQL ended with {self._process.returncode}")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server and wait for it: SIGINT is a fast shutdown, SIGQUIT an immediate one, after which it recovers at the start."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait()

    def destroy(self) -> None:
        """End the server and remove the cluster."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _program(self, name: str) -> str:
        folder = binaries()
        assert folder is not None
        return str(folder / name)

    def _run(self, name: str, *arguments: str) -> None:
        command: Sequence[str] = [self._program(name), *arguments]
        subprocess.run(command, user=self._user, cwd="/", check=True, capture_output=True)

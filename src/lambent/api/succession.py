"""How a server ends: for good when it is told to, or to start again as itself on a state that was restored.

The second way: everyone gets 503 from the moment at which the new state is committed; what runs may finish; everything is closed in order,
the door last; then the process executes its own command line anew, with the listening socket in hand. Its start puts the new state
in place (``store/backup_restore.py``). So a restored server has nothing in memory from before, clients wait in the socket's queue for
the second that a start takes, and no connection is refused. A SIGTERM meanwhile wins: the next start finds the new state.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys

from lambent.api.http_server import HttpServer
from lambent.clock import Clock
from lambent.store.backup_restore import Staging
from lambent.wire.http import HttpRequest, HttpResponse

_SOCKET = "LAMBENT_LISTENING_SOCKET"
_LOOK_SECONDS = 0.02
_ANSWER_SECONDS = 0.5


class Succession:
    """``wait`` returns when the server is to end; ``close_door`` then lets requests finish, ``hang_up`` gives up those that did not;
    ``leave`` is called when all else is closed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stop = asyncio.Event()
        self._restarts = False
        self._inherited = -1

    async def wait(self) -> None:
        await self._stop.wait()

    def end(self) -> None:
        """End for good."""
        self._restarts = False
        self._stop.set()

    def begin(self, http: HttpServer, staging: Staging) -> None:
        """Make what was staged the state, and start again on it. Raises ``StoreUnavailable``, in which case nothing has changed."""
        handle, http.handle = http.handle, _replacing
        try:
            staging.commit()
        except BaseException:
            http.handle = handle
            raise
        self._restarts = not self._stop.is_set()
        self._stop.set()

    async def close_door(self, http: HttpServer, patience: float) -> None:
        """Let what runs finish. The door stays open if we start again."""
        if not self._restarts:
            await http.drain(patience)
            return
        until = self._clock.monotonic() + patience
        while http.busy > 0 and self._clock.monotonic() < until:
            await self._clock.sleep(_LOOK_SECONDS)

    async def hang_up(self, http: HttpServer) -> None:
        """What ran has ended or was ended: its answers go out, and nobody is waited for any more."""
        if not self._restarts:
            await http.close(_ANSWER_SECONDS)

    async def leave(self, http: HttpServer, sock: socket.socket) -> None:
        """Everything else is closed."""
        if self._restarts:
            self._inherited = os.dup(sock.fileno())
            await http.close(0.0)

    def execute(self) -> None:
        """Become the next one, if there is to be one; outside of any event loop."""
        if self._restarts and self._inherited >= 0:
            os.set_inheritable(self._inherited, True)
            os.environ[_SOCKET] = str(self._inherited)
            os.execv(sys.executable, sys.orig_argv)


def listening(host: str, port: int) -> socket.socket:
    """A bound socket, that of our predecessor where there was one. Raises ``OSError``."""
    inherited = os.environ.pop(_SOCKET, "")
    if inherited:
        os.set_inheritable(int(inherited), False)
        return socket.socket(fileno=int(inherited))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return sock


async def _replacing(request: HttpRequest, source_ip: str) -> HttpResponse:
    headers = [("content-type", "application/json"), ("retry-after", "1"), ("x-amzn-errortype", "ServiceUnavailableException")]
    return HttpResponse(503, headers, b'{"Type":"Service","message":"A backup is being restored. Try again in a moment."}')

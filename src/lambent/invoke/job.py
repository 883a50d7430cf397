"""An accepted invocation on its way: what the front door hands to the pools, and what an environment answers.

A job carries all that its run needs, the future of the answer included, so that from here on no task of the caller is involved: a
caller that goes away takes nothing with it (contract 02 §2.3), and a warm run costs no task switch between lease and send.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from lambent.function_version import FunctionVersion
from lambent.invoke.admission import Permit
from lambent.invoke.invocation import Invocation, InvocationResult
from lambent.invoke.response_stream import InvocationStream


class Reply(asyncio.Future["InvocationResult"]):
    """The future of an answer. One who waits may be called in the very moment, not in the loop's next turn as others are.

    That is for whoever passes the answer on to a socket: the answer goes out before the environment's books are kept. What is called
    must not begin another invocation.
    """

    at_once: Callable[[Reply], None] | None = None

    def set_result(self, result: InvocationResult) -> None:
        super().set_result(result)
        self._call()

    def set_exception(self, error: BaseException | type[BaseException]) -> None:
        super().set_exception(error)
        self._call()

    def _call(self) -> None:
        if self.at_once is not None:
            try:
                self.at_once(self)
            except Exception as error:  # whoever answers is not to suffer from who asks
                self.get_loop().call_exception_handler({"message": "an answer could not be passed on", "exception": error})


@dataclass(slots=True, eq=False)
class Job:
    """``deliveries`` counts the environments that it was handed to; a second one only follows a hand-over that provably never arrived.

    ``stream`` is there for a caller that takes the response in pieces; its end is ``future`` as well.
    """

    call: Invocation
    version: FunctionVersion
    payload: bytes
    trace: str
    permit: Permit
    future: asyncio.Future[InvocationResult]
    deliveries: int = 0
    stream: InvocationStream | None = None

    def resolve(self, result: InvocationResult) -> None:
        """Give the permit back and the answer out. Whoever waited may be gone; that is no error."""
        self.permit.release()
        if not self.future.done():
            self.future.set_result(result)

    def fail(self, error: Exception) -> None:
        """Give the permit back and raise ``error`` where the answer is awaited."""
        self.permit.release()
        if not self.future.done():
            self.future.set_exception(error)

"""The future of an answer, which may be passed on in the moment that it is there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lambent.invoke.invocation import InvocationResult
from lambent.invoke.job import Reply

RESULT = InvocationResult(b"{}", "$LATEST", None, "application/json", b"", "", 1, {}, "")


def in_loop(body: Any) -> None:
    async def live() -> None:
        await body(asyncio.get_running_loop())

    asyncio.run(live())


@pytest.mark.parametrize("how", ["result", "error"])
def test_whoever_is_to_be_called_at_once_is(how: str) -> None:
    async def body(loop: asyncio.AbstractEventLoop) -> None:
        reply, seen = Reply(loop=loop), []
        reply.at_once = lambda done: seen.append(done.exception() or done.result())
        if how == "result":
            reply.set_result(RESULT)
            assert seen == [RESULT]
        else:
            error = ValueError("no")
            reply.set_exception(error)
            assert seen == [error]

    in_loop(body)


def test_tasks_wait_for_it_as_for_any_future() -> None:
    async def body(loop: asyncio.AbstractEventLoop) -> None:
        reply = Reply(loop=loop)

        async def wait() -> InvocationResult:
            return await reply

        waiting = loop.create_task(wait())
        await asyncio.sleep(0)
        reply.set_result(RESULT)
        assert not waiting.done()
        assert await waiting is RESULT

    in_loop(body)


def test_what_goes_wrong_with_the_answer_is_not_the_environments() -> None:
    async def body(loop: asyncio.AbstractEventLoop) -> None:
        told: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: told.append(context))
        reply = Reply(loop=loop)

        def break_off(_: Reply) -> None:
            raise RuntimeError("the socket is gone")

        reply.at_once = break_off
        reply.set_result(RESULT)
        assert reply.result() is RESULT
        assert [str(context["exception"]) for context in told] == ["the socket is gone"]

    in_loop(body)

"""A real server for the acceptance tests: ``lambent up`` in a process of its own, one per test module, stopped with SIGTERM at its end.

Stopping is a test in itself: the server exits with 0, and none of the processes that it had lives on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from acceptance_helpers import ROLE, RUNTIME, settle, stop_cleanly, zipped

from lambent.testing.local_server import LocalServer

Deploy = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer() as running:
        assert running.health()["status"] == "ok"
        yield running
        stop_cleanly(running)


@pytest.fixture
def api(server: LocalServer) -> Any:
    return server.client("lambda")


@pytest.fixture
def logs(server: LocalServer) -> Any:
    return server.client("logs")


@pytest.fixture
def deploy(api: Any) -> Iterator[Deploy]:
    """Create a function from Python source, wait until it is active, delete it after the test."""
    created: list[str] = []

    def create(name: str, source: str, **options: Any) -> dict[str, Any]:
        request = {
            "FunctionName": name,
            "Runtime": RUNTIME,
            "Role": ROLE,
            "Handler": "app.handler",
            "Code": {"ZipFile": zipped({"app.py": source})},
            **options,
        }
        answer = api.create_function(**request)
        created.append(name)
        settle(api, name)
        return answer

    yield create
    for name in created:
        with contextlib.suppress(api.exceptions.ResourceNotFoundException):
            api.delete_function(FunctionName=name)

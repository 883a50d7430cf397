"""What starts a runtime: the answer of the catalogue to "how do I run this version?", in terms that a sandbox driver understands.

A runtime is started in one of two ways. *Zygote*: a warm CPython is forked (``argv`` is empty). *Program*: something is executed in a
prepared sandbox; where ``warm`` is set, one that knows no function yet may be started ahead and told later (``sandbox/driver.py``).

It talks to the node in one of two ways, too: *frames* over descriptor 3 (our own clients, ``runtime_api/frames.py``) or *http*, the public
Runtime API on the sandbox's 127.0.0.1:9001 (custom runtimes, container images, AWS's own clients that a function ships).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Transport = Literal["frames", "http"]


@dataclass(frozen=True, slots=True)
class RuntimePlan:
    """How one runtime is run on this machine. Host paths are absolute, links resolved."""

    runtime: str  # "nodejs22.x": the name in the catalogue
    version: str  # "22.11.0": what INIT_START prints a version of; "" for provided runtimes
    transport: Transport
    prefix: str = ""  # host folder seen as /var/lang; "" for none, "/usr" where it lives in the system itself
    runtime_dir: tuple[tuple[str, str], ...] = ()  # (name below /var/runtime, host path), bound read-only
    files: tuple[tuple[str, bytes], ...] = ()  # (name below /var/runtime, content), written when the root is made
    links: tuple[tuple[str, str], ...] = ()  # (name below the root, target inside), made where the driver has a root of its own
    argv: tuple[str, ...] = ()  # inside; empty: forked from a Python zygote. See ``command``
    warm: tuple[str, ...] = ()  # ``{memory_mb}`` in it: such a process can serve functions of one size only
    wrapped: tuple[str, ...] = ()  # what AWS_LAMBDA_EXEC_WRAPPER is given, where that is something else than ``argv`` (Python, Java)
    environment: Mapping[str, str] = field(default_factory=dict)  # overridable defaults that the runtime adds: NODE_PATH, CLASSPATH, ...
    wraps: bool = True  # AWS_LAMBDA_EXEC_WRAPPER is honoured (not by provided runtimes and images)

    def command(self, memory_mb: int) -> tuple[str, ...]:
        """``argv`` for a function of this size, which ``{memory_mb}`` stands for."""
        return _sized(self.argv, memory_mb)

    def wrapped_command(self, memory_mb: int) -> tuple[str, ...]:
        """What a wrapper gets as its arguments."""
        return _sized(self.wrapped or self.argv, memory_mb)


def _sized(argv: tuple[str, ...], memory_mb: int) -> tuple[str, ...]:
    return tuple(part.replace("{memory_mb}", str(memory_mb)) for part in argv)

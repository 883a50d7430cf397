"""``lambent up``, ended with SIGKILL at a named point of its way: what ``kill -9`` does at the worst of moments.

    python -m lambent.testing.fatal_points event:accepted 3 --port 4566 --data-dir ...

ends at the third event that is durable and not yet acknowledged. The names are those of ``ASYNC_POINTS`` and its like, in the modules that
own the ways, and those of ``pointed_store.py``. ``LocalServer.fatal`` starts a server so.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path


def killer(point: str, visits: int) -> Callable[[str], None]:
    """A function that is told the names of points, and kills this process at the ``visits``-th mention of ``point``."""
    left = visits

    def at(name: str) -> None:
        nonlocal left
        if name == point:
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return at


def main(arguments: Sequence[str]) -> int:
    from lambent import node
    from lambent.cli.up import announce, parse
    from lambent.settings import load
    from lambent.testing.pointed_store import STORE_POINTS, PointedStore

    point, visits, *rest = arguments
    options = parse(rest)
    if options is None:
        print(f"not understood: {rest}", file=sys.stderr)
        return 2
    config = options.pop("config", None)
    at = killer(point, int(visits))
    if point in STORE_POINTS:
        open_store = node._open_store
        node._open_store = lambda *places: PointedStore(open_store(*places), at)
    return node.serve(load(config if isinstance(config, Path) else None, **options), announce, at)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Immortal objects: what a zygote has loaded is no longer counted, so that its children need not write to it.

Whoever uses an object of CPython first writes to it: one more reference; and one less when done. So a forked child that merely calls the
functions that it shares with its zygote copies the pages of each of them, and of the modules, types and constants that they go through.
That was half of all pages of an environment.

CPython 3.12 and later know *immortal* objects, whose count means nothing and is left alone (PEP 683, which names just this use). The
interpreter makes some of its own so and gives no call for others, but the mark is nothing except a count: the one that ``None`` has. So
that is written to everything that can be reached from what the garbage collector knows, in 0.2 s for the 110,000 objects of a zygote, most
of it waiting for memory. An interpreter whose ``None`` is counted like any other object (3.11 and earlier, builds without the global lock)
is left as it is.

What a function may notice: ``sys.getrefcount`` of a preloaded module's objects is a big number, and they are never freed, even if the
module is thrown away. What the function makes itself lives and dies as ever.

Standard library only, CPython 3.8 to 3.14, like everything that runs in a zygote.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType

_LEAST = 1 << 31  # no living object is counted that far
_RUNNING = (AsyncGeneratorType, CoroutineType, FrameType, GeneratorType)


def make_immortal() -> int:
    """Let no object that lives now be counted any more. Gives how many were, 0 where the interpreter does not know such objects."""
    if sys.byteorder != "little" or sys.maxsize >> 32 == 0 or hasattr(sys, "getobjects"):  # the last one: objects begin with pointers
        return 0
    counts = (ctypes.c_uint32 * (1 << 45)).from_address(0)  # all of memory; an object begins with its count
    mark: int = counts[id(None) >> 2]
    if mark < _LEAST:
        return 0

    def newly_marked(objects: list[object]) -> list[object]:
        fresh: list[object] = []
        for each in objects:
            place = id(each) >> 2
            if counts[place] != mark and not isinstance(each, _RUNNING):
                counts[place] = mark
                fresh.append(each)
        return fresh

    living: list[object] = [each for each in gc.get_objects() if not isinstance(each, _RUNNING)]
    found = len(newly_marked(living))
    while living:  # at first all that is known, for what was immortal before refers to what was not
        reached = gc.get_referents(*living)
        for each in living:
            if isinstance(each, CodeType):
                reached += _parts(each)
        living = newly_marked(reached)
        found += len(living)
    return found


def _parts(code: CodeType) -> list[object]:
    """What ``code`` refers to, of which the collector does not tell."""
    later = [getattr(code, name, None) for name in ("co_qualname", "co_exceptiontable")]
    return [*code.co_consts, code.co_consts, code.co_filename, code.co_name, code.co_names, code.co_linetable, *later]

"""Packing the zygote's memory, so that its children are small and quickly made.

A forked child shares the zygote's memory page by page until it writes. Both allocators, Python's and the C library's, keep lists of the
free blocks that imports have left all over the heap, and hand those out first: a child that allocates a hundred small things dirties a
hundred pages, each a fault of some microseconds and four kilobytes of its own. So before the first fork every such block is taken, for
good. What a child then allocates lies side by side in fresh pages. On CPython 3.11 that saves 0.65 MB of 3.47 MB of each environment, and
the time of as many faults.

Then the heaps are laid into huge pages, as far as they are long enough in one piece. A fork copies one entry for each of these instead of
five hundred, which makes it cheaper; the child still copies four kilobytes where it writes. Linux does that on demand from 6.1 on.

Last, the parts of each shared library are joined. A linker gives a library four kinds of pages (headers, code, constants, data), and the
loader makes five mappings of them, since it protects a part of the data once it is relocated; those of fifty libraries are two thirds of
all mappings that a fork copies and an exit takes apart. With constants as executable as the code, and all data writable, two are left: of
278 mappings 128 remain, and a fork and an exit take a quarter less. What that gives up protects a process against itself, and there is
nothing in this one that belongs to anybody but the function.

Only an optimisation: with another allocator, or one that tells nothing of itself, nothing is done. Standard library only, CPython 3.8 to
3.14, like everything that runs in a zygote.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import struct
import sys
from collections.abc import Iterator

_ROUNDS = 3  # taking blocks makes a few new ones
_FLOOR = 2_048  # bytes that may stay free in the C library's lists
_AT_HAND = 1_040  # bytes; blocks up to this size may be free and not counted as such
_BYTES_OVERHEAD = sys.getsizeof(b"")

_HUGE = 2 << 20
_MADV_COLLAPSE = 25

_PAGE = os.sysconf("SC_PAGE_SIZE")
_LOAD, _RELOCATED = 1, 0x6474E552  # kinds of program headers (elf(5)): PT_LOAD, PT_GNU_RELRO
_READ, _WRITE, _EXECUTE = 1, 2, 4  # as mprotect takes them
_READ_ONLY = 4  # as a program header says it
_HEADER_SIZE = 56

_kept: list[object] = []


class _MallInfo(ctypes.Structure):
    """``struct mallinfo2`` of glibc 2.33 and later."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    )


def pack() -> None:
    """Take every free block below the heaps' ends, make their pages huge, and join the mappings of libraries."""
    _pack_python()
    _pack_c()
    with contextlib.suppress(AttributeError, OSError):
        _collapse()
    with contextlib.suppress(AttributeError, OSError):
        _join()


def _pack_python() -> None:
    """Small objects: what ``sys._debugmallocstats`` counts as available, by size."""
    for _ in range(_ROUNDS):
        for size, available in _available():
            if size > _BYTES_OVERHEAD:
                _kept.extend(bytes(size - _BYTES_OVERHEAD) for _ in range(available))
            else:
                _kept.extend(float(number) for number in range(available))


def _available() -> list[tuple[int, int]]:
    """(block size, free blocks in pools that are in use), from the table that the interpreter prints to stderr."""
    if not hasattr(os, "memfd_create"):
        return []
    page = os.memfd_create("lambent-packing")
    saved = os.dup(2)
    try:
        sys.stderr.flush()
        os.dup2(page, 2)
        try:
            sys._debugmallocstats()
        finally:
            os.dup2(saved, 2)
        text = os.pread(page, os.fstat(page).st_size, 0).decode("ascii", "replace")
    finally:
        os.close(saved)
        os.close(page)
    rows = [line.split() for line in text.splitlines()]
    return [(int(row[1]), int(row[4])) for row in rows if len(row) == 5 and all(cell.isdigit() for cell in row)]


def _pack_c() -> None:
    """Larger blocks: allocate from large to small until allocations come from the heap's top, or next to nothing is free below it.

    The small ones to the last: glibc keeps some of each size at hand for its thread, and counts them as used.
    """
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallinfo2.restype = _MallInfo
        libc.malloc.restype = ctypes.c_void_p
        libc.malloc.argtypes = (ctypes.c_size_t,)
        size = 1 << 16
        while size >= 24:
            while True:
                before = libc.mallinfo2()
                if size > _AT_HAND and before.fordblks - before.keepcost < _FLOOR:
                    break
                libc.malloc(size - 8)
                if libc.mallinfo2().keepcost != before.keepcost:
                    break  # that one came from the top: nothing of this size is left below
            size = size * 7 // 8 if size > _AT_HAND else size - 16


def _collapse() -> None:
    """Wherever objects are; a zygote's root has no ``/proc`` that could tell where else. What cannot be huge stays as it is."""
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for block in {id(each) // _HUGE for each in gc.get_objects()}:
        advise(block * _HUGE, _HUGE, _MADV_COLLAPSE)


class _Library(ctypes.Structure):
    """The public head of ``struct link_map`` (link.h), by which the loader chains all that it has loaded."""


_Library._fields_ = [
    ("base", ctypes.c_size_t),
    ("name", ctypes.c_char_p),
    ("dynamic", ctypes.c_void_p),
    ("next", ctypes.POINTER(_Library)),
    ("previous", ctypes.POINTER(_Library)),
]


def _join() -> None:
    """What cannot be protected otherwise stays as it is."""
    protect = ctypes.CDLL(None).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for kind, flags, start, end in list(_segments()):
        if kind == _LOAD and flags == _READ_ONLY:
            protect(start, -(-end // _PAGE) * _PAGE - start, _READ | _EXECUTE)
        elif kind == _RELOCATED and end // _PAGE * _PAGE > start:
            protect(start, end // _PAGE * _PAGE - start, _READ | _WRITE)


def _segments() -> Iterator[tuple[int, int, int, int]]:
    """(kind, flags, start of its first page, end) of every segment of the program and its libraries, from their headers in memory."""
    here = ctypes.cast(ctypes.CDLL(None)._handle, ctypes.POINTER(_Library))
    while here:
        base = here.contents.base
        if base and ctypes.string_at(base, 5) == b"\x7fELF\x02":
            table = int.from_bytes(ctypes.string_at(base + 32, 8), "little")
            count = int.from_bytes(ctypes.string_at(base + 56, 2), "little")
            for number in range(count):
                header = ctypes.string_at(base + table + number * _HEADER_SIZE, _HEADER_SIZE)
                kind, flags, _, address, _, _, size, _ = struct.unpack("<IIQQQQQQ", header)
                yield kind, flags, (base + address) // _PAGE * _PAGE, base + address + size
        here = here.contents.next

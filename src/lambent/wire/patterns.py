r"""The models' regular expressions, which are written for Java, as Python ones.

Where the two languages differ, the pattern is rewritten before Python compiles it:

* ``\w``, ``\d``, ``\s`` mean ASCII in Java, so patterns are compiled with ``re.ASCII``;
* ``\p{L}`` and its like do not exist in Python. The usual class, ``[\p{L}\p{Z}\p{N}_…]``, becomes ``[\w…]`` in Unicode mode plus the 19
  separators, which is the same set; any other use becomes explicit ranges, found by asking ``unicodedata`` about every code point once;
* ``[\w-_]`` is a literal hyphen in Java and an error in Python.

A pattern is compiled when a value first meets it: all of them together would cost a tenth of a second at start. That every pattern of
every model compiles is a test's business.
"""

from __future__ import annotations

import functools
import itertools
import re
import sys
import unicodedata

_TOKEN = re.compile(r"\\p\{([A-Z][a-z]?)\}|\\.|.", re.DOTALL)
_SET_THEN_HYPHEN = re.compile(r"(\\[wds])-(?=[^\]])")
_LETTERS_SEPARATORS_NUMBERS = r"\p{L}\p{Z}\p{N}_"
_SEPARATORS = r" \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"


@functools.cache
def compile_pattern(source: str) -> re.Pattern[str]:
    """The Python equal of a model's pattern, to be used with ``fullmatch``. Raises ``re.error``."""
    text = _SET_THEN_HYPHEN.sub(r"\1\\-", source)
    if r"\p{" not in text:
        return re.compile(text, re.ASCII)
    text = text.replace(_LETTERS_SEPARATORS_NUMBERS, rf"\w{_SEPARATORS}")
    return re.compile(_with_ranges(text))


def accepts(source: str, value: str) -> bool:
    """Does the whole of ``value`` match?"""
    return compile_pattern(source).fullmatch(value) is not None


def _with_ranges(text: str) -> str:
    """``\\p{X}`` spelled out: bare ranges inside a class, a class of its own outside."""
    pieces = []
    inside = False
    for token in _TOKEN.finditer(text):
        piece = token[0]
        if token[1]:
            piece = _ranges(token[1]) if inside else f"[{_ranges(token[1])}]"
        elif piece in "[]":
            inside = piece == "["
        pieces.append(piece)
    return "".join(pieces)


@functools.cache
def _ranges(category: str) -> str:
    """Every code point of a Unicode category (``L``, ``Lu``), as the inside of a character class."""
    codes = range(sys.maxunicode + 1)
    runs = itertools.groupby(codes, lambda code: unicodedata.category(chr(code)).startswith(category))
    pieces = []
    for inside, run in runs:
        if inside:
            members = list(run)
            pieces.append(f"\\U{members[0]:08x}-\\U{members[-1]:08x}")
    return "".join(pieces)

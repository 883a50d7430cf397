"""Java's regular expressions mean in Python what they mean in Java."""

from __future__ import annotations

import re
import sys
import unicodedata

import pytest

from lambent.wire import patterns
from lambent.wire.patterns import accepts

TAG = r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)"


def test_the_shortcut_for_letters_separators_numbers_is_exact():
    compiled = patterns.compile_pattern(TAG)
    wrong = [
        code
        for code in range(sys.maxunicode + 1)
        if (compiled.fullmatch(chr(code)) is not None) != (unicodedata.category(chr(code))[0] in "LZN" or chr(code) in "_.:/=+-@")
    ]
    assert wrong == []


def test_other_properties_become_their_ranges():
    assert accepts(r"[^\p{C}]*", "a description, ünïcode")
    assert not accepts(r"[^\p{C}]*", "bell\x07")
    assert not accepts(r"[^\p{C}]*", "private \ue000")
    assert accepts(r"\p{Lu}?x", "x")
    assert accepts(r"[\p{Lu}]x", "Äx")
    assert not accepts(r"[\p{Lu}]x", "äx")


@pytest.mark.parametrize(("source", "yes", "no"), [(r"\d+", "12", "١٢"), (r"[\w-_]*", "a-b_c", "a b"), (r"[\w+=,.@-]*", "a@b-", "ä")])
def test_classes_are_ascii_and_hyphens_literal(source, yes, no):
    assert accepts(source, yes)
    assert not accepts(source, no)


def test_the_whole_value_must_match():
    assert not accepts("[a-z]+", "abc\n")
    assert not accepts("[a-z]+", "abc!")


def test_nonsense_does_not_compile():
    with pytest.raises(re.error):
        patterns.compile_pattern("([a-z]")

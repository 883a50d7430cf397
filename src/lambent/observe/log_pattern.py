"""Filter patterns of CloudWatch Logs: terms in unstructured lines, and comparisons of JSON properties.

*Terms* are case-sensitive parts of the line. Plain terms must all be there, ``-term`` must not, and of ``?term`` one must; next to plain
or excluded terms AWS ignores those with a question mark, and so do we. Anything but letters, digits and underscores wants double quotes.
*JSON patterns* stand in braces: ``{ ($.level = "ERROR" || $.code >= 500) && $.user[0].name = "a*" && $.x IS NULL }``. A line that is no
JSON object matches none, and a property that is not there matches nothing but ``NOT EXISTS``. Regular expressions (``%...%``) and the
bracketed patterns of space-delimited lines are refused, since half an answer would look like a whole one.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Callable
from typing import Any

from lambent.observe.log_entities import BadPattern

Match = Callable[[str], bool]
_Test = Callable[[Any], bool]

_TERM = re.compile(r'\s*([?-]?)(?:"((?:[^"\\]|\\.)*)"|([^\s"]+))(?=\s|$)')
_WORD = re.compile(r"\w+")
_TOKEN = re.compile(
    r"""\s*(?:(?P<path>\$(?:\.[\w-]+|\[(?:\d+|\*)\]|\.?\['[^']+'\])*)
          |(?P<text>"(?:[^"\\]|\\.)*")
          |(?P<sign>&&|\|\||!=|<=|>=|[=<>()])
          |(?P<word>[^\s"=<>!&|(){}%]+))""",
    re.VERBOSE,
)
_STEP = re.compile(r"\.([\w-]+)|\[(\d+|\*)\]|\.?\['([^']+)'\]")
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")


def compile_pattern(pattern: str) -> Match:
    """A function that tells whether a line matches. Raises ``BadPattern``; an empty pattern matches everything."""
    text = pattern.strip()
    if not text:
        return lambda message: True
    if text.startswith("{"):
        return _json_pattern(text)
    if text.startswith(("[", "%")):
        raise BadPattern(f"Filter patterns of this kind are not supported: {text}")
    return _term_pattern(text)


def _term_pattern(text: str) -> Match:
    signs: dict[str, list[str]] = {"": [], "-": [], "?": []}
    at = 0
    while at < len(text):
        match = _TERM.match(text, at)
        if match is None:
            raise BadPattern(f"Invalid filter pattern: {text}")
        sign, quoted, word = match.groups()
        if quoted is None and not _WORD.fullmatch(word):
            raise BadPattern(f"Invalid character(s) in term '{word}'")
        term = word if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        if term:
            signs[sign].append(term)
        at = match.end()
    wanted, unwanted, optional = signs[""], signs["-"], signs["?"]
    if optional and not wanted and not unwanted:
        return lambda message: any(term in message for term in optional)
    return lambda message: all(term in message for term in wanted) and not any(term in message for term in unwanted)


def _json_pattern(text: str) -> Match:
    if not text.endswith("}"):
        raise BadPattern(f"Invalid filter pattern: {text}")
    test = _Parser(text[1:-1], text).whole()

    def matches(message: str) -> bool:
        if not message.lstrip().startswith("{"):
            return False
        try:
            document = json.loads(message)
        except (ValueError, RecursionError):
            return False
        return test(document)

    return matches


class _Parser:
    """Recursive descent over ``or := and (|| and)*``, ``and := one (&& one)*``, ``one := ( or ) | path comparison``."""

    def __init__(self, body: str, pattern: str) -> None:
        self._pattern = pattern
        self._tokens: list[tuple[str, str]] = []
        self._at = 0
        at, body = 0, body.rstrip()
        while at < len(body):
            match = _TOKEN.match(body, at)
            if match is None or match.lastgroup is None:
                raise self._bad()
            self._tokens.append((match.lastgroup, match[match.lastgroup]))
            at = match.end()

    def whole(self) -> _Test:
        test = self._any(0)
        if self._at < len(self._tokens):
            raise self._bad()
        return test

    def _any(self, depth: int) -> _Test:
        tests = [self._all(depth)]
        while self._take("||"):
            tests.append(self._all(depth))
        return tests[0] if len(tests) == 1 else lambda document: any(test(document) for test in tests)

    def _all(self, depth: int) -> _Test:
        tests = [self._one(depth)]
        while self._take("&&"):
            tests.append(self._one(depth))
        return tests[0] if len(tests) == 1 else lambda document: all(test(document) for test in tests)

    def _one(self, depth: int) -> _Test:
        if self._take("("):
            if depth > 20:
                raise self._bad()
            test = self._any(depth + 1)
            if not self._take(")"):
                raise self._bad()
            return test
        kind, path = self._next()
        if kind != "path":
            raise self._bad()
        return self._comparison(_steps(path))

    def _comparison(self, steps: list[str | int | None]) -> _Test:
        kind, operator = self._next()
        if kind == "word":
            return self._state(steps, operator.upper())
        kind, value = self._next()
        if operator not in _OPERATORS or kind not in ("text", "word"):
            raise self._bad()
        compare = _OPERATORS[operator]
        if kind == "word" and _NUMBER.fullmatch(value):
            number = float(value)
            return lambda document: any(_is_number(found) and compare(float(found), number) for found in _find(document, steps))
        if operator not in ("=", "!="):
            raise self._bad()
        text = json.loads(value, strict=False) if kind == "text" else value
        like = re.compile(fnmatch.translate(re.sub(r"([?\[])", r"[\1]", text)))
        wanted = operator == "="
        return lambda document: any((like.match(_text(found)) is not None) is wanted for found in _find(document, steps))

    def _state(self, steps: list[str | int | None], word: str) -> _Test:
        kind, second = self._next()
        match (word, second.upper() if kind == "word" else ""):
            case ("IS", "NULL"):
                return lambda document: any(found is None for found in _find(document, steps))
            case ("IS", "TRUE"):
                return lambda document: any(found is True for found in _find(document, steps))
            case ("IS", "FALSE"):
                return lambda document: any(found is False for found in _find(document, steps))
            case ("NOT", "EXISTS"):
                return lambda document: not _find(document, steps)
        raise self._bad()

    def _next(self) -> tuple[str, str]:
        if self._at >= len(self._tokens):
            raise self._bad()
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _take(self, sign: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at] == ("sign", sign):
            self._at += 1
            return True
        return False

    def _bad(self) -> BadPattern:
        return BadPattern(f"Invalid filter pattern: {self._pattern}")


_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "=": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "<": lambda left, right: left < right,
    ">": lambda left, right: left > right,
    "<=": lambda left, right: left <= right,
    ">=": lambda left, right: left >= right,
}


def _steps(path: str) -> list[str | int | None]:
    """A selector as names, indexes, and ``None`` for every element."""
    steps: list[str | int | None] = []
    for name, index, quoted in _STEP.findall(path):
        if index:
            steps.append(None if index == "*" else int(index))
        else:
            steps.append(name or quoted)
    return steps


def _find(document: Any, steps: list[str | int | None]) -> list[Any]:
    """Every value that the selector names; none, if a part of it is missing."""
    found = [document]
    for step in steps:
        reached: list[Any] = []
        for value in found:
            if isinstance(step, str):
                if isinstance(value, dict) and step in value:
                    reached.append(value[step])
            elif isinstance(value, list):
                reached.extend(value if step is None else value[step : step + 1])
        found = reached
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)

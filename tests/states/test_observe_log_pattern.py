"""Filter patterns, as the documentation of CloudWatch Logs explains them."""

import json

import pytest

from lambent.observe.log_entities import BadPattern
from lambent.observe.log_pattern import compile_pattern

LINES = [
    "[ERROR 400] BAD REQUEST",
    "[ERROR 401] UNAUTHORIZED REQUEST",
    "[ERROR 419] MISSING ARGUMENTS",
    "[WARN] low on memory",
    "INTERNAL SERVER ERROR 500",
]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", [0, 1, 2, 3, 4]),
        ("   ", [0, 1, 2, 3, 4]),
        ("ERROR", [0, 1, 2, 4]),
        ("error", []),
        ("ERROR REQUEST", [0, 1]),
        ("?ERROR ?WARN", [0, 1, 2, 3, 4]),
        ("?400 ?WARN", [0, 3]),
        ('"SERVER ERROR"', [4]),
        ('"ERROR SERVER"', []),
        ("ERROR -400", [1, 2, 4]),
        ('ERROR -"BAD REQUEST" -MISSING', [1, 4]),
        ("-ERROR", [3]),
        ("?400 ?401 MISSING", [2]),
        ('"[WARN]"', [3]),
        ('?"[WARN]" ?500', [3, 4]),
    ],
)
def test_terms(pattern, expected):
    matches = compile_pattern(pattern)
    assert [number for number, line in enumerate(LINES) if matches(line)] == expected


def test_quotes_inside_quotes():
    assert compile_pattern(r'"say \"hi\""')('I say "hi"')


EVENT = json.dumps(
    {
        "level": "ERROR",
        "code": 500,
        "ratio": 0.5,
        "user": {"name": "alice smith", "id": "17", "roles": ["admin", "ops"], "odd key": 1},
        "gone": None,
        "yes": True,
        "no": False,
        "star": "a[b]?c",
    }
)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ('{ $.level = "ERROR" }', True),
        ("{ $.level = ERROR }", True),
        ('{$.level="ERROR"}', True),
        ('{ $.level = "error" }', False),
        ('{ $.level != "INFO" }', True),
        ('{ $.level != "ERROR" }', False),
        ('{ $.missing != "x" }', False),
        ('{ $.level = "ERR*" }', True),
        ('{ $.level = "*" }', True),
        ("{ $.level = ERR* }", True),
        ("{ $.code = 500 }", True),
        ("{ $.code = 5e2 }", True),
        ("{ $.code != 500 }", False),
        ("{ $.code >= 500 }", True),
        ("{ $.code > 500 }", False),
        ("{ $.code < 500.5 }", True),
        ("{ $.code <= -1 }", False),
        ("{ $.ratio < 1 }", True),
        ("{ $.level > 1 }", False),
        ("{ $.yes > 0 }", False),
        ('{ $.user.id = "17" }', True),
        ('{ $.user.name = "alice smith" }', True),
        ('{ $.user.roles[1] = "ops" }', True),
        ('{ $.user.roles[5] = "ops" }', False),
        ('{ $.user.roles[*] = "admin" }', True),
        ("{ $.user['odd key'] = 1 }", True),
        ("{ $.gone IS NULL }", True),
        ("{ $.level IS NULL }", False),
        ("{ $.missing IS NULL }", False),
        ("{ $.missing NOT EXISTS }", True),
        ("{ $.level NOT EXISTS }", False),
        ("{ $.yes IS TRUE }", True),
        ("{ $.no IS FALSE }", True),
        ("{ $.yes is false }", False),
        ('{ $.star = "a[b]?c" }', True),
        ('{ $.star = "a[b]xc" }', False),
        ('{ $.level = "ERROR" && $.code = 404 }', False),
        ('{ $.level = "INFO" || $.code = 500 }', True),
        ('{ ($.level = "INFO" || $.code = 500) && $.yes IS TRUE }', True),
        ('{ $.level = "ERROR" || $.code = 404 && $.no IS TRUE }', True),
        ('{ ($.level = "ERROR" || $.code = 404) && $.no IS TRUE }', False),
        ("{ $.level.deeper = 1 }", False),
    ],
)
def test_json(pattern, expected):
    assert compile_pattern(pattern)(EVENT) is expected
    assert compile_pattern(pattern)(f"  {EVENT}\n") is expected


@pytest.mark.parametrize("line", ["plain text", "", "[1]", "{ broken", '"ERROR"', "{" * 100_000])
def test_json_patterns_match_only_objects(line):
    assert not compile_pattern("{ $.missing NOT EXISTS }")(line)


@pytest.mark.parametrize(
    "pattern",
    [
        "[ip, user]",
        "%regex%",
        "foo-bar",
        "a:b",
        '"open',
        'x"y"',
        "{ }",
        "{ $.a }",
        "{ $.a = }",
        "{ $.a = 1",
        "{ a = 1 }",
        '{ $.a > "x" }',
        "{ $.a = 1 && }",
        "{ ($.a = 1 }",
        "{ $.a = 1 ) }",
        "{ $.a = %x% }",
        "{ $.a IS MAYBE }",
        "{ $.a 1 1 }",
        "{ $.a = 1 2 }",
        "{" + "(" * 500 + "$.a = 1" + ")" * 500 + "}",
        "?",
        "-",
    ],
)
def test_what_is_no_pattern_is_refused(pattern):
    with pytest.raises(BadPattern):
        compile_pattern(pattern)

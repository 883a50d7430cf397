"""Filters of event source mappings: every operator, the kinds of payloads, and what is no pattern (contract 04 §5)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambent.errors import ClientFault
from lambent.sources.filters import Filters, as_payload, patterns_of, validate_pattern


def matches(pattern, data):
    return Filters([json.dumps(pattern)]).match(data)


@pytest.mark.parametrize(
    ("pattern", "data", "expected"),
    [
        ({}, {"a": 1}, True),
        ({"a": ["x"]}, {"a": "x"}, True),
        ({"a": ["x"]}, {"a": "y"}, False),
        ({"a": ["x", "y"]}, {"a": "y"}, True),
        ({"a": ["x"], "b": [1]}, {"a": "x", "b": 1}, True),
        ({"a": ["x"], "b": [1]}, {"a": "x", "b": 2}, False),
        ({"a": ["x"]}, {"a": ["z", "x"]}, True),
        ({"a": [1]}, {"a": 1.0}, True),
        ({"a": [1]}, {"a": True}, False),
        ({"a": [True]}, {"a": 1}, False),
        ({"a": [False]}, {"a": False}, True),
        ({"a": ["1"]}, {"a": 1}, False),
        ({"a": [None]}, {"a": None}, True),
        ({"a": [None]}, {}, False),
        ({"a": [""]}, {"a": ""}, True),
        ({"a": [""]}, {"a": None}, False),
        ({"a": {"b": ["x"]}}, {"a": {"b": "x"}}, True),
        ({"a": {"b": ["x"]}}, {"a": "x"}, False),
        ({"a": {"b": ["x"]}}, {"a": [{"b": "y"}, {"b": "x"}]}, True),
        ({"a": [{"exists": True}]}, {"a": None}, True),
        ({"a": [{"exists": True}]}, {"a": {"b": 1}}, False),
        ({"a": [{"exists": True}]}, {}, False),
        ({"a": [{"exists": False}]}, {"b": 1}, True),
        ({"a": [{"exists": False}]}, {"a": 0}, False),
        ({"a": {"b": [{"exists": False}]}}, {}, True),
        ({"a": [{"exists": False}, "x"]}, {"a": "x"}, True),
        ({"a": [{"exists": False}, "x"]}, {"a": "y"}, False),
        ({"a": [{"prefix": "us-"}]}, {"a": "us-east-1"}, True),
        ({"a": [{"prefix": "us-"}]}, {"a": "eu"}, False),
        ({"a": [{"prefix": "1"}]}, {"a": 1}, False),
        ({"a": [{"suffix": ".png"}]}, {"a": "x.png"}, True),
        ({"a": [{"suffix": ".png"}]}, {"a": "x.PNG"}, False),
        ({"a": [{"equals-ignore-case": "AbC"}]}, {"a": "aBc"}, True),
        ({"a": [{"equals-ignore-case": "AbC"}]}, {"a": "abcd"}, False),
        ({"a": [{"anything-but": ["x", 1]}]}, {"a": "y"}, True),
        ({"a": [{"anything-but": ["x", 1]}]}, {"a": 1}, False),
        ({"a": [{"anything-but": "x"}]}, {"a": "x"}, False),
        ({"a": [{"anything-but": ["x"]}]}, {}, False),
        ({"a": [{"anything-but": {"prefix": "x"}}]}, {"a": "xy"}, False),
        ({"a": [{"anything-but": {"prefix": "x"}}]}, {"a": "yx"}, True),
        ({"a": [{"numeric": ["=", 5]}]}, {"a": 5.0}, True),
        ({"a": [{"numeric": [">", 0, "<=", 5]}]}, {"a": 5}, True),
        ({"a": [{"numeric": [">", 0, "<=", 5]}]}, {"a": 0}, False),
        ({"a": [{"numeric": ["<", 0.5]}]}, {"a": 0.499999}, True),
        ({"a": [{"numeric": ["=", 1]}]}, {"a": True}, False),
        ({"a": [{"numeric": ["=", 1]}]}, {"a": "1"}, False),
        ({"$or": [{"a": ["x"]}, {"b": [{"numeric": [">", 1]}]}]}, {"b": 2}, True),
        ({"$or": [{"a": ["x"]}, {"b": [{"numeric": [">", 1]}]}]}, {"a": "y", "b": 1}, False),
        ({"c": [1], "$or": [{"a": ["x"]}, {"b": ["y"]}]}, {"a": "x"}, False),
    ],
)
def test_operators(pattern, data, expected):
    assert matches(pattern, data) is expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        '"x"',
        "null",
        '{"a": "x"}',
        '{"a": 1}',
        '{"a": null}',
        '{"a": []}',
        '{"a": [[1]]}',
        '{"a": [{}]}',
        '{"a": [{"prefix": "x", "suffix": "y"}]}',
        '{"a": [{"wildcard": "x*"}]}',
        '{"a": [{"prefix": 1}]}',
        '{"a": [{"suffix": null}]}',
        '{"a": [{"exists": "true"}]}',
        '{"a": [{"anything-but": []}]}',
        '{"a": [{"anything-but": {"suffix": "x"}}]}',
        '{"a": [{"anything-but": [{"prefix": "x"}]}]}',
        '{"a": [{"numeric": []}]}',
        '{"a": [{"numeric": ["=", "1"]}]}',
        '{"a": [{"numeric": ["!=", 1]}]}',
        '{"a": [{"numeric": [">", 5, "<", 5]}]}',
        '{"a": [{"numeric": ["<", 5, ">", 1]}]}',
        '{"a": [{"numeric": ["=", 1000000001]}]}',
        '{"a": [NaN]}',
        '{"$or": {}}',
        '{"$or": []}',
        '{"$or": [{"a": 1}, {}]}',
        "[" * 4000,
    ],
)
def test_what_is_no_pattern_is_refused_in_aws_words(text):
    with pytest.raises(ClientFault) as caught:
        validate_pattern(text)
    assert (caught.value.code, caught.value.message) == ("InvalidParameterValueException", "Invalid filter pattern definition.")


@pytest.mark.parametrize(
    ("pattern", "body", "expected"),
    [
        ({"body": {"a": ["x"]}}, '{"a":"x"}', True),
        ({"body": {"a": ["x"]}}, '{"a":"y"}', False),
        ({"body": {"a": ["x"]}}, "plain", False),
        ({"body": {"a": [{"exists": False}]}}, "plain", False),
        ({"body": {"a": [{"exists": False}]}}, "{}", True),
        ({"body": ["plain"]}, "plain", True),
        ({"body": [{"prefix": "pl"}]}, "plain", True),
        ({"body": ["a"]}, '["a"]', False),
        ({"body": [{"exists": True}]}, '{"a":1}', False),
        ({"body": ["{broken"]}, "{broken", True),
        ({"body": ["5"]}, "5", True),
        ({"messageAttributes": {"k": {"stringValue": ["v"]}}}, "whatever", True),
        ({"messageAttributes": {"k": {"stringValue": ["w"]}}}, "{}", False),
        ({"$or": [{"body": ["plain"]}, {"body": {"a": [1]}}]}, '{"a":1}', True),
        ({"$or": [{"body": ["plain"]}, {"body": {"a": [1]}}]}, "plain", True),
    ],
)
def test_payload_and_pattern_must_be_of_one_kind(pattern, body, expected):
    view = {"body": as_payload(body), "messageAttributes": {"k": {"stringValue": "v", "dataType": "String"}}}
    assert Filters([json.dumps(pattern)], ("body",)).match(view) is expected


def test_filters_are_or_ed_and_none_lets_all_through():
    two = Filters(['{"a": [1]}', '{"b": [2]}'])
    assert two.match({"b": 2})
    assert not two.match({"a": 2})
    assert Filters().match({})
    assert not Filters()
    assert patterns_of({"Filters": [{"Pattern": '{"a":[1]}'}, {}]}) == ['{"a":[1]}', "{}"]
    assert patterns_of(None) == []


_SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text("ab", max_size=2))
_DATA = st.recursive(_SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3))
_LEAVES = st.lists(
    st.one_of(
        _SCALARS,
        st.builds(lambda flag: {"exists": flag}, st.booleans()),
        st.builds(lambda name, text: {name: text}, st.sampled_from(["prefix", "suffix", "equals-ignore-case"]), st.text("ab", max_size=2)),
        st.builds(lambda text: {"anything-but": [text]}, st.text("ab", max_size=2)),
        st.builds(lambda number: {"numeric": [">=", number]}, st.integers(-9, 9)),
    ),
    min_size=1,
    max_size=3,
)
_PATTERNS = st.recursive(
    st.dictionaries(st.sampled_from("abc"), _LEAVES, max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner | _LEAVES, max_size=2),
)


@given(_PATTERNS, st.dictionaries(st.sampled_from("abc"), _DATA, max_size=3))
def test_any_pattern_answers_for_any_data(pattern, data):
    """A further key can only match less, and an $or of a pattern with itself is that pattern."""
    alone = matches(pattern, data)
    assert matches({"$or": [pattern or {"z": [{"exists": False}]}] * 2}, data) is alone
    if alone:
        assert matches({"$or": [{"never": ["x"]}, pattern or {"z": [{"exists": False}]}]}, data)
    assert not matches({**pattern, "never": ["x"]}, data)

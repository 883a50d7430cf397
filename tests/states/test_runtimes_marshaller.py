"""The compiled marshaller gives what AWS's gives: the same text, the same values, the same errors."""

from __future__ import annotations

import collections
import decimal
import enum
import math

import pytest
from awslambdaric.lambda_runtime_exception import FaultException
from awslambdaric.lambda_runtime_marshaller import LambdaMarshaller
from hypothesis import given
from hypothesis import strategies as st

from lambent.runtime_api.python_client import CompiledMarshaller

Point = collections.namedtuple("Point", "x y")


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


class Loud(dict):
    def _asdict(self):
        return {"loud": True}


class Exact(float):
    def __repr__(self):
        return "exactly"


def pair(runtime: str) -> tuple[CompiledMarshaller, LambdaMarshaller]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_EXECUTION_ENV", f"AWS_Lambda_{runtime}")
        return CompiledMarshaller(), LambdaMarshaller()


PAIRS = {runtime: pair(runtime) for runtime in ("python3.11", "python3.12")}
either = pytest.mark.parametrize("runtime", PAIRS)


def outcome(call, *arguments):
    try:
        return "value", call(*arguments)
    except FaultException as fault:
        return fault.exception_type, fault.msg


def equal(one, other) -> bool:
    """Equality that tells 1 from 1.0 and True, 0.0 from -0.0, and takes NaN for itself."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (one == other and math.copysign(1, one) == math.copysign(1, other))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    return one == other


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.text(st.characters(categories=["Cs", "Cc", "Zl", "Zp"]))
odd = (
    st.sampled_from(
        [Point(1, [2]), Colour.RED, Text("täxt"), Loud(a=1), Exact(1.5), b"b\xc3\xa9", b"\xff", {1}, 1j, object, bytearray(b"x"), range(2)]
    )
    | st.decimals()
)
keys = st.text() | st.integers() | st.floats() | st.booleans() | st.none() | st.sampled_from([b"k", (1, 2), Colour.RED, Text("k")])
values = st.recursive(
    plain | odd,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=12,
)
common = st.recursive(plain, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5), max_leaves=20)


@either
@given(value=common)
def test_common_answers_are_the_same_text(runtime, value):
    compiled, aws = PAIRS[runtime]
    assert compiled.marshal_response(value) == aws.marshal_response(value)


@either
@given(value=values)
def test_odd_answers_have_the_same_outcome(runtime, value):
    compiled, aws = PAIRS[runtime]
    assert outcome(compiled.marshal_response, value) == outcome(aws.marshal_response, value)


@either
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Point(1, 2), '{"x": 1, "y": 2}'),
        ([Point(1, 2)], '[{"x": 1, "y": 2}]'),
        ({"price": decimal.Decimal("1.10")}, '{"price": 1.10}'),
        (decimal.Decimal("-NaN"), "NaN"),
        ({"raw": b"bytes"}, '{"raw": "bytes"}'),
        (Loud(a=1), '{"loud": true}'),
        ((1, 2), "[1, 2]"),
    ],
)
def test_what_only_awss_code_knows_goes_to_it(runtime, value, text):
    assert PAIRS[runtime][0].marshal_response(value) == (text, "application/json")


@either
def test_cycles_and_depth_are_errors_and_no_crash(runtime):
    compiled, aws = PAIRS[runtime]
    cycle: list[object] = []
    cycle.append(cycle)
    assert outcome(compiled.marshal_response, cycle) == outcome(aws.marshal_response, cycle)
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert outcome(compiled.marshal_response, deep)[0] == FaultException.MARSHAL_ERROR


def test_an_encoder_that_the_author_replaced_is_used():
    compiled, _ = pair("python3.12")

    class Mine:
        def encode(self, value):
            return "mine"

    compiled.jsonEncoder = Mine()
    assert compiled.marshal_response({"a": 1}) == ("mine", "application/json")


@either
@given(value=common)
def test_events_are_the_same_values(runtime, value):
    compiled, aws = PAIRS[runtime]
    event = aws.marshal_response(value)[0].encode("utf-8", "surrogatepass")
    one, other = outcome(compiled.unmarshal_request, event), outcome(aws.unmarshal_request, event)
    assert equal(one, other)


fragments = st.sampled_from(
    ["{", "}", "[", "]", ",", ":", '"', '"a"', "\\", "\\u00e9", "1", "-", "-0", ".5", "e9", "nul", "null", " ", "\n"]
)
more = st.sampled_from(
    ["\ufeff", "NaN", "-Infinity", "true", "\x00", "\u00e9", "\u0661", "01", "1_0", '"\\ud800"', "9" * 5000, "/**/", "'"]
)


@either
@given(text=st.lists(fragments | more, max_size=8).map("".join))
def test_broken_events_have_the_same_outcome(runtime, text):
    compiled, aws = PAIRS[runtime]
    assert equal(outcome(compiled.unmarshal_request, text.encode()), outcome(aws.unmarshal_request, text.encode()))


@either
@given(event=st.binary(max_size=20))
def test_bytes_that_are_no_text_have_the_same_outcome(runtime, event):
    compiled, aws = PAIRS[runtime]
    assert equal(outcome(compiled.unmarshal_request, event), outcome(aws.unmarshal_request, event))


@either
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_other_encodings_have_the_same_outcome(runtime, encoding):
    compiled, aws = PAIRS[runtime]
    event = '{"a": "b"}'.encode(encoding)
    assert outcome(compiled.unmarshal_request, event) == outcome(aws.unmarshal_request, event)
    assert compiled.unmarshal_request(event, "text/plain") is event

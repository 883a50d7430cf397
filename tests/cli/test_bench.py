"""The arithmetic and the client of the benchmarks; the figures themselves are for ``make bench``."""

from __future__ import annotations

import json

import pytest
from bench.load import AnswerReader, Load, drive, request_bytes
from bench.rows import Row, percentile, render
from bench.stage import bare_uvicorn, descendants, private_memory, unique_memory


def test_percentiles():
    samples = [float(number) for number in range(100, 0, -1)]
    assert [percentile(samples, percent) for percent in (0, 50, 99, 100)] == [1.0, 50.0, 99.0, 100.0]
    assert percentile([7.0], 99) == 7.0
    assert percentile([1.0, 2.0, 3.0], 50) == 2.0


def test_the_table_shows_verdicts_and_details():
    text = render([Row("a", "<= 1", "0.5", True, "why"), Row("bb", "<= 1", "2", False), Row("c", "", "3")])
    assert [line.split()[-1] for line in text.splitlines()[2:5]] == ["met", "MISSED", "3"]
    assert "  a: why" in text


def test_answers_are_put_together_from_any_pieces():
    answer = b'HTTP/1.1 200 OK\r\nx-amzn-Remapped-Content-Length: 0\r\nContent-Length: 4\r\nx: y\r\n\r\n"ok"'
    for size in (1, 3, 1000):
        reader = AnswerReader()
        bodies = [reader.feed(answer[start : start + size]) for start in range(0, len(answer), size)]
        assert bodies[-1] == b'"ok"'
        assert not any(bodies[:-1])


def test_bad_answers_stop_the_run():
    with pytest.raises(RuntimeError, match="not a good answer"):
        AnswerReader().feed(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(RuntimeError, match="not a good answer"):
        AnswerReader().feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Amz-Function-Error: Unhandled\r\n\r\n")


def test_a_request_is_well_formed():
    head, _, body = request_bytes(Load(80, "f", '{"a": 1}')).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /2015-03-31/functions/f/invocations HTTP/1.1\r\n")
    assert b"Content-Length: 8" in head
    assert json.loads(body) == {"a": 1}


def test_both_kinds_of_load_count_what_they_send():
    import os

    with bare_uvicorn() as port:
        alone = drive(Load(port, "f", "{}", 1, 20))
        crowd = drive(Load(port, "f", "{}", 8, 33))
    for outcome, count in ((alone, 20), (crowd, 33)):
        assert len(outcome.latencies) == count
        assert 0 < min(outcome.latencies) <= outcome.elapsed
        assert json.loads(outcome.last)["statusCode"] == 200
    assert os.getpid() in descendants(os.getpid())
    assert 0 < private_memory([os.getpid()]) <= unique_memory([os.getpid()]) * 2

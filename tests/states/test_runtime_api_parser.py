"""The HTTP parser of the APIs inside: every way of cutting the same bytes, and bytes that nobody should send."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lambent.runtime_api.http_parser import MAX_CHUNK_LINE, MAX_HEAD, MAX_LINES, BadRequest, End, Head, RequestParser


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


def events(parts: list[bytes], most_held: int | None = None) -> list:
    """What comes out, with neighbouring pieces of a body put together."""
    parser = RequestParser()
    found: list = []
    for part in parts:
        parser.feed(part)
        while (event := parser.next()) is not None:
            if isinstance(event, bytes) and found and isinstance(found[-1], bytes):
                found[-1] += event
            else:
                found.append(event)
        if most_held is not None:
            assert parser.held <= most_held
    return found


def request(method: str = "POST", path: str = "/p", headers: dict[str, str] | None = None, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in (headers or {}).items())]
    return ("\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])).encode("latin-1") + body


def chunked(chunks: list[bytes], trailers: dict[str, str] | None = None, path: str = "/p") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    body = b"".join(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n" for chunk in chunks if chunk)
    tail = "".join(f"{name}: {value}\r\n" for name, value in (trailers or {}).items()).encode()
    return head + body + b"0\r\n" + tail + b"\r\n"


tokens = st.text("abcXYZ-", min_size=1, max_size=8)
values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=12)
names = st.dictionaries(st.text("xyz", min_size=3, max_size=9), values, max_size=4)
plain = st.builds(
    lambda method, path, headers, body: (request(method, "/" + path, headers, body), method, "/" + path, headers, {}, body),
    tokens,
    tokens,
    names,
    st.binary(max_size=60),
)
in_chunks = st.builds(
    lambda path, chunks, trailers: (chunked(chunks, trailers, "/" + path), "POST", "/" + path, {}, trailers, b"".join(chunks)),
    tokens,
    st.lists(st.binary(max_size=40), max_size=5),
    names,
)


@given(st.lists(plain | in_chunks, max_size=4), st.lists(st.integers(0, 10_000), max_size=20))
def test_any_split_gives_the_same_requests(sent, cuts):
    found = events(pieces(b"".join(one[0] for one in sent), cuts))
    for _, method, path, headers, trailers, body in sent:
        head = found.pop(0)
        assert (head.method, head.path, head.keep_alive) == (method, path, True)
        assert {name: head.headers[name] for name in headers} == headers
        if body:
            assert found.pop(0) == body
        assert found.pop(0) == End(trailers)
    assert found == []


@given(plain | in_chunks)
def test_a_request_ends_with_its_last_byte_and_not_before(one):
    data = one[0]
    parser = RequestParser()
    for byte in data[:-1]:
        parser.feed(bytes([byte]))
        while (event := parser.next()) is not None:
            assert not isinstance(event, End) or data.endswith(b"Content-Length: 0\r\n\r\n")
    assert not parser.at_rest
    parser.feed(data[-1:])
    while parser.next() is not None:
        pass
    assert parser.at_rest


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
@example(b"GET / HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 2\r\n\r\n", [])
@example(b"\r\n\r\n\r\nGET / HTTP/1.1\r\n \r\n\r\n", [3])
def test_garbage_raises_the_one_error_and_nothing_else(data, cuts):
    with contextlib.suppress(BadRequest):
        for event in events(pieces(data, cuts), most_held=len(data)):
            assert isinstance(event, Head | bytes | End)


NEARLY = (
    b"POST /x HTTP/1.1\r\n",
    b"GET / HTTP/1.0\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"x: y\r\n",
    b" \t\r\n",
    b"\r\n",
    b"3\r\n",
    b"abc",
    b"0\r\n",
    b";ext\r\n",
    b"ffffffffffffffff\r\n",
    b"\n",
    b"\r",
    b"\x00",
)
near_requests = st.lists(st.sampled_from(NEARLY), max_size=14).map(b"".join)


@given(near_requests, st.lists(st.integers(0, 300), max_size=8))
def test_nearly_requests_give_the_same_result_however_they_are_cut(data, cuts):
    def result(parts):
        found = []
        parser = RequestParser()
        try:
            for part in parts:
                parser.feed(part)
                while (event := parser.next()) is not None:
                    if isinstance(event, bytes) and found and isinstance(found[-1], bytes):
                        found[-1] += event
                    else:
                        found.append(event)
        except BadRequest as error:
            found.append((error.status, error.text))
            found.append(error is refusal(parser))
        return found

    def refusal(parser):
        with pytest.raises(BadRequest) as again:
            parser.next()
        return again.value

    assert result(pieces(data, cuts)) == result([data])


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (400, b"GET /\r\n\r\n"),
        (400, b"GET  / HTTP/1.1\r\n\r\n"),
        (505, b"GET / HTTP/2.0\r\n\r\n"),
        (400, b"G@T / HTTP/1.1\r\n\r\n"),
        (400, b"GET /\x01 HTTP/1.1\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nno colon\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\na : b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\na: b\r\n folded\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\na: b\nc: d\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\na: \x00\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nContent-Length: ²\r\n\r\n".encode("latin-1")),
        (400, b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (501, b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"),
        (400, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n"),
        (400, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n"),
        (400, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1" + b"0" * MAX_CHUNK_LINE + b"0"),
        (431, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (MAX_LINES + 1) + b"\r\n"),
    ],
)
def test_what_two_readers_could_read_differently_is_refused(status, data):
    with pytest.raises(BadRequest) as caught:
        events([data])
    assert caught.value.status == status


@pytest.mark.parametrize("prefix", [b"GET / HTTP/1.1\r\na: ", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: "])
def test_a_head_and_trailers_without_end_are_refused_at_the_limit(prefix):
    parser = RequestParser()

    def pour():
        parser.feed(prefix)
        for _ in range(MAX_HEAD // 50_000 + 2):
            while parser.next() is not None:
                pass
            assert parser.held <= MAX_HEAD
            parser.feed(b"x" * 50_000)

    with pytest.raises(BadRequest) as caught:
        pour()
    assert caught.value.status == 431
    assert parser.held == 0
    parser.feed(b"more")
    assert parser.held == 0


@given(st.integers(1, 2**40))
def test_a_body_is_never_held(length):
    parser = RequestParser()
    parser.feed(f"POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode())
    assert parser.next().length == length
    for _ in range(min(length // 1000, 5)):
        parser.feed(bytes(1000))
        assert parser.next() == bytes(1000)
        assert parser.held == 0


def test_an_x_ray_cause_of_a_megabyte_fits():
    [head, end] = events([request(headers={"Lambda-Runtime-Function-XRay-Error-Cause": "x" * (1024 * 1024 - 1)})])
    assert len(head.headers["lambda-runtime-function-xray-error-cause"]) == 1024 * 1024 - 1
    assert end == End()


@pytest.mark.parametrize(
    ("line", "connection", "keep"),
    [("HTTP/1.1", "", True), ("HTTP/1.1", "close", False), ("HTTP/1.0", "", False), ("HTTP/1.0", "Keep-Alive", True)],
)
def test_who_keeps_the_connection(line, connection, keep):
    head = events([f"GET / {line}\r\n{connection and 'Connection: ' + connection + chr(13) + chr(10)}\r\n".encode()])[0]
    assert head.keep_alive is keep


def test_targets_and_repeated_headers():
    [head, _] = events(
        [b"GET http://127.0.0.1:9001/a/b?c=d HTTP/1.1\r\nA: 1\r\na:2 \r\nExpect: 100-Continue\r\nContent-Length: 0, 0\r\n\r\n"]
    )
    assert (head.path, head.headers["a"], head.expects, head.length) == ("/a/b", "1, 2", True, 0)

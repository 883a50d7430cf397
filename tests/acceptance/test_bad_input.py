"""Bad input gets a clear AWS-shaped error, loses nothing and leaves the server unharmed (every test ends with a working invocation)."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
import stat
import struct
import threading
import urllib.parse
import zipfile

import pytest
from acceptance_helpers import ECHO, ROLE, RUNTIME, settle, zipped
from raw_http import connect, head, read_answer, send

FUNCTIONS = "/2015-03-31/functions"
BROKEN = "failed to satisfy constraint: Member must"
GARBAGE = (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", bytes(1_000), b"GET\r\n\r\n", b"HELLO WORLD\r\n\r\n", b"\r\n" * 5_000)


@pytest.fixture(scope="module", autouse=True)
def bystander(server):
    """A function that nothing that happens here may disturb."""
    api = server.client("lambda")
    api.create_function(
        FunctionName="bystander", Runtime=RUNTIME, Role=ROLE, Handler="app.handler", Code={"ZipFile": zipped({"app.py": ECHO})}
    )
    settle(api, "bystander")


@pytest.fixture(autouse=True)
def _unharmed(server, api):
    before = {entry["FunctionName"] for entry in api.list_functions()["Functions"]}
    yield
    assert json.loads(api.invoke(FunctionName="bystander", Payload='{"still": "here"}')["Payload"].read()) == {"still": "here"}
    assert {entry["FunctionName"] for entry in api.list_functions()["Functions"]} == before


def creation(**changes):
    document = {
        "FunctionName": "bad",
        "Runtime": RUNTIME,
        "Role": ROLE,
        "Handler": "app.handler",
        "Code": {"ZipFile": base64.b64encode(zipped({"app.py": ECHO})).decode()},
        **changes,
    }
    return {name: value for name, value in document.items() if value is not None}


def create(server, **changes):
    return send(server.port, "POST", FUNCTIONS, json.dumps(creation(**changes)).encode())


def create_with_zip(server, content: bytes):
    return create(server, Code={"ZipFile": base64.b64encode(content).decode()})


def entry(name: str, mode: int = 0o100644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def archive(*entries: tuple[zipfile.ZipInfo, bytes]) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as writer:
        for info, content in entries:
            info.compress_type = zipfile.ZIP_DEFLATED
            writer.writestr(info, content)
    return memory.getvalue()


def assert_refused(answer, code: str, status: int, text: str = ""):
    assert (answer.code, answer.status) == (code, status), answer
    assert text in answer.message
    assert "Traceback" not in answer.message


# Zip files

GOOD_ZIP = zipped({"app.py": ECHO})


@pytest.mark.parametrize(
    "content",
    [
        b"this is no zip file",
        GOOD_ZIP[: len(GOOD_ZIP) // 2],
        GOOD_ZIP[:20] + b"\xff" * 30 + GOOD_ZIP[50:],
        b"PK\x05\x06" + b"\xff" * 18,
    ],
    ids=["text", "cut short", "damaged", "absurd directory"],
)
def test_a_broken_zip(server, content):
    assert_refused(create_with_zip(server, content), "InvalidParameterValueException", 400, "Could not unzip uploaded file")


@pytest.mark.parametrize("name", ["../escape.py", "a/../../escape.py", "/etc/escape.py", "a/b/../../../escape.py", "..", "//escape.py"])
def test_names_in_a_zip_that_lead_outside(server, name):
    content = archive((entry("app.py"), ECHO.encode()), (entry(name), b"out"))
    assert_refused(create_with_zip(server, content), "InvalidParameterValueException", 400)
    assert list(server.data_dir.rglob("escape.py")) == []


@pytest.mark.parametrize("target", ["/etc/hostname", "../../../../../../etc/hostname", "../outside"])
def test_a_symlink_in_a_zip_that_leads_outside(server, target):
    link = entry("link", stat.S_IFLNK | 0o777)
    content = archive((entry("app.py"), ECHO.encode()), (link, target.encode()))
    assert_refused(create_with_zip(server, content), "InvalidParameterValueException", 400)


def test_a_device_in_a_zip(server):
    answer = create_with_zip(server, archive((entry("app.py"), ECHO.encode()), (entry("disk", stat.S_IFBLK | 0o666), b"")))
    assert_refused(answer, "InvalidParameterValueException", 400)


def test_a_zip_bomb(server):
    """300 MB of zeros in 300 KB."""
    block = bytes(100 * 2**20)
    content = archive(*((entry(f"zeros-{number}"), block) for number in range(3)))
    assert len(content) < 2**20
    assert_refused(
        create_with_zip(server, content), "InvalidParameterValueException", 400, "Unzipped size must be smaller than 262144000 bytes"
    )


def test_a_zip_bomb_that_lies_about_its_size(server):
    """The directory says one byte an entry; the content is 300 MB."""
    block = bytes(100 * 2**20)
    content = bytearray(archive(*((entry(f"zeros-{number}"), block) for number in range(3))))
    position = 0
    while (position := content.find(b"PK\x01\x02", position)) >= 0:
        struct.pack_into("<I", content, position + 24, 1)
        position += 4
    assert_refused(create_with_zip(server, bytes(content)), "InvalidParameterValueException", 400)


def test_code_over_the_direct_limit(server):
    content = archive((entry("app.py"), ECHO.encode())) + bytes(52_428_801)
    answer = create_with_zip(server, content)
    assert answer.code in {"RequestEntityTooLargeException", "InvalidParameterValueException"}
    assert answer.status in {413, 400}


def test_a_request_over_the_limit_is_refused_by_its_announced_length(server):
    with connect(server.port) as connection:
        connection.sendall(head("POST", FUNCTIONS, 70_167_212))
        answer = read_answer(connection)
    text = "Request must be smaller than 70167211 bytes for the CreateFunction operation"
    assert_refused(answer, "RequestEntityTooLargeException", 413, text)


def test_payload_over_6_mb(server):
    answer = send(server.port, "POST", f"{FUNCTIONS}/bystander/invocations", b'"' + b"x" * 6_291_456 + b'"')
    assert_refused(answer, "RequestTooLargeException", 413, "6291458 byte payload is too large for the RequestResponse invocation type")
    exact = b'"' + b"x" * (6_291_456 - 2) + b'"'
    assert send(server.port, "POST", f"{FUNCTIONS}/bystander/invocations", exact).body == exact


# Parameters


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"Runtime": "python2.6"}, "InvalidParameterValueException", "Value python2.6 at 'runtime' failed to satisfy constraint"),
        ({"Runtime": "cobol85"}, "InvalidParameterValueException", "Value cobol85 at 'runtime' failed to satisfy constraint"),
        ({"MemorySize": 127}, "ValidationException", f"Value '127' at 'memorySize' {BROKEN} have value greater than or equal to 128"),
        ({"MemorySize": 99_999}, "ValidationException", f"Value '99999' at 'memorySize' {BROKEN} have value less than or equal to"),
        ({"Timeout": 0}, "ValidationException", f"Value '0' at 'timeout' {BROKEN} have value greater than or equal to 1"),
        ({"Timeout": 99_999}, "ValidationException", f"Value '99999' at 'timeout' {BROKEN} have value less than or equal to"),
        ({"MemorySize": 20_000}, None, "emorySize"),
        ({"Timeout": 901}, None, "imeout"),
        ({"EphemeralStorage": {"Size": 511}}, "ValidationException", "Member must have value greater than or equal to 512"),
        ({"FunctionName": "a" * 65}, None, "64"),
        ({"FunctionName": "with space"}, "ValidationException", "Member must satisfy regular expression pattern"),
        ({"FunctionName": "../../etc"}, "ValidationException", "Member must satisfy regular expression pattern"),
        ({"FunctionName": ""}, "ValidationException", ""),
        ({"Role": "nobody"}, "ValidationException", "'role' failed to satisfy constraint: Member must satisfy regular expression pattern"),
        ({"Handler": "a b"}, "ValidationException", "'handler' failed to satisfy constraint"),
        ({"Role": None}, "ValidationException", "Value null at 'role' failed to satisfy constraint: Member must not be null"),
        ({"Code": None}, "ValidationException", "Value null at 'code' failed to satisfy constraint: Member must not be null"),
        ({"Code": {}}, "InvalidParameterValueException", ""),
        ({"Handler": None}, "InvalidParameterValueException", ""),
        ({"Runtime": None}, "InvalidParameterValueException", ""),
        ({"PackageType": "Tarball"}, "ValidationException", "Member must satisfy enum value set"),
        ({"Environment": {"Variables": {"AWS_REGION": "x"}}}, "InvalidParameterValueException", "used in this request: AWS_REGION"),
        ({"Environment": {"Variables": {"_HANDLER": "x"}}}, None, ""),
        ({"Environment": {"Variables": {"A1": "x" * 4_096}}}, "InvalidParameterValueException", "exceeded the 4KB limit"),
        ({"Environment": {"Variables": {"1bad": "x"}}}, "ValidationException", "Map keys must satisfy constraint"),
        ({"Tags": {str(number): "x" for number in range(51)}}, "InvalidParameterValueException", ""),
    ],
)  # fmt: skip
def test_parameters_out_of_range(server, changes, code, text):
    answer = create(server, **changes)
    assert answer.status == 400, answer
    assert answer.code in ({code} if code else {"ValidationException", "InvalidParameterValueException"}), answer
    assert text in answer.message


def test_several_mistakes_are_told_at_once(server):
    answer = create(server, MemorySize=1, Timeout=0)
    assert answer.message.startswith("2 validation errors detected: ")


def test_a_runtime_that_this_machine_lacks_names_the_interpreter(server):
    from lambent.runtimes.catalogue import Catalogue

    present = {interpreter.runtime for interpreter in Catalogue().interpreters()}
    lacking = [f"python3.{minor}" for minor in range(8, 15) if f"python3.{minor}" not in present]
    if not lacking:
        pytest.skip("every supported interpreter is installed here")
    answer = create(server, Runtime=lacking[0])
    assert (answer.code, answer.status) == ("InvalidParameterValueException", 400)
    assert lacking[0] in answer.message


@pytest.mark.parametrize(
    "changes",
    [
        {"MemorySize": "lots"},
        {"MemorySize": 128.5},
        {"MemorySize": True},
        {"Timeout": []},
        {"FunctionName": 7},
        {"Environment": "A=b"},
        {"Environment": {"Variables": ["A"]}},
        {"Environment": {"Variables": {"AA": {"b": 1}}}},
        {"Code": "zip"},
        {"Code": {"ZipFile": "not base64!"}},
        {"Tags": [1, 2]},
        {"Layers": {"a": 1}},
    ],
)
def test_wrong_types(server, changes):
    answer = create(server, **changes)
    assert answer.status == 400, answer
    assert answer.code in {"SerializationException", "ValidationException", "InvalidParameterValueException"}


def test_unknown_members_are_ignored_as_on_aws(server):
    answer = create(server, Nonsense={"deep": [1, 2, 3]})
    assert answer.status == 201
    api = server.client("lambda")
    settle(api, "bad")
    api.delete_function(FunctionName="bad")


@pytest.mark.parametrize("body", [b"{", b"[]", b'"text"', b"null", b"\xff\xfe", b'{"a":' * 20_000, b'{"FunctionName": 1e999}', b"NaN"])
def test_bodies_that_are_no_document(server, body):
    answer = send(server.port, "POST", FUNCTIONS, body)
    assert answer.status == 400, answer
    assert answer.code in {"SerializationException", "ValidationException", "InvalidParameterValueException"}


@pytest.mark.parametrize("payload", [b"{", b"\x87", b"nope", b"{} {}", b"'x'", b"[" * 200_000])
def test_payloads_that_are_no_json(server, payload):
    answer = send(server.port, "POST", f"{FUNCTIONS}/bystander/invocations", payload)
    assert_refused(answer, "InvalidRequestContentException", 400, "Could not parse request body into json")


def test_events_that_are_said_to_be_something_else(server):
    path = f"{FUNCTIONS}/bystander/invocations"
    for kind in ("text/plain", "TEXT/html; charset=utf-8", "application/xml", "image/svg+xml", "multipart/form-data; boundary=x"):
        answer = send(server.port, "POST", path, b"{}", Content_Type=kind)
        assert (answer.status, answer.code) == (415, "UnsupportedMediaTypeException"), kind
        assert answer.json()["Type"] == "User"
        streamed = send(server.port, "POST", "/2021-11-15/functions/bystander/response-streaming-invocations", b"{}", Content_Type=kind)
        assert streamed.status == 415
    usual = (
        "application/json; charset=utf-8",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "application/x-amz-json-1.1",
    )
    for kind in (None, *usual):
        assert send(server.port, "POST", path, b"{}", Content_Type=kind).status == 200, kind


def test_odd_invocation_headers(server):
    path = f"{FUNCTIONS}/bystander/invocations"
    assert send(server.port, "POST", path, b"{}", X_Amz_Invocation_Type="Sometimes").status == 400
    assert send(server.port, "POST", path, b"{}", X_Amz_Log_Type="Everything").status == 400
    assert send(server.port, "POST", path, b"{}", X_Amz_Client_Context="!!!").status == 400
    assert send(server.port, "POST", path, b"{}", X_Amz_Client_Context=base64.b64encode(b"x" * 4_000).decode()).status == 400


# Paths


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nothing",
        "/2015-03-31/functions/../../../etc/passwd",
        f"{FUNCTIONS}/{urllib.parse.quote('../../etc/passwd', safe='')}",
        f"{FUNCTIONS}/{urllib.parse.quote('a/b', safe='')}/configuration",
        f"{FUNCTIONS}/%00/configuration",
        f"{FUNCTIONS}/%ff%fe",
        f"{FUNCTIONS}/{'a' * 2_000}",
        f"{FUNCTIONS}/arn:aws:lambda:us-east-1:000000000000:function:..%2F..%2Fx",
        "//2015-03-31//functions",
        f"{FUNCTIONS}/%zz",
        "/_lambent/../2015-03-31/functions/x",
        "/_lambent/code/../../state.db",
        "/_lambent/code/%2e%2e%2fstate.db?expires=9999999999&token=x",
        "/_lambent/story/%00",
        f"{FUNCTIONS}/bystander:{'9' * 200}",
    ],
)
def test_path_tricks(server, path):
    answer = send(server.port, "GET", path)
    assert 400 <= answer.status < 500, answer
    assert b"root:" not in answer.body
    assert b"SQLite" not in answer.body


def test_wrong_methods(server):
    for method in ("PATCH", "TRACE", "PROPFIND"):
        assert 400 <= send(server.port, method, FUNCTIONS).status < 500


def test_another_region_and_another_account_in_an_arn(server):
    other_region = send(server.port, "GET", f"{FUNCTIONS}/arn:aws:lambda:eu-west-1:000000000000:function:bystander")
    assert (other_region.code, other_region.status) == ("ResourceNotFoundException", 404)
    other_account = send(server.port, "GET", f"{FUNCTIONS}/arn:aws:lambda:us-east-1:111111111111:function:bystander")
    assert (other_account.code, other_account.status) == ("AccessDeniedException", 403)


# Connections


def test_garbage_instead_of_http(server):
    for garbage in GARBAGE:
        with connect(server.port) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            assert read_answer(connection).status in {0, 400}


def test_header_floods(server):
    many = {f"X_Flood_{number}": "x" * 1_000 for number in range(1_040)}
    assert send(server.port, "GET", FUNCTIONS, **many).status in {0, 400, 413, 431}
    assert send(server.port, "GET", FUNCTIONS, X_Long="x" * 2_000_000).status in {0, 400, 413, 431}
    assert send(server.port, "GET", FUNCTIONS + "?" + "a" * 2_000_000).status in {0, 400, 413, 414, 431}


def test_an_endless_header_is_cut_off(server):
    with connect(server.port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX-Endless: ")
        sent = 0
        try:
            while sent < 64 * 2**20:
                sent += connection.send(b"x" * 65_536)
        except OSError:
            pass
        assert sent < 64 * 2**20


def test_a_half_closed_client_still_gets_its_answer(server):
    body = b'{"half": "closed"}'
    with connect(server.port) as connection:
        connection.sendall(head("POST", f"{FUNCTIONS}/bystander/invocations", len(body)) + body)
        connection.shutdown(socket.SHUT_WR)
        answer = read_answer(connection)
    assert (answer.status, answer.body) == (200, body)


def test_a_client_that_leaves_in_the_middle_of_its_body(server):
    with connect(server.port) as connection:
        connection.sendall(head("POST", FUNCTIONS, 1_000_000) + b"x" * 1_000)
    with connect(server.port) as connection:
        connection.sendall(head("POST", FUNCTIONS, 1_000_000) + b"x" * 1_000)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # leaves with a reset


def test_a_client_that_leaves_before_its_answer(server):
    for _ in range(5):
        with connect(server.port) as connection:
            connection.sendall(head("POST", f"{FUNCTIONS}/bystander/invocations", 2) + b"{}")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_slow_clients_do_not_hold_up_others(server):
    slow = [connect(server.port) for _ in range(200)]
    try:
        for number, connection in enumerate(slow):
            connection.sendall(head("POST", f"{FUNCTIONS}/bystander/invocations", 100)[: 10 + number])
        body = b'{"not": "held up"}'
        assert send(server.port, "POST", f"{FUNCTIONS}/bystander/invocations", body).body == body
    finally:
        for connection in slow:
            connection.close()


def test_who_does_not_read_is_not_answered_further(server):
    """Requests sent ahead of their answers: the server must not hold answers without end for a client that never fetches them."""
    body = b'"' + b"x" * 6_000_000 + b'"'
    request = head("POST", f"{FUNCTIONS}/bystander/invocations", len(body)) + body
    before, sent = resident(server), 0
    with connect(server.port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.settimeout(3)
        with contextlib.suppress(TimeoutError):
            while sent < 60:
                connection.sendall(request)
                sent += 1
        assert sent < 60
        assert resident(server) - before < 250 << 20
    with connect(server.port) as connection:
        threading.Thread(target=_send_and_close, args=(connection, request * 8), daemon=True).start()
        answers = connection.makefile("rb").read()
        assert answers.count(b"HTTP/1.1 200 OK\r\n") == 8
        assert answers.count(body) == 8


def _send_and_close(connection: socket.socket, data: bytes) -> None:
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def test_a_body_byte_by_byte(server):
    body = b'{"slow": true}'
    with connect(server.port) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in head("POST", f"{FUNCTIONS}/bystander/invocations", len(body)) + body:
            connection.sendall(bytes([byte]))
        assert read_answer(connection).body == body


def test_chunked_and_pipelined_requests(server):
    path = f"{FUNCTIONS}/bystander/invocations"
    with connect(server.port) as connection:
        connection.sendall(head("POST", path, Transfer_Encoding="chunked") + b'5\r\n{"a":\r\n3\r\n 1}\r\n0\r\n\r\n')
        assert json.loads(read_answer(connection).body) == {"a": 1}
        connection.sendall(head("POST", path, 1) + b"1" + head("POST", path, 1) + b"2")
        data = b""
        while data.count(b"\r\n\r\n") < 2 or data.endswith(b"\n"):  # both answers may come at once
            data += connection.recv(65_536)
    first, second = data.split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert (first[-5:], second[-5:]) == (b"\r\n\r\n1", b"\r\n\r\n2")


def test_requests_sent_ahead_are_answered_in_order_by_one_environment(server):
    path, count = f"{FUNCTIONS}/bystander/invocations", 40
    before = len(server.page("environments")["environments"])
    with connect(server.port) as connection:
        for half in (range(count // 2), range(count // 2, count)):
            connection.sendall(b"".join(head("POST", path, 2) + b"%d" % (10 + number) for number in half))
        connection.shutdown(socket.SHUT_WR)
        answers = connection.makefile("rb").read().split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert [int(answer.rpartition(b"\r\n\r\n")[2]) for answer in answers] == [10 + number for number in range(count)]
    assert len(server.page("environments")["environments"]) == before


def test_an_absolute_address_is_as_good_as_a_path(server):
    for address in ("http://127.0.0.1:4566", "HTTPS://lambda.us-east-1.amazonaws.com"):
        assert send(server.port, "POST", f"{address}{FUNCTIONS}/bystander/invocations", b"[1]").body == b"[1]"
    assert send(server.port, "GET", "http://127.0.0.1:4566").status == 404


def test_many_headers_of_one_name(server):
    with connect(server.port) as connection:
        connection.sendall(head("GET", FUNCTIONS)[:-2] + b"a:b\r\n" * 160_000 + b"\r\n")
        assert read_answer(connection).status == 200


@pytest.mark.parametrize("flood", [b"a: b\r\n", b"x" * 6], ids=["many", "one"])
def test_endless_trailers_are_cut_off(server, flood):
    """They are no part of the head, so its limit alone would not hold them."""
    path, sent = f"{FUNCTIONS}/bystander/invocations", 0
    with connect(server.port) as connection:
        connection.sendall(head("POST", path, Transfer_Encoding="chunked") + b"2\r\n{}\r\n0\r\n" + b"x: ")
        with contextlib.suppress(OSError):
            while sent < 64 * 2**20:
                sent += connection.send(flood * 10_000)
        assert sent < 64 * 2**20
    assert send(server.port, "POST", path, b"1").body == b"1"


def test_an_endless_extension_of_a_chunk_is_cut_off(server):
    with connect(server.port) as connection:
        connection.sendall(head("POST", f"{FUNCTIONS}/bystander/invocations", Transfer_Encoding="chunked") + b"2;x=")
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 64 * 2**20:
                sent += connection.send(b"x" * 65_536)
        assert sent < 64 * 2**20


def test_trailers_are_no_headers(server):
    request = head("POST", f"{FUNCTIONS}/bystander/invocations", Transfer_Encoding="chunked")
    with connect(server.port) as connection:
        for _ in range(3):
            connection.sendall(request + b"1\r\n1\r\n0\r\nX-Amz-Invocation-Type: DryRun\r\n\r\n")
            assert read_answer(connection).status == 200


def test_a_body_in_chunks_of_two_bytes_takes_no_more_than_itself(server):
    before = resident(server)
    with connect(server.port) as connection:
        connection.sendall(head("POST", f"{FUNCTIONS}/bystander/invocations", Transfer_Encoding="chunked"))
        for _ in range(20):
            connection.sendall(b"2\r\n11\r\n" * 200_000)
        assert resident(server) - before < 60 * 2**20
        connection.sendall(b"0\r\n\r\n")
        assert read_answer(connection).code == "RequestTooLargeException"


def resident(server) -> int:
    with open(f"/proc/{server.pid}/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmRSS"))


def test_lengths_that_contradict(server):
    path = f"{FUNCTIONS}/bystander/invocations"
    with connect(server.port) as connection:
        connection.sendall(head("POST", path, 5, Transfer_Encoding="chunked") + b"0\r\n\r\n")
        assert read_answer(connection).status in {0, 200, 400}
    for length in ("-1", "abc", "99999999999999999999", "1,2"):
        with connect(server.port) as connection:
            connection.sendall(head("POST", path, Content_Length=length) + b"{}")
            connection.shutdown(socket.SHUT_WR)
            assert read_answer(connection).status in {0, 400, 413}

"""``lambent backup`` and ``lambent restore``: a server under load is saved, and what was saved lives on elsewhere, whole."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from acceptance_helpers import ROLE, RUNTIME, call, settle, stop_cleanly, zipped

from lambent.testing.local_server import LocalServer
from lambent.testing.postgres_server import PostgresServer

_LAMBENT = Path(sys.executable).with_name("lambent")
_SOURCE = "def handler(event, context):\n    print('line', event)\n    return ['%s', event]\n"
_LATER = """
import os, time, urllib.error, urllib.request

CREDENTIAL = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"

def handler(event, context):
    request = urllib.request.Request(os.environ["AWS_ENDPOINT_URL"] + "/kept/go", headers={"Authorization": CREDENTIAL})
    while True:
        try:
            urllib.request.urlopen(request)
            break
        except urllib.error.HTTPError:
            time.sleep(0.05)
    print('handled', event['n'])
"""


def lambent(*words: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command with its output piped."""
    done = subprocess.run([str(_LAMBENT), *words], env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def create(api: Any, name: str, word: str, source: str = _SOURCE, **options: Any) -> None:
    code = {"ZipFile": zipped({"app.py": source % word if "%s" in source else source})}
    api.create_function(FunctionName=name, Runtime=RUNTIME, Role=ROLE, Handler="app.handler", Code=code, **options)
    settle(api, name)


def wait(done: Callable[[], bool], pause: float = 0.02) -> None:
    """Until it is done."""
    never = threading.Event()
    while not done():
        never.wait(pause)


@dataclass
class Ledger:
    """What clients were told before the backup was asked for."""

    sent: list[str] = field(default_factory=list)
    put: dict[str, str] = field(default_factory=dict)
    published: dict[str, str] = field(default_factory=dict)  # version -> the word that it answers with
    events: list[int] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


class Load:
    """Clients that change everything all the time. ``told`` is what they were told up to a moment."""

    def __init__(self, server: LocalServer, url: str) -> None:
        self._server = server
        self._url = url
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.ledger = Ledger()
        self.turns = dict.fromkeys(("messages", "objects", "versions", "events"), 0)
        self._threads = [threading.Thread(target=self._run, args=(name,)) for name in self.turns]
        self.troubles: list[BaseException] = []

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert self.troubles == []

    def wait(self, turns: int) -> None:
        """Until every client has had so many more turns."""
        until = {name: done + turns for name, done in self.turns.items()}
        wait(lambda: bool(self.troubles) or all(self.turns[name] >= until[name] for name in until))

    def told(self) -> Ledger:
        with self._lock:
            ledger = self.ledger
            return Ledger(list(ledger.sent), dict(ledger.put), dict(ledger.published), list(ledger.events), list(ledger.lines))

    def _run(self, name: str) -> None:
        turn = getattr(self, f"_{name}")(self._server)
        try:
            while not self._stop.is_set():
                next(turn)
                self.turns[name] += 1
        except BaseException as error:  # told in the test's own thread
            self.troubles.append(error)

    def _messages(self, server: LocalServer) -> Any:
        sqs, number = server.client("sqs"), 0
        while True:
            number += 1
            sqs.send_message(QueueUrl=self._url, MessageBody=f"m{number}")
            with self._lock:
                self.ledger.sent.append(f"m{number}")
            yield

    def _objects(self, server: LocalServer) -> Any:
        """Every key's content is overwritten again and again, so segments come and go; and some are removed."""
        s3, number = server.client("s3"), 0
        while True:
            number += 1
            key = f"k{number % 5}"
            s3.put_object(Bucket="kept", Key=key, Body=f"{key} {number} ".encode() * 2_000, Metadata={"number": str(number)})
            with self._lock:
                self.ledger.put[key] = str(number)
            s3.put_object(Bucket="kept", Key="passing", Body=b"x" * 1_000)
            s3.delete_object(Bucket="kept", Key="passing")
            yield

    def _versions(self, server: LocalServer) -> Any:
        api, number = server.client("lambda"), 0
        while True:
            number += 1
            answer = api.update_function_code(FunctionName="many", ZipFile=zipped({"app.py": _SOURCE % f"word {number}"}), Publish=True)
            with self._lock:
                self.ledger.published[answer["Version"]] = f"word {number}"
            settle(api, "many")
            assert call(api, "many", number, Qualifier=answer["Version"])[0] == [f"word {number}", number]
            with self._lock:
                self.ledger.lines.append(f"line {number}\n")
            yield

    def _events(self, server: LocalServer) -> Any:
        api, number = server.client("lambda"), 0
        while True:
            number += 1
            if number > 10:  # enough; each will be waited for
                self._stop.wait(0.02)
                yield
                continue
            api.invoke(FunctionName="later", InvocationType="Event", Payload=json.dumps({"n": number}))
            with self._lock:
                self.ledger.events.append(number)
            yield


@dataclass
class Saved:
    """A backup, what had been acknowledged when it was asked for, and what had been when it was there."""

    file: Path
    before: Ledger
    after: Ledger
    said: str


def fill(server: LocalServer) -> str:
    """Something of everything; gives the URL of the queue that the load writes to."""
    api, sqs, s3 = server.client("lambda"), server.client("sqs"), server.client("s3")
    create(api, "many", "first", Publish=True, Description="versions", Tags={"kept": "yes"}, Environment={"Variables": {"WORD": "ü"}})
    api.create_alias(FunctionName="many", Name="live", FunctionVersion="1")
    create(api, "later", "", _LATER, Timeout=60)  # one event is held by it, the others wait
    api.put_function_concurrency(FunctionName="later", ReservedConcurrentExecutions=1)
    url = sqs.create_queue(QueueName="load")["QueueUrl"]
    held = sqs.create_queue(QueueName="held", Attributes={"VisibilityTimeout": "0"})["QueueUrl"]
    sqs.send_message(QueueUrl=held, MessageBody="seen once")
    assert sqs.receive_message(QueueUrl=held)["Messages"][0]["Body"] == "seen once"
    fifo = sqs.create_queue(QueueName="order.fifo", Attributes={"FifoQueue": "true", "ContentBasedDeduplication": "true"})["QueueUrl"]
    for number in range(5):
        sqs.send_message(QueueUrl=fifo, MessageBody=str(number), MessageGroupId="g")
    s3.create_bucket(Bucket="kept")
    s3.put_object(Bucket="kept", Key="big", Body=os.urandom(3_000_000))
    s3.create_bucket(Bucket="old")
    s3.put_bucket_versioning(Bucket="old", VersioningConfiguration={"Status": "Enabled"})
    for number in range(3):
        s3.put_object(Bucket="old", Key="k", Body=str(number).encode())
    return url


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A backup that was taken of a server while clients changed everything."""
    file = tmp_path_factory.mktemp("backup") / "state.tar"
    with LocalServer() as server:
        with Load(server, fill(server)) as load:
            load.wait(3)
            before = load.told()
            said = lambent("backup", str(file), "--endpoint", server.endpoint).stdout
            after = load.told()
            load.wait(1)  # it goes on
        server.kill()
    assert file.stat().st_mode & 0o777 == 0o600
    return Saved(file, before, after, said)


def check(server: LocalServer, saved: Saved) -> None:
    """All that had been acknowledged when the backup was asked for is there, nothing in halves, and it runs. Events run only once."""
    api, sqs, s3, logs = (server.client(name) for name in ("lambda", "sqs", "s3", "logs"))
    configuration = api.get_function_configuration(FunctionName="many")
    assert configuration["Description"] == "versions"
    assert configuration["Environment"] == {"Variables": {"WORD": "ü"}}
    assert api.list_tags(Resource=configuration["FunctionArn"])["Tags"] == {"kept": "yes"}
    assert call(api, "many", "x", Qualifier="live")[0] == ["first", "x"]
    versions = {item["Version"] for item in api.list_versions_by_function(FunctionName="many")["Versions"]}
    assert set(saved.before.published) <= versions
    for version, word in list(saved.before.published.items())[-2:]:
        assert call(api, "many", 1, Qualifier=version)[0] == [word, 1]
    word = call(api, "many", 1)[0][0]  # $LATEST is what the last published one is, or the next one on its way
    numbers = [int(text.split()[1]) for text in saved.before.published.values()]
    assert int(word.split()[1]) >= max(numbers)

    peeked = bodies(sqs, "load")
    assert peeked[: len(saved.before.sent)] == saved.before.sent
    assert peeked == [f"m{number}" for number in range(1, len(peeked) + 1)]  # no gap up to the moment of the snapshot
    assert len(peeked) <= len(saved.after.sent) + 1
    assert bodies(sqs, "order.fifo") == [str(number) for number in range(5)]
    held = sqs.get_queue_url(QueueName="held")["QueueUrl"]
    (message,) = sqs.receive_message(QueueUrl=held, VisibilityTimeout=0, AttributeNames=["All"])["Messages"]
    assert int(message["Attributes"]["ApproximateReceiveCount"]) >= 2

    for key, least in saved.before.put.items():
        answer = s3.get_object(Bucket="kept", Key=key)
        number = answer["Metadata"]["number"]
        assert int(number) >= int(least)
        assert answer["Body"].read() == f"{key} {number} ".encode() * 2_000
    assert len(s3.get_object(Bucket="kept", Key="big")["Body"].read()) == 3_000_000
    old = s3.list_object_versions(Bucket="old")["Versions"]
    assert [s3.get_object(Bucket="old", Key="k", VersionId=item["VersionId"])["Body"].read() for item in old] == [b"2", b"1", b"0"]

    said = messages_of(logs, "/aws/lambda/many")
    assert set(saved.before.lines) <= set(said)
    s3.put_object(Bucket="kept", Key="go", Body=b"")
    expected = {f"handled {number}\n" for number in saved.before.events}
    wait(lambda: expected <= set(messages_of(logs, "/aws/lambda/later")))


def bodies(sqs: Any, name: str) -> list[str]:
    """All messages of a queue; they are visible again afterwards."""
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    found = []
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=600).get("Messages"):
        found += messages
    for start in range(0, len(found), 10):
        entries = [
            {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 0}
            for number, message in enumerate(found[start : start + 10])
        ]
        sqs.change_message_visibility_batch(QueueUrl=url, Entries=entries)
    return sorted((message["Body"] for message in found), key=lambda body: (len(body), body))


def messages_of(logs: Any, group: str) -> list[str]:
    try:
        pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group)
        return [event["message"] for page in pages for event in page["events"]]
    except logs.exceptions.ResourceNotFoundException:
        return []


def other(server: LocalServer) -> None:
    """A state that has something in the same places."""
    api, sqs, s3 = server.client("lambda"), server.client("sqs"), server.client("s3")
    create(api, "many", "another")
    create(api, "mine", "mine")
    assert call(api, "many", 1)[0] == ["another", 1]  # warm
    sqs.send_message(QueueUrl=sqs.create_queue(QueueName="load")["QueueUrl"], MessageBody="mine")
    s3.create_bucket(Bucket="mine")
    s3.put_object(Bucket="mine", Key="k", Body=b"mine")


def is_other(server: LocalServer) -> bool:
    """Whether all is as ``other`` left it (true), or nothing of it is there (false); a mix fails."""
    api, sqs, s3, logs = (server.client(name) for name in ("lambda", "sqs", "s3", "logs"))
    found = [
        [item["FunctionName"] for item in api.list_functions()["Functions"]] == ["many", "mine"],
        [item["Name"] for item in s3.list_buckets()["Buckets"]] == ["mine"],
        [url.rpartition("/")[2] for url in sqs.list_queues()["QueueUrls"]] == ["load"],
        messages_of(logs, "/aws/lambda/later") == [] and len([m for m in messages_of(logs, "/aws/lambda/many") if m == "line 1\n"]) == 1,
    ]
    assert len(set(found[:3])) == 1, found
    if found[0]:
        assert found[3]
        assert call(api, "mine", 1)[0] == ["mine", 1]
        assert bodies(sqs, "load") == ["mine"]
        assert s3.get_object(Bucket="mine", Key="k")["Body"].read() == b"mine"
    return found[0]


def test_the_command_says_what_it_has_saved(saved: Saved) -> None:
    assert re.search(r"\d+ documents, \d+ messages, \d+ packages \(.*\), \d+ objects \(.*\), logs, taken \d{4}-", saved.said), saved.said
    assert "documents" in lambent("restore", str(saved.file), "--check").stdout


def test_an_empty_folder_becomes_a_server_and_moves_to_postgresql_and_back(tmp_path: Path, saved: Saved, database: PostgresServer) -> None:
    into = ["--data-dir", str(tmp_path / "pg"), "--database", database.dsn]
    lambent("restore", str(saved.file), *into)
    file = tmp_path / "again.tar"
    with LocalServer(tmp_path / "pg", arguments=["--database", database.dsn]) as server:
        check(server, saved)
        lambent("backup", str(file), "--endpoint", server.endpoint)
        server.client("lambda").delete_function(FunctionName="many")
        lambent("restore", str(file), "--endpoint", server.endpoint)  # a running server on PostgreSQL
        assert call(server.client("lambda"), "many", "x", Qualifier="live")[0] == ["first", "x"]
        stop_cleanly(server)
    lambent("restore", str(file), "--data-dir", str(tmp_path / "back"))
    assert "exists already" in lambent("restore", str(file), "--data-dir", str(tmp_path / "back"), code=1).stderr
    with LocalServer(tmp_path / "back") as server:
        assert call(server.client("lambda"), "many", "x", Qualifier="live")[0] == ["first", "x"]
        assert bodies(server.client("sqs"), "load")[: len(saved.before.sent)] == saved.before.sent
        assert len(server.client("s3").get_object(Bucket="kept", Key="big")["Body"].read()) == 3_000_000
        assert set(saved.before.lines) <= set(messages_of(server.client("logs"), "/aws/lambda/many"))
        stop_cleanly(server)


def test_a_running_server_takes_the_state_of_another_or_keeps_its_own(tmp_path: Path, saved: Saved) -> None:
    with LocalServer(tmp_path / "data") as server:
        other(server)
        refuse_what_is_no_whole_backup(server, tmp_path, saved)
        kill_while_it_takes(server, saved)
        assert is_other(server)
        pid, began = server.pid, server.health()["startedAt"]
        answer = lambent("restore", str(saved.file), "--endpoint", server.endpoint, "--yes")
        assert "has started again" in answer.stderr
        assert server.pid == pid
        assert server.health()["startedAt"] > began
        assert not is_other(server)
        check(server, saved)
        assert not (server.data_dir / "restore").exists()
        stop_cleanly(server)


def refuse_what_is_no_whole_backup(server: LocalServer, folder: Path, saved: Saved) -> None:
    data = saved.file.read_bytes()
    cut = folder / "cut.tar"
    cut.write_bytes(data[: len(data) // 2])
    assert "cut off" in lambent("restore", str(cut), "--yes", "--endpoint", server.endpoint, code=1).stderr
    for body, said in ((cut.read_bytes(), "cut off"), (b"no backup\n" * 500, "no backup of Lambent")):  # the server looks for itself
        answer = put(server, body, {"x-lambent-admin": "1"})
        assert answer[0] == 400
        assert said in answer[1]
        assert "nothing has been changed" in answer[1]
    assert is_other(server)
    assert not (server.data_dir / "restore").exists()


def kill_while_it_takes(server: LocalServer, saved: Saved) -> None:
    """The archive is all but there when the server dies."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.putrequest("PUT", "/_lambent/restore")
    connection.putheader("content-length", str(saved.file.stat().st_size))
    connection.putheader("x-lambent-admin", "1")
    connection.endheaders()
    connection.send(saved.file.read_bytes()[:-3_000])
    wait((server.data_dir / "restore" / "new" / "objects").exists, 0.001)
    server.kill()
    connection.close()
    server.start()
    assert not (server.data_dir / "restore").exists()


def test_a_server_that_dies_when_a_restore_is_decided_starts_with_the_new_state(tmp_path: Path, saved: Saved) -> None:
    """Every single step of a restore is died at in tests/states/test_store_backup.py."""
    with LocalServer(tmp_path / "data") as server:
        other(server)
        command = [str(_LAMBENT), "restore", str(saved.file), "--endpoint", server.endpoint, "-y"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as restoring:
            wait(lambda: (server.data_dir / "restore" / "ready.json").exists() or restoring.poll() is not None, 0.001)
            server.kill()
            restoring.kill()
        server.start()
        assert not is_other(server)
        assert call(server.client("lambda"), "many", "x", Qualifier="live")[0] == ["first", "x"]


def put(server: LocalServer, body: bytes, headers: dict[str, str], method: str = "PUT", page: str = "restore") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(method, f"/_lambent/{page}", body or None, headers)
    answer = connection.getresponse()
    said = answer.status, answer.read().decode(errors="replace")
    connection.close()
    return said


_THIEF = """
import json, os, urllib.error, urllib.request

def handler(event, context):
    told = []
    for url in (os.environ["AWS_ENDPOINT_URL"], "http://127.0.0.1:%s"):
        for method, page in (("GET", "backup"), ("PUT", "restore")):
            request = urllib.request.Request(f"{url}/_lambent/{page}", method=method, headers={"x-lambent-admin": "1"})
            request.data = b"x" * 2000 if method == "PUT" else None
            try:
                told.append(urllib.request.urlopen(request, timeout=20).status)
            except urllib.error.HTTPError as error:
                told.append(error.code)
    return told
"""


_SIGNED = """
auth = "signature"

[[credentials]]
access_key = "AKIAEXAMPLEEXAMPLE01"
secret_key = "secret"
account = "123456789012"
"""


def test_only_the_owner_may(tmp_path: Path, saved: Saved) -> None:
    with LocalServer(tmp_path / "open") as server:
        answer = lambent("backup", str(tmp_path / "missing" / "x.tar"), "--endpoint", server.endpoint, code=1)
        assert "No such file" in answer.stderr
        backup = {"method": "GET", "page": "backup"}
        assert put(server, b"", {}, **backup)[0] == 403  # what a web page could send
        assert put(server, b"", {"x-lambent-admin": "1", "host": "evil.example"}, **backup)[0] == 403
        assert put(server, b"x", {})[0] == 403
        assert put(server, b"", {"x-lambent-admin": "1"}, **backup)[0] == 200
        create(server.client("lambda"), "thief", str(server.port), _THIEF)
        assert call(server.client("lambda"), "thief")[0] == [403] * 4
        stop_cleanly(server)
    config = tmp_path / "lambent.toml"
    config.write_text(_SIGNED)
    with LocalServer(tmp_path / "signed", config=config) as server:
        file = str(tmp_path / "signed.tar")
        assert put(server, b"", {"x-lambent-admin": "1"}, **backup)[0] == 403
        lambent("backup", file, "--endpoint", server.endpoint, code=1)
        assert not Path(file).exists()
        keys = {"LAMBENT_ACCESS_KEY_ID": "AKIAEXAMPLEEXAMPLE01", "LAMBENT_SECRET_ACCESS_KEY": "secret"}
        lambent("backup", file, "--endpoint", server.endpoint, **keys)
        lambent("restore", file, "--endpoint", server.endpoint, **keys)
        stop_cleanly(server)


def test_no_server_is_one_friendly_line(tmp_path: Path, saved: Saved) -> None:
    for words in (["backup", str(tmp_path / "x.tar")], ["restore", str(saved.file), "-y"]):
        answer = lambent(*words, "--endpoint", "http://127.0.0.1:9", code=1)
        assert "lambent up" in answer.stderr
        assert list(tmp_path.iterdir()) == []

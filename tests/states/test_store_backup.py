"""The archive that a backup is, and how it becomes the state: whole, or not at all."""

import asyncio
import contextlib
import gzip
import io
import json
import random
import shutil
import sqlite3
import tarfile

import pytest

from lambent.cli.backup import check
from lambent.objects.checksums import Digests
from lambent.objects.records import WITH_SEGMENTS, segments_named
from lambent.objects.segments import Segments
from lambent.store import backup_archive
from lambent.store.backup import Parts, backup
from lambent.store.backup_archive import ArchiveReader, ArchiveWriter, BadArchive, first_member, pack
from lambent.store.backup_restore import Staging, finish, holds_state
from lambent.store.blobs import FileBlobs
from lambent.store.contract import Append, Enqueue, Put, StoreUnavailable
from lambent.store.file_lock import StoreInUse
from lambent.store.schema import SchemaTooNew, migrate
from lambent.store.sqlite import SqliteStore
from lambent.testing.clock import ManualClock

HEAD = {"lambent": "0.1", "taken": 1_767_225_600.0}


async def pieces(data, size=70_000):
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def bytes_of(*parts):
    for part in parts:
        yield part


class House:
    """A data directory with something of everything, as a server that is open has it."""

    def __init__(self, folder, number=1):
        self.folder = folder
        self.number = number
        self.full = False
        self.clock = ManualClock()
        self.store = SqliteStore(folder / "lambent.sqlite", self.clock)
        self.blobs = FileBlobs(folder / "blobs")
        self.segments = Segments(folder / "objects", self.clock)

    async def __aenter__(self):
        await self.store.open()
        await self.blobs.open()
        await self.segments.open()
        return self

    async def __aexit__(self, *_):
        self.segments.close()
        await self.store.close()

    async def fill(self):
        n = self.number
        self.blob = await self.blobs.put(b"package %d" % n + random.Random(n).randbytes(5_000))
        self.segment = await self.segments.write(bytes_of(b"object ", b"%d" % n), Digests(()), 100)
        document = {"segments": [[self.segment.id, self.segment.size]]}
        await self.store.commit(
            Put("function", "f", {"sha256": self.blob}), Put("s3-object", "b/k", document), Append("t", b"%d" % n), Enqueue("q", b"%d" % n)
        )
        (self.folder / "logs").mkdir(exist_ok=True)
        with contextlib.closing(sqlite3.connect(self.folder / "logs" / "logs.sqlite", isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            migrate(connection, "logs_", 1.0)
            connection.execute("INSERT INTO log_groups (id, account, region, name, created) VALUES (?, 'a', 'r', 'g', 1)", (n,))

    def parts(self):
        async def flush():
            if self.full:
                raise StoreUnavailable("the disk is full")

        logs = self.folder / "logs" / "logs.sqlite"
        return Parts(self.store, self.blobs, self.segments, segments_named, WITH_SEGMENTS, logs, flush)

    async def save(self):
        return b"".join([piece async for piece in backup(self.parts(), HEAD)])


def made(folder, number):
    """A closed data directory, and its archive."""

    async def main():
        async with House(folder, number) as house:
            await house.fill()
            return await house.save()

    return asyncio.run(main())


def content(folder):
    """What is in a data directory, as a server sees it that starts on it: the number that it was filled with, read in every part."""

    async def main():
        numbers = {}
        async with House(folder) as house:
            record = await house.store.get("function", "f")
            blob = await house.blobs.get(record.value["sha256"])
            numbers["blobs"] = blob.split()[1][:1]
            ((segment, size),) = (await house.store.get("s3-object", "b/k")).value["segments"]
            with house.segments.open_file(segment) as file:
                data = file.read()
            assert len(data) == size
            numbers["objects"] = data[-1:]
            numbers["entries"] = (await house.store.read("t"))[0].body
            numbers["messages"] = (await house.store.peek("q"))[0].body
        with contextlib.closing(sqlite3.connect(folder / "logs" / "logs.sqlite")) as connection:
            numbers["logs"] = b"%d" % connection.execute("SELECT id FROM log_groups").fetchone()[0]
        return numbers

    return asyncio.run(main())


def all_of(number):
    return dict.fromkeys(("blobs", "objects", "entries", "messages", "logs"), b"%d" % number)


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def stage(folder, data, size=70_000, staging=Staging):
    """Take an archive in and commit it."""

    async def main():
        staged = staging(folder, "", ManualClock())
        contents = await staged.take(ArchiveReader(pieces(data, size)))
        staged.commit()
        return contents

    return asyncio.run(main())


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The archive of state 1."""
    return made(tmp_path_factory.mktemp("one"), 1)


@pytest.fixture(scope="module")
def _second(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    made(folder, 2)
    return folder


@pytest.fixture
def state(tmp_path, _second):
    """A data directory with state 2."""
    shutil.copytree(_second, tmp_path / "data")
    return tmp_path / "data"


# -- what is written


def test_an_archive_is_a_plain_tar_file(archive):
    with tarfile.open(fileobj=io.BytesIO(archive)) as file:
        names = file.getnames()
        assert json.load(file.extractfile(names[0])) == {"format": 1, **HEAD}
        end = json.load(file.extractfile(names[-1]))
        rows = gzip.decompress(file.extractfile("store/000001.jsonl.gz").read()).splitlines()
    assert names[0] == "lambent-backup.json"
    assert names[-1] == "end.json"
    assert [name.partition("/")[0] for name in names[1:-1]] == ["store", "blobs", "objects", "logs"]
    assert (end["documents"], end["entries"], end["messages"], end["blobs"], end["objects"]) == (2, 1, 1, 1, 1)
    assert end["objectBytes"] == 8
    assert end["missing"] == []
    assert json.loads(rows[0])[:2] == ["d", "function"]


def test_what_is_removed_while_a_backup_runs_is_in_it(tmp_path):
    async def main():
        async with House(tmp_path / "data") as house:
            await house.fill()
            got = []
            async for piece in backup(house.parts(), HEAD):
                got.append(piece)
                if len(got) == 2:  # the rows of the store are out
                    await house.blobs.delete(house.blob)
                    house.segments.discard([house.segment])
                    house.clock.advance(60)
            assert await house.blobs.get(house.blob) is None
            assert await house.blobs.held() == []
            return b"".join(got)

    data = asyncio.run(main())
    stage(tmp_path / "new", data)
    assert finish(tmp_path / "new", "")
    assert content(tmp_path / "new") == all_of(1)


def test_a_blob_that_goes_between_the_snapshot_and_the_list_is_in_it(tmp_path):
    async def main():
        async with House(tmp_path / "data") as house:
            await house.fill()

            class Racing(FileBlobs):
                async def addresses(self):
                    await self.delete(house.blob)
                    async for address in super().addresses():
                        yield address

            racing = Racing(tmp_path / "data" / "blobs")
            parts = house.parts()
            object.__setattr__(parts, "blobs", racing)
            return b"".join([piece async for piece in backup(parts, HEAD)])

    stage(tmp_path / "new", asyncio.run(main()))
    finish(tmp_path / "new", "")
    assert content(tmp_path / "new") == all_of(1)


def test_what_the_disk_has_lost_is_told_and_the_rest_saved(tmp_path):
    async def main():
        async with House(tmp_path / "data") as house:
            await house.fill()
            (tmp_path / "data" / "objects" / house.segment.id[:2] / house.segment.id).unlink()
            return await house.save(), house.segment.id

    data, lost = asyncio.run(main())
    contents = stage(tmp_path / "new", data)
    assert contents["missing"] == [f"objects/{lost}"]
    assert "objects" not in contents
    assert contents["blobs"] == 1


def test_a_full_disk_does_not_keep_anybody_from_saving(tmp_path):
    async def main():
        async with House(tmp_path / "data") as house:
            await house.fill()
            house.full = True
            return await house.save()

    contents = stage(tmp_path / "new", asyncio.run(main()))
    assert contents["missing"] == ["logs: the last lines (the disk is full)"]
    finish(tmp_path / "new", "")
    assert content(tmp_path / "new") == all_of(1)


def test_a_backup_that_nobody_reads_on_lets_everything_go(tmp_path):
    async def main():
        async with House(tmp_path / "data") as house:
            await house.fill()
            saving = backup(house.parts(), HEAD)
            for _ in range(3):
                await anext(saving)
            await house.blobs.delete(house.blob)
            await saving.aclose()
            assert await house.blobs.held() == []

    asyncio.run(main())


# -- what is read


@pytest.mark.parametrize("size", [1, 511, 512, 513, 10**7])
def test_an_archive_comes_in_pieces_of_any_size(archive, size):
    contents = asyncio.run(check(pieces(archive, size)))
    assert (contents["lambent"], contents["documents"]) == ("0.1", 2)


def test_a_restore_replaces_everything(state, archive):
    assert content(state) == all_of(2)
    contents = stage(state, archive)
    assert contents["messages"] == 1
    assert content(state) == all_of(2)  # until the next start
    assert finish(state, "") is True
    assert content(state) == all_of(1)
    assert finish(state, "") is False
    assert content(state) == all_of(1)
    assert sorted(path.name for path in state.iterdir() if not path.name.startswith("lambent.sqlite")) == ["blobs", "logs", "objects"]


def test_an_empty_folder_is_filled_and_a_full_one_is_known(tmp_path, state, archive):
    assert holds_state(tmp_path / "new", "") == ""
    stage(tmp_path / "new", archive)
    finish(tmp_path / "new", "")
    assert content(tmp_path / "new") == all_of(1)
    assert "exists already" in holds_state(tmp_path / "new", "")
    assert "exists already" in holds_state(state, "")


class Died(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("last", range(12))
def test_a_death_while_a_restore_is_put_in_place_leaves_the_new_state(state, archive, last):
    stage(state, archive)
    points = []

    def at(point):
        points.append(point)
        if len(points) > last:
            raise Died

    with contextlib.suppress(Died):
        finish(state, "", at)
    if len(points) > last:
        assert finish(state, "") is (points[-1] != "swapped")
    assert content(state) == all_of(1)
    assert not (state / "restore").exists()
    assert not finish(state, "")
    assert not (state / "restore.gone").exists()


def test_the_deaths_above_are_all_there_are(state, archive):
    points = []
    (state / "lambent.sqlite-wal").write_bytes(b"what the old one had not yet put in its place")
    (state / "lambent.sqlite-shm").write_bytes(b"")
    stage(state, archive)
    finish(state, "", points.append)
    assert points == [
        *("lambent.sqlite-wal out", "lambent.sqlite-shm out", "lambent.sqlite out", "lambent.sqlite in"),
        *("blobs out", "blobs in", "objects out", "objects in", "logs out", "logs in", "swapped"),
    ]
    assert content(state) == all_of(1)


class Dying(Staging):
    """A process that is killed has no time to tidy up."""

    dead = False

    def drop(self):
        if not self.dead:
            super().drop()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_death_before_all_is_there_leaves_the_old_state(state, archive, share):
    staged = Dying(state, "", ManualClock())

    async def source():
        yield archive[: int(len(archive) * share)]
        staged.dead = True
        raise Died

    with pytest.raises(Died):
        asyncio.run(staged.take(ArchiveReader(source())))
    assert (state / "restore").exists()
    assert finish(state, "") is False
    assert content(state) == all_of(2)
    assert not (state / "restore").exists()
    stage(state, archive)
    assert finish(state, "")
    assert content(state) == all_of(1)


def test_a_death_between_taking_and_committing_leaves_the_old_state(state, archive):
    asyncio.run(Staging(state, "", ManualClock()).take(ArchiveReader(pieces(archive))))
    assert finish(state, "") is False
    assert content(state) == all_of(2)


def test_nothing_is_put_in_place_below_a_server_that_runs(state, archive):
    async def main():
        async with House(state):
            staged = Staging(state, "", ManualClock())
            await staged.take(ArchiveReader(pieces(archive)))
            staged.commit()
            with pytest.raises(StoreInUse):
                finish(state, "")

    asyncio.run(main())
    assert finish(state, "")
    assert content(state) == all_of(1)


def test_a_restore_is_not_finished_with_another_kind_of_store(state, archive):
    stage(state, archive)
    with pytest.raises(StoreUnavailable, match="data directory alone"):
        finish(state, "postgresql://nobody@/nowhere")
    assert finish(state, "")


# -- what is refused


def refuse(state, data, match, error=BadArchive):
    """``data`` is refused, and the state is what it was, to the last byte."""
    before = tree(state)
    with pytest.raises(error, match=match):
        stage(state, data)
    assert tree(state) == before
    assert finish(state, "") is False


def built(*members, head=None, end=None, tail=True):
    """An archive with a right checksum around whatever it has."""
    writer = ArchiveWriter()
    data = writer.member("lambent-backup.json", first_member(HEAD) if head is None else head)
    for name, body in members:
        data += writer.member(name, body)
    return data + (writer.end(end or {}) if tail else b"")


def store(*lines):
    return "store/000001.jsonl.gz", pack("\n".join(lines).encode())


def logs(*lines):
    return "logs/000001.jsonl.gz", pack("\n".join(lines).encode())


FOREIGN = {
    "nothing": b"",
    "text": b"certainly no backup\n" * 100,
    "zeros": bytes(10_000),
    "gzip": gzip.compress(b"x" * 10_000),
    "noise": random.Random(1).randbytes(20_000),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_that_is_no_backup_is_refused(state, name):
    refuse(state, FOREIGN[name], "no backup of Lambent|cut off")


def test_a_tar_file_of_something_else_is_refused(state):
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w", format=tarfile.GNU_FORMAT) as file:
        file.addfile(tarfile.TarInfo("README"), io.BytesIO())
    refuse(state, memory.getvalue(), "no backup of Lambent")


def test_an_archive_that_is_cut_off_is_refused(state, archive):
    members = {header for header in range(512, len(archive), 512) if archive[header + 257 : header + 262] == b"ustar"}
    end = len(archive) - 1024  # after it there is nothing but what closes a tar archive
    for at in sorted({1, 100, 512, *members, *(header + 512 for header in members), *(header + 700 for header in members), end - 1}):
        with pytest.raises(BadArchive):
            asyncio.run(check(pieces(archive[:at])))
    for at in sorted(members)[::2]:
        refuse(state, archive[:at], "cut off")
    assert stage(state, archive[:end])["documents"] == 2


def test_a_damaged_archive_is_refused(state, archive):
    chance = random.Random(7)
    whole = asyncio.run(check(pieces(archive)))
    told = 0
    for number in range(400):
        at = chance.randrange(len(archive))
        data = bytearray(archive)
        data[at] ^= 1 << chance.randrange(8)
        try:
            contents = asyncio.run(check(pieces(bytes(data))))
        except BadArchive:
            told += 1
            if number % 20 == 0:
                refuse(state, bytes(data), "backup|piece of rows")
        else:  # beyond the checksum there are counts, which are compared, and filling, which means nothing
            assert at >= len(archive) - 2048
            if contents != whole:
                refuse(state, bytes(data), "it says|not what it should be")
    assert told > 200


ROWS = '["d","function","f",1,"{}"]'
HOSTILE = {
    "a newer format": (built(head=b'{"format": 2}'), "format 2.*newer"),
    "a head that is no document": (built(head=b"[1]"), "no document"),
    "a head of brackets": (built(head=b"[" * 100_000), "no JSON"),
    "a head with a time that is none": (built(head=b'{"format": 1, "taken": "soon"}'), "first member"),
    "a head with a name that is none": (built(head=b'{"format": 1, "lambent": {}}'), "first member"),
    "no end": (built(store(ROWS), tail=False), "cut off"),
    "an end that is no document": (built(tail=False) + ArchiveWriter().member("end.json", b"7"), "no document"),
    "counts that are none": (built(end={"documents": "many"}), "last member"),
    "counts that lie": (built(store(ROWS), end={"documents": 2}), "says 2 documents and has 1"),
    "more than it says": (built(store(ROWS), end={"documents": 0}), "says 0 documents and has 1"),
    "a way out": (built(("../evil", b"x")), "it has a member"),
    "another way out": (built(("blobs/../../evil", b"x")), "it has a member"),
    "an absolute path": (built(("/etc/evil", b"x")), "it has a member"),
    "a folder of its own": (built(("code/evil", b"x")), "it has a member"),
    "an empty name": (built(("", b"x")), "it has a member|is no file"),
    "a dot": (built(("objects/..", b"x")), "it has a member"),
    "a blob with another content": (built(("blobs/" + "a" * 64, b"x"), end={"blobs": 1, "blobBytes": 1}), "not what its name says"),
    "rows that are not packed": (built(("store/000001.jsonl.gz", b"rows")), "does not unpack"),
    "rows cut off": (built(("store/000001.jsonl.gz", pack(b"rows")[:-9])), "cut off"),
    "rows of nothing": (built(store("[]")), "no row"),
    "rows of brackets": (built(store("[" * 200_000)), "no row"),
    "a document twice": (built(store(ROWS, ROWS), end={"documents": 2}), "(?i)unique"),
    "a number that no table takes": (built(store(f'["t","t",{10**30}]')), "no row"),
    "logs without a schema": (built(logs('["chunks",1]')), "schema"),
    "logs of nothing": (built(logs("[]")), "schema"),
    "logs of documents": (built(logs("{}")), "damaged"),
    "logs of brackets": (built(logs("[" * 200_000)), "damaged"),
    "logs into no table": (built(logs('["schema",1]', '["migrations",1]')), "no row"),
    "logs with a name that is none": (built(logs('["schema",1]', '[["chunks"],1]')), "damaged"),
    "logs with a value that is none": (built(logs('["schema",1]', '["ledger",1,[]]')), "damaged"),
    "logs with bytes that are none": (built(logs('["schema",1]', '["ledger",1,{"b65":""}]')), "damaged"),
    "logs with a huge number": (built(logs('["schema",1]', f'["ledger",1,{10**40}]')), "damaged"),
    "logs with a clash": (built(logs('["schema",1]', '["ledger",1,1]', '["ledger",1,2]')), "damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused(state, name):
    data, match = HOSTILE[name]
    refuse(state, data, match)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_LONGNAME]
)
def test_a_member_that_is_no_file_is_refused(state, kind):
    info = tarfile.TarInfo("objects/abc")
    info.type = kind
    info.linkname = "/etc/passwd"
    refuse(state, built(tail=False) + info.tobuf(tarfile.GNU_FORMAT), "is no file")


@pytest.mark.parametrize("size", [-1, 2**60])
def test_a_member_of_an_impossible_size_is_refused(state, size):
    info = tarfile.TarInfo("objects/abc")
    info.size = size
    refuse(state, built(tail=False) + info.tobuf(tarfile.GNU_FORMAT) + bytes(1024), "cut off|is no file|no backup")


def test_rows_that_unpack_without_end_are_refused(state, monkeypatch):
    monkeypatch.setattr(backup_archive, "_ROWS_MOST", 100_000)
    refuse(state, built(("store/000001.jsonl.gz", pack(bytes(200_000)))), "too large")


def test_logs_of_a_newer_lambent_are_refused(state):
    refuse(state, built(logs('["schema",9999]')), "newer Lambent", SchemaTooNew)


def test_a_disk_without_room_refuses_and_keeps_the_state(state, archive, monkeypatch):
    from lambent.store import backup_restore

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup_restore, "_write", full)
    refuse(state, archive, "No space left", StoreUnavailable)


# -- who may


def test_a_server_that_others_can_reach_wants_a_signature():
    from lambent.api.backup_pages import Gate
    from lambent.errors import ClientFault
    from lambent.iam.credentials import Authenticator
    from lambent.settings import Settings
    from lambent.wire.http import HttpRequest

    def gate(**options):
        settings = Settings(**options)
        return Gate(settings, Authenticator(settings, ManualClock()))

    def request(**headers):
        return HttpRequest("GET", "/_lambent/backup", "", {name.replace("_", "-"): value for name, value in headers.items()}, b"")

    own = request(host="127.0.0.1:4566", x_lambent_admin="1")
    gate(host="127.0.0.1").require(own, "127.0.0.1")
    gate(host="::1").require(request(host="[::1]:4566", x_lambent_admin="1"), "::1")
    for host, asked, source in (
        ("0.0.0.0", own, "127.0.0.1"),
        ("127.0.0.1", own, "sandbox"),
        ("127.0.0.1", request(host="127.0.0.1:4566"), "127.0.0.1"),
        ("127.0.0.1", request(host="127.0.0.1.evil.example", x_lambent_admin="1"), "127.0.0.1"),
        ("127.0.0.1", request(host="evil.example:4566", x_lambent_admin="1"), "127.0.0.1"),
        ("127.0.0.1", request(x_lambent_admin="1"), "127.0.0.1"),
    ):
        with pytest.raises(ClientFault) as caught:
            gate(host=host).require(asked, source)
        assert (caught.value.code, caught.value.status) == ("AccessDeniedException", 403)

"""Many writers, two processes, and death at every commit: nothing acknowledged is lost, nothing is half-done."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from control_house import ACCOUNT, ARN, REGION, Disk, House, TinyStore, zipped
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lambent.arn import FunctionArn
from lambent.control.code import GRACE_S
from lambent.control.code_source import BucketObject
from lambent.control.function_configuration import FunctionRecord, code_of, compile_version
from lambent.control.function_state import FunctionState, Phase, Wake
from lambent.control.function_table import FunctionTable
from lambent.control.preparation import MEND_S
from lambent.control.referenced_code import WATCHED
from lambent.errors import ClientFault, SandboxFault
from lambent.store.contract import Put

FUNCTION_ARN = str(ARN)
OTHER = zipped({"h.py": b"def handler(e, c): return 'another one'\n"})
UUID = 36


def test_64_writers_with_one_revision_id_and_one_wins(tmp_path: Path):
    async def story() -> None:
        async with House(tmp_path) as house:
            await house.create()
            await house.settle()
            revision = house.show()["RevisionId"]
            outcomes = await asyncio.gather(
                *(house.configure(Timeout=n + 1, RevisionId=revision) for n in range(64)), return_exceptions=True
            )
            won = [outcome for outcome in outcomes if isinstance(outcome, dict)]
            lost = [outcome for outcome in outcomes if isinstance(outcome, ClientFault)]
            assert len(won) == 1
            assert len(lost) == 63
            assert {fault.status for fault in lost} <= {409, 412}
            await house.settle()
            assert house.show()["Timeout"] == won[0]["Timeout"]

    asyncio.run(story())


def test_two_processes_on_one_store_lose_nothing(tmp_path: Path):
    async def story() -> None:
        disk = Disk()
        async with House(tmp_path, disk) as one:
            await one.create()
            await one.settle()
            async with House(tmp_path, disk) as two:

                async def tag(house: House, key: str) -> None:
                    await house.tags.tag(house.call(), {"Resource": FUNCTION_ARN, "Tags": {key: "x"}})

                await asyncio.gather(*(tag((one, two)[n % 2], f"k{n}") for n in range(40)))
                await tag(one, "last")
                await tag(two, "very-last")
                assert set(two.tags.list_tags(two.call(), {"Resource": FUNCTION_ARN})) == {f"k{n}" for n in range(40)} | {
                    "last",
                    "very-last",
                }
                await one.delete()
                with pytest.raises(ClientFault, match="Function not found"):
                    await tag(two, "too-late")
                with pytest.raises(ClientFault, match="Function not found"):
                    two.registry.resolve(ARN)  # the conflict told it

    asyncio.run(story())


def test_a_caller_that_goes_away_leaves_memory_and_store_in_step(tmp_path: Path):
    async def story() -> None:
        async with House(tmp_path) as house:
            await house.create()
            await house.settle()
            outcomes = []
            for steps in range(10):
                task = asyncio.get_running_loop().create_task(house.configure(Timeout=100 + steps))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                outcomes += await asyncio.gather(task, return_exceptions=True)
                await house.settle()
                check(house)
                assert house.show()["LastUpdateStatus"] == "Successful"
            assert any(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
            assert any(isinstance(outcome, dict) for outcome in outcomes)

    asyncio.run(story())


def test_commits_that_return_out_of_order(tmp_path: Path):
    async def story() -> None:
        async with House(tmp_path) as house:
            await house.create()
            await house.settle()
            turns = iter(range(200, 0, -4))
            house.store.lag = lambda: next(turns)
            await asyncio.gather(
                *(house.tags.tag(house.call(), {"Resource": FUNCTION_ARN, "Tags": {f"k{n}": ""}}) for n in range(40)),
            )
            check(house)
            assert len(house.tags.list_tags(house.call(), {"Resource": FUNCTION_ARN})) == 40

    asyncio.run(story())


def test_store_that_fails_refuses_and_then_recovers(tmp_path: Path):
    async def story() -> None:
        async with House(tmp_path) as house:
            house.gate.clear()
            await house.create()
            house.store.unavailable = True
            house.gate.set()
            await house.settle()
            assert house.show()["State"] == "Pending"  # the end of the preparation could not be committed
            house.store.unavailable = False
            house.clock.advance(1)
            await house.settle()
            assert house.show()["State"] == "Active"

    asyncio.run(story())


# -- death ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("commit", range(1, 11))
def test_killed_at_a_commit(tmp_path: Path, commit: int, after: bool):
    """A life of create, update, tag, delete and create, killed at its n-th commit; then a second life on what is left."""

    promised: dict[str, Any] = {}

    async def life(house: House) -> None:
        promised["f"] = await house.create("f")
        await house.settle()
        promised["f"] = await house.upload(OTHER, "f")
        await house.settle()
        await house.tags.tag(house.call(), {"Resource": FUNCTION_ARN, "Tags": {"a": "b"}})
        promised["tags"] = {"a": "b"}
        promised["g"] = await house.create("g")
        await house.settle()
        promised["deleting f"] = True
        await house.delete("f")
        promised["deleted f"] = True

    async def story() -> None:
        one = House(tmp_path)
        await one.start()
        one.store.die_at, one.store.die_after = commit, after
        living = asyncio.get_running_loop().create_task(life(one))
        await asyncio.wait([living, asyncio.ensure_future(one.store.dead.wait())], return_when=asyncio.FIRST_COMPLETED)
        assert not living.done()
        await one.kill()
        async with one.reborn() as two:
            await two.settle()
            for name in ("f", "g"):
                if name not in promised or (name == "f" and "deleting f" in promised):
                    continue
                shown = two.show(name)
                assert (shown["State"], shown["LastUpdateStatus"]) == ("Active", "Successful")
                assert shown["CodeSha256"] == promised[name]["CodeSha256"] or (name == "f" and shown["CodeSize"] == len(OTHER))
            if "tags" in promised and "deleting f" not in promised:
                assert two.tags.list_tags(two.call(), {"Resource": FUNCTION_ARN}) == promised["tags"]
            if "deleted f" in promised:
                with pytest.raises(ClientFault):
                    two.show("f")
            check(two)
            two.clock.advance(GRACE_S)
            await two.settle()
            used = {code for record in two.table for code in record.codes()}
            assert {path.name for path in tmp_path.iterdir()} == used
            assert set(two.disk.blobs) == used

    asyncio.run(story())


def test_lost_folder_is_mended_and_lost_code_is_told(tmp_path: Path):
    async def story() -> None:
        async with House(tmp_path) as one:
            await one.create("f")
            await one.create("g", OTHER)
            await one.settle()
            lost = one.table.get(ARN)
            assert lost is not None
        shutil.rmtree(tmp_path)
        del one.disk.blobs[code_of(lost.configuration)]
        async with one.reborn() as two:
            await two.settle()
            assert two.show("g")["State"] == "Active"
            assert (tmp_path / two.registry.resolve(FunctionArn(REGION, ACCOUNT, "g")).code_sha256 / "h.py").exists()
            shown = two.show("f")
            assert (shown["State"], shown["StateReasonCode"]) == ("Failed", "InvalidZipFileException")
            assert "is missing" in shown["StateReason"]
            with pytest.raises(ClientFault, match="Failed"):
                two.registry.resolve(ARN)

    asyncio.run(story())


def test_unreadable_code_keeps_no_other_function_from_starting_and_is_mended(tmp_path: Path):
    async def story() -> None:
        async with House(tmp_path) as one:
            await one.create("f")
            await one.create("g", OTHER)
            await one.settle()
            code = one.registry.resolve(ARN).code_sha256
        shutil.rmtree(tmp_path / code)
        one.disk.unreadable.add(code)
        async with one.reborn() as two:
            await two.settle()
            assert two.show("g")["State"] == "Active"
            assert two.show("f")["State"] == "Active"
            two.clock.advance(MEND_S)
            await two.settle()
            assert not (tmp_path / code).exists()
            two.disk.unreadable.clear()
            two.clock.advance(MEND_S)
            await two.settle()
            assert (tmp_path / code / "h.py").exists()
            check(two)

    asyncio.run(story())


def test_ten_thousand_functions_are_read_and_listed_in_order(tmp_path: Path):
    async def story() -> None:
        async with House(tmp_path) as one:
            await one.create("f000000")
            await one.settle()
            [template] = one.table
        for number in range(1, 10_000):
            name = f"f{number:06d}"
            document = template.to_document() | {"arn": [REGION, ACCOUNT, name, "aws"]}
            document["configuration"] = template.configuration | {"FunctionName": name}
            await one.store.commit(Put("function", f"{ACCOUNT}/{REGION}/{name}", document))
        async with one.reborn() as two:
            assert two.show("f009999")["FunctionName"] == "f009999"
            assert two.account.settings(two.call())["AccountUsage"]["FunctionCount"] == 10_000
            page = two.functions.list_functions(two.call(), {})
            assert [item["FunctionName"] for item in page["Functions"]] == [f"f{number:06d}" for number in range(50)]

    asyncio.run(story())


# -- the machine ----------------------------------------------------------------------------------------------------


def check(house: House) -> None:
    """What must hold after every step: memory is the store, the data plane is memory, and all code in use is there."""
    stored = {key: FunctionRecord.from_document(document) for key, document in documents(house.store).items()}
    assert stored == {f"{ACCOUNT}/{REGION}/{record.arn.name}": record for record in house.table}
    published = {version.arn.name: version for version in house.registry}
    root = str(house.root.absolute())
    assert published == {record.arn.name: compile_version(record, root) for record in house.table}
    for record in house.table:
        assert (house.root / code_of(record.serving or record.configuration)).is_dir()
        assert len(record.revision_id) == UUID
        assert record.copies() <= record.codes()
        for code in record.copies():
            assert code in house.disk.blobs
            assert house.table.copies(code)
        for code in record.codes():
            assert house.table.uses(code)
    kept = sum(record.unzipped for record in stored.values() if "_reference" not in record.configuration)
    assert house.table.usage(ACCOUNT, REGION) == (len(stored), kept)


def documents(store: TinyStore) -> dict[str, Any]:
    return {key: json.loads(text) for (kind, key), (text, _) in store.disk.documents.items() if kind == "function"}


NAMES = st.sampled_from(["f", "g"])
ZIPS = [zipped(), OTHER, zipped({"x.py": b"1"})]
CODES = st.sampled_from([*ZIPS, *map(str, range(len(ZIPS)))])  # in the request, or the key of an object that stays where it is
OPERATIONS = st.one_of(
    st.tuples(st.just("create"), NAMES, CODES),
    st.tuples(st.just("upload"), NAMES, CODES),
    st.tuples(st.just("configure"), NAMES, st.integers(1, 900)),
    st.tuples(st.just("tag"), NAMES, st.text("abc", min_size=1, max_size=2)),
    st.tuples(st.just("delete"), NAMES, st.none()),
)


class Lifecycle(RuleBasedStateMachine):
    """Bursts of concurrent operations against a model of what was acknowledged, with restarts and failing preparations in between."""

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.house = House(self.root)
        self.house.shelf.latest = "v"
        self.run(self.house.start())
        self.objects_come_and_go(True)
        self.tags: dict[str, set[str]] = {}  # acknowledged, by function

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    @rule(burst=st.lists(OPERATIONS, min_size=1, max_size=8), settle=st.booleans())
    def operate(self, burst: list[tuple[str, str, Any]], settle: bool) -> None:
        outcomes = self.run(self.together(burst, settle))
        answers = list(zip(burst, outcomes, strict=True))
        for (kind, _, value), outcome in answers:
            assert not isinstance(outcome, BaseException) or isinstance(outcome, ClientFault), outcome
            if isinstance(outcome, ClientFault):
                lost = isinstance(value, str) and not self.house.shelf.objects
                assert outcome.status in (404, 409) or (lost and "NoSuchKey" in outcome.message), (kind, outcome)
        for name in ("f", "g"):
            self.learn(
                name, [(kind, value) for (kind, where, value), outcome in answers if where == name and not isinstance(outcome, ClientFault)]
            )

    def learn(self, name: str, accepted: list[tuple[str, Any]]) -> None:
        """Update the model where the order within the burst does not matter."""
        kinds = [kind for kind, _ in accepted]
        new = {value for kind, value in accepted if kind == "tag"}
        if "delete" in kinds or "create" in kinds:
            record = self.house.table.get(FunctionArn(REGION, ACCOUNT, name))
            # One function has one creation more than deletions, or as many.
            balance = int(name in self.tags) + kinds.count("create") - kinds.count("delete")
            assert balance == int(record is not None)
            if record is None:
                self.tags.pop(name, None)
            else:
                assert set(record.tags) <= new | self.tags.get(name, set())
                self.tags[name] = set(record.tags)
        elif new:
            self.tags[name] |= new

    async def together(self, burst: list[tuple[str, str, Any]], settle: bool) -> list[Any]:
        house = self.house

        def begin(kind: str, name: str, value: Any) -> Any:
            place = {"S3Bucket": "b", "S3Key": value, "S3ObjectStorageMode": "REFERENCE"}
            if kind == "create":
                return house.create(name, Code=place) if isinstance(value, str) else house.create(name, value)
            if kind == "upload" and isinstance(value, str):
                return house.functions.update_code(house.call(), {"FunctionName": name, **place})
            if kind == "upload":
                return house.upload(value, name)
            if kind == "configure":
                return house.configure(name, Timeout=value)
            if kind == "tag":
                arn = f"{FUNCTION_ARN[:-1]}{name}"
                return house.tags.tag(house.call(), {"Resource": arn, "Tags": {value: ""}})
            return house.delete(name)

        outcomes = await asyncio.gather(*(begin(*operation) for operation in burst), return_exceptions=True)
        if settle:
            await house.settle()
        return list(outcomes)

    @rule(open_gate=st.booleans(), failing=st.booleans())
    def preparations(self, open_gate: bool, failing: bool) -> None:
        self.house.prepare_fault = SandboxFault("not now") if failing else None
        if open_gate:
            self.house.gate.set()
        else:
            self.house.gate.clear()
        self.run(self.house.settle())

    @rule(there=st.booleans())
    def objects_come_and_go(self, there: bool) -> None:
        """And whoever has code there is looked at; those who are not Active after it are woken."""
        house, keys = self.house, range(len(ZIPS))
        house.shelf.objects = {BucketObject("b", str(key), version): ZIPS[key] for key in keys for version in ("", "v")} if there else {}
        for record in list(house.table):
            before = record.state.phase
            self.run(house.functions.watch.look(record.arn))
            after = house.table.get(record.arn)
            refers = record.serving is not None and "_reference" in record.serving
            assert after is not None
            assert (after.state.phase is not before) == (refers and not there and before in WATCHED)
            self.run(house.functions.report(record.arn, Wake("wake", house.clock.now())))
        self.run(house.settle())

    @precondition(lambda self: self.house.gate.is_set())
    @rule()
    def only_copies_are_kept_in_the_end(self) -> None:
        for _ in range(3):
            self.run(self.house.settle())
            self.house.clock.advance(GRACE_S)
        self.run(self.house.settle())
        assert self.house.disk.blobs.keys() == set().union(*(record.copies() for record in self.house.table))

    @rule()
    def time_passes(self) -> None:
        self.house.clock.advance(GRACE_S)
        self.run(self.house.settle())

    @precondition(lambda self: self.house.gate.is_set())
    @rule()
    def settled_functions_stand_still(self) -> None:
        self.run(self.house.settle())
        assert all(record.state.phase not in (Phase.CREATING, Phase.UPDATING) for record in self.house.table)

    @rule()
    def killed_and_started_again(self) -> None:
        self.run(self.house.stop())
        self.house = self.house.reborn()
        self.run(self.house.start())

    @invariant()
    def all_is_in_step(self) -> None:
        if hasattr(self, "house"):
            check(self.house)
            assert {record.arn.name: set(record.tags) for record in self.house.table} == self.tags

    def teardown(self) -> None:
        if hasattr(self, "house"):
            self.run(self.house.stop())
            self.runner.close()
            shutil.rmtree(self.root)


Lifecycle.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestLifecycle = Lifecycle.TestCase


def test_table_stops_after_endless_conflicts():
    async def story() -> None:
        disk = Disk()
        store = TinyStore(disk)
        table = FunctionTable(store)

        def another_writes() -> None:
            text, revision = disk.documents.get(("function", f"{ACCOUNT}/{REGION}/f"), ("", 0))
            disk.documents["function", f"{ACCOUNT}/{REGION}/f"] = (text or EMPTY, revision + 1)

        store.before_commit = another_writes
        with pytest.raises(Exception, match="commits in a row"):
            await table.change(ARN, lambda before: FunctionRecord(ARN, CONFIGURATION, STATE, "r"))

    asyncio.run(story())


CONFIGURATION: dict[str, Any] = {"CodeSha256": "AA=="}
STATE = FunctionState()
EMPTY = json.dumps(FunctionRecord(ARN, CONFIGURATION, STATE, "other").to_document())

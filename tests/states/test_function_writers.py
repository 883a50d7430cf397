"""64 writers on one function, in one process or in two on the same store: no update is lost, no invariant breaks, whatever the order."""

from __future__ import annotations

import asyncio
import itertools
import random
from dataclasses import replace
from types import SimpleNamespace

from control_house import ACCOUNT, ARN, REGION, ROLE, Disk, TinyStore
from hypothesis import given, settings
from hypothesis import strategies as st

from lambent.control.aliases import Aliases
from lambent.control.code import Code
from lambent.control.function_configuration import FunctionRecord, build
from lambent.control.function_state import FunctionState, Phase
from lambent.control.function_table import FunctionTable
from lambent.control.versions import Versions
from lambent.errors import ClientFault
from lambent.invoke.registry import Registry
from lambent.settings import Limits
from lambent.wire.call import Call

WRITERS = 64
CALL = Call("00000000-0000-0000-0000-000000000000", ACCOUNT, REGION, "key", f"arn:aws:iam::{ACCOUNT}:root", "http://localhost")
KINDS = st.sampled_from(["tag", "describe", "publish", "create alias", "move alias", "delete alias"])


class Process:
    """What one process has of the control plane that writes to a function."""

    def __init__(self, store: TinyStore) -> None:
        self.table = FunctionTable(store)
        self.registry = Registry()
        self.aliases = Aliases(self.table, self.registry, Limits())
        functions = SimpleNamespace(versions_changed=lambda before, after: None, admit_version=lambda record: None)
        self.versions = Versions(self.table, functions, Limits())


class Writers:
    """Runs the writers and keeps what each of them was told."""

    def __init__(self, processes: list[Process], kinds: list[str]) -> None:
        self.processes = processes
        self.kinds = kinds
        self.tags: dict[str, str] = {}
        self.versions: dict[str, str] = {}  # number -> RevisionId
        self.moved: list[tuple[str, str]] = []  # (RevisionId given, RevisionId got)
        self.created: list[str] = []
        self.deleted = 0

    async def run(self) -> None:
        await asyncio.gather(*[self.write(number, kind) for number, kind in enumerate(self.kinds)])

    async def write(self, number: int, kind: str) -> None:
        process = self.processes[number % len(self.processes)]
        name = "live" if number % 3 else "next"
        params = {"FunctionName": "f", "Name": name}
        try:
            if kind == "tag":
                await process.table.change(ARN, lambda record: replace(record, tags={**record.tags, f"k{number}": "v"}))
                self.tags[f"k{number}"] = "v"
            elif kind == "describe":
                await process.table.change(
                    ARN, lambda record: replace(record, configuration={**record.configuration, "Description": str(number)})
                )
            elif kind == "publish":
                shown = await process.versions.publish(CALL, {"FunctionName": "f"})
                assert self.versions.setdefault(shown["Version"], shown["RevisionId"]) == shown["RevisionId"]
            elif kind == "create alias":
                await process.aliases.create(CALL, {**params, "FunctionVersion": "$LATEST"})
                self.created.append(name)
            elif kind == "move alias":
                before = process.aliases.get(CALL, params)["RevisionId"]
                after = await process.aliases.update(CALL, {**params, "Description": str(number), "RevisionId": before})
                self.moved.append((before, after["RevisionId"]))
            else:
                await process.aliases.delete(CALL, params)
                self.deleted += 1
        except ClientFault as fault:
            if fault.code not in {"ResourceConflictException", "ResourceNotFoundException", "PreconditionFailedException"}:
                raise


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.lists(KINDS, min_size=WRITERS, max_size=WRITERS),
    processes=st.sampled_from([1, 2]),
    seed=st.integers(0, 2**32),
)
def test_no_update_is_lost_and_no_invariant_breaks(kinds, processes, seed):
    async def main():
        disk = Disk()
        stores = [TinyStore(disk) for _ in range(processes)]
        lags = random.Random(seed)
        for store in stores:
            store.lag = lambda: lags.randrange(6)
        houses = [Process(store) for store in stores]
        code = Code("0" * 64, 10, 20)
        params = {"Role": ROLE, "Handler": "app.handler", "Runtime": "python3.12", "Code": {}}
        configuration = build(ARN, params, code, 0.0, "x86_64")
        first = FunctionRecord(ARN, configuration, FunctionState(Phase.ACTIVE), "revision", configuration)
        await houses[0].table.change(ARN, lambda before: first)
        for house in houses[1:]:
            await house.table.load()
        writers = Writers(houses, kinds)
        await writers.run()

        fresh = FunctionTable(stores[0])
        await fresh.load()
        record = fresh.get(ARN)
        assert dict(record.tags) == writers.tags
        assert set(writers.versions) <= set(record.versions)
        assert {number: record.versions[number].revision_id for number in writers.versions} == writers.versions
        assert sorted(map(int, record.versions)) == list(range(1, record.last_version + 1))
        descriptions = [record.versions[str(n)].configuration["Description"] for n in range(1, record.last_version + 1)]
        assert all(one != other for one, other in itertools.pairwise(descriptions))
        given_revisions = [before for before, _ in writers.moved]
        assert len(given_revisions) == len(set(given_revisions))
        for name in ("live", "next"):
            assert (name in record.aliases) <= (name in writers.created)
        if not writers.deleted:
            assert set(record.aliases) == set(writers.created)
            assert len(writers.created) == len(set(writers.created))

    asyncio.run(main())

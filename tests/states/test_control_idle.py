"""Functions that rest: which, after how long, who keeps them awake, and what the invocation is told that wakes one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from control_house import ARN, House

from lambent.control.function_state import Idle
from lambent.control.idle import LOOKS, Idleness, may_rest
from lambent.errors import ClientFault

AFTER_S = 1_000.0
VPC = {"VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"PackageType": "Image"}, True),
        ({"PackageType": "Zip", **VPC}, True),
        ({"PackageType": "Zip", "FileSystemConfigs": [{"Arn": "a", "LocalMountPath": "/mnt/x"}]}, True),
        ({"PackageType": "Zip", "VpcConfig": {"SubnetIds": [], "SecurityGroupIds": [], "VpcId": ""}}, False),
        ({"PackageType": "Zip"}, False),
    ],
)
def test_who_may_rest(document: dict[str, Any], expected: bool) -> None:
    assert may_rest(document) is expected


async def resting(house: House, idle: Idleness, rounds: int) -> str:
    """The State after so many looks."""
    for _ in range(rounds):
        house.clock.advance(AFTER_S / LOOKS)
        await idle.look()
    return str(house.show()["State"])


def test_a_function_rests_and_wakes(tmp_path: Path) -> None:
    async def story() -> None:
        async with House(tmp_path) as house:
            busy: list[str] = []
            idle = Idleness(house.table, house.clock, AFTER_S, house.functions.report, lambda: busy, house.tasks.create_task)
            house.registry.inactive = idle.refuse
            await house.create(**VPC)
            await house.settle()
            await idle.look()
            assert await resting(house, idle, LOOKS - 1) == "Active"
            busy.append(str(ARN))
            assert await resting(house, idle, 1) == "Active"  # used: the time begins anew
            busy.clear()
            assert await resting(house, idle, LOOKS - 1) == "Active"
            assert await resting(house, idle, 1) == "Inactive"
            assert house.show()["StateReasonCode"] == "Idle"
            house.gate.clear()
            with pytest.raises(ClientFault) as refused:
                house.registry.resolve(ARN)
            assert (refused.value.code, refused.value.status) == ("ResourceNotReadyException", 502)
            await house.settle()
            assert (house.show()["State"], house.show()["StateReasonCode"]) == ("Pending", "Restoring")
            with pytest.raises(ClientFault, match="in the following state: Pending"):
                house.registry.resolve(ARN)
            house.gate.set()
            await house.settle()
            assert house.show()["State"] == "Active"
            assert house.registry.resolve(ARN).state == "Active"

    asyncio.run(story())


def test_an_update_wakes_too_and_the_old_code_serves_meanwhile(tmp_path: Path) -> None:
    async def story() -> None:
        async with House(tmp_path) as house:
            await house.create(**VPC)
            await house.settle()
            await house.functions.report(ARN, Idle("i", 1.0))
            assert house.show()["State"] == "Inactive"
            house.gate.clear()
            await house.configure(Description="new")
            await house.settle()
            assert house.registry.resolve(ARN).state == "Active"
            house.gate.set()
            await house.settle()
            assert (house.show()["State"], house.show()["LastUpdateStatus"]) == ("Active", "Successful")

    asyncio.run(story())


def test_rest_outlives_a_restart_and_others_never_rest(tmp_path: Path) -> None:
    async def story() -> None:
        async with House(tmp_path) as house:
            await house.create(**VPC)
            await house.create("plain")
            await house.settle()
            idle = Idleness(house.table, house.clock, AFTER_S, house.functions.report, list, house.tasks.create_task)
            await idle.look()
            assert await resting(house, idle, LOOKS) == "Inactive"
            assert house.show("plain")["State"] == "Active"
            disk, clock = house.disk, house.clock
        async with House(tmp_path, disk, clock) as house:
            await house.functions.load()
            await house.settle()
            assert house.show()["State"] == "Inactive"
            with pytest.raises(ClientFault):
                house.registry.resolve(ARN)

    asyncio.run(story())


def test_nothing_rests_unless_it_is_set(tmp_path: Path) -> None:
    async def story() -> None:
        async with House(tmp_path) as house:
            await asyncio.wait_for(Idleness(house.table, house.clock, 0.0, house.functions.report, list, house.tasks.create_task).run(), 5)

    asyncio.run(story())

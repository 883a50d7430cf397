"""Warm interpreters that fit one memory size only: which blank a request gets, and when it has to start from nothing."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lambent.sandbox.assignment import Assignment
from lambent.sandbox.nursery import QUIET_S, Nursery

SIZED = ["java", "-XX:MaxRAM={memory_mb}m", "--warm"]


def blanks(*sizes):
    nursery = Nursery(SimpleNamespace(), "java17", {"warm": SIZED})
    nursery.pool.extend(SimpleNamespace(warm_mb=size, name=f"{number}: {size}") for number, size in enumerate(sizes))
    return nursery


@pytest.mark.parametrize(
    ("sizes", "wanted", "name"),
    [
        ((512, 256), 256, "1: 256"),
        ((512, 256), 512, "0: 512"),
        ((512, 256), 128, "0: 512"),  # none fits: the oldest, which then starts from nothing
        ((0, 0), 128, "0: 0"),
        ((256, 0), 128, "1: 0"),
    ],
)
def test_the_blank_that_fits_is_taken(sizes, wanted, name):
    nursery = blanks(*sizes)
    assert nursery.take({"memory_mb": wanted}).name == name
    assert len(nursery.pool) == 1
    assert name not in [cell.name for cell in nursery.pool]


def test_without_blanks_there_is_nothing_to_take():
    assert blanks().take({"memory_mb": 128}) is None


@pytest.mark.parametrize(("size", "wanted", "is_warm"), [(512, 512, True), (512, 256, False), (0, 256, True)])
def test_an_interpreter_of_another_size_is_not_used(size, wanted, is_warm):
    assignment = Assignment(SimpleNamespace(), SimpleNamespace(warm_mb=size), {"memory_mb": wanted, "warm": True})
    assert assignment._order["warm"] is is_warm


def test_big_interpreters_are_made_when_it_has_been_quiet_for_longer():
    assert blanks().quiet_s > QUIET_S
    assert Nursery(SimpleNamespace(), "nodejs22.x", {"warm": ["node", "--warm"]}).quiet_s == QUIET_S
    assert Nursery(SimpleNamespace(), "python3.12", {}).quiet_s == QUIET_S

"""Names and qualifiers to immutable versions, and who is told of a change."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from lambent.arn import FunctionArn
from lambent.errors import ClientFault
from lambent.function_version import FunctionVersion
from lambent.invoke.registry import Change, Registry

ARN = FunctionArn("us-east-1", "000000000000", "f")
V = FunctionVersion(ARN, "$LATEST", "python3.12", "m.h", "ab", "/code")


def test_no_qualifier_means_latest():
    registry = Registry()
    registry.put(V)
    assert registry.resolve(ARN) is registry.resolve(ARN.qualified("$LATEST"))
    assert registry.resolve(ARN).code_sha256 == "ab"


def test_a_value_without_an_environment_key_gets_its_own():
    registry = Registry()
    registry.put(V)
    assert registry.resolve(ARN).environment_key == V.keyed()
    registry.put(replace(V, environment_key="given"))
    assert registry.resolve(ARN).environment_key == "given"


@pytest.mark.parametrize(
    ("target", "named"),
    [
        (ARN.unqualified, "arn:aws:lambda:us-east-1:000000000000:function:f:$LATEST"),
        (ARN.qualified("7"), "arn:aws:lambda:us-east-1:000000000000:function:f:7"),
        (ARN.qualified("$latest"), "arn:aws:lambda:us-east-1:000000000000:function:f:$latest"),
    ],
)
def test_not_found_has_the_text_of_invoke(target, named):
    with pytest.raises(ClientFault) as caught:
        Registry().resolve(target)
    assert (caught.value.code, caught.value.status) == ("ResourceNotFoundException", 404)
    assert caught.value.message == f"Function not found: {named}"


@pytest.mark.parametrize("other", [replace(ARN, region="eu-west-1"), replace(ARN, account="111111111111"), replace(ARN, name="g")])
def test_region_account_and_name_all_count(other):
    registry = Registry()
    registry.put(V)
    with pytest.raises(ClientFault, match="Function not found"):
        registry.resolve(other)


@pytest.mark.parametrize("state", ["Pending", "Failed", "Inactive"])
def test_what_cannot_run_is_a_conflict(state):
    registry = Registry()
    registry.put(replace(V, state=state))
    with pytest.raises(ClientFault) as caught:
        registry.resolve(ARN)
    assert (caught.value.code, caught.value.status) == ("ResourceConflictException", 409)
    assert caught.value.message == (
        f"The operation cannot be performed at this time. The function is currently in the following state: {state}"
    )


def test_listeners_hear_of_every_change_after_it_happened():
    registry = Registry()
    heard: list[tuple[Change, list[str]]] = []
    registry.listen(lambda change: heard.append((change, [version.code_sha256 for version in registry])))
    registry.put(replace(V, environment_key="k1"))
    registry.put(replace(V, environment_key="k2", code_sha256="cd"))
    registry.remove(ARN, "$LATEST")
    keys = [(change.before and change.before.environment_key, change.after and change.after.environment_key) for change, _ in heard]
    assert keys == [(None, "k1"), ("k1", "k2"), ("k2", None)]
    assert [state for _, state in heard] == [["ab"], ["cd"], []]


def test_removing_a_function_removes_all_versions_and_what_is_absent_is_no_error():
    registry = Registry()
    registry.put(V)
    registry.put(replace(V, version="1", environment_key=""))
    assert len(list(registry)) == 2
    registry.remove(ARN, "9")
    registry.remove(ARN)
    registry.remove(ARN)
    assert list(registry) == []


def test_an_alias_draws_by_weight_over_ten_thousand_resolutions():
    registry = Registry()
    for number in ("1", "2"):
        registry.put(replace(V, version=number))
    for share in (0.0, 0.05, 0.5, 1.0):
        registry.point(ARN, "live", "1", {"2": share} if share else {})
        drawn = sum(registry.resolve(ARN.qualified("live")).version == "2" for _ in range(10_000))
        assert abs(drawn - 10_000 * share) <= 6 * math.sqrt(10_000 * share * (1 - share))
    registry.unpoint(ARN, "live")
    with pytest.raises(ClientFault, match="Function not found"):
        registry.resolve(ARN.qualified("live"))
    registry.unpoint(ARN, "live")
    registry.point(ARN, "live", "1", {})
    registry.remove(ARN)
    with pytest.raises(ClientFault, match="Function not found"):
        registry.resolve(ARN.qualified("live"))

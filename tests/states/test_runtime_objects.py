"""Runtimes as lambda-core's objects: names, pointers, documents held against the model; one answer to which version runs."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import botocore.loaders
import pytest
from control_house import ARN, House
from hypothesis import given
from hypothesis import strategies as st

from lambent.control.families import Families
from lambent.control.runtime_versions import renewed
from lambent.errors import ClientFault
from lambent.runtimes.catalogue import Catalogue
from lambent.runtimes.runtime_objects import CURRENT, Compatibility, Place, Runtime, Version, managed
from lambent.runtimes.versions import runtime_version

MODEL: dict[str, Any] = botocore.loaders.Loader().load_service_model("lambda-core", "service-2")
HERE = Place("eu-west-1")
ONE = Version("1.0", "1" * 64, "", "registry.example/r@sha256:1", Compatibility(("x86_64",)), created=1_790_000_000)
TWO = Version("2.0", "2" * 64, "", "registry.example/r@sha256:2", Compatibility(("x86_64", "arm64"), managed_instances=False))
OWN = Runtime("rust-1", "123456789012", "Rust", created=5.0).with_version(ONE).with_version(TWO).pointing("stable", "1.0", 10.0)


def fits(shape: str, value: Any) -> None:
    """Members known, required ones there, patterns and enumerations kept, all the way down."""
    model = MODEL["shapes"][shape]
    if model["type"] == "structure":
        assert set(model.get("required", ())) <= set(value) <= set(model["members"]), shape
        for name, member in value.items():
            fits(model["members"][name]["shape"], member)
    elif model["type"] == "list":
        for each in value:
            fits(model["member"]["shape"], each)
    else:
        assert isinstance(value, str)
        assert "enum" not in model or value in model["enum"], shape
        assert "pattern" not in model or re.fullmatch(model["pattern"], value), (shape, value)


def test_documents_are_the_models() -> None:
    fits("GetRuntimeResponse", OWN.document(HERE))
    for version in OWN.versions.values():
        fits("GetRuntimeVersionResponse", OWN.version_document(version, HERE))
    document = OWN.alias_document(OWN.aliases["stable"], HERE)
    fits("GetRuntimeAliasResponse", document)
    assert document["RuntimeVersionArn"] == "arn:aws:lambda:eu-west-1:123456789012:runtime/rust-1/version/1.0"
    assert (document["Created"], document["LastModified"]) == ("1970-01-01T00:00:10Z",) * 2


def test_an_alias_moves_and_keeps_its_birthday() -> None:
    moved = OWN.pointing("stable", "2.0", 20.0)
    assert (OWN.at("stable"), moved.at("stable"), moved.at("other")) == (ONE, TWO, None)
    assert (moved.aliases["stable"].created, moved.aliases["stable"].modified) == (10.0, 20.0)
    with pytest.raises(KeyError):
        OWN.pointing("stable", "3.0")


def test_a_version_is_one_build_for_ever() -> None:
    assert OWN.with_version(ONE) is OWN
    with pytest.raises(ValueError, match=r"another version 1\.0"):
        OWN.with_version(Version("1.0", "3" * 64))


def test_versions_are_found_by_every_name_that_they_have() -> None:
    stem = "arn:aws:lambda:eu-west-1:123456789012:runtime/rust-1"
    found = [OWN.find(f"{stem}{end}", HERE) for end in ("/version/1.0", "/version/2.0", "/alias/stable", "/alias/none", "")]
    assert found == [ONE, TWO, ONE, None, None]
    assert OWN.find(f"{stem}/version/1.0", Place("eu-west-2")) is None
    python = managed("python3.12", Version("3.12.v4", "a" * 64, "python:3.12.v4"))
    assert python.find(f"arn:aws:lambda:eu-west-1::runtime:{'a' * 64}", HERE) is python.at(CURRENT)
    assert (python.arn(HERE), python.alias_arn(python.aliases[CURRENT], HERE), python.find("", HERE)) == ("", "", None)


@given(st.lists(st.tuples(st.sampled_from(["1", "2", "3"]), st.sampled_from(["a", "b"])), max_size=12))
def test_aliases_always_lead_to_a_version(moves: list[tuple[str, str]]) -> None:
    runtime = Runtime("r", "123456789012")
    for version, alias in moves:
        runtime = runtime.with_version(Version(version, version * 64)).pointing(alias, version)
        for each in runtime.aliases.values():
            target = runtime.at(each.name)
            assert target is not None
            assert runtime.find(runtime.alias_arn(each, HERE), HERE) is target is runtime.find(runtime.version_arn(target, HERE), HERE)


def test_the_catalogue_speaks_with_one_voice() -> None:
    catalogue = Catalogue()
    name = "provided.al2023"
    assert catalogue.runtime(name) is None  # nobody asked yet, and asking for the object does not search
    built = runtime_version(catalogue.plan(name), "eu-west-1")
    runtime = catalogue.runtime(name)
    assert runtime is not None
    version = runtime.at()
    assert version is not None
    assert (version.text, runtime.version_arn(version, HERE)) == (built.text, built.arn)
    assert built.text == f"provided:{version.name}"


def test_functions_show_and_are_held_to_what_runs(tmp_path: Path) -> None:
    async def story() -> None:
        builds = {"python3.12": managed("python3.12", Version("3.12.v4", "4" * 64))}
        async with House(tmp_path) as house:
            for part in (house.functions, house.functions._views):
                part._runtime_of = builds.get
            built = Families(
                house.table, house.store, house.tasks, house.clock, house.limits, 4566, lambda arn: 30, house.rules.tags, builds.get
            )
            created = await house.create(Publish=True)
            assert created["RuntimeVersionConfig"] == {"RuntimeVersionArn": f"arn:aws:lambda:us-east-1::runtime:{'4' * 64}"}
            await house.settle()
            builds["python3.12"] = managed("python3.12", Version("3.12.v9", "9" * 64))  # the machine got another
            now = f"arn:aws:lambda:us-east-1::runtime:{'9' * 64}"
            asked = {"FunctionName": ARN.name}
            for qualifier in ({}, {"Qualifier": "1"}):
                assert house.functions.get_configuration(house.call(), {**asked, **qualifier})["RuntimeVersionConfig"] == {
                    "RuntimeVersionArn": now
                }
                manual = {**asked, **qualifier, "UpdateRuntimeOn": "Manual"}
                with pytest.raises(ClientFault, match=f"Available: {now}"):
                    await built.runtime_management.put(
                        house.call(), {**manual, "RuntimeVersionArn": created["RuntimeVersionConfig"]["RuntimeVersionArn"]}
                    )
                await built.runtime_management.put(house.call(), {**manual, "RuntimeVersionArn": now})
                assert built.runtime_management.get(house.call(), {**asked, **qualifier})["RuntimeVersionArn"] == now

    asyncio.run(story())


def test_what_is_not_known_is_left_as_it_was_written() -> None:
    document = {"Runtime": "python3.12", "FunctionArn": str(ARN), "RuntimeVersionConfig": {"RuntimeVersionArn": "written"}}
    assert renewed(lambda name: None, document) == document
    image = {"PackageType": "Image", "FunctionArn": str(ARN)}
    assert renewed({}.get, image) == image

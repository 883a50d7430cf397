"""Policies, configurations and mappings on a control plane whose store can be cut off and copied."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from control_house import ACCOUNT, ARN, REGION, House

from lambent.control.attachments import attached
from lambent.control.event_source_mappings import TRANSITION_S, SourceMapping
from lambent.control.families import Families
from lambent.control.versions import Versions
from lambent.errors import ClientFault

QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:q"
NAME = {"FunctionName": "f"}
ALLOW = {"Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com"}


async def families(house: House) -> Families:
    built = Families(house.table, house.store, house.tasks, house.clock, house.limits, 4566, lambda arn: 30, house.rules.tags)
    await built.load()
    house.functions.admit = built.code_signing.admit
    return built


def play(root: Path, story: Callable[[House, Families], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with House(root) as house:
            built = await families(house)
            await house.create()
            await house.settle()
            await story(house, built)

    asyncio.run(whole())


async def refusal(awaitable: Awaitable[Any]) -> ClientFault:
    with pytest.raises(ClientFault) as caught:
        await awaitable
    return caught.value


def revision(house: House) -> str:
    return str(house.show()["RevisionId"])


def test_a_policy_moves_the_revision_of_its_function(tmp_path: Path):
    async def story(house: House, built: Families) -> None:
        before = revision(house)
        await built.policies.add(house.call(), {**NAME, "StatementId": "a", **ALLOW, "RevisionId": before})
        assert revision(house) != before
        assert built.policies.get(house.call(), NAME)["RevisionId"] == revision(house)
        stale = await refusal(built.policies.add(house.call(), {**NAME, "StatementId": "b", **ALLOW, "RevisionId": before}))
        assert stale.status == 412
        assert "Call the GetPolicy API" in stale.message
        stale = await refusal(built.policies.remove(house.call(), {**NAME, "StatementId": "a", "RevisionId": before}))
        assert stale.status == 412
        await built.policies.remove(house.call(), {**NAME, "StatementId": "a", "RevisionId": revision(house)})
        with pytest.raises(ClientFault, match="The resource you requested does not exist"):
            built.policies.get(house.call(), NAME)

    play(tmp_path, story)


def test_sixty_four_writers_of_one_policy(tmp_path: Path):
    async def story(house: House, built: Families) -> None:
        await asyncio.gather(*(built.policies.add(house.call(), {**NAME, "StatementId": f"s{n}", **ALLOW}) for n in range(64)))
        policy = built.policies.of(ARN)
        assert policy is not None
        assert {each["Sid"] for each in policy["Statement"]} == {f"s{n}" for n in range(64)}

    play(tmp_path, story)


def test_what_belongs_to_a_function_goes_with_it_and_does_not_come_back(tmp_path: Path):
    async def story(house: House, built: Families) -> None:
        await built.policies.add(house.call(), {**NAME, "StatementId": "a", **ALLOW})
        await built.event_invoke.put(house.call(), {**NAME, "MaximumRetryAttempts": 0})
        url = (await built.urls.create(house.call(), {**NAME, "AuthType": "NONE"}))["FunctionUrl"]
        url_id = url.split("//")[1].split(".")[0]
        assert built.urls.find(url_id) is not None
        await house.delete()
        assert built.urls.find(url_id) is None
        await house.create()
        assert built.policies.of(ARN) is None
        assert built.event_invoke.of(ARN) is None
        assert built.urls.find(url_id) is None
        with pytest.raises(ClientFault):
            built.urls.get(house.call(), NAME)

    play(tmp_path, story)


def test_all_of_it_survives_a_kill(tmp_path: Path):
    async def whole() -> None:
        house = House(tmp_path)
        await house.start()
        built = await families(house)
        await house.create(Publish=True)
        await house.settle()
        await built.policies.add(house.call(), {**NAME, "StatementId": "a", **ALLOW})
        await built.policies.add(house.call(), {**NAME, "Qualifier": "1", "StatementId": "a", **ALLOW})
        of_version = built.policies.get(house.call(), {**NAME, "Qualifier": "1"})
        await built.event_invoke.put(house.call(), {**NAME, "MaximumEventAgeInSeconds": 60})
        url = await built.urls.create(house.call(), {**NAME, "AuthType": "AWS_IAM"})
        made = await built.mappings.create(house.call(), {**NAME, "EventSourceArn": QUEUE, "Tags": {"k": "v"}})
        signing = await built.code_signing.create(
            house.call(), {"AllowedPublishers": {"SigningProfileVersionArns": ["arn:aws:signer:::p"]}}
        )
        await house.kill()
        async with house.reborn() as later:
            again = await families(later)
            assert again.policies.of(ARN) == built.policies.of(ARN) is not None
            assert again.policies.get(later.call(), {**NAME, "Qualifier": "1"}) == of_version
            assert again.event_invoke.of(ARN) == built.event_invoke.of(ARN) is not None
            found = again.urls.find(url["FunctionUrl"].split("//")[1].split(".")[0])
            assert found is not None
            assert found[0] == ARN
            [mapping] = again.mappings.all()
            assert (mapping.uuid, mapping.state.shown, mapping.tags) == (made["UUID"], "Creating", {"k": "v"})
            config = signing["CodeSigningConfig"]
            assert (
                again.code_signing.get(later.call(), {"CodeSigningConfigArn": config["CodeSigningConfigArn"]})["CodeSigningConfig"]
                == config
            )
            await later.settle()
            later.clock.advance(TRANSITION_S)  # the transition that the killed process left open
            await later.settle()
            assert again.mappings.get(later.call(), {"UUID": made["UUID"]})["State"] == "Enabled"

    asyncio.run(whole())


def test_listeners_hear_every_step_of_a_mapping(tmp_path: Path):
    async def story(house: House, built: Families) -> None:
        heard: list[tuple[str, str]] = []

        def name(mapping: SourceMapping | None) -> str:
            return "" if mapping is None else mapping.state.shown

        built.mappings.listen(lambda before, after: heard.append((name(before), name(after))))

        async def settle() -> None:
            await house.settle()
            house.clock.advance(TRANSITION_S)
            await house.settle()

        mapping_uuid = (await built.mappings.create(house.call(), {**NAME, "EventSourceArn": QUEUE}))["UUID"]
        await settle()
        assert "PROBLEM" in built.mappings.get(house.call(), {"UUID": mapping_uuid})["LastProcessingResult"]
        built.mappings.serve("sqs")
        assert "LastProcessingResult" not in built.mappings.get(house.call(), {"UUID": mapping_uuid})
        await built.mappings.update(house.call(), {"UUID": mapping_uuid, "Enabled": False})
        assert (await refusal(built.mappings.update(house.call(), {"UUID": mapping_uuid}))).code == "ResourceInUseException"
        await settle()
        await built.mappings.delete(house.call(), {"UUID": mapping_uuid})
        await settle()
        assert heard == [
            ("", "Creating"),
            ("Creating", "Enabled"),
            ("Enabled", "Disabling"),
            ("Disabling", "Disabled"),
            ("Disabled", "Deleting"),
            ("Deleting", ""),
        ]
        assert (await refusal(built.mappings.delete(house.call(), {"UUID": mapping_uuid}))).status == 404

    play(tmp_path, story)


def test_only_one_of_two_mappings_at_once_is_made(tmp_path: Path):
    async def story(house: House, built: Families) -> None:
        tried = (built.mappings.create(house.call(), {**NAME, "EventSourceArn": QUEUE}) for _ in range(5))
        outcomes = await asyncio.gather(*tried, return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ClientFault"] * 4 + ["dict"]
        [mapping] = built.mappings.all()
        fault = next(outcome for outcome in outcomes if isinstance(outcome, ClientFault))
        assert fault.message == (
            f'An event source mapping with SQS arn (" {QUEUE} ") and function (" f ") already exists. '
            f"Please update or delete the existing mapping with UUID {mapping.uuid}"
        )

    play(tmp_path, story)


def test_an_enforcing_configuration_lets_no_zip_in(tmp_path: Path):
    async def story(house: House, built: Families) -> None:
        publishers = {"SigningProfileVersionArns": ["arn:aws:signer:::p"]}
        made = await built.code_signing.create(
            house.call(), {"AllowedPublishers": publishers, "CodeSigningPolicies": {"UntrustedArtifactOnDeployment": "Enforce"}}
        )
        arn = made["CodeSigningConfig"]["CodeSigningConfigArn"]
        assert (await refusal(house.create("g", CodeSigningConfigArn=arn))).code == "CodeVerificationFailedException"
        await built.code_signing.put_for(house.call(), {**NAME, "CodeSigningConfigArn": arn})
        assert (await refusal(house.upload(b"zip"))).code == "CodeVerificationFailedException"
        assert (await refusal(built.code_signing.delete(house.call(), {"CodeSigningConfigArn": arn}))).status == 409
        await built.code_signing.delete_for(house.call(), NAME)
        await built.code_signing.delete(house.call(), {"CodeSigningConfigArn": arn})
        fault = await refusal(built.code_signing.put_for(house.call(), {**NAME, "CodeSigningConfigArn": arn}))
        assert (fault.code, fault.status) == ("CodeSigningConfigNotFoundException", 404)

    play(tmp_path, story)


def test_markers_lead_through_every_item(tmp_path: Path):
    async def story(house: House, built: Families) -> None:
        for number in range(7):
            await built.mappings.create(house.call(), {**NAME, "EventSourceArn": f"{QUEUE}{number}"})
        seen: list[str] = []
        marker: dict[str, str] = {}
        while True:
            page = built.mappings.list_all(house.call(), {"MaxItems": 3, **marker})
            seen += [each["UUID"] for each in page["EventSourceMappings"]]
            if "NextMarker" not in page:
                break
            marker = {"Marker": page["NextMarker"]}
        assert sorted(seen) == sorted(mapping.uuid for mapping in built.mappings.all())
        assert len(seen) == 7
        with pytest.raises(ClientFault, match="is not valid for this operation"):
            built.mappings.list_all(house.call(), {"Marker": "nonsense"})

    play(tmp_path, story)


def test_recursion_and_runtime_management(tmp_path: Path):
    async def story(house: House, built: Families) -> None:
        assert not built.recursion.allowed(ARN)
        await built.recursion.put(house.call(), {**NAME, "RecursiveLoop": "Allow"})
        assert built.recursion.allowed(ARN)
        version = house.show()["RuntimeVersionConfig"]["RuntimeVersionArn"]
        manual = {**NAME, "UpdateRuntimeOn": "Manual"}
        assert "must be specified" in (await refusal(built.runtime_management.put(house.call(), manual))).message
        await refusal(built.runtime_management.put(house.call(), {**manual, "RuntimeVersionArn": version + "0"}))
        await built.runtime_management.put(house.call(), {**manual, "RuntimeVersionArn": version})
        assert built.runtime_management.get(house.call(), NAME)["RuntimeVersionArn"] == version
        record = house.table.get(ARN)
        assert record is not None
        assert attached(record, "recursion") == "Allow"

    play(tmp_path, story)


def test_a_version_that_waits_only_for_itself_is_ready_after_a_kill(tmp_path: Path):
    """With SnapStart a version is Pending first; whoever is killed then leaves it to the next process."""
    fixed = {"FunctionName": "f"}

    async def story() -> None:
        one = House(tmp_path)
        await one.start()
        await one.create(Runtime="python3.12", SnapStart={"ApplyOn": "PublishedVersions"})
        await one.settle()
        made = await Versions(one.table, one.functions, one.limits).publish(one.call(), fixed)
        assert (made["Version"], made["State"], made["StateReasonCode"]) == ("1", "Pending", "Creating")
        assert one.show()["State"] == "Active"
        await one.kill()
        async with one.reborn() as two:
            await two.settle()
            shown = two.show(Qualifier="1")
            assert (shown["State"], shown["LastUpdateStatus"], shown["RevisionId"]) == ("Active", "Successful", made["RevisionId"])
            assert two.registry.resolve(ARN.qualified("1")).state == "Active"
            again = await Versions(two.table, two.functions, two.limits).publish(two.call(), fixed)
            assert (again["Version"], again["State"]) == ("1", "Active")

    asyncio.run(story())

"""Operations on functions, one at a time, against contract 01."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from control_house import ACCOUNT, ARN, REGION, ROLE, House, creation, small, zipped

from lambent.control.code import GRACE_S
from lambent.errors import ClientFault, NotImplementedFault, SandboxFault
from lambent.settings import Limits

FUNCTION_ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:f"
OTHER = zipped({"h.py": b"def handler(e, c): return 'another one'\n"})
IN_PROGRESS = f"The operation cannot be performed at this time. An update is in progress for resource: {FUNCTION_ARN}"


def play(tmp_path: Path, story: Callable[[House], Awaitable[None]], limits: Limits | None = None) -> None:
    async def whole() -> None:
        async with House(tmp_path, limits=limits) as house:
            await story(house)

    asyncio.run(whole())


async def refusal(awaitable: Awaitable[Any]) -> ClientFault:
    with pytest.raises(ClientFault) as caught:
        await awaitable
    return caught.value


def refusal_now(work: Callable[[], Any]) -> ClientFault:
    with pytest.raises(ClientFault) as caught:
        work()
    return caught.value


def test_create_shows_every_default(tmp_path: Path):
    async def story(house: House) -> None:
        house.gate.clear()
        shown = await house.create()
        revision, version = shown.pop("RevisionId"), shown.pop("RuntimeVersionConfig")
        assert len(revision) == 36
        assert version["RuntimeVersionArn"].startswith("arn:aws:lambda:us-east-1::runtime:")
        assert shown == {
            "FunctionName": "f",
            "FunctionArn": FUNCTION_ARN,
            "Runtime": "python3.12",
            "Role": ROLE,
            "Handler": "h.handler",
            "CodeSize": len(zipped()),
            "CodeSha256": shown["CodeSha256"],
            "Description": "",
            "Timeout": 3,
            "MemorySize": 128,
            "LastModified": "2026-01-01T00:00:00.000+0000",
            "Version": "$LATEST",
            "PackageType": "Zip",
            "Architectures": ["x86_64"],
            "EphemeralStorage": {"Size": 512},
            "TracingConfig": {"Mode": "PassThrough"},
            "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
            "LoggingConfig": {"LogFormat": "Text", "LogGroup": "/aws/lambda/f"},
            "State": "Pending",
            "StateReason": "The function is being created.",
            "StateReasonCode": "Creating",
        }
        assert house.registry.__iter__().__next__().state == "Pending"
        assert refusal_now(lambda: house.registry.resolve(ARN)).status == 409
        house.gate.set()
        await house.settle()
        active = house.show()
        assert (active["State"], active["LastUpdateStatus"]) == ("Active", "Successful")
        assert "StateReason" not in active
        assert active["RevisionId"] != revision

    play(tmp_path, story)


def test_active_function_is_compiled_for_the_data_plane(tmp_path: Path):
    async def story(house: House) -> None:
        await house.create(
            MemorySize=256,
            Timeout=9,
            EphemeralStorage={"Size": 1024},
            Environment={"Variables": {"K": "v", "AWS_LAMBDA_LOG_LEVEL": "DEBUG"}},
            LoggingConfig={"LogFormat": "JSON", "LogGroup": "/my/group"},
        )
        await house.settle()
        version = house.registry.resolve(ARN)
        assert (version.arn, version.version, version.runtime, version.handler) == (ARN, "$LATEST", "python3.12", "h.handler")
        assert (version.memory_mb, version.timeout_s, version.ephemeral_mb) == (256, 9, 1024)
        assert version.environment == {"K": "v", "AWS_LAMBDA_LOG_LEVEL": "DEBUG"}
        assert (version.log_format, version.application_log_level, version.system_log_level) == ("JSON", "INFO", "INFO")
        assert (version.log_group, version.role, version.state) == ("/my/group", ROLE, "Active")
        assert (Path(version.code_dir) / "h.py").exists()
        assert version.environment_key == version.keyed()

    play(tmp_path, story)


def test_failed_creation(tmp_path: Path):
    async def story(house: House) -> None:
        house.prepare_fault = SandboxFault("no zygote today")
        await house.create()
        await house.settle()
        shown = house.show()
        assert (shown["State"], shown["StateReasonCode"], shown["StateReason"]) == ("Failed", "InternalError", "no zygote today")
        assert refusal_now(lambda: house.registry.resolve(ARN)).status == 409
        assert (await refusal(house.configure(Timeout=4))).message.endswith("The function is currently in the following state: Failed")
        house.prepare_fault = None
        await house.delete()
        await house.create()
        await house.settle()
        assert house.show()["State"] == "Active"

    play(tmp_path, story)


def test_a_preparation_outlives_one_fault_of_the_platform(tmp_path: Path):
    """As when the launcher dies under it: the acknowledged change takes effect all the same."""

    async def story(house: House) -> None:
        await house.create()
        await house.settle()
        house.gate.clear()
        await house.configure(Timeout=4)
        house.prepare_fault = SandboxFault("the launcher has ended")
        house.prepare_faults = 2
        house.gate.set()
        await house.settle()
        assert house.show()["LastUpdateStatus"] == "Successful"
        assert house.registry.resolve(ARN).timeout_s == 4

    play(tmp_path, story)


def test_create_twice(tmp_path: Path):
    async def story(house: House) -> None:
        await house.create()
        fault = await refusal(house.create())
        assert (fault.code, fault.status, fault.message) == ("ResourceConflictException", 409, "Function already exist: f")
        outcomes = await asyncio.gather(*(house.create("g", zipped({"x": b"%d" % n})) for n in range(8)), return_exceptions=True)
        assert sum(isinstance(outcome, dict) for outcome in outcomes) == 1
        assert all(isinstance(outcome, dict | ClientFault) for outcome in outcomes)

    play(tmp_path, story)


def test_old_configuration_runs_until_the_update_is_ready(tmp_path: Path):
    async def story(house: House) -> None:
        await house.create()
        await house.settle()
        before, revision = house.registry.resolve(ARN), house.show()["RevisionId"]
        house.gate.clear()
        shown = await house.upload(OTHER)
        assert (shown["State"], shown["LastUpdateStatus"]) == ("Active", "InProgress")
        assert (shown["LastUpdateStatusReason"], shown["LastUpdateStatusReasonCode"]) == ("The function is being created.", "Creating")
        assert shown["CodeSize"] == len(OTHER)
        assert shown["RevisionId"] != revision
        assert house.registry.resolve(ARN) is before
        for blocked in (house.upload(OTHER), house.configure(Timeout=5)):
            fault = await refusal(blocked)
            assert (fault.status, fault.message) == (409, IN_PROGRESS)
        house.gate.set()
        await house.settle()
        done = house.show()
        assert done["LastUpdateStatus"] == "Successful"
        assert done["RevisionId"] != shown["RevisionId"]
        after = house.registry.resolve(ARN)
        assert after.code_sha256 != before.code_sha256
        assert after.environment_key != before.environment_key

    play(tmp_path, story)


def test_pending_function_cannot_be_changed(tmp_path: Path):
    async def story(house: House) -> None:
        house.gate.clear()
        await house.create()
        for blocked in (house.upload(OTHER), house.configure(Timeout=5)):
            fault = await refusal(blocked)
            assert (
                fault.message == "The operation cannot be performed at this time. The function is currently in the following state: Pending"
            )
            assert fault.status == 409

    play(tmp_path, story)


def test_failed_update_leaves_the_old_one_running_and_can_be_mended(tmp_path: Path):
    async def story(house: House) -> None:
        await house.create()
        await house.settle()
        before = house.registry.resolve(ARN)
        house.prepare_fault = SandboxFault("no room")
        await house.configure(Timeout=5, Runtime="python3.11")
        await house.settle()
        shown = house.show()
        assert (shown["State"], shown["LastUpdateStatus"], shown["LastUpdateStatusReason"]) == ("Active", "Failed", "no room")
        assert shown["Timeout"] == 5
        assert house.registry.resolve(ARN) is before
        house.prepare_fault = None
        await house.configure(Timeout=6)
        await house.settle()
        assert house.show()["LastUpdateStatus"] == "Successful"
        assert house.registry.resolve(ARN).timeout_s == 6

    play(tmp_path, story)


def test_update_configuration_changes_what_is_listed_only(tmp_path: Path):
    async def story(house: House) -> None:
        await house.create(
            Environment={"Variables": {"A": "1", "B": "2"}}, Description="d", DeadLetterConfig={"TargetArn": "arn:aws:sqs:::q"}
        )
        await house.settle()
        house.clock.advance(1.5)
        before = house.show()
        await house.configure(
            Environment={"Variables": {"C": "3"}},
            LoggingConfig={"LogFormat": "JSON"},
            KMSKeyArn="arn:aws:kms:::k",
            TracingConfig={"Mode": "Active"},
        )
        await house.settle()
        after = house.show()
        changed = {name for name in before | after if before.get(name) != after.get(name)}
        assert changed == {"Environment", "LoggingConfig", "KMSKeyArn", "TracingConfig", "LastModified", "RevisionId"}
        assert after["Environment"] == {"Variables": {"C": "3"}}
        assert after["LastModified"] == "2026-01-01T00:00:01.500+0000"
        assert after["LoggingConfig"] == {
            "LogFormat": "JSON",
            "LogGroup": "/aws/lambda/f",
            "ApplicationLogLevel": "INFO",
            "SystemLogLevel": "INFO",
        }
        await house.configure(
            LoggingConfig={"ApplicationLogLevel": "ERROR"}, KMSKeyArn="", DeadLetterConfig={"TargetArn": ""}, Environment={}
        )
        await house.settle()
        after = house.show()
        assert after["LoggingConfig"]["ApplicationLogLevel"] == "ERROR"
        assert after["Environment"] == {"Variables": {}}
        assert "KMSKeyArn" not in after
        assert "DeadLetterConfig" not in after
        await house.configure(LoggingConfig={"LogFormat": "Text"})
        await house.settle()
        assert house.show()["LoggingConfig"] == {"LogFormat": "Text", "LogGroup": "/aws/lambda/f"}
        assert "change the LogFormat to" in (await refusal(house.configure(LoggingConfig={"SystemLogLevel": "WARN"}))).message

    play(tmp_path, story)


def test_revision_id(tmp_path: Path):
    async def story(house: House) -> None:
        await house.create()
        await house.settle()
        stale = "00000000-0000-4000-8000-000000000000"
        for call in (house.configure(Timeout=5, RevisionId=stale), house.upload(OTHER, RevisionId=stale)):
            fault = await refusal(call)
            assert (fault.code, fault.status) == ("PreconditionFailedException", 412)
            assert fault.message.startswith(
                "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API"
            )
        await house.configure(Timeout=5, RevisionId=house.show()["RevisionId"])
        await house.settle()
        assert house.show()["Timeout"] == 5
        seen = house.show()["RevisionId"]
        await house.tags.tag(house.call(), {"Resource": FUNCTION_ARN, "Tags": {"a": "b"}})
        assert house.show()["RevisionId"] != seen

    play(tmp_path, story)


def test_dry_run_changes_nothing(tmp_path: Path):
    async def story(house: House) -> None:
        await house.create()
        await house.settle()
        before, commits = house.show(), house.store.commits
        shown = await house.upload(OTHER, DryRun=True)
        assert shown["CodeSize"] == len(OTHER)
        assert {name for name in before if before[name] != shown[name]} == {"CodeSize", "CodeSha256"}
        assert (await refusal(house.upload(b"junk", DryRun=True))).message.startswith("Could not unzip")
        assert house.show() == before
        assert house.store.commits == commits
        assert len(list(tmp_path.iterdir())) == 1

    play(tmp_path, story)


def test_delete(tmp_path: Path):
    async def story(house: House) -> None:
        await house.create()
        await house.settle()
        assert (
            await refusal(house.delete(Qualifier="$LATEST"))
        ).message == "$LATEST version cannot be deleted without deleting the function."
        assert (await refusal(house.delete(Qualifier="prod"))).message == "Deletion of aliases is not currently supported."
        await house.delete(Qualifier="7")
        assert house.show()["State"] == "Active"
        await house.delete()
        for gone in (house.delete(), house.delete(Qualifier="7"), house.configure(Timeout=5), house.upload(OTHER)):
            fault = await refusal(gone)
            assert (fault.code, fault.status, fault.message) == ("ResourceNotFoundException", 404, f"Function not found: {FUNCTION_ARN}")
        assert refusal_now(house.show).message == f"Function not found: {FUNCTION_ARN}"
        assert refusal_now(lambda: house.registry.resolve(ARN)).status == 404

    play(tmp_path, story)


def test_deleted_while_it_was_prepared(tmp_path: Path):
    async def story(house: House) -> None:
        house.gate.clear()
        await house.create()
        await house.delete()
        await house.create(Timeout=7)
        house.gate.set()
        await house.settle()
        assert (house.show()["State"], house.show()["Timeout"]) == ("Active", 7)

    play(tmp_path, story)


def test_code_goes_when_the_last_function_lets_go_of_it(tmp_path: Path):
    async def story(house: House) -> None:
        await house.create("f")
        await house.create("g")
        await house.settle()
        await house.upload(OTHER, "f")
        await house.settle()
        house.clock.advance(GRACE_S)
        await house.settle()
        assert len(list(tmp_path.iterdir())) == 2
        code = house.registry.resolve(ARN).code_sha256
        house.running.add(code)
        await house.delete("f")
        for _ in range(3):
            house.clock.advance(GRACE_S)
            await house.settle()
        assert len(list(tmp_path.iterdir())) == 2  # an environment of f is still alive
        house.running.clear()
        house.clock.advance(GRACE_S)
        await house.settle()
        assert len(list(tmp_path.iterdir())) == 1
        assert code not in house.disk.blobs
        assert ("code", code) not in house.disk.documents

    play(tmp_path, story)


def test_get_function(tmp_path: Path):
    async def story(house: House) -> None:
        await house.create(Tags={"team": "x"})
        await house.settle()
        answer = house.functions.get(house.call(), {"FunctionName": "f"})
        assert set(answer) == {"Configuration", "Code", "Tags"}
        assert answer["Tags"] == {"team": "x"}
        assert answer["Code"]["RepositoryType"] == "S3"
        assert answer["Code"]["Location"].startswith("http://host:4566/_lambent/code/")
        latest = house.functions.get(house.call(), {"FunctionName": "f", "Qualifier": "$LATEST"})
        assert "Tags" not in latest
        assert latest["Configuration"]["FunctionArn"] == f"{FUNCTION_ARN}:$LATEST"

    play(tmp_path, story)


def test_list_is_sorted_paged_and_leaves_out_states(tmp_path: Path):
    async def story(house: House) -> None:
        names = [f"fn-{number:03d}" for number in range(120)]
        for name in reversed(names):
            await house.create(name)
        await house.settle()
        call = house.call()
        seen: list[str] = []
        pages = 0
        marker: dict[str, str] = {}
        while True:
            page = house.functions.list_functions(call, {"MaxItems": 10_000, **marker})
            pages += 1
            seen += [item["FunctionName"] for item in page["Functions"]]
            for item in page["Functions"]:
                assert not {"State", "LastUpdateStatus", "RuntimeVersionConfig"} & set(item)
            if "NextMarker" not in page:
                break
            marker = {"Marker": page["NextMarker"]}
        assert (seen, pages) == (names, 3)
        small_page = house.functions.list_functions(call, {"MaxItems": 2, "Marker": marker["Marker"]})
        assert [item["FunctionName"] for item in small_page["Functions"]] == names[100:102]
        await house.delete("fn-099")  # where the marker points
        again = house.functions.list_functions(call, {"MaxItems": 1, "Marker": marker["Marker"]})
        assert again["Functions"][0]["FunctionName"] == "fn-100"
        for bad in ("x", "!!", "bGFtYmVudA==", marker["Marker"] + "A", "é", " "):
            assert (
                refusal_now(lambda bad=bad: house.functions.list_functions(call, {"Marker": bad})).code == "InvalidParameterValueException"
            )
        every = house.functions.list_functions(call, {"FunctionVersion": "ALL", "MaxItems": 1})
        assert every["Functions"][0]["FunctionArn"].endswith("fn-000:$LATEST")
        assert refusal_now(lambda: house.functions.list_functions(call, {"MasterRegion": "ALL"})).status == 400
        elsewhere = house.functions.list_functions(call, {"MasterRegion": "eu-west-1", "FunctionVersion": "ALL"})
        assert elsewhere == {"Functions": []}
        assert house.functions.list_functions(house.call(account="000000000000"), {}) == {"Functions": []}

    play(tmp_path, story)


def test_last_page_that_is_full_has_no_marker(tmp_path: Path):
    async def story(house: House) -> None:
        for name in ("a", "b"):
            await house.create(name)
        assert "NextMarker" not in house.functions.list_functions(house.call(), {"MaxItems": 2})
        assert "NextMarker" in house.functions.list_functions(house.call(), {"MaxItems": 1})

    play(tmp_path, story)


@pytest.mark.parametrize(
    ("name", "arn"),
    [
        ("f", FUNCTION_ARN),
        (f"{ACCOUNT}:function:f", FUNCTION_ARN),
        ("function:f", FUNCTION_ARN),
        (FUNCTION_ARN, FUNCTION_ARN),
        ("f:$LATEST", f"{FUNCTION_ARN}:$LATEST"),
        (f"{FUNCTION_ARN}:$LATEST", f"{FUNCTION_ARN}:$LATEST"),
    ],
)
def test_every_form_of_a_name(tmp_path: Path, name: str, arn: str):
    async def story(house: House) -> None:
        await house.create()
        assert house.show(name)["FunctionArn"] == arn

    play(tmp_path, story)


@pytest.mark.parametrize(
    ("params", "code", "status", "message"),
    [
        ({"FunctionName": "x"}, "ResourceNotFoundException", 404, f"Function not found: {FUNCTION_ARN[:-1]}x"),
        ({"FunctionName": "x" * 65}, "ResourceNotFoundException", 404, f"Function not found: {FUNCTION_ARN[:-1]}{'x' * 65}"),
        ({"FunctionName": "f.x"}, "ResourceNotFoundException", 404, f"Function not found: {FUNCTION_ARN}.x"),
        ({"FunctionName": "f:1"}, "ResourceNotFoundException", 404, f"Function not found: {FUNCTION_ARN}:1"),
        ({"FunctionName": "f", "Qualifier": "$latest"}, "ResourceNotFoundException", 404, f"Function not found: {FUNCTION_ARN}:$latest"),
        (
            {"FunctionName": "f:1", "Qualifier": "2"},
            "InvalidParameterValueException",
            400,
            "The derived qualifier from the function name does not match the specified qualifier.",
        ),
        (
            {"FunctionName": FUNCTION_ARN.replace(REGION, "eu-west-1")},
            "ResourceNotFoundException",
            404,
            "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')",
        ),
        (
            {"FunctionName": FUNCTION_ARN.replace(ACCOUNT, "999999999999")},
            "AccessDeniedException",
            403,
            f"User: arn:aws:iam::{ACCOUNT}:root is not authorized to perform: lambda:GetFunction on resource: "
            f"{FUNCTION_ARN.replace(ACCOUNT, '999999999999')} because no resource-based policy allows the lambda:GetFunction action",
        ),
    ],
)
def test_names_that_are_refused(tmp_path: Path, params: dict[str, str], code: str, status: int, message: str):
    async def story(house: House) -> None:
        await house.create()
        fault = refusal_now(lambda: house.functions.get(house.call(), params))
        assert (fault.code, fault.status, fault.message) == (code, status, message)

    play(tmp_path, story)


ENV = "Lambda was unable to configure your environment variables because the environment variables you have provided"


@pytest.mark.parametrize(
    ("params", "code", "text"),
    [
        ({"FunctionName": "n" * 65}, "InvalidParameterValueException", "Member must have length less than or equal to 64"),
        ({"FunctionName": "f:1"}, "InvalidParameterValueException", "Member must satisfy regular expression pattern"),
        (
            {"MemorySize": 10_241},
            "ValidationException",
            "at 'memorySize' failed to satisfy constraint: Member must have value less than or equal to 10240",
        ),
        ({"MemorySize": 127}, "ValidationException", "Member must have value greater than or equal to 128"),
        (
            {"Timeout": 901},
            "ValidationException",
            "Value '901' at 'timeout' failed to satisfy constraint: Member must have value less than or equal to 900",
        ),
        ({"EphemeralStorage": {"Size": 10_241}}, "ValidationException", "'ephemeralStorage.size'"),
        ({"Timeout": 901, "MemorySize": 32_768}, "ValidationException", "2 validation errors detected: "),
        (
            {"Environment": {"Variables": {"OK": "1", "AWS_REGION": "x", "LAMBDA_TASK_ROOT": "y"}}},
            "InvalidParameterValueException",
            f"{ENV} contains reserved keys that are currently not supported for modification. "
            "Reserved keys used in this request: AWS_REGION, LAMBDA_TASK_ROOT",
        ),
        (
            {"Environment": {"Variables": {"K": "v" * 4_090}}},
            "InvalidParameterValueException",
            f'{ENV} exceeded the 4KB limit. String measured: {{"K":"{"v" * 4_090}"}}',
        ),
        ({"Environment": {"Variables": {"K": "ü" * 2_045}}}, "InvalidParameterValueException", "exceeded the 4KB limit"),
        ({"Architectures": ["arm64"]}, "InvalidParameterValueException", "this machine runs x86_64 functions only"),
        ({"Runtime": "cobol"}, "InvalidParameterValueException", "unknown cobol"),
        ({"Runtime": "python3.13"}, "InvalidParameterValueException", "no interpreter for python3.13"),
        ({"Runtime": None}, "InvalidParameterValueException", "Runtime and Handler are mandatory parameters"),
        ({"Handler": None}, "InvalidParameterValueException", "Runtime and Handler are mandatory parameters"),
        ({"Code": {}}, "InvalidParameterValueException", "Please provide a source for function code."),
        (
            {"Code": {"ZipFile": b"x", "S3Key": "k"}},
            "InvalidParameterValueException",
            "Please do not provide other FunctionCode parameters",
        ),
        ({"Code": {"ZipFile": b"junk"}}, "InvalidParameterValueException", "Could not unzip uploaded file."),
        ({"Tags": {f"t{n}": "" for n in range(51)}}, "InvalidParameterValueException", "Number of tags exceeds resource tag limit."),
        (
            {"LoggingConfig": {"ApplicationLogLevel": "INFO"}},
            "InvalidParameterValueException",
            'LogLevel is not supported when LogFormat is set to "Text"',
        ),
    ],
)
def test_create_refuses(tmp_path: Path, params: dict[str, Any], code: str, text: str):
    async def story(house: House) -> None:
        fault = await refusal(house.functions.create(house.call(), creation() | params))
        assert fault.code == code
        assert text in fault.message
        assert house.functions.list_functions(house.call(), {}) == {"Functions": []}
        assert house.disk.blobs == {}

    play(tmp_path, story)


def test_environment_of_exactly_the_limit(tmp_path: Path):
    async def story(house: House) -> None:
        variables = {"KEY": "v" * (4_096 - len('{"KEY":""}'))}
        assert len(json.dumps(variables, separators=(",", ":"))) == 4_096
        await house.create(Environment={"Variables": variables})

    play(tmp_path, story)


def test_what_has_no_effect_yet_is_not_accepted_in_silence(tmp_path: Path):
    async def story(house: House) -> None:
        with pytest.raises(NotImplementedFault, match="Runtime"):
            await house.functions.create(house.call(), creation() | {"Runtime": "custom"})

    play(tmp_path, story)


def test_empty_forms_of_what_is_not_there_yet_are_harmless(tmp_path: Path):
    async def story(house: House) -> None:
        shown = await house.create(
            Publish=False,
            Layers=[],
            FileSystemConfigs=[],
            VpcConfig={"SubnetIds": [], "SecurityGroupIds": []},
            SnapStart={"ApplyOn": "None"},
        )
        assert shown["VpcConfig"] == {"SubnetIds": [], "SecurityGroupIds": [], "VpcId": "", "Ipv6AllowedForDualStack": False}
        await house.settle()
        assert (await refusal(house.upload(OTHER, ImageUri="x"))).message == (
            "Please don't provide ImageUri when updating a function with packageType Zip."
        )

    play(tmp_path, story)


def test_tags(tmp_path: Path):
    async def story(house: House) -> None:
        await house.create()
        await house.settle()

        async def tag(tags: dict[str, str], resource: str = FUNCTION_ARN) -> None:
            await house.tags.tag(house.call(), {"Resource": resource, "Tags": tags})

        await tag({"a": "1", "b": "2"})
        await tag({"b": "3"})
        assert house.tags.list_tags(house.call(), {"Resource": FUNCTION_ARN}) == {"a": "1", "b": "3"}
        await house.tags.untag(house.call(), {"Resource": FUNCTION_ARN, "TagKeys": ["a", "never"]})
        assert house.tags.list_tags(house.call(), {"Resource": FUNCTION_ARN}) == {"b": "3"}
        assert (await refusal(tag({}))).message == "An error occurred and the request cannot be processed."
        assert (await refusal(tag({f"t{n}": "" for n in range(50)}))).message == "Number of tags exceeds resource tag limit."
        await tag({f"t{n}": "" for n in range(49)})
        assert (await refusal(tag({"x": ""}, f"{FUNCTION_ARN}:1"))).message == (
            "Tags on function aliases and versions are not supported. Please specify a function ARN."
        )
        assert (await refusal(tag({"x": ""}, f"{FUNCTION_ARN}x"))).status == 404
        mapping = f"arn:aws:lambda:{REGION}:{ACCOUNT}:event-source-mapping:00000000-0000-0000-0000-000000000000"
        assert "event-source-mapping" in (await refusal(tag({"x": ""}, mapping))).message
        house.gate.clear()
        await house.configure(Timeout=4)
        assert (await refusal(tag({"x": "y"}))).message == IN_PROGRESS

    play(tmp_path, story)


def test_no_tag_of_64_concurrent_writers_is_lost(tmp_path: Path):
    async def story(house: House) -> None:
        await house.create()
        await house.settle()
        tags = [{f"k{n % 40}": str(n)} for n in range(64)]
        await asyncio.gather(*(house.tags.tag(house.call(), {"Resource": FUNCTION_ARN, "Tags": tag}) for tag in tags))
        assert set(house.tags.list_tags(house.call(), {"Resource": FUNCTION_ARN})) == {f"k{n}" for n in range(40)}

    play(tmp_path, story)


def test_account_settings(tmp_path: Path):
    async def story(house: House) -> None:
        await house.create("f", zipped({"a": b"12345"}))
        await house.create("g", zipped({"a": b"12345"}))
        answer = house.account.settings(house.call())
        assert answer["AccountLimit"] == {
            "TotalCodeSize": 322_122_547_200,
            "CodeSizeUnzipped": 262_144_000,
            "CodeSizeZipped": 52_428_800,
            "ConcurrentExecutions": 1_000,
            "UnreservedConcurrentExecutions": 1_000,
        }
        assert answer["AccountUsage"] == {"TotalCodeSize": 10, "FunctionCount": 2}
        await house.settle()
        await house.delete("f")
        await house.upload(zipped({"a": b"1"}), "g")
        assert house.account.settings(house.call())["AccountUsage"] == {"TotalCodeSize": 1, "FunctionCount": 1}

    play(tmp_path, story)


def test_code_storage_is_bounded(tmp_path: Path):
    async def story(house: House) -> None:
        await house.create("f", zipped({"a": b"x" * 60}))
        assert (await refusal(house.create("g", zipped({"a": b"x" * 41})))).code == "CodeStorageExceededException"
        await house.settle()
        await house.upload(zipped({"a": b"y" * 100}))
        await house.settle()
        assert (await refusal(house.upload(zipped({"a": b"z" * 101})))).code == "CodeStorageExceededException"

    play(tmp_path, story, small(code_storage=100))


def test_story_of_a_function(tmp_path: Path):
    async def story(house: House) -> None:
        await house.create()
        await house.settle()
        entries = house.functions.story("f", REGION, ACCOUNT)
        assert [(entry["event"], entry["state"]) for entry in entries] == [("Create", "creating"), ("Prepared", "active")]
        assert entries[0]["cause"] == entries[1]["cause"]
        assert house.functions.story("none", REGION, ACCOUNT) == []

    play(tmp_path, story)

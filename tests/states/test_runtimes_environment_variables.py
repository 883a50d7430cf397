"""The environment of a runtime process, against contract 03 §5."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambent.arn import FunctionArn, zone_id
from lambent.function_version import FunctionVersion
from lambent.runtimes.environment_variables import RESERVED, Places, RoleCredentials, environment_variables, reserved

STREAM = "2026/11/21/[$LATEST]0123456789abcdef0123456789abcdef"


def version(runtime: str = "python3.12", log_group: str = "", **environment: str) -> FunctionVersion:
    return FunctionVersion(
        arn=FunctionArn("eu-central-1", "123456789012", "greeter"),
        version="7",
        runtime=runtime,
        handler="app.handler",
        code_sha256="",
        code_dir="/code",
        memory_mb=512,
        environment=environment,
        log_group=log_group,
    )


def test_the_whole_environment_of_a_plain_function():
    assert environment_variables(version(GREETING="hi"), STREAM) == {
        "_HANDLER": "app.handler",
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.12",
        "AWS_LAMBDA_FUNCTION_NAME": "greeter",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        "AWS_LAMBDA_FUNCTION_VERSION": "7",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/greeter",
        "AWS_LAMBDA_LOG_STREAM_NAME": STREAM,
        "AWS_LAMBDA_LOG_FORMAT": "Text",
        "AWS_ACCESS_KEY_ID": "123456789012",
        "AWS_SECRET_ACCESS_KEY": "lambent",
        "AWS_SESSION_TOKEN": "lambent",
        "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001",
        "LAMBDA_TASK_ROOT": "/var/task",
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
        "LD_LIBRARY_PATH": "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib",
        "PYTHONPATH": "/var/runtime",
        "PWD": "/var/task",
        "SHLVL": "0",
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        "AWS_XRAY_DAEMON_ADDRESS": "169.254.79.129:2000",
        "_AWS_XRAY_DAEMON_ADDRESS": "169.254.79.129",
        "_AWS_XRAY_DAEMON_PORT": "2000",
        "GREETING": "hi",
    }


def test_what_a_function_may_override_it_overrides():
    mine = {"TZ": "Asia/Tokyo", "PATH": "/x", "LANG": "C", "PYTHONPATH": "/opt/mine", "AWS_ENDPOINT_URL": "http://elsewhere"}
    environment = environment_variables(version(**mine), STREAM, places=Places(endpoint_url="http://127.0.0.1:4566"))
    assert {name: environment[name] for name in mine} == mine


@given(st.dictionaries(st.sampled_from(sorted(RESERVED)), st.text(min_size=1)))
def test_what_is_reserved_stays_as_it_is(variables):
    assert environment_variables(version(**variables), STREAM) == environment_variables(version(), STREAM)


def test_reserved_names_are_told_in_the_order_given():
    assert reserved(["B", "AWS_REGION", "A", "_HANDLER", "aws_region"]) == ["AWS_REGION", "_HANDLER"]


def test_log_settings():
    text = environment_variables(version(), STREAM, log_level="DEBUG")
    assert (text["AWS_LAMBDA_LOG_FORMAT"], text.get("AWS_LAMBDA_LOG_LEVEL")) == ("Text", None)
    json = environment_variables(version(), STREAM, log_format="JSON")
    assert (json["AWS_LAMBDA_LOG_FORMAT"], json["AWS_LAMBDA_LOG_LEVEL"]) == ("JSON", "INFO")
    assert environment_variables(version(), STREAM, log_format="JSON", log_level="WARN")["AWS_LAMBDA_LOG_LEVEL"] == "WARN"
    assert environment_variables(version(log_group="/mine"), STREAM)["AWS_LAMBDA_LOG_GROUP_NAME"] == "/mine"


def test_only_managed_runtimes_name_an_execution_environment():
    assert "AWS_EXECUTION_ENV" not in environment_variables(version("provided.al2023"), STREAM)
    assert environment_variables(version("nodejs22.x"), STREAM)["AWS_EXECUTION_ENV"] == "AWS_Lambda_nodejs22.x"


def test_places_credentials_and_endpoint():
    places = Places("/t", "/r", "127.0.0.1:1", "http://127.0.0.1:4566")
    environment = environment_variables(version(), STREAM, places=places, credentials=RoleCredentials("ASIA", "s", "t"))
    assert [environment[name] for name in ("LAMBDA_TASK_ROOT", "PWD", "LAMBDA_RUNTIME_DIR", "PYTHONPATH")] == ["/t", "/t", "/r", "/r"]
    assert environment["LD_LIBRARY_PATH"].endswith(":/r:/r/lib:/t:/t/lib:/opt/lib")
    assert (environment["AWS_LAMBDA_RUNTIME_API"], environment["AWS_ENDPOINT_URL"]) == ("127.0.0.1:1", "http://127.0.0.1:4566")
    assert [environment[f"AWS_{name}"] for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")] == ["ASIA", "s", "t"]


def test_what_a_runtime_adds_a_function_may_override():
    plain = version("nodejs22.x")
    defaults = {"NODE_PATH": "/opt/nodejs/node_modules", "_HANDLER": "not.this"}
    environment = environment_variables(plain, STREAM, defaults=defaults)
    assert (environment["NODE_PATH"], environment["_HANDLER"], "PYTHONPATH" in environment) == (defaults["NODE_PATH"], "app.handler", False)
    mine = environment_variables(version("nodejs22.x", NODE_PATH="/mine"), STREAM, defaults=defaults)
    assert mine["NODE_PATH"] == "/mine"


def test_metadata_is_told_of_where_there_is_a_token():
    told = environment_variables(version(), STREAM, metadata_token="secret", places=Places(runtime_api="127.0.0.1:7"))
    assert told["AWS_LAMBDA_METADATA_API"] == "127.0.0.1:7"
    assert told["AWS_LAMBDA_METADATA_TOKEN"] == "secret"
    assert "AWS_LAMBDA_METADATA_API" not in environment_variables(version(AWS_LAMBDA_METADATA_API="mine"), STREAM)


@pytest.mark.parametrize(
    ("region", "zone"),
    [
        ("us-east-1", "use1-az1"),
        ("eu-central-1", "euc1-az1"),
        ("ap-southeast-2", "apse2-az1"),
        ("us-gov-west-1", "usgw1-az1"),
        ("mars", "mars-az1"),
    ],
)
def test_the_first_zone_of_a_region(region: str, zone: str):
    assert zone_id(region) == zone

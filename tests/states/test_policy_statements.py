"""Statements of policies as AWS stores them (contract 04 §8), and where results of invocations may go."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lambent.arn import FunctionArn
from lambent.control.destinations import Destinations, check_dead_letters
from lambent.control.policy_statements import compact, parse, require_length, statement, with_statement, without_statement
from lambent.errors import ClientFault

ARN = FunctionArn("us-east-1", "123456789012", "f")
ROLE = "arn:aws:iam::123456789012:role/r"


def made(**params: Any) -> dict[str, Any]:
    return statement({"StatementId": "s", "Action": "lambda:InvokeFunction", "Principal": "*", **params}, str(ARN))


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("*", "*"),
        ("s3.amazonaws.com", {"Service": "s3.amazonaws.com"}),
        ("logs.us-east-1.amazonaws.com", {"Service": "logs.us-east-1.amazonaws.com"}),
        ("alexa-appkit.amazon.com", {"Service": "alexa-appkit.amazon.com"}),
        ("123456789012", {"AWS": "arn:aws:iam::123456789012:root"}),
        (ROLE, {"AWS": ROLE}),
    ],
)
def test_principals(given: str, stored: Any):
    assert made(Principal=given) == {
        "Sid": "s",
        "Effect": "Allow",
        "Principal": stored,
        "Action": "lambda:InvokeFunction",
        "Resource": str(ARN),
    }


@pytest.mark.parametrize("given", ["nobody", "12345", "arn:aws:s3:::b", "s3.example.com", "amazonaws.com.evil"])
def test_no_principals(given: str):
    with pytest.raises(ClientFault) as caught:
        made(Principal=given)
    assert caught.value.message == "The provided principal was invalid. Please check the principal and try again."


def test_conditions():
    condition = made(
        Action="lambda:InvokeFunctionUrl",
        SourceArn="arn:aws:s3:::b",
        SourceAccount="123456789012",
        PrincipalOrgID="o-1234567890",
        EventSourceToken="t",
        FunctionUrlAuthType="NONE",
        InvokedViaFunctionUrl=True,
    )["Condition"]
    assert condition == {
        "ArnLike": {"AWS:SourceArn": "arn:aws:s3:::b"},
        "StringEquals": {
            "AWS:SourceAccount": "123456789012",
            "aws:PrincipalOrgID": "o-1234567890",
            "lambda:EventSourceToken": "t",
            "lambda:FunctionUrlAuthType": "NONE",
        },
        "Bool": {"lambda:InvokedViaFunctionUrl": "true"},
    }


def test_statements_come_and_go():
    policy = with_statement(None, made())
    assert json.loads(compact(policy)) == {"Version": "2012-10-17", "Id": "default", "Statement": [made()]}
    with pytest.raises(ClientFault) as caught:
        with_statement(policy, made(Principal="123456789012"))
    assert (caught.value.code, caught.value.status) == ("ResourceConflictException", 409)
    both = with_statement(policy, made(StatementId="t"))
    assert without_statement(both, "t") == policy
    assert without_statement(policy, "s") is None
    for held, message in (
        (policy, "Statement x is not found in resource policy."),
        (None, "No policy is associated with the given resource."),
    ):
        with pytest.raises(ClientFault) as caught:
            without_statement(held, "x")
        assert (caught.value.status, caught.value.message) == (404, message)


def test_length():
    policy = with_statement(None, made())
    size = len(compact(policy))
    require_length(policy, size)
    with pytest.raises(ClientFault) as caught:
        require_length(policy, size - 1)
    assert caught.value.code == "PolicyLengthExceededException"


def test_whole_policies():
    text = json.dumps({"Statement": {"Effect": "Deny", "Principal": {"AWS": [ROLE]}, "Action": ["lambda:*"], "Resource": str(ARN)}})
    assert parse(text, str(ARN))["Statement"][0]["Effect"] == "Deny"


@pytest.mark.parametrize(
    "document",
    [
        "[",
        "[]",
        "{}",
        '{"Statement": []}',
        {"Effect": "Maybe"},
        {"Principal": "me"},
        {"Principal": {}},
        {"Action": "s3:GetObject"},
        {"Action": []},
        {"Resource": "*"},
        {"Resource": f"{ARN}:1"},
        {"Condition": []},
        {"More": 1},
        {"Sid": 1},
    ],
)
def test_no_policies(document: Any):
    good = {"Effect": "Allow", "Principal": "*", "Action": "lambda:InvokeFunction", "Resource": str(ARN)}
    parse(json.dumps({"Statement": [good]}), str(ARN))
    text = document if isinstance(document, str) else json.dumps({"Statement": [{**good, **document}]})
    with pytest.raises(ClientFault) as caught:
        parse(text, str(ARN))
    assert caught.value.code == "InvalidParameterValueException"


# -- destinations -------------------------------------------------------------------------------------------------------------------------

QUEUE, TOPIC, BUCKET = "arn:aws:sqs:us-east-1:123456789012:q", "arn:aws:sns:us-east-1:123456789012:t", "arn:aws:s3:::b"
OTHER = "arn:aws:lambda:us-east-1:123456789012:function:g"


def places(success: str = "", failure: str = "") -> dict[str, Any]:
    known = Destinations(lambda arn: arn.name in ("f", "g"), lambda arn: arn == QUEUE)
    return known.of_invocations({"OnSuccess": {"Destination": success}, "OnFailure": {"Destination": failure}}, ARN.qualified("live"))


def test_destinations():
    assert places() == {"OnSuccess": {}, "OnFailure": {}}
    assert places(QUEUE, BUCKET) == {"OnSuccess": {"Destination": QUEUE}, "OnFailure": {"Destination": BUCKET}}
    assert places(OTHER, "arn:aws:events:us-east-1:123456789012:event-bus/b")["OnSuccess"] == {"Destination": OTHER}


@pytest.mark.parametrize(
    ("success", "failure", "message"),
    [
        (str(ARN), "", "You can't specify the function as a destination for itself."),
        ("", f"{ARN}:1", "You can't specify the function as a destination for itself."),
        (f"{OTHER}x", "", f"The destination ARN {OTHER}x is invalid."),
        (f"{QUEUE}x", "", f"The destination ARN {QUEUE}x is invalid."),
        (
            BUCKET,
            "",
            f"The provided destination config DestinationConfig(onSuccess=OnSuccess(destination={BUCKET}), onFailure=null) is invalid.",
        ),
        (
            TOPIC,
            f"{TOPIC}.fifo",
            f"The provided destination config DestinationConfig(onSuccess=OnSuccess(destination={TOPIC}), "
            f"onFailure=OnFailure(destination={TOPIC}.fifo)) is invalid.",
        ),
    ],
)
def test_no_destinations(success: str, failure: str, message: str):
    with pytest.raises(ClientFault) as caught:
        places(success, failure)
    assert (caught.value.code, caught.value.message) == ("InvalidParameterValueException", message)


def test_dead_letters():
    check_dead_letters(QUEUE)
    check_dead_letters(TOPIC)
    for arn in (BUCKET, OTHER, f"{QUEUE}.fifo"):
        with pytest.raises(ClientFault):
            check_dead_letters(arn)

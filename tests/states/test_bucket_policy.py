"""What a bucket's policy lets Lambda read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lambent.objects.bucket_policy import lets_lambda_read

ARN = "arn:aws:lambda:us-east-1:123456789012:function:f"
GRANT: dict[str, Any] = {
    "Effect": "Allow",
    "Principal": {"Service": "lambda.amazonaws.com"},
    "Action": ["s3:GetObject", "s3:GetObjectVersion"],
    "Resource": "arn:aws:s3:::b/code/f.zip",
}
DENIAL: dict[str, Any] = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "*"}
LIKE = {"ArnLike": {"aws:SourceArn": "arn:aws:lambda:*:123456789012:function:f"}}


def allowed(*statements: Any) -> bool:
    return lets_lambda_read(json.dumps({"Statement": list(statements)}), "b/code/f.zip", ARN, "123456789012")


@pytest.mark.parametrize(
    "statement",
    [
        GRANT,
        {**GRANT, "Principal": "*"},
        {**GRANT, "Principal": {"Service": ["s3.amazonaws.com", "lambda.amazonaws.com"]}},
        {**GRANT, "Action": "s3:Get*"},
        {**GRANT, "Action": "S3:GETOBJECT*"},
        {**GRANT, "Resource": ["arn:aws:s3:::other/*", "arn:aws:s3:::b/*"]},
        {**GRANT, "Resource": "arn:aws-cn:s3:::b/code/?.zip"},
        {**GRANT, "Condition": LIKE},
        {**GRANT, "Condition": {"StringEquals": {"AWS:SourceAccount": ["1", "123456789012"]}, **LIKE}},
    ],
)
def test_what_grants(statement: dict[str, Any]) -> None:
    assert allowed(statement)
    assert not allowed(statement, DENIAL)


@pytest.mark.parametrize(
    "statement",
    [
        {**GRANT, "Effect": "Deny"},
        {**GRANT, "Principal": {"Service": "s3.amazonaws.com"}},
        {**GRANT, "Principal": {"AWS": "arn:aws:iam::123456789012:root"}},
        {**GRANT, "Action": "s3:GetObject"},
        {**GRANT, "Resource": "arn:aws:s3:::b/other/*"},
        {**GRANT, "Resource": "arn:aws:s3:::b/code/[f].zip"},
        {**GRANT, "Resource": "arn:aws:s3:::b"},
        {**GRANT, "Condition": {"ArnLike": {"aws:SourceArn": "arn:aws:lambda:*:*:function:g"}}},
        {**GRANT, "Condition": {"StringEquals": {"aws:SourceArn": "arn:aws:lambda:*"}}},
        {**GRANT, "Condition": {"Bool": {"aws:SecureTransport": "true"}}},
        {**GRANT, "Condition": "always"},
        {**GRANT, "NotResource": "arn:aws:s3:::b/x"},
        {"Effect": "Allow"},
        "everything",
    ],
)
def test_what_grants_nothing(statement: Any) -> None:
    assert not allowed(statement)


def test_a_denial_counts_where_it_cannot_be_told_whether_it_is_meant() -> None:
    assert not allowed(GRANT, {**DENIAL, "Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}})
    assert allowed(GRANT, {**DENIAL, "Condition": {"StringEquals": {"aws:SourceAccount": "000000000000"}}})
    assert allowed(GRANT, {**DENIAL, "Resource": "arn:aws:s3:::b/other"})


@pytest.mark.parametrize("policy", ["", "no JSON", "[]", "7", '{"Statement": 7}'])
def test_no_policy_grants_nothing(policy: str) -> None:
    assert not lets_lambda_read(policy, "b/k", ARN, "123456789012")


def test_many_stars_cost_nothing() -> None:
    assert not allowed({**GRANT, "Resource": "arn:aws:s3:::b/" + "*a" * 2_000})

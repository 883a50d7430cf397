"""Names of runtimes: AWS's enumeration, AWS's words."""

from __future__ import annotations

import pytest
from botocore.loaders import Loader

from lambent.runtimes.catalogue import FINDERS
from lambent.runtimes.identifiers import DEPRECATED, FAMILIES, KNOWN, SUPPORTED, Status, family, refusal, status


def test_every_runtime_that_aws_names_has_one_verdict():
    names = Loader().load_service_model("lambda", "service-2")["shapes"]["Runtime"]["enum"]
    assert sorted((*SUPPORTED, *KNOWN, *DEPRECATED)) == sorted(names)


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("python3.8", Status.SUPPORTED),
        ("python3.14", Status.SUPPORTED),
        ("nodejs16.x", Status.SUPPORTED),
        ("nodejs26.x", Status.SUPPORTED),
        ("python3.15", Status.KNOWN),
        ("custom", Status.KNOWN),
        ("python3.7", Status.DEPRECATED),
        ("python2.7", Status.DEPRECATED),
        ("go1.x", Status.DEPRECATED),
        ("nodejs14.x", Status.DEPRECATED),
        ("python3.99", Status.UNKNOWN),
        ("nodejs17.x", Status.UNKNOWN),
        ("Python3.12", Status.UNKNOWN),
        ("", Status.UNKNOWN),
    ],
)
def test_verdicts(name, verdict):
    assert status(name) is verdict


def test_what_is_supported_is_not_refused_and_has_a_finder():
    assert {refusal(name) for name in SUPPORTED} == {None}
    assert {family(name) for name in SUPPORTED} <= {"python", *FINDERS}
    assert set(FAMILIES) == {"python", *FINDERS}
    assert family("nodejs22.x") == "nodejs"
    assert family("custom") is family("go1.x") is family("nonsense") is None


def test_refusals_in_awss_words():
    deprecated, unknown, known = (refusal(name) for name in ("go1.x", "cobol85", "custom"))
    assert deprecated is not None
    assert unknown is not None
    assert known is not None
    assert {each.code for each in (deprecated, unknown, known)} == {"InvalidParameterValueException"}
    assert {each.status for each in (deprecated, unknown, known)} == {400}
    assert deprecated.message == (
        "The runtime parameter of go1.x is no longer supported for creating or updating AWS Lambda functions. "
        "We recommend you use a supported runtime while creating or updating functions."
    )
    before, names = unknown.message.split("[")
    assert before == "Value cobol85 at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: "
    assert names.endswith("] or be a valid ARN")
    assert set(names.split("]")[0].split(", ")) == {*SUPPORTED, *KNOWN}
    assert known.message.startswith("Lambent does not run custom functions yet. It runs python3.8, python3.9,")

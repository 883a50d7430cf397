"""The models are read whole, compiled right, and without botocore's machinery."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import wire_peer

from lambent.wire import models, patterns
from lambent.wire.models import SERVICES, Shape, UnknownModel, compile_service, load_service


def shapes_of(service: str) -> list[Shape]:
    found: dict[int, Shape] = {}

    def visit(shape: Shape | None) -> None:
        if shape is not None and id(shape) not in found:
            found[id(shape)] = shape
            for part in (shape.item, shape.key, shape.value, *(member.shape for member in shape.members.values())):
                visit(part)

    for operation in load_service(service).operations.values():
        visit(operation.input)
        visit(operation.output)
    return list(found.values())


@pytest.mark.parametrize("service", SERVICES)
def test_operations_are_those_of_the_newest_model(service):
    ours = load_service(service)
    theirs = wire_peer.model(service)
    assert ours.api_version == theirs.api_version
    assert ours.protocol == theirs.resolved_protocol
    assert list(ours.operations) == theirs.operation_names
    for name, operation in ours.operations.items():
        about = theirs.operation_model(name)
        assert (operation.method, operation.status) == (about.http["method"], about.http.get("responseCode", 200))
        assert list(operation.input.members if operation.input else ()) == list(about.input_shape.members if about.input_shape else ())
        assert list(operation.output.members if operation.output else ()) == list(about.output_shape.members if about.output_shape else ())
        assert operation.error_codes == tuple(shape.error_code for shape in about.error_shapes)


@pytest.mark.parametrize("service", SERVICES)
def test_every_pattern_compiles(service):
    sources = {shape.pattern for shape in shapes_of(service) if shape.pattern is not None}
    assert sources or service == "sqs"  # whose model has no patterns
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for source in sources:
            patterns.compile_pattern.cache_clear()
            assert patterns.compile_pattern(source)


def test_a_service_is_loaded_once():
    assert load_service("lambda") is load_service("lambda")


def test_starting_imports_nothing_of_botocore():
    code = "import sys; from lambent.wire.gateway import Gateway; Gateway(); print([name for name in sys.modules if 'boto' in name])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_starting_loads_lambda_only():
    code = "from lambent.wire import gateway, models; gateway.Gateway(); print(models.load_service.cache_info().currsize)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "1"


def model_of(**members: object) -> dict[str, object]:
    return {
        "metadata": {"protocol": "rest-json", "apiVersion": "1"},
        "operations": {"Do": {"name": "Do", "http": {"method": "GET", "requestUri": "/1/do"}, "input": {"shape": "In"}}},
        "shapes": {"In": {"type": "structure", "members": {"A": {"shape": "S", **members}}}, "S": {"type": "string"}},
    }


def test_what_is_not_understood_is_refused():
    with pytest.raises(UnknownModel, match="bound to 'headers'"):
        compile_service("x", model_of(location="headers"))
    odd = model_of()
    odd["metadata"] = {"protocol": "cbor", "apiVersion": "1"}
    with pytest.raises(UnknownModel, match="speaks 'cbor'"):
        compile_service("x", odd)


def test_missing_or_broken_files_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(models, "_newest", lambda name: tmp_path / "absent")
    with pytest.raises(UnknownModel, match="cannot be read"):
        load_service.__wrapped__("lambda")
    broken = tmp_path / "broken.json.gz"
    broken.write_bytes(gzip.compress(json.dumps({"metadata": {}}).encode()))
    monkeypatch.setattr(models, "_newest", lambda name: broken)
    with pytest.raises(UnknownModel, match="protocol"):
        load_service.__wrapped__("lambda")


def test_a_shape_may_contain_itself():
    model = model_of()
    model["shapes"]["In"]["members"]["Again"] = {"shape": "In"}  # type: ignore[index]
    operation = compile_service("x", model).operations["Do"]
    assert operation.input is not None
    assert operation.input.members["Again"].shape is operation.input

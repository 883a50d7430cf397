"""Which function may take over a warm interpreter, what extensions see, and which folders may be mounted: the pure part of orders."""

from __future__ import annotations

from pathlib import Path

import pytest

from lambent.errors import SandboxFault
from lambent.runtimes.plan import RuntimePlan
from lambent.sandbox.companions import extension_environment
from lambent.sandbox.driver import Mount, Program, SandboxSpec
from lambent.sandbox.orders import IMAGE, USUAL, may_be_warm, runtime_of, start_order, warm_environment
from lambent.settings import load

WARM = warm_environment(RuntimePlan("nodejs20.x", "20", "frames", environment={"NODE_PATH": "/opt/nodejs/node_modules"}))


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({}, True),
        ({"FOO": "bar", "PATH": "/elsewhere", "AWS_REGION": "eu-west-1"}, True),
        ({"NODE_OPTIONS": "--inspect"}, False),
        ({"NODE_PATH": "/opt/nodejs/node_modules"}, True),
        ({"NODE_PATH": "/other"}, False),
        ({"NODE_EXTRA_CA_CERTS": "/var/task/ca.pem"}, False),
        ({"LD_PRELOAD": "/opt/lib.so"}, False),
        ({"LD_LIBRARY_PATH": "/opt/lib"}, False),
        ({"JAVA_TOOL_OPTIONS": "-Xmx1g"}, False),
        ({"_JAVA_OPTIONS": "-Xmx1g"}, False),
        ({"RUBYOPT": "-w"}, False),
        ({"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrap"}, False),
        ({"TZ": "Europe/Berlin"}, False),
        ({"LANG": "C"}, False),
        ({"LC_ALL": "C"}, False),
    ],
)
def test_a_warm_interpreter_serves_only_what_it_was_started_for(changes: dict[str, str], allowed: bool) -> None:
    assert may_be_warm({**WARM, **changes}, WARM) is allowed


def test_a_variable_that_is_missing_counts_too() -> None:
    assert not may_be_warm({name: value for name, value in WARM.items() if name != "LD_LIBRARY_PATH"}, WARM)


def test_extensions_do_not_see_what_belongs_to_the_runtime() -> None:
    given = {**USUAL, "_HANDLER": "a.b", "AWS_EXECUTION_ENV": "x", "FOO": "bar", "AWS_SESSION_TOKEN": "t"}
    seen = extension_environment(given)
    assert seen["FOO"] == "bar"
    assert seen["AWS_SESSION_TOKEN"] == "t"
    assert seen["AWS_LAMBDA_RUNTIME_API"] == "127.0.0.1:9001"
    assert not {"_HANDLER", "AWS_EXECUTION_ENV", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR"} & set(seen)


def spec(root: Path, **changes: object) -> SandboxSpec:
    given: dict[str, object] = {
        "sandbox_id": "1",
        "runtime": "nodejs20.x",
        "handler": "a.b",
        "code_dir": str(root / "code" / "a"),
        "memory_mb": 128,
        "ephemeral_mb": 512,
        "environment": WARM,
        "program": Program(("/usr/bin/node",), warm=("/usr/bin/node", "--warm")),
    }
    return SandboxSpec(**{**given, **changes})  # type: ignore[arg-type]


def order(root: Path, **changes: object) -> dict[str, object]:
    (root / "code" / "a").mkdir(parents=True, exist_ok=True)
    return start_order(spec(root, **changes), str(root / "code"), [str(root / "shared")], WARM)


def test_an_order_says_whether_a_warm_interpreter_may_serve(tmp_path: Path) -> None:
    assert order(tmp_path)["warm"] is True
    assert order(tmp_path, environment={**WARM, "TZ": "UTC"})["warm"] is False
    assert order(tmp_path, program=Program(("/usr/bin/node",)))["warm"] is False
    assert order(tmp_path, program=None)["argv"] == []


def test_images_have_a_nursery_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "code" / "layer").mkdir(parents=True)
    image = {"image_layers": (str(tmp_path / "code" / "layer"),), "runtime": "", "code_dir": ""}
    assert runtime_of(spec(tmp_path, **image)) == IMAGE
    made = order(tmp_path, **image)
    assert (made["code"], made["layers"], made["warm"]) == ("", ["layer"], False)
    with pytest.raises(SandboxFault, match="program"):
        order(tmp_path, **image, program=None)


def test_only_configured_folders_are_mounted_and_only_below_mnt(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "deep").mkdir(parents=True)
    (tmp_path / "shared-not").mkdir()
    made = order(tmp_path, mounts=(Mount(str(shared), "/mnt/a"), Mount(str(shared / "deep"), "/mnt/b/c/", True)))
    assert made["mounts"] == [
        {"root": str(shared), "source": "", "target": "/mnt/a", "read_only": False},
        {"root": str(shared), "source": "deep", "target": "/mnt/b/c", "read_only": True},
    ]
    for mount in (
        Mount(str(tmp_path / "shared-not"), "/mnt/a"),
        Mount(str(shared / ".."), "/mnt/a"),
        Mount(str(shared), "/mnt"),
        Mount(str(shared), "/mnt/../tmp"),
    ):
        with pytest.raises(SandboxFault):
            order(tmp_path, mounts=(mount,))


def test_file_systems_are_a_table_of_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "lambent.toml"
    file.write_text('[sandbox.file_systems]\n"arn:aws:elasticfilesystem:us-east-1:000000000000:access-point/fsap-1" = "/srv/files"\n')
    assert dict(load(file).sandbox.file_systems) == {"arn:aws:elasticfilesystem:us-east-1:000000000000:access-point/fsap-1": "/srv/files"}

"""Finding interpreters: where is looked, what is refused, which is chosen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from lambent.errors import ClientFault
from lambent.runtimes.catalogue import Catalogue
from lambent.runtimes.identifiers import FAMILIES
from lambent.runtimes.interpreter import Interpreter, ask
from lambent.runtimes.plan import RuntimePlan
from lambent.runtimes.search import candidates, searched
from lambent.runtimes.versions import runtime_version

MINOR = f"python3.{sys.version_info[1]}"
REAL = os.path.realpath(os.path.join(sys.base_prefix, "bin", MINOR))


def link(path: Path, target: str = REAL) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    return path


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def made(version: tuple[int, int, int] = (3, 12, 1), **rest: object) -> Interpreter:
    return Interpreter("python3.12", "/x", "/p", version, is_system=False, **rest)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "place",
    [
        ".pyenv/versions/3.x.1/bin",
        ".local/share/uv/python/cpython-3.x.1-linux/bin",
        ".asdf/installs/python/3.x.1/bin",
        ".local/share/mise/installs/python/3.x/bin",
        "miniconda3/bin",
        "miniconda3/envs/old/bin",
    ],
)
def test_places_under_a_home(tmp_path, place):
    link(tmp_path / place / "python3.x")
    assert candidates("python3.x", (), {"HOME": str(tmp_path)}) == ([], [REAL])


@pytest.mark.parametrize(
    ("variable", "place"),
    [
        ("PYENV_ROOT", "versions/3.x.1/bin"),
        ("UV_PYTHON_INSTALL_DIR", "cpython-3.x/bin"),
        ("ASDF_DATA_DIR", "installs/python/3.x/bin"),
        ("MISE_DATA_DIR", "installs/python/3.x/bin"),
        ("PATH", ""),
    ],
)
def test_places_that_variables_name(tmp_path, variable, place):
    link(tmp_path / place / "python3.x")
    assert candidates("python3.x", (), {variable: str(tmp_path)}) == ([], [REAL])


@pytest.mark.parametrize("place", ["", "bin", "3.x.1/bin"])
def test_configured_folders_come_first(tmp_path, place):
    link(tmp_path / "configured" / place / "python3.x")
    link(tmp_path / "path" / "python3.x")
    environ = {"PATH": str(tmp_path / "path")}
    assert candidates("python3.x", [str(tmp_path / "configured")], environ) == ([REAL], [])
    assert searched(["/c"], environ)[0] == "/c"


def test_shims_scripts_and_what_may_not_be_executed_are_passed_over(tmp_path):
    script(tmp_path / "a" / "python3.x", '#!/bin/sh\nexec pyenv exec "$@"\n')
    script(tmp_path / "b" / "python3.x", "")
    (tmp_path / "c").mkdir()
    shutil.copy("/bin/true", tmp_path / "c" / "python3.x")
    (tmp_path / "c" / "python3.x").chmod(0o644)
    (tmp_path / "d" / "python3.x").mkdir(parents=True)
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "python3.x").symlink_to("/nowhere")
    path = os.pathsep.join(str(tmp_path / name) for name in "abcde")
    assert candidates("python3.x", (), {"PATH": path}) == ([], [])


def test_programs_that_are_no_usable_interpreter_are_told_apart(tmp_path):
    subprocess.run([REAL, "-m", "venv", "--without-pip", "--copies", str(tmp_path / "venv")], check=True)
    venv = str(tmp_path / "venv" / "bin" / MINOR)
    answers = ask(["/bin/true", "/bin/false", str(tmp_path), venv, REAL])
    real = answers.pop(REAL)
    assert isinstance(real, Interpreter)
    assert (real.runtime, real.version, real.prefix) == (MINOR, sys.version_info[:3], sys.base_prefix)
    assert answers == {
        "/bin/true": "it does not run Python 3 code",
        "/bin/false": "it does not run Python 3 code",
        str(tmp_path): "it cannot be executed",
        venv: "it belongs to a virtual environment",
    }


def test_a_name_may_lie(tmp_path, monkeypatch):
    monkeypatch.setattr("lambent.runtimes.search._patterns", lambda environ, habitat: [])
    other = "python3.8" if MINOR != "python3.8" else "python3.9"
    catalogue = Catalogue([str(link(tmp_path / other))], {})
    assert catalogue.find(MINOR).executable == REAL  # a configured binary may have any name
    with pytest.raises(ClientFault):
        catalogue.find(other)


def test_the_best_is_an_ordinary_released_build_of_the_newest_patch():
    ranked = [
        made((3, 12, 9), abiflags="t"),
        made((3, 12, 11), release="candidate"),
        made((3, 12, 9)),
        made((3, 12, 10)),
    ]
    assert all(lesser.preference() < greater.preference() for lesser, greater in pairwise(ranked))


def test_every_interpreter_is_asked_once_and_only_when_needed(monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr("lambent.runtimes.catalogue.ask", lambda paths: asked.extend(paths) or ask(paths))
    catalogue = Catalogue([REAL], {})
    assert catalogue.known(MINOR) is None
    assert asked == []
    found = catalogue.find(MINOR)
    assert found.executable == REAL
    assert catalogue.find(MINOR) is found is catalogue.known(MINOR)
    assert catalogue.interpreters().count(found) == 1
    assert len(asked) == len(set(asked))


def test_a_missing_interpreter_is_named_with_what_to_do_and_found_once_it_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr("lambent.runtimes.search._patterns", lambda environ, habitat: [str(tmp_path)])
    catalogue = Catalogue((), {})
    with pytest.raises(ClientFault) as refused:
        catalogue.find(MINOR)
    version = MINOR.removeprefix("python")
    assert (refused.value.code, refused.value.status) == ("InvalidParameterValueException", 400)
    assert refused.value.message == (
        f"Lambent found no CPython {version} on this machine for runtime {MINOR}: install {MINOR} (or pyenv install {version}), "
        "or name it under [sandbox] interpreters; `lambent doctor` lists what was searched."
    )
    assert catalogue.interpreters() == []
    link(tmp_path / MINOR)
    assert catalogue.find(MINOR).executable == REAL
    assert [each.runtime for each in catalogue.interpreters()] == [MINOR]


@pytest.mark.parametrize("name", ["go1.x", "custom", "nonsense"])
def test_names_are_judged_before_the_machine_is_searched(monkeypatch, name):
    monkeypatch.setattr("lambent.runtimes.search.candidates", lambda *_: pytest.fail("searched"))
    with pytest.raises(ClientFault):
        Catalogue().find(name)


def test_this_machine():
    catalogue = Catalogue()
    installed = catalogue.interpreters()
    assert MINOR in [each.runtime for each in installed]
    assert [each.runtime for each in installed] == [name for name in FAMILIES["python"] if name in {each.runtime for each in installed}]
    for each in installed:
        answer = subprocess.run(
            [each.executable, "-c", "import sys; print(sys.prefix, *sys.version_info[:3])"], capture_output=True, check=True
        )
        assert answer.stdout.decode().split() == [each.prefix, *map(str, each.version)]
        assert not each.shared_library or any(Path(each.shared_library).glob("libpython*"))


def test_a_version_is_named_by_what_it_is_made_of():
    one = runtime_version(made(), "eu-west-1")
    assert one.text == "python:3.12.v1"
    prefix, digest = one.arn.rsplit(":", 1)
    assert prefix == "arn:aws:lambda:eu-west-1::runtime"
    assert len(bytes.fromhex(digest)) == 32
    assert runtime_version(made(), "eu-west-1") == one
    assert runtime_version(made((3, 12, 2)), "eu-west-1").arn != one.arn
    assert runtime_version(made(), "cn-north-1", "aws-cn").arn == f"arn:aws-cn:lambda:cn-north-1::runtime:{digest}"


@pytest.mark.parametrize(
    ("runtime", "version", "text"),
    [
        ("python3.12", "3.12.4", "python:3.12.v4"),
        ("nodejs20.x", "20.18.1", "nodejs:20.v18"),
        ("java8.al2", "1.8.0_452", "java:8.al2.v0"),
        ("java25", "25", "java:25.v1"),
        ("java11.al2023", "11.0.20", "java:11.al2023.v0"),
        ("ruby3.4", "3.4.2", "ruby:3.4.v2"),
        ("dotnet8", "8.0.11", "dotnet:8.v0"),
        ("provided.al2023", "", "provided:al2023.v1"),
    ],
)
def test_versions_are_printed_as_on_aws(runtime, version, text):
    assert runtime_version(RuntimePlan(runtime, version, "frames"), "eu-west-1").text == text


def test_a_plan_tells_how_a_python_is_wrapped():
    plan = Catalogue([REAL], {}).plan(MINOR)
    assert (plan.runtime, plan.transport, plan.argv, plan.prefix) == (MINOR, "frames", (), sys.base_prefix)
    inside = "/usr" if sys.base_prefix == "/usr" else "/var/lang"  # the system's own stays where it is
    assert plan.wrapped == (f"{inside}/bin/{MINOR}", "/var/runtime/lambent_runtime_client.py", "--channel-fd", "3")
    assert {"awslambdaric", "lambent_runtime_client.py"} <= {name for name, _ in plan.runtime_dir}


def test_a_missing_runtime_of_any_family_is_refused_in_the_finders_words(monkeypatch):
    catalogue = Catalogue((), {})
    monkeypatch.setattr("lambent.runtimes.nodejs.find", lambda *_: "there is no Node here")
    with pytest.raises(ClientFault, match="there is no Node here"):
        catalogue.plan("nodejs22.x")
    made_up = RuntimePlan("nodejs22.x", "22.1.0", "frames")
    monkeypatch.setattr("lambent.runtimes.nodejs.find", lambda *_: made_up)
    assert catalogue.plan("nodejs22.x") is made_up
    monkeypatch.setattr("lambent.runtimes.nodejs.find", lambda *_: "gone again")
    assert catalogue.plan("nodejs22.x") is made_up  # an answer is kept

"""What a runtime brings, for which interpreter; and the set-up step for old ones, with a pip that is played."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lambent.runtimes import prepare
from lambent.runtimes.interpreter import Interpreter
from lambent.runtimes.packages import has_sdk, runtime_packages, satisfies, sdk_supports

CLIENT = ["awslambda.py", "lambent_runtime_imports.py", "awslambdaric", "simplejson"]
SDK = ["boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3", "six.py"]


@pytest.fixture(autouse=True)
def _no_default_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("lambent.runtimes.packages.default_folder", lambda: tmp_path / "default")


def interpreter(minor: int) -> Interpreter:
    return Interpreter(f"python3.{minor}", sys.executable, sys.prefix, (3, minor, 4), is_system=False)


def names(minor: int, *folders: Path) -> list[str]:
    """Without the folders that tell which version a package is."""
    found = [name for name, _ in runtime_packages(interpreter(minor), list(map(str, folders)))]
    return [name for name in found if not name.endswith(".dist-info")]


@pytest.mark.parametrize(
    ("requirement", "allowed", "refused"),
    [
        ("", [(2, 7, 0), (3, 14, 0)], []),
        (">=3.9", [(3, 9, 0), (3, 10, 1)], [(3, 8, 18), (2, 7, 18)]),
        (">= 3.10", [(3, 10, 0)], [(3, 9, 18)]),
        (">3.8", [(3, 8, 1)], [(3, 8, 0)]),
        (">=2.7, !=3.0.*, !=3.8.*", [(2, 7, 0), (3, 9, 0)], [(3, 0, 1), (3, 8, 18), (2, 6, 0)]),
        (">=3.8,<3.13", [(3, 12, 9)], [(3, 13, 0)]),
        ("<=3.8", [(3, 8, 0)], [(3, 8, 1)]),
        ("~=3.8", [(3, 8, 0), (3, 14, 0)], [(3, 7, 9), (4, 0, 0)]),
        ("~=3.8.2", [(3, 8, 2)], [(3, 8, 1), (3, 9, 0)]),
        ("==3.8.*", [(3, 8, 5)], [(3, 9, 0)]),
        ("==3.8.5", [(3, 8, 5)], [(3, 8, 6)]),
        ("!=3.8.5", [(3, 8, 6)], [(3, 8, 5)]),
    ],
)
def test_requirements(requirement, allowed, refused):
    assert [satisfies(requirement, version) for version in allowed] == [True] * len(allowed)
    assert [satisfies(requirement, version) for version in refused] == [False] * len(refused)


@pytest.mark.parametrize("minor", [10, 11, 12, 13, 14])
def test_current_interpreters_get_all_of_it(minor):
    packages = runtime_packages(interpreter(minor))
    assert names(minor) == [*CLIENT, "snapshot_restore_py.py", *SDK]
    for name, path in packages:
        assert Path(path).name == {"lambent_runtime_imports.py": "python_imports.py"}.get(name, name)
        assert Path(path).exists()
        assert "runtime_client" not in name


def test_packages_tell_which_version_they_are():
    described = [name for name, path in runtime_packages(interpreter(12)) if Path(path, "METADATA").exists()]
    assert {name.partition("-")[0] for name in described} == {
        *("awslambdaric", "simplejson", "snapshot_restore_py", "boto3", "botocore", "s3transfer", "jmespath", "python_dateutil"),
        *("urllib3", "six"),
    }


def test_interpreters_that_boto3_left_behind_get_the_client_only():
    assert names(8) == CLIENT
    assert names(9) == [*CLIENT, "snapshot_restore_py.py"]
    assert not has_sdk(interpreter(9))
    assert not sdk_supports((3, 9, 99))


@pytest.mark.parametrize("inner", ["", "python3.8"])
def test_a_prepared_folder_takes_the_place_of_the_sdk(tmp_path, inner):
    folder = tmp_path / "packages" / "python3.8"
    for name in ("boto3", "botocore", "bin", "boto3-1.37.38.dist-info", "__pycache__", "simplejson", "simplejson-3.1.dist-info"):
        (folder / name).mkdir(parents=True)
    (folder / "six.py").write_text("")
    given = folder if inner else folder.parent
    assert names(8, given) == [*CLIENT, "boto3", "botocore", "six.py"]
    found = dict(runtime_packages(interpreter(8), [str(given)]))
    assert found["boto3"] == str(folder / "boto3")
    assert "boto3-1.37.38.dist-info" in found
    assert "simplejson-3.1.dist-info" not in found  # ours goes before it
    assert has_sdk(interpreter(8), [str(given)])
    assert names(9, given) == [*CLIENT, "snapshot_restore_py.py"]


def played_pip(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "pip.py"
    path.write_text("import pathlib, sys\narguments = sys.argv[1:]\n" + text)
    return [sys.executable, str(path)]


def test_the_newest_sdk_for_an_old_interpreter_is_fetched_once(tmp_path):
    pip = played_pip(
        tmp_path,
        """
with open(pathlib.Path(__file__).with_name("calls"), "a") as calls:
    print(*arguments, file=calls)
option = lambda name: pathlib.Path(arguments[arguments.index(name) + 1])
if "download" in arguments:
    option("--dest").mkdir()
    (option("--dest") / "boto3-1-py3-none-any.whl").touch()
else:
    assert arguments[-1].endswith("boto3-1-py3-none-any.whl")
    (option("--target") / "boto3").mkdir(parents=True)
""",
    )
    folder = tmp_path / "packages"
    folder.mkdir()
    assert prepare.fetch_sdk("python3.8", folder, pip)
    assert prepare.fetch_sdk("python3.8", folder, pip)
    assert [path.name for path in folder.iterdir()] == ["python3.8"]
    assert has_sdk(interpreter(8), [str(folder)])
    download, install = (tmp_path / "calls").read_text().splitlines()
    assert "--python-version 3.8 --only-binary=:all: boto3" in download
    assert "--no-index --no-deps" in install


@pytest.mark.parametrize("failing", ["download", "install"])
def test_a_fetch_that_fails_leaves_nothing_behind(tmp_path, failing):
    pip = played_pip(tmp_path, f"sys.exit({failing!r} in arguments)")
    folder = tmp_path / "packages"
    folder.mkdir()
    if failing == "install":
        pip = played_pip(tmp_path, "if 'install' in arguments: sys.exit(1)")
    assert not prepare.fetch_sdk("python3.8", folder, pip)
    assert list(folder.iterdir()) == []


def test_the_command_prepares_what_it_is_told(tmp_path, monkeypatch, capsys):
    fetched: list[tuple[str, Path]] = []
    compiled: list[str] = []
    monkeypatch.setattr(prepare, "fetch_sdk", lambda runtime, folder: fetched.append((runtime, folder)) or runtime != "python3.9")
    monkeypatch.setattr(prepare, "compile_packages", lambda each, folders: compiled.append(each.runtime))
    current = f"python3.{sys.version_info[1]}"
    assert prepare.main([str(tmp_path), "python3.8", current]) == 0
    assert fetched == [("python3.8", tmp_path)]
    assert compiled[-1] == current
    assert prepare.main([str(tmp_path), "python3.9"]) == 1
    assert "python3.9: boto3 could not be fetched" in capsys.readouterr().out
    assert prepare.main(["a", "b"]) == 2

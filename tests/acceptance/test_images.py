"""Functions of container images with boto3: a registry on this machine, real sandboxes, a runtime client in C over the Runtime API."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from acceptance_helpers import ROLE, call, settle, stop_cleanly
from botocore.exceptions import ClientError

from lambent.testing.image_kit import File, Image, RegistryServer, folder, layer, program, symlink
from lambent.testing.local_server import LocalServer

pytestmark = [
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="docker-registry is not installed"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed"),
]

Create = Callable[..., dict[str, Any]]
READ_DATA = {"Variables": {"READ": "/data/shared"}}


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The runtime client, a static program."""
    target = tmp_path_factory.mktemp("runtime") / "app"
    source = Path(__file__).with_name("image_runtime.c")
    subprocess.run(["gcc", "-static", "-Os", "-s", "-D_GNU_SOURCE", "-o", target, source], check=True)
    return target.read_bytes()


@pytest.fixture(scope="module")
def base() -> bytes:
    return layer(
        {
            "data": folder(),
            "data/shared": b"of the base",
            "data/removed": b"of the base",
            "data/replaced": b"of the base",
            "hidden/below": b"of the base",
            "private": File(b"only root may read this", 0o600),
            "tmp": folder(0o1777),
            "etc/passwd": b"root:x:0:0::/:/\n",
            "link": symlink("data/shared"),
        }
    )


@pytest.fixture(scope="module")
def image(runtime: bytes, base: bytes) -> Image:
    top = layer(
        {
            "bin/app": program(runtime),
            "data/.wh.removed": b"",
            "data/replaced": b"of the top",
            "hidden/.wh..wh..opq": b"",
            "work": folder(),
        }
    )
    return Image([base, top], ["/bin/app"], ["app.handler", "two"], "/work", ["PATH=/bin", "FROM=image", "BOTH=image"])


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, image: Image) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path_factory.mktemp("registry")) as running:
        running.push("team/app", "v1", image)
        yield running


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layouts")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, layouts: Path) -> Iterator[LocalServer]:
    config = tmp_path_factory.mktemp("config") / "lambent.toml"
    config.write_text(f"[images]\nfolders = [{json.dumps(str(layouts))}]\n")
    with LocalServer(config=config) as running:
        if running.health()["isolation"]["driver"] != "namespaces":
            pytest.skip("images need the namespaces driver")
        yield running
        stop_cleanly(running)


@pytest.fixture
def create(api: Any) -> Iterator[Create]:
    created: list[str] = []

    def make(name: str, uri: str, **options: Any) -> dict[str, Any]:
        answer = api.create_function(FunctionName=name, PackageType="Image", Role=ROLE, Code={"ImageUri": uri}, **options)
        created.append(name)
        settle(api, name)
        return answer

    yield make
    for name in created:
        with contextlib.suppress(api.exceptions.ResourceNotFoundException):
            api.delete_function(FunctionName=name)


def test_an_image_from_a_registry_runs(api: Any, create: Create, registry: RegistryServer, image: Image) -> None:
    uri = f"{registry.host}/team/app:v1"
    created = create("plain", uri, Environment={"Variables": {"READ": "/data/shared", "BOTH": "function"}})
    assert (created["State"], created["PackageType"], created["CodeSize"]) == ("Pending", "Image", 0)
    assert created["CodeSha256"] == image.digest.removeprefix("sha256:")
    assert not {"Runtime", "Handler", "Layers", "RuntimeVersionConfig", "ImageConfigResponse"} & set(created)
    found = api.get_function(FunctionName="plain")
    assert found["Configuration"]["State"] == "Active"
    assert found["Code"] == {
        "RepositoryType": "ECR",
        "ImageUri": uri,
        "ResolvedImageUri": f"{registry.host}/team/app@{image.digest}",
    }
    with pytest.raises(api.exceptions.InvalidParameterValueException, match="Code signing is not supported for functions created with"):
        api.get_function_code_signing_config(FunctionName="plain")
    seen, answer = call(api, "plain", {"x": [1, "ü"]})
    assert "FunctionError" not in answer
    assert seen["event"] == {"x": [1, "ü"]}
    assert seen["argv"] == ["/bin/app", "app.handler", "two"]
    assert seen["cwd"] == "/work"
    assert seen["file"] == "of the base"
    assert seen["root"] == "Read-only file system"
    assert seen["tmp"] == "written"
    assert seen["uid"] != 0
    environ = seen["environ"]
    assert (environ["FROM"], environ["BOTH"], environ["PATH"]) == ("image", "function", "/bin")
    assert environ["_HANDLER"] == "app.handler"
    assert environ["AWS_LAMBDA_RUNTIME_API"] == "127.0.0.1:9001"
    assert environ["LAMBDA_TASK_ROOT"] == "/var/task"
    assert environ["AWS_LAMBDA_FUNCTION_NAME"] == "plain"
    assert not {"AWS_EXECUTION_ENV", "LD_LIBRARY_PATH", "PYTHONPATH"} & set(environ)
    assert "INIT_START" not in answer["log"]
    assert "Init Duration" in answer["log"]


ENTRYPOINT = b"""#!/bin/sh
# As in AWS's base images.
if [ $# -ne 1 ]; then echo "entrypoint requires the handler name to be the first argument" 1>&2; exit 142; fi
export _HANDLER="$1"
if [ -z "${AWS_LAMBDA_RUNTIME_API}" ]; then exec /usr/local/bin/aws-lambda-rie /var/runtime/bootstrap; else exec /var/runtime/bootstrap; fi
"""


def shell() -> dict[str, bytes | File]:
    """This machine's ``/bin/sh`` and the libraries that it needs."""
    listed = subprocess.run(["ldd", "/bin/sh"], capture_output=True, text=True, check=True).stdout
    needed = [word for word in listed.split() if word.startswith("/")]
    return {name.lstrip("/"): program(Path(name).read_bytes()) for name in ("/bin/sh", *needed)}


def test_an_image_in_the_shape_of_aws_base_images(api: Any, create: Create, registry: RegistryServer, runtime: bytes, logs: Any) -> None:
    """A shell script that leads to ``/var/runtime/bootstrap``, the handler as CMD, an extension in ``/opt``."""
    bottom = layer(
        {**shell(), "lambda-entrypoint.sh": program(ENTRYPOINT), "var/runtime/bootstrap": program(runtime), "var/task": folder()}
    )
    top = layer({"opt/extensions/extension-one": program(runtime), "opt/extensions/readme": b"", "var/task/data": b"of the task"})
    image = Image([bottom, top], ["/lambda-entrypoint.sh"], ["app.handler"], "/var/task", ["LAMBDA_TASK_ROOT=/var/task", "LANG=C.UTF-8"])
    create("shaped", registry.push("shaped", "v1", image), Environment={"Variables": {"READ": "data"}})
    for number in range(2):
        seen, answer = call(api, "shaped", number)
        assert "FunctionError" not in answer, seen
        assert (seen["event"], seen["cwd"], seen["file"]) == (number, "/var/task", "of the task")
        assert (seen["environ"]["_HANDLER"], seen["environ"]["LANG"]) == ("app.handler", "C.UTF-8")
    api.update_function_configuration(FunctionName="shaped", ImageConfig={"Command": ["other.handler"]})
    settle(api, "shaped")
    assert call(api, "shaped")[0]["environ"]["_HANDLER"] == "other.handler"
    lines = [event["message"] for event in logs.filter_log_events(logGroupName="/aws/lambda/shaped")["events"]]
    assert sum("extension heard INVOKE" in line for line in lines) == 3
    assert sum("Name: extension-one\tState: Ready\tEvents: [INVOKE]" in line for line in lines) == 2


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/data/replaced", "of the top"),
        ("/data/removed", None),
        ("/hidden/below", None),
        ("/link", "of the base"),
        ("/private", None),
        ("/etc/shadow", None),
    ],
)
def test_layers_lie_over_each_other(api: Any, create: Create, registry: RegistryServer, path: str, content: str | None) -> None:
    create("stacked", f"{registry.host}/team/app:v1", Environment={"Variables": {"READ": path}})
    assert call(api, "stacked")[0]["file"] == content


def test_overrides_and_their_removal(api: Any, create: Create, registry: RegistryServer) -> None:
    config = {"EntryPoint": ["/bin/app", "-v"], "Command": ["other.handler"], "WorkingDirectory": "/data"}
    created = create("overridden", f"{registry.host}/team/app:v1", ImageConfig=config)
    assert created["ImageConfigResponse"] == {"ImageConfig": config}
    seen = call(api, "overridden")[0]
    assert (seen["argv"], seen["cwd"]) == (["/bin/app", "-v", "other.handler"], "/data")
    api.update_function_configuration(FunctionName="overridden", ImageConfig={"EntryPoint": ["app"]})  # found on the image's PATH
    settle(api, "overridden")
    seen = call(api, "overridden")[0]
    assert (seen["argv"], seen["cwd"]) == (["app", "app.handler", "two"], "/work")
    api.update_function_configuration(FunctionName="overridden", ImageConfig={})
    settle(api, "overridden")
    assert "ImageConfigResponse" not in api.get_function_configuration(FunctionName="overridden")
    assert call(api, "overridden")[0]["argv"] == ["/bin/app", "app.handler", "two"]


@pytest.mark.parametrize(
    ("config", "error_type", "text"),
    [
        ({"EntryPoint": ["/nope"]}, "Runtime.InvalidEntrypoint", "fork/exec /nope: no such file or directory"),
        ({"EntryPoint": ["/data/shared"]}, "Runtime.InvalidEntrypoint", "fork/exec /data/shared: permission denied"),
        ({"EntryPoint": ["nope"]}, "Runtime.InvalidEntrypoint", 'exec: "nope": executable file not found in $PATH'),
        ({"WorkingDirectory": "/nope"}, "Runtime.InvalidWorkingDir", "the working directory doesn't exist: /nope"),
        (
            {"WorkingDirectory": "work"},
            "Runtime.InvalidWorkingDir",
            "the working directory 'work' is invalid, it needs to be an absolute path",
        ),
    ],
)
def test_what_cannot_be_started(
    api: Any, logs: Any, create: Create, registry: RegistryServer, config: dict[str, Any], error_type: str, text: str
) -> None:
    create("wrong", f"{registry.host}/team/app:v1", ImageConfig=config)
    for _ in range(2):
        payload, answer = call(api, "wrong")
        assert answer["StatusCode"] == 200
        assert answer["FunctionError"] == "Unhandled"
        request = answer["ResponseMetadata"]["RequestId"]
        assert payload == {"errorType": error_type, "errorMessage": f"RequestId: {request} Error: {text}"}
    entry, workdir = ",".join(config.get("EntryPoint", ["/bin/app"])), config.get("WorkingDirectory", "/work")
    line = f"IMAGE\tLaunch error: {text}\tEntrypoint: [{entry}]\tCmd: [app.handler,two]\tWorkingDir: [{workdir}]\n"
    assert line in [event["message"] for event in logs.filter_log_events(logGroupName="/aws/lambda/wrong")["events"]]
    api.update_function_configuration(FunctionName="wrong", ImageConfig={})
    settle(api, "wrong")
    assert call(api, "wrong", 1)[0]["event"] == 1


def test_a_tag_is_followed_only_when_it_is_deployed_again(
    api: Any, create: Create, registry: RegistryServer, base: bytes, runtime: bytes
) -> None:
    first = Image([base, layer({"app": program(runtime)})], ["/app"], ["first"])
    second = Image([base, layer({"app": program(runtime), "more": b""})], ["/app"], ["second"], docker=True)
    uri = registry.push("moving", "latest", first)
    create("follows", uri)
    assert call(api, "follows")[0]["argv"][1] == "first"
    registry.push("moving", "latest", second)
    api.update_function_configuration(FunctionName="follows", Description="another")
    settle(api, "follows")
    assert call(api, "follows")[0]["argv"][1] == "first"
    updated = api.update_function_code(FunctionName="follows", ImageUri=uri)
    assert updated["LastUpdateStatus"] == "InProgress"
    assert updated["CodeSha256"] == second.digest.removeprefix("sha256:")
    settle(api, "follows")
    assert call(api, "follows")[0]["argv"][1] == "second"


def test_an_image_that_is_deleted_from_the_registry_still_runs(
    api: Any, create: Create, registry: RegistryServer, base: bytes, runtime: bytes
) -> None:
    image = Image([base, layer({"app": program(runtime)})], ["/app"], ["deleted"])
    uri = registry.push("gone", "v1", image)
    create("gone", uri)
    registry.delete("gone", image.digest)
    with pytest.raises(ClientError, match="does not exist") as caught:
        api.create_function(FunctionName="late", PackageType="Image", Role=ROLE, Code={"ImageUri": uri})
    assert caught.value.response["Error"]["Code"] == "InvalidParameterValueException"
    api.update_function_configuration(FunctionName="gone", MemorySize=256)
    settle(api, "gone")
    assert call(api, "gone")[0]["argv"] == ["/app", "deleted"]


def test_functions_share_layers_on_the_disk(
    api: Any, create: Create, server: LocalServer, registry: RegistryServer, base: bytes, runtime: bytes
) -> None:
    """Ten megabytes lie there once, whatever runs on them, and no environment has a copy."""
    big = layer({"big": os.urandom(10 << 20), "app": program(runtime)})
    uris = [registry.push("shared", str(number), Image([base, big], ["/app"], [str(number)])) for number in range(2)]
    before = used(server.data_dir)
    create("one", uris[0])
    create("two", uris[1])
    assert call(api, "one")[0]["argv"][1] == "0"
    assert call(api, "two")[0]["argv"][1] == "1"
    together = [threading.Thread(target=call, args=(api, "one")) for _ in range(3)]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()
    assert 10 << 20 < used(server.data_dir) - before < 13 << 20


def used(root: Path) -> int:
    total = 0
    for place, _, names in os.walk(root):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
    return total


def test_a_layout_on_this_machine(api: Any, create: Create, layouts: Path, image: Image) -> None:
    image.write(layouts / "app", "v1")
    create("local", "oci:app:v1", Environment=READ_DATA)
    seen = call(api, "local", {"local": True})[0]
    assert (seen["event"], seen["file"]) == ({"local": True}, "of the base")
    code = api.get_function(FunctionName="local")["Code"]
    assert code["ResolvedImageUri"] == f"oci:app@{image.digest}"


@pytest.mark.skipif(shutil.which("skopeo") is None or shutil.which("umoci") is None, reason="skopeo and umoci are not installed")
def test_what_other_tools_build(api: Any, create: Create, layouts: Path, registry: RegistryServer, runtime: bytes, tmp_path: Path) -> None:
    """umoci builds an image, skopeo pushes it; umoci writes whiteouts and times in its own way."""
    layout = layouts / "built"
    (tmp_path / "rootfs").mkdir()
    app = tmp_path / "rootfs" / "app"
    app.write_bytes(runtime)
    app.chmod(0o755)
    for command in (
        ["umoci", "init", "--layout", str(layout)],
        ["umoci", "new", "--image", f"{layout}:v1"],
        ["umoci", "insert", "--image", f"{layout}:v1", str(app), "/usr/bin/app"],
        ["umoci", "insert", "--image", f"{layout}:v1", "--whiteout", "/etc"],
        ["umoci", "config", "--image", f"{layout}:v1", "--config.entrypoint", "/usr/bin/app", "--config.cmd", "built.handler"],
        ["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", f"oci:{layout}:v1", f"docker://{registry.host}/built:v1"],
    ):
        subprocess.run(command, check=True, capture_output=True)
    for name, uri in (("umoci", "oci:built:v1"), ("skopeo", f"{registry.host}/built:v1")):
        create(name, uri)
        assert call(api, name, name)[0]["argv"] == ["/usr/bin/app", "built.handler"]


@pytest.mark.parametrize(
    ("damage", "code", "text"),
    [
        ("other bytes", "InvalidImage", "The image is not valid."),
        ("missing", "ImageDeleted", "The function is trying to use a deleted image."),
    ],
)
def test_an_update_that_fails_leaves_the_old_image_running(
    api: Any, create: Create, layouts: Path, image: Image, base: bytes, runtime: bytes, damage: str, code: str, text: str
) -> None:
    shutil.rmtree(layouts / "kept", ignore_errors=True)
    image.write(layouts / "kept", "good")
    broken = Image([base, layer({"app": program(runtime), damage: b""})], ["/app"])
    broken.write(layouts / "kept", "broken")
    blob = layouts / "kept" / "blobs" / "sha256" / list(broken.blobs)[2].removeprefix("sha256:")
    if damage == "missing":
        blob.unlink()
    else:
        blob.write_bytes(b"not a layer")
    create("kept", "oci:kept:good")
    api.update_function_code(FunctionName="kept", ImageUri="oci:kept:broken")
    with pytest.raises(Exception, match="Failed"):
        settle(api, "kept")
    shown = api.get_function_configuration(FunctionName="kept")
    assert (shown["State"], shown["LastUpdateStatus"], shown["LastUpdateStatusReasonCode"]) == ("Active", "Failed", code)
    assert call(api, "kept", "still")[0]["event"] == "still"
    api.create_function(FunctionName="never", PackageType="Image", Role=ROLE, Code={"ImageUri": "oci:kept:broken"})
    with pytest.raises(Exception, match="Failed"):
        settle(api, "never")
    shown = api.get_function_configuration(FunctionName="never")
    assert (shown["State"], shown["StateReasonCode"]) == ("Failed", code)
    assert shown["StateReason"].startswith(text)
    api.delete_function(FunctionName="never")


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        ({"Code": {"ImageUri": "app:latest"}}, "InvalidParameterValueException", "Source image app:latest is not valid."),
        ({"Code": {"ImageUri": "127.0.0.1:1/a:b"}}, "InvalidParameterValueException", "Source image 127.0.0.1:1/a:b is not valid."),
        ({"Code": {"ImageUri": "oci:/etc:x"}}, "AccessDeniedException", "Lambda does not have permission to access the ECR image."),
        ({"Code": {"ZipFile": b"x"}}, "InvalidParameterValueException", "Please provide ImageUri"),
        ({"Runtime": "python3.12"}, "InvalidParameterValueException", "Please don't provide Handler or Runtime or Layer when"),
    ],
)
def test_bad_requests(api: Any, registry: RegistryServer, request_: dict[str, Any], code: str, text: str) -> None:
    request = {
        "FunctionName": "bad",
        "PackageType": "Image",
        "Role": ROLE,
        "Code": {"ImageUri": f"{registry.host}/team/app:v1"},
        **request_,
    }
    with pytest.raises(ClientError) as caught:
        api.create_function(**request)
    assert caught.value.response["Error"]["Code"] == code
    assert text in caught.value.response["Error"]["Message"]


def test_images_of_another_architecture_are_refused(api: Any, registry: RegistryServer) -> None:
    uri = registry.push("arm", "v1", Image([layer({"a": b""})], ["/a"], architecture="arm64"))
    with pytest.raises(ClientError, match=f"The image manifest, config or layer media type for the source image {uri} is not supported"):
        api.create_function(FunctionName="arm", PackageType="Image", Role=ROLE, Code={"ImageUri": uri})


def test_killed_while_an_image_is_on_its_way(tmp_path: Path, registry: RegistryServer, base: bytes, runtime: bytes) -> None:
    """``kill -9`` right behind the answer: the next start finishes what was begun, and a further one needs no registry."""
    big = layer({"big": os.urandom(4 << 20), "app": program(runtime)})
    uri = registry.push("slow", "v1", Image([base, big], ["/app"], ["slow.handler"]))
    server = LocalServer(data_dir=tmp_path / "data")
    server.start()
    api = server.client("lambda")
    api.create_function(FunctionName="slow", PackageType="Image", Role=ROLE, Code={"ImageUri": uri})
    server.kill()
    server.start()
    settle(api, "slow")
    assert call(api, "slow", 1)[0]["event"] == 1
    server.kill()
    registry.delete("slow", api_digest(uri, registry))
    server.start()
    assert call(api, "slow", 2)[0]["argv"] == ["/app", "slow.handler"]
    stop_cleanly(server)


def api_digest(uri: str, registry: RegistryServer) -> str:
    from lambent.images.manifest import digest_of
    from lambent.images.registry import Registry

    with contextlib.closing(Registry(registry.host, uri.partition("/")[2].partition(":")[0], None)) as source:
        return digest_of(source.manifest("v1"))

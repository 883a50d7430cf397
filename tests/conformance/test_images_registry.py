"""Every source of images gives the same: a real registry, one with a password, a hostile one of our own, a layout, an archive."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lambent.images.download import fetch, fetch_small
from lambent.images.faults import ImageFault
from lambent.images.manifest import DOCKER_LIST, OCI_INDEX, Blob, Manifest, choose
from lambent.images.reference import parse
from lambent.images.registry import Registry
from lambent.images.registry_keys import Key, RegistryKeys
from lambent.images.sources import Sources
from lambent.settings import ImageSettings, RegistryCredential
from lambent.testing.image_kit import Image, RegistryServer, index_of, layer

needs_registry = pytest.mark.skipif(shutil.which("docker-registry") is None, reason="docker-registry is not installed")

IMAGE = Image([layer({"a": b"1" * 300_000}), layer({"b": b"2"})], entrypoint=["/a"])
DOCKER = Image([layer({"a": b"docker"})], docker=True)
HTPASSWD = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"  # bcrypt of "secret"


def pulled(source: Any, wanted: str, folder: Path) -> dict[str, bytes]:
    """Every blob of an image, as the store fetches them."""
    with contextlib.closing(source):
        manifest = choose(source.manifest(wanted), "x86_64")
        if isinstance(manifest, str):
            manifest = choose(source.manifest(manifest), "x86_64")
        assert isinstance(manifest, Manifest)
        blobs = {manifest.config.digest: fetch_small(source, manifest.config)}
        for blob in manifest.layers:
            fetch(source, blob, folder / "part")
            blobs[blob.digest] = (folder / "part").read_bytes()
            (folder / "part").unlink()
        return blobs


def fails(source: Any, wanted: str, folder: Path) -> ImageFault:
    with pytest.raises(ImageFault) as caught:
        pulled(source, wanted, folder)
    return caught.value


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path_factory.mktemp("registry")) as server:
        server.push("team/app", "v1", IMAGE)
        server.push("docker", "latest", DOCKER)
        yield server


@needs_registry
def test_a_real_registry(registry: RegistryServer, tmp_path: Path) -> None:
    sources = Sources(ImageSettings(docker_config=str(tmp_path / "none")), ())
    for name, image in (("team/app:v1", IMAGE), (f"team/app@{IMAGE.digest}", IMAGE), ("docker", DOCKER)):
        reference = parse(f"{registry.host}/{name}")
        assert pulled(sources.open(reference), reference.wanted, tmp_path) == image.blobs


@needs_registry
@pytest.mark.parametrize("kind", [OCI_INDEX, DOCKER_LIST])
def test_an_index_leads_to_this_architecture(registry: RegistryServer, tmp_path: Path, kind: str) -> None:
    other = Image([layer({"a": b"arm"})], architecture="arm64")
    registry.push("team/app", "arm", other)
    content = json.dumps({**json.loads(index_of([other, IMAGE])), "mediaType": kind}).encode()
    registry.push_manifest("team/app", "both", content, kind)
    assert pulled(Registry(registry.host, "team/app", None), "both", tmp_path) == IMAGE.blobs


@needs_registry
def test_what_a_real_registry_lacks(registry: RegistryServer, tmp_path: Path) -> None:
    for name, wanted in (("team/app", "none"), ("nobody", "latest"), ("team/app", "sha256:" + "a" * 64)):
        assert fails(Registry(registry.host, name, None), wanted, tmp_path).code == "ImageDeleted"


@needs_registry
def test_a_mirror_stands_for_another_registry(registry: RegistryServer, tmp_path: Path) -> None:
    settings = ImageSettings(mirrors=(f"*.dkr.ecr.*.amazonaws.com={registry.host}",), allowed=("*.amazonaws.com",))
    sources = Sources(settings, ())
    reference = parse("123456789012.dkr.ecr.us-east-1.amazonaws.com/team/app:v1")
    assert pulled(sources.open(reference), "v1", tmp_path) == IMAGE.blobs
    with pytest.raises(ImageFault, match="not among those that the settings allow"):
        sources.open(parse(f"{registry.host}/team/app:v1"))


@needs_registry
def test_a_registry_with_a_password(tmp_path: Path) -> None:
    with RegistryServer(tmp_path / "data", HTPASSWD) as server:
        server.authenticate("user", "secret")
        server.push("team/app", "v1", IMAGE)
        reference = parse(f"{server.host}/team/app:v1")
        config = tmp_path / "config.json"
        config.write_text(json.dumps({"auths": {server.host: {"auth": base64.b64encode(b"user:secret").decode()}}}))
        nothing = ImageSettings(docker_config=str(tmp_path / "none"))
        for settings, credentials in (
            (nothing, (RegistryCredential(server.host, "user", "secret"),)),
            (ImageSettings(docker_config=str(config)), ()),
        ):
            assert pulled(Sources(settings, credentials).open(reference), "v1", tmp_path) == IMAGE.blobs
        for credentials in ((), (RegistryCredential(server.host, "user", "wrong"),)):
            assert fails(Sources(nothing, credentials).open(reference), "v1", tmp_path).code == "ImageAccessDenied"


# -- a registry that does as a test says -------------------------------------------------------------------------------------------------


class Server:
    """HTTP on a port of this machine; ``answer`` gets each request and writes what it likes. ``seen`` is what was asked."""

    def __init__(self, answer: Callable[[Server, BaseHTTPRequestHandler], None]) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.memory: dict[str, int] = {}
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                answer(server, self)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                server.seen.append((f"{self.path}?{body}", {}))
                answer(server, self)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._http.handle_error = lambda *arguments: None  # type: ignore[method-assign]  # TLS, tried on us, is no HTTP
        self.host = f"127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})

    def count(self, name: str) -> int:
        self.memory[name] = self.memory.get(name, 0) + 1
        return self.memory[name]

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def reply(to: BaseHTTPRequestHandler, body: bytes, status: int = 200, length: int | None = None, **headers: str) -> None:
    to.send_response(status)
    for name, value in headers.items():
        to.send_header(name.replace("_", "-"), value)
    to.send_header("Content-Length", str(len(body) if length is None else length))
    to.end_headers()
    to.wfile.write(body)
    if length is not None and length != len(body):
        to.close_connection = True


def content_of(path: str) -> bytes | None:
    """What an honest registry has at ``path``."""
    last = path.rpartition("/")[2]
    return IMAGE.manifest if last in ("v1", IMAGE.digest) else IMAGE.blobs.get(last)


def honest(server: Server, to: BaseHTTPRequestHandler) -> None:
    content = content_of(to.path)
    if content is None:
        reply(to, b"{}", 404)
    else:
        reply(to, content)


def test_tokens(tmp_path: Path) -> None:
    """The registry wants a token; the token service wants a password, or gives one to anybody."""

    def answer(server: Server, to: BaseHTTPRequestHandler) -> None:
        if to.path.startswith("/token"):
            return reply(to, json.dumps({"token": "T" if "authorization" in server.seen[-1][1] else "anonymous"}).encode())
        if to.headers.get("Authorization") in ("Bearer T", "Bearer anonymous"):
            return honest(server, to)
        challenge = f'Bearer realm="http://{server.host}/token",service="reg",scope="repository:team/app:pull"'
        return reply(to, b"", 401, WWW_Authenticate=challenge)

    with Server(answer) as server:
        assert pulled(Registry(server.host, "team/app", None), "v1", tmp_path) == IMAGE.blobs
        assert server.seen[1][0] == "/token?service=reg&scope=repository%3Ateam%2Fapp%3Apull"
        assert pulled(Registry(server.host, "team/app", Key("user", "secret")), "v1", tmp_path) == IMAGE.blobs
        asked = [headers.get("authorization") for path, headers in server.seen if path.startswith("/token")]
        assert asked == [None, Key("user", "secret").basic()]  # once for a whole pull


def test_a_refresh_token_is_exchanged(tmp_path: Path) -> None:
    def answer(server: Server, to: BaseHTTPRequestHandler) -> None:
        if to.path.startswith("/token"):
            return reply(to, b'{"access_token":"T"}' if "refresh_token=R" in server.seen[-1][0] else b"{}", 200)
        if to.headers.get("Authorization") == "Bearer T":
            return honest(server, to)
        return reply(to, b"", 401, WWW_Authenticate=f'Bearer realm="http://{server.host}/token",service="reg"')

    with Server(answer) as server:
        assert pulled(Registry(server.host, "team/app", Key(refresh="R")), "v1", tmp_path) == IMAGE.blobs


@pytest.mark.parametrize(
    ("status", "challenge", "code"),
    [
        (401, "", "ImageAccessDenied"),
        (401, 'Basic realm="x"', "ImageAccessDenied"),
        (401, 'Bearer realm="file:///etc/passwd"', "ImageAccessDenied"),
        (401, "Negotiate", "ImageAccessDenied"),
        (403, "", "ImageAccessDenied"),
        (404, "", "ImageDeleted"),
        (400, "", "InternalError"),
        (500, "", "InternalError"),
    ],
)
def test_refusals(tmp_path: Path, status: int, challenge: str, code: str) -> None:
    with Server(lambda server, to: reply(to, b"{}", status, WWW_Authenticate=challenge)) as server:
        assert fails(Registry(server.host, "team/app", None), "v1", tmp_path).code == code


def test_blobs_elsewhere_get_no_credentials(tmp_path: Path) -> None:
    def answer(server: Server, to: BaseHTTPRequestHandler) -> None:
        if "Authorization" not in to.headers:
            return reply(to, b"", 401, WWW_Authenticate="Basic realm=x")
        if "/blobs/" in to.path:
            return reply(to, b"", 307, Location=f"http://localhost:{store.host.rpartition(':')[2]}{to.path}?signed=1")
        return honest(server, to)

    with Server(lambda server, to: reply(to, content_of(to.path.partition("?")[0]) or b"")) as store, Server(answer) as server:
        assert pulled(Registry(server.host, "team/app", Key("user", "secret")), "v1", tmp_path) == IMAGE.blobs
        assert len(store.seen) == 3
        assert all("authorization" not in headers for _, headers in store.seen)


def test_a_connection_that_breaks_is_taken_up_where_it_was(tmp_path: Path) -> None:
    big = next(digest for digest, content in IMAGE.blobs.items() if content_of(f"/{digest}") and digest != next(iter(IMAGE.blobs)))
    whole = IMAGE.blobs[big]
    third = len(whole) // 3

    def answer(server: Server, to: BaseHTTPRequestHandler) -> None:
        if not to.path.endswith(big):
            return honest(server, to)
        start = int(to.headers.get("Range", "bytes=0-")[6:-1])
        rest = whole[start:]
        headers = {"Content_Range": f"bytes {start}-{len(whole) - 1}/{len(whole)}"} if start else {}
        return reply(to, rest[:third], 206 if start else 200, len(rest), **headers)

    with Server(answer) as server:
        assert pulled(Registry(server.host, "team/app", None), "v1", tmp_path) == IMAGE.blobs
        ranges = [headers.get("range") for path, headers in server.seen if path.endswith(big)]
        assert ranges[:3] == [None, f"bytes={third}-", f"bytes={2 * third}-"]


def test_a_registry_that_cannot_skip_begins_anew(tmp_path: Path) -> None:
    """The second answer ignores the range: it is the whole again."""

    def answer(server: Server, to: BaseHTTPRequestHandler) -> None:
        content = content_of(to.path)
        if content is None or "/blobs/" not in to.path or server.count(to.path) > 1:
            return honest(server, to)
        return reply(to, content[: len(content) // 2], 200, len(content))

    with Server(answer) as server:
        source = Registry(server.host, "team/app", None)
        for digest, content in IMAGE.blobs.items():
            fetch(source, Blob(digest, len(content)), tmp_path / "part")
            assert (tmp_path / "part").read_bytes() == content
            (tmp_path / "part").unlink()
        source.close()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda content: content[:-1] + b"?", "InvalidImage"),
        (lambda content: content + b"?", "InvalidImage"),
        (lambda content: content[:-1], "InvalidImage"),
        (lambda content: b"", "InvalidImage"),
    ],
)
def test_other_bytes_than_promised(tmp_path: Path, change: Callable[[bytes], bytes], code: str) -> None:
    def answer(server: Server, to: BaseHTTPRequestHandler) -> None:
        content = content_of(to.path) or b""
        reply(to, change(content) if to.path.endswith(list(IMAGE.blobs)[1]) else content)

    with Server(answer) as server:
        assert fails(Registry(server.host, "team/app", None), "v1", tmp_path).code == code


def test_another_manifest_than_asked_for(tmp_path: Path) -> None:
    with Server(lambda server, to: reply(to, DOCKER.manifest)) as server:
        assert fails(Registry(server.host, "team/app", None), IMAGE.digest, tmp_path).code == "InvalidImage"
    with Server(lambda server, to: reply(to, b" " * (5 << 20))) as server:
        assert fails(Registry(server.host, "team/app", None), "v1", tmp_path).code == "InvalidImage"


def test_a_registry_that_is_busy_is_asked_again(tmp_path: Path) -> None:
    def answer(server: Server, to: BaseHTTPRequestHandler) -> None:
        if server.count(to.path) == 1:
            return reply(to, b"", 429, Retry_After="3600")
        return honest(server, to)

    with Server(answer) as server:
        assert pulled(Registry(server.host, "team/app", None), "v1", tmp_path) == IMAGE.blobs


def test_nobody_there(tmp_path: Path) -> None:
    with Server(honest) as server:
        host = server.host
    fault = fails(Registry(host, "team/app", None), "v1", tmp_path)
    assert fault.code == "InternalError"
    assert "refused" in fault.detail


# -- credentials -----------------------------------------------------------------------------------------------------------------------


def test_credentials_of_docker_and_its_helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text(
        "#!/bin/sh\nread host\n"
        'case "$host" in a.example) echo \'{"Username":"u","Secret":"s"}\';;\n'
        'b.example) echo \'{"Username":"<token>","Secret":"r"}\';; *) exit 1;; esac\n'
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    config = tmp_path / "config.json"
    auths = {
        "c.example": {"auth": "dXNlcjpwYXNzOndvcmQ="},
        "https://d.example": {"identitytoken": "i"},
        "e.example": {"auth": "?"},
        "f.example": 1,
    }
    config.write_text(
        json.dumps(
            {"credsStore": "../evil", "credHelpers": {"a.example": "test", "b.example": "test", "g.example": "test"}, "auths": auths}
        )
    )
    keys = RegistryKeys([RegistryCredential("z.example", "u", "p")], str(config))
    assert keys.find("z.example") == Key("u", "p")
    assert keys.find("a.example") == Key("u", "s")
    assert keys.find("b.example") == Key(refresh="r")
    assert keys.find("c.example") == Key("user", "pass:word")
    assert keys.find("d.example") == Key(refresh="i")
    for host in ("e.example", "f.example", "g.example", "h.example"):
        assert keys.find(host) is None
    config.write_text("{damaged")
    assert keys.find("c.example") is None

"""Names, manifests and configurations of images, and how an image is started."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambent.images.faults import ImageFault
from lambent.images.launch import handler, image_root
from lambent.images.manifest import Manifest, choose, digest_of, read_configuration
from lambent.images.reference import BadReference, ImageReference, parse
from lambent.testing.image_kit import Image, index_of, layer

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:5000/app", ImageReference("registry", "127.0.0.1:5000", "app")),
        ("localhost/app:v1", ImageReference("registry", "localhost", "app", "v1")),
        ("[::1]:5000/a/b-c:v", ImageReference("registry", "[::1]:5000", "a/b-c", "v")),
        (f"r.example/a@{DIGEST}", ImageReference("registry", "r.example", "a", "", DIGEST)),
        (f"r.example/a:v@{DIGEST}", ImageReference("registry", "r.example", "a", "v", DIGEST)),
        (
            "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/app:1.0_x",
            ImageReference("registry", "123456789012.dkr.ecr.us-east-1.amazonaws.com", "team/app", "1.0_x"),
        ),
        ("oci:/srv/images/app:v1", ImageReference("oci", "", "/srv/images/app", "v1")),
        ("oci-layout:///srv/images/app", ImageReference("oci", "", "/srv/images/app")),
        ("oci:app", ImageReference("oci", "", "app")),
        ("docker-archive:/srv/app.tar:team/app:v1", ImageReference("docker-archive", "", "/srv/app.tar", "team/app:v1")),
    ],
)
def test_names_are_read(text: str, expected: ImageReference) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "app",
        "app:latest",
        "team/app:latest",  # no host: nobody's registry is the default
        "host.example/App",
        "host.example/a:",
        "host.example/a@sha256:12",
        "host.example/a@sha512:" + "a" * 128,
        "host.example/../../etc:x",
        "host.example/a b",
        "host.example/a\n",
        "host.example//a",
        "user@host.example/a",
        "http://host.example/a",
        "oci:../secret",
        "oci:/srv/../etc",
        "oci:",
        "host.example/" + "a" * 300,
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(BadReference):
        parse(text)


@given(st.text())
def test_any_text_is_a_name_or_refused(text: str) -> None:
    try:
        reference = parse(text)
    except BadReference:
        return
    assert parse(str(reference)) == reference


def test_a_digest_counts_more_than_a_tag() -> None:
    reference = parse(f"host.example/a:v@{DIGEST}")
    assert reference.wanted == DIGEST
    assert reference.resolved("sha256:" + "b" * 64) == "host.example/a@sha256:" + "b" * 64
    assert parse("host.example/a").wanted == "latest"


def test_a_manifest_is_itself_and_an_index_leads_to_this_architecture() -> None:
    one, other = Image([layer({"a": b"1"})]), Image([layer({"a": b"2"})], architecture="arm64", docker=True)
    chosen = choose(one.manifest, "x86_64")
    assert isinstance(chosen, Manifest)
    assert (chosen.digest, len(chosen.layers)) == (one.digest, 1)
    assert choose(index_of([other, one]), "x86_64") == one.digest
    assert choose(index_of([other, one]), "arm64") == other.digest
    with pytest.raises(ImageFault, match=r"no manifest for linux/amd64, only for linux/arm64") as refused:
        choose(index_of([other]), "x86_64")
    assert refused.value.unsupported


def changed(**members: Any) -> bytes:
    return json.dumps({**json.loads(Image([layer({})]).manifest), **members}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b"[" * 100_000,
        changed(schemaVersion=1),
        changed(mediaType="application/json"),
        changed(layers=None),
        changed(layers=[1]),
        changed(layers=[{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": "sha512:1", "size": 1}]),
        changed(layers=[{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST, "size": -1}]),
        changed(layers=[{"mediaType": "application/vnd.oci.image.layer.v1.tar+encrypted", "digest": DIGEST, "size": 1}]),
        changed(config={"mediaType": "application/vnd.example.chart+json", "digest": DIGEST, "size": 1}),
        changed(config=None),
        changed(layers=[{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": DIGEST, "size": 1}] * 128),
    ],
)
def test_manifests_of_other_kinds_are_refused(content: bytes) -> None:
    with pytest.raises(ImageFault) as refused:
        choose(content, "x86_64")
    assert refused.value.code == "InvalidImage"


NAMES = [
    "schemaVersion",
    "mediaType",
    "config",
    "layers",
    "manifests",
    "digest",
    "size",
    "platform",
    "rootfs",
    "diff_ids",
    "Env",
    "os",
    "Cmd",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=20,
)


@given(JSON)
def test_no_document_does_more_than_be_refused(document: Any) -> None:
    content = json.dumps(document).encode()
    for read in (lambda: choose(content, "x86_64"), lambda: read_configuration(content)):
        with contextlib.suppress(ImageFault):
            read()


def configured(**members: Any) -> bytes:
    return json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [DIGEST]}, "config": members}
    ).encode()


def test_a_configuration_is_read() -> None:
    read = read_configuration(configured(Entrypoint=["/e"], Cmd=["a.b", "c"], WorkingDir="/w", Env=["A=1", "B=x=y", "C", "=z"]))
    assert read.architecture == "x86_64"
    assert read.diff_ids == (DIGEST,)
    assert (read.entrypoint, read.command, read.workdir) == (("/e",), ("a.b", "c"), "/w")
    assert read.environment == {"A": "1", "B": "x=y", "C": ""}


@pytest.mark.parametrize(
    "content",
    [
        configured(Entrypoint="sh"),
        configured(Cmd=[1]),
        configured(Cmd=["a\0b"]),
        configured(WorkingDir=5),
        configured(Env=["A=" + "x" * 40_000]),
        b'{"os":"windows"}',
        b'{"rootfs":{"diff_ids":["../../etc"]}}',
    ],
)
def test_a_bad_configuration_is_refused(content: bytes) -> None:
    with pytest.raises(ImageFault):
        read_configuration(content)


def test_overrides_replace_one_by_one() -> None:
    read = read_configuration(configured(Entrypoint=["/e", "x"], Cmd=["a.b"], WorkingDir="/w", Env=["A=1"]))
    plain = image_root("d", ["/l"], read, {})
    assert (plain.argv, plain.workdir, plain.environment, plain.layers) == (("/e", "x", "a.b"), "/w", {"A": "1"}, ("/l",))
    assert image_root("d", [], read, {"EntryPoint": ["/n"]}).argv == ("/n", "a.b")
    assert image_root("d", [], read, {"Command": ["c.d", "e"]}).argv == ("/e", "x", "c.d", "e")
    assert image_root("d", [], read, {"EntryPoint": [], "Command": [], "WorkingDirectory": ""}) == image_root("d", [], read, {})
    assert image_root("d", [], read, {"WorkingDirectory": "elsewhere"}).workdir == "elsewhere"
    assert handler(read, {}) == "a.b"
    assert handler(read, {"Command": ["c.d", "e"]}) == "c.d"
    bare = read_configuration(configured())
    assert (image_root("d", [], bare, {}).workdir, image_root("d", [], bare, {}).argv, handler(bare, {})) == ("/", (), "")


def test_digests_are_of_bytes() -> None:
    assert digest_of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

"""The folders and files of the image store, and how things come into them and go: whole or not at all, whatever is killed when. Blocking.

    <root>/layers/<diff id, hex>/fs       an unpacked layer, as overlayfs wants it; never changed, shared by all that have it
    <root>/layers/<diff id, hex>/size     the bytes of its files, as text
    <root>/images/<digest, hex>.json      the manifest and configuration of an image, as they were fetched
    <root>/parts/<digest>.<diff id>       a compressed layer on its way here; its beginning is kept for the next attempt
    <root>/.tmp-<random>/                 being made or taken away; swept at the next start

What stands under its final name came there by one rename after it was flushed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from lambent.disk import sync_directory, sync_file_system
from lambent.images.layer import Budget, unpack
from lambent.images.manifest import Manifest, choose, digest_of

_TEMPORARY = ".tmp-"


def hex_of(digest: str) -> str:
    return digest.removeprefix("sha256:")


class ImagePaths:
    """``open`` first."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._layers = self._root / "layers"
        self._images = self._root / "images"
        self._parts = self._root / "parts"

    def open(self) -> None:
        """Make the folders, and drop what a killed process left half-made."""
        for folder in (self._layers, self._images, self._parts):
            folder.mkdir(parents=True, exist_ok=True)
        for name in os.listdir(self._root):
            if name.startswith(_TEMPORARY):
                remove_tree(self._root / name)

    # -- layers -------------------------------------------------------------------------------------------------------------------------

    def layer(self, diff_id: str) -> str:
        return str(self._layers / hex_of(diff_id) / "fs")

    def layer_size(self, diff_id: str) -> int | None:
        """Bytes of a layer that is here, else ``None``."""
        try:
            return int((self._layers / hex_of(diff_id) / "size").read_text())
        except FileNotFoundError:
            return None

    def has(self, diff_ids: Iterable[str]) -> bool:
        return all(self.layer_size(diff_id) is not None for diff_id in diff_ids)

    def unpack(self, part: Path, diff_id: str, budget: Budget, go_on: Callable[[], None]) -> None:
        """Make a layer of the file ``part``, which is of no use afterwards if this fails. ``go_on`` is called often and may raise."""
        with self._workshop() as workshop:
            folder = workshop / "layer"
            (folder / "fs").mkdir(parents=True)
            folder.chmod(0o755)
            with open(part, "rb") as file:
                size = unpack(file, folder / "fs", diff_id, budget, go_on)
            (folder / "size").write_text(str(size))
            if not sync_file_system(folder):
                os.sync()
            with contextlib.suppress(FileExistsError):
                os.rename(folder, self._layers / hex_of(diff_id))
        sync_directory(self._layers)

    def part(self, digest: str, diff_id: str) -> Path:
        """Where the blob ``digest`` is collected that some image takes for ``diff_id``; whether it is, only unpacking tells."""
        return self._parts / f"{hex_of(digest)}.{hex_of(diff_id)}"

    def layers(self) -> set[str]:
        """The diff ids, hex, of all that is here."""
        return set(os.listdir(self._layers))

    def parts(self) -> set[str]:
        return set(os.listdir(self._parts))

    def discard_layer(self, name: str) -> None:
        """Take a layer away, given in hex, so that it is never seen half-removed."""
        with self._workshop() as workshop, contextlib.suppress(FileNotFoundError):
            os.rename(self._layers / name, workshop / "layer")

    def discard_part(self, name: str) -> None:
        (self._parts / name).unlink(missing_ok=True)

    # -- records ------------------------------------------------------------------------------------------------------------------------

    def keep(self, digest: str, manifest: bytes, configuration: bytes) -> None:
        """Note an image; ``digest`` is hex."""
        document = json.dumps({"manifest": manifest.decode(), "configuration": configuration.decode()}).encode()
        with self._workshop() as workshop:
            _write(workshop / "image", document)
            os.rename(workshop / "image", self._images / f"{digest}.json")
        sync_directory(self._images)

    def read(self, digest: str) -> tuple[Manifest, bytes] | None:
        """The manifest and the configuration of an image that was kept; ``None`` where it is missing or damaged."""
        try:
            document: Any = json.loads((self._images / f"{digest}.json").read_bytes())
            manifest, configuration = document["manifest"].encode(), document["configuration"].encode()
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        if hex_of(digest_of(manifest)) != digest:
            return None
        chosen = choose(manifest, "")
        if not isinstance(chosen, Manifest) or digest_of(configuration) != chosen.config.digest:
            return None
        return chosen, configuration

    def images(self) -> set[str]:
        """The digests, hex, of all images noted."""
        return {name.removesuffix(".json") for name in os.listdir(self._images)}

    def forget(self, digest: str) -> None:
        (self._images / f"{digest}.json").unlink(missing_ok=True)

    @contextlib.contextmanager
    def _workshop(self) -> Iterator[Path]:
        """A folder of our own that is gone at the end."""
        folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self._root))
        try:
            yield folder
        finally:
            remove_tree(folder)


def remove_tree(folder: Path) -> None:
    """Remove a folder whatever the modes of what is in it, as far as that goes."""
    if os.geteuid():
        for place, names, _ in os.walk(folder):
            for name in names:
                path = os.path.join(place, name)
                if stat.S_ISDIR(os.lstat(path).st_mode):
                    with contextlib.suppress(OSError):
                        os.chmod(path, 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())

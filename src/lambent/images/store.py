"""The images of this node: found, fetched, unpacked once, shared, and removed when nobody needs them any more.

An image is found in two steps, as on AWS. ``resolve`` asks the source what a name means now, which fixes the digest: that is what an
operation answers with, and no later push to the tag changes it. ``ensure`` brings the layers, however large, behind the answer. Both may be
repeated; a process that was killed between or within them goes on where it was.

What is on the disk, ``paths.py`` tells. A layer is named by its diff id, the hash of its uncompressed bytes, so two images that are built
on the same base share its folder, and no environment ever has a copy: sandboxes lay overlayfs over the folders.

**Who keeps an image.** As with zips (``control/code.py``): the functions say what they refer to (``used``), the data plane says what still
runs (``running``), and ``resolve`` holds what it found until the caller has committed. What none of the three keeps goes after ``GRACE_S``,
and with it the layers that no other image on record has. Once its layers are here, an image needs its registry no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lambent.clock import Clock
from lambent.errors import PlatformFault
from lambent.images.download import fetch, fetch_small
from lambent.images.faults import ImageFault, invalid, unsupported
from lambent.images.layer import Budget
from lambent.images.manifest import Blob, ImageConfiguration, Manifest, choose, read_configuration
from lambent.images.paths import ImagePaths, hex_of
from lambent.images.reference import ImageReference, parse
from lambent.images.sources import Sources
from lambent.turns import Turns

PARALLEL = 3
GRACE_S = 60.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image on record; ``layers`` are folders, bottom first, which ``ensure`` has filled. ``digest`` is hex."""

    digest: str
    configuration: ImageConfiguration
    layers: tuple[str, ...]


class ImageStore:
    """``running(digest)`` says whether any execution environment still lives on that image. ``open`` first."""

    def __init__(
        self,
        root: Path,
        sources: Sources,
        limit: int,
        architecture: str,
        clock: Clock,
        running: Callable[[str], bool],
    ) -> None:
        self._paths = ImagePaths(root)
        self._sources = sources
        self._limit = limit
        self._architecture = architecture
        self._clock = clock
        self._running = running
        self._images: dict[str, StoredImage] = {}
        self._manifests: dict[str, Manifest] = {}
        self._held: Counter[str] = Counter()
        self._wanted: Counter[str] = Counter()  # layers that some ``ensure`` needs
        self._turns = Turns()  # one at a time per layer
        self._unused_since: dict[str, float] = {}
        self._threads = ThreadPoolExecutor(PARALLEL, "image")
        self._closing = threading.Event()

    async def open(self) -> None:
        """Read what is on record."""
        await self._off_loop(self._paths.open)
        for digest in await self._off_loop(self._paths.images):
            found = await self._off_loop(lambda digest=digest: self._paths.read(digest))  # type: ignore[misc]
            if found is not None:
                with contextlib.suppress(ImageFault):  # a record of another version of Lambent: fetched anew when it is needed
                    self._note(digest, *found)

    def close(self) -> None:
        """Stop what is being fetched, and wait for the threads; further calls fail."""
        self._closing.set()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def get(self, digest: str) -> StoredImage | None:
        """An image on record. Its layers are there once ``ensure`` has returned for it."""
        return self._images.get(digest)

    async def complete(self, digest: str) -> bool:
        """Whether every layer of an image is here."""
        image = self._images.get(digest)
        return image is not None and await self._off_loop(lambda: self._paths.has(image.configuration.diff_ids))

    @contextlib.asynccontextmanager
    async def resolve(self, reference: ImageReference) -> AsyncIterator[StoredImage]:
        """What ``reference`` means now, kept on record while the caller commits what refers to it. Raises ``ImageFault``."""
        digest, content, configuration = await self._off_loop(lambda: self._look_up(reference))
        self._held[digest] += 1
        self._unused_since.pop(digest, None)
        try:
            async with self._turns(digest):
                if digest not in self._images:
                    await self._off_loop(lambda: self._paths.keep(digest, content, configuration))
                    manifest = choose(content, self._architecture)
                    assert isinstance(manifest, Manifest)
                    self._note(digest, manifest, configuration)
            yield self._images[digest]
        finally:
            self._held[digest] -= 1
            if not self._held[digest]:
                del self._held[digest]
                self.unused(digest)

    async def ensure(self, digest: str, resolved_uri: str) -> StoredImage:
        """Have every layer of an image here. ``resolved_uri`` tells where to fetch what is missing. Raises ``ImageFault``."""
        reference = parse(resolved_uri)
        if digest not in self._images:
            async with self.resolve(reference.at(f"sha256:{digest}")) as found:
                if found.digest != digest:
                    raise invalid(f"{resolved_uri} is another image than it was")
        image, manifest = self._images[digest], self._manifests[digest]
        diff_ids = image.configuration.diff_ids
        self._wanted.update(diff_ids)
        try:
            budget = Budget(self._limit)
            for blob, diff_id in zip(manifest.layers, diff_ids, strict=True):
                async with self._turns(diff_id):
                    await self._layer(reference, blob, diff_id, budget)
        finally:
            self._wanted.subtract(diff_ids)
            self._wanted += Counter()  # drops the zeros
        return image

    def unused(self, digest: str) -> None:
        """Take note that a function stopped using ``digest``; ``collect`` decides whether anybody else does."""
        if digest in self._images:
            self._unused_since[digest] = self._clock.monotonic()

    @property
    def pending(self) -> bool:
        """Whether ``collect`` may have something to do, now or later."""
        return bool(self._unused_since)

    async def collect(self, used: Callable[[str], bool]) -> int:
        """Remove what has been unused for ``GRACE_S``; gives how many images. ``used`` says which some function refers to."""
        removed = 0
        for digest, since in list(self._unused_since.items()):
            if used(digest):
                self._unused_since.pop(digest, None)
            elif not self._busy(digest) and self._clock.monotonic() - since >= GRACE_S:
                async with self._turns(digest):
                    removed += await self._forget(digest, used)
        if removed:
            await self._drop_layers()
        return removed

    async def sweep(self, used: Callable[[str], bool]) -> None:
        """At the start, before anything runs: note all images that no function uses, and drop layers that are of no image."""
        for digest in self._images:
            if not used(digest):
                self.unused(digest)
        await self._drop_layers()

    # -- inside -------------------------------------------------------------------------------------------------------------------------

    def _busy(self, digest: str) -> bool:
        return bool(self._held[digest]) or self._running(digest)

    async def _forget(self, digest: str, used: Callable[[str], bool]) -> int:
        if used(digest) or self._busy(digest):
            return 0
        self._images.pop(digest, None)
        self._manifests.pop(digest, None)
        self._unused_since.pop(digest, None)
        await self._off_loop(lambda: self._paths.forget(digest))
        return 1

    def _note(self, digest: str, manifest: Manifest, configuration: bytes) -> None:
        read = read_configuration(configuration)
        layers = tuple(self._paths.layer(diff_id) for diff_id in read.diff_ids)
        self._images[digest] = StoredImage(digest, read, layers)
        self._manifests[digest] = manifest

    def _look_up(self, reference: ImageReference) -> tuple[str, bytes, bytes]:
        """The digest, manifest and configuration that ``reference`` leads to on this architecture."""
        with contextlib.closing(self._sources.open(reference)) as source:
            content = source.manifest(reference.wanted)
            chosen = choose(content, self._architecture)
            if isinstance(chosen, str):
                content = source.manifest(chosen)
                chosen = choose(content, self._architecture)
            if isinstance(chosen, str):
                raise unsupported("an index inside an index")
            configuration = fetch_small(source, chosen.config)
        read = read_configuration(configuration)
        if read.architecture != self._architecture:
            raise unsupported(f"an image for {read.architecture}; this machine runs {self._architecture}")
        if not chosen.layers or len(chosen.layers) != len(read.diff_ids):
            raise invalid(f"{len(chosen.layers)} layers, of which the configuration names {len(read.diff_ids)}")
        return hex_of(chosen.digest), content, configuration

    async def _layer(self, reference: ImageReference, blob: Blob, diff_id: str, budget: Budget) -> None:
        size = await self._off_loop(lambda: self._paths.layer_size(diff_id))
        if size is not None:
            budget.take(size)
            return
        await self._off_loop(lambda: self._bring(reference, blob, diff_id, budget))

    def _bring(self, reference: ImageReference, blob: Blob, diff_id: str, budget: Budget) -> None:
        part = self._paths.part(blob.digest, diff_id)
        with contextlib.closing(self._sources.open(reference)) as source:
            fetch(source, blob, part, self._go_on)
        self._paths.unpack(part, diff_id, budget, self._go_on)
        self._paths.discard_part(part.name)

    def _go_on(self) -> None:
        if self._closing.is_set():
            raise PlatformFault("The node stops.")

    async def _drop_layers(self) -> None:
        """Remove the layers and downloads of images that are no longer on record."""
        for name in await self._off_loop(self._paths.layers):
            async with self._turns(f"sha256:{name}"):
                if not self._keeps_layer(f"sha256:{name}"):
                    await self._off_loop(lambda name=name: self._paths.discard_layer(name))  # type: ignore[misc]
        expected = {
            self._paths.part(blob.digest, diff_id).name
            for digest, manifest in self._manifests.items()
            for blob, diff_id in zip(manifest.layers, self._images[digest].configuration.diff_ids, strict=True)
        }
        for name in await self._off_loop(self._paths.parts) - expected:
            await self._off_loop(lambda name=name: self._paths.discard_part(name))  # type: ignore[misc]

    def _keeps_layer(self, diff_id: str) -> bool:
        return self._wanted[diff_id] > 0 or any(diff_id in image.configuration.diff_ids for image in self._images.values())

    async def _off_loop(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except OSError as error:
            raise PlatformFault(f"The image folder cannot be used: {error}") from error

"""Container images as the code of functions (contract 06 §8): AWS's rules and texts around ``lambent.images``.

What a document keeps of an image: ``CodeSha256`` is the digest in hex, ``_image`` holds the name that was given and the one it resolved to,
``ImageConfigResponse`` the overrides. From these three everything else follows, whatever happens to the tag later.

The name is resolved while the caller waits, since the answer tells the digest: what is wrong with the name, with the credentials or with
the kind of image is an error of the operation. The layers come behind the answer: what goes wrong then is the function's state. A registry
that does not answer is asked again a few times before that.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from lambent.clock import Clock
from lambent.control.code import Code
from lambent.errors import ClientFault, PlatformFault, invalid_parameter
from lambent.function_version import ImageRoot
from lambent.images.faults import DELETED, DENIED, INVALID, UNREACHABLE, ImageFault
from lambent.images.launch import handler, image_root
from lambent.images.reference import BadReference, parse
from lambent.images.store import ImageStore

RETRY_AFTER_S = (1.0, 2.0, 4.0, 8.0)

_REASONS = {
    DELETED: "The function is trying to use a deleted image.",
    DENIED: "The function does not have permission to access the specified image.",
    INVALID: "The image is not valid.",
    UNREACHABLE: "The image could not be fetched.",
}

Document = Mapping[str, Any]


class ImageLost(PlatformFault):
    """The image of a function cannot be had. ``code`` is a StateReasonCode."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def is_image(document: Document) -> bool:
    return bool(document.get("PackageType") == "Image")


class ImageCode:
    """The images that functions refer to."""

    def __init__(self, store: ImageStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    @contextlib.asynccontextmanager
    async def put(self, uri: str) -> AsyncIterator[Code]:
        """Find out what ``uri`` means now, and keep it while the caller commits what refers to it. Raises ``ClientFault``."""
        try:
            reference = parse(uri)
        except BadReference:
            raise invalid_parameter(f"Source image {uri} is not valid. Provide a valid source image.") from None
        async with contextlib.AsyncExitStack() as held:
            try:
                image = await held.enter_async_context(self._store.resolve(reference))
            except ImageFault as fault:
                raise _refusal(uri, fault) from fault
            yield Code(image.digest, 0, 0, uri, reference.resolved(f"sha256:{image.digest}"))

    async def ensure(self, document: Document) -> None:
        """Have every layer of the document's image on this machine. Raises ``ImageLost``."""
        for delay in (*RETRY_AFTER_S, None):
            try:
                await self._store.ensure(document["CodeSha256"], document["_image"]["resolved"])
                return
            except ImageFault as fault:
                if fault.code != UNREACHABLE or delay is None:
                    raise ImageLost(fault.code, f"{_REASONS[fault.code]} ({fault.detail})") from fault
                await self._clock.sleep(delay)

    async def require(self, document: Document) -> None:
        """Raises ``ImageLost`` where a layer of the document's image is missing; fetches nothing."""
        if not await self._store.complete(document["CodeSha256"]):
            raise ImageLost(UNREACHABLE, "Layers of the image are missing from this machine.")

    def root(self, document: Document) -> tuple[ImageRoot, str] | None:
        """What sandboxes of ``document`` are built from, and the handler; ``None`` until its image is on record."""
        image = self._store.get(document["CodeSha256"]) if is_image(document) else None
        if image is None:
            return None
        overrides = document.get("ImageConfigResponse", {}).get("ImageConfig", {})
        return image_root(image.digest, image.layers, image.configuration, overrides), handler(image.configuration, overrides)

    # -- what is kept ---------------------------------------------------------------------------------------------------------------------

    def knows(self, digest: str) -> bool:
        return self._store.get(digest) is not None

    def unused(self, digest: str) -> None:
        """Take note that a function stopped using an image."""
        self._store.unused(digest)

    @property
    def pending(self) -> bool:
        return self._store.pending

    async def collect(self, used: Callable[[str], bool]) -> None:
        """Remove what nobody has used for a while."""
        await self._store.collect(used)

    async def sweep(self, used: Callable[[str], bool]) -> None:
        """At the start, before anything runs."""
        await self._store.sweep(used)


def location(document: Document) -> dict[str, str]:
    """``Code`` of GetFunction."""
    return {"RepositoryType": "ECR", "ImageUri": document["_image"]["uri"], "ResolvedImageUri": document["_image"]["resolved"]}


def source(code: Mapping[str, Any], operation: str) -> str:
    """The image of a request of CreateFunction ("creating") or UpdateFunctionCode ("updating"). Raises ``ClientFault``."""
    uri: str = code.get("ImageUri") or ""
    if not uri:
        raise invalid_parameter(f"Please provide ImageUri when {operation} a function with packageType Image.")
    if code.get("ZipFile") is not None or code.get("S3Bucket") or code.get("S3Key") or code.get("S3ObjectStorageMode") == "REFERENCE":
        raise invalid_parameter("Please do not provide other FunctionCode parameters when providing an ImageUri.")
    return uri


def check_members(package_type: str, params: Mapping[str, Any]) -> None:
    """Refuse what does not go with the package type."""
    if package_type == "Image":
        if any(params.get(name) for name in ("Handler", "Runtime", "Layers")):
            raise invalid_parameter("Please don't provide Handler or Runtime or Layer when the intended function PackageType is Image.")
    elif params.get("ImageConfig"):
        raise invalid_parameter("Please don't provide ImageConfig when the intended function PackageType is Zip.")


def overrides(given: Mapping[str, Any]) -> dict[str, Any] | None:
    """``ImageConfigResponse`` for an ImageConfig; ``None`` where that overrides nothing."""
    config = {name: given[name] for name in ("EntryPoint", "Command", "WorkingDirectory") if given.get(name)}
    return {"ImageConfig": config} if config else None


def _refusal(uri: str, fault: ImageFault) -> ClientFault:
    """AWS's text, and behind it what exactly is the matter."""
    if fault.code == DENIED:
        text = f"Lambda does not have permission to access the ECR image. Check the ECR permissions. ({fault.detail})"
        return ClientFault("AccessDeniedException", 403, text)
    if fault.unsupported:
        text = f"The image manifest, config or layer media type for the source image {uri} is not supported."
    elif fault.code == DELETED:
        text = f"Source image {uri} does not exist. Provide a valid source image."
    else:
        text = f"Source image {uri} is not valid. Provide a valid source image."
    return invalid_parameter(f"{text} ({fault.detail})")

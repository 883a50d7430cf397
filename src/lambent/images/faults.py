"""What can be wrong with an image, in the words of AWS's state reason codes (contract 06 §8).

An ``ImageFault`` is raised wherever an image is looked for, fetched or unpacked. ``code`` is a StateReasonCode; ``control/image_code.py``
turns it into the answer of an operation or into the state of a function. ``detail`` is for people: what exactly, and where.
"""

from __future__ import annotations

from lambent.errors import LambentError

DELETED = "ImageDeleted"
DENIED = "ImageAccessDenied"
INVALID = "InvalidImage"
UNREACHABLE = "InternalError"


class ImageFault(LambentError):
    """An image that cannot be had. ``unsupported`` tells a kind of image that nobody here can run from a broken one."""

    def __init__(self, code: str, detail: str, *, unsupported: bool = False) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.unsupported = unsupported


def deleted(detail: str) -> ImageFault:
    """The registry knows no such repository, tag, manifest or blob."""
    return ImageFault(DELETED, detail)


def denied(detail: str) -> ImageFault:
    """The registry wants credentials, or others than we have."""
    return ImageFault(DENIED, detail)


def invalid(detail: str) -> ImageFault:
    """The image's bytes are not what they should be."""
    return ImageFault(INVALID, detail)


def unsupported(detail: str) -> ImageFault:
    """A manifest, configuration or layer of a kind that is not supported, or of another architecture."""
    return ImageFault(INVALID, detail, unsupported=True)


def unreachable(detail: str) -> ImageFault:
    """The registry does not answer."""
    return ImageFault(UNREACHABLE, detail)

"""Where the zip of a request comes from: from the request itself, or from a bucket (contract 01 §5.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lambent.errors import NotImplementedFault, invalid_parameter
from lambent.wire.call import Call

Params = Mapping[str, Any]


class CodeSource:
    """Reads what ``FunctionCode`` and ``LayerVersionContentInput`` name."""

    async def layer(self, call: Call, content: Params) -> bytes:
        """The zip of PublishLayerVersion's ``Content``. Raises ``ClientFault``."""
        del call
        zip_file: bytes | None = content.get("ZipFile")
        if zip_file is not None:
            if any(content.get(name) for name in ("S3Bucket", "S3Key", "S3ObjectVersion", "S3ObjectStorageMode")):
                raise invalid_parameter("Please do not provide other Content parameters when providing a ZipFile.")
            return zip_file
        if content.get("S3Bucket") or content.get("S3Key"):
            raise NotImplementedFault("lambda", "PublishLayerVersion with S3Bucket, S3Key")
        raise invalid_parameter("Please provide a source for layer content.")

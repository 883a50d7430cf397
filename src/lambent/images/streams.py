"""Bytes of a layer on their way to ``tarfile``: decompressed, counted, hashed, and never more of them in memory than asked for.

``Inflated`` is what a layer is once uncompressed; its hash at the end is the layer's diff id. What the compression is, the first bytes say
(builders do not always agree with their own media types). ``Forward`` gives it the little of a file that ``tarfile`` wants: it only moves
ahead, but for the last block, and refuses single reads that no honest header needs, so that a header which claims gigabytes costs nothing.
"""

from __future__ import annotations

import hashlib
import sys
import zlib
from collections.abc import Callable
from typing import IO, Any, Protocol

from lambent.images.faults import invalid

if sys.version_info >= (3, 14):
    from compression.zstd import DecompressionParameter, ZstdDecompressor, ZstdError
else:
    from backports.zstd import DecompressionParameter, ZstdDecompressor, ZstdError

CHUNK = 1 << 16
LARGEST_READ = 1 << 20  # of one read by tarfile: its headers, or our own pieces of CHUNK
WINDOW_LOG = 27  # zstd: at most 128 MB of window, what the zstd tool itself takes by default
BROKEN = (zlib.error, ZstdError, EOFError)
_BLOCK = 512


class _Decoder(Protocol):
    def feed(self, data: bytes) -> bytes:
        """Take ``data``; give up to ``CHUNK`` bytes of output, b"" when more input is needed."""
        ...


class _Plain:
    def feed(self, data: bytes) -> bytes:
        return data


class _Members:
    """A stream of one or several compressed members, as parallel compressors write them. Zeros behind the last are padding."""

    def __init__(self, new: Callable[[], Any]) -> None:
        self._new = new
        self._inflate = new()
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        self._rest += data
        while True:
            if self._inflate.eof:
                self._rest = (self._inflate.unused_data + self._rest).lstrip(b"\0")
                if not self._rest:
                    return b""
                self._inflate = self._new()
            rest, self._rest = self._rest, b""
            out = self._step(rest)
            if out or not self._inflate.eof:
                return out

    def _step(self, rest: bytes) -> bytes:
        raise NotImplementedError


class _Gzip(_Members):
    def __init__(self) -> None:
        super().__init__(lambda: zlib.decompressobj(31))

    def _step(self, rest: bytes) -> bytes:
        out: bytes = self._inflate.decompress(rest, CHUNK)
        self._rest = self._inflate.unconsumed_tail
        return out


class _Zstd(_Members):
    def __init__(self) -> None:
        super().__init__(lambda: ZstdDecompressor(options={DecompressionParameter.window_log_max: WINDOW_LOG}))

    def _step(self, rest: bytes) -> bytes:
        if self._inflate.needs_input and not rest:
            return b""
        return bytes(self._inflate.decompress(rest, CHUNK))


class Inflated:
    """The uncompressed bytes of ``source``, at most ``limit``. Raises ``ImageFault`` beyond it and for broken data."""

    def __init__(self, source: IO[bytes], limit: int) -> None:
        self._source = source
        self._limit = limit
        self._count = 0
        self._hash = hashlib.sha256()
        self._ended = False
        self._input = source.read(CHUNK)
        self._output = b""
        self._place = 0  # in the output
        self._decoder: _Decoder = _Plain()
        if self._input.startswith(b"\x1f\x8b"):
            self._decoder = _Gzip()
        elif self._input.startswith(b"\x28\xb5\x2f\xfd"):
            self._decoder = _Zstd()

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes, fewer only at the end."""
        ready = self._output[self._place : self._place + size]
        self._place += len(ready)
        if len(ready) == size:
            return ready
        pieces = [ready]
        missing = size - len(ready)
        while missing and self._refill():
            pieces.append(self._output[:missing])
            self._place = len(pieces[-1])
            missing -= self._place
        return b"".join(pieces)

    def drain(self) -> str:
        """Read what is left; gives the digest of everything."""
        while self._refill():
            pass
        return "sha256:" + self._hash.hexdigest()

    def _refill(self) -> bool:
        self._place = 0
        try:
            self._output = self._decoder.feed(self._input)
            while not self._output and not self._ended:
                self._input = self._source.read(CHUNK)
                self._ended = not self._input
                self._output = self._decoder.feed(self._input)
        except BROKEN as error:
            raise invalid(f"the layer does not decompress: {error}") from error
        self._input = b""
        self._count += len(self._output)
        if self._count > self._limit:
            raise invalid(f"the layer is larger than {self._limit} bytes")
        self._hash.update(self._output)
        return bool(self._output)


class Forward:
    """``Inflated`` as ``tarfile`` wants a file to be."""

    def __init__(self, stream: Inflated) -> None:
        self._stream = stream
        self._place = 0
        self._back = 0  # how far before the stream's place we stand, within ``_last``
        self._last = b""

    def tell(self) -> int:
        return self._place

    def seek(self, place: int, whence: int = 0) -> int:
        if whence or place < self._place - (len(self._last) - self._back):
            raise invalid("the layer is no tar file that can be read in one go")
        if place <= self._place + self._back:
            self._back = self._place + self._back - place
            self._place = place
            return place
        while self._place < place:
            if not self.read(min(CHUNK, place - self._place)):
                break
        return self._place

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > LARGEST_READ:
            raise invalid(f"a header of the layer asks for {size} bytes at once")
        again = b""
        if self._back:
            start = len(self._last) - self._back
            again = self._last[start : start + size]
            self._back -= len(again)
        wanted = size - len(again)
        fresh = self._stream.read(wanted)
        if len(fresh) < wanted:  # umoci leaves the padding of the last block away
            fresh += bytes(min(wanted - len(fresh), -(self._place + len(again) + len(fresh)) % _BLOCK))
        if fresh:
            self._last = (self._last + fresh[-_BLOCK:])[-_BLOCK:]
        data = again + fresh
        self._place += len(data)
        return data

"""Compressed streams to bytes, in blocks, to their last checksum."""

from __future__ import annotations

import bz2
import io
import lzma
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, Protocol, cast

from isal import igzip_lib

from medcurate.unpack.limits import Stop
from medcurate.zips.volumes import VolumeFile, Volumes

BLOCK_BYTES = 1 << 20
_FEED_BYTES = 1 << 18
_ZSTD_FEED_BYTES = 1 << 12  # a block of 4 bytes may hold 128 kB
_LZMA_MEMORY_BYTES = 1 << 30
_ZSTD_WINDOW_BYTES = 1 << 30
_AHEAD_BLOCKS = 4

MAGIC = {
    "gz": (b"\x1f\x8b",),
    "bz2": (b"BZh",),
    "xz": (b"\xfd7zXZ\x00",),
    # A skippable frame may come first (RFC 8878, 3.1.2): pzstd begins with one.
    "zst": (b"\x28\xb5\x2f\xfd", *(bytes([first]) + b"*M\x18" for first in range(0x50, 0x60))),
}
SUFFIXES = {"gz": ".gz", "bz2": ".bz2", "xz": ".xz", "zst": ".zst"}


class Stream(Protocol):
    """Bytes in order: at most ``size``, none at the end."""

    def read(self, size: int, /) -> bytes: ...


def opened(
    compression: str,
    volumes: Volumes,
    on_read: Callable[[int], None] = lambda size: None,
    judge: Callable[[int], None] = lambda total: None,
) -> Stream:
    """The plain bytes of a compressed file; ``on_read`` is told how many stored bytes were used.

    Its ``read`` raises Stop where the stream is damaged or cut, and what ``judge`` raises of all bytes that came
    out so far, wanted or not.
    """
    raw = io.BufferedReader(_Counted(volumes, on_read), BLOCK_BYTES)
    return _Checked(_OPENERS[compression](raw), judge)


class _Counted(VolumeFile):
    def __init__(self, volumes: Volumes, on_read: Callable[[int], None]) -> None:
        super().__init__(volumes)
        self._on_read = on_read

    def readinto(self, buffer: Any) -> int:
        size = super().readinto(buffer)
        self._on_read(size)
        return size


class _Checked:
    """Whatever a decompressor raises is damage."""

    def __init__(self, stream: Stream, judge: Callable[[int], None]) -> None:
        self._stream, self._judge = stream, judge
        self._done_bytes = 0

    def read(self, size: int) -> bytes:
        try:
            data = self._stream.read(size)
        except EOFError as error:
            raise Stop(f"it is cut after {self._done_bytes:,} unpacked bytes") from error
        except (OSError, ValueError, lzma.LZMAError, _IsalError) as error:
            raise Stop(
                f"its compressed data are damaged after {self._done_bytes:,} unpacked bytes"
            ) from error
        self._done_bytes += len(data)
        self._judge(self._done_bytes)
        return data


class _Decoder(Protocol):
    """What bz2, lzma and isal give; of zstandard ``_ZstdDecoder``."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Frames:
    """Streams one after another (gzip's members, xz's streams) as one, each read to its checksum.

    The libraries' own files either give nothing of the block in which a stream is cut, or take a cut one for
    a whole one.
    """

    def __init__(self, raw: IO[bytes], make: Callable[[], _Decoder], feed_bytes: int = _FEED_BYTES) -> None:
        self._raw, self._make, self._feed_bytes = raw, make, feed_bytes
        self._decoder: _Decoder | None = None
        self._unused = b""

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes, none at the end. Raises EOFError where a stream is cut."""
        while True:
            if self._decoder is None and not self._begin():
                return b""
            decoder = cast("_Decoder", self._decoder)
            data = (self._unused or self._raw.read(self._feed_bytes)) if decoder.needs_input else b""
            self._unused = b""
            if not data and decoder.needs_input:
                raise EOFError
            block = decoder.decompress(data, size)
            if decoder.eof:
                self._unused, self._decoder = decoder.unused_data, None
            if block:
                return block

    def _begin(self) -> bool:
        """Make a decoder for the next stream; zeros between and after streams are padding."""
        data = self._unused.lstrip(b"\0")
        while not data and (more := self._raw.read(self._feed_bytes)):
            data = more.lstrip(b"\0")
        self._unused = data
        self._decoder = self._make() if data else None
        return bool(data)


class _ZstdDecoder:
    """zstandard's decompressor in the same dress. Nothing bounds what a call returns, so it is fed little."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._decoder = library.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj()
        self._buffer = b""

    @property
    def eof(self) -> bool:
        return bool(self._decoder.eof) and not self._buffer

    @property
    def needs_input(self) -> bool:
        return not self._buffer and not self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return bytes(self._decoder.unused_data)

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        if data:
            try:
                self._buffer = self._decoder.decompress(data)
            except self._library.ZstdError as error:
                raise ValueError(str(error)) from error
        block, self._buffer = self._buffer[:max_length], self._buffer[max_length:]
        return block


def _gzip(raw: IO[bytes]) -> Stream:
    return _Frames(raw, lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP))


def _bzip2(raw: IO[bytes]) -> Stream:
    return _Frames(raw, bz2.BZ2Decompressor)


def _xz(raw: IO[bytes]) -> Stream:
    return _Frames(raw, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _LZMA_MEMORY_BYTES))


def _zstd(raw: IO[bytes]) -> Stream:
    try:
        import zstandard
    except ImportError as error:
        raise Stop(
            'it needs zstandard: install it with "pip install medcurate[archives]"', damage=False
        ) from error
    return _Frames(raw, lambda: _ZstdDecoder(zstandard), _ZSTD_FEED_BYTES)


_OPENERS: dict[str, Callable[[IO[bytes]], Stream]] = {"gz": _gzip, "bz2": _bzip2, "xz": _xz, "zst": _zstd}
_IsalError: type[Exception] = igzip_lib.error  # type: ignore[assignment]  # its stub declares an instance


class Ahead:
    """``stream`` read by a thread of its own, some blocks ahead: decompressors let others run."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(_AHEAD_BLOCKS)
        self._block = memoryview(b"")
        self._ended = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="unpack-ahead", daemon=True)
        self._thread.start()

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes, none at the end. Raises what the stream raised."""
        if not self._block and not self._ended:
            item = self._queue.get()
            if isinstance(item, BaseException):
                self._ended = True
                raise item
            self._ended = not item
            self._block = memoryview(item)
        data, self._block = bytes(self._block[:size]), self._block[size:]
        return data

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        while self._thread.is_alive():
            with suppress(queue.Empty):
                self._queue.get_nowait()
            self._thread.join(0.01)

    def _run(self) -> None:
        try:
            while not self._closed.is_set():
                data = self._stream.read(BLOCK_BYTES)
                self._queue.put(data)
                if not data:
                    return
        except BaseException as error:
            self._queue.put(error)

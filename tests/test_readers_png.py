"""PNG undone by one sum: the same pixels as libpng, or left to it."""

from __future__ import annotations

import struct
import zlib

import cv2
import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medcurate.errors import CaseRejected
from medcurate.format import png
from medcurate.readers.raster_formats import decode
from medcurate.readers.raster_png import plain

SAMPLES = {0: 1, 2: 3, 4: 2, 6: 4}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def encoded(pixels: np.ndarray, colour: int, filters: list[int], parts: int = 1) -> bytes:
    """A PNG with the filter type of every row given; the filter is undone by the definition of clause 9.2."""
    height, width, samples = pixels.shape
    rows = pixels.reshape(height, width * samples).astype(int)
    left = np.pad(rows, ((0, 0), (samples, 0)))[:, : width * samples]
    above = np.pad(rows, ((1, 0), (0, 0)))[:height]
    lines = b""
    for number, kind in enumerate(filters):
        taken = {0: 0, 1: left[number], 2: above[number], 3: (left[number] + above[number]) // 2}[kind]
        lines += bytes([kind]) + ((rows[number] - taken) % 256).astype(np.uint8).tobytes()
    stream = zlib.compress(lines)
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    cuts = [len(stream) * part // parts for part in range(parts + 1)]
    data = b"".join(chunk(b"IDAT", stream[a:b]) for a, b in zip(cuts, cuts[1:], strict=False))  # noqa: RUF007
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def read(content: bytes) -> np.ndarray:
    return decode(content, lambda claimed, holdable: None, indices=False)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_all_filters_and_colours_are_what_libpng_reads(data):
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    colour = data.draw(st.sampled_from([0, 2, 4, 6]))
    same = data.draw(st.booleans())
    kinds = st.integers(0, 3)
    filters = (
        [data.draw(kinds)] * height if same else data.draw(st.lists(kinds, min_size=height, max_size=height))
    )
    pixels = np.frombuffer(
        data.draw(
            st.binary(min_size=height * width * SAMPLES[colour], max_size=height * width * SAMPLES[colour])
        ),
        np.uint8,
    ).reshape(height, width, SAMPLES[colour])
    content = encoded(pixels, colour, filters, data.draw(st.integers(1, 3)))
    found = read(content)
    np.testing.assert_array_equal(found.reshape(pixels.shape), pixels)
    np.testing.assert_array_equal(found, imagecodecs.png_decode(content))


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3), (1, 1), (7, 300)])
def test_what_opencv_and_medcurate_write_needs_no_library(shape, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    theirs = cv2.imencode(".png", pixels[..., ::-1] if len(shape) == 3 else pixels)[1].tobytes()
    monkeypatch.setattr(imagecodecs, "png_decode", None)
    np.testing.assert_array_equal(read(theirs), pixels)
    np.testing.assert_array_equal(read(png.encode(pixels)), pixels)


def test_a_wrong_checksum_and_missing_rows_are_refused():
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8, 1)
    content = encoded(pixels, 0, [1] * 6)
    at = content.index(b"IDAT")
    size = int.from_bytes(content[at - 4 : at], "big")
    stream = content[at + 4 : at + 4 + size]
    for bad in (stream[:-1] + bytes([stream[-1] ^ 1]), zlib.compress(zlib.decompress(stream)[:-9])):
        with pytest.raises(CaseRejected):
            read(content[: at - 4] + chunk(b"IDAT", bad) + chunk(b"IEND", b""))


def test_other_kinds_are_left_to_the_library():
    header = struct.pack(">IIBBBBB", 4, 4, 16, 0, 0, 0, 0)
    assert plain(header, []) is None
    assert plain(struct.pack(">IIBBBBB", 4, 4, 8, 3, 0, 0, 0), []) is None
    assert plain(struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 1), []) is None
    assert plain(struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0), [(b"tRNS", b"\0\0")]) is None

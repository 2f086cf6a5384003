"""PNG bytes that every reader opens, and damaged ones that none of ours accepts."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from isal import isal_zlib
from PIL import Image

from medcurate.format import png

SIGNATURE = b"\x89PNG\r\n\x1a\n"
IMAGES = st.one_of(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)),
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3))),
)


def sample_image(shape=(33, 47)):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def written(width, height, depth, colour, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@settings(max_examples=150, deadline=None)
@given(image=IMAGES)
def test_three_readers_see_the_same_pixels(image):
    data = png.encode(image)
    assert np.array_equal(png.decode(data), image)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), image)
    seen = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(seen if image.ndim == 2 else seen[..., ::-1], image)


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (1, 65535), (65535, 1), (512, 512), (300, 200, 3)])
def test_sizes(shape):
    image = sample_image(shape)
    assert np.array_equal(png.decode(png.encode(image)), image)


@pytest.mark.parametrize("shape", [(3000, 1500), (900, 1700, 3)])
def test_pictures_of_several_blocks(shape):
    """Pictures are filtered a few megabytes at a time."""
    image = np.random.default_rng(0).integers(0, 30, shape).astype(np.uint8)
    data = png.encode(image)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), image)
    np.testing.assert_array_equal(png.decode(data), image)


def test_strided_and_read_only_images():
    image = sample_image((40, 50, 3))
    for view in (image[::-1, ::2], image.transpose(1, 0, 2), image[..., ::-1], image[:, :, 1]):
        view.flags.writeable = False
        assert np.array_equal(png.decode(png.encode(view)), view)


def test_equal_images_are_equal_bytes():
    image = sample_image()
    assert png.encode(image) == png.encode(np.asfortranarray(image.copy()))


def test_equal_images_are_equal_bytes_wherever_the_encoder_lies_in_memory():
    """ISA-L lets an address decide which match it finds, in a few of a hundred streams of such a picture."""
    random = np.random.default_rng(0)
    dots = [
        np.concatenate([np.zeros(3000, np.uint8), random.integers(0, 256, 5, np.uint8)]) for _ in range(20)
    ]
    image = np.concatenate([*dots, np.zeros(3000, np.uint8)])[np.newaxis]
    elsewhere = []  # as long as these live, the next encoder lies at another address
    encoded = set()
    for _ in range(600):
        elsewhere.append(isal_zlib.compressobj(1))
        encoded.add(png.encode(image))
    assert len(encoded) == 1


def test_every_chunk_is_as_the_specification_says():
    image = sample_image((7, 5))
    data = png.encode(image)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 7, 8, 0, 0, 0, 0))
    assert data.startswith(SIGNATURE + header)
    assert data.endswith(chunk(b"IEND", b""))
    length, kind = struct.unpack_from(">I4s", data, 33)
    assert kind == b"IDAT"
    assert 33 + 12 + length + 12 == len(data)
    rows = np.frombuffer(zlib.decompress(data[41 : 41 + length]), np.uint8).reshape(7, 6)
    assert (rows[:, 0] == 2).all()
    assert np.array_equal(np.cumsum(rows[:, 1:], axis=0, dtype=np.uint8), image)


def test_files_of_other_writers_are_read():
    image = sample_image((40, 50, 3))
    for pixels in (image, image[..., 0]):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "png")
        assert np.array_equal(png.decode(stream.getvalue()), pixels)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint16),
        np.zeros((4, 4), np.bool_),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros((4, 0), np.uint8),
        np.zeros((65536, 1), np.uint8),
    ],
)
def test_other_arrays_are_refused(image):
    with pytest.raises(ValueError, match=r"PNG needs uint8|image sides"):
        png.encode(image)


@pytest.mark.parametrize("shape", [(12, 13), (6, 7, 3)])
def test_no_flipped_bit_and_no_cut_goes_unseen(shape):
    data = png.encode(sample_image(shape))
    for place in range(len(data)):
        for bit in range(0, 8, 3):
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            with pytest.raises(ValueError, match="PNG"):
                png.decode(bytes(damaged))
        with pytest.raises(ValueError, match="PNG"):
            png.decode(data[:place])
    for tail in (b"\0", data):
        with pytest.raises(ValueError, match="PNG"):
            png.decode(data + tail)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (written(3, 3, 16, 0, b"\0" * 21), "16 bits"),
        (written(3, 3, 8, 6, b"\0" * 39), "colour type 6"),
        (written(3, 3, 8, 3, b"\0" * 12), "colour type 3"),
        (written(3, 3, 1, 0, b"\0" * 6), "1 bits"),
        (written(60000, 60000, 8, 0, b"\0" * 9), "more than"),
        (written(3, 3, 8, 0, b"\0" * 4), "does not decode"),
        (written(3, 3, 8, 0, b"\7" * 12), "does not decode"),
        (SIGNATURE + chunk(b"IEND", b""), "begin with IHDR"),
        (SIGNATURE, "begin with IHDR"),
        (b"", "signature"),
        (b"GIF89a", "signature"),
    ],
)
def test_whole_files_of_another_kind_are_refused(data, problem):
    with pytest.raises(ValueError, match=problem):
        png.decode(data)

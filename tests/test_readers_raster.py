"""PNG, JPEG, TIFF, BMP, GIF, PGM/PPM: OpenCV's and tifffile's values, damage and bombs refused."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from io import BytesIO

import cv2
import imagecodecs
import numpy as np
import pytest
import realdata
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from readers_kit import read, refused, write_and_read

from medcurate.errors import CaseRejected, Reason
from medcurate.readers import raster

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (9, 13), np.uint8)
DEEP = RNG.integers(0, 65536, (9, 13), np.uint16)
RGB = RNG.integers(0, 256, (9, 13, 3), np.uint8)
LABELS = RNG.integers(0, 5, (9, 13), np.uint8)
PALETTE = np.array([[0, 0, 0], [255, 0, 0], [0, 200, 0], [7, 7, 7], [1, 2, 3]], np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows, depth: int, colour: int, *extra: bytes, width=13, height=9) -> bytes:
    """A PNG by hand; ``rows`` are packed bytes."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    return b"".join((
        b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *extra, chunk(b"IDAT", data), chunk(b"IEND", b""),
    ))  # fmt: skip


def cv2_bytes(suffix: str, pixels: np.ndarray) -> bytes:
    """By OpenCV, whose colour order is BGR."""
    return cv2.imencode(suffix, pixels if pixels.ndim == 2 else pixels[..., ::-1])[1].tobytes()


def tiff(pixels, **options) -> bytes:
    stream = BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    return stream.getvalue()


def bmp_with_palette(indices: np.ndarray) -> bytes:
    height, width = indices.shape
    rows = b"".join(bytes(row).ljust((width + 3) // 4 * 4, b"\0") for row in indices[::-1])
    table = b"".join(bytes((*colour[::-1], 0)) for colour in PALETTE).ljust(1024, b"\0")
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 0, len(rows), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(rows), 0, 0, 54 + 1024) + header + table + rows


def png_with_palette(*extra: bytes) -> bytes:
    return png(LABELS, 8, 3, chunk(b"PLTE", PALETTE.tobytes()), *extra)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "image"


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".bmp", ".ppm"])
@pytest.mark.parametrize("pixels", [GREY, RGB], ids=["grey", "rgb"])
def test_lossless_formats_of_opencv(path, suffix, pixels):
    if suffix == ".ppm" and pixels.ndim == 2:
        suffix = ".pgm"
    volume = write_and_read(raster, path, cv2_bytes(suffix, pixels))
    assert np.array_equal(volume.voxels, pixels)
    assert volume.voxels.dtype == np.uint8
    assert volume.affine is None
    assert volume.spacing_mm is None


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".pgm"])
def test_sixteen_bits_are_kept(path, suffix):
    volume = write_and_read(raster, path, cv2_bytes(suffix, DEEP))
    assert np.array_equal(volume.voxels, DEEP)
    assert volume.voxels.dtype == np.uint16


@pytest.mark.parametrize("pixels", [GREY, RGB], ids=["grey", "rgb"])
@pytest.mark.parametrize("progressive", [0, 1])
def test_jpeg_is_what_opencv_decodes(path, pixels, progressive):
    big = cv2.resize(pixels, (201, 133))
    content = cv2.imencode(".jpg", big, [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])[1].tobytes()
    expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    volume = write_and_read(raster, path, content)
    assert np.array_equal(volume.voxels, expected if pixels.ndim == 2 else expected[..., ::-1])


def test_jpeg_orientation_is_ignored_and_bytes_after_its_end_too(path):
    content = cv2_bytes(".jpg", RGB)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    turned = content[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + content[2:]
    plain = write_and_read(raster, path, content).voxels
    assert np.array_equal(write_and_read(raster, path, turned + b"trailing").voxels, plain)


def test_gif_shows_its_first_frame(path):
    content = imagecodecs.gif_encode(np.stack([LABELS, LABELS[::-1]]))
    assert np.array_equal(write_and_read(raster, path, content, palette="indices").voxels, LABELS)
    colours = write_and_read(raster, path, content).voxels
    assert np.array_equal(colours, imagecodecs.gif_decode(content, index=0))


# Palettes, greys, alpha


@pytest.mark.parametrize(
    "content",
    [
        png_with_palette(),
        bmp_with_palette(LABELS),
        tiff(
            LABELS,
            photometric="palette",
            colormap=np.pad(PALETTE.T.astype(np.uint16) * 257, ((0, 0), (0, 251))),
        ),
        imagecodecs.gif_encode(LABELS, colormap=np.pad(PALETTE, ((0, 251), (0, 0)))),
    ],
    ids=["png", "bmp", "tiff", "gif"],
)
def test_palettes(path, content):
    assert np.array_equal(write_and_read(raster, path, content, palette="indices").voxels, LABELS)
    assert np.array_equal(write_and_read(raster, path, content).voxels, PALETTE[LABELS])


def test_shallow_palettes_keep_indices(path):
    for depth in (1, 2, 4):
        values = LABELS % (1 << depth)
        bits = np.unpackbits(values[..., None], axis=-1)[..., 8 - depth :].reshape(9, -1)
        content = png(np.packbits(bits, axis=1), depth, 3, chunk(b"PLTE", PALETTE[: 1 << depth].tobytes()))
        assert np.array_equal(write_and_read(raster, path, content, palette="indices").voxels, values)


def test_transparent_palette_gives_indices_but_no_colours(path):
    content = png_with_palette(chunk(b"tRNS", b"\0"))
    assert np.array_equal(write_and_read(raster, path, content, palette="indices").voxels, LABELS)
    with refused(Reason.UNREADABLE, detail="transparent"):
        write_and_read(raster, path, content)


def test_one_bit_greys_become_0_and_255(path):
    bits = LABELS % 2
    for content in (png(np.packbits(bits, axis=1), 1, 0), tiff(bits.astype(bool), photometric="minisblack")):
        volume = write_and_read(raster, path, content)
        assert np.array_equal(volume.voxels, bits * 255)
        assert volume.voxels.dtype == np.uint8


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_alpha_is_dropped_where_opaque(path, suffix):
    opaque = np.dstack([RGB, np.full(GREY.shape, 255, np.uint8)])
    content = cv2.imencode(suffix, opaque[..., [2, 1, 0, 3]])[1].tobytes()
    assert np.array_equal(write_and_read(raster, path, content).voxels, RGB)
    opaque[4, 4, 3] = 254
    with refused(Reason.UNREADABLE, detail="transparent"):
        write_and_read(raster, path, cv2.imencode(suffix, opaque)[1].tobytes())


def test_grey_and_alpha(path):
    rows = np.dstack([GREY, np.full_like(GREY, 255)]).reshape(9, -1)
    assert np.array_equal(write_and_read(raster, path, png(rows, 8, 4)).voxels, GREY)


def test_labels_stored_as_rgb(path):
    content = cv2_bytes(".png", np.dstack([LABELS] * 3))
    assert np.array_equal(write_and_read(raster, path, content, grey=True).voxels, LABELS)
    assert np.array_equal(write_and_read(raster, path, cv2_bytes(".png", GREY), grey=True).voxels, GREY)
    with refused(Reason.UNREADABLE, detail="differ"):
        write_and_read(raster, path, cv2_bytes(".png", RGB), grey=True)


def test_spacing_is_the_options(path):
    content = tiff(GREY, resolution=(300, 300))
    assert write_and_read(raster, path, content).spacing_mm is None
    assert write_and_read(raster, path, content, spacing_mm=(0.2, 0.3)).spacing_mm == (0.2, 0.3)


# TIFF


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "zstd", "lzma"])
@pytest.mark.parametrize("pixels", [GREY, DEEP, RGB, DEEP.astype(np.float32)], ids=["u1", "u2", "rgb", "f4"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_compressions(path, compression, pixels, order):
    content = tiff(pixels, compression=compression, byteorder=order, bigtiff=order == ">")
    volume = write_and_read(raster, path, content)
    assert np.array_equal(volume.voxels, pixels)
    assert volume.voxels.dtype == pixels.dtype


def test_tiff_variants(path):
    assert np.array_equal(
        write_and_read(raster, path, tiff(GREY, photometric="miniswhite")).voxels, 255 - GREY
    )
    planar = tiff(np.moveaxis(RGB, -1, 0), photometric="rgb", planarconfig="separate")
    assert np.array_equal(write_and_read(raster, path, planar).voxels, RGB)
    tiled = tiff(np.tile(GREY, (5, 5)), tile=(16, 16))
    assert np.array_equal(write_and_read(raster, path, tiled).voxels, np.tile(GREY, (5, 5)))
    big = np.repeat(np.repeat(RGB, 16, 0), 16, 1)
    close = write_and_read(raster, path, tiff(big, photometric="rgb", compression="jpeg")).voxels
    assert np.abs(close.astype(int) - big).mean() < 10


@pytest.mark.parametrize("compression", [None, "packbits", "lzw", "zlib"])
def test_boolean_masks_as_tifffile_writes_them(path, compression):
    """Without BitsPerSample, whose default is one bit, whatever the compression."""
    mask = LABELS.mean() < LABELS
    volume = write_and_read(raster, path, tiff(mask, compression=compression), white_is_zero="keep")
    assert np.array_equal(volume.voxels, mask * 255)


@pytest.mark.parametrize("shape", [(1, 9, 13), (9, 13, 1), (1, 9, 13, 1)])
def test_axes_of_length_one_that_tifffile_keeps(path, shape):
    pixels = RNG.integers(0, 256, (9, 13), np.uint8)
    assert np.array_equal(write_and_read(raster, path, tiff(pixels.reshape(shape))).voxels, pixels)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_packed_bits_of_a_tiff(path, bits):
    pixels = RNG.integers(0, 1 << bits, (64, 64), np.uint16)
    content = tiff(pixels, bitspersample=bits, photometric="minisblack")
    assert np.array_equal(write_and_read(raster, path, content).voxels, pixels)


@pytest.mark.parametrize(("photometric", "white"), [("minisblack", 255), ("miniswhite", 0)])
@pytest.mark.parametrize("bits", [2, 4])
def test_shallow_greys_of_a_tiff_are_scaled(path, bits, photometric, white):
    pixels = RNG.integers(0, 1 << bits, (9, 13), np.uint8)
    pixels[0, 0] = (1 << bits) - 1
    volume = write_and_read(raster, path, tiff(pixels, bitspersample=bits, photometric=photometric))
    with Image.open(path) as opened:
        assert np.array_equal(volume.voxels, np.asarray(opened))
    assert volume.voxels[0, 0] == white


@pytest.mark.parametrize("photometric", ["cielab", "separated"])
def test_tiff_colour_spaces_that_are_not_read(path, photometric):
    pixels = RGB if photometric == "cielab" else np.dstack([RGB, GREY])
    with refused(Reason.UNREADABLE):
        write_and_read(raster, path, tiff(pixels, photometric=photometric))


def test_stack(path):
    planes = RNG.integers(0, 999, (4, 9, 13), np.uint16)
    content = tiff(planes, photometric="minisblack")
    with refused(Reason.UNREADABLE, detail="one page"):
        write_and_read(raster, path, content)
    volume = write_and_read(raster, path, content, stack=True, spacing_mm=(2, 0.3, 0.2))
    assert volume.voxels.shape == (13, 9, 4)
    assert volume.voxels[5, 7, 2] == planes[2, 7, 5]
    assert np.array_equal(volume.affine, np.diag([-0.2, -0.3, 2, 1]))
    with refused(Reason.UNREADABLE, detail="pages"):
        write_and_read(raster, path, tiff(GREY), stack=True, spacing_mm=(1, 1, 1))
    with refused(Reason.UNREADABLE, detail="stacks"):
        write_and_read(raster, path, cv2_bytes(".png", GREY), stack=True, spacing_mm=(1, 1, 1))


@pytest.mark.parametrize(
    "options", [{"stack": True}, {"stack": True, "spacing_mm": (1, 1)}, {"spacing_mm": (1, 1, 1)}]
)
def test_stack_and_spacing_go_together(options):
    with pytest.raises(ValidationError, match="spacing_mm"):
        raster.Options(**options)


def test_pages_of_different_sizes(path):
    stream = BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(GREY)
        writer.write(GREY[:5])
    with refused(Reason.UNREADABLE, detail="2 images"):
        write_and_read(raster, path, stream.getvalue())


def test_strip_that_was_never_written(path):
    content = tiff(GREY)
    with tifffile.TiffFile(BytesIO(content)) as opened:
        counts = opened.pages.first.tags["StripByteCounts"]
    with refused(Reason.CORRUPT, detail="missing"):
        write_and_read(raster, path, patched(content, counts.valueoffset, "<I", 0))


# Damage


@pytest.mark.parametrize("name", ["PhotometricInterpretation", "BitsPerSample"])
def test_a_tiff_without_the_tags_that_give_bits_their_meaning(path, name):
    """A flipped bit in a tag's number makes the tag another one; tifffile then takes a default."""
    content = tiff(DEEP, compression="zlib")
    with tifffile.TiffFile(BytesIO(content)) as opened:
        offset = opened.pages.first.tags[name].offset
    with refused(Reason.CORRUPT, detail=name):
        write_and_read(raster, path, patched(content, offset, "<H", 40000))


WHOLE = {
    "png": cv2_bytes(".png", GREY),
    "png palette": png_with_palette(),
    "gif": imagecodecs.gif_encode(LABELS),
    "bmp": cv2_bytes(".bmp", RGB),
    "ppm": cv2_bytes(".ppm", RGB),
    "jpeg": cv2_bytes(".jpg", RGB),
    "tiff": tiff(RGB),
    "tiff lzw": tiff(GREY, compression="lzw"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_every_cut_is_refused(path, name):
    content = WHOLE[name]
    whole = write_and_read(raster, path, content).voxels
    for keep in range(len(content)):
        try:
            pixels = write_and_read(raster, path, content[:keep]).voxels
        except CaseRejected:
            continue
        assert name.startswith("tiff")  # only padding or metadata was lost
        assert np.array_equal(pixels, whole)


@pytest.mark.parametrize("name", ["png", "png palette"])
def test_every_flipped_bit_of_a_png_is_refused(path, name):
    content = WHOLE[name]
    for at in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[at] ^= 1 << bit
            with pytest.raises(CaseRejected):
                write_and_read(raster, path, bytes(damaged))


@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=60, deadline=None)
@given(
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_any_damage_is_read_or_refused(tmp_path_factory, name, edits):
    content = bytearray(WHOLE[name])
    for place, value in edits:
        content[int(place * len(content))] = value
    with suppress(CaseRejected):
        write_and_read(raster, tmp_path_factory.mktemp("r") / "image", bytes(content))


# Hostile headers


def patched(content: bytes, at: int, code: str, *values: int) -> bytes:
    patch = struct.pack(code, *values)
    return content[:at] + patch + content[at + len(patch) :]


def jpeg_of(height: int, width: int) -> bytes:
    content = WHOLE["jpeg"]
    return patched(content, content.index(b"\xff\xc0") + 5, ">HH", height, width)


def tiff_of(height: int, width: int) -> bytes:
    with tifffile.TiffFile(BytesIO(WHOLE["tiff"])) as opened:
        tags = opened.pages.first.tags
        content = patched(WHOLE["tiff"], tags["ImageWidth"].valueoffset, "<I", width)
        return patched(content, tags["ImageLength"].valueoffset, "<I", height)


@pytest.mark.parametrize(
    "content",
    [
        png([b""], 8, 2, width=2**31 - 1, height=2**31 - 1),
        png([b""], 16, 6, width=60_000, height=60_000),
        jpeg_of(65_500, 65_500),
        patched(WHOLE["gif"], 6, "<HH", 65_535, 65_535),
        patched(WHOLE["bmp"], 18, "<ii", 2**31 - 1, 2**31 - 1),
        b"P5 999999999 999999999 255\n",
        tiff_of(2**20, 2**20),
        tiff_of(2**31, 2**31),
    ],
    ids=["png", "png 60000", "jpeg", "gif", "bmp", "pgm", "tiff", "tiff 2**31"],
)
def test_claims_of_terabytes(path, content):
    with refused(Reason.HEADER_SIZE, Reason.UNREADABLE):
        write_and_read(raster, path, content)


@pytest.mark.parametrize(
    "content", [b"", b"BM", b"GIF89a", b"\xff\xd8\xff", b"P5", b"II*\0", b"<svg>", b"\x89PNG\r\n\x1a\n"]
)
def test_other_files(path, content):
    with refused(Reason.UNREADABLE, Reason.CORRUPT):
        write_and_read(raster, path, content)


# Real images


def test_real_instance_labels():
    image = read(raster, realdata.path("stardist/data/images/img2d.tif"))
    labels = read(raster, realdata.path("stardist/data/images/mask2d.tif"))
    assert image.voxels.shape == labels.voxels.shape == (512, 512)
    assert len(np.unique(labels.voxels)) == 1 + 125


def test_real_stack():
    path = realdata.path("stardist/data/images/mask3d.tif")
    volume = read(raster, path, stack=True, spacing_mm=(2, 1, 1))
    assert np.array_equal(volume.voxels.transpose(2, 1, 0), tifffile.imread(path))


def test_real_histology():
    path = realdata.path("stardist/data/images/histo.jpg")
    assert np.array_equal(read(raster, path).voxels, cv2.imread(str(path))[..., ::-1])

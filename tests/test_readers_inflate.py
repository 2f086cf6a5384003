"""Compressed streams: intact to the last byte, or refused, within bounds."""

from __future__ import annotations

import bz2
import gzip
import struct
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from readers_kit import refused

from medcurate.errors import CaseRejected, Reason
from medcurate.readers.inflate import bunzip2, gunzip, gunzip_head, inflate

LIMIT = 1 << 20
RAW = np.random.default_rng(0).integers(0, 40, 30_000, np.uint8).tobytes()
STREAMS = {
    "gzip": (gzip.compress(RAW, 6, mtime=0), lambda b: gunzip(b, limit=LIMIT, expected_bytes=len(RAW))),
    "gzip, size unknown": (gzip.compress(RAW, 1, mtime=0), lambda b: gunzip(b, limit=LIMIT)),
    "gzip, stored": (
        gzip.compress(RAW, 0, mtime=0),
        lambda b: gunzip(b, limit=LIMIT, expected_bytes=len(RAW)),
    ),
    "gzip, members": (
        gzip.compress(RAW[:9_000], mtime=0)
        + gzip.compress(b"", mtime=0)
        + gzip.compress(RAW[9_000:], mtime=0),
        lambda b: gunzip(b, limit=LIMIT, expected_bytes=len(RAW)),
    ),
    "zlib": (zlib.compress(RAW), lambda b: inflate(b, "zlib", limit=LIMIT, expected_bytes=len(RAW))),
    "bzip2": (bz2.compress(RAW), lambda b: bunzip2(b, limit=LIMIT, expected_bytes=len(RAW))),
}
streams = pytest.mark.parametrize("name", STREAMS)


@streams
def test_intact(name):
    stored, decode = STREAMS[name]
    assert bytes(decode(stored)) == RAW


@streams
@settings(max_examples=150, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@example(place=0.5804323618047196, bit=5)
def test_every_flipped_bit_is_refused_or_changes_nothing(name, place, bit):
    stored, decode = STREAMS[name]
    damaged = bytearray(stored)
    at = int(place * len(damaged))
    damaged[at] ^= 1 << bit
    try:
        decoded = bytes(decode(bytes(damaged)))
    except CaseRejected as error:
        assert error.reason in {Reason.CORRUPT, Reason.UNREADABLE, Reason.HEADER_SIZE}  # noqa: PT017
        return
    if decoded != RAW:  # Adler-32 is blind to a few: -2, +4, -2 in neighbouring bytes
        assert name == "zlib"
        assert decoded == zlib.decompress(bytes(damaged))
        return
    padding = len(stored) - (1 if name == "bzip2" else 9)
    assert name.endswith("members") or at < 10 or at == padding  # gzip's header, padding bits


@streams
def test_every_cut_is_refused(name):
    stored, decode = STREAMS[name]
    for keep in [*range(0, len(stored), 997), *range(len(stored) - 12, len(stored))]:
        with pytest.raises(CaseRejected):
            decode(stored[:keep])


@streams
@pytest.mark.parametrize("tail", [b"x", b"\0" * 512, b"\x1f\x8b", b"\x1f\x8b\x08\0\0\0\0\0\0\0"])
def test_bytes_after_the_end_are_refused(name, tail):
    stored, decode = STREAMS[name]
    with pytest.raises(CaseRejected):
        decode(stored + tail)


def test_a_repeated_member_is_not_taken_for_one():
    once = gzip.compress(RAW, mtime=0)
    with refused(Reason.CORRUPT):
        gunzip(once + once, limit=LIMIT, expected_bytes=len(RAW))
    assert bytes(gunzip(once + once, limit=LIMIT)) == RAW + RAW


def test_a_second_member_of_the_same_length_is_not_lost():
    both = gzip.compress(RAW, mtime=0) + gzip.compress(RAW[::-1], mtime=0)
    with refused(Reason.CORRUPT):
        gunzip(both, limit=LIMIT, expected_bytes=len(RAW))
    assert bytes(gunzip(both, limit=LIMIT)) == RAW + RAW[::-1]


@pytest.mark.parametrize("expected", [len(RAW) - 1, len(RAW) + 1, 2 * len(RAW)])
@pytest.mark.parametrize("name", ["gzip", "gzip, members"])
def test_another_size_than_the_header_states(name, expected):
    with refused(Reason.CORRUPT):
        gunzip(STREAMS[name][0], limit=LIMIT, expected_bytes=expected)


@pytest.fixture(scope="module")
def bomb() -> bytes:
    return gzip.compress(bytes(100 << 20), 9)


def test_bomb_with_an_honest_trailer(bomb):
    with refused(Reason.HEADER_SIZE):
        gunzip(bomb, limit=LIMIT)


def test_bomb_whose_trailer_claims_little(bomb):
    liar = bomb[:-4] + struct.pack("<I", 1000)
    with pytest.raises(CaseRejected) as caught:
        gunzip(liar, limit=LIMIT)
    assert caught.value.reason is Reason.HEADER_SIZE
    with pytest.raises(CaseRejected) as caught:
        gunzip(liar, limit=LIMIT, expected_bytes=1000)
    assert caught.value.reason is Reason.CORRUPT


def test_trailer_claims_more_than_deflate_holds():
    stored = gzip.compress(b"few bytes")
    with refused(Reason.HEADER_SIZE):
        gunzip(stored[:-4] + struct.pack("<I", 2**31), limit=2**40)


def test_claims_above_4_gib_are_compared_unwrapped():
    with refused(Reason.HEADER_SIZE):
        gunzip(gzip.compress(RAW), limit=2**40, expected_bytes=2**32 + len(RAW))


def test_bzip2_bomb():
    stored = bz2.compress(bytes(50 << 20))
    with refused(Reason.CORRUPT):
        bunzip2(stored, limit=LIMIT, expected_bytes=1000)
    with refused(Reason.HEADER_SIZE):
        bunzip2(b"", limit=LIMIT, expected_bytes=LIMIT + 1)


def test_head_of_a_stream_whose_rest_is_damaged():
    stored = gzip.compress(RAW)
    assert gunzip_head(stored[:20_000], 540) == RAW[:540]
    with refused(Reason.CORRUPT):
        gunzip_head(b"\x1f\x8b\x08" + b"\xff" * 600, 540)

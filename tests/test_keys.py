"""Keys: one sample, one key; safe in tars, in shells and for patients' names."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from medcurate.format.keys import MAX_KEY_BYTES, pseudonym, safe, sample_key

# Made to collide: separators, hyphens, dots, case, spaces, other alphabets, length.
CASES = st.text("aA0-_. é患/", min_size=1, max_size=6) | st.text("ab", min_size=60, max_size=90)
PARTS = st.tuples(
    st.text("ab-", max_size=4).map(lambda text: f"s{text}"),
    CASES,
    st.sampled_from(["", "t1", "t1ce", "b", "-b"]),
    st.sampled_from("xyz"),
    st.integers(0, 20_000),
)


@settings(max_examples=300, deadline=None)
@given(parts=PARTS)
def test_keys_fit_everywhere(parts):
    key = sample_key(*parts)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", key)
    assert len(key) <= MAX_KEY_BYTES


@settings(max_examples=500, deadline=None)
@given(first=PARTS, second=PARTS, shared=st.sets(st.integers(0, 4)))
def test_different_samples_have_different_keys(first, second, shared):
    second = tuple(first[n] if n in shared else part for n, part in enumerate(second))
    assume(first != second)
    assert sample_key(*first) != sample_key(*second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("s", "a--b", "", "z", 1), ("s", "a", "b", "z", 1)),
        (("s", "a-", "b", "z", 1), ("s", "a", "-b", "z", 1)),
        (("s", "a--z0001", "", "", 0), ("s", "a", "", "z", 1)),
        (("s--a", "b", "", "z", 1), ("s", "a", "b", "z", 1)),
        (("s", "a.b", "", "z", 1), ("s", "a_b", "", "z", 1)),
        (("s", "患", "", "z", 1), ("s", "者", "", "z", 1)),
        (("s", "c" * 90, "t1", "z", 1), ("s", "c" * 90, "t2", "z", 1)),
        (("s", "c" * 90 + "1", "", "z", 1), ("s", "c" * 90 + "2", "", "z", 1)),
        (("s", "c" * 90, "", "z", 9999), ("s", "c" * 90, "", "z", 10000)),
    ],
)
def test_look_alikes_have_different_keys(first, second):
    assert sample_key(*first) != sample_key(*second)


def test_plain_ids_read_as_they_are():
    assert sample_key("msd-spleen", "spleen_02", "", "z", 42) == "msd-spleen--spleen_02--z0042"
    assert sample_key("brats", "BraTS-0001", "t1ce", "x", 7) == "brats--BraTS-0001--t1ce--x0007"
    assert sample_key("isic", "ISIC_0000000", "", "", 0) == "isic--ISIC_0000000"
    assert safe("case-1_A") == "case-1_A"


def test_long_keys_keep_the_source_and_the_plane():
    key = sample_key("source", "case" * 40, "channel", "y", 12)
    assert key.startswith("source--")
    assert key.endswith("--y0012")


def test_pseudonyms_are_stable_and_hide_the_name():
    assert pseudonym("s", "John Doe") == pseudonym("s", "John Doe")
    assert pseudonym("s", "John Doe") != pseudonym("t", "John Doe")
    assert re.fullmatch(r"p[0-9a-f]{16}", pseudonym("s", "John Doe"))

"""Counting pixels by words of eight gives what summing bools gives."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medcurate.train.prompts.counting import columns_hit, row_counts

SIDES = st.sampled_from([1, 7, 8, 16, 100, 128, 255, 256, 512])


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(0, 3), st.sampled_from([0.0, 0.002, 0.5, 1.0]), st.integers(0, 2**31))
def test_counts_equal_sums(height, width, number, share, seed):
    masks = torch.rand((number, height, width), generator=torch.Generator().manual_seed(seed)) < share
    assert torch.equal(row_counts(masks), masks.sum(dim=2))
    assert torch.equal(columns_hit(masks), masks.any(dim=1))


def test_views_that_begin_inside_a_word_or_skip_memory():
    masks = torch.rand(3, 129, 264) < 0.3
    for part in (
        masks[:, 1:, 8:],
        masks.flatten()[3 : 3 + 2 * 128 * 256].view(2, 128, 256),
        masks.transpose(1, 2),
    ):
        assert torch.equal(row_counts(part), part.sum(dim=2))
        assert torch.equal(columns_hit(part), part.any(dim=1))

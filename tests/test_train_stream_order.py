"""The order: a permutation of every epoch, found by arithmetic, in runs of neighbours."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medcurate.train.stream.decode import Draw, Rules, chosen
from medcurate.train.stream.mixing import below, mixed
from medcurate.train.stream.order import BLOCK_BYTES, MIN_LANES, Order, block_starts, lanes_for
from medcurate.train.stream.share import Share, Slice
from medcurate.train.stream.state import StreamState
from medcurate.train.stream.weights import Even, Tempered

COUNTS = st.integers(1, 400)


def storage(count: int, per_shard: int = 90, size: int = 100_000) -> tuple[np.ndarray, np.ndarray]:
    """Shard and offset of samples of ``size`` bytes."""
    number = np.arange(count)
    return (number // per_shard).astype(np.int32), (number % per_shard) * size


def whole(order: Order) -> list[int]:
    return order.samples_of(order.entries_at(np.arange(order.length))).tolist()


@settings(max_examples=80, deadline=None)
@given(COUNTS, st.integers(1, 100), st.integers(0, 2**63), st.integers(0, 1000), st.integers(1, 200_000))
def test_an_epoch_is_a_permutation(count, lanes, seed, epoch, size):
    shows = Even(*storage(count, size=size))
    order = Order(shows.entries(epoch), seed=seed, epoch=epoch, lanes=lanes)
    assert sorted(whole(order)) == list(range(count))
    assert whole(Order(shows.entries(epoch), seed=seed, epoch=epoch, lanes=lanes)) == whole(order)


def test_seeds_and_epochs_give_other_orders():
    shows = Even(*storage(2000))
    orders = [
        whole(Order(shows.entries(epoch), seed=seed, epoch=epoch, lanes=32))
        for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))
    ]
    assert len({tuple(order) for order in orders}) == 4
    # nobody keeps its place more often than chance has it: about once in an epoch
    assert max(int(np.sum(np.array(orders[0]) == np.array(other))) for other in orders[1:]) < 60


def test_one_position_is_found_without_the_others():
    order = Order(Even(*storage(1000)).entries(0), seed=1, epoch=0, lanes=32)
    line = whole(order)
    for position in (0, 1, 499, 999):
        assert order.entries_at(np.array([position])).tolist() == [line[position]]
    with pytest.raises(IndexError, match=r"\[0, 1000\)"):
        order.entries_at(np.array([1000]))


def test_a_row_of_successive_batches_walks_through_its_shard():
    shards, offsets = storage(4000)
    batch = lanes_for(32)
    order = Order(Even(shards, offsets).entries(0), seed=1, epoch=0, lanes=batch)
    line = np.array(whole(order))[: 4000 // batch * batch].reshape(-1, batch)
    neighbours = (line[1:] == line[:-1] + 1).mean()
    # of a block's 21 samples all but the last are followed by their neighbour
    assert neighbours > 0.9
    # and the images of one batch come from different blocks
    blocks = [len({(shards[s], offsets[s] // BLOCK_BYTES) for s in row}) for row in line.tolist()]
    assert np.mean(blocks) > 0.95 * batch


@given(st.integers(1, 5000))
def test_lanes_are_a_multiple_of_the_batch(batch_images):
    lanes = lanes_for(batch_images)
    assert lanes % batch_images == 0
    assert lanes >= MIN_LANES
    assert lanes < batch_images + MIN_LANES


def test_blocks_end_with_their_shard_and_their_bytes():
    shards = np.array([0, 0, 0, 1, 1, 1], np.int32)
    offsets = np.array([0, 5, BLOCK_BYTES, 0, 9, 3], np.int64)
    assert block_starts(shards, offsets).tolist() == [0, 2, 3, 5]
    assert block_starts(shards[:0], offsets[:0]).tolist() == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=120),
    st.sampled_from([0.0, 0.3, 0.5, 0.9]),
    st.integers(0, 99),
)
def test_weighted_epochs_hold_what_they_declare(strata, temper, seed):
    groups = np.unique(np.array(strata), return_inverse=True)[1].astype(np.int32)
    shows = Tempered(*storage(len(groups), per_shard=17), groups, temper=temper, seed=seed)
    expected = shows.expected()
    sizes = np.bincount(groups)
    assert np.abs(expected * sizes - len(groups) * sizes**temper / (sizes**temper).sum()).max() <= 1
    seen = np.zeros(len(groups), int)
    for epoch in range(4):
        order = Order(shows.entries(epoch), seed=seed, epoch=epoch, lanes=7)
        assert order.length == len(groups)
        entries = order.entries_at(np.arange(order.length))
        samples = order.samples_of(entries)
        counts = np.bincount(samples, minlength=len(groups))
        assert (counts >= np.floor(expected)[groups]).all()
        assert (counts <= np.ceil(expected)[groups]).all()
        earlier = shows.earlier(epoch, entries, samples)
        for sample in set(
            samples.tolist()
        ):  # each showing has its own number, from where the last epoch stopped
            numbers = sorted(earlier[samples == sample].tolist())
            assert numbers == list(range(seen[sample], seen[sample] + len(numbers)))
        seen += counts


def test_a_thinned_group_is_seen_whole_over_epochs():
    groups = np.array([0] * 900 + [1] * 9, np.int32)
    shows = Tempered(*storage(len(groups)), groups, temper=0.0, seed=3)
    assert shows.expected()[1] > 50
    for first in (0, 5):  # half of group 0 an epoch
        epochs = range(first, first + math.ceil(1 / shows.expected()[0]))
        seen = {sample for epoch in epochs for sample in shows.entries(epoch).samples.tolist()}
        assert seen >= set(range(900))


def test_copies_of_a_sample_are_apart():
    groups = np.array([0] * 600 + [1] * 20, np.int32)
    shows = Tempered(*storage(len(groups)), groups, temper=0.0, seed=0)
    line = np.array(whole(Order(shows.entries(0), seed=0, epoch=0, lanes=32)))
    assert (line[1:] != line[:-1]).mean() > 0.95


@settings(max_examples=100, deadline=None)
@given(COUNTS, st.integers(1, 40), st.integers(1, 8), st.integers(0, 500), st.booleans())
def test_ranks_partition_batches_and_a_state_continues_them(samples, batch_images, world, cut, drop_last):
    share = Share(batch_images=batch_images, lanes=lanes_for(batch_images), drop_last=drop_last)
    if drop_last and samples < batch_images:
        return
    per_epoch = samples // batch_images if drop_last else -(-samples // batch_images)
    source = share.slices(StreamState(), samples)
    batches = [next(source) for _ in range(2 * per_epoch)]
    for batch in batches:
        ranks = [
            Share(batch_images=batch_images, lanes=share.lanes, rank=r, world=world) for r in range(world)
        ]
        rows = [position for rank in ranks for position in rank.rows(batch)]
        assert rows == list(range(batch.start, batch.stop))
        assert len({rank.height(batch) for rank in ranks}) == 1
        assert all(len(rank.rows(batch)) <= rank.height(batch) for rank in ranks)
    kept = per_epoch * batch_images if drop_last else samples
    assert [p for b in batches[:per_epoch] for p in range(b.start, b.stop)] == list(range(kept))[:kept]
    done = batches[cut % len(batches)]
    epoch, seen = share.after(done, samples)
    again = share.slices(StreamState(epoch=epoch, samples=seen), samples)
    rest = batches[cut % len(batches) + 1 :]
    assert [next(again) for _ in rest] == rest


@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 5), st.integers(0, 100))
def test_a_lane_has_one_worker_and_all_work(batch_images, world, workers, number):
    share = Share(batch_images=batch_images, lanes=lanes_for(batch_images), world=world)
    turns = share.lanes // batch_images
    made = []
    for more in range(turns):
        start = (number * turns + more) * batch_images
        batch = Slice(0, start, start + batch_images)
        here = [share.worker_of(batch, row, workers) for row in range(share.height(batch))]
        later = Slice(0, start + share.lanes, start + share.lanes + batch_images)
        assert here == [share.worker_of(later, row, workers) for row in range(share.height(batch))]
        made += here
    counts = np.bincount(made, minlength=workers)
    assert counts.max() - counts.min() <= 1


def rules(masks_per_image: int, masks: str = "every") -> Rules:
    return Rules(
        side=8, masks_per_image=masks_per_image, masks=masks, repeat_masks=True, fit="resize",
        interpolation="linear", padding=(0, 0, 0), images=True, seed=1,
    )  # fmt: skip


@given(st.integers(1, 40), st.integers(1, 7), st.integers(0, 50), st.integers(0, 2**64 - 1))
def test_successive_showings_hold_every_mask(count, wanted, first, digest):
    annotations = np.arange(count, dtype=np.uint16)
    showings = range(first, first + math.ceil(count / wanted))
    circles = [chosen(Draw(annotations, digest, number, 0), rules(wanted)) for number in showings]
    assert {place for circle in circles for place in circle[:wanted]} == set(range(count))
    assert all(sorted(circle) == list(range(count)) for circle in circles)


def test_drawing_with_replacement_repeats_masks_evenly():
    annotations = np.arange(6, dtype=np.uint16)
    draws = [chosen(Draw(annotations, 1, 0, seed), rules(5, "with-replacement")) for seed in range(2000)]
    counts = np.bincount(np.concatenate(draws), minlength=6)
    assert counts.sum() == 10_000
    assert np.abs(counts / 10_000 - 1 / 6).max() < 0.02
    assert any(len(set(draw)) < 5 for draw in draws)


def test_mixing_is_splitmix64_and_even():
    # SplitMix64's first outputs from state 0 are the finaliser of its multiples of the golden number
    golden = np.arange(1, 4, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert mixed(int(golden[0]))[0] == 0xE220A8397B1DCDAF
    assert mixed(int(golden[1]))[0] == 0x6E789E6AA1B965F4
    assert mixed(1, 2, 3)[0] != mixed(1, 3, 2)[0]
    bits = mixed(7, np.arange(100_000))
    share = [(bits >> np.uint64(place) & np.uint64(1)).mean() for place in range(64)]
    assert np.abs(np.array(share) - 0.5).max() < 0.01
    counts = np.bincount(below(bits, 10), minlength=10)
    assert counts.sum() == 100_000
    assert np.abs(counts - 10_000).max() < 500

"""The index: what SQL selects from the manifest, in columns, whatever the size of the batches that it comes in."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_kit import small_dataset

from medcurate.errors import ConfigError
from medcurate.storage import locate
from medcurate.train.stream.columns import write_columns
from medcurate.train.stream.index import Index
from medcurate.train.stream.select import open_index


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return small_dataset(tmp_path_factory.mktemp("data") / "small")


@pytest.mark.parametrize("where", ["", "organ = 'kidney'", "area_px > 60 OR lesion"])
@pytest.mark.parametrize("split", ["", "val"])
def test_it_holds_what_the_manifest_holds(dataset, tmp_path, where, split):
    index = open_index(locate(dataset), split=split, where=where, by=("modality",), cache=tmp_path)
    wanted = {}
    for row in pq.read_table(dataset / "manifest.parquet").to_pylist():
        fits = {"": True, "organ = 'kidney'": row["organ"] == "kidney"}.get(
            where, row["area_px"] > 60 or row["lesion"]
        )
        if fits and split in {"", row["split"]}:
            wanted.setdefault((row["shard"], row["offset"]), []).append(row)
    assert len(index) == len(wanted) == len(index.keys)
    for sample, ((shard, offset), rows) in enumerate(wanted.items()):
        assert (index.shards[index.shard[sample]], index.offset[sample]) == (shard, offset)
        assert (index.size[sample], index.digest[sample]) == (rows[0]["size"], rows[0]["digest"])
        assert index.key(sample) == index.keys[sample].as_py() == rows[0]["key"]
        assert index.annotations(sample).tolist() == [row["annotation"] for row in rows]
        assert index.strata[index.stratum[sample]] == rows[0]["modality"]
    assert index.patients() == {rows[0]["group"] for rows in wanted.values()}


def batch(rows: list[tuple[int, int, int]]) -> pa.RecordBatch:
    """Masks (shard, sample, annotation)."""
    columns = {
        "shard": [f"s{shard}" for shard, _, _ in rows],
        "offset": pa.array([sample * 512 for _, sample, _ in rows], pa.int64()),
        "size": pa.array([512 for _ in rows], pa.int64()),
        "digest": pa.array([shard * 1000 + sample for shard, sample, _ in rows], pa.uint64()),
        "annotation": pa.array([annotation for _, _, annotation in rows], pa.uint16()),
        "key": [f"k{shard}-{sample}" for shard, sample, _ in rows],
        "patient": [f"p{sample % 3}" for _, sample, _ in rows],
        "stratum": ["" for _ in rows],
    }
    return pa.record_batch(columns)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(1, 4), max_size=5), max_size=4), st.integers(1, 9))
def test_the_size_of_batches_changes_nothing(tmp_path_factory, shards, step):
    folder = tmp_path_factory.mktemp("index")
    rows = [
        (shard, sample, annotation)
        for shard, samples in enumerate(shards)
        for sample, masks in enumerate(samples)
        for annotation in range(masks)
    ]
    write_columns(folder / "whole", [batch(rows)], "m")
    write_columns(folder / "parts", [batch(rows[a : a + step]) for a in range(0, len(rows), step)], "m")
    files = {path.name: path.read_bytes() for path in (folder / "whole").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (folder / "parts").iterdir()}
    index = Index(folder / "parts")
    assert index.is_whole()
    assert [len(index.annotations(sample)) for sample in range(len(index))] == [
        m for one in shards for m in one
    ]


def test_rows_out_of_order_are_refused(tmp_path):
    for number, rows in enumerate(([(0, 1, 0), (0, 0, 0)], [(0, 0, 0), (1, 0, 0), (0, 1, 0)])):
        with pytest.raises(ConfigError, match="not in the order of its shards"):
            write_columns(tmp_path / str(number), [batch(rows[:1]), batch(rows[1:])], "m")


def test_selections_differ_in_their_digest_and_stay_equal_when_equal(dataset, tmp_path):
    def selected(**options) -> Index:
        return open_index(
            locate(dataset), **({"split": "", "where": "", "by": (), "cache": tmp_path} | options)
        )

    digests = {
        selected().selection,
        selected(where="organ = 'liver'").selection,
        selected(split="val").selection,
        selected(by=("organ",)).selection,
        selected(by=("modality",)).selection,
    }
    assert len(digests) == 4  # the first mask of every image is of one organ
    assert selected(where="true").selection == selected(cache=tmp_path / "other").selection
    copy = pickle.loads(pickle.dumps(selected()))  # noqa: S301  # our own, as spawned workers get it
    assert np.array_equal(copy.digest, selected().digest)

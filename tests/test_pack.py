"""Pack: order, selection, resize, assignments, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from math import floor, lcm, log10
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from kit import Piece, pieces, write_dataset
from pack_kit import inline, pack, tree
from pycocotools import mask as coco

from medcurate.engines import pool, serial
from medcurate.errors import ConfigError, OutputError
from medcurate.format import png, rle, sample
from medcurate.format.columns import MANIFEST, REJECTS, SUMMARY, schema
from medcurate.format.record import read_record
from medcurate.lock import locked
from medcurate.pack.dataset import pack_dataset, work_folder
from medcurate.pack.edit import edit
from medcurate.pack.inputs import Inputs, Stored
from medcurate.pack.plan import _cut, _Planned
from medcurate.pack.resize import resize_image, resize_mask
from medcurate.pack.run import write_shards
from medcurate.pack.types import PackInput, PackRules


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("pack") / "in", pieces(48))


def manifest(folder: Path) -> list[dict[str, object]]:
    return pq.read_table(folder / "manifest.parquet").to_pylist()


def stored(folder: Path, row: dict[str, object]) -> bytes:
    with open(folder / row["shard"], "rb") as stream:
        stream.seek(row["offset"])
        return stream.read(row["size"])


def blobs(folder: Path) -> dict[str, bytes]:
    return {row["key"]: stored(folder, row) for row in manifest(folder)}


# order


def test_order_is_md5_of_seed_and_key_inside_each_split(source, tmp_path):
    out = pack(source, tmp_path / "out", seed=7)
    rows = manifest(out)
    keys = list(dict.fromkeys((row["split"], row["key"]) for row in rows))
    assert keys == sorted(keys, key=lambda k: (k[0], hashlib.md5(f"7:{k[1]}".encode()).hexdigest()))
    assert len(keys) == 48
    places = [(row["shard"], row["offset"]) for row in rows]
    assert places == sorted(places)
    other = manifest(pack(source, tmp_path / "other", seed=8))
    assert [row["key"] for row in other] != [row["key"] for row in rows]


def test_samples_are_copied_byte_for_byte_into_full_shards(source, tmp_path):
    out = pack(source, tmp_path / "out", shard_bytes=60_000)
    assert blobs(out) == blobs(source)
    sizes = {path.name: path.stat().st_size for path in (out / "shards").iterdir()}
    assert max(sizes.values()) <= 60_000
    largest = max(len(blob) for blob in blobs(out).values())
    for split in ("train", "val", "test"):
        of_split = sorted(name for name in sizes if name.startswith(split))
        assert of_split == [f"{split}-{number:06d}.tar" for number in range(len(of_split))]
        assert all(sizes[name] + largest > 60_000 for name in of_split[:-1])


def test_order_does_not_depend_on_how_the_input_lies(source, tmp_path):
    expected = tree(pack(source, tmp_path / "one", shard_bytes=60_000))
    scattered = write_dataset(tmp_path / "in", list(reversed(pieces(48))), per_shard=3)
    found = tree(pack(scattered, tmp_path / "two", shard_bytes=60_000))
    for name in expected:
        if name != "dataset.json":  # says what it was made from
            assert found[name] == expected[name], name


@pytest.mark.parametrize(("engine", "workers"), [(serial, 1), (pool, 1), (pool, 2)])
def test_engines_and_workers_give_the_same_bytes(source, tmp_path, engine, workers):
    rules = PackRules(where="area_px > 60", size_px=48, shard_bytes=65_536)
    expected = tree(pack(source, tmp_path / "inline", **rules.as_dict()))
    pack_dataset(source, tmp_path / "real", rules, engine=engine.run, workers=workers)
    assert tree(tmp_path / "real") == expected


@given(
    st.lists(st.tuples(st.sampled_from(["test", "train"]), st.integers(1, 4), st.integers(512, 9_000))),
    st.integers(2_000, 30_000),
)
@settings(max_examples=200, deadline=None)
def test_shards_are_consecutive_complete_and_within_the_size(samples, shard_bytes):
    samples.sort(key=lambda entry: entry[0])
    shards = list(_cut((_Planned(*entry, entry[2]) for entry in samples), shard_bytes))
    assert sum(shard.samples for shard in shards) == len(samples)
    first_row = start = 0
    numbers: dict[str, int] = {}
    for shard in shards:
        held = samples[start : start + shard.samples]
        split = held[0][0]
        assert {entry[0] for entry in held} == {split}
        assert (shard.first_row, shard.rows) == (first_row, sum(entry[1] for entry in held))
        assert shard.estimated_bytes == sum(entry[2] for entry in held) + 1024
        assert shard.estimated_bytes <= shard_bytes or shard.samples == 1
        assert shard.name == f"{split}-{numbers.get(split, 0):06d}"
        numbers[split] = numbers.get(split, 0) + 1
        first_row, start = first_row + shard.rows, start + shard.samples


# selection


def test_where_keeps_exactly_the_masks_that_fit(source, tmp_path):
    out = pack(source, tmp_path / "out", where="organ = 'kidney' OR (modality = 'ct' AND area_px < 150)")
    given = {(r["key"], r["annotation"]): r for r in manifest(source)}
    fits = [
        r for r in given.values() if r["organ"] == "kidney" or (r["modality"] == "ct" and r["area_px"] < 150)
    ]
    assert 0 < len(fits) < len(given)
    rows = manifest(out)
    content = [(r["key"], r["organ"], r["area_px"], r["x0"], r["instance"]) for r in rows]
    assert sorted(content) == sorted(
        (r["key"], r["organ"], r["area_px"], r["x0"], r["instance"]) for r in fits
    )

    before = {key: sample.decode(blob) for key, blob in blobs(source).items()}
    for key, blob in blobs(out).items():
        after = sample.decode(blob)
        kept = sorted(r["annotation"] for r in fits if r["key"] == key)
        np.testing.assert_array_equal(after.image, before[key].image)
        np.testing.assert_array_equal(after.masks, before[key].masks[kept])
        assert [a["id"] for a in after.info["annotations"]] == list(range(len(kept)))
        assert [r["annotation"] for r in rows if r["key"] == key] == list(range(len(kept)))
        if len(kept) == len(before[key].masks):
            assert blob == blobs(source)[key]


def test_counts_follow_the_counting_law_and_only_used_sources_are_cited(source, tmp_path):
    given = read_record(source)
    record_path = shutil.copytree(source, tmp_path / "in") / "dataset.json"
    unused = {"sources": {**given.sources, "other": {"title": "no row is from here"}}}
    record_path.write_text(json.dumps(json.loads(record_path.read_bytes()) | unused))
    out = pack(tmp_path / "in", tmp_path / "out", where="lesion")
    record = read_record(out)
    for kind, before in given.counts.items():
        after = record.counts[kind]
        assert after["written"] + after["rejected"] + after["not_selected"] == sum(before.values())
    assert record.counts["masks"]["written"] == sum(r["lesion"] for r in manifest(source))
    assert record.counts["slices"]["written"] == len({r["key"] for r in manifest(source) if r["lesion"]})
    assert record.sources == given.sources
    assert record.made_by["rules"]["where"] == "lesion"


def test_a_licence_filter_leaves_out_what_is_unknown(tmp_path):
    source = write_dataset(tmp_path / "in", pieces(24))
    rows = pq.read_table(source / "manifest.parquet")
    allowed = pa.array([{0: True, 1: False, 2: None}[hash_of(key) % 3] for key in rows["key"].to_pylist()])
    at = rows.column_names.index("commercial")
    pq.write_table(rows.set_column(at, "commercial", allowed), source / "manifest.parquet")
    out = pack(source, tmp_path / "out", where="commercial")
    expected = {k for k, a in zip(rows["key"].to_pylist(), allowed.to_pylist(), strict=True) if a}
    assert {row["key"] for row in manifest(out)} == expected


def hash_of(key: str) -> int:
    return int(hashlib.sha256(key.encode()).hexdigest(), 16)


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("modalty = 'ct'", '"modality"'),
        ("organ =", "syntax error"),
        ("organ", "convert"),
        ("area_px > 'big'", "convert"),
        ("nosuch(organ)", "nosuch"),
        ("count(*) > 3", "aggregates"),
        ("-- all", "--where '-- all'"),
        ("true); DROP TABLE manifest; SELECT (true", "one condition"),
        ("true) UNION ALL SELECT * FROM manifest WHERE (true", "one condition"),
        ("true) LIMIT (1", "one condition"),
        ("true) GROUP BY (key", "one condition"),
        ("key IN (SELECT content FROM read_text('/etc/passwd'))", "subquery"),
        ("random() < 0.5", "random may give another answer tomorrow"),
        ("current_date > DATE '2020-01-01'", "current_date may give another"),
        ("COLUMNS('x.') > 3", "COLUMNS"),
        ("organ = 'spleen'", "no mask fits"),
    ],
)
def test_a_mistake_in_where_is_one_line_and_leaves_nothing(source, tmp_path, where, says):
    out = tmp_path / "out"
    with pytest.raises(ConfigError) as caught:
        pack(source, out, where=where)
    assert says in str(caught.value)
    assert str(caught.value).startswith("--where")
    assert "\n" not in str(caught.value)
    assert not out.exists()


# resize


def covered(mask: np.ndarray, size: int) -> np.ndarray:
    """Coverage of each target pixel on the grid that both pixel sizes divide: nothing is approximated."""
    height, width = mask.shape
    rows, cols = lcm(height, size), lcm(width, size)
    fine = mask.repeat(rows // height, axis=0).repeat(cols // width, axis=1)
    counts = fine.reshape(size, rows // size, size, cols // size).sum(axis=(1, 3), dtype=np.int64)
    return 2 * counts >= (rows // size) * (cols // size)


@given(
    st.tuples(st.integers(1, 20), st.integers(1, 20)).flatmap(lambda shape: arrays(np.bool_, shape)),
    st.integers(1, 20),
)
@settings(max_examples=200, deadline=None)
def test_a_mask_pixel_is_set_where_at_least_half_is_covered(mask, size):
    np.testing.assert_array_equal(resize_mask(mask, size), covered(mask, size))


def test_images_are_averaged_when_they_shrink_and_interpolated_when_they_grow():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 90, 3), dtype=np.uint8)
    mean = image.reshape(30, 2, 30, 3, 3).mean(axis=(1, 3))
    assert np.abs(resize_image(image, 30) - mean).max() <= 0.5
    ramp = np.tile(np.arange(0, 200, 10, dtype=np.uint8), (20, 1))  # a straight line stays one
    grown = resize_image(ramp, 40)[:, 1:-1].astype(float)
    centres = (np.arange(40) + 0.5) / 2 - 0.5
    assert np.abs(grown - 10 * centres[1:-1]).max() <= 0.5
    tall = rng.integers(0, 256, (80, 20), dtype=np.uint8)  # shrinks one way, grows the other
    halved = tall.reshape(40, 2, 20).mean(axis=1)
    assert np.abs(resize_image(tall, 40)[:, 0] - halved[:, 0]).max() <= 1


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """Grey and RGB images of several shapes; one mask of a sample is a line too thin for a small grid."""
    rng = np.random.default_rng(3)
    samples = []
    for number, shape in enumerate([(40, 64), (64, 40), (100, 70, 3), (32, 32), (20, 20), (64, 64)]):
        masks = np.zeros((3, *shape[:2]), np.bool_)
        masks[0, 4:15, 6:17] = True
        masks[1, :, -9:] = True
        masks[2, 3, 2:9] = True  # one pixel high
        image = rng.integers(0, 256, shape, dtype=np.uint8)
        samples.append(Piece(f"demo--case{number:03d}--z0000", image, masks, "train"))
    thin = np.zeros((1, 96, 96), np.bool_)
    thin[0, 50, 10:80] = True
    samples.append(Piece("demo--case009--z0000", np.zeros((96, 96), np.uint8), thin, "train"))
    return write_dataset(tmp_path_factory.mktemp("mixed") / "in", samples)


def test_resize_measures_everything_again(mixed, tmp_path):
    out = pack(mixed, tmp_path / "out", size_px=32)
    before = {key: sample.decode(blob) for key, blob in blobs(mixed).items()}
    given = {(r["key"], r["annotation"]): r for r in manifest(mixed)}
    rows = manifest(out)
    assert len({row["key"] for row in rows}) == len(before) - 1
    for row in rows:
        after = sample.decode(stored(out, row))
        old = before[row["key"]]
        survivors = [n for n, mask in enumerate(old.masks) if covered(mask, 32).any()]
        number = survivors[row["annotation"]]
        expected = covered(old.masks[number], 32)
        annotation = after.info["annotations"][row["annotation"]]
        np.testing.assert_array_equal(after.masks[row["annotation"]], expected)
        rle = {"size": [32, 32], "counts": annotation["segmentation"]["counts"]}
        assert annotation["segmentation"]["size"] == [32, 32]
        assert row["area_px"] == annotation["area"] == int(coco.area(rle)) == expected.sum()
        assert [row["x0"], row["y0"], row["x1"] - row["x0"], row["y1"] - row["y0"]] == annotation["bbox"]
        assert annotation["bbox"] == coco.toBbox(rle).astype(int).tolist()
        assert after.image.shape == (32, 32, *old.image.shape[2:])
        assert (row["height"], row["width"]) == (32, 32)
        assert (after.info["image"]["height"], after.info["image"]["width"]) == (32, 32)
        height, width = old.image.shape[:2]
        assert row["row_spacing_mm"] * 32 == pytest.approx(0.5 * height)  # the field of view stays
        assert row["col_spacing_mm"] * 32 == pytest.approx(1.0 * width)
        spacing = row["row_spacing_mm"] * row["col_spacing_mm"]
        assert row["area_mm2"] == pytest.approx(row["area_px"] * spacing)
        assert row["area_fraction"] == pytest.approx(row["area_px"] / 32**2)
        touches = expected[[0, -1]].any() or expected[:, [0, -1]].any()
        assert row["touches_border"] == touches
        assert row["label"] == given[row["key"], number]["label"]
    same = "demo--case003--z0000"  # 32 x 32 already
    assert blobs(out)[same] == blobs(mixed)[same]


def test_masks_that_vanish_are_in_the_ledger(mixed, tmp_path):
    out = pack(mixed, tmp_path / "out", size_px=32)
    ledger = pq.read_table(out / "rejects.parquet").to_pylist()
    own = [row for row in ledger if row["stage"] == "pack"]
    lost = {(r["case"], r["instance"]) for r in own if r["reason"] == "LOST_BY_RESIZE"}
    expected = {
        (piece_key.split("--")[1], number + 1)
        for piece_key, blob in blobs(mixed).items()
        for number, mask in enumerate(sample.decode(blob).masks)
        if not covered(mask, 32).any()
    }
    assert lost == expected
    assert ("case009", 1) in lost
    assert [r["case"] for r in own if r["reason"] == "NO_MASK_LEFT"] == ["case009"]
    line = next(r for r in own if r["case"] == "case009" and r["instance"])
    assert (line["area_px"], line["measure"], line["bound"]) == (70, 0, 1)
    assert [row for row in ledger if row["stage"] != "pack"] == pq.read_table(
        mixed / "rejects.parquet"
    ).to_pylist()
    counts = read_record(out).counts
    assert counts["masks"]["rejected"] == len(lost)
    assert counts["slices"]["rejected"] == 1
    assert [counts[kind]["not_selected"] for kind in ("masks", "slices")] == [0, 0]


def test_the_spacing_in_the_json_keeps_the_field_of_view():
    mask = np.ones((1, 20, 60), np.bool_)
    annotation = {"id": 0, "label": "x", "area": 1200, "bbox": [0, 0, 60, 20]}
    annotation["segmentation"] = {"size": [20, 60], "counts": rle.encode(mask[0]).decode()}
    image = {"height": 20, "width": 60, "spacing_mm": [0.5, 2.0], "modality": "ct"}
    blob = sample.encode(
        "k", png.encode(np.zeros((20, 60), np.uint8)), {"image": image, "annotations": [annotation]}
    )
    edited = sample.decode(edit(blob, [0], 10).blob)
    assert edited.info["image"] == {"height": 10, "width": 10, "spacing_mm": [1.0, 12.0], "modality": "ct"}


# a build's parts


def parts_of(source: Path, folder: Path) -> PackInput:
    """The dataset's rows as a build's parts: several tables, no split, each case its own group."""
    folder.mkdir()
    rows = pq.read_table(source / "manifest.parquet")
    for name, values in (("split", pa.array([""] * rows.num_rows)), ("group", rows["case"])):
        at = rows.column_names.index(name)
        rows = rows.set_column(at, name, values.cast(rows.schema.field(name).type))
    paths = []
    for number in range(3):
        chosen = pc.equal(pc.bit_wise_and(rows["slice_index"], 3), number)
        if number == 2:
            chosen = pc.greater_equal(rows["slice_index"], 2)
        paths.append(folder / f"part{number}.parquet")
        pq.write_table(rows.filter(chosen), paths[-1])
    return PackInput(source, tuple(paths), (source / "rejects.parquet",), None)


def test_assignments_decide_split_and_group_without_touching_samples(source, tmp_path):
    inputs = parts_of(source, tmp_path / "parts")
    cases = sorted({row["case"] for row in manifest(source)})
    splits = {case: ("val", "train")[number % 2] for number, case in enumerate(cases)}
    (ledgered,) = pq.read_table(source / "rejects.parquet").to_pylist()
    assignments = pa.table({
        "own": [*cases, ledgered["group"]],
        "group": [f"patient{n // 2}" for n in range(len(cases))] + ["refused"],
        "split": [*splits.values(), ""],
    })
    pq.write_table(assignments, tmp_path / "assignments.parquet")
    inputs = PackInput(inputs.root, inputs.manifests, inputs.rejects, tmp_path / "assignments.parquet")
    result = write_shards(inputs, PackRules(), tmp_path / "out", tmp_path / "work", engine=inline, workers=1)
    rows = manifest(tmp_path / "out")
    assert {row["case"]: row["split"] for row in rows} == splits
    assert all(row["group"] == f"patient{cases.index(row['case']) // 2}" for row in rows)
    assert blobs(tmp_path / "out") == blobs(source)
    assert result.written == {"cases": 12, "slices": 48, "masks": len(rows)}
    (refused,) = pq.read_table(tmp_path / "out/rejects.parquet").to_pylist()
    assert refused["group"] == "refused"
    assert not (tmp_path / "out/dataset.json").exists()


def test_a_case_without_assignment_stops(source, tmp_path):
    with pytest.raises(OutputError, match='split "" is none of train, val, test'):
        write_shards(
            parts_of(source, tmp_path / "parts"),
            PackRules(),
            tmp_path / "out",
            tmp_path / "work",
            engine=inline,
            workers=1,
        )


def test_a_key_that_two_samples_have_stops(source, tmp_path):
    rows = pq.read_table(source / "manifest.parquet")
    at = rows.column_names.index("offset")
    moved = rows.set_column(at, "offset", pc.add(rows["offset"], 512))
    pq.write_table(pa.concat_tables([rows, moved]), tmp_path / "rows.parquet")
    inputs = PackInput(source, (tmp_path / "rows.parquet",))
    with pytest.raises(OutputError, match="two samples have the key demo--case"):
        write_shards(inputs, PackRules(), tmp_path / "out", tmp_path / "work", engine=inline, workers=1)


def test_the_ledger_is_sorted_whatever_files_it_comes_in(source, tmp_path):
    (row,) = pq.read_table(source / "rejects.parquet").to_pylist()
    rows = [row | {"case": f"case{n:03d}", "slice_index": n % 3 or None} for n in range(20)]
    target = schema(REJECTS)
    written = []
    for number, order in enumerate(([rows], [rows[::-1][:7], rows[::-1][7:]])):
        paths = [tmp_path / f"{number}-{part}.parquet" for part in range(len(order))]
        for path, chosen in zip(paths, order, strict=True):
            pq.write_table(pa.Table.from_pylist(chosen, schema=target), path)
        inputs = PackInput(source, (source / "manifest.parquet",), tuple(paths))
        out = tmp_path / f"out{number}"
        write_shards(inputs, PackRules(), out, tmp_path / f"work{number}", engine=inline, workers=1)
        written.append((out / "rejects.parquet").read_bytes())
    assert written[0] == written[1]
    assert pq.read_table(tmp_path / "out1/rejects.parquet").to_pylist() == rows


def test_a_changed_plan_leaves_nothing_of_the_old_one(source, tmp_path):
    """As when a build that never finished gets another case: its claim is the same, its parts are not."""
    inputs = PackInput(source, (source / "manifest.parquet",), (source / "rejects.parquet",))
    out, work = tmp_path / "out", tmp_path / "work"
    for shard_bytes, seed in ((30_000, 0), (60_000, 1), (60_000, 2)):
        rules = PackRules(shard_bytes=shard_bytes, seed=seed)
        write_shards(inputs, rules, out, work, engine=inline, workers=1)
        write_shards(
            inputs, rules, tmp_path / f"fresh{seed}", tmp_path / f"w{seed}", engine=inline, workers=1
        )
        assert tree(out) == tree(tmp_path / f"fresh{seed}")


@pytest.mark.parametrize("rules", [{}, {"where": "organ <> 'liver'"}, {"size_px": 20}])
def test_the_summary_counts_the_rows_of_the_manifest(source, tmp_path, rules):
    out = pack(source, tmp_path / "out", **rules)
    counted = {}
    for row in manifest(out):
        at = tuple(row[name] for name in ("split", "modality", "label", "organ", "lesion"))
        found = counted.setdefault((*at, floor(2 * log10(row["area_fraction"]))), [0, 0, 0])
        for place, counts in enumerate((True, row["annotation"] == 0, row["organ_first"])):
            found[place] += counts
    shared = {"source": "demo", "licence": "CC0-1.0", "commercial": True}
    names = [column.name for column in SUMMARY if column.name not in shared]
    expected = [
        shared | dict(zip(names, (*at, *counts), strict=True)) for at, counts in sorted(counted.items())
    ]
    assert len(expected) > 10
    assert pq.read_table(out / "summary.parquet").to_pylist() == expected
    assert pq.read_schema(out / "summary.parquet").equals(schema(SUMMARY))


def test_nothing_in_is_empty_tables_out(tmp_path):
    result = write_shards(
        PackInput(tmp_path, ()), PackRules(), tmp_path / "out", tmp_path / "work", engine=inline, workers=1
    )
    assert sorted(result.files) == ["manifest.parquet", "rejects.parquet", "summary.parquet"]
    assert pq.read_table(tmp_path / "out/manifest.parquet").schema.equals(schema(MANIFEST))
    assert pq.read_table(tmp_path / "out/summary.parquet").equals(schema(SUMMARY).empty_table())
    assert result.written == {"cases": 0, "slices": 0, "masks": 0}


# what it refuses


def test_another_request_on_the_same_output_is_refused_with_the_difference(source, tmp_path):
    out = pack(source, tmp_path / "out")
    before = tree(out)
    with pytest.raises(ConfigError, match=r"rules\.seed: 0 -> 3"):
        pack(source, out, seed=3)
    assert tree(out) == before


@pytest.mark.parametrize("out", ["", "sub", ".."])
def test_the_output_must_lie_outside_of_the_input(source, out):
    with pytest.raises(ConfigError, match="outside of the input"):
        pack(source, source / out)


def test_a_folder_of_somebody_else_is_refused_and_nothing_is_left_beside_it(source, tmp_path):
    theirs = tmp_path / "theirs" / "letters"
    theirs.mkdir(parents=True)
    (theirs / "a.txt").touch()
    with pytest.raises(ConfigError, match=r"not empty and not a dataset of medcurate \(found a.txt\)"):
        pack(source, theirs)
    assert sorted(path.name for path in theirs.parent.rglob("*")) == ["a.txt", "letters"]


def test_an_output_in_use_is_refused(source, tmp_path):
    out = tmp_path / "out"
    with locked(work_folder(out), "packing"), pytest.raises(OutputError, match=f"process {os.getpid()}"):
        pack(source, out)


def test_few_tars_are_open_at_once(tmp_path):
    source = write_dataset(tmp_path / "in", pieces(120), per_shard=1)
    samples = [Stored(*(row[name] for name in Stored._fields)) for row in manifest(source)]
    before = len(os.listdir("/proc/self/fd"))
    with Inputs(source) as inputs:
        most = max(len(os.listdir("/proc/self/fd")) for _ in inputs.read_all(samples))
    assert most <= before + 64
    assert len(os.listdir("/proc/self/fd")) <= before


def test_webdataset_reads_what_was_packed(source, tmp_path):
    wds = pytest.importorskip("webdataset")
    out = pack(source, tmp_path / "out", size_px=48, shard_bytes=65_536)
    shards = sorted(str(path) for path in (out / "shards").glob("*.tar"))
    assert len(shards) > 3
    read = list(wds.WebDataset(shards, shardshuffle=False).decode("rgb8"))
    keys = list(dict.fromkeys(row["key"] for row in manifest(out)))
    assert [entry["__key__"] for entry in read] == keys
    assert all(entry["png"].shape == (48, 48, 3) for entry in read)
    masks = [json.loads(json.dumps(entry["json"]))["annotations"] for entry in read]
    assert sum(map(len, masks)) == len(manifest(out))

"""One dataset of more than 50 sets in their true layouts: what the catalogue is for, in one build."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.compute as pc
import pytest
from build_kit import Dataset, check_counts, run
from layouts.many import Many, make_many
from layouts.proof import check


@dataclass(frozen=True)
class Built:
    many: Many
    dataset: Dataset
    shown: str  # what the command printed


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The trees, and what ``medcurate build`` makes of them."""
    folder = tmp_path_factory.mktemp("many")
    many = make_many(folder)
    done = run(
        "build", "--recipe", str(many.recipe), "--data", str(folder / "data"), "--out", str(folder / "out"),
        "--workers", "2", "--accept-licence", "all", "--log-format", "plain",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return Built(many, Dataset(folder / "out"), done.stdout)


def test_forty_sets_and_nearly_all_modalities_are_in_one_dataset(built: Built) -> None:
    found = set(built.dataset.rows["source"].to_pylist())
    assert found == {source.id for source in built.many.sources}
    assert len(found) >= 40
    assert len(set(built.dataset.rows["modality"].to_pylist())) >= 10


def test_every_set_is_what_its_tree_says(built: Built) -> None:
    """Cases, patients, splits, labels, areas and counts, each source as if it were alone.

    A patient of several sources may get its split from another one.
    """
    everything = built.many.expected
    sets = Counter(
        group for found in everything.values() for group in {c.group for c in found.cases.values()}
    )
    for source in built.many.sources:
        cases = everything[source.id].cases
        alone = {
            name: case if sets[case.group] == 1 else replace(case, split="") for name, case in cases.items()
        }
        check(source, replace(everything[source.id], cases=alone), built.dataset)


def test_discovered_is_written_and_rejected(built: Built) -> None:
    check_counts(built.dataset)
    cases = sum(len(expected.cases) for expected in built.many.expected.values())
    assert built.dataset.record["counts"]["cases"] == {"discovered": cases, "written": cases, "rejected": 0}


def test_no_patient_is_in_two_splits_whatever_set_it_comes_from(built: Built) -> None:
    rows = built.dataset.rows.group_by("group").aggregate([
        ("split", "count_distinct"),
        ("source", "distinct"),
    ])
    assert pc.max(rows["split_count_distinct"]).as_py() == 1
    sources = dict(zip(rows["group"].to_pylist(), map(set, rows["source_distinct"].to_pylist()), strict=True))
    for patient, names in built.many.shared.items():
        assert sources[patient] == set(names)


def test_the_closing_table_counts_every_source(built: Built) -> None:
    table = {line.split()[0]: line.split() for line in built.shown.splitlines() if line.strip()}
    for source in built.many.sources:
        cases = str(len(built.many.expected[source.id].cases))
        assert table[source.id][1:3] == [cases, cases]
    masks = f"{len(built.dataset.rows):,}"
    assert table["all"][-1] == masks
    splits = re.search(r"patients: (\d+) \(train (\d+), val (\d+), test (\d+)\)", built.shown)
    assert splits
    total, *by_split = map(int, splits.groups())
    assert total == sum(by_split) == pc.count_distinct(built.dataset.rows["group"]).as_py()


def test_what_the_sets_share_is_recorded_and_told(built: Built) -> None:
    told = run("stats", str(built.dataset.folder)).stdout
    texts = built.dataset.record["lineage"]["overlaps"]
    for beginning in (
        "kits23 contains kits19 (patients are joined by their ids",
        "totalsegmentator-ct-v2 contains totalsegmentator-ct-v1 (patients are joined by their ids",
        "isic-2018-task1 shares patients with isic-2017-task1, isic-2016-part1 (patients are joined",
        "ct-org shares patients with msd-task03-liver (joined only where voxels are equal)",
    ):
        (text,) = (text for text in texts if text.startswith(beginning))
        assert text in " ".join(told.split())


def test_statistics_count_every_set(built: Built) -> None:
    found = json.loads(run("stats", str(built.dataset.folder), "--name", "sources", "--json").stdout)
    rows = found["queries"]["sources"]["rows"]
    assert {row["source"] for row in rows} == {source.id for source in built.many.sources}
    assert sum(row["masks"] for row in rows) == len(built.dataset.rows)


def test_the_dataset_verifies(built: Built) -> None:
    done = run("verify", str(built.dataset.folder), "--deep", "--log-format", "plain")
    assert done.returncode == 0, done.stdout + done.stderr


def test_lineage_drop_leaves_the_older_editions_out(built: Built, tmp_path: Path) -> None:
    """The same trees with ``lineage = "drop"``: only what another source stands for is gone."""
    recipe = built.many.folder / "drop.toml"
    recipe.write_text(built.many.recipe.read_text() + 'lineage = "drop"\n')
    plan = run(
        "plan",
        "--recipe",
        str(recipe),
        "--data",
        str(built.many.folder / "data"),
        "--out",
        str(tmp_path),
        "--json",
    )
    assert {entry["source"] for entry in json.loads(plan.stdout)["left_out"]} == {
        "kits19",
        "totalsegmentator-ct-v1",
    }

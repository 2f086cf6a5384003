"""Patients never cross splits, new sources move nobody, and duplicates become one patient."""

from __future__ import annotations

from collections import Counter

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import build, lab, volume, write_pair

from medcurate.build.splits import assign, joined_groups, split_by_hash
from medcurate.config.recipe import SplitRule
from medcurate.job.spec import CaseFacts

RULE = SplitRule(train=0.8, val=0.1, test=0.1)
names = st.text("abcdef0123456789", min_size=1, max_size=4)


def fact(case: str, group: str, *digests: str, split: str = "") -> CaseFacts:
    return CaseFacts(case=case, group=group, split=split, digests=digests)


@st.composite
def corpora(draw):
    """Two to four sources with cases that share patients and voxels at random."""
    sources = []
    for number in range(draw(st.integers(2, 4))):
        cases = draw(st.lists(st.tuples(names, st.lists(names, max_size=3)), min_size=1, max_size=12))
        facts = [fact(f"c{i}", f"s{number}:{group}", *digests) for i, (group, digests) in enumerate(cases)]
        sources.append((f"s{number}", facts))
    return sources


@given(corpora())
def test_no_patient_and_no_voxels_in_two_splits(sources) -> None:
    result = {(a.source, a.case): a for a in assign(sources, RULE)}
    splits_of: dict[str, set[str]] = {}
    for source, facts in sources:
        for entry in facts:
            found = result[source, entry.case]
            for token in (entry.group, *(f"digest {d}" for d in entry.digests)):
                splits_of.setdefault(token, set()).add(found.split)
                splits_of.setdefault(found.group, set()).add(found.split)
    assert all(len(splits) == 1 for splits in splits_of.values())


@given(corpora())
def test_appending_a_source_moves_nobody_unless_it_joins_two_of_the_old_patients(sources) -> None:
    before = {(a.source, a.case): a for a in assign(sources[:-1], RULE)}
    after = {(a.source, a.case): a for a in assign(sources, RULE)}
    groups_before = {a.group for a in before.values()}
    bridged = groups_before - {after[key].group for key in before}
    for key, old in before.items():
        if not bridged:
            assert after[key] == old


@given(st.sets(names, min_size=1, max_size=20), st.text(max_size=5))
def test_the_split_depends_on_group_and_salt_alone(groups: set[str], salt: str) -> None:
    rule = RULE.model_copy(update={"salt": salt})
    sources = [("s", [fact(f"c{i}", group) for i, group in enumerate(sorted(groups))])]
    for entry in assign(sources, rule):
        assert entry.split == split_by_hash(entry.group, rule)


def test_shares_are_kept() -> None:
    rule = SplitRule(train=0.7, val=0.2, test=0.1)
    counts = Counter(split_by_hash(f"patient{number}", rule) for number in range(20_000))
    assert counts["train"] / 20_000 == pytest.approx(0.7, abs=0.015)
    assert counts["val"] / 20_000 == pytest.approx(0.2, abs=0.015)
    assert counts["test"] / 20_000 == pytest.approx(0.1, abs=0.015)


@pytest.mark.parametrize(
    "rule",
    [SplitRule(train=1, val=0, test=0), SplitRule(train=0, val=1, test=0), SplitRule(train=0, val=0, test=1)],
)
def test_a_share_of_one_takes_everybody(rule: SplitRule) -> None:
    wanted = max(("train", "val", "test"), key=lambda name: getattr(rule, name))
    assert {split_by_hash(f"p{n}", rule) for n in range(500)} == {wanted}


def test_official_splits_win_and_evaluation_data_stays_out_of_training() -> None:
    sources = [
        ("a", [fact("1", "a:1", "same", split="train"), fact("2", "a:2", split="val")]),
        ("b", [fact("1", "b:1", "same", split="test")]),
    ]
    splits = {(a.source, a.case): a.split for a in assign(sources, RULE)}
    assert splits == {("a", "1"): "test", ("a", "2"): "val", ("b", "1"): "test"}


def test_official_splits_can_be_ignored() -> None:
    rule = SplitRule(train=1, val=0, test=0, official=False)
    assert [a.split for a in assign([("a", [fact("1", "a:1", split="test")])], rule)] == ["train"]


def test_a_duplicate_takes_the_name_of_the_earlier_source() -> None:
    sources = [("z", [fact("1", "z:9", "same")]), ("a", [fact("1", "a:1", "same"), fact("2", "a:2")])]
    result = assign(sources, RULE)
    assert [a.group for a in result] == ["z:9", "a:2", "z:9"]
    assert joined_groups(result, sources) == 1


def test_ledger_and_manifest_name_a_joined_patient_alike(tmp_path) -> None:
    """Beside a scan that another source has too: one without a label, one that cannot be read."""
    recipe = lab(tmp_path, sources=2, cases=1)
    write_pair(tmp_path / "lab-b", "p0_scan", *volume(0))  # lab-a's p0
    for name in ("p0_unpaired", "p0_damaged", "p7_damaged"):
        write_pair(tmp_path / "lab-b", name, *volume(9))
    (tmp_path / "lab-b/seg/p0_unpaired.nii.gz").unlink()
    for name in ("p0_damaged", "p7_damaged"):
        (tmp_path / f"lab-b/img/{name}.nii.gz").write_bytes(b"no gzip")
    build(recipe, tmp_path / "out", "--engine", "serial", code=3)
    groups = {
        (row["source"], row["case"]): row["group"]
        for table in ("manifest", "rejects")
        for row in pq.read_table(tmp_path / f"out/{table}.parquet").to_pylist()
    }
    assert groups == {
        ("lab-a", "p0_scan"): "lab-a:p0",
        ("lab-b", "p0_scan"): "lab-a:p0",
        ("lab-b", "p0_unpaired"): "lab-a:p0",
        ("lab-b", "p0_damaged"): "lab-a:p0",
        ("lab-b", "p7_damaged"): "lab-b:p7",
    }


def test_a_build_says_which_wanted_splits_got_no_patient(tmp_path) -> None:
    recipe = lab(tmp_path, sources=1, cases=2)
    text = recipe.read_text()
    shares = "train = 0.5, val = 0.25, test = 0.25"
    for wanted, told in (
        ("train = 0.998, val = 0.001, test = 0.001", "no patient fell into val or test:"),
        ("train = 0.999, val = 0.001, test = 0.0", "no patient fell into val:"),
        ("train = 1.0, val = 0.0, test = 0.0", ""),
    ):
        recipe.write_text(text.replace(shares, wanted))
        shown = build(recipe, tmp_path / f"out-{len(told)}", "--engine", "serial").stdout
        assert "patients: 2 (train 2, val 0, test 0)" in shown
        assert told in shown
        assert ("no patient fell" in shown) == bool(told)

"""From files to cases and jobs: ids, patients, errata, bundles, and what makes a job the same job."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcurate.build.cases import discover
from medcurate.build.jobs import bundles
from medcurate.config.recipe import Recipe
from medcurate.config.source import Source
from medcurate.errors import ConfigError, DataMissing, Reason
from medcurate.job.spec import job_id
from medcurate.types import Case

FACTS = {
    "id": "lab-ct",
    "title": "A lab's CT",
    "homepage": "https://example.org",
    "citation": "none",
    "modality": "ct",
    "dimensions": 3,
    "licence": {"id": "LicenseRef-internal", "commercial": "unknown"},
    "pairings": [
        {
            "kind": "paired-folders",
            "options": {
                "images": "img",
                "labels": "seg",
                "image_suffix": ".nii.gz",
                "label_suffix": ".nii.gz",
            },
        }
    ],
    "image": {"reader": "nifti"},
    "label": {"reader": "nifti", "decoder": "index"},
    "labels": {"1": "liver"},
}
RECIPE = Recipe(
    name="r",
    title="r",
    sources=("lab-ct",),
    intensity={"ct": {"rule": "clip", "low": 0, "high": 1}},  # type: ignore[dict-item]
)


def tree(root: Path, images: list[str], labels: list[str]) -> Path:
    for folder, names in (("img", images), ("seg", labels)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            (root / folder / f"{name}.nii.gz").write_bytes(b"x" * len(name))
    return root


def test_ids_patients_and_refusals(tmp_path: Path) -> None:
    root = tree(tmp_path, ["p1_a", "p1_b", "p2_a", "p3_a"], ["p1_a", "p1_b", "p2_a", "p4_a"])
    source = Source.model_validate(
        FACTS
        | {"case": {"pattern": r"(?P<group>p\d+)_", "identifiers": "keep", "namespace": "shared"}}
        | {"errata": [{"case": "p2_a", "reason": "second phase appended"}]}
    )
    found = discover(source, root)
    assert [(case.id, case.group) for case in found.cases] == [("p1_a", "shared:p1"), ("p1_b", "shared:p1")]
    assert sorted((case, reject.reason) for case, _, reject in found.rejects) == [
        ("p2_a", Reason.ERRATUM),
        ("p3_a", Reason.UNPAIRED),
        ("p4_a", Reason.UNPAIRED),
    ]
    assert found.cases[0].size_bytes == 2 * len("p1_a")


def test_identifiers_are_replaced_unless_the_source_keeps_them(tmp_path: Path) -> None:
    root = tree(tmp_path, ["John_Doe"], ["John_Doe"])
    found = discover(Source.model_validate(FACTS), root)
    (case,) = found.cases
    assert "Doe" not in case.id + case.group
    assert found.names == {case.id: "John_Doe"}
    assert discover(Source.model_validate(FACTS), root).cases == found.cases


def test_two_cases_of_one_id_are_both_refused(tmp_path: Path) -> None:
    root = tree(tmp_path, ["a_1", "b_1", "c_2"], ["a_1", "b_1", "c_2"])
    rule = {"case": {"pattern": r"_(?P<case>\d)", "identifiers": "keep"}}
    found = discover(Source.model_validate(FACTS | rule), root)
    assert [case.id for case in found.cases] == ["2"]
    assert [reject.reason for *_, reject in found.rejects] == [Reason.DUPLICATE_KEY] * 2


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    tree(tmp_path, [], [])
    with pytest.raises(DataMissing, match="lab-ct: no case found"):
        discover(Source.model_validate(FACTS), tmp_path)


def case(number: int, size_bytes: int = 10) -> Case:
    return Case(source="lab-ct", id=f"{number:03d}", group="g", images=(), labels=(), size_bytes=size_bytes)


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 100), st.integers(1, 10))
def test_bundles_keep_every_case_in_order_and_their_bounds(sizes: list[int], limit: int, most: int) -> None:
    cases = [case(number, size) for number, size in enumerate(sizes)]
    found = list(bundles(cases, limit, most))
    assert [entry for bundle in found for entry in bundle] == cases
    for bundle in found:
        assert 1 <= len(bundle) <= most
        assert len(bundle) == 1 or sum(entry.size_bytes for entry in bundle) <= limit


def test_a_job_is_the_same_job_for_another_split_but_not_for_another_mask_rule() -> None:
    source, cases = Source.model_validate(FACTS), (case(1), case(2))
    same = job_id(source, RECIPE, {}, cases, {"medcurate": "1"})
    moved = RECIPE.model_copy(
        update={"split": RECIPE.split.model_copy(update={"salt": "other"}), "name": "other"}
    )
    assert job_id(source, moved, {}, cases, {"medcurate": "1"}) == same
    stricter = RECIPE.model_copy(update={"masks": RECIPE.masks.model_copy(update={"min_voxels": 5})})
    assert job_id(source, stricter, {}, cases, {"medcurate": "1"}) != same
    assert job_id(source, RECIPE, {}, cases[:1], {"medcurate": "1"}) != same
    assert job_id(source, RECIPE, {}, cases, {"medcurate": "2"}) != same


def test_a_patient_pattern_that_misses_a_case_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path, ["p1_a", "q2_a"], ["p1_a", "q2_a"])
    source = Source.model_validate(FACTS | {"case": {"pattern": r"(?P<group>p\d)_"}})
    with pytest.raises(ConfigError, match='does not match 1 of 2 case names, such as "q2_a"'):
        discover(source, root)

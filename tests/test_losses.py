"""Damage inside an archive that came whole: its case is refused and told of, all others are built."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from medcurate.build.cases import Discovery, discover
from medcurate.build.fetch import OFFLINE, ensure
from medcurate.config.source import Source
from medcurate.errors import Reason

SPLIT = {"kind": "paired-folders", "options": {
    "images": "data/images", "image_suffix": ".npy", "labels": "data/labels", "label_suffix": ".npy",
}}  # fmt: skip
ONE_FILE = {"kind": "same-file", "options": {
    "folder": "data/cases", "suffix": ".npz", "image": "imgs", "label": "gts",
}}  # fmt: skip


def lab(pairing: dict[str, object]) -> Source:
    return Source.model_validate({
        "id": "lab", "title": "Lab", "homepage": "", "citation": "", "modality": "ct", "dimensions": 2,
        "licence": {"id": "CC0-1.0", "commercial": "yes"},
        "files": [{"path": "set.zip", "origin": {"by_hand": "from the lab"}, "unpack": {"into": "data"}}],
        "pairings": [pairing],
        "image": {"reader": "array"}, "label": {"reader": "array", "decoder": "value-map"},
        "labels": {"1": "liver"}, "case": {"identifiers": "keep"},
    })  # fmt: skip


def archive(path: Path, names: list[str], damaged: str) -> None:
    """A zip of stored arrays, one of which no longer has the bytes of its CRC."""
    stream = io.BytesIO()
    np.save(stream, np.eye(9))
    with zipfile.ZipFile(path, "w") as made:
        for name in names:
            made.writestr(name, name.encode() + stream.getvalue())
    content = bytearray(path.read_bytes())
    at = content.index(damaged.encode() + stream.getvalue())
    content[at + len(damaged) + 90] ^= 1
    path.write_bytes(content)


def found(tmp_path: Path, source: Source, names: list[str], damaged: str) -> Discovery:
    (tmp_path / "lab").mkdir()
    archive(tmp_path / "lab" / "set.zip", names, damaged)
    (root,) = ensure([source], tmp_path, {"lab": tmp_path}, OFFLINE)
    return discover(source, root)


@pytest.mark.parametrize("side", ["images", "labels"])
def test_a_damaged_member_refuses_its_case_once(tmp_path: Path, side: str) -> None:
    names = [f"{part}/s{number:04d}.npy" for part in ("images", "labels") for number in (863, 864, 865)]
    result = found(tmp_path, lab(SPLIT), names, f"{side}/s0864.npy")
    assert [case.id for case in result.cases] == ["s0863", "s0865"]
    ((case, _, reject),) = result.rejects
    assert (case, reject.reason) == ("s0864", Reason.UNPAIRED)


def test_a_case_that_lost_all_of_its_files_is_not_lost_from_the_count(tmp_path: Path) -> None:
    names = [f"cases/s{number:04d}.npz" for number in (863, 864, 865)]
    result = found(tmp_path, lab(ONE_FILE), names, "cases/s0864.npz")
    assert [case.id for case in result.cases] == ["s0863", "s0865"]
    ((case, group, reject),) = result.rejects
    assert (case, group, reject.reason) == ("cases/s0864.npz", "lab:cases/s0864.npz", Reason.CORRUPT)
    assert "archive" in reject.detail


def test_a_lost_case_is_not_taken_for_another_one_whose_number_is_within_its_own(tmp_path: Path) -> None:
    names = [f"{part}/{number}.npy" for number in (3, 13, 31) for part in ("images", "labels")]
    source = lab(SPLIT)
    (tmp_path / "lab").mkdir()
    path = tmp_path / "lab" / "set.zip"
    archive(path, [*names, "images/1.npy"], "images/31.npy")
    content = bytearray(path.read_bytes())
    for name in (b"labels/31.npy", b"labels/3.npy"):  # the other's label is lost too, and it is unpaired
        content[content.index(name + name) + 2 * len(name) + 90] ^= 1
    path.write_bytes(content)
    (root,) = ensure([source], tmp_path, {"lab": tmp_path}, OFFLINE)
    result = discover(source, root)
    assert [case.id for case in result.cases] == ["13"]
    assert sorted(case for case, *_ in result.rejects) == ["1", "3", "images/31.npy", "labels/31.npy"]

"""Collections by their headers: labels find their series by UID, whatever files and folders are called."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from dicom_kit import dicom_bytes, instance, series
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, generate_uid

from medcurate.build.cases import discover
from medcurate.errors import ConfigError, DataMissing, Reason
from medcurate.library import lineage, load_source
from medcurate.pairings import dicom_headers, dicom_tree
from medcurate.pairings.found import Found, Names


def uid(*names: str) -> str:
    return generate_uid(entropy_srcs=list(names))


def ct(patient: str, name: str, planes: int = 3, **fields: object) -> list[Dataset]:
    facts = {
        "PatientID": patient,
        "StudyInstanceUID": uid(patient),
        "SeriesInstanceUID": uid(patient, name),
        "FrameOfReferenceUID": uid(patient, name, "frame"),
        "Modality": "CT",
        "SeriesDescription": name,
    }
    return series(np.zeros((4, 5, planes), np.int16), **(facts | fields))


def label(patient: str, refers_to: str, modality: str = "SEG", **fields: object) -> Dataset:
    """A label object's header; its pixels or contours are not looked at."""
    dataset = instance(np.zeros((4, 5), np.uint8), Modality=modality, PatientID=patient)
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = generate_uid(), uid(patient)
    item, study, frame = Dataset(), Dataset(), Dataset()
    item.SeriesInstanceUID = refers_to
    if modality == "SEG" and refers_to:
        dataset.ReferencedSeriesSequence = [item]
    elif refers_to:
        study.RTReferencedSeriesSequence, frame.RTReferencedStudySequence = [item], [study]
        dataset.ReferencedFrameOfReferenceSequence = [frame]
    for key, value in fields.items():
        setattr(dataset, key, value)
    return dataset


def store(root: Path, name: str, *datasets: Dataset) -> list[Path]:
    paths = []
    for number, dataset in enumerate(datasets):
        path = root / (f"{name}/{number:03d}.dcm" if len(datasets) > 1 else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dicom_bytes(dataset))
        paths.append(path.relative_to(root))
    return paths


def find(root: Path, **options: object) -> list[Found]:
    facts = {"labels": "seg", "modality": "CT"} | options
    return list(dicom_tree.find(root, dicom_tree.Options(**facts), Names(labels=("1", "2"))))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "medcurate" / "headers"


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "collection"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("kind", ["SEG", "RTSTRUCT"])
def test_labels_find_their_series_by_uid(root, kind):
    one = store(root, "x/y/z", *ct("p1", "thin"))
    store(root, "x/q", *ct("p1", "thick"))
    two = store(root, "deep/er/still/CT", *ct("p2", "thin"))
    first = store(root, "x/y/z/seg.dcm", label("p1", uid("p1", "thin"), kind))
    second = store(root, "elsewhere/1-1", label("p2", uid("p2", "thin"), kind))
    (root / "LICENSE").write_text("text")
    found = find(root, labels=kind.lower(), unlabelled="omit")
    assert [(f.group, f.problem) for f in found] == [("p1", ""), ("p2", "")]
    assert [f.name for f in found] == [f"{p}/{uid(p, 'thin')}" for p in ("p1", "p2")]
    assert [f.images[0].paths for f in found] == [tuple(one), tuple(two)]
    assert [f.labels[0].paths for f in found] == [tuple(first), tuple(second)]
    found = find(root, labels=kind.lower())
    assert sorted(f.problem for f in found) == ["", "", "image without label"]


def test_descriptions_choose(root):
    store(root, "a", *ct("p1", "thin"))
    store(root, "b", *ct("p1", "scout"))
    store(root, "c.dcm", label("p1", uid("p1", "thin"), SeriesDescription="expert 1"))
    store(root, "d.dcm", label("p1", uid("p1", "thin"), SeriesDescription="expert 2"))
    (case,) = find(root, image_description="thi*")
    assert case.problem == "2 label files where one is expected"
    (case,) = find(root, image_description="thi*", label_description="*1")
    assert (case.problem, len(case.labels)) == ("", 1)
    (case,) = find(root, image_description="thi*", several_labels=True)
    assert (case.problem, len(case.labels)) == ("", 2)


def test_a_label_that_names_no_series_lies_in_a_frame_of_reference(root):
    store(root, "a", *ct("p1", "thin"))
    store(root, "b", *ct("p1", "thick"))
    store(root, "c.dcm", label("p1", "", FrameOfReferenceUID=uid("p1", "thick", "frame")))
    store(root, "d.dcm", label("p1", "", FrameOfReferenceUID=uid("nobody")))
    found = find(root)
    assert sorted((bool(f.images), f.problem) for f in found) == [
        (False, "label that names no series"), (True, ""), (True, "image without label"),
    ]  # fmt: skip


def test_readings_of_lidc(root):
    store(root, "a", *ct("LIDC-IDRI-0001", "thin"))
    reading = '<LidcReadMessage xmlns="http://www.nih.gov"><ResponseHeader><SeriesInstanceUid>{}</SeriesInstanceUid>'
    (root / "069.xml").write_text(reading.format(uid("LIDC-IDRI-0001", "thin")))
    (root / "070.xml").write_text(reading.format(uid("not fetched")))
    (root / "max.xml").write_text("<html/>")
    (case,) = find(root, labels="lidc-xml", unlabelled="omit")
    assert (case.problem, case.labels[0].paths) == ("", (Path("069.xml"),))
    problems = {found.labels[0].paths[0].name: found.problem for found in find(root, labels="lidc-xml")}
    assert problems == {"069.xml": "", "070.xml": "label without image"}


def test_copies_of_a_label_count_once(root):
    store(root, "a", *ct("LIDC-IDRI-0101", "thin"))
    series_uid = uid("LIDC-IDRI-0101", "thin")
    reading = (
        f'<LidcReadMessage xmlns="http://www.nih.gov"><SeriesInstanceUid>{series_uid}</SeriesInstanceUid>'
    )
    for name in ("157/069.xml", "185/069.xml"):
        (root / name).parent.mkdir()
        (root / name).write_text(reading)
    (case,) = find(root, labels="lidc-xml")
    assert (case.problem, case.labels[0].paths, len(case.labels)) == ("", (Path("157/069.xml"),), 1)
    (root / "correction.xml").write_text(reading + "<!-- another -->")
    (case,) = find(root, labels="lidc-xml")
    assert case.problem == "2 label files where one is expected"


def test_files_named_after_the_patient(root):
    store(root, "dicom/a", *ct("PANCREAS_0001", "thin"))
    store(root, "dicom/b", *ct("PANCREAS_0002", "thin"))
    (root / "labels").mkdir()
    for name in ("label0001.nii.gz", "label0003.nii.gz"):
        (root / "labels" / name).touch()
    options = {"labels": "files", "label": "labels/label{id}.nii.gz", "patient": r"PANCREAS_(?P<id>\d+)"}
    first, second, third = find(root, folder="dicom", **options)
    assert first.labels[0].paths == (Path("labels/label0001.nii.gz"),)
    assert (second.group, second.problem) == ("PANCREAS_0002", "image without label")
    assert (third.problem, third.labels[0].paths) == (
        "label without image",
        (Path("labels/label0003.nii.gz"),),
    )
    (only,) = find(root, folder="dicom", unlabelled="omit", **options)
    assert only == first


@pytest.mark.parametrize("target", ["elsewhere.nii", "p1.nii"])
def test_a_label_that_is_a_link_to_what_is_not_there_is_a_problem(root, target):
    store(root, "dicom/a", *ct("p1", "thin"))
    (root / "p1.nii").symlink_to(target)
    (entry,) = find(root, folder="dicom", labels="files", label="{id}.nii")
    assert entry.problem == "a link leads to a file that is not there"


def test_a_label_of_a_patient_with_several_series_is_not_guessed(root):
    store(root, "dicom/a", *ct("p1", "thin"))
    store(root, "dicom/b", *ct("p1", "thick"))
    store(root, "dicom/c", *ct("p2", "thin"))
    for name in ("p1.nii", "p2.nii"):
        (root / name).touch()
    options = {"folder": "dicom", "labels": "files", "label": "{id}.nii"}
    found = find(root, **options)
    assert [(entry.group, "2 series for one label" in entry.problem) for entry in found] == [
        ("p1", True), ("p1", True), ("p2", False),
    ]  # fmt: skip
    assert found[2].problem == ""
    assert [(entry.group, entry.problem) for entry in find(root, image_description="thin", **options)] == [
        ("p1", ""), ("p2", ""),
    ]  # fmt: skip


@pytest.mark.parametrize("patient", ["../../other", "*", "..", "a/../p1"])
def test_a_patient_s_id_leads_to_no_other_folder_and_to_no_other_patient(root, patient):
    store(root, "dicom", *ct(patient, "thin"))
    (root / "labels" / "p1").mkdir(parents=True)
    (root / "labels" / "p1" / "label.nii").touch()
    for folder in (root, root.parent / "other"):
        folder.mkdir(exist_ok=True)
        (folder / "label.nii").touch()
    case, lost = find(root, folder="dicom", labels="files", label="labels/{id}/label.nii")
    assert (case.labels, case.problem) == ((), "image without label")
    assert (lost.labels[0].paths, lost.problem) == ((Path("labels/p1/label.nii"),), "label without image")


def test_a_class_a_file(root):
    store(root, "dicom", *ct("p1", "thin"))
    for name in ("p1_1_reader.nii", "p1_2_reader.nii", "p10_1_reader.nii"):
        (root / name).touch()
    case, lost = find(root, folder="dicom", labels="files", label="{id}_{label}_*.nii")
    assert lost.labels[0].paths == (Path("p10_1_reader.nii"),)
    assert [(file.label, file.paths[0].name) for file in case.labels] == [
        ("1", "p1_1_reader.nii"), ("2", "p1_2_reader.nii"),
    ]  # fmt: skip


def test_damage_beside_a_series_is_not_passed_over(root):
    """A damaged plane at the end of a series would leave no gap."""
    paths = store(root, "a", *ct("p1", "thin"))
    store(root, "a.dcm", label("p1", uid("p1", "thin")))
    (root / paths[-1]).write_bytes((root / paths[-1]).read_bytes()[:200])
    (case,) = find(root)
    assert "cannot be read" in case.problem
    (root / paths[-1]).write_bytes(bytes(128) + b"DICM" + b"\xff" * 1000)
    (case,) = find(root)
    assert "cannot be read" in case.problem


@pytest.mark.parametrize("name", ["a/{:03d}.dcm", "a/IM{:04d}"])
@pytest.mark.parametrize("content", [b"", bytes(4000), b"<html>"])
def test_what_is_called_like_a_plane_and_is_none_is_not_passed_over(root, name, content):
    for number, plane in enumerate(ct("p1", "thin")):
        store(root, name.format(number), plane)
    store(root, "label.dcm", label("p1", uid("p1", "thin")))
    (root / "a/README.txt").write_bytes(content)
    (case,) = find(root)
    assert not case.problem
    (root / name.format(17)).write_bytes(content)
    (case,) = find(root)
    assert "cannot be read" in case.problem


def test_deflated_files_are_not_inflated(root):
    paths = store(root, "a", *ct("p1", "thin"))
    store(root, "a.dcm", label("p1", uid("p1", "thin")))
    plane = ct("p1", "thin", 1)[0]
    plane.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    (root / paths[0]).write_bytes(dicom_bytes(plane))
    (case,) = find(root)
    assert case.problem


def test_headers_longer_than_the_first_read(root):
    planes = ct("p1", "thin")
    for plane in planes:
        plane.ImageComments = "x" * 100_000
        plane.add_new(0x00090010, "LO", "maker")
        plane.add_new(0x00091001, "OB", bytes(100_000))
    store(root, "a", *planes)
    store(root, "a.dcm", label("p1", uid("p1", "thin")))
    (case,) = find(root)
    assert (case.problem, len(case.images[0].paths)) == ("", 3)


def test_a_second_look_opens_nothing_and_a_changed_file_is_read_again(root, cache, monkeypatch):
    paths = store(root, "a", *ct("p1", "thin"))
    store(root, "a.dcm", label("p1", uid("p1", "thin")))
    first = find(root)
    (kept,) = cache.iterdir()
    assert kept.stat().st_mode & 0o077 == 0
    opened = []
    read = dicom_headers._read
    monkeypatch.setattr(dicom_headers, "_read", lambda path: opened.append(path.name) or read(path))
    assert find(root) == first
    assert not opened
    plane = ct("p1", "thin")[0]
    plane.PatientID = "somebody else"
    (root / paths[0]).write_bytes(dicom_bytes(plane))
    os.utime(root / paths[0], ns=(1, 1))
    assert find(root)[0].group == "somebody else"
    assert opened == [paths[0].name]


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 1}', b'{"version": 0, "files": {}}', b"[]"])
def test_a_damaged_cache_is_made_again(root, cache, content):
    store(root, "a", *ct("p1", "thin"))
    first = find(root)
    (kept,) = cache.iterdir()
    kept.write_bytes(content)
    assert find(root) == first
    assert json.loads(kept.read_bytes())["version"]


def test_patients_without_an_id_are_their_studies(root):
    store(root, "a", *ct("p1", "thin", PatientID=None))
    (case,) = find(root)
    assert case.group == uid("p1")


def test_nothing_found(root):
    store(root, "a", *ct("p1", "thin"))
    with pytest.raises(DataMissing, match='modality "MR"'):
        find(root, modality="MR")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "files"}, "path of labels"),
        ({"label": "x.nii"}, "path of labels"),
        ({"labels": "files", "label": "../x.nii"}, "below the source's folder"),
        ({"patient": "("}, "regular expression"),
        ({"patient": "(?P<who>.+)"}, 'group "id"'),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        dicom_tree.Options(**({"labels": "seg", "modality": "CT"} | options))


def test_channels_have_no_place(root):
    with pytest.raises(ConfigError, match="channels"):
        list(
            dicom_tree.find(
                root, dicom_tree.Options(labels="seg", modality="CT"), Names(("a",), (None,), ("1",))
            )
        )


def test_a_label_file_of_no_patient_is_in_the_ledger_though_it_is_not_called_like_a_case(root):
    store(root, "Pancreas-CT/a", *ct("PANCREAS_0001", "thin"))
    (root / "labels").mkdir()
    for name in ("label0001.nii.gz", "label0003.nii.gz"):
        (root / "labels" / name).touch()
    found = discover(load_source("nih-pancreas-ct"), root, lineage())
    assert [case.id for case in found.cases] == ["PANCREAS_0001"]
    ((case, _, reject),) = found.rejects
    assert (case, reject.reason) == ("labels/label0003.nii.gz", Reason.UNPAIRED)
    assert reject.detail == "label without image"

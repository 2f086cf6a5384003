"""Builds of labels that are drawn on the image: from collection, structure set, outlines and readings to masks."""

from __future__ import annotations

from pathlib import Path

import build_kit as kit
import numpy as np
import pytest
import tifffile
from dicom_kit import dicom_bytes
from PIL import Image
from pydicom.dataset import Dataset
from test_pairings_dicom_tree import ct, store, uid
from test_polygons import NUCLEI, annotation, border, disc, reading, roi, xml
from test_readers_rtstruct import contour, square, structure_set
from test_readers_seg import PATIENT, segmentation

from medcurate.checks import source_problems
from medcurate.config.source import Source
from medcurate.library import ontology
from medcurate.tables import check_model

I, J, K = 30, 24, 6  # noqa: E741
LABELS = {"liver": "liver", "spleen": "spleen", "lesion": "liver-lesion"}
RNG = np.random.default_rng(0)


def tree(labels: str, **options: object) -> list[dict[str, object]]:
    facts = {"labels": labels, "modality": "CT", "unlabelled": "omit", **options}
    return [{"kind": "dicom-tree", "options": facts}]


def drawn(
    reader: str, reader_options: dict[str, object] | None = None, **options: object
) -> dict[str, object]:
    return {
        "reader": reader,
        "decoder": "structures",
        "options": options,
        "reader_options": reader_options or {},
    }


def scan(patient: str, name: str) -> list:
    """A CT of noise, which no other patient shares."""
    planes = ct(patient, name, K)
    for number, plane in enumerate(planes):
        pixels = RNG.integers(-500, 500, (J, I)).astype(np.int16)
        plane.Rows, plane.Columns, plane.PixelData = J, I, pixels.tobytes()
        plane.InstanceNumber = number + 1
        for key, value in PATIENT.items():
            if key not in plane:
                setattr(plane, key, value)
    return planes


def boxes() -> np.ndarray:
    masks = np.zeros((K, J, I, 3), bool)
    masks[1:5, 2:12, 3:20, 0] = masks[1:4, 14:20, 2:9, 1] = masks[2:4, 5:9, 6:10, 2] = True
    return masks


def collection(folder: Path) -> list[str]:
    """Two patients; three visits of the first; overlapping segments, and one that nobody asked for."""
    for patient, names in (("p1", ("a", "b", "c")), ("p2", ("a",))):
        for name in names:
            planes = scan(patient, name)
            store(folder / "segs", f"{patient}/{name}", *planes)
            store(folder / "segs", f"{patient}/{name}-seg.dcm", segmentation(planes, boxes()))
    facts = {"modality": "ct", "image": {"reader": "dicom"}, "labels": dict(list(LABELS.items())[::2])}
    return [
        kit.write_source(
            folder,
            "segs",
            pairings=tree("seg"),
            label=drawn("dicom-seg", ignore=["spl*"]),
            case={"identifiers": "pseudonym"},
            **facts,
        )
    ]


def plan(folder: Path) -> list[str]:
    planes = scan("p1", "plan")
    z = [float(plane.ImagePositionPatient[2]) for plane in planes]

    def outline(i: float, j: float, side: float, k: int):
        points = square(i, j, side) * (0.6, 0.8) + (-10, -20)
        return contour(np.column_stack([points, np.full(4, z[k])]), uid=planes[k].SOPInstanceUID)

    regions = {
        "Liver ": [outline(2.5, 2.5, 15, k) for k in (1, 2, 3)] + [outline(6.5, 6.5, 4, 2)],
        "SPLEEN": [outline(9.5, 9.5, 10, k) for k in (2, 3)],
        "External": [outline(-3, -3, 60, k) for k in range(K)],
    }
    labels = structure_set(regions, planes[0].FrameOfReferenceUID)
    labels.Modality, labels.PatientID = "RTSTRUCT", "p1"
    labels.StudyInstanceUID, labels.SeriesInstanceUID = uid("p1"), uid("p1", "rt")
    frame = Dataset()
    frame.FrameOfReferenceUID = planes[
        0
    ].FrameOfReferenceUID  # and no series: the frame alone says which it is
    labels.ReferencedFrameOfReferenceSequence = [frame]
    store(folder / "plans", "one/ct", *planes)
    store(folder / "plans", "one/rt.dcm", labels)
    return [
        kit.write_source(
            folder,
            "plans",
            modality="ct",
            pairings=tree("rtstruct"),
            image={"reader": "dicom"},
            label=drawn("rtstruct", ignore=["ext*"], fold_case=True),
            labels={"liver": "liver", "Spleen": "spleen"},
        )
    ]


def readings(folder: Path) -> list[str]:
    planes = scan("LIDC-IDRI-0001", "ct")
    sessions = []
    for shift in range(4):
        rois = [
            roi(
                border(disc(12 + shift, 11, 4)),
                planes[k].SOPInstanceUID,
                float(planes[k].ImagePositionPatient[2]),
            )
            for k in (2, 3)
        ]
        sessions.append([rois])
    head = f"<ResponseHeader><SeriesInstanceUid>{uid('LIDC-IDRI-0001', 'ct')}</SeriesInstanceUid></ResponseHeader>"
    content = reading(*sessions).replace(b"<readingSession>", head.encode() + b"<readingSession>", 1)
    store(folder / "readings", "LIDC-IDRI-0001/ct", *planes)
    (folder / "readings" / "LIDC-IDRI-0001" / "069.xml").write_bytes(content)
    return [
        kit.write_source(
            folder,
            "readings",
            modality="ct",
            pairings=tree("lidc-xml"),
            image={"reader": "dicom"},
            label=drawn("lidc-xml", {"agreement": 2}),
            labels={"nodule": "lung-nodule"},
        )
    ]


def pictures(folder: Path) -> list[str]:
    root = folder / "nuclei"
    for part in ("images", "annotations"):
        (root / part).mkdir(parents=True)
    pixels = RNG.integers(0, 255, (40, 50, 3)).astype(np.uint8)
    tifffile.imwrite(root / "images" / "TCGA-1.tif", pixels)
    (root / "annotations" / "TCGA-1.xml").write_bytes(xml(annotation(*NUCLEI)))
    eyes = folder / "eyes"
    eyes.mkdir()
    Image.fromarray(RNG.integers(0, 255, (40, 50, 3)).astype(np.uint8)).save(eyes / "RET001OD.png")
    (eyes / "RET001OD_disc.txt").write_text("3 3\n33 3\n33 33\n3 33\n")
    (eyes / "RET001OD_cup.txt").write_text("13 13\n23 13\n23 23\n13 23\n")
    options = {
        "images": "images",
        "labels": "annotations",
        "image_suffix": ".tif",
        "label_suffix": ".xml",
    }
    facts = {"dimensions": 2, "image": {"reader": "raster"}}
    return [
        kit.write_source(
            folder,
            "nuclei",
            modality="histopathology",
            pairings=[{"kind": "paired-folders", "options": options}],
            label=drawn("polygon-xml", objects=True),
            labels={"*": "nucleus"},
            **facts,
        ),
        kit.write_source(
            folder,
            "eyes",
            modality="fundus",
            pairings=kit.flat_suffix(".png", "_{label}.txt"),
            label=drawn("polygon-text"),
            labels={"disc": "optic-disc", "cup": "optic-cup"},
            **facts,
        ),
    ]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    sources = [name for make in (collection, plan, readings, pictures) for name in make(folder)]
    intensity = {**kit.INTENSITY, "histopathology": {"rule": "rgb"}}
    recipe = kit.write_recipe(folder, sources, intensity=intensity)
    yield kit.built(recipe, folder / "out")
    patch.undo()


def areas(dataset: kit.Dataset, source: str, **where: object) -> dict[str, list[int]]:
    """Areas of every label's masks, plane by plane."""
    found: dict[str, list[int]] = {}
    for row in dataset.of(source, **where):
        found.setdefault(row["label"], []).append(row["area_px"])
    return found


def test_segments_of_a_collection(dataset):
    rows = dataset.of("segs")
    assert len({row["case"] for row in rows}) == 4
    assert len({row["group"] for row in rows}) == 2  # visits of a patient stay together
    for case in {row["case"] for row in rows}:
        assert areas(dataset, "segs", case=case) == {"liver": [170] * 4, "liver-lesion": [16] * 2}
    assert not any("p1" in str(value) for row in rows for value in row.values())


def test_regions_of_a_plan(dataset):
    assert areas(dataset, "plans") == {"liver": [225, 225 - 16, 225], "spleen": [100, 100]}
    assert not dataset.refused("plans")


def test_agreed_nodules(dataset):
    votes = sum(disc(12 + shift, 11, 4).astype(int) for shift in range(4))
    assert areas(dataset, "readings") == {"lung-nodule": [int((votes >= 2).sum())] * 2}


def test_nuclei_that_overlap_are_whole(dataset):
    rows = dataset.of("nuclei")
    areas = {row["instance"]: row["area_px"] for row in rows}
    assert sorted(areas) == [1, 2, 3]
    assert (areas[1], areas[2]) == (54, 81)


def test_outlines_of_two_classes(dataset):
    assert areas(dataset, "eyes") == {"optic-disc": [900], "optic-cup": [100]}


@pytest.mark.parametrize(
    ("image", "label", "said"),
    [
        ("dicom", {"reader": "dicom-seg", "decoder": "index"}, "named structures"),
        ("dicom", {"reader": "nifti", "decoder": "structures"}, "values of voxels"),
        ("rtstruct", {"reader": "rtstruct", "decoder": "structures"}, "reads labels, not images"),
    ],
)
def test_readers_and_decoders_must_fit(image, label, said):
    facts = {
        **kit.SOURCE,
        "id": "x",
        "title": "x",
        "modality": "ct",
        "pairings": tree("seg"),
        "image": {"reader": image},
        "label": label,
        "labels": {"1": "liver"},
    }
    problems = list(source_problems(check_model(facts, Source, "x"), ontology()))
    assert any(said in problem for problem in problems)


def test_a_label_of_another_image_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    planes, others = scan("p1", "a"), scan("p1", "b")
    for plane in others:
        plane.ImagePositionPatient[2] += 1
        plane.FrameOfReferenceUID = uid("elsewhere")
    labels = segmentation(others, boxes())
    labels.ReferencedSeriesSequence[0].SeriesInstanceUID = planes[0].SeriesInstanceUID
    store(tmp_path / "segs", "ct", *planes)
    (tmp_path / "segs" / "seg.dcm").write_bytes(dicom_bytes(labels))
    source = kit.write_source(
        tmp_path,
        "segs",
        modality="ct",
        pairings=tree("seg"),
        image={"reader": "dicom"},
        label=drawn("dicom-seg"),
        labels=LABELS,
    )
    dataset = kit.built(kit.write_recipe(tmp_path, [source]), tmp_path / "out", code=3)
    assert list(dataset.reasons("segs").values()) == ["GEOMETRY"]

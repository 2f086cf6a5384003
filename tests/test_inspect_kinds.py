"""From a folder's draft to a dataset, for layouts that names alone do not tell: one case, arrays, DICOM collections."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from dicom_kit import series, written
from pydicom.uid import generate_uid
from test_readers_seg import PATIENT, segmentation, store
from trees import grow
from typer.testing import CliRunner

from medcurate.cli.main import app
from medcurate.config.source import Source
from medcurate.inspection.array_files import Pair, axes_of, pairs
from medcurate.inspection.guess import guess
from medcurate.inspection.survey import survey
from medcurate.tables import load_model

PLANES, ROWS, COLUMNS = 4, 48, 40
RNG = np.random.default_rng(0)
LABEL = np.zeros((COLUMNS, ROWS, PLANES), np.uint8)  # i, j, k
LABEL[4:30, 4:30, 1:3] = 1
AFFINE = np.diag([-0.6, -0.8, 2.5, 1.0])  # as the DICOM series of the kit lie
AFFINE[:3, 3] = 10, 20, 30


def voxels() -> np.ndarray:
    """Another CT-like image at every call: equal ones would be one patient's."""
    return RNG.integers(-1000, 900, LABEL.shape).astype(np.int16)


def volume(path: Path, voxels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, AFFINE), path)


def scan(folder: Path, patient: str, *, labelled: bool = False) -> None:
    """A CT series in a folder called by a number, perhaps with a segmentation in another."""
    facts = PATIENT | {"PatientID": patient, "FrameOfReferenceUID": generate_uid()}
    facts |= {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()}
    planes = series(voxels(), **facts)
    for number, plane in enumerate(planes, start=1):
        plane.InstanceNumber = number
    place = folder / facts["SeriesInstanceUID"][-8:]
    place.mkdir(parents=True)
    written(place, planes)
    if labelled:
        (folder / f"{place.name}0").mkdir()
        store(folder / f"{place.name}0" / "1-1.dcm", segmentation(planes, LABEL.T[..., None].astype(bool)))


def inspected(root: Path) -> tuple[Path, str]:
    path = root.parent / f"{root.name}.toml"
    result = CliRunner().invoke(app, ["inspect", str(root), "-o", str(path)])
    assert result.exit_code == 0, (result.output, result.exception)
    return path, result.output


def answer(path: Path, **answers: str) -> None:
    """Fill in what an author knows: every label is the liver but one called spleen."""
    text = path.read_text(encoding="utf-8")
    for key, value in {"modality": '"ct"', "pattern": '""', **answers}.items():
        text = re.sub(rf'\b{key} = "unresolved"', f"{key} = {value}", text)
    text = text.replace('"spleen" = "unresolved"', '"spleen" = "spleen"')
    path.write_text(re.sub(r'^("[^"]+") = "unresolved"', r'\1 = "liver"', text, flags=re.M), encoding="utf-8")


def built(path: Path, rule: str = "minmax") -> dict[str, int]:
    """The dataset of an answered draft: rows by label, and cases, patients and pictures."""
    recipe, out = path.with_name("r.toml"), path.with_name("out")
    recipe.write_text(
        f'name = "r"\ntitle = "r"\nsources = ["{path.name}"]\n[intensity.default]\nrule = "{rule}"\n',
        encoding="utf-8",
    )
    places = ["--recipe", str(recipe), "--data", str(path.parent), "--out", str(out)]
    result = CliRunner().invoke(app, ["build", *places, "--engine", "serial", "--workers", "1"])
    assert result.exit_code == 0, (result.output, result.exception)
    rows = pq.read_table(out / "manifest.parquet").to_pylist()
    labels = [row["label"] for row in rows]
    counts = {label: labels.count(label) for label in set(labels)}
    return counts | {what: len({row[what] for row in rows}) for what in ("case", "group", "key")}


# -- one case in the folder itself ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "labels", "counts"),
    [
        ("image", ["label"], {"liver": 2}),
        ("ct", ["segmentations/liver", "segmentations/spleen"], {"liver": 2, "spleen": 2}),
        ("CT", ["liver", "spleen"], {"liver": 2, "spleen": 2}),  # none sounds like a label
    ],
)
def test_a_folder_that_is_one_case(image, labels, counts, tmp_path):
    root = tmp_path / "lab"
    volume(root / f"{image}.nii.gz", voxels())
    for label in labels:
        volume(root / f"{label}.nii.gz", LABEL)
    path, told = inspected(root)
    assert "1 case with" in told
    assert [found.name for found in guess(survey(root)).usable] == ["case"]
    answer(path)
    assert built(path) == {**counts, "case": 1, "group": 1, "key": 2}


def test_a_picture_and_its_mask(tmp_path):
    root = tmp_path / "lab"
    root.mkdir()
    cv2.imwrite(str(root / "image.png"), RNG.integers(0, 255, (64, 64, 3)).astype(np.uint8))
    cv2.imwrite(str(root / "mask.png"), np.pad(np.full((40, 40), 255, np.uint8), 12))
    path, _ = inspected(root)
    answer(path)
    assert built(path, "rgb") == {"liver": 1, "case": 1, "group": 1, "key": 1}


def test_many_files_are_never_one_case_with_many_channels(tmp_path):
    root = grow(tmp_path, *(f"{name}.nii.gz" for name in ("mask", *(f"subject{n}x" for n in range(30)))))
    assert guess(survey(root)) is None


@pytest.mark.parametrize("numbered", [True, False])
def test_one_file_an_object_is_no_class(numbered, tmp_path):
    """As the nuclei of the Data Science Bowl: names of files are numbers or hashes, never keys of [labels]."""
    for number in range(3):
        place = tmp_path / f"lab/p{number}"
        (place / "masks").mkdir(parents=True)
        cv2.imwrite(str(place / "image.png"), RNG.integers(0, 255, (64, 64, 3)).astype(np.uint8))
        for item in range(3):
            mask = np.zeros((64, 64), np.uint8)
            mask[20 * item : 20 * item + 16, 8:40] = 255
            name = str(item) if numbered else RNG.bytes(8).hex()
            cv2.imwrite(str(place / f"masks/{name}.png"), mask)
    path, _ = inspected(tmp_path / "lab")
    assert "is every file one object" in path.read_text(encoding="utf-8")
    answer(path)
    assert built(path, "rgb") == {"liver": 9, "case": 3, "group": 3, "key": 3}


# -- arrays --------------------------------------------------------------------------------------------


def volumes(root: Path, image: str, label: str, **more: np.ndarray) -> Path:
    """Two files, each of an image and its label, planes first."""
    root.mkdir()
    for number in range(2):
        np.savez_compressed(root / f"CT_{number}.npz", **{image: voxels().T, label: LABEL.T}, **more)
    return root


def test_image_and_label_in_one_npz(tmp_path):
    """What MedSAM's scripts write."""
    path, told = inspected(volumes(tmp_path / "lab", "imgs", "gts", spacing=np.array([0.6, 0.8, 2.5])))
    assert "0.6 x 0.8 x 2.5" in told
    answer(path)
    assert built(path) == {"liver": 4, "case": 2, "group": 2, "key": 4}


def test_the_spacing_that_no_file_states_is_asked_for(tmp_path):
    path, told = inspected(volumes(tmp_path / "lab", "image", "label"))
    assert "not stated" in told
    answer(path)
    refused = CliRunner().invoke(app, ["check", str(path), "--data", str(tmp_path)])
    assert refused.exit_code == 3
    assert "image.options: spacing_mm: must be" in refused.output
    assert "label.reader_options: spacing_mm: must be" in refused.output
    answer(path, spacing_mm="[0.6, 0.8, 2.5]")
    assert built(path) == {"liver": 4, "case": 2, "group": 2, "key": 4}


def samples(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Colour pictures and their masks, a row each."""
    masks = np.zeros((count, 32, 32), np.uint8)
    masks[:, 4:28, 4:28] = 1
    return RNG.integers(0, 255, (count, 32, 32, 3)).astype(np.uint8), masks


def test_samples_that_follow_each_other_in_an_npz(tmp_path):
    """Of several splits one is drafted and the others are asked for."""
    (tmp_path / "lab").mkdir()
    images, masks = samples(3)
    parts = {f"{split}_{kind}": array for split in ("train", "val") for kind, array in
             (("images", images), ("label", masks))}  # fmt: skip
    np.savez(tmp_path / "lab/organ_32.npz", **parts)
    path, _ = inspected(tmp_path / "lab")
    assert '"train", "val", "test"' in next(
        line for line in path.read_text().splitlines() if "called after val" in line
    )
    answer(path)
    assert built(path, "rgb") == {"liver": 3, "case": 3, "group": 3, "key": 3}


def test_values_of_a_mask_with_a_last_axis_of_one_are_counted(tmp_path):
    """As Keras has them: 0 and 1, which are classes and no objects."""
    (tmp_path / "lab").mkdir()
    images, masks = samples(3)
    np.savez(tmp_path / "lab/all.npz", images=images, masks=masks[..., None])
    path, told = inspected(tmp_path / "lab")
    assert "0 (448), 1 (576)" in told
    assert load_model(path, Source).label.decoder == "index"
    answer(path)
    assert built(path, "rgb") == {"liver": 3, "case": 3, "group": 3, "key": 3}


def test_samples_in_two_files_a_folder(tmp_path):
    for fold in (1, 2):
        (tmp_path / f"lab/fold{fold}").mkdir(parents=True)
        for name, array in zip(("images", "masks"), samples(2), strict=True):
            np.save(tmp_path / f"lab/fold{fold}/{name}.npy", array)
    path, _ = inspected(tmp_path / "lab")
    answer(path)
    assert built(path, "rgb") == {"liver": 4, "case": 4, "group": 4, "key": 4}


def test_an_array_a_file_in_folders(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / "lab" / folder).mkdir(parents=True)
        for number in range(2):
            array = LABEL if folder == "labels" else voxels()
            np.save(tmp_path / f"lab/{folder}/c{number}.npy", array.T)
    path, _ = inspected(tmp_path / "lab")
    assert "(4 x 48 x 40) k, j, i" in path.read_text(encoding="utf-8")
    answer(path, spacing_mm="[0.6, 0.8, 2.5]")
    assert built(path) == {"liver": 4, "case": 2, "group": 2, "key": 4}


def test_one_stack_is_drafted_as_pictures_and_doubted(tmp_path):
    (tmp_path / "lab").mkdir()
    np.savez(tmp_path / "lab/all.npz", x=voxels().T, y=LABEL.T)
    path, _ = inspected(tmp_path / "lab")
    assert load_model(path, Source).pairings[0].kind == "array-pack"
    assert "If all of them are one volume" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("of_label", [True, False])
@pytest.mark.parametrize("files", [1, 2])
def test_volumes_with_a_last_axis_of_one_are_no_pictures(files, of_label, tmp_path):
    """Several files, or the spacing of a volume, tell that the first axis counts planes."""
    (tmp_path / "lab").mkdir()
    label = LABEL.T[..., None] if of_label else LABEL.T
    stated = {"spacing": np.array([0.6, 0.8, 2.5])} if files == 1 else {}
    for number in range(files):
        np.savez(tmp_path / f"lab/c{number}.npz", image=voxels().T[..., None], label=label, **stated)
    path, _ = inspected(tmp_path / "lab")
    answer(path, spacing_mm="[0.6, 0.8, 2.5]")
    assert built(path) == {"liver": 2 * files, "case": files, "group": files, "key": 2 * files}


def test_a_folder_a_case_of_two_arrays_holds_a_volume(tmp_path):
    for number in range(2):
        (tmp_path / f"lab/p{number}").mkdir(parents=True)
        np.save(tmp_path / f"lab/p{number}/image.npy", voxels().T)
        np.save(tmp_path / f"lab/p{number}/label.npy", LABEL.T)
    path, _ = inspected(tmp_path / "lab")
    answer(path, spacing_mm="[0.6, 0.8, 2.5]")
    assert built(path) == {"liver": 4, "case": 2, "group": 2, "key": 4}


@pytest.mark.parametrize(
    ("image", "label", "is_asked"),
    [
        ((8, 32, 32, 1), (8, 32, 32, 1), True),
        ((8, 32, 32, 1), (8, 32, 32), True),
        ((8, 32, 32, 3), (8, 32, 32), True),
        ((8, 32, 32, 3), (8, 32, 32, 6), True),  # a plane a class
        ((8, 32, 32, 20), (8, 32, 32, 20), False),  # volumes that follow each other
    ],
)
def test_rows_that_may_be_planes_of_a_volume_are_asked_about(image, label, is_asked, tmp_path):
    (tmp_path / "lab").mkdir()
    masks = np.zeros(label, np.uint8)
    masks[:, 4:28, 4:28] = 1
    np.savez(tmp_path / "lab/all.npz", image=RNG.integers(0, 255, image).astype(np.uint8), label=masks)
    path, _ = inspected(tmp_path / "lab")
    assert load_model(path, Source).pairings[0].kind == "array-pack"
    assert ("If all of them are one volume" in path.read_text(encoding="utf-8")) == is_asked


def test_one_volume_in_two_files_is_a_case_folder_as_its_draft_says(tmp_path):
    (tmp_path / "lab").mkdir()
    np.save(tmp_path / "lab/image.npy", voxels().T)
    np.save(tmp_path / "lab/label.npy", LABEL.T)
    path, _ = inspected(tmp_path / "lab")
    assert 'write kind = "case-folder" here' in path.read_text(encoding="utf-8")


def test_arrays_of_objects_are_shown_and_never_unpickled(tmp_path):
    (tmp_path / "lab").mkdir()
    np.savez(tmp_path / "lab/a.npz", image=np.array([{}], object), label=np.array([{}], object))
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "lab")])
    assert "a.npz: UNREADABLE" in result.output
    assert "no pairing" in str(result.exception)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((64, 48), "hw"), ((64, 48, 3), "hwc"), ((3, 64, 48), "chw"), ((20, 64, 64), "kji"), ((64, 64, 20), "ijk"),
     ((100, 64, 64), "kji"), ((64, 64, 100), "ijk"), ((64, 48, 20), "ijk"), ((9, 64, 64, 4), "kjic"),
     ((4, 9, 64, 64), "ckji"), ((9, 64, 64, 64), "ckji"), ((64, 64, 64, 64), ""), ((7,), "")],
)  # fmt: skip
def test_axes_of_shapes(shape, axes):
    assert axes_of(shape) == axes


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["imgs", "gts", "spacing"], [Pair("imgs", "gts")]),
        (["x", "y"], [Pair("x", "y")]),
        (["data", "seg"], [Pair("data", "seg")]),
        (["image", "thing"], [Pair("image", "thing")]),
        (["a", "b"], []),
        (["X_a", "y_a", "X_b", "y_b"], [Pair("X_a", "y_a", "a"), Pair("X_b", "y_b", "b")]),
    ],
)  # fmt: skip
def test_names_of_arrays_that_go_together(names, found):
    assert pairs(names) == found


# -- volumes whose files say little ---------------------------------------------------------------------


def test_pages_of_a_tiff_are_planes(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / "lab" / folder).mkdir(parents=True)
        for number in range(2):
            array = LABEL if folder == "labels" else voxels().view(np.uint16)
            tifffile.imwrite(tmp_path / f"lab/{folder}/c{number}.tif", array.T, photometric="minisblack")
    path, told = inspected(tmp_path / "lab")
    assert "2 of 2: image and label can be read" in told
    assert "spacing_mm = [plane, row, column]?" in path.read_text(encoding="utf-8")
    answer(path, spacing_mm="[2.5, 0.8, 0.6]")
    assert built(path) == {"liver": 4, "case": 2, "group": 2, "key": 4}


def test_a_nifti_in_two_files(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / "lab" / folder).mkdir(parents=True)
        for number in range(2):
            array = LABEL if folder == "labels" else voxels()
            nib.save(nib.Nifti1Pair(array, AFFINE), tmp_path / f"lab/{folder}/c{number}.hdr")
    path, _ = inspected(tmp_path / "lab")
    answer(path)
    assert built(path) == {"liver": 4, "case": 2, "group": 2, "key": 4}


# -- DICOM collections ---------------------------------------------------------------------------------


def test_a_collection_is_drafted_by_its_headers(tmp_path):
    """Names say nothing; series without a label are a question, and the draft names no patient."""
    for number in range(2):
        for labelled in (True, False):
            scan(tmp_path / f"lab/QX-{number}/study", f"QX-{number}", labelled=labelled)
    path, told = inspected(tmp_path / "lab")
    assert "Patients: 2, by the Patient ID" in told
    text = path.read_text(encoding="utf-8")
    assert "incomplete cases: 2 (first: image without label)" in text
    assert "QX-" not in text
    path.write_text(text.replace('modality = "CT"', 'modality = "CT"\nunlabelled = "omit"'), encoding="utf-8")
    answer(path)
    assert built(path) == {"liver": 4, "case": 2, "group": 2, "key": 4}


@pytest.mark.parametrize(
    ("patients", "labels"),
    [
        (("PANCREAS_0001", "PANCREAS_0002"), "lab/label{}.nii.gz"),  # the number of the patient
        (("AB12", "CD34"), "seg/{}_{}.nii.gz"),  # a file a class
    ],
)
def test_labels_that_are_called_after_patients(patients, labels, tmp_path):
    for patient in patients:
        scan(tmp_path / f"lab/dicom/{generate_uid()[-6:]}", patient)
        for name in ("liver", "spleen")[: labels.count("{}")]:
            volume(tmp_path / "lab" / labels.format(patient.removeprefix("PANCREAS_"), name), LABEL)
    path, _ = inspected(tmp_path / "lab")
    text = path.read_text(encoding="utf-8")
    assert not any(patient in text for patient in patients)
    answer(path)
    found = built(path)
    assert found.pop("spleen", 4) == 4
    assert found == {"liver": 4, "case": 2, "group": 2, "key": 4}


def test_files_called_by_their_uid_are_seen(tmp_path):
    """As archives export them: no ending but the last number."""
    scan(tmp_path / "lab/a", "P1", labelled=True)
    for path in sorted((tmp_path / "lab").rglob("*.dcm")):
        path.rename(path.with_name(f"1.2.840.{path.parent.name}.{path.stem.replace('-', '')}"))
    assert guess(survey(tmp_path / "lab")).explained == PLANES + 1


def test_a_picture_a_plane_is_drafted_as_the_label_of_a_series(tmp_path):
    """As CHAOS has it: DICOM files and PNG files that count the same planes."""
    for number in range(2):
        (tmp_path / f"lab/{number}/Ground").mkdir(parents=True)
        scan(tmp_path / f"lab/{number}", f"P{number}")
        series_folder = next(path for path in (tmp_path / f"lab/{number}").iterdir() if path.name != "Ground")
        series_folder.rename(tmp_path / f"lab/{number}/DICOM_anon")
        for plane in range(PLANES):
            cv2.imwrite(str(tmp_path / f"lab/{number}/Ground/I-{plane:03d}.png"), LABEL[:, :, plane].T * 255)
    path, told = inspected(tmp_path / "lab")
    assert "2 of 2: image and label can be read" in told
    text = path.read_text(encoding="utf-8")
    assert 'geometry = "image"' in text
    answer(path)
    assert built(path) == {"liver": 4, "case": 2, "group": 2, "key": 4}

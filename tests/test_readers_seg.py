"""DICOM segmentations: frames in their places on the image, as highdicom and pydicom write and read them."""

from __future__ import annotations

import dataclasses
import struct
from contextlib import suppress
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import realdata
from dicom_kit import dicom_bytes, instance, series, written
from drawing_kit import decoded, draw, drawing, painted, reference_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    RLELossless,
    SegmentationStorage,
    generate_uid,
)
from readers_kit import refused

from medcurate.errors import CaseRejected, Reason
from medcurate.readers import dicom_seg
from medcurate.types import Reference

SHAPE = (7, 6, 5)  # I, J, K: 42 bits a frame, so that frames begin inside bytes
VOXELS = np.random.default_rng(0).integers(-1000, 2000, SHAPE, np.int16)
FRAME_OF_REFERENCE = generate_uid(entropy_srcs=["frame"])
PATIENT = {
    "PatientID": "p1", "PatientBirthDate": "", "PatientSex": "", "AccessionNumber": "", "StudyID": "",
    "StudyDate": "", "StudyTime": "", "ReferringPhysicianName": "", "Modality": "CT",
    "StudyInstanceUID": generate_uid(entropy_srcs=["study"]), "FrameOfReferenceUID": FRAME_OF_REFERENCE,
}  # fmt: skip


def image(folder: Path, **geometry: object) -> tuple[list[Dataset], Reference]:
    datasets = series(VOXELS, **PATIENT, **geometry)
    for number, dataset in enumerate(datasets):
        dataset.InstanceNumber = number + 1
    folder.mkdir(exist_ok=True)
    return datasets, reference_of(*written(folder, datasets))


def description(number: int, label: str, kind: object = codes.SCT.Liver) -> highdicom.seg.SegmentDescription:
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=codes.SCT.Organ,
        segmented_property_type=kind,
        algorithm_type="MANUAL",
    )


def segmentation(
    datasets: list[Dataset], masks: np.ndarray, kind: str = "BINARY", **options: object
) -> Dataset:
    """``masks`` (K, J, I, segments) on the planes of ``datasets``, written by highdicom."""
    names = ["liver", "spleen", "lesion"]
    kinds = [codes.SCT.Liver, codes.SCT.Spleen, codes.SCT.Neoplasm]
    return highdicom.seg.Segmentation(
        source_images=datasets,
        pixel_array=masks,
        segmentation_type=kind,
        segment_descriptions=[
            description(n + 1, names[n], kinds[n])
            for n in range(masks.shape[3] if masks.ndim == 4 else int(masks.max()))
        ],
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
        **options,
    )


def store(path: Path, dataset: Dataset) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def random_masks(rng: np.random.Generator, count: int = 3) -> np.ndarray:
    masks = rng.random((SHAPE[2], SHAPE[1], SHAPE[0], count)) < 0.3
    masks[1, :, :, 0] = False  # an empty frame, which highdicom leaves out
    return masks


def by_name(found: list[tuple[tuple[str, ...], np.ndarray]]) -> dict[str, np.ndarray]:
    return {names[0]: mask for names, mask in found}


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("label", ["liver", "spleen", "lesion"]),
        ("number", ["1", "2", "3"]),
        ("code", ["10200004", "78961009", "108369006"]),
    ],
)
def test_overlapping_segments_of_highdicom(tmp_path, name, keys):
    datasets, reference = image(tmp_path / "ct")
    masks = random_masks(np.random.default_rng(1))
    path = store(tmp_path / "seg.dcm", segmentation(datasets, masks))
    assert int(pydicom.dcmread(path).NumberOfFrames) < masks.shape[0] * masks.shape[3]
    found = by_name(draw(dicom_seg, reference, path, name=name))
    assert list(found) == keys
    for number, mask in enumerate(found.values()):
        assert np.array_equal(mask, masks[..., number].transpose(2, 1, 0))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16), compressed=st.booleans(), kind=st.sampled_from(["BINARY", "LABELMAP"]))
def test_any_masks_and_any_order_of_planes(tmp_path_factory, seed, compressed, kind):
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("seg")
    row, column, normal = np.linalg.qr(rng.normal(size=(3, 3)))[0].T
    normal = np.cross(row, column)
    datasets, reference = image(
        folder / "ct", row=row, column=column, step=tuple(2.5 * normal), origin=(9, -4, 3)
    )
    order = rng.permutation(SHAPE[2])
    if kind == "LABELMAP":
        masks = rng.integers(0, 4, (SHAPE[2], SHAPE[1], SHAPE[0]), np.uint8)
        masks[0, 0, 0] = 3
        expected = [masks == number for number in (1, 2, 3)]
    else:
        masks = random_masks(rng)
        expected = list(np.moveaxis(masks, 3, 0))
    options = {"transfer_syntax_uid": RLELossless} if compressed and kind == "LABELMAP" else {}
    written_seg = segmentation([datasets[k] for k in order], masks[order], kind, **options)
    found = by_name(draw(dicom_seg, reference, store(folder / "seg.dcm", written_seg)))
    for mask, wanted in zip(found.values(), expected, strict=True):
        assert np.array_equal(mask, wanted.transpose(2, 1, 0))


def test_fractions_need_a_threshold(tmp_path):
    datasets, reference = image(tmp_path / "ct")
    values = np.random.default_rng(2).random((*SHAPE[::-1], 1)).astype(np.float32)
    path = store(tmp_path / "seg.dcm", segmentation(datasets, values, "FRACTIONAL", max_fractional_value=200))
    with refused(Reason.BAD_LABEL, detail="at_least"):
        draw(dicom_seg, reference, path)
    stored = pydicom.dcmread(path)
    assert stored.MaximumFractionalValue == 200
    (mask,) = by_name(draw(dicom_seg, reference, path, at_least=0.25)).values()
    planes = [
        f.PlanePositionSequence[0].ImagePositionPatient[2] for f in stored.PerFrameFunctionalGroupsSequence
    ]
    expected = stored.pixel_array[np.argsort(planes)] >= 50
    assert np.array_equal(mask, expected.transpose(2, 1, 0))
    del stored.MaximumFractionalValue
    with refused(Reason.CORRUPT):
        draw(dicom_seg, reference, store(tmp_path / "without.dcm", stored), at_least=0.25)


def test_codes_with_a_modifier_come_first(tmp_path):
    datasets, reference = image(tmp_path / "ct")
    dataset = segmentation(datasets, random_masks(np.random.default_rng(1), 1))
    modifier = Dataset()
    modifier.CodeValue, modifier.CodingSchemeDesignator = "7771000", "SCT"
    dataset.SegmentSequence[0].SegmentedPropertyTypeModifierCodeSequence = [modifier]
    ((names, _),) = draw(dicom_seg, reference, store(tmp_path / "seg.dcm", dataset), name="code")
    assert names == ("10200004+7771000", "10200004")


def test_overlaps_become_layers_and_disjoint_segments_share_one(tmp_path):
    datasets, reference = image(tmp_path / "ct")
    masks = np.zeros((*SHAPE[::-1], 3), bool)
    masks[1, 1:4, 1:4, 0] = masks[1, 2:5, 2:5, 1] = masks[3, :, :, 2] = True
    path = store(tmp_path / "seg.dcm", segmentation(datasets, masks))
    layers = decoded(
        drawing(dicom_seg, reference, path), {"liver": "liver", "spleen": "spleen", "lesion": "liver-lesion"}
    )
    assert len(layers) == 2
    union = {term: np.zeros(SHAPE, bool) for term in ("liver", "spleen", "liver-lesion")}
    for layer in layers:
        assert layer.labels.shape == SHAPE
        for value, term in layer.terms.items():
            union[term] |= layer.labels == value
    for number, mask in enumerate(union.values()):
        assert np.array_equal(mask, masks[..., number].transpose(2, 1, 0))


def test_undeclared_segments_are_refused_and_ignored_ones_never_painted(tmp_path):
    datasets, reference = image(tmp_path / "ct")
    path = store(tmp_path / "seg.dcm", segmentation(datasets, random_masks(np.random.default_rng(1))))
    found = drawing(dicom_seg, reference, path)
    with refused(Reason.BAD_LABEL, detail="neither in [labels]"):
        decoded(found, {"liver": "liver"})
    (layer,) = decoded(
        drawing(dicom_seg, reference, path), {" LIVER": "liver"}, ignore=["SPL*", "lesion"], fold_case=True
    )
    assert set(layer.terms.values()) == {"liver"}


# Geometry


def moved(dataset: Dataset, by: tuple[float, float, float]) -> Dataset:
    groups = dataset.PerFrameFunctionalGroupsSequence
    # Segments of one plane share the object that says where it lies.
    for position in {
        id(group.PlanePositionSequence[0]): group.PlanePositionSequence[0] for group in groups
    }.values():
        position.ImagePositionPatient = list(np.add(position.ImagePositionPatient, by))
    return dataset


@pytest.mark.parametrize(
    ("by", "detail"),
    [
        ((0, 0, 1.25), "on voxels"),
        ((0.2, 0, 0), "on voxels"),
        ((0, 0, 25.0), "outside"),
        ((0.6, 0, 0), "outside"),
    ],
)
def test_frames_off_the_grid(tmp_path, by, detail):
    datasets, reference = image(tmp_path / "ct")
    dataset = moved(segmentation(datasets, random_masks(np.random.default_rng(1))), by)
    with refused(Reason.GEOMETRY, detail=detail):
        draw(dicom_seg, reference, store(tmp_path / "seg.dcm", dataset))


def test_a_cropped_segmentation_keeps_its_place(tmp_path):
    _, reference = image(tmp_path / "ct")
    crop = series(VOXELS[2:6, 1:4, 1:3], origin=(-10 + 2 * 0.6, -20 + 0.8, 32.5), **PATIENT)
    masks = np.random.default_rng(3).random((2, 3, 4, 1)) < 0.5
    ((_, mask),) = draw(dicom_seg, reference, store(tmp_path / "seg.dcm", segmentation(crop, masks)))
    assert np.array_equal(mask[2:6, 1:4, 1:3], masks[..., 0].transpose(2, 1, 0))
    assert mask.sum() == masks.sum()


def test_another_frame_of_reference(tmp_path):
    datasets, reference = image(tmp_path / "ct")
    dataset = segmentation(datasets, random_masks(np.random.default_rng(1)))
    dataset.FrameOfReferenceUID = generate_uid()
    with refused(Reason.GEOMETRY, detail="frame of reference"):
        draw(dicom_seg, reference, store(tmp_path / "seg.dcm", dataset))


def test_frames_without_position_lie_on_their_source(tmp_path):
    datasets, reference = image(tmp_path / "ct")
    masks = random_masks(np.random.default_rng(1))
    dataset = segmentation(datasets, masks)
    del dataset.FrameOfReferenceUID
    for group in dataset.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence
    found = by_name(draw(dicom_seg, reference, store(tmp_path / "seg.dcm", dataset)))
    assert np.array_equal(found["liver"], masks[..., 0].transpose(2, 1, 0))
    source = dataset.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    source.ReferencedSOPInstanceUID = generate_uid()
    with refused(Reason.GEOMETRY, detail="not of the case"):
        draw(dicom_seg, reference, store(tmp_path / "seg.dcm", dataset))


def test_a_picture_and_its_segment(tmp_path):
    """A radiograph has no position: the segment lies on the image that it names."""
    radiograph = instance(VOXELS[:, :, 0].T.copy(), **{**PATIENT, "FrameOfReferenceUID": None})
    (path,) = written(tmp_path, [radiograph])
    reference = reference_of(path)
    assert reference.shape == (6, 7)
    mask = np.random.default_rng(5).random((6, 7)) < 0.5
    ((_, found),) = draw(dicom_seg, reference, store(tmp_path / "seg.dcm", flat_segment(radiograph, mask)))
    assert np.array_equal(found, mask)


def flat_segment(radiograph: Dataset, mask: np.ndarray) -> Dataset:
    dataset = instance(
        np.zeros(mask.shape, np.uint8),
        SOPClassUID=SegmentationStorage,
        BitsAllocated=1,
        BitsStored=1,
        HighBit=0,
        NumberOfFrames=1,
        SegmentationType="BINARY",
        PixelData=np.packbits(mask, bitorder="little").tobytes(),
    )
    segment, kind, identification, derivation, source, group = (Dataset() for _ in range(6))
    kind.CodeValue = "1"
    segment.SegmentNumber, segment.SegmentLabel, segment.SegmentedPropertyTypeCodeSequence = 1, "lung", [kind]
    dataset.SegmentSequence = [segment]
    identification.ReferencedSegmentNumber = 1
    source.ReferencedSOPInstanceUID = radiograph.SOPInstanceUID
    derivation.SourceImageSequence = [source]
    group.SegmentIdentificationSequence, group.DerivationImageSequence = [identification], [derivation]
    dataset.PerFrameFunctionalGroupsSequence = [group]
    return dataset


# Damage and hostility


def intact(folder: Path) -> tuple[Dataset, Reference]:
    datasets, reference = image(folder / "ct")
    return segmentation(datasets, random_masks(np.random.default_rng(1))), reference


@pytest.mark.parametrize(
    "edit",
    [
        {"PixelData": b"\0\0"},
        {"Rows": 65535},
        {"NumberOfFrames": 2**31 - 1},
        {"BitsAllocated": 32},
        {"SegmentationType": "OTHER"},
        {"SegmentSequence": None},
        {"PerFrameFunctionalGroupsSequence": None},
    ],
    ids=str,
)
def test_false_claims(tmp_path, edit):
    dataset, reference = intact(tmp_path)
    for name, value in edit.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    path = tmp_path / "seg.dcm"
    path.write_bytes(dicom_bytes(dataset))
    with refused(Reason.CORRUPT, Reason.UNREADABLE, Reason.HEADER_SIZE, Reason.GEOMETRY):
        draw(dicom_seg, reference, path)


def test_deep_nesting_and_lying_lengths(tmp_path):
    dataset, reference = intact(tmp_path)
    content = dicom_bytes(dataset)
    nest = (bytes.fromhex("0800401153510000ffffffff") + bytes.fromhex("feff00e0ffffffff")) * 5000
    lie = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, 0xFFFFFFF0)
    for tail in (nest, lie + b"\0" * 10):
        path = tmp_path / "seg.dcm"
        path.write_bytes(content[: -len(dataset.PixelData)] + tail)
        with suppress(CaseRejected):
            draw(dicom_seg, reference, path)


@settings(max_examples=60, deadline=None)
@given(edits=st.lists(st.tuples(st.integers(132, 5000), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_damage_is_read_or_refused(damaged, edits):
    content, reference, folder = damaged
    changed = bytearray(content)
    for at, value in edits:
        changed[at % len(changed)] = value
    path = folder / "damaged.dcm"
    path.write_bytes(changed)
    with suppress(CaseRejected):
        for _, mask in draw(dicom_seg, reference, path):
            assert mask.shape == SHAPE


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    dataset, reference = intact(folder)
    return dicom_bytes(dataset), reference, folder


def test_other_objects_are_no_segmentation(tmp_path):
    datasets, reference = image(tmp_path / "ct")
    with refused(Reason.UNREADABLE, detail="no DICOM segmentation"):
        draw(dicom_seg, reference, store(tmp_path / "ct.dcm", datasets[0]))


# Real segmentations


def test_real_liver(tmp_path):
    """The CT is not shipped: planes are made from the positions that the segmentation states."""
    path = realdata.path("pydicom-data/data/liver.dcm")
    stored = pydicom.dcmread(path)
    shared, groups = stored.SharedFunctionalGroupsSequence[0], stored.PerFrameFunctionalGroupsSequence
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    measures = shared.PixelMeasuresSequence[0]
    positions = sorted({tuple(map(float, g.PlanePositionSequence[0].ImagePositionPatient)) for g in groups})
    planes = [
        instance(
            np.zeros((512, 512), np.int16),
            ImagePositionPatient=list(position),
            ImageOrientationPatient=orientation,
            PixelSpacing=measures.PixelSpacing,
            SliceThickness=measures.SliceThickness,
            FrameOfReferenceUID=stored.FrameOfReferenceUID,
        )
        for position in positions
    ]
    reference = reference_of(*written(tmp_path, planes))
    ((names, mask),) = draw(dicom_seg, reference, path)
    pixels = stored.pixel_array.reshape(-1, 512, 512)
    assert mask.sum() == pixels.sum() > 1000
    depth = [float(g.PlanePositionSequence[0].ImagePositionPatient[2]) for g in groups]
    ascending = pixels[np.argsort(depth)].transpose(2, 1, 0) > 0
    assert np.array_equal(mask, ascending)
    assert names == (stored.SegmentSequence[0].SegmentLabel,)


def test_real_segmentation_that_lost_frames(tmp_path):
    """pydicom's copy of the same object keeps one frame and the functional groups of three."""
    path = realdata.path("pydicom/data/test_files/liver_1frame.dcm")
    _, reference = image(tmp_path / "ct")
    with refused(Reason.CORRUPT, Reason.GEOMETRY):
        draw(dicom_seg, dataclasses.replace(reference, shape=(512, 512, 5), frame_of_reference_uid=""), path)


def test_a_label_map_with_values_of_no_segment(tmp_path):
    datasets, reference = image(tmp_path / "ct")
    dataset = segmentation(datasets, np.full(SHAPE[::-1], 3, np.uint8), "LABELMAP")
    del dataset.SegmentSequence[-1]
    with refused(Reason.BAD_LABEL, detail="no segment's number"):
        draw(dicom_seg, reference, store(tmp_path / "seg.dcm", dataset))


def test_painting_is_lazy(tmp_path):
    dataset, reference = intact(tmp_path)
    dataset.SegmentationType = "FRACTIONAL"  # refused, but only where it is painted
    found = drawing(dicom_seg, reference, store(tmp_path / "seg.dcm", dataset))
    assert [structure.names for structure in found.structures] == [("liver",), ("spleen",), ("lesion",)]
    with pytest.raises(CaseRejected):
        painted(drawing(dicom_seg, reference, tmp_path / "seg.dcm"))

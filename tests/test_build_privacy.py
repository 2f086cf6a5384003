"""What names a patient stays where it was: no string of a header, a path or an id reaches a dataset."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
from pathlib import Path

import build_kit as kit
import dicom_kit
import lab
import nibabel as nib
import nrrd
import numpy as np
import pyarrow.parquet as pq
import pytest
import SimpleITK
import tifffile
from nibabel.nifti1 import Nifti1Extension
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

CANARY = "CANARY"
SHAPE = (24, 20, 6)


def arrays(seed: int) -> dict[str, np.ndarray]:
    image, label = lab.volume(seed, SHAPE)
    return {"image": image, "label": (label > 0).astype(np.uint8)}


def dicom_source(folder: Path) -> str:
    """A whole series, and series whose own words would make the refusal's message."""
    bad = {
        "PHOTO": {"PhotometricInterpretation": f"{CANARY}_1"},
        "CLASS": {"SOPClassUID": f"1.2.{CANARY}", "PixelData": None},
        "TYPE": {"PixelData": None, "ImageComments": f"{CANARY}-no-pixels"},
        "LONG": {"PatientID": f"{CANARY}-" + "x" * 100, "Rows": 7},
    }
    for number, (name, fields) in enumerate({"GOOD": {}, **bad}.items()):
        case = folder / "dicom" / f"{CANARY}-{name}^DOE"
        (case / "scan").mkdir(parents=True)
        voxels = arrays(number)
        planes = dicom_kit.series(voxels["image"], **(identified() | fields))
        for plane in planes:
            private(plane)
        for path, plane in zip(dicom_kit.written(case / "scan", planes), planes, strict=True):
            path.rename(path.with_name(f"{CANARY}-{plane.ImagePositionPatient[2]}.dcm"))
        affine = np.diag([-0.6, -0.8, 2.5, 1.0])
        affine[:3, 3] = (10, 20, 30)
        nib.save(nib.Nifti1Image(voxels["label"], affine), case / f"{CANARY}-seg.nii.gz")
    broken = folder / "dicom" / f"{CANARY}-HEADER" / "scan"
    broken.mkdir(parents=True)
    (broken / "a.dcm").write_bytes(b"\0" * 128 + b"DICM" + CANARY.encode() * 90)
    nib.save(nib.Nifti1Image(voxels["label"], affine), broken.parent / f"{CANARY}.nii.gz")
    pairing = {"kind": "case-folder", "options": {"image": "scan/", "label": "*.nii.gz"}}
    readers = {"image": {"reader": "dicom"}, "label": {"reader": "nifti", "decoder": "index"}}
    return kit.write_source(
        folder, "dicom", modality="ct", labels={"1": "liver"}, pairings=[pairing], case={}, **readers
    )


def identified() -> dict[str, object]:
    names = ("PatientID", "StudyDescription", "SeriesDescription", "InstitutionName", "ImageComments")
    nested = Dataset()
    nested.PatientName = f"{CANARY}^NESTED"
    nested.ReferencedSOPInstanceUID = "1.2.3"
    return {name: f"{CANARY}-{name}" for name in names} | {
        "PatientName": f"{CANARY}^NAME",
        "PatientBirthDate": "19000101",
        "ReferencedPatientSequence": Sequence([nested]),
    }


def private(plane: Dataset) -> None:
    block = plane.private_block(0x0011, f"{CANARY} CREATOR", create=True)
    inner = Dataset()
    inner.PatientAddress = f"{CANARY}-street"
    block.add_new(0x01, "LO", f"{CANARY}-private")
    block.add_new(0x02, "SQ", Sequence([inner]))
    plane.file_meta.ImplementationVersionName = f"{CANARY}-META"
    plane.file_meta.SourceApplicationEntityTitle = f"{CANARY}-AE"


def nifti_source(folder: Path) -> str:
    root = folder / "nifti"
    root.mkdir()
    for number, name in enumerate(("WHOLE", "MAGIC", "VALUE")):
        for part, array in arrays(number + 10).items():
            stored = np.where(array == 1, 77, array).astype(array.dtype) if name == "VALUE" else array
            image = nib.Nifti1Image(stored, np.diag([-1.0, -1, 3, 1]))
            for field in ("descrip", "aux_file", "db_name", "intent_name"):
                image.header[field] = f"{CANARY}-{field}"[: image.header[field].dtype.itemsize].encode()
            image.header.extensions.append(Nifti1Extension("comment", f"{CANARY}-extension".encode()))
            content = image.to_bytes()
            content = content.replace(b"n+1\0", b"CAN\0", 1) if name == "MAGIC" else content
            stream = io.BytesIO()
            with gzip.GzipFile(f"{CANARY}-{part}.nii", "wb", fileobj=stream) as packed:
                packed.write(content)
            (root / f"{CANARY}-{name}_{part}.nii.gz").write_bytes(stream.getvalue())
    (root / f"{CANARY}-ALONE_image.nii.gz").write_bytes(b"")
    (root / f"{CANARY}-LINK_label.nii.gz").symlink_to(f"/{CANARY}/elsewhere.nii.gz")
    (root / f"{CANARY}-LINK_image.nii.gz").symlink_to(f"/{CANARY}/elsewhere.nii.gz")
    readers = {"image": {"reader": "nifti"}, "label": {"reader": "nifti", "decoder": "index"}}
    return kit.write_source(
        folder,
        "nifti",
        modality="ct",
        labels={"1": "liver"},
        pairings=kit.flat_suffix("_image.nii.gz", "_label.nii.gz"),
        case={},
        **readers,
    )


def nrrd_source(folder: Path) -> str:
    """Also a declared file and an erratum whose names are those of patients."""
    root = folder / "nrrd"
    root.mkdir()
    changes = {
        "WHOLE": ("", ""),
        "SPACE": ("space: left-posterior-superior", f"space: {CANARY}-space"),
        "PLACE": ("encoding: raw", f"encoding: raw\ndata file: ../{CANARY}-secret.raw"),
        "CODE": ("encoding: raw", f"encoding: {CANARY}"),
        "ERRATUM": ("", ""),
    }
    for number, (name, (old, new)) in enumerate(changes.items()):
        for part, array in arrays(number + 20).items():
            path = root / f"{CANARY}-{name}_{part}.nrrd"
            header = {
                "space": "left-posterior-superior",
                "space directions": np.diag([1, 1, 3]),
                "space origin": [0, 0, 0],
                "encoding": "raw",
                "content": f"{CANARY}-content",
                f"{CANARY}-key": f"{CANARY}-value",
            }
            nrrd.write(str(path), array, header)
            content = path.read_bytes().replace(b"NRRD0005\n", f"NRRD0005\n# {CANARY}-comment\n".encode())
            path.write_bytes(content.replace(old.encode(), new.encode(), 1) if part == "image" else content)
    return kit.write_source(
        folder,
        "nrrd",
        modality="ct",
        labels={"1": "liver"},
        pairings=kit.flat_suffix("_image.nrrd", "_label.nrrd"),
        case={"pattern": "(?P<group>[A-Z]+-[A-Z]+)"},
        errata=[{"case": f"{CANARY}-ERRATUM", "reason": "turned"}],
        files=[{"path": f"{CANARY}-WHOLE_image.nrrd", "origin": {"by_hand": "ask the archive"}}],
        image={"reader": "nrrd"},
        label={"reader": "nrrd", "decoder": "index"},
    )


def metaimage_source(folder: Path) -> str:
    root = folder / "metaimage"
    root.mkdir()
    changes = {
        "WHOLE": ("", ""),
        "TYPE": ("MET_SHORT", f"MET_{CANARY}"),
        "PLACE": ("LOCAL", f"../{CANARY}.raw"),
    }
    for number, (name, (old, new)) in enumerate(changes.items()):
        for part, array in arrays(number + 30).items():
            path = root / f"{CANARY}-{name}_{part}.mha"
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array.transpose(2, 1, 0)), path)
            extra = f"ObjectType = Image\nComment = {CANARY}-comment\nPatientName = {CANARY}\n".encode()
            content = path.read_bytes().replace(b"ObjectType = Image\n", extra)
            path.write_bytes(content.replace(old.encode(), new.encode(), 1) if part == "image" else content)
    return kit.write_source(
        folder,
        "metaimage",
        modality="ct",
        labels={"1": "liver"},
        pairings=kit.flat_suffix("_image.mha", "_label.mha"),
        case={},
        image={"reader": "metaimage"},
        label={"reader": "metaimage", "decoder": "index"},
    )


def raster_source(folder: Path) -> str:
    """One picture in every format, with all the text that the format has a place for; and damaged ones."""
    root = folder / "raster"
    root.mkdir()
    pixels = np.random.default_rng(1).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    label = np.zeros((40, 50), np.uint8)
    label[10:20, 10:30] = 255
    text = PngInfo()
    text.add_text("Author", f"{CANARY}-text")
    text.add_text("Comment", f"{CANARY}-compressed", zip=True)
    text.add_itxt("Title", f"{CANARY}-international")
    exif = Image.Exif()
    exif[0x010E], exif[0x013B] = f"{CANARY}-description", f"{CANARY}-artist"
    picture = Image.fromarray(pixels)
    picture.save(root / f"{CANARY}-p.png", pnginfo=text, exif=exif)
    picture.save(root / f"{CANARY}-j.jpg", exif=exif, comment=f"{CANARY}-comment".encode())
    picture.save(root / f"{CANARY}-b.bmp")
    picture.quantize(64).save(root / f"{CANARY}-g.gif", comment=f"{CANARY}-comment".encode())
    tags = [(65000, "s", 0, f"{CANARY}-tag", True)]
    tifffile.imwrite(root / f"{CANARY}-t.tif", pixels, description=f"{CANARY}-tiff", extratags=tags)
    broken = (root / f"{CANARY}-t.tif").read_bytes()
    (root / f"{CANARY}-cut.tif").write_bytes(broken[: len(broken) // 2])
    (root / f"{CANARY}-odd.tif").write_bytes(broken.replace(struct.pack("<HHI", 65000, 2, 11), b"\xff" * 8))
    (root / f"{CANARY}-cut.jpg").write_bytes((root / f"{CANARY}-j.jpg").read_bytes()[:-300])
    (root / f"{CANARY}-crc.png").write_bytes(
        (root / f"{CANARY}-p.png").read_bytes().replace(b"-text", b"-TEXT")
    )
    for path in sorted(root.iterdir()):
        Image.fromarray(label).save(root / f"{path.stem}-{path.suffix[1:]}_mask.png", pnginfo=text)
        path.rename(root / f"{path.stem}-{path.suffix[1:]}{path.suffix}")
    os.mkfifo(root / f"{CANARY}-pipe.png")
    return kit.write_source(
        folder,
        "raster",
        modality="fundus",
        dimensions=2,
        labels={"*": "optic-disc"},
        pairings=[
            {
                "kind": "flat-suffix",
                "options": {
                    "image_suffix": [".png", ".jpg", ".bmp", ".gif", ".tif"],
                    "label_suffix": "_mask.png",
                },
            }
        ],
        case={},
        image={"reader": "raster"},
        label={"reader": "raster", "decoder": "threshold", "options": {"above": 127}},
    )


MAKERS = (dicom_source, nifti_source, nrrd_source, metaimage_source, raster_source)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[kit.Dataset, dict[str, str]]:
    """The dataset, and by command line what every verb wrote about it."""
    folder = tmp_path_factory.mktemp("privacy")
    recipe = kit.write_recipe(folder, [make(folder) for make in MAKERS])
    out = folder / "out"
    build = lab.command(recipe, out)[3:]
    commands = [
        build,
        [*build[:-1], "json"],
        ["verify", str(out), "--deep"],
        ["status", str(out), "--json"],
        ["stats", str(out), "--html", str(folder / "stats.html")],
        ["preview", str(out), "-o", str(folder / "sheet.png")],
        ["query", str(out), "SELECT * FROM manifest"],
        ["query", str(out), "SELECT * FROM rejects", "--format", "json"],
        ["pack", str(out), str(folder / "packed"), "--size", "32"],
    ]
    texts = {}
    for words in commands:
        done = kit.run(*words)
        assert done.returncode in {0, 3}, done.stderr
        texts[" ".join(words[:1] + words[2:])] = done.stdout + done.stderr
    return kit.Dataset(out), texts


def test_the_canaries_were_read(told: tuple[kit.Dataset, dict[str, str]]) -> None:
    """Good files of every kind were written and bad ones refused: silence alone would prove nothing."""
    dataset, _ = told
    kit.check_counts(dataset)
    written = {name: facts["counts"]["cases"]["written"] for name, facts in dataset.record["sources"].items()}
    assert written == {"dicom": 1, "nifti": 1, "nrrd": 1, "metaimage": 1, "raster": 6}
    reasons = {source: sorted(dataset.reasons(source).values()) for source in written}
    assert reasons == {
        "dicom": ["GEOMETRY", "UNREADABLE", "UNREADABLE", "UNREADABLE", "UNREADABLE"],
        "nifti": ["BAD_LABEL", "UNPAIRED", "UNPAIRED", "UNREADABLE"],
        "nrrd": ["ERRATUM", "GEOMETRY", "OUTSIDE_REFERENCE", "UNREADABLE"],
        "metaimage": ["OUTSIDE_REFERENCE", "UNREADABLE"],
        "raster": ["CORRUPT", "CORRUPT", "HEADER_SIZE"],
    }


def test_nothing_that_is_printed_names_a_patient(told: tuple[kit.Dataset, dict[str, str]]) -> None:
    for command, text in told[1].items():
        assert CANARY not in text.upper(), command


@pytest.mark.parametrize("name", ["out", "packed", "stats.html", "sheet.png"])
def test_nothing_that_is_written_names_a_patient(told: tuple[kit.Dataset, dict[str, str]], name: str) -> None:
    path = told[0].folder.parent / name
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    assert files
    for file in files:
        content = file.read_bytes().upper()
        assert CANARY not in file.name.upper()
        assert CANARY.encode() not in content, file.name
        assert CANARY.encode("utf-16-le") not in content, file.name
        if file.suffix == ".parquet":
            assert CANARY not in repr(pq.read_table(file).to_pylist()).upper(), file.name
            assert CANARY not in repr(pq.read_metadata(file).metadata).upper(), file.name


def test_pictures_hold_pixels_alone(told: tuple[kit.Dataset, dict[str, str]]) -> None:
    """Text, EXIF and profiles live in other chunks than these three."""
    dataset, _ = told
    for row in dataset.of("raster"):
        with open(dataset.folder / row["shard"], "rb") as stream:
            stream.seek(row["offset"])
            blob = stream.read(row["size"])
        start = blob.index(b"\x89PNG") + 8
        kinds = []
        while not kinds or kinds[-1] != b"IEND":
            length, kind = struct.unpack_from(">I4s", blob, start)
            kinds.append(kind)
            start += length + 12
        assert set(kinds) == {b"IHDR", b"IDAT", b"IEND"}


def test_names_are_kept_for_their_owner(told: tuple[kit.Dataset, dict[str, str]]) -> None:
    names = json.loads((told[0].folder.parent / "out.work" / "names.json").read_bytes())
    cases = {row["case"] for row in told[0].of("nrrd")}
    assert {names["nrrd"][case] for case in cases} == {f"{CANARY}-WHOLE"}

"""The kit of true layouts: every pairing with every reader and decoder, and that it sees what goes wrong."""

from __future__ import annotations

import re
from itertools import islice, product
from pathlib import Path
from typing import Any

import layouts
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts.automaton import drawn
from layouts.cases import names
from layouts.proof import built, check
from layouts.shapes import Placed, Shape

from medcurate.build.cases import discover
from medcurate.checks import source_problems
from medcurate.config.source import Source
from medcurate.decoders import DECODERS
from medcurate.library import ontology
from medcurate.pairings import PAIRINGS
from medcurate.readers import READERS

FILE_PAIRINGS = ("case-folder", "flat-suffix", "paired-folders")
VOLUME_SUFFIX = {"nifti": ".nii.gz", "nrrd": ".nrrd", "metaimage": ".mha", "dicom": "/", "raster": ".png"}
LABELS = {
    "index": {"1": "liver", "7": "spleen", "300": "kidney-left"},
    "value-map": {"55..70": "liver", "110..135": "kidney-right", "240": "spleen"},
    "colour-map": {"#FF0000": "liver", "#00FF7F": "spleen"},
    "instance": {"*": "nucleus"},
    "threshold": {"*": "liver"},
    "mask-per-class": {"liver": "liver", "spl": "spleen"},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "index": {"ignore": [255]},
    "value-map": {"background": ["0", "20..30"]},
    "threshold": {"above": 127},
    "mask-per-class": {"above": 0.5},
}
READER_LABEL_SUFFIX = {"dicom": "_seg/"}


def source(**facts: Any) -> Source:
    """A source of a CT set, with ``facts`` over the defaults."""
    defaults = {
        "id": "layout",
        "title": "A layout",
        "homepage": "https://example.org",
        "citation": "nobody",
        "modality": "ct",
        "dimensions": 3,
        "licence": {"id": "CC0-1.0", "commercial": "yes"},
        "case": {"pattern": r"(?P<group>p\d{3})_v\d", "identifiers": "keep"},
    }
    made = Source.model_validate(defaults | facts)
    assert not list(source_problems(made, ontology()))
    return made


def pairing(kind: str, reader: str, decoder: str) -> dict[str, Any]:
    """Options of ``kind`` that a set of these formats would have."""
    end = VOLUME_SUFFIX[reader]
    part = "_{label}" if decoder == "mask-per-class" else "_seg"
    options = {
        "paired-folders": {
            "images": "*/images",
            "labels": "*/labels",
            "image_suffix": end,
            "label_suffix": part + end,
        },
        "flat-suffix": {"folder": "data", "image_suffix": f"_img{end}", "label_suffix": part + end},
        "case-folder": {"cases": "p*", "image": f"{{case}}_img{end}", "label": f"{{case}}{part}{end}"},
    }
    return {"kind": kind, "options": options[kind]}


def cell(kind: str, reader: str, decoder: str) -> Source:
    """A source of one cell of pairing x reader x decoder."""
    flat = reader == "raster"
    return source(
        id=f"{kind}-{reader}-{decoder}",
        modality="endoscopy" if flat else "ct",
        dimensions=2 if flat else 3,
        pairings=[pairing(kind, reader, decoder)],
        image={"reader": reader},
        label={"reader": reader, "decoder": decoder, "options": OPTIONS.get(decoder, {})},
        labels=LABELS[decoder],
    )


CELLS = [
    (kind, reader, decoder)
    for kind, reader, decoder in product(FILE_PAIRINGS, sorted(VOLUME_SUFFIX), sorted(LABELS))
    if kind in FILE_PAIRINGS and (decoder != "colour-map" or reader == "raster")
]


@pytest.mark.parametrize("reader", sorted(VOLUME_SUFFIX))
def test_every_pairing_with_every_reader_and_decoder(reader: str, tmp_path: Path) -> None:
    sources = [cell(*each) for each in CELLS if each[1] == reader]
    expected, dataset = built(sources, tmp_path)
    for each in sources:
        check(each, expected[each.id], dataset)


def variant(**facts: Any) -> Source:
    defaults = {
        "pairings": [pairing("paired-folders", "nifti", "index")],
        "image": {"reader": "nifti"},
        "label": {"reader": "nifti", "decoder": "index"},
        "labels": LABELS["index"],
    }
    return source(**{**defaults, **facts})


def _flat(image: str, label: str, **more: Any) -> list[dict[str, Any]]:
    return [{"kind": "flat-suffix", "options": {"image_suffix": image, "label_suffix": label, **more}}]


PICTURES = {
    "modality": "endoscopy",
    "dimensions": 2,
    "image": {"reader": "raster"},
    "labels": {"*": "polyp"},
}
VARIANTS = {
    "channels named in files": {
        "pairings": _flat("_{channel}.nii.gz", "-seg.nii.gz"),
        "channels": [{"name": "t1", "modality": "mr"}, {"name": "t2", "modality": "mr"}],
    },
    "channels of a 4D file": {
        "channels": [{"name": "a", "component": 0}, {"name": "c", "component": 2}],
    },
    "pseudonyms": {"case": {"pattern": r"(?P<group>p\d{3})_v\d"}},
    "shared namespace": {"case": {"pattern": r"^(?P<group>\d+)-", "namespace": "other"}},
    "official splits": {
        "pairings": [
            {"kind": "case-folder", "split": "train", "options": {"cases": "Tr/*", "image": "i.nii", "label": "l.nii"}},
            {"kind": "case-folder", "split": "test", "options": {"cases": "Te/*", "image": "i.nii", "label": "l.nii"}},
        ],
    },
    "folders of any depth": {
        "pairings": [{"kind": "case-folder", "options": {"cases": "set/**/v*", "image": "*/i.nii", "label": "l.nii"}}],
        "case": {"pattern": r"^(?P<group>[^/]+)/v\w+$"},
    },
    "jpeg masks": {
        **PICTURES,
        "pairings": _flat(".jpg", "_mask.jpg"),
        "label": {"reader": "raster", "decoder": "threshold", "options": {"above": 127}},
    },
    "several label files": {
        **PICTURES,
        "pairings": _flat(".png", "_mask*.png"),
        "label": {"reader": "raster", "decoder": "threshold", "options": {"above": 127}},
    },
    "inverted masks": {
        **PICTURES,
        "pairings": _flat(".bmp", "_mask.bmp"),
        "label": {"reader": "raster", "decoder": "threshold", "options": {"above": 0, "inverted": True}},
    },
    "indices of a palette": {
        **PICTURES,
        "pairings": _flat([".jpg", ".png"], "_mask.png"),
        "label": {"reader": "raster", "decoder": "index", "reader_options": {"palette": "indices"}},
        "labels": {"1": "polyp", "5": "colon"},
    },
    "grey stored as colour": {
        **PICTURES,
        "pairings": _flat(".tif", "_mask.gif"),
        "label": {"reader": "raster", "decoder": "index", "reader_options": {"grey": True}},
        "labels": {"1": "polyp"},
    },
    "stacks": {
        "pairings": _flat(".tif", "_label.tif"),
        "image": {"reader": "raster", "options": {"stack": True, "spacing_mm": [2.0, 0.5, 0.5]}},
        "label": {
            "reader": "raster",
            "decoder": "index",
            "reader_options": {"stack": True, "spacing_mm": [2.0, 0.5, 0.5]},
        },
    },
    "pairs of header and data": {"pairings": _flat(".hdr", "_label.hdr")},
    "one flat DICOM file": {
        "modality": "xray",
        "dimensions": 2,
        "pairings": _flat(".dcm", "_mask.png"),
        "image": {"reader": "dicom"},
        "label": {"reader": "raster", "decoder": "index"},
    },
    "enhanced DICOM": {
        "pairings": _flat(".dcm", "_seg.dcm"),
        "image": {"reader": "dicom"},
        "label": {"reader": "dicom", "decoder": "index"},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_every_option_that_sets_use(name: str, tmp_path: Path) -> None:
    made = variant(**VARIANTS[name])
    if name == "one flat DICOM file":  # a picture without spacing beside one with it
        made = made.model_copy(update={"image": made.image.model_copy(update={"options": {"flat": True}})})
    expected, dataset = built([made], tmp_path)
    check(made, expected[made.id], dataset)


def test_one_patient_has_two_cases_where_names_can_say_so(tmp_path: Path) -> None:
    expected = layouts.make(variant(), tmp_path)
    patients = [case.group for case in expected.cases.values()]
    assert len(patients) == 4
    assert len(set(patients)) == 3


def test_every_key_is_shown_and_no_two_strips_are_alike(tmp_path: Path) -> None:
    expected = layouts.make(variant(), tmp_path)
    shown = [(label, area) for case in expected.cases.values() for label, area in case.masks]
    assert {label for label, _ in shown} == set(LABELS["index"].values())
    assert len(set(shown)) == len({area for _, area in shown}) == len({label for label, _ in shown})


@pytest.mark.parametrize(
    "wrong",
    [
        {"labels": {"1": "spleen", "7": "liver", "300": "kidney-left"}},
        {"case": {"pattern": r"(?P<group>p\d{3}_v\d)", "identifiers": "keep"}},
        {"case": {"pattern": r"(?P<group>p\d{3})_v\d", "identifiers": "keep", "namespace": "x"}},
    ],
)
def test_a_source_that_says_something_else_is_seen(wrong: dict[str, Any], tmp_path: Path) -> None:
    """The tree of one source, built by another with labels swapped or patients misread."""
    right, other = variant(), variant(**wrong)
    expected = layouts.make(right, tmp_path / "tree")
    _, dataset = built([other], tmp_path)
    with pytest.raises(AssertionError):
        check(right, expected, dataset)


def test_two_makings_are_the_same_bytes(tmp_path: Path) -> None:
    trees = []
    for name in ("one", "two"):
        assert layouts.make(variant(), tmp_path / name)
        files = (path for path in (tmp_path / name).rglob("*") if path.suffix != ".gz" and path.is_file())
        trees.append({path.relative_to(tmp_path / name): path.read_bytes() for path in files})
    assert trees[0] == trees[1]


PATTERNS = [
    r"(?P<group>BraTS-GLI-\d{5})-\d{3}",
    r"^(?P<group>patient\d{3})_frame\d{2}$",
    r"(?P<group>[A-Z]{4}-\d+)_(?P<case>\d+)[ab]?",
    r"^(?P<group>(?!00)\d{2,4})(?:_L|_R)?$",
    r"^sub-(?P<group>[0-9A-Za-z]+)/ses-\d+/?",
    r"(?i)case[-_ ]?(?P<group>\d+)",
    r"(?P<case>(?P<group>IMG)\.\d+)",
    "",
]


@given(st.sampled_from(PATTERNS), st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_names_fit_what_they_are_drawn_for(pattern: str, seed: int) -> None:
    structure = r"[^/.][^/]*/[^/]+" if "/" in pattern else r"[^/.][^/]*"
    found = list(islice(drawn(structure, pattern, seed), 5))
    assert found
    for text in found:
        assert re.fullmatch(structure, text)
        assert re.search(pattern, text)


def test_names_that_cannot_be_are_said_so() -> None:
    with pytest.raises(AssertionError, match="no name fits"):
        names(
            variant(case={"pattern": r"^\d{3}$"}),
            Shape("case_[^/]+", lambda match, number: Placed()),
            0,
            set(),
        )


def test_trees_are_found_as_cases_and_nothing_else(tmp_path: Path) -> None:
    """AppleDouble twins lie beside every file and are no cases."""
    made = variant()
    expected = layouts.make(made, tmp_path)
    assert any(path.name.startswith("._") for path in tmp_path.rglob("*"))
    assert {case.id for case in discover(made, tmp_path).cases} == set(expected.cases)


def test_every_kind_of_the_kit_is_one_of_medcurate() -> None:
    assert set(layouts.registry.SHAPES) <= set(PAIRINGS)
    assert set(layouts.paint.PAINTERS) <= set(DECODERS)
    assert set(layouts.writers.WRITERS) <= set(READERS)

"""Trees of some 50 sets at once, of which several hold the same patients, and a recipe of all of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from layouts import Expected
from layouts.proof import rule, trees
from medcurate.checks import modalities
from medcurate.config.source import Source
from medcurate.library import lineage, load_recipe, load_source
from medcurate.lineage import shared_patient

SAME = [  # sources that name a patient alike (manifests/lineage.toml), and the id that all get
    (("kits19", "kits23"), "case_00123"),
    (("totalsegmentator-ct-v1", "totalsegmentator-ct-v2"), "s0123"),
    (("isic-2016-part1", "isic-2017-task1", "isic-2018-task1"), "0000123"),
]
MORE = [  # modalities, pairings, readers and decoders that the recipe sa-med2d does not have
    "autopet-2",
    "totalsegmentator-ct-v2",
    "kits23",
    "3d-ircadb-01",
    "curvas",
    "dsb2018",
    "glas",
    "han-seg",
    "monusac",
    "oimhs",
    "pannuke",
    "papila",
    "plethora",
    "stare",
]


@dataclass(frozen=True)
class Many:
    """``shared``: names of patients that several sources have, with those sources."""

    folder: Path
    recipe: Path
    sources: tuple[Source, ...]
    expected: dict[str, Expected]
    shared: dict[str, tuple[str, ...]]


def make_many(folder: Path) -> Many:
    """Write the trees of the recipe sa-med2d and of ``MORE``, with a patient in common where ``SAME`` says so."""
    sources = _fitting([load_source(name) for name in (*load_recipe("sa-med2d").sources, *MORE)])
    expected, recipe = trees(sources, folder)
    shared = {}
    for names, new in SAME:
        for name in names:
            old = min(expected[name].cases)
            _rename(folder / "data" / name, old, new)
            case = expected[name].cases.pop(old)
            case.group = _group(name, new)
            expected[name].cases[new] = case
            shared[case.group] = names
    return Many(folder, recipe, tuple(sources), expected, shared)


def _fitting(sources: list[Source]) -> list[Source]:
    """Those that agree with the ones before on the intensity rule of their modalities."""
    rules: dict[str, str] = {}
    found = []
    for source in sources:
        if all(rules.setdefault(modality, rule(source)) == rule(source) for modality in modalities(source)):
            found.append(source)
    return found


def _group(source: str, patient: str) -> str:
    found = shared_patient(lineage(), source, patient)
    assert found, f"{source}: no rule names {patient}"
    return ":".join(found)


def _rename(tree: Path, old: str, new: str) -> None:
    """One case under another id: in the names of its files and folders, and in tables."""
    for path in sorted(tree.rglob("*"), key=lambda path: -len(path.parts)):
        if path.suffix == ".csv":
            path.write_text(re.sub(rf"\b{re.escape(old)}\b", new, path.read_text()))
        if re.search(rf"{re.escape(old)}(?!\d)", path.name):
            path.rename(path.with_name(re.sub(rf"{re.escape(old)}(?!\d)", new, path.name)))

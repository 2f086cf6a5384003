"""``medcurate check``: declaration, files, pairs, ids, and the content of some cases, by the parts that build."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from medcurate.build.cases import Discovery, discover
from medcurate.build.fetch import OFFLINE, ensure, searching
from medcurate.build.vocabulary import with_class_names
from medcurate.check.findings import SHOWN, Checked
from medcurate.checks import source_problems
from medcurate.config.source import Source
from medcurate.decoders.values import blocks
from medcurate.errors import CaseRejected, MedcurateError, Reason
from medcurate.format.keys import pseudonym
from medcurate.job.grid import Grid, check_grid, grid_of, laid_like
from medcurate.job.labels import read_labels
from medcurate.job.reading import read_file
from medcurate.library import lineage, load_source, ontology, source_path
from medcurate.readers.files import CaseFiles
from medcurate.types import Case, ImageFile, LabelLayer, Volume

VOLUME_BYTES = 4 << 30  # of one file and of one array, as a recipe's default

Told = Callable[[int], None]  # cases read so far


def check(name: str, data: Path, sample: int, told: Told = lambda done: None) -> Checked:
    """Hold the source ``name`` (an id, or the path of its file) against its files in ``data``.

    ``sample``: how many cases are read, spread over all; 0 reads every one. Raises ConfigError where the source
    cannot be loaded at all.
    """
    source = load_source(name)
    found = Checked(source.id, declared_cases=source.cases)
    for line in source_problems(source, ontology()):
        found.add("declaration", line)
    if found.findings:
        return found
    home = source_path(name).parent
    try:
        (root,) = ensure([source], data, {source.id: home}, OFFLINE)
        found.folder = str(root)
        with searching(source, data, root):
            source = with_class_names(source, root, ontology())
            discovery = discover(source, root, lineage())
    except MedcurateError as error:
        found.add("files", str(error))
        return found
    _pairs(source, discovery, found)
    chosen = spread(discovery.cases, sample)
    for number, case in enumerate(chosen, start=1):
        _read(source, case, root, found)
        told(number)
    _labels(source, found, whole=len(chosen) == len(discovery.cases))
    return found


def spread(cases: Sequence[Case], count: int) -> list[Case]:
    """``count`` of ``cases`` at equal distances, the first and the last among them; all of them for 0."""
    if count == 0 or count >= len(cases):
        return list(cases)
    places = np.linspace(0, len(cases) - 1, count).round().astype(int)
    return [cases[place] for place in dict.fromkeys(places.tolist())]


def _pairs(source: Source, discovery: Discovery, found: Checked) -> None:
    """Cases that do not pair, errata that name none, and the number that the publisher states."""
    found.discovered = len(discovery.cases) + len(discovery.rejects)
    found.usable = len(discovery.cases)
    found.patients = len({case.group for case in discovery.cases})
    refused = [(case, reject) for case, _, reject in discovery.rejects if reject.reason != Reason.ERRATUM]
    for case, reject in refused[:SHOWN]:
        found.add("pairs", f"{case}: {reject.reason}, {reject.detail}")
    if len(refused) > SHOWN:
        found.add("pairs", f"… and {len(refused) - SHOWN} more cases that cannot be used")
    known = {case.id for case in discovery.cases} | {case for case, *_ in discovery.rejects}
    for erratum in source.errata:
        if not known & {erratum.case, pseudonym(source.namespace, erratum.case)}:
            found.add("errata", f'"{erratum.case}" is no case; ids are like "{min(known)}"')
    if source.cases is not None and source.cases != found.discovered:
        found.add("counts", f"cases = {source.cases} is declared, {found.discovered} were found")


def _read(source: Source, case: Case, root: Path, found: Checked) -> None:
    """Read all images and labels of a case as a build would, and note which labels it shows."""
    files = CaseFiles(root, VOLUME_BYTES)
    try:
        grid, layers = read_labels(case, source, files)
        for image in case.images:
            volume = _image(source, image, grid, files)
            check_grid(grid, grid_of(volume, source), "image and label")
            del volume  # the next image is read when this one is gone
    except CaseRejected as error:
        found.add("case", f"{case.id}: {error.reason}, {error.detail}")
        return
    except (MemoryError, OSError) as error:  # a build refuses the case and goes on
        found.add("case", f"{case.id}: cannot be read here ({type(error).__name__})")
        return
    found.read += 1
    shown = set(_shown(layers))
    found.shown.update(shown)
    if not shown:
        found.add("case", f"{case.id}: no label is shown")


def _image(source: Source, image: ImageFile, grid: Grid, files: CaseFiles) -> Volume:
    volume = read_file(files, image, source.image.reader, source.image.options)
    if image.component is not None and (volume.voxels.ndim != 4 or image.component >= volume.voxels.shape[3]):
        raise CaseRejected(Reason.GEOMETRY, f"no component {image.component} on a fourth axis")
    return laid_like(grid, volume, source)


def _shown(layers: Sequence[LabelLayer]) -> Iterator[str]:
    """The ontology labels that have a voxel."""
    for layer in layers:
        if layer.instances:
            if layer.labels.any():
                yield layer.terms[0]
            continue
        values = set[int]().union(*(np.unique(block).tolist() for block in blocks(layer.labels)))
        yield from (term for value, term in layer.terms.items() if value in values)


def _labels(source: Source, found: Checked, *, whole: bool) -> None:
    """Labels that no case shows: a wrong key where every case was read, else perhaps a rare structure."""
    if not found.read:
        return
    named = dict.fromkeys((*source.labels.values(), *source.regions))
    missing = [label for label in named if label not in found.shown]
    if missing and whole:
        found.add("labels", f"no case shows {', '.join(missing)}")


def facts(found: Checked) -> Mapping[str, object]:
    """Plain JSON values."""
    return {
        "source": found.source,
        "folder": found.folder,
        "cases": {
            "declared": found.declared_cases,
            "discovered": found.discovered,
            "usable": found.usable,
            "read": found.read,
        },
        "patients": found.patients,
        "labels_shown": dict(sorted(found.shown.items())),
        "findings": [{"about": entry.about, "text": entry.text} for entry in found.findings],
    }

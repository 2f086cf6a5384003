"""Pairings of arrays worth trying: image and label in one .npz, or samples that follow each other in arrays."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from medcurate.arrays import Header
from medcurate.inspection.array_files import MAX_COMPONENTS, Pair, headers, pairs, spacing_key
from medcurate.inspection.candidates import Candidate, generalise
from medcurate.inspection.survey import Survey, extension

FILES_READ = 12
_COLOURS = 3
_AXES = (
    "every element of the first axis is taken for an image of its own. If all of them are one volume, write "
    'kind = "{}" here, with axes and spacing_mm or spacing_key below (docs/source.md); is it right?'
)
_MORE = 'the file holds more, called after {}: write a [[pairings]] for each, with its split ("train", "val", "test")'


def by_arrays(survey: Survey) -> Iterator[Candidate]:
    """Candidates of the kinds same-file and array-pack."""
    files: dict[str, list[str]] = defaultdict(list)  # extension -> paths
    for folder, names in survey.data.items():
        for name in names:
            files[extension(name).lower()].append(f"{folder}/{name}".lstrip("/"))
    if zipped := files.get(".npz"):
        yield from _zipped(survey, zipped)
    if plain := files.get(".npy"):
        yield from _plain(survey, plain)


def _zipped(survey: Survey, paths: Sequence[str]) -> Iterator[Candidate]:
    """Arrays of one file that go together in most of those that are looked at."""
    step = max(1, len(paths) // FILES_READ)
    read = {path: headers(survey.root / path) for path in paths[::step]}
    counted = Counter(pair for found in read.values() for pair in pairs(list(found)))
    common = [pair for pair, count in counted.most_common() if 2 * count > len(read)]
    if not common:
        return
    first = common[0]
    found = next(found for found in read.values() if {first.image, first.label} <= set(found))
    kind = _kind(found, first, len(paths))
    if kind:
        yield Candidate(
            kind,
            _options(kind, first, paths),
            weight=len(paths),
            asks=_asks(kind, found, common, "same-file"),
        )


def _kind(found: Mapping[str, Header], pair: Pair, files: int) -> str:
    """The kind that explains the shapes; "" where none does. Several files are a case each, but for colour pictures."""
    image, label = found[pair.image].shape, found[pair.label].shape
    if len(label) == 2 and label in {image, image[:2], image[1:]}:
        return "same-file"
    if len(label) < 3 or len(image) not in {len(label), len(label) + 1} or image[0] != label[0]:
        grids = {image[: len(label)], image[-len(label) :]}
        return "same-file" if len(label) == 3 and label in grids else ""
    if not _may_be_volume(image, label):
        return "array-pack"
    if spacing_key(found, "ijk") or (files > 1 and image[3:] != (_COLOURS,)):
        return "same-file"
    of_pictures = len(label) == 4 or image[3:] in {(), (1,), (_COLOURS,)}
    return "array-pack" if of_pictures else "same-file"


def _may_be_volume(image: Sequence[int], label: Sequence[int]) -> bool:
    """Whether the label of such an image has three axes, but for one of components."""
    return len(label) == 3 or (len(label) == len(image) == 4 and label[3] <= MAX_COMPONENTS)


def _options(kind: str, pair: Pair, paths: Sequence[str]) -> dict[str, str]:
    folder, name = _place(paths)
    if kind == "same-file":
        return {
            "folder": folder or ".",
            "suffix": extension(paths[0]),
            "image": pair.image,
            "label": pair.label,
        }
    file = f"{folder}/{name}" if folder else name
    return {"images": file, "labels": file, "image_key": pair.image, "label_key": pair.label}


def _place(paths: Sequence[str]) -> tuple[str, str]:
    """Templates of the folder ("" for the root) and the name of all ``paths``."""
    folders = sorted({tuple(path.split("/")[:-1]) for path in paths})
    names = {path.rpartition("/")[2] for path in paths}
    alike = len({len(folder) for folder in folders}) == 1
    folder = (generalise(folders) if alike else "**").removeprefix(".")
    return folder, names.pop() if len(names) == 1 else f"*{extension(paths[0])}"


def _asks(kind: str, found: Mapping[str, Header], common: Sequence[Pair], of_volumes: str) -> tuple[str, ...]:
    """What only an author knows. ``of_volumes``: the kind that takes such files for a volume each."""
    asks = []
    image, label = found[common[0].image].shape, found[common[0].label].shape
    if kind == "array-pack" and _may_be_volume(image, label):
        asks.append(_AXES.format(of_volumes))
    if len(common) > 1:
        asks.append(_MORE.format(", ".join(pair.of for pair in common[1:])))
    return tuple(asks)


def _plain(survey: Survey, paths: Sequence[str]) -> Iterator[Candidate]:
    """Two files a folder that hold as many rows ("images.npy" and "masks.npy"), in folders of equal depth."""
    stems: dict[str, dict[str, str]] = defaultdict(dict)  # folder -> stem -> path
    for path in paths:
        folder, _, name = path.rpartition("/")
        stems[folder][name.removesuffix(extension(name))] = path
    counted = Counter(
        (pair, len(folder.split("/"))) for folder in stems for pair in pairs(list(stems[folder]))
    )
    for (pair, _), _ in counted.most_common(1):
        holding = [places for places in stems.values() if {pair.image, pair.label} <= set(places)]
        image, label = (headers(survey.root / holding[0][stem]).get("") for stem in (pair.image, pair.label))
        if not image or not label:
            continue
        found = {pair.image: image, pair.label: label}
        if _kind(found, pair, len(holding)) != "array-pack":
            continue
        sides = {"images": pair.image, "labels": pair.label}
        folders = [places[pair.image] for places in holding]
        options = {}
        for key, stem in sides.items():
            folder, name = _place([places[stem] for places in holding])
            options[key] = f"{folder}/{name}" if folder else name
        asks = _asks("array-pack", found, [pair], "case-folder")
        yield Candidate("array-pack", options, weight=2 * len(folders), asks=asks)

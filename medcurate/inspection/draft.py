"""The draft of a source file: what was seen is filled in, what only its author knows is a question."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medcurate.config.ontology import Ontology
from medcurate.config.source import UNRESOLVED
from medcurate.inspection.digest import Digest
from medcurate.inspection.guess import Guess
from medcurate.inspection.look import Facts
from medcurate.inspection.meaning import Meaning, meaning
from medcurate.inspection.patients import FIRST_NUMBER, OWN, groupings, known, summary
from medcurate.inspection.survey import Survey, kind_of
from medcurate.pairings.names import LABEL

QUESTION = "# QUESTION:"
_AXES = "i, j, k of a volume, h and w of a picture, c for components"
MAX_COMPONENTS = 16


def draft(survey: Survey, guess: Guess, digest: Digest, ontology: Ontology) -> str:
    """A source as TOML. It loads as ``Source``; what is "unresolved" the checks of a recipe refuse.

    No case is named: the file may be passed on.
    """
    found = meaning(guess, digest.labels)
    sections = (
        _head(survey.root.resolve().name, digest.images, ontology),
        _licence(),
        _pairing(survey, guess, found),
        _reading(guess, found, digest),
        _channels(guess, digest.images),
        _case(guess),
    )
    parts = [list(section) for section in sections]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _head(folder: str, images: Sequence[Facts], ontology: Ontology) -> Iterator[str]:
    flat = bool(images) and all(facts.affine is None for facts in images)
    yield f"id = {quoted(slug(folder))}"
    yield f"title = {quoted(folder)}"
    yield f"{QUESTION} where do these images come from, and what is to be cited?"
    yield 'homepage = ""'
    yield f"citation = {quoted(UNRESOLVED)}"
    hint = " Values below -900 look like CT in Hounsfield units." if looks_like_ct(images) else ""
    yield f"{QUESTION} which modality is it: {', '.join(ontology.modalities)}?{hint}"
    yield f"modality = {quoted(UNRESOLVED)}"
    yield f"dimensions = {2 if flat else 3}"


def looks_like_ct(images: Sequence[Facts]) -> bool:
    """Whether volumes hold values as low as air in Hounsfield units."""
    return min((facts.low for facts in images if facts.affine is not None), default=0.0) < -900


def _licence() -> Iterator[str]:
    yield f"{QUESTION} under which licence (SPDX id), and what does it allow?"
    yield "[licence]"
    yield f"id = {quoted(UNRESOLVED)}"
    yield 'commercial = "unknown"'


def _pairing(survey: Survey, guess: Guess, found: Meaning) -> Iterator[str]:
    left = survey.data_count - guess.explained
    yield f"# Cases: {len(guess.usable)}; {guess.explained} of {survey.data_count} image files explained."
    if left:
        yield f"{QUESTION} files of no complete case: {left}; is that right?"
    if guess.problems:
        first = _comment(guess.problems[0].problem)
        yield f"{QUESTION} incomplete cases: {len(guess.problems)} (first: {first}); is that right?"
    yield from (f"{QUESTION} {asked}" for asked in guess.candidate.asks)
    yield "[[pairings]]"
    yield f"kind = {quoted(guess.candidate.kind)}"
    yield "[pairings.options]"
    for key, value in guess.candidate.options.items():
        text = _value(value)
        yield f"{key} = {text.replace(LABEL, '{rater}') if found.raters else text}"


def _reading(guess: Guess, found: Meaning, digest: Digest) -> Iterator[str]:
    first = guess.usable[0]
    images = [*(facts.reader for facts in digest.images), kind_of(first.images[0].paths[0].name)]
    labels = [*(facts.reader for facts in digest.labels), kind_of(first.labels[0].paths[0].name)]
    read = f"{digest.read_count} of {digest.usable_count} cases"
    for problem in dict.fromkeys(problem for _, problem in digest.problems):
        yield f"{QUESTION} seen in one of the cases read: {_comment(problem)}. Is it an erratum?"
    yield "[image]"
    yield f"reader = {quoted(images[0])}"
    planes = _are_planes(digest)
    if planes and images[0] == "dicom":
        yield f"{QUESTION} are planes counted as the names of their files (else leave this out)?"
        yield 'options = { order = "names" }'
    yield from _reader_options("options", digest.images)
    yield ""
    yield "[label]"
    yield f"reader = {quoted(labels[0])}"
    if planes:
        yield "reader_options = { stack = true, spacing_mm = [1, 1, 1] }  # not used: the image's geometry is"
        yield 'geometry = "image"'
    else:
        yield from _reader_options("reader_options", digest.labels)
    if found.doubt:
        yield f"{QUESTION} {found.doubt}"
    yield f"decoder = {quoted(found.decoder)}"
    if found.options:
        yield f"options = {_inline(found.options)}"
    if found.raters:
        yield f"raters = {_value(found.raters)}"
        yield 'agreement = "majority"'
    yield ""
    yield f"{QUESTION} which label of the ontology is each of these (`medcurate terms WORD` finds it)?"
    if digest.read_count < digest.usable_count:
        yield f"# {read} were read; others may hold more values: `medcurate inspect --all` reads every one."
    yield "[labels]"
    for key, count in found.keys.items():
        yield f"{quoted(key)} = {quoted(UNRESOLVED)}" + (f"  # {count} in {read}" if count else "")


def _are_planes(digest: Digest) -> bool:
    """Whether labels are a picture a plane of an image that is not."""
    return any("stack" in facts.options for facts in digest.labels) and not any(
        facts.affine is None or "stack" in facts.options for facts in digest.images
    )


def _reader_options(key: str, facts: Sequence[Facts]) -> Iterator[str]:
    """What axes mean is a guess, and a file seldom says how far apart voxels are."""
    made = dict(next((each.options for each in facts if each.options), {}))
    if "axes" in made:
        yield from _axes(facts[0], made)
    elif made:
        yield f"{QUESTION} how far apart are voxels: spacing_mm = [plane, row, column]?"
    if made:
        yield f"{key} = {_inline(made)}"


def _axes(facts: Facts, made: Mapping[str, Any]) -> Iterator[str]:
    axes = made["axes"]
    shape = " x ".join(map(str, _stored(facts.shape, axes)))
    yield f"{QUESTION} are the axes of an array ({shape}) {', '.join(axes)} ({_AXES})?"
    if "k" in axes:
        unknown = (
            "; and what is the spacing along i, j and k: spacing_mm = [i, j, k]"
            if "spacing_mm" in made
            else ""
        )
        yield f'{QUESTION} is "LPS" what i, j and k grow to (directions = "…"){unknown}?'


def _stored(shape: Sequence[int], axes: str) -> list[int]:
    """The shape of a file whose axes a reader has put in order."""
    order = [axis for axis in ("ijkc" if "k" in axes else "hwc") if axis in axes]
    return [shape[order.index(axis)] for axis in axes]


def _channels(guess: Guess, images: Sequence[Facts]) -> Iterator[str]:
    names: list[Mapping[str, Any]] = [{"name": name} for name in guess.candidate.channels]
    components = {facts.shape[3] for facts in images if facts.affine is not None and len(facts.shape) == 4}
    if not names and len(components) == 1 and (count := components.pop()) in range(1, MAX_COMPONENTS + 1):
        names = [{"name": f"c{index}", "component": index} for index in range(count)]
    if names:
        yield f"{QUESTION} which sequence (or modality) is each channel?"
    for name in names:
        yield "[[channels]]"
        yield from (f"{key} = {_value(value)}" for key, value in name.items())


def _case(guess: Guess) -> Iterator[str]:
    patients = known(guess.usable)
    if patients:
        yield f"# Patients: {len(patients)}, by {OWN[guess.candidate.kind]}, where no pattern finds another word."
        yield "[case]"
        yield 'pattern = ""'
        yield 'identifiers = "pseudonym"'
        return
    yield f"{QUESTION} which part of a case's name is the patient? A split never cuts a patient."
    found = groupings([entry.name for entry in guess.usable])
    yield from (f"# For example: {summary(grouping)}." for grouping in found)
    if not found:
        yield f"# For example: with '{FIRST_NUMBER}' it is the first word with its number."
    yield '# With "" every case is another patient.'
    yield "[case]"
    yield f"pattern = {quoted(UNRESOLVED)}"
    yield 'identifiers = "pseudonym"'


def slug(folder: str) -> str:
    """An id for the source in the folder of that name."""
    return re.sub(r"[^a-z0-9]+", "-", folder.lower()).strip("-")[:40].strip("-") or "my-source"


def _comment(text: str) -> str:
    """``text`` for a comment: TOML allows no control characters there, and UTF-8 no surrogates."""
    return re.sub(r"[\x00-\x1f\x7f]", "?", text).encode(errors="replace").decode()


def quoted(text: str) -> str:
    """A TOML basic string; JSON escapes all that TOML does but DEL."""
    clean = text.encode(errors="replace").decode()
    return json.dumps(clean, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return _inline(value)
    return json.dumps(value)


def _inline(options: Mapping[str, Any]) -> str:
    return "{ " + ", ".join(f"{key} = {_value(value)}" for key, value in options.items()) + " }"

"""The draft of a source file: what was seen is filled in, what only its author knows is a question."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medcurate.inspection.guess import Guess
from medcurate.inspection.look import Facts, Look
from medcurate.inspection.meaning import meaning
from medcurate.inspection.survey import Survey

QUESTION = "# QUESTION:"
UNRESOLVED = "unresolved"
MAX_COMPONENTS = 16


def draft(survey: Survey, guess: Guess, looks: Sequence[Look]) -> str:
    """A source as TOML. It loads as ``Source``; what is "unresolved" the check against the ontology names."""
    images = [facts for look in looks for facts in look.images]
    sections = (
        _head(survey.root.resolve().name, images),
        _licence(),
        _pairing(survey, guess),
        _reading(guess, looks),
        _channels(guess, images),
        _case(),
    )
    parts = [list(section) for section in sections]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _head(folder: str, images: Sequence[Facts]) -> Iterator[str]:
    flat = bool(images) and all(facts.affine is None for facts in images)
    yield f"id = {_text(_slug(folder))}"
    yield f"title = {_text(folder)}"
    yield f"{QUESTION} where do these images come from, and what is to be cited?"
    yield 'homepage = ""'
    yield f"citation = {_text(UNRESOLVED)}"
    yield f"{QUESTION} which modality is it (an id of the ontology, such as ct, mr, us)?{_hint(images)}"
    yield f"modality = {_text(UNRESOLVED)}"
    yield f"dimensions = {2 if flat else 3}"


def _hint(images: Sequence[Facts]) -> str:
    low = min((facts.low for facts in images if facts.affine is not None), default=0.0)
    return " Values below -900 look like CT in Hounsfield units." if low < -900 else ""


def _licence() -> Iterator[str]:
    yield f"{QUESTION} under which licence (SPDX id), and what does it allow?"
    yield "[licence]"
    yield f"id = {_text(UNRESOLVED)}"
    yield 'commercial = "unknown"'


def _pairing(survey: Survey, guess: Guess) -> Iterator[str]:
    left = survey.data_count - guess.explained
    yield f"# {len(guess.usable)} cases; {guess.explained} of {survey.data_count} image files explained."
    if left:
        yield f"{QUESTION} {left} files belong to no complete case: is that right?"
    if guess.problems:
        first = _comment(guess.problems[0].problem)
        yield f"{QUESTION} {len(guess.problems)} cases are incomplete (first: {first}): is that right?"
    yield "[[pairings]]"
    yield f"kind = {_text(guess.candidate.kind)}"
    yield "[pairings.options]"
    yield from (f"{key} = {_value(value)}" for key, value in guess.candidate.options.items())


def _reading(guess: Guess, looks: Sequence[Look]) -> Iterator[str]:
    found = meaning(guess, looks)
    images = [facts.reader for look in looks for facts in look.images]
    labels = [facts.reader for look in looks for facts in look.labels]
    for problem in dict.fromkeys(problem for look in looks for problem in look.problems):
        yield f"{QUESTION} seen in a sampled case: {_comment(problem)}. Is it an erratum?"
    yield "[image]"
    yield f"reader = {_text(images[0] if images else 'nifti')}"
    yield ""
    yield "[label]"
    yield f"reader = {_text(labels[0] if labels else 'nifti')}"
    if found.doubt:
        yield f"{QUESTION} {found.doubt}"
    yield f"decoder = {_text(found.decoder)}"
    if found.options:
        yield f"options = {_inline(found.options)}"
    yield ""
    yield f"{QUESTION} which label of the ontology is each of these?"
    yield "[labels]"
    for key, count in found.keys.items():
        yield f"{_text(key)} = {_text(UNRESOLVED)}" + (f"  # {count} in the sample" if count else "")


def _channels(guess: Guess, images: Sequence[Facts]) -> Iterator[str]:
    names: list[Mapping[str, Any]] = [{"name": name} for name in guess.candidate.channels]
    components = {facts.shape[3] for facts in images if facts.affine is not None and len(facts.shape) == 4}
    if not names and len(components) == 1 and (count := components.pop()) in range(2, MAX_COMPONENTS + 1):
        names = [{"name": f"c{index}", "component": index} for index in range(count)]
    if names:
        yield f"{QUESTION} which sequence (or modality) is each channel?"
    for name in names:
        yield "[[channels]]"
        yield from (f"{key} = {_value(value)}" for key, value in name.items())


def _case() -> Iterator[str]:
    yield f"{QUESTION} which part of a case's name is the patient? A split never cuts a patient."
    yield "# An example: pattern = '^(?P<group>[^/_]+)'. Without a pattern every case is its own patient."
    yield "[case]"
    yield 'pattern = ""'
    yield 'identifiers = "pseudonym"'


def _slug(folder: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", folder.lower()).strip("-")[:40].strip("-") or "my-source"


def _comment(text: str) -> str:
    """``text`` for a comment: TOML allows no control characters there, and UTF-8 no surrogates."""
    return re.sub(r"[\x00-\x1f\x7f]", "?", text).encode(errors="replace").decode()


def _text(text: str) -> str:
    """A TOML basic string; JSON escapes all that TOML does but DEL."""
    clean = text.encode(errors="replace").decode()
    return json.dumps(clean, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value)


def _inline(options: Mapping[str, Any]) -> str:
    return "{ " + ", ".join(f"{key} = {_value(value)}" for key, value in options.items()) + " }"

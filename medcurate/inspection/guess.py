"""The pairing that explains most files: the likeliest candidates are tried on the tree itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medcurate.errors import ConfigError
from medcurate.inspection.array_candidates import by_arrays
from medcurate.inspection.bids_candidates import by_entities
from medcurate.inspection.candidates import Candidate, by_names
from medcurate.inspection.case_candidates import by_folders, one_case
from medcurate.inspection.header_candidates import by_headers
from medcurate.inspection.survey import Survey
from medcurate.inspection.words import is_image, is_label
from medcurate.pairings import PAIRINGS
from medcurate.pairings.found import Found, Names
from medcurate.pairings.names import LABEL
from medcurate.registry import load

TRIED = 6
_RANK = {"paired-folders": 0, "case-folder": 1, "flat-suffix": 2, "bids-derivatives": 3, "dicom-tree": 4}
_READ = {"same-file", "array-pack"}  # kinds that are only tried where headers of arrays speak for them


@dataclass(frozen=True, slots=True)
class Guess:
    """A pairing and what it finds. ``explained``: files that belong to usable cases."""

    candidate: Candidate
    usable: tuple[Found, ...]
    problems: tuple[Found, ...]
    explained: int

    @property
    def worth(self) -> tuple[int, int]:
        """More files explained, then fewer cases that lack one, is better."""
        return self.explained, -len(self.problems)


def guess(survey: Survey) -> Guess | None:
    """The best pairing of the tree; None where nothing pairs. Equal trees give equal guesses."""
    return next(iter(guesses(survey)), None)


def guesses(survey: Survey) -> list[Guess]:
    """The best pairings of the tree, the likeliest first: several only where names alone do not tell what is label.

    Headers of DICOM files are read only where names leave files unexplained.
    """
    best = _best(survey, _candidates(survey))
    if not best or best[0].explained < survey.data_count:
        best = _best(survey, by_headers(survey), best)
    return best or [
        only for only in _best(survey, one_case(survey)) if 2 * only.explained > survey.data_count
    ]


def _best(survey: Survey, candidates: Iterable[Candidate], known: Sequence[Guess] = ()) -> list[Guess]:
    """The best of the likeliest ``candidates``, unless they are no better than those that are known."""
    found = {_key(candidate): candidate for candidate in candidates}
    best = list(known)
    for candidate in sorted(found.values(), key=_order)[:TRIED]:
        attempt = _attempt(survey.root, candidate)
        if attempt and (not best or attempt.worth > best[0].worth):
            best = [attempt]
        elif attempt and _is_open(best[0]) and attempt.worth == best[0].worth:
            best.append(attempt)
        if best and best[0].explained == survey.data_count and not _is_open(best[0]):
            break  # nothing can explain more, and of equals the likelier came first
    return best


def _is_open(guess: Guess) -> bool:
    """Whether image and label lie side by side and no name sounds like a label."""
    suffix = str(guess.candidate.options.get("label_suffix", ""))
    prefix = str(guess.candidate.options.get("label_prefix", ""))
    return guess.candidate.kind == "flat-suffix" and not is_label(f"{prefix} {suffix.replace(LABEL, '')}")


def _candidates(survey: Survey) -> Iterator[Candidate]:
    yield from by_names(survey)
    yield from by_folders(survey)
    yield from by_entities(survey)
    yield from by_arrays(survey)


def _key(candidate: Candidate) -> str:
    return f"{candidate.kind} {candidate.options} {candidate.channels} {candidate.tokens}"


def _order(candidate: Candidate) -> tuple[bool, bool, int, bool, int, int, int, str]:
    """Likeliest first: what was read, whole series, files in the sample, what sounds like images, plainest options."""
    options = candidate.options
    series = str(options.get("image", options.get("image_suffix"))).endswith("/")
    sounds = is_image(str(options.get("image_suffix", "")))
    wildcards = sum(str(value).count("*") for value in options.values())
    length = sum(len(str(value)) for value in options.values())
    kind, read = _RANK.get(candidate.kind, 0), candidate.kind in _READ
    return not read, not series, -candidate.weight, not sounds, wildcards, kind, length, _key(candidate)


def _attempt(root: Path, candidate: Candidate) -> Guess | None:
    module = load(PAIRINGS, candidate.kind, "pairing")
    names = Names(candidate.channels, (None,) * len(candidate.channels), candidate.tokens)
    try:
        found = tuple(module.find(root, module.Options(**candidate.options), names))
    except (ConfigError, ValueError):
        return None  # two affixes that the kind cannot tell apart
    usable = tuple(entry for entry in found if not entry.problem)
    problems = tuple(entry for entry in found if entry.problem)
    explained = len(_paths(usable))
    return Guess(candidate, usable, problems, explained) if explained else None


def _paths(found: Iterable[Found]) -> set[Path]:
    images = {path for entry in found for part in entry.images for path in part.paths}
    return images | {path for entry in found for part in entry.labels for path in part.paths}

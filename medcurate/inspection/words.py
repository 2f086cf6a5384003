"""Words that people call label files and image files by, and the endings that file names share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medcurate.inspection.survey import extension

_LABEL = re.compile(
    r"label|mask|msk|seg|ground|truth|annot|manual|contour|delineat|lesion|(?<![a-z])(gt|roi|anno)(?![a-z])",
    re.IGNORECASE,
)
_IMAGE = re.compile(
    r"image|img|orig|scan|volume|input|raw|dicom|(?<![a-z])(ct|mri?|us|t[12]|flair)(?![a-z])", re.IGNORECASE
)
_TRAIL = re.compile(r"[_\-. ]+[A-Za-z0-9]+$")
_NUMBERED = re.compile(r"([_\-. ]?[A-Za-z]+)[_\-. ]?[0-9]+$")
_LEAD = re.compile(r"[^0-9]+")

MAX_CLASSES = 200
_CHANNEL_NUMBER = re.compile(r"000[0-9]")  # nnU-Net's; other numbers at the end of names are the cases'


@dataclass(frozen=True, slots=True)
class Affix:
    """What stands around a stem; ``suffix`` holds "{token}" where ``tokens`` are not empty."""

    prefix: str
    suffix: str
    tokens: tuple[str, ...] = ()


def is_label(path: str) -> bool:
    """Whether ``path`` (folder template and affixes) sounds like labels: its last telling part decides."""
    for part in reversed(path.split("/")):
        label, image = _LABEL.search(part), _IMAGE.search(part)
        if label or image:
            return label is not None
    return False


def is_image(text: str) -> bool:
    """Whether ``text`` sounds like images and not like labels."""
    return bool(_IMAGE.search(text)) and not _LABEL.search(text)


def affixes(names: Sequence[str]) -> list[Affix]:
    """Ways to read ``names`` as prefix + stem + suffix, the simplest first."""
    found: list[Affix] = []
    for end, _ in sorted(Counter(map(extension, names)).most_common(3)):
        bodies = [name[: len(name) - len(end)] for name in names if extension(name) == end]
        found.append(Affix("", end or "/"))
        found += _trailing(bodies, end)
        found += _leading(bodies, end)
    return [affix for affix in found if affix.suffix != "/"]


def _trailing(bodies: Sequence[str], end: str) -> Iterator[Affix]:
    trails = Counter(found.group() for body in bodies if (found := _TRAIL.search(body)))
    for trail in list(trails):
        word = trail.strip("_-. ")
        if word.isdigit() and not _CHANNEL_NUMBER.fullmatch(word):
            del trails[trail]
    least = max(1, len(bodies) // 50)
    common = sorted(
        (trail for trail, count in trails.items() if count >= least), key=lambda t: (-trails[t], t)
    )[:MAX_CLASSES]
    yield from (Affix("", trail + end) for trail in common[:6])
    yield from _numbered(bodies, end)
    for labels in (False, True):
        yield from _tokens([trail for trail in common if is_label(trail) == labels], end)
    yield from _tokens(common, end)


def _numbered(bodies: Sequence[str], end: str) -> Iterator[Affix]:
    """ "_mask" and "_mask_1" beside each other: "_mask*"."""
    words = Counter(found[1] for body in bodies if (found := _NUMBERED.search(body)) and is_label(found[1]))
    yield from (Affix("", f"{word}*{end}") for word, _ in sorted(words.most_common(2)))


def _tokens(trails: Sequence[str], end: str) -> Iterator[Affix]:
    """Trails behind the same separator, as one affix with tokens."""
    for separator in "_-. ":
        tokens = sorted(trail[1:] for trail in trails if trail[0] == separator and trail[1:].isalnum())
        if len(tokens) > 1:
            yield Affix("", f"{separator}{{token}}{end}", tuple(tokens))


def _leading(bodies: Sequence[str], end: str) -> Iterator[Affix]:
    leads = Counter(
        found.group() for body in bodies if (found := _LEAD.match(body)) and found.group() != body
    )
    least = max(1, len(bodies) // 10)
    yield from (Affix(lead, end) for lead, count in sorted(leads.most_common(3)) if count >= least)

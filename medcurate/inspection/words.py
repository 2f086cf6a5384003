"""Words that people call label files and image files by, and the endings that file names share."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from unicodedata import combining, normalize

from medcurate.inspection.survey import extension


def _plain(text: str) -> str:
    """Without accents, however a file system stores them."""
    return "".join(letter for letter in normalize("NFKD", text) if not combining(letter))


# Also in German, French, Spanish, Italian, Portuguese, Polish, Russian, Chinese and Japanese.
_LABEL = re.compile(
    r"label|mask|msk|seg|ground|truth|annot|manual|contour|delineat|lesion"
    r"|masque|mascara|mascher|kontur|contorn|etiquet|etichet|etykiet|rotulo|verite|anotac|anotaz|obrys"
    r"|маск|размет|метк|контур|标签|标注|掩码|掩膜|掩模|分割|金标准|マスク|ラヘル"
    r"|(?<![a-z])(gts?|rois?|anno?s?|labs?|lbls?|tgt|targets?)(?![a-z])",
    re.IGNORECASE,
)
_IMAGE = re.compile(
    r"image|img|orig|scan|volume|input|raw|dicom|bilder|(?<![a-z])bild(?![a-z])|imagen|imagem|immagin|obraz"
    r"|снимок|снимки|изображ|图像|影像|原图|画像|(?<![a-z])(ct|cta|cbct|mri?|mra|us|t[12]|flair|dwi|adc|pet|oct|cxr|tdm|irm)(?![a-z])",
    re.IGNORECASE,
)
_WORD = r"(?:[^\W_]|[\u0300-\u036f\u3099\u309a])+"  # macOS stores accents as letters of their own
_TRAIL = re.compile(rf"[_\-. ]+{_WORD}$")
_WORDED = re.compile(rf"([_\-. ]+{_WORD}[_\-. ])({_WORD})$")
_LONGER = [re.compile(rf"(?:[_\-. ]+{_WORD}){{{count}}}$") for count in (2, 3)]
_NUMBERED = re.compile(r"([_\-. ]?[^\W\d_]+)[_\-. ]?[0-9]+$")
_COUNTED = re.compile(r"(?<=[^\W\d_])[0-9]{2,}$")  # "seg012": a case; "t1": a channel
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
        label, image = _LABEL.search(_plain(part)), _IMAGE.search(_plain(part))
        if label or image:
            return label is not None
    return False


def is_image(text: str) -> bool:
    """Whether ``text`` sounds like images and not like labels."""
    plain = _plain(text)
    return bool(_IMAGE.search(plain)) and not _LABEL.search(plain)


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
    numbered = Counter(_COUNTED.sub("#", trail) for trail in trails)
    for trail in list(trails):
        word = trail.strip("_-. ")
        of_a_case = trails[trail] == 1 and numbered[_COUNTED.sub("#", trail)] > 1 and _COUNTED.search(trail)
        if of_a_case or (word.isdigit() and not _CHANNEL_NUMBER.fullmatch(word)):
            del trails[trail]
    least = max(1, len(bodies) // 50)
    common = sorted(
        (trail for trail, count in trails.items() if count >= least), key=lambda t: (-trails[t], t)
    )[:MAX_CLASSES]
    yield from (Affix("", trail + end) for trail in common[:6])
    yield from _numbered(bodies, end)
    yield from _worded(bodies, end)
    yield from _longer(bodies, end)
    for labels in (False, True):
        yield from _tokens([trail for trail in common if is_label(trail) == labels], end)
    yield from _tokens(common, end)


def _numbered(bodies: Sequence[str], end: str) -> Iterator[Affix]:
    """ "_mask" and "_mask_1" beside each other: "_mask*"."""
    words = Counter(found[1] for body in bodies if (found := _NUMBERED.search(body)) and is_label(found[1]))
    yield from (Affix("", f"{word}*{end}") for word, _ in sorted(words.most_common(2)))


def _longer(bodies: Sequence[str], end: str) -> Iterator[Affix]:
    """ "_T2w_seg-manual": labels that are called after two or three words."""
    for pattern in _LONGER:
        trails = Counter(found.group() for body in bodies if (found := pattern.search(body)))
        least = max(2, len(bodies) // 4)
        yield from (
            Affix("", trail + end)
            for trail, count in sorted(trails.most_common(3))
            if count >= least and is_label(trail)
        )


def _worded(bodies: Sequence[str], end: str) -> Iterator[Affix]:
    """ "_seg_liver" and "_seg_spleen": "_seg_{token}"."""
    found: dict[str, set[str]] = defaultdict(set)
    for body in bodies:
        trail = _WORDED.search(body)
        if trail and is_label(trail[1]) and not trail[2].isdigit():
            found[trail[1]].add(trail[2])
    for lead, tokens in sorted(found.items()):
        if 1 < len(tokens) <= MAX_CLASSES:
            yield Affix("", f"{lead}{{token}}{end}", tuple(sorted(tokens)))


def _tokens(trails: Sequence[str], end: str) -> Iterator[Affix]:
    """Trails behind the same separator, as one affix with tokens."""
    for separator in "_-. ":
        tokens = sorted(
            trail[1:] for trail in trails if trail[0] == separator and re.fullmatch(_WORD, trail[1:])
        )
        if len(tokens) > 1:
            yield Affix("", f"{separator}{{token}}{end}", tuple(tokens))


def _leading(bodies: Sequence[str], end: str) -> Iterator[Affix]:
    leads = Counter(
        found.group() for body in bodies if (found := _LEAD.match(body)) and found.group() != body
    )
    least = max(1, len(bodies) // 10)
    yield from (Affix(lead, end) for lead, count in sorted(leads.most_common(3)) if count >= least)

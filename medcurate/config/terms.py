"""Finding terms of the ontology by what people write: ids, titles, synonyms and codes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Literal, get_args

from medcurate.config.ontology import Label, Modality, Ontology, Organ, Region, Sequence

Kind = Literal["labels", "modalities", "sequences", "organs", "regions"]
Term = Label | Modality | Sequence | Organ | Region

# What anatomists and radiologists say for "of the …".
ADJECTIVES = {
    "aortic": "aorta",
    "bony": "bone",
    "cardiac": "heart",
    "cerebral": "brain",
    "colonic": "colon",
    "cutaneous": "skin",
    "gastric": "stomach",
    "hepatic": "liver",
    "mammary": "breast",
    "ocular": "eye",
    "ovarian": "ovary",
    "pancreatic": "pancreas",
    "prostatic": "prostate",
    "pulmonary": "lung",
    "renal": "kidney",
    "retinal": "retina",
    "splenic": "spleen",
    "tracheal": "trachea",
    "uterine": "uterus",
    "vertebral": "vertebra",
}

KINDS: tuple[Kind, ...] = get_args(Kind)


def terms(ontology: Ontology, kind: Kind) -> Mapping[str, Term]:
    """All terms of ``kind`` by id, in the ontology's order."""
    table: Mapping[str, Term] = getattr(ontology, kind)
    return table


def matching(ontology: Ontology, kind: Kind, wanted: str) -> dict[str, Term]:
    """Terms of which one id, title, synonym or code contains every word of ``wanted``, in any case and order.

    Exact answers come first, then the ontology's order; all terms where ``wanted`` has no word.
    """
    table = terms(ontology, kind)
    plain = _plain(wanted)
    asked = [text.split() for text in _spoken(plain)]
    hits = {}
    for name, term in table.items():
        texts = set(_texts(name, term))
        if any(all(word in text for word in words) for words in asked for text in texts):
            hits[name] = plain not in texts
    return {name: table[name] for name in sorted(hits, key=hits.__getitem__)}


UNMAPPED = "unmapped:"
"""What the label of a class begins with that no label of the ontology is called like."""


def label_called(ontology: Ontology, name: str) -> str:
    """The id of the label that is called ``name``, by id, title or synonym in any case and spelling of blanks.

    "unmapped:" and the name where none is, or more than one; an id comes before titles and synonyms.
    """
    plain = _plain(name)
    if (own := "-".join(plain.split())) in ontology.labels:
        return own
    found = {label for label, term in ontology.labels.items() if plain in map(_plain, _said(term))}
    return found.pop() if len(found) == 1 else f"{UNMAPPED}{own}"


def _said(term: Label) -> tuple[str, ...]:
    return (term.title, *term.synonyms)


def nearest(ontology: Ontology, kind: Kind, wanted: str) -> str:
    """The id whose id, title, synonym or code is most like ``wanted``; "" where none is alike."""
    ids: dict[str, str] = {}
    for name, term in terms(ontology, kind).items():
        for text in _texts(name, term):
            ids.setdefault(text, name)
    for asked in reversed(_spoken(_plain(wanted))):
        if near := difflib.get_close_matches(asked, ids, 1):
            return ids[near[0]]
    return ""


def _texts(name: str, term: Term) -> Iterator[str]:
    """All that ``term`` is called."""
    called = [name, term.title]
    if isinstance(term, Label):
        called += term.synonyms
    if isinstance(term, Modality):
        called.append(term.dicom)
    if isinstance(term, Label | Organ):
        called.append(term.snomed)
    for text in filter(None, called):
        yield from _spoken(_plain(text))


def _spoken(text: str) -> tuple[str, ...]:
    """``text``, and with organs for their adjectives where it has any ("hepatic lesion": "liver lesion")."""
    translated = " ".join(ADJECTIVES.get(word, word) for word in text.split())
    return tuple(dict.fromkeys((text, translated)))


def _plain(text: str) -> str:
    """``text`` in one case, with spaces for all that separates words."""
    return re.sub(r"[\W_]+", " ", text.casefold()).strip()

"""The ``Ontology`` model: the terms that labels, modalities and sequences of sources map to."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medcurate.config.source import Strict

Snomed = Annotated[str, Field(pattern=r"^(\d{6,18})?$", description="6 to 18 digits, or nothing")]


class Modality(Strict):
    """``dicom``: the Defined Term of Modality (0008,0060), PS3.3 C.7.3.1.1.1, where there is one."""

    title: str
    dicom: str = ""


class Sequence(Strict):
    """An acquisition kind inside a modality: an MR weighting, a CT phase, a tracer."""

    title: str
    modality: str


class Region(Strict):
    """A body region; ``group`` is the structure group of SA-Med2D that it is counted in."""

    title: str
    group: Literal["head-neck", "thorax", "abdomen", "pelvis", "other"]


class Organ(Strict):
    """An anatomical structure."""

    title: str
    region: str
    snomed: Snomed = ""


class Label(Strict):
    """What a mask shows: an organ, a part or a side of it, or a lesion in it."""

    title: str
    organ: str
    laterality: Literal["", "left", "right"] = ""
    lesion: bool = False
    snomed: Snomed = ""
    synonyms: tuple[str, ...] = ()


class Ontology(Strict):
    """``manifests/ontology.toml``."""

    modalities: dict[str, Modality]
    sequences: dict[str, Sequence]
    regions: dict[str, Region]
    organs: dict[str, Organ]
    labels: dict[str, Label]

    @model_validator(mode="after")
    def _references(self) -> Ontology:
        for kind, terms, field, known in (
            ("sequences", self.sequences, "modality", self.modalities),
            ("organs", self.organs, "region", self.regions),
            ("labels", self.labels, "organ", self.organs),
        ):
            for name, term in terms.items():
                if getattr(term, field) not in known:
                    raise ValueError(f"{kind}.{name}.{field}: {getattr(term, field)!r} is not defined")
        return self

    def region_of(self, label: str) -> str:
        """The body region id of a label id. Raises KeyError for an unknown label."""
        return self.organs[self.labels[label].organ].region

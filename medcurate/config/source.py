"""The ``Source`` model: one dataset described by facts. Every unknown key is an error."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# The description of a pattern is what messages say instead of it.
Id = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,39}$",
        description="lower-case letters, digits and hyphens, starting with a letter or digit, at most 40",
    ),
]
Sha256 = Annotated[
    str, Field(pattern=r"^[0-9a-f]{64}$", description="64 hexadecimal digits, letters in lower case")
]
LicenceId = Annotated[
    str,
    Field(
        pattern=r"^(unresolved|[A-Za-z0-9][A-Za-z0-9.+-]*)$",
        description='an SPDX id, "LicenseRef-" and a name, or "unresolved"; letters, digits and . + - only',
    ),
]
ChannelName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_]+$", description="letters, digits and underscores, at least one")
]
Split = Literal["", "train", "val", "test"]

UNRESOLVED = "unresolved"
"""What a draft says where only its author knows; checks refuse it but as a licence's id."""


class Strict(BaseModel):
    """Immutable; no key is accepted that is not declared, and no number that is not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Licence(Strict):
    """Terms of use. ``id``: SPDX id, ``LicenseRef-…``, or "unresolved"."""

    id: LicenceId
    commercial: Literal["yes", "no", "unknown"]
    redistribute: Literal["yes", "no", "unknown"] = "unknown"
    url: str = ""
    notice: str = ""  # text that must accompany copies, or the packaged file that holds it

    @property
    def commercial_allowed(self) -> bool | None:
        """True, False, or None where unknown: the value of the manifest's ``commercial`` column."""
        return {"yes": True, "no": False}.get(self.commercial)


class Origin(Strict):
    """Where a file comes from: exactly one of a URL, a packaged resource, a generator, or by hand."""

    url: str = ""
    package: str = ""  # import name; with ``resource``
    resource: str = ""  # path inside the package
    generator: str = ""  # name of a generator of medcurate.phantom
    by_hand: str = ""  # the instruction shown to the user

    @model_validator(mode="after")
    def _exactly_one(self) -> Origin:
        given = [name for name in ("url", "package", "generator", "by_hand") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"exactly one of url, package, generator, by_hand; given: {given or 'none'}")
        if bool(self.package) != bool(self.resource):
            raise ValueError("package and resource go together")
        return self


class SourceFile(Strict):
    """One file to have: its place under the source's data folder, its origin, digest and size."""

    path: str
    origin: Origin
    sha256: Sha256 | None = None
    size_bytes: Annotated[int, Field(ge=0)] | None = None

    @field_validator("path")
    @classmethod
    def _inside(cls, value: str) -> str:
        parts = PurePosixPath(value).parts
        if not parts or value.startswith("/") or ".." in parts:
            raise ValueError("a path below the source's folder, without '..'")
        return value


class Pairing(Strict):
    """How files become cases; ``options`` belong to the kind and are checked by it."""

    kind: str
    split: Split = ""  # the official split of every case found by this pairing
    options: dict[str, Any] = {}


class ImageSpec(Strict):
    """How image files are read."""

    reader: str
    options: dict[str, Any] = {}


class LabelSpec(Strict):
    """How label files are read and what their values mean; ``options`` belong to the decoder."""

    reader: str
    decoder: str
    options: dict[str, Any] = {}
    reader_options: dict[str, Any] = {}


class Channel(Strict):
    """One of several images that share a label: named in file names, or a component of a 4D file."""

    name: ChannelName
    sequence: str = ""
    modality: str = ""  # where it differs from the source's
    component: Annotated[int, Field(ge=0)] | None = None


class CaseRule(Strict):
    """How ids are read from the name that the pairing found.

    ``pattern``: a regular expression with the named groups ``case`` (default: the whole name) and
    ``group`` (the patient; default: the case). ``namespace``: prefix of groups, shared by sources that
    hold the same patients under the same ids (default: the source's id). ``identifiers``: "keep" only
    where ids are published and name nobody; "pseudonym" replaces them in everything that is written.
    """

    pattern: str = ""
    namespace: str = ""
    identifiers: Literal["keep", "pseudonym"] = "pseudonym"


class Erratum(Strict):
    """A case to skip, with the reason that goes to the ledger."""

    case: str
    reason: str


class Source(Strict):
    """One dataset: ``manifests/sources/<id>.toml`` or a lab's own file."""

    id: Id
    title: str
    homepage: str
    citation: str
    modality: str
    sequence: str = ""
    dimensions: Literal[2, 3]
    synthetic: bool = False
    notes: tuple[str, ...] = ()
    licence: Licence
    files: tuple[SourceFile, ...] = ()
    pairings: Annotated[tuple[Pairing, ...], Field(min_length=1)]
    image: ImageSpec
    label: LabelSpec
    labels: Annotated[dict[str, str], Field(min_length=1)]  # value, colour or file token -> ontology label id
    channels: tuple[Channel, ...] = ()
    case: CaseRule = CaseRule()
    errata: tuple[Erratum, ...] = ()

    @property
    def namespace(self) -> str:
        """Prefix of this source's groups."""
        return self.case.namespace or self.id

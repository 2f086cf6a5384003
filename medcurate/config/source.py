"""The ``Source`` model: one dataset described by facts. Every unknown key is an error."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from medcurate.config.folder import Folder
from medcurate.config.table import CaseTable, ClassTable, Pattern, below
from medcurate.tables import Strict as Strict

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
Md5 = Annotated[
    str, Field(pattern=r"^[0-9a-f]{32}$", description="32 hexadecimal digits, letters in lower case")
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


def _three_directions(value: str) -> str:
    if (
        sorted("RAS".find(letter) + "LPI".find(letter) + 1 for letter in value) != [0, 1, 2]
        or len(value) != 3
    ):
        raise ValueError('three letters, one each of R or L, A or P, S or I, such as "LPS"')
    return value


Directions = Annotated[str, AfterValidator(_three_directions)]
"""The directions of the patient that stored axes i, j and k grow to."""
Split = Literal["", "train", "val", "test"]
Access = Literal["open", "registration", "agreement", "kaggle", "synapse", "unknown"]

UNRESOLVED = "unresolved"
"""What a draft says where only its author knows; checks refuse it but as a licence's id."""


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


_ORIGINS = ("url", "huggingface", "kaggle", "synapse", "package", "generator", "by_hand")


class Origin(Strict):
    """Where a file comes from: exactly one of ``_ORIGINS``.

    ``by_hand`` may stand beside ``kaggle`` and ``synapse``: what to do where no token is set.
    """

    url: str = ""  # https://… or s3://…
    mirrors: tuple[str, ...] = ()  # further URLs of the same bytes
    huggingface: str = ""  # "owner/name" of a dataset repository; with ``resource``
    revision: str = ""  # commit of that repository, so that its bytes cannot change
    kaggle: str = ""  # "owner/name" of a dataset, or the name of a competition; with ``resource``
    synapse: str = ""  # "syn" and a number
    package: str = ""  # import name; with ``resource``
    resource: str = ""  # path inside the package or repository
    generator: str = ""  # name of a generator of medcurate.phantom
    by_hand: str = ""  # the instruction shown to the user

    @model_validator(mode="after")
    def _exactly_one(self) -> Origin:
        given = [name for name in _ORIGINS if getattr(self, name)]
        if len(given) == 2 and given[0] in {"kaggle", "synapse"} and given[1] == "by_hand":
            given = given[:1]
        if len(given) != 1:
            raise ValueError(f"exactly one of {', '.join(_ORIGINS)}; given: {given or 'none'}")
        if bool(self.resource) != bool(self.package or self.huggingface or self.kaggle):
            raise ValueError("resource goes with package, huggingface or kaggle, and they with it")
        if self.mirrors and not self.url:
            raise ValueError("mirrors go with url")
        return self


class Unpack(Strict):
    """How an archive becomes the folder ``into``, which unpacking makes and nothing else writes to.

    Member names are matched and stripped with "/" between folders; patterns: ``*`` inside a name, ``**``
    for any folders.
    """

    into: str  # folder below the source's folder; a user may place it by hand instead of the archive
    format: Literal["", "zip", "tar", "7z", "rar", "gz"] = ""  # "": as the first bytes say
    strip: Annotated[int, Field(ge=0)] = 0  # leading folders of member names to leave out
    include: tuple[str, ...] = ()  # patterns of the members that are wanted; empty: all
    nested: tuple[str, ...] = ()  # patterns of members that are archives, unpacked where they lie
    parts: tuple[str, ...] = ()  # paths of the other [[files]] of a split archive, in order, before this one
    password: str = ""  # as its owner published it
    in_place: bool = False  # a zip: leave it packed and read its members where they lie
    ratio: Annotated[float, Field(ge=1)] = 250.0  # most bytes out for one in, once more than 256 MiB came out

    @field_validator("into")
    @classmethod
    def _inside(cls, value: str) -> str:
        return below(value)

    @model_validator(mode="after")
    def _whole(self) -> Unpack:
        if self.in_place and (self.nested or self.password or self.format not in {"", "zip"}):
            raise ValueError("in_place is for zip archives without nested archives and password")
        return self


class SourceFile(Strict):
    """One file to have: its place under the source's data folder, its origin, digest and size."""

    path: str
    origin: Origin
    sha256: Sha256 | None = None
    md5: Md5 | None = None  # where the publisher states no SHA-256
    size_bytes: Annotated[int, Field(ge=0)] | None = None
    made_on_request: bool = False  # other bytes every time: what was recorded of one copy binds no other
    unpack: Unpack | None = None  # None: the file is used as it is

    @field_validator("path")
    @classmethod
    def _inside(cls, value: str) -> str:
        return below(value)

    @model_validator(mode="after")
    def _states_no_more_than_it_knows(self) -> SourceFile:
        if self.made_on_request and (self.sha256 or self.md5 or self.size_bytes is not None):
            raise ValueError("of a file that is made on request neither digest nor size is known before")
        return self


class Pairing(Strict):
    """How files become cases; ``options`` belong to the kind and are checked by it."""

    kind: str
    split: Split = ""  # the official split of every case found by this pairing
    select: Pattern = ""  # searched in the names of cases: those without a match are not of this pairing
    options: dict[str, Any] = Field(default={})


class ImageSpec(Strict):
    """How image files are read."""

    reader: str
    options: dict[str, Any] = Field(default={})


class LabelSpec(Strict):
    """How label files are read and what their values mean; ``options`` belong to the decoder.

    ``geometry``: "file" trusts the label file's own and requires it to agree with the image's; "image" does not
    look at it: the array lies as the image's does, or along ``axes`` (the directions that its axes grow to:
    "LAI"); "nearest" trusts it and gives every image voxel the label at its centre, outside background.
    ``raters``: what replaces ``{rater}`` in the pairings' options; ``agreement``: how several readings become
    one, voxel by voxel. ``classes``: a table of what values mean case by case. ``vocabulary``: "ontology" takes the
    classes that [labels] lacks from the set's own table, each as the label of the ontology that is called so.
    """

    reader: str
    decoder: str
    options: dict[str, Any] = Field(default={})
    reader_options: dict[str, Any] = Field(default={})
    geometry: Literal["file", "image", "nearest"] = "file"
    axes: Directions | None = None
    raters: tuple[str, ...] = ()
    agreement: Literal["", "majority", "union", "intersection"] = ""
    classes: ClassTable | None = None
    vocabulary: Literal["declared", "ontology"] = "declared"

    @model_validator(mode="after")
    def _fitting(self) -> LabelSpec:
        if self.axes and self.geometry != "image":
            raise ValueError('axes go with geometry = "image"')
        if (len(self.raters) > 1) != bool(self.agreement):
            raise ValueError("several raters need an agreement, and it needs several raters")
        if len(set(self.raters)) < len(self.raters):
            raise ValueError("a rater is given twice")
        return self


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
    ``table``: names patient and split of every case, where no name does.
    """

    pattern: str = ""
    namespace: str = ""
    table: CaseTable | None = None
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
    access: Access = "open"
    cases: Annotated[int, Field(gt=0)] | None = None  # labelled cases that its publisher states
    notes: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()  # where facts of this file were read
    sa_med2d: tuple[str, ...] = ()  # its names in the SA-Med2D-20M release
    licence: Licence
    files: tuple[SourceFile, ...] = ()
    folders: tuple[Folder, ...] = ()
    pairings: Annotated[tuple[Pairing, ...], Field(min_length=1)]
    image: ImageSpec
    label: LabelSpec
    labels: dict[str, str]  # value, colour or file token -> ontology label id
    regions: dict[str, tuple[str, ...]] = Field(default={})  # further label id -> label ids that it unites
    channels: tuple[Channel, ...] = ()
    frames: Literal["", "i", "j", "k"] = ""  # stored axis that counts frames: pictures lie across it
    case: CaseRule = CaseRule()
    errata: tuple[Erratum, ...] = ()

    @model_validator(mode="after")
    def _has_labels(self) -> Source:
        if not self.labels and self.label.vocabulary == "declared":
            raise ValueError("labels: name at least one")
        return self

    @property
    def namespace(self) -> str:
        """Prefix of this source's groups."""
        return self.case.namespace or self.id

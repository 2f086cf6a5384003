"""The ``Folder`` model: many files of one place, which the place itself lists."""

from __future__ import annotations

import re

from pydantic import field_validator, model_validator

from medcurate.config.table import below
from medcurate.tables import Strict

_SERVER = re.compile(r"https?://[^/?#@]+(/[^?#@]*)?")
HOSTS = ("huggingface", "dataverse", "nbia")


class Folder(Strict):
    """Files that are named by their host's list instead of one by one; exactly one of ``HOSTS``.

    The list is had once, recorded beside the data and from then on what the folder must hold. A folder that a
    user placed by hand before that is used as it is.
    """

    into: str  # folder below the source's; a user may place it by hand
    huggingface: str = ""  # "owner/name" of a dataset repository
    dataverse: str = ""  # persistent id of a dataset, "doi:…"; with ``server``
    nbia: str = ""  # name of a collection of The Cancer Imaging Archive: every series an archive
    server: str = ""  # of Dataverse: "https://dataverse.nl"
    revision: str = (
        ""  # commit of the repository, version of the dataset; "": that of the day, which is recorded
    )
    resource: str = ""  # folder at the host whose content this is; "": all
    modalities: tuple[str, ...] = ()  # of the series of a collection: "CT", "SEG"; empty: all
    include: tuple[
        str, ...
    ] = ()  # patterns of paths below ``resource``: ``*`` in a name, ``**`` for any folders

    @field_validator("into")
    @classmethod
    def _inside(cls, value: str) -> str:
        return below(value)

    @model_validator(mode="after")
    def _whole(self) -> Folder:
        given = [name for name in HOSTS if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"exactly one of {', '.join(HOSTS)}; given: {given or 'none'}")
        if bool(self.server) != bool(self.dataverse):
            raise ValueError("server goes with dataverse, and dataverse with it")
        if self.server and not _SERVER.fullmatch(self.server):  # it is recorded and shown
            raise ValueError(
                'server is an address like "https://dataverse.nl", without name, password and query'
            )
        if self.modalities and not self.nbia:
            raise ValueError("modalities go with nbia")
        if self.nbia and (self.resource or self.revision or self.include):
            raise ValueError("a collection has no resource, revision or include")
        return self

    @property
    def page(self) -> str:
        """Where a person finds the same files."""
        if self.huggingface:
            tree = (
                f"/tree/{self.revision or 'main'}/{self.resource}" if self.revision or self.resource else ""
            )
            return f"https://huggingface.co/datasets/{self.huggingface}{tree}"
        if self.dataverse:
            return f"{self.server}/dataset.xhtml?persistentId={self.dataverse}"
        return f"https://www.cancerimagingarchive.net/collection/{self.nbia.lower().replace(' ', '-')}/"

    @property
    def told(self) -> str:
        """What is there, in words."""
        if self.nbia:
            kinds = f" of {', '.join(self.modalities)}" if self.modalities else ""
            return f"all series{kinds} of the collection {self.nbia} ({self.page})"
        folder = f" in its folder {self.resource}" if self.resource and self.dataverse else ""
        return f"the files of {self.page}{folder}"

"""Collections of The Cancer Imaging Archive: NBIA's search API lists series, and gives each as a zip.

Sources: NBIA Search REST API Guide (``getSeries``, ``getImage``); for the address the archive's own tcia_utils, as the
versions of the service before 4 are no longer looked after. The zips are made on request: neither size nor digest is
known before they come, and DICOM files inside are read to their end when they are unpacked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import httpx

from medcurate.config.folder import Folder
from medcurate.config.source import Origin, SourceFile
from medcurate.download.entry import Contents, Entry, field
from medcurate.download.http import get_json
from medcurate.download.types import RefusedError, without_secrets
from medcurate.errors import ConfigError

SERVICE = "https://nbia.cancerimagingarchive.net/nbia-api/services/v4"
# Where older versions of this program asked: lists that they made have it recorded.
_RETIRED = "https://services.cancerimagingarchive.net/nbia-api/services/v1/"
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


def contents(client: httpx.Client, folder: Folder) -> Contents:
    """The series of a collection, by UID, from NBIA_ENDPOINT where the environment names a service of one's own.

    Raises RefusedError, TransientError; ConfigError for an address with a password, since it is recorded.
    """
    service = os.environ.get("NBIA_ENDPOINT", "").rstrip("/") or SERVICE
    if service != without_secrets(service):
        raise ConfigError("NBIA_ENDPOINT: write the address of the service without name, password and token.")
    found = get_json(client, f"{service}/getSeries", Collection=folder.nbia)
    if not isinstance(found, list) or not found:
        raise RefusedError(f'it knows no public series of the collection "{folder.nbia}"')
    return Contents("", sorted(_entries(found, folder, service), key=lambda entry: entry.path))


def current(file: SourceFile) -> SourceFile:
    """``file`` at the address of today, where it was listed at the archive's former one."""
    url = file.origin.url
    if not url.startswith(_RETIRED):
        return file
    return file.model_copy(update={"origin": Origin(url=f"{SERVICE}/{url.removeprefix(_RETIRED)}")})


def _entries(found: list[Any], folder: Folder, service: str) -> Iterator[Entry]:
    for series in found:
        uid = str(field(series, "SeriesInstanceUID") or "")
        if not _UID.fullmatch(uid):
            raise RefusedError("it lists a series without UID")
        if not folder.modalities or field(series, "Modality") in folder.modalities:
            url = str(httpx.URL(f"{service}/getImage", params={"SeriesInstanceUID": uid}))
            yield Entry(path=uid, origin=Origin(url=url), archive=True)

"""Datasets of a Dataverse: the native API lists their files, the access API gives them one by one.

Sources: Dataverse Guides, Native API ("List Files in a Dataset") and Data Access API ("Basic File Access",
``format=original``). What it says of a table that it took in ("ingested") is about its own rendering of it, so
that of those neither size nor digest is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx

from medcurate.config.folder import Folder
from medcurate.config.source import Origin
from medcurate.download.entry import Contents, Entry, below_resource, field
from medcurate.download.http import get_json
from medcurate.download.types import RefusedError

LATEST = ":latest-published"
_DIGITS = {"sha256": 64, "md5": 32}


def contents(client: httpx.Client, folder: Folder) -> Contents:
    """The files of a dataset in one version. Raises RefusedError, TransientError."""
    version = folder.revision or _latest(client, folder)
    files = _ask(client, folder, f"versions/{version}/files")
    if not isinstance(files, list):
        raise RefusedError("it answers with something else than a list of files")
    return Contents(version, list(_entries(files, folder)))


def _latest(client: httpx.Client, folder: Folder) -> str:
    """The version of the day as "major.minor", so that a later command asks for the same."""
    found = _ask(client, folder, f"versions/{LATEST}")
    number = (field(found, "versionNumber"), field(found, "versionMinorNumber"))
    if not all(isinstance(each, int) for each in number):
        raise RefusedError("it does not say which version of the dataset was published last")
    return f"{number[0]}.{number[1]}"


def _ask(client: httpx.Client, folder: Folder, what: str) -> Any:
    url = f"{folder.server}/api/datasets/:persistentId/{what}"
    answer = get_json(client, url, persistentId=folder.dataverse)
    if field(answer, "status") != "OK":
        raise RefusedError(f'it answers "{field(answer, "message") or field(answer, "status")}"')
    data, total = field(answer, "data"), field(answer, "totalCount")  # newer servers tell both
    if isinstance(data, list) and isinstance(total, int) and total != len(data):
        raise RefusedError(f"it lists {len(data):,} of its {total:,} files")
    return data


def _entries(files: list[Any], folder: Folder) -> Iterator[Entry]:
    for listed in files:
        facts = field(listed, "dataFile")
        number, ingested = field(facts, "id"), field(facts, "originalFileFormat") is not None
        name = field(facts, "originalFileName") or field(listed, "label") or field(facts, "filename")
        if not isinstance(number, int) or not isinstance(name, str):
            raise RefusedError("it lists a file without number or name")
        place = field(listed, "directoryLabel")
        path = below_resource(f"{place}/{name}" if place else name, folder.resource)
        if path is None:
            continue
        url, restricted = f"{folder.server}/api/access/datafile/{number}", bool(field(listed, "restricted"))
        if ingested:
            yield Entry(path=path, origin=Origin(url=f"{url}?format=original"), restricted=restricted)
        else:
            yield Entry(
                path=path,
                origin=Origin(url=url),
                size_bytes=field(facts, "filesize"),
                sha256=_digest(facts, "sha256"),
                md5=_digest(facts, "md5"),
                restricted=restricted,
            )


def _digest(facts: Any, wanted: str) -> str | None:
    """The checksum, where it is of the kind ``wanted``; Dataverse says "MD5" and "SHA-256"."""
    kind = str(field(facts, "checksum", "type") or "").lower().replace("-", "")
    value = str(field(facts, "checksum", "value") or "").lower()
    return value if kind == wanted and len(value) == _DIGITS[wanted] else None

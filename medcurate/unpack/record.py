"""The record of an unpacked folder: ``.unpacked.json`` inside it, so that both appear by one rename."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medcurate import __version__
from medcurate.commit import write_json
from medcurate.config.source import Unpack
from medcurate.errors import ConfigError

RECORD_FILE = ".unpacked.json"
RECORD_VERSION = 1
DAMAGED = "DAMAGED"
DUPLICATE = "DUPLICATE"
UNSAFE_MEMBER = "UNSAFE_MEMBER"
TOO_LARGE = "TOO_LARGE"


@dataclass(frozen=True, slots=True, order=True)
class Refused:
    """A member that was left out: its name as the archive has it, a reason code, and what was found."""

    member: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """A folder and what is known about it.

    ``files`` and ``size_bytes``: what was written. ``hidden``: members that are no data (dot files,
    AppleDouble twins). ``unwanted``: members that the rule leaves out. ``renamed``: (name, name on disk) of
    those that had to be escaped. ``by_hand``: somebody placed the folder; nothing is known. ``fresh``: this
    call made it.
    """

    folder: Path
    files: int = 0
    size_bytes: int = 0
    hidden: int = 0
    unwanted: int = 0
    refused: tuple[Refused, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    by_hand: bool = False
    fresh: bool = False


def archive_facts(paths: Sequence[Path], sha256: str) -> dict[str, Any]:
    """What tells later, without reading, that the archive is the same."""
    status = [path.stat() for path in paths]
    return {
        "files": [
            {"name": path.name, "size_bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns}
            for path, facts in zip(paths, status, strict=True)
        ],
        "sha256": sha256,
    }


def write_record(unpacked: Unpacked, folder: Path, rule: Unpack, archive: dict[str, Any]) -> None:
    """Write the record of ``unpacked`` into ``folder``."""
    facts = asdict(unpacked)
    for name in ("folder", "by_hand", "fresh"):
        del facts[name]
    write_json(
        folder / RECORD_FILE,
        {
            "version": RECORD_VERSION,
            "tool": __version__,
            "archive": archive,
            "rule": _rule(rule),
            "ratio": rule.ratio,
            **facts,
        },
    )


def read_record(folder: Path) -> tuple[Unpacked, dict[str, Any]] | None:
    """What ``write_record`` wrote, and the raw record; None where there is none: somebody placed the folder.

    Raises ConfigError where it is damaged or of another version: what lies in the folder is then not known.
    """
    path = folder / RECORD_FILE
    try:
        record = json.loads(path.read_bytes())
        if record["version"] != RECORD_VERSION:
            raise ValueError(f"version {record['version']}, known: {RECORD_VERSION}")
        files, size_bytes, hidden, unwanted = (
            int(record[name]) for name in ("files", "size_bytes", "hidden", "unwanted")
        )
        refused = tuple(Refused(**entry) for entry in record["refused"])
        renamed = tuple((str(name), str(to)) for name, to in record["renamed"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}. Make it readable.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: is no record of an unpacked archive ({error}). Remove the folder {folder} to have the archive "
            "unpacked again, or only this file if you placed the folder yourself."
        ) from error
    unpacked = Unpacked(
        folder=folder,
        files=files,
        size_bytes=size_bytes,
        hidden=hidden,
        unwanted=unwanted,
        refused=refused,
        renamed=renamed,
    )
    return unpacked, record


def fits(record: dict[str, Any], rule: Unpack, archive: dict[str, Any] | None) -> bool:
    """Whether a folder with ``record`` is what ``rule`` makes of the archive; None: it is not there any more."""
    if record.get("rule") != _rule(rule):
        return False
    if record.get("ratio") != rule.ratio and any(each["reason"] == TOO_LARGE for each in record["refused"]):
        return False  # another bound leaves out other members
    if archive is None or record.get("archive") == archive:
        return True
    # A copied archive has another time: then its digest decides, where one is known.
    known = record.get("archive", {})
    return bool(archive["sha256"]) and known.get("sha256") == archive["sha256"]


def same_rule(rule: Unpack, other: Unpack) -> bool:
    """Whether both rules make the same folder of the same archive, unless members are too large for one of them."""
    return _rule(rule) == _rule(other)


def damaged_members(folder: Path) -> tuple[Refused, ...]:
    """The members that unpacking left out of ``folder``; none where the folder was placed by hand.

    A case that misses its file for that reason is refused by the build like any case without it.
    """
    found = read_record(folder)
    return found[0].refused if found else ()


def _rule(rule: Unpack) -> dict[str, Any]:
    """What of the rule decides the folder's content; never the password."""
    facts: dict[str, Any] = json.loads(rule.model_dump_json())
    return {name: facts[name] for name in ("format", "strip", "include", "nested", "in_place")}

"""A folder that another source has unpacked already: the same files under further names, without their bytes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medcurate.config.source import SourceFile, Unpack
from medcurate.errors import ConfigError
from medcurate.unpack.folder import commit_folder, fresh_folder, make_folders, sync_tree
from medcurate.unpack.record import RECORD_FILE, archive_facts, fits, read_record, same_rule


def makes_same_folder(file: SourceFile, other: SourceFile) -> bool:
    """Whether ``other``, the same archive to another source, becomes the same files."""
    rule, others = file.unpack, other.unpack
    return bool(rule and others and not rule.in_place and same_rule(rule, others))


def can_clone(file: SourceFile, other: SourceFile, other_folder: Path) -> bool:
    """Whether ``other`` is unpacked in its source's folder, and that is what ``file`` would become.

    Nothing is known of a folder that somebody placed there, or whose record is damaged.
    """
    rule, others = file.unpack, other.unpack
    if rule is None or others is None or not makes_same_folder(file, other):
        return False
    record = _record_of(other_folder / others.into, rule)
    known = record.get("archive", {}).get("sha256") if record else ""
    return record is not None and not (file.sha256 and known and known != file.sha256)


def can_clone_index(file: SourceFile, folder: Path, other: SourceFile, other_folder: Path) -> bool:
    """Whether the index of ``other`` is one to the archive of ``file``, which lies in ``folder``.

    An index names the archive's parts by paths from where it lies, and both must be the same files on disk.
    """
    rule, others = file.unpack, other.unpack
    if rule is None or others is None or not rule.in_place or not same_rule(rule, others):
        return False
    if (file.path, rule.into, rule.parts) != (other.path, others.into, others.parts):
        return False
    paths = [folder / name for name in (*rule.parts, file.path)]
    record = _record_of(other_folder / others.into, rule)
    if record is None or not all(path.is_file() for path in paths):
        return False
    return bool(record.get("archive", {}).get("files") == archive_facts(paths, "")["files"])


def clone(existing: Path, target: Path) -> bool:
    """Make the folder ``target`` of hard links to the files below ``existing``, its record among them.

    It appears whole or not at all. False where ``existing`` has no record, is not what its record says (files are
    gone, others or symbolic links have come), is changed meanwhile, or where there can be no hard links. Raises
    OutputError.
    """
    with fresh_folder(target) as folder:
        try:
            before = _state(existing)
            linked = _link_files(existing, folder)
            whole = before is not None and linked == before.files and _state(existing) == before
        except (OSError, ConfigError):
            return False
        if not whole:
            return False
        sync_tree(folder)
        commit_folder(folder, target)
    return True


def _record_of(folder: Path, rule: Unpack) -> dict[str, Any] | None:
    """The record of ``folder`` where that is what ``rule`` makes."""
    try:
        found = read_record(folder)
    except ConfigError:  # told to the commands that are about its own source
        return None
    return found[1] if found and fits(found[1], rule, None) else None


@dataclass(frozen=True, slots=True)
class _State:
    """Which folder has a name, by its record's place on the disk, and how many files it was made with."""

    folder: tuple[int, int]
    record: tuple[int, int, int]
    files: int


def _state(folder: Path) -> _State | None:
    """None where ``folder`` has no record. Raises ConfigError where that is damaged; OSError."""
    found = read_record(folder)
    if found is None:
        return None
    whole, record = os.stat(folder), os.stat(folder / RECORD_FILE)
    in_place = found[1].get("rule", {}).get("in_place")
    return _State(
        folder=(whole.st_dev, whole.st_ino),
        record=(record.st_dev, record.st_ino, record.st_mtime_ns),
        files=2 if in_place else found[0].files + 1,  # the record, and the index or what came out
    )


def _link_files(existing: Path | str, folder: Path) -> int:
    """Link every file; returns how many. Raises OSError, also where there is something else than files."""
    count = 0
    with os.scandir(existing) as entries:
        for entry in entries:
            place = folder / entry.name
            if entry.is_dir(follow_symlinks=False):
                make_folders(str(place))
                count += _link_files(entry.path, place)
            elif entry.is_file(follow_symlinks=False):
                os.link(entry.path, place)
                count += 1
            else:
                raise OSError(f"{entry.path}: neither a file nor a folder")
    return count

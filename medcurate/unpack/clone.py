"""A folder that another source has unpacked already: the same files under further names, without their bytes."""

from __future__ import annotations

import os
from pathlib import Path

from medcurate.config.source import SourceFile
from medcurate.unpack.folder import commit_folder, fresh_folder, make_folders, sync_tree
from medcurate.unpack.needed import is_unpacked
from medcurate.unpack.record import archive_facts, read_record, same_rule


def makes_same_folder(file: SourceFile, other: SourceFile) -> bool:
    """Whether ``other``, the same archive to another source, becomes the same files."""
    rule, others = file.unpack, other.unpack
    return bool(rule and others and not rule.in_place and same_rule(rule, others))


def can_clone(file: SourceFile, other: SourceFile, other_folder: Path) -> bool:
    """Whether ``other`` is unpacked in its source's folder, and that is what ``file`` would become.

    Raises ConfigError where the record of that folder is damaged.
    """
    if not makes_same_folder(file, other) or not is_unpacked(other, other_folder):
        return False
    assert other.unpack is not None
    found = read_record(other_folder / other.unpack.into)
    known = found[1].get("archive", {}).get("sha256") if found else ""
    return not (file.sha256 and known and known != file.sha256)


def can_clone_index(file: SourceFile, folder: Path, other: SourceFile, other_folder: Path) -> bool:
    """Whether the index of ``other`` is one to the archive of ``file``, which lies in ``folder``.

    An index names the archive's parts by paths from where it lies, and both must be the same files on disk.
    Raises ConfigError where the record of that index is damaged.
    """
    rule, others = file.unpack, other.unpack
    if rule is None or others is None or not rule.in_place or not same_rule(rule, others):
        return False
    if (file.path, rule.into, rule.parts) != (other.path, others.into, others.parts):
        return False
    paths = [folder / name for name in (*rule.parts, file.path)]
    found = read_record(other_folder / others.into)
    if found is None or not all(path.is_file() for path in paths):
        return False
    return bool(found[1].get("archive", {}).get("files") == archive_facts(paths, "")["files"])


def clone(existing: Path, target: Path) -> bool:
    """Make the folder ``target`` of hard links to the files below ``existing``, its record among them.

    It appears whole or not at all. False where ``existing`` is changed meanwhile, or there can be no hard links.
    Raises OutputError.
    """
    with fresh_folder(target) as folder:
        try:
            _link_files(existing, folder)
        except OSError:
            return False
        sync_tree(folder)
        commit_folder(folder, target)
    return True


def _link_files(existing: Path, folder: Path) -> None:
    for parent, _, names in os.walk(existing, onerror=_raise):
        here = folder / os.path.relpath(parent, existing)
        if not here.is_dir():
            make_folders(str(here))
        for name in names:
            os.link(os.path.join(parent, name), here / name)


def _raise(error: OSError) -> None:
    raise error

"""An archive to a folder, which appears whole, with its record inside, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from medcurate.config.source import Unpack
from medcurate.errors import ConfigError, DataMissing
from medcurate.progress import progress
from medcurate.unpack.folder import commit_folder, fresh_folder, sync_tree
from medcurate.unpack.formats import check_tar_room, unpack_one
from medcurate.unpack.in_place import index_archive
from medcurate.unpack.limits import Budget, Limits, Stop
from medcurate.unpack.record import (
    DAMAGED,
    TOO_LARGE,
    Unpacked,
    archive_facts,
    fits,
    read_record,
    write_record,
)
from medcurate.unpack.room import check_room, room_bytes
from medcurate.unpack.siblings import Sibling, Siblings, siblings
from medcurate.unpack.sink import NESTED_FOLDER, Nested, Sink, Tally


class DamagedArchive(ConfigError):
    """The archive's bytes are at fault, not the rule that it is unpacked by nor what this machine lacks."""


def unpack(
    archive: Path,
    target: Path,
    rule: Unpack,
    parts: Sequence[Path] = (),
    *,
    sha256: str = "",
    limits: Limits | None = None,
    others: Iterable[Sibling] = (),
) -> Unpacked:
    """Make the folder ``target`` of ``archive`` and, before it, its other ``parts``; nothing where it is there.

    ``sha256``: the archive's, where the caller knows it; then a touched archive is not unpacked again. A
    folder without a record was placed by hand and is left alone. A folder whose archive or rule has changed
    is replaced. Members that are unsafe or damaged are left out and recorded (see ``damaged_members``).

    ``others``: folders that other rules make of the same archive; what these have is linked.

    With ``rule.in_place`` the folder holds an index, and the files are read inside of the archive.

    Raises DamagedArchive where the archive is cut, damaged or of an unknown kind, naming its last good member;
    another ConfigError where it is hostile or its rule does not fit it; DataMissing where it is not there; OutputError
    and DiskFull; and never leaves a part of a folder.
    """
    paths = [*parts, archive]
    there = _already(paths, target, rule, sha256)
    if there:
        return there
    limits = limits or Limits(ratio=rule.ratio)
    with fresh_folder(target) as folder:
        make = (
            partial(_index, target=target)
            if rule.in_place
            else partial(_fill, known=siblings(rule, sha256, others))
        )
        tally = make(paths, folder, rule=rule, limits=limits)
        unpacked = tally.unpacked(target)
        write_record(unpacked, folder, rule, archive_facts(paths, sha256))
        if not rule.in_place:  # an index is durable already
            sync_tree(folder)
        commit_folder(folder, target)
    return unpacked


def _already(paths: Sequence[Path], target: Path, rule: Unpack, sha256: str) -> Unpacked | None:
    missing = [path for path in paths if not path.is_file()]
    if target.is_dir():
        found = read_record(target)
        if found is None:
            return Unpacked(folder=target, by_hand=True)
        if missing and rule.in_place:
            raise DataMissing(f"{missing[0]}: the archive is not there, and {target} reads it in place")
        if fits(found[1], rule, None if missing else archive_facts(paths, sha256)):
            return found[0]
    if missing:
        raise DataMissing(f"{missing[0]}: the archive is not there, and {target} was not unpacked from it")
    return None


def _index(paths: Sequence[Path], folder: Path, target: Path, rule: Unpack, limits: Limits) -> Tally:
    try:
        tally = index_archive(paths, folder, target, rule, limits)
    except Stop as stop:
        raise _error(rule, _stop_text(paths[-1], "", stop), damage=stop.damage) from stop
    if not tally.files:
        raise ConfigError(_nothing_text(paths[-1], tally))
    return tally


def _fill(paths: Sequence[Path], folder: Path, rule: Unpack, limits: Limits, known: Siblings) -> Tally:
    stored_bytes = sum(path.stat().st_size for path in paths)
    budget, tally = Budget(limits, stored_bytes), Tally()
    sink = Sink(folder, rule, budget, tally, known)
    try:
        _check_room(paths, sink, stored_bytes)
        with progress(f"unpacking {paths[-1].name}", stored_bytes, "B") as shown:
            unpack_one(paths, sink, rule.format, shown.advance)
            for nested in sink.nested:
                _unpack_nested(nested, sink, depth=1)
    except Stop as stop:
        raise _error(rule, _stop_text(paths[-1], sink.last_good[1], stop), damage=stop.damage) from stop
    tally.settle(folder)
    shutil.rmtree(folder / NESTED_FOLDER, ignore_errors=True)
    if not tally.files:
        damage = any(refused.reason == DAMAGED for refused in tally.refused)
        raise _error(rule, _nothing_text(paths[-1], tally), damage=damage)
    return tally


def _check_room(paths: Sequence[Path], sink: Sink, stored_bytes: int) -> None:
    """Raise DiskFull before the disk is filled. Of a tar only a part of which is wanted, reading tells how much."""
    if not sink.rule.include:
        check_room(sink.root, stored_bytes, 0)
    elif stored_bytes > room_bytes(sink.root):
        check_tar_room(paths, sink, sink.rule.format)


def _unpack_nested(nested: Nested, outer: Sink, depth: int) -> None:
    """Unpack an archive that was a member. A damaged one is left out whole, like any damaged member."""
    sink, name = outer.below(nested), "/".join(nested.name)
    try:
        if depth > outer.budget.limits.nesting:
            raise Stop(f"archives lie in archives more than {outer.budget.limits.nesting} deep", damage=False)
        unpack_one([nested.path], sink, "", lambda size: None)
        for deeper in sink.nested:
            _unpack_nested(deeper, sink, depth + 1)
    except Stop as stop:
        if not stop.damage:
            raise Stop(f"{name}: {stop}", damage=False) from stop
        sink.take_back()
        outer.refuse(name, DAMAGED, str(stop))
    nested.path.unlink(missing_ok=True)


def _error(rule: Unpack, text: str, *, damage: bool) -> ConfigError:
    """The error that says ``text``. Through a wrong password a whole archive reads as a damaged one."""
    return DamagedArchive(text) if damage and not rule.password else ConfigError(text)


def _stop_text(archive: Path, last_good: str, stop: Stop) -> str:
    last = f'The last good member is "{last_good}". ' if last_good else ""
    remedy = (
        "Nothing was unpacked and the archive was left alone. Compare its size and digest with its publisher's, "
        "remove it and run the same command again."
    )
    return f"{archive}: {stop}. {last}{remedy if stop.damage else 'Nothing was unpacked.'}"


def _nothing_text(archive: Path, tally: Tally) -> str:
    first = min(tally.refused, default=None)
    why = f'; "{first.member}" was left out: {first.reason}, {first.detail}' if first else ""
    remedy = (
        ", or raise ratio there if its publisher made it so" if first and first.reason == TOO_LARGE else ""
    )
    return (
        f"{archive}: nothing of it is left to unpack: {tally.unwanted:,} members do not match include or have no "
        f"name below strip, {tally.hidden:,} are hidden files, {len(tally.refused):,} were left out{why}. "
        f"Mend the unpack table of its source{remedy}, or get the archive again."
    )

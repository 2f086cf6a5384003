"""What stands in an output folder already: whether it is whole, and made of the files as they are now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medcurate.build.parts import changed_inputs
from medcurate.build.plan import SourcePlan
from medcurate.commit import sha256_file
from medcurate.errors import ConfigError
from medcurate.format import DATASET_FILE
from medcurate.format.record import FileRecord, read_record
from medcurate.progress import emit, progress


def stands_whole(out: Path) -> bool:
    """Whether ``out`` is a finished dataset with every file as recorded; names the files that are not."""
    if not (out / DATASET_FILE).is_file():
        return False
    files = read_record(out).files
    whole = True
    with progress("checking the finished dataset", len(files), "files") as bar:
        for name, facts in sorted(files.items()):
            if not _is_as_recorded(out / name, facts):
                emit("rebuild", file=name, why="missing or damaged")
                whole = False
            bar.advance(1)
    return whole


def _is_as_recorded(path: Path, facts: FileRecord) -> bool:
    return path.is_file() and path.stat().st_size == facts.size_bytes and sha256_file(path) == facts.sha256


def require_same_inputs(out: Path, plans: Sequence[SourcePlan]) -> None:
    """Raise ConfigError where ``out`` is finished, and the input files are not those that it was made of."""
    if not (out / DATASET_FILE).is_file():
        return
    recorded = read_record(out).sources
    for entry in plans:
        before = recorded[entry.source]
        changed = [name for job in entry.jobs for name in changed_inputs(job)]
        if changed or before["plan_sha256"] != entry.digest:
            then = before["counts"]["cases"]["discovered"]
            now = len(entry.discovery.cases) + len(entry.discovery.rejects)
            what = (
                f"{then} cases then, {now} now"
                if then != now
                else f"other content: {(changed or ['sizes'])[0]}"
            )
            raise ConfigError(
                f"{out}: the files of source {entry.source} in {entry.root} are not those that the dataset was made "
                f"of ({what}). Remove {out} and run again (parts of unchanged cases are kept), restore the files, or "
                "build into another folder."
            )

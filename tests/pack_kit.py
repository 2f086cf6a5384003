"""What the tests of pack and verify share."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

from medcurate.commit import sha256_file
from medcurate.engines.types import Failure, Outcome
from medcurate.format import DATASET_FILE, MANIFEST_FILE
from medcurate.pack.database import database
from medcurate.pack.dataset import pack_dataset
from medcurate.pack.tables import TABLES, write_summary
from medcurate.pack.types import PackRules


def inline(work, jobs, *, workers, limits, needs=()):
    """An engine in this process, for tests that are not about engines."""
    for job in jobs:
        try:
            yield Outcome(job, work(job, nullcontext))
        except Exception as error:
            yield Outcome(job, None, Failure("ERROR", "", str(error), error))


def pack(source: Path, out: Path, **rules: object) -> Path:
    """``pack_dataset`` in this process."""
    pack_dataset(source, out, PackRules(**rules), engine=inline, workers=1)
    return out


def summarise(folder: Path) -> None:
    """Write the summary of the manifest in ``folder``, and a record that names the tables as they are."""
    with TemporaryDirectory() as name, database(Path(name), [folder / MANIFEST_FILE]) as connection:
        write_summary(connection, folder, Path(name))
    record_again(folder, *(name for name in TABLES if (folder / name).is_file()))


def record_again(folder: Path, *names: str) -> None:
    """Make dataset.json agree with changed files: only their content can give them away then."""
    record = json.loads((folder / DATASET_FILE).read_bytes())
    for name in names:
        path = folder / name
        record["files"][name] = {"size_bytes": path.stat().st_size, "sha256": sha256_file(path)}
    (folder / DATASET_FILE).write_text(json.dumps(record))


def tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below ``folder``, by relative name."""
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }

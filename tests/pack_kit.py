"""What the tests of pack and verify share."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from medcurate.commit import sha256_file
from medcurate.engines.types import Failure, Outcome
from medcurate.pack.dataset import pack_dataset
from medcurate.pack.types import PackRules


def inline(work, jobs, *, workers, limits, preload=()):
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


def tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below ``folder``, by relative name."""
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }

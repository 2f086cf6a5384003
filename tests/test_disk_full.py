"""A full disk: nothing that killed workers left keeps it full, and what is said to be needed is near the truth."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, combinations
from pathlib import Path
from types import SimpleNamespace

import lab
import pytest
from kit import pieces, write_dataset

from medcurate.build.room import still_needed_bytes
from medcurate.build.run import BuildOptions, build
from medcurate.engines.types import Failure, Outcome
from medcurate.errors import DiskFull
from medcurate.format import DATASET_FILE
from medcurate.pack.dataset import pack_dataset
from medcurate.pack.types import PackRules


class FullDisk:
    """An engine whose first job finds the disk full, while the worker of another one is killed as it writes."""

    def __init__(self, folder: Path) -> None:
        self.left = folder / ".tmp-0123-another.tar"

    def run(self, work, jobs, *, workers, limits, needs=()) -> Iterator[Outcome]:
        self.left.parent.mkdir(parents=True, exist_ok=True)
        self.left.write_bytes(bytes(1000))
        yield Outcome(next(iter(jobs)), None, Failure("ERROR", "", "", DiskFull("disk full")))


def test_a_build_that_ends_on_a_full_disk_gives_back_what_its_workers_were_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = lab.lab(tmp_path, sources=1, cases=1)
    engine = FullDisk(tmp_path / "work" / "parts")
    monkeypatch.setattr("medcurate.build.run.load", lambda *_: engine)
    options = BuildOptions(
        data=tmp_path,
        out=tmp_path / "out",
        work=tmp_path / "work",
        engine="pool",
        workers=2,
        memory_bytes=1 << 30,
    )
    with pytest.raises(
        DiskFull, match=r"About [\d,]+ bytes are needed for the remaining parts and the shards"
    ):
        build(str(recipe), options)
    assert not engine.left.exists()


def test_a_pack_that_ends_on_a_full_disk_gives_back_what_its_workers_were_writing(tmp_path: Path) -> None:
    source, out = write_dataset(tmp_path / "in", pieces(8)), tmp_path / "out"
    engine = FullDisk(out / "shards")
    with pytest.raises(DiskFull):
        pack_dataset(source, out, PackRules(), engine=engine.run, workers=2)
    assert not engine.left.exists()
    assert not (out / DATASET_FILE).exists()


# Source, dimensions, bytes in and bytes out of the quickstart's parts.
QUICKSTART = (
    ("mni152-tissues", 3, 5_136_051, 2_305_024),
    ("synthetic-ct-phantom", 3, 29_496_832, 4_028_416),
    ("dsb2018-nuclei-sample", 2, 1_049_088, 203_776),
)


@pytest.mark.parametrize(
    "finished", list(chain.from_iterable(combinations(range(3), number) for number in range(3)))
)
def test_what_is_needed_is_near_what_will_be_written(finished: tuple[int, ...]) -> None:
    jobs = [
        SimpleNamespace(id=source, size_bytes=size, source=SimpleNamespace(id=source, dimensions=dimensions))
        for source, dimensions, size, _ in QUICKSTART
    ]
    records = {QUICKSTART[at][0]: SimpleNamespace(tar_bytes=QUICKSTART[at][3]) for at in finished}
    parts_and_shards = 2 * sum(entry[3] for entry in QUICKSTART)
    needed = parts_and_shards - sum(record.tar_bytes for record in records.values())
    assert 0.5 * needed < still_needed_bytes(jobs, records) < 2.2 * needed


def test_finished_parts_of_a_source_tell_what_its_others_take() -> None:
    source = SimpleNamespace(id="lab", dimensions=3)
    jobs = [SimpleNamespace(id=f"{n}", size_bytes=1000, source=source) for n in range(4)]
    assert still_needed_bytes(jobs, {"0": SimpleNamespace(tar_bytes=1400)}) == 2 * 3 * 1400 + 1400

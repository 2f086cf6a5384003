"""Guards of a build that only show when something is wrong: each is met here by the fault that it is for."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path

import lab
import pyarrow.parquet as pq
import pytest
from pack_kit import inline, pack
from typer.testing import CliRunner

from medcurate.cli.main import app
from medcurate.errors import ConfigError
from medcurate.verify.run import verify_dataset


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return lab.lab(tmp_path, sources=1, cases=2)


def records(out: Path) -> list[Path]:
    """The records of all parts of the build into ``out``."""
    return sorted((out.with_name(f"{out.name}.work") / "parts").glob("*[0-9a-f].json"))


def alter_counts(out: Path, kind: str, **changes: int) -> None:
    """Let the record of one part say that it counted something else."""
    path = records(out)[0]
    record = json.loads(path.read_bytes())
    for name, change in changes.items():
        record["counts"][kind][name] += change
    path.write_text(json.dumps(record))


@pytest.mark.parametrize("kind", ["cases", "slices", "masks"])
@pytest.mark.parametrize("name", ["discovered", "rejected"])
def test_what_was_neither_written_nor_refused_stops_the_build(
    recipe: Path, tmp_path: Path, kind: str, name: str
) -> None:
    out = tmp_path / "out"
    lab.build(recipe, out)
    shutil.rmtree(out)
    alter_counts(out, kind, **{name: 1})
    failed = lab.build(recipe, out, code=1)
    assert f" {kind} discovered, but " in failed.stderr
    assert "something was lost" in failed.stderr
    assert not (out / "dataset.json").exists()


@pytest.mark.parametrize("kind", ["slices", "masks"])
def test_what_the_parts_held_and_the_shards_do_not_stops_the_build(
    recipe: Path, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "out"
    lab.build(recipe, out)
    shutil.rmtree(out)
    alter_counts(out, kind, discovered=1, written=1)
    failed = lab.build(recipe, out, code=1)
    assert f" {kind} in the parts, but " in failed.stderr
    assert not (out / "dataset.json").exists()


def dying(folder: Path, script: str, *, deaths: int) -> dict[str, str]:
    """An environment in which workers die as ``script`` has it, the first ``deaths`` times."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(script.format(folder=str(folder), deaths=deaths))
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return lab.environment(PYTHONPATH=os.pathsep.join(paths))


# As when the system takes memory back: nothing is wrong with the file called "…dies…" that is just being read.
_DYING_READER = """
import os, signal
from pathlib import Path
import medcurate.readers.files as files
read = files.CaseFiles.read
def dying(self, path):
    if "dies" in path.name and len(list(Path({folder!r}).glob("death-*"))) < {deaths}:
        Path({folder!r}, f"death-{{os.getpid()}}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, path)
files.CaseFiles.read = dying
"""


@pytest.mark.parametrize(("deaths", "refused"), [(1, []), (2, ["p5_dies"])])
def test_only_a_case_that_ends_two_workers_is_refused(
    recipe: Path, tmp_path: Path, deaths: int, refused: list[str]
) -> None:
    lab.write_pair(tmp_path / "lab-a", "p5_dies", *lab.volume(5))
    env = dying(tmp_path / "dying", _DYING_READER, deaths=deaths)
    out = tmp_path / "out"
    lab.build(recipe, out, "--workers", "1", env=env, code=3 if refused else 0)
    rejects = pq.read_table(out / "rejects.parquet").to_pylist()
    assert [row["case"] for row in rejects if row["reason"] == "DECODER_CRASH"] == refused
    assert len(list((tmp_path / "dying").glob("death-*"))) == deaths
    written = set(pq.read_table(out / "manifest.parquet")["case"].to_pylist())
    assert written == {"p0_scan", "p1_scan", "p5_dies"} - set(refused)


# All cases of a job of lab-a are done, and its tar and its tables have their names.
_DYING_COMMIT = """
import os, signal
from pathlib import Path
import medcurate.job.part as part
record = part._record
def dying(job, *rest):
    if job.source.id == "lab-a" and len(list(Path({folder!r}).glob("death-*"))) < {deaths}:
        Path({folder!r}, f"death-{{os.getpid()}}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return record(job, *rest)
part._record = dying
"""


def test_a_part_whose_commit_always_ends_the_worker_is_told_when_all_others_stand(tmp_path: Path) -> None:
    recipe = lab.lab(tmp_path, sources=2, cases=2)
    out = tmp_path / "out"
    failed = lab.build(
        recipe, out, "--workers", "2", env=dying(tmp_path / "dying", _DYING_COMMIT, deaths=9), code=1
    )
    assert len(list((tmp_path / "dying").glob("death-*"))) == 4  # two of them with no other worker
    assert "Traceback" not in failed.stderr
    for part in (
        "lab-a: job ",
        "(p0_scan to p1_scan)",
        "outside of any case",
        "SIGKILL",
        "run the same command again",
    ):
        assert part in failed.stderr
    assert [json.loads(path.read_bytes())["source"] for path in records(out)] == ["lab-b"]
    lab.build(recipe, out)
    assert len(records(out)) == 2


# As when memory runs out in the middle of a row group: what is written of the part cannot be taken back.
_NO_ROOM_FOR_ROWS = """
import medcurate.job.part as part
add = part._Part.add
def failing(self, case, result):
    add(self, case, result)
    if "big" in case.id:
        raise MemoryError
part._Part.add = failing
"""


def test_rows_that_memory_is_not_enough_for_cost_their_case_and_not_the_build(
    recipe: Path, tmp_path: Path
) -> None:
    lab.write_pair(tmp_path / "lab-a", "p0_big", *lab.volume(5))
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(_NO_ROOM_FOR_ROWS)
    out = tmp_path / "out"
    lab.build(recipe, out, "--workers", "1", env=lab.environment(PYTHONPATH=str(tmp_path / "site")), code=3)
    rejects = pq.read_table(out / "rejects.parquet", filters=[("stage", "=", "read")]).to_pylist()
    assert [(row["case"], row["reason"]) for row in rejects] == [("p0_big", "MEMORY")]
    written = pq.read_table(out / "manifest.parquet", columns=["case"])["case"].to_pylist()
    assert set(written) == {"p0_scan", "p1_scan"}


def test_parts_that_were_all_cut_are_all_built_again(tmp_path: Path) -> None:
    """As a file system leaves them that lost its last writes; pack alone would find them one by one."""
    recipe = lab.lab(tmp_path, sources=5, cases=1)
    out = tmp_path / "out"
    lab.build(recipe, out)
    before = lab.digests(out)
    shutil.rmtree(out)
    tars = [path.with_suffix(".tar") for path in records(out)]
    assert len(tars) == 5
    for path in tars:
        os.truncate(path, path.stat().st_size // 2)
    done = lab.build(recipe, out)
    assert "rebuild" not in done.stderr
    assert lab.digests(out) == before


def test_parts_whose_ends_are_zeros_are_all_built_again(tmp_path: Path) -> None:
    """As a loss of power leaves files whose length came to the disk and whose content did not."""
    recipe = lab.lab(tmp_path, sources=5, cases=1)
    out = tmp_path / "out"
    lab.build(recipe, out)
    before = lab.digests(out)
    shutil.rmtree(out)
    shutil.rmtree(tmp_path / "out.work" / "pack")
    tars = [path.with_suffix(".tar") for path in records(out)]
    for path in tars[1:]:
        size_bytes = path.stat().st_size
        os.truncate(path, size_bytes // 2)
        os.truncate(path, size_bytes)
    done = lab.build(recipe, out)
    assert [path.name in done.stderr for path in tars] == [False, True, True, True, True]
    assert lab.digests(out) == before


@pytest.mark.parametrize("table", ["manifest", "rejects"])
def test_a_part_whose_table_is_damaged_is_built_again(recipe: Path, tmp_path: Path, table: str) -> None:
    out = tmp_path / "out"
    lab.build(recipe, out)
    before = lab.digests(out)
    shutil.rmtree(out)
    shutil.rmtree(tmp_path / "out.work" / "pack")
    path = records(out)[0].with_suffix(f".{table}.parquet")
    content = bytearray(path.read_bytes())
    for place in range(8, len(content), len(content) // 16):
        content[place] ^= 1
    path.write_bytes(content)
    done = lab.build(recipe, out)
    assert "rebuild" not in done.stderr
    assert lab.digests(out) == before


def test_an_erratum_that_names_no_case_is_told_and_recorded(tmp_path: Path) -> None:
    errata = ["p1_scan", "p1-scan"]
    more = "".join(f'[[errata]]\ncase = "{name}"\nreason = "turned"\n' for name in errata)
    lab.write_source(tmp_path, "lab-a", cases=2, more=more)
    done = lab.build(lab.write_recipe(tmp_path, "lab-a"), tmp_path / "out")
    assert "errata of lab-a that name no case" in done.stdout
    assert "errata[1] (p1-scan)" in done.stdout
    assert "errata[0]" not in done.stdout
    facts = json.loads((tmp_path / "out" / "dataset.json").read_bytes())["sources"]["lab-a"]
    assert facts["idle_errata"] == ["errata[1] (p1-scan)"]
    assert facts["refused"] == {"ERRATUM": 1}


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "it's [1] *"
    recipe = lab.lab(folder, sources=1, cases=1)
    out = folder / "[a] b"
    done = lab.build(recipe, out)
    assert f"medcurate verify {shlex.quote(str(out))}" in done.stdout
    status = CliRunner().invoke(app, ["status", str(out)], catch_exceptions=False).stdout
    assert f"{out}: finished" in status
    packed = pack(out, folder / "[b]", where="area_px > 0")
    assert not verify_dataset(packed, engine=inline).count


def test_damaged_notes_of_the_work_folder_are_made_again(recipe: Path, tmp_path: Path) -> None:
    out, work = tmp_path / "out", tmp_path / "out.work"
    lab.build(recipe, out)
    before = lab.digests(out)
    (out / "dataset.json").unlink()
    for path in (work / "plan.json", *(work / "pack").glob("*.json")):
        path.write_text("{")
    status = CliRunner().invoke(app, ["status", str(out)], catch_exceptions=False).stdout
    assert "stopped; run the same build command again" in status
    lab.build(recipe, out)
    assert lab.digests(out) == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--out", "/"), "Give a folder below it"),
        (("--out", "recipe.toml"), "is a file"),
        (("--out", "out", "--work", "out/work"), "must lie outside of the output"),
    ],
)
def test_a_folder_that_cannot_be_one_is_an_error_of_one_line(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.toml").touch()
    with pytest.raises(ConfigError, match=says):
        CliRunner().invoke(
            app, ["build", "--recipe", str(recipe), "--data", ".", *words], catch_exceptions=False
        )
    assert not (tmp_path / "out").exists()

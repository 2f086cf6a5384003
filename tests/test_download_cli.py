"""The verb ``download``, and a build whose files are not there yet."""

from __future__ import annotations

import gzip
import io
import json
import tomllib
import zipfile
from pathlib import Path

import build_kit
import pyarrow.parquet as pq
import pytest
from download_kit import sha256
from fault_server import Fault, fault_server
from typer.testing import CliRunner

from medcurate.cli.main import app
from medcurate.errors import ConfigError, DataMissing, MedcurateError
from medcurate.library import load_source, source_path
from medcurate.phantom import generate
from medcurate.progress import configure


@pytest.fixture(autouse=True)
def progress_as_before():
    yield
    configure("auto")


def run(*words: object) -> str:
    """Standard output of the command; its errors come through."""
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False).output


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> bytes:
    """Two generated volumes with labels, zipped under one top folder."""
    place = tmp_path_factory.mktemp("phantom")
    stream = io.BytesIO()
    files = load_source("synthetic-ct-phantom").files
    with zipfile.ZipFile(stream, "w") as zipped:
        for file in files[:2]:
            generate(file.origin.generator, place / Path(file.path).name)
            zipped.write(place / Path(file.path).name, f"top/{file.path}")
    return stream.getvalue()


def recipe(folder: Path, url: str, archive: bytes, suffix: str = ".nii", **facts) -> Path:
    """A recipe over a source that is ``archive`` behind ``url``."""
    phantom = tomllib.loads(source_path("synthetic-ct-phantom").read_text(encoding="utf-8"))
    file = {
        "path": "set.zip",
        "origin": {"url": f"{url}/set.zip"},
        "sha256": sha256(archive),
        "unpack": {"into": "set", "strip": 1},
    }
    pairings = phantom["pairings"]
    pairings[0]["options"] |= {"images": "set/images", "labels": "set/labels"}
    pairings[0]["options"] |= {"image_suffix": suffix, "label_suffix": suffix}
    kept = {key: phantom[key] for key in ("modality", "image", "label", "labels")}
    name = build_kit.write_source(folder, "away", **kept, pairings=pairings, files=[file | facts])
    return build_kit.write_recipe(folder, [name])


def test_download_then_build_offline(tmp_path, archive):
    with fault_server() as server:
        served = server.serve("/set.zip", archive, [Fault(cut_bytes=10_000), Fault()])
        path = recipe(tmp_path, server.url, archive)
        data = tmp_path / "data"
        data.mkdir()
        with pytest.raises(DataMissing, match="Nothing is downloaded by this command"):
            run("build", "--recipe", path, "--data", data, "--out", tmp_path / "out", "--no-download")
        assert not served.requests
        said = run("download", "--recipe", path, "--data", data, "--log-format", "json")
        assert f"complete in {data}: away" in said
        assert len(served.requests) == 2
    run(
        "build",
        "--recipe",
        path,
        "--data",
        data,
        "--out",
        tmp_path / "out",
        "--no-download",
        "--engine",
        "serial",
    )
    record = json.loads((tmp_path / "out" / "dataset.json").read_bytes())
    assert record["sources"]["away"]["counts"]["cases"]["written"] == 1


def test_a_build_fetches_what_it_needs(tmp_path, archive):
    with fault_server() as server:
        server.serve("/set.zip", archive)
        path = recipe(tmp_path, server.url, archive)
        (tmp_path / "data").mkdir()
        run(
            "build",
            "--recipe",
            path,
            "--data",
            tmp_path / "data",
            "--out",
            tmp_path / "out",
            "--engine",
            "serial",
        )
    assert (tmp_path / "out" / "manifest.parquet").is_file()


def two_cases(folder: Path, damage: str) -> bytes:
    """An archive of two cases; of the first one's image either the file inside is damaged, or the zip's member."""
    files = load_source("synthetic-ct-phantom").files[:4]
    for file in files:
        generate(file.origin.generator, folder / file.path)
        (folder / f"{file.path}.gz").write_bytes(gzip.compress((folder / file.path).read_bytes()))
    victim = folder / f"{files[0].path}.gz"
    if damage == "inner file":
        victim.write_bytes(flipped(victim.read_bytes(), victim.stat().st_size // 2))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as zipped:
        for file in files:
            zipped.write(folder / f"{file.path}.gz", f"top/{file.path}.gz")
        start = zipped.infolist()[0].header_offset
    whole = stream.getvalue()
    return flipped(whole, start + victim.stat().st_size // 2) if damage == "member" else whole


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes((content[at] ^ 0x10,)) + content[at + 1 :]


@pytest.mark.parametrize(("damage", "reason"), [("inner file", "CORRUPT"), ("member", "UNPAIRED")])
def test_damage_inside_an_archive_whose_digest_is_right_costs_one_case(tmp_path, damage, reason):
    """Fault 14: TotalSegmentator's s0864, through download, digest, unpacking and the whole build."""
    content = two_cases(tmp_path / "made", damage)
    with fault_server() as server:
        server.serve("/set.zip", content)
        path = recipe(tmp_path, server.url, content, suffix=".nii.gz")
        (tmp_path / "data").mkdir()
        words = ["build", "--recipe", path, "--data", tmp_path / "data", "--out", tmp_path / "out"]
        done = CliRunner().invoke(app, [str(word) for word in (*words, "--engine", "serial")])
    assert done.exit_code == 3
    assert "refused cases: 1" in done.output
    counts = json.loads((tmp_path / "out" / "dataset.json").read_bytes())["sources"]["away"]["counts"][
        "cases"
    ]
    assert (counts["discovered"], counts["written"], counts["rejected"]) == (2, 1, 1)
    (row,) = pq.read_table(
        tmp_path / "out" / "rejects.parquet", filters=[("stage", "in", ["pair", "read"])]
    ).to_pylist()
    assert (row["reason"], row["source"]) == (reason, "away")


def test_progress_has_rate_and_bytes(tmp_path, archive):
    with fault_server(bytes_per_s=len(archive) / 1.5) as server:
        server.serve("/set.zip", archive)
        recipe(tmp_path, server.url, archive)
        result = CliRunner().invoke(
            app,
            [
                "download",
                "--source",
                str(tmp_path / "away.toml"),
                "--data",
                str(tmp_path),
                "--log-format",
                "json",
            ],
        )
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    last = [line for line in lines if line["event"] == "progress" and line["title"] == "downloading away"][-1]
    assert last["done"] == last["total"] == len(archive)
    assert last["unit"] == "B"
    assert last["rate"] > 0


def test_where_no_licence_fits_nothing_is_called_complete(tmp_path):
    with pytest.raises(ConfigError, match="--licence commercial: no source is left; left out: kvasir-seg"):
        run("download", "--source", "kvasir-seg", "--licence", "commercial", "--data", tmp_path)


@pytest.mark.parametrize("words", [[], ["--source", "mni152-tissues", "--recipe", "quickstart"]])
def test_what_to_download_is_said_one_way(words, tmp_path):
    with pytest.raises(ConfigError, match="give either --source ID"):
        run("download", *words, "--data", tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        ["download", "--source", "mni152-tissues"],
        ["plan", "--recipe", "quickstart"],
        ["check", "mni152-tissues"],
        ["build", "--recipe", "quickstart"],
    ],
)
def test_every_verb_refuses_a_data_folder_that_is_not_there(words, tmp_path):
    with pytest.raises(ConfigError, match=r"--data \S+/raw: no such folder; .*mkdir -p"):
        run(*words, "--data", tmp_path / "raw")
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_data_folder(tmp_path):
    (tmp_path / "raw").touch()
    with pytest.raises(ConfigError, match=r"--data \S+/raw: is a file"):
        run("plan", "--recipe", "quickstart", "--data", tmp_path / "raw")


def test_packaged_sources_need_no_network(tmp_path):
    assert "complete" in run("download", "--source", "dsb2018-nuclei-sample", "--data", tmp_path)
    assert list((tmp_path / "dsb2018-nuclei-sample").glob("*.tif"))


def test_a_failure_is_one_sentence_and_no_traceback(tmp_path, archive):
    with fault_server() as server:
        server.serve("/set.zip", archive, [Fault(status=404)])
        path = recipe(tmp_path, server.url, archive)
        with pytest.raises(MedcurateError, match=r"set\.zip of away cannot be downloaded: .*404 Not Found"):
            run("download", "--recipe", path, "--data", tmp_path)

"""``medcurate plan``: what is fetched, placed by hand, written, and whether the disk holds it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import build_kit
import pytest
from download_kit import CONTENT, behind, fetch
from fault_server import Fault, fault_server
from typer.testing import CliRunner

from medcurate.cli.main import app
from medcurate.commit import write_json
from medcurate.config.source import Unpack
from medcurate.download import throughput
from medcurate.errors import ConfigError
from medcurate.forecast import rates
from medcurate.forecast.plan import Disk, Forecast, forecast
from medcurate.forecast.show import facts, lines, size_text, time_text
from medcurate.library import resolve, source_ids
from medcurate.unpack.record import Unpacked, write_record

ZIP = {"into": "img"}


def file(path: str, size_bytes: int | None = None, **facts: Any) -> dict[str, Any]:
    found = {"path": path, "origin": {"url": f"https://example.org/{path}"}, **facts}
    return found | ({} if size_bytes is None else {"size_bytes": size_bytes})


def write(folder: Path, *sources: Mapping[str, Any], **rules: Any) -> str:
    """A recipe over CT sources with ``sources``' facts; returns its path."""
    names = []
    for number, given in enumerate(sources):
        names.append(
            build_kit.write_source(
                folder,
                given.get("id", f"set-{number}"),
                **{
                    "modality": "ct",
                    "pairings": build_kit.flat_suffix(".nii", "_seg.nii"),
                    "image": {"reader": "nifti"},
                    "label": {"reader": "nifti", "decoder": "index"},
                    "labels": {"1": "liver", "2": "spleen"},
                    **given,
                },
            )
        )
    return str(build_kit.write_recipe(folder, names, **rules))


def told(recipe: str, folder: Path, workers: int = 2) -> Forecast:
    return forecast(resolve(recipe), folder / "data", folder / "out", workers)


def test_files_are_fetched_placed_by_hand_or_there(tmp_path: Path) -> None:
    files = [
        file("a.zip", 1000, sha256="0" * 64),
        file("b.zip"),
        file("c.zip", 500, origin={"by_hand": "register"}, md5="0" * 32),
        file("d.bin", 7),
    ]
    recipe = write(tmp_path, {"files": files})
    (tmp_path / "data/set-0").mkdir(parents=True)
    (tmp_path / "data/set-0/d.bin").write_bytes(b"1234567")
    inputs = told(recipe, tmp_path).sources[0].inputs
    assert (inputs.fetch, inputs.fetch_bytes) == (("a.zip", "b.zip"), 1000)
    assert (inputs.by_hand, inputs.by_hand_bytes) == (("c.zip",), 500)
    assert (inputs.there, inputs.travelling, inputs.digests, inputs.unknown_sizes) == (1, 4, 2, 1)


def test_an_archive_whose_folder_is_there_is_not_fetched(tmp_path: Path) -> None:
    files = [file("a.z01", 900), file("a.zip", 1000, unpack=ZIP | {"parts": ["a.z01"]})]
    recipe = write(tmp_path, {"files": files})
    assert told(recipe, tmp_path).sources[0].inputs.unpack_bytes == 1900
    (tmp_path / "data/set-0/img").mkdir(parents=True)
    inputs = told(recipe, tmp_path).sources[0].inputs
    assert (inputs.fetch, inputs.there, inputs.unpack_bytes) == ((), 2, 0)


def test_an_index_does_not_stand_for_the_archive_that_it_reads(tmp_path: Path) -> None:
    """What a build would fetch is what is told, and nothing is unpacked from an archive that is read in place."""
    recipe = write(tmp_path, {"files": [file("a.zip", 1000, unpack=ZIP | {"in_place": True})]})
    folder = tmp_path / "data/set-0/img"
    folder.mkdir(parents=True)
    rule = Unpack.model_validate(ZIP | {"in_place": True})
    write_record(Unpacked(folder=folder), folder, rule, {"files": [], "sha256": ""})
    inputs = told(recipe, tmp_path).sources[0].inputs
    assert (inputs.fetch, inputs.fetch_bytes, inputs.unpack_bytes) == (("a.zip",), 1000, 0)


def test_a_recorded_download_counts_as_a_known_digest(tmp_path: Path) -> None:
    recipe = write(tmp_path, {"files": [file("a.zip")]})
    (tmp_path / "data/set-0").mkdir(parents=True)
    entry = {"sha256": "0" * 64, "size_bytes": 77, "url": "", "etag": "", "date": ""}
    write_json(tmp_path / "data/set-0/downloads.lock.json", {"a.zip": entry})
    inputs = told(recipe, tmp_path).sources[0].inputs
    assert (inputs.digests, inputs.fetch_bytes, inputs.unknown_sizes) == (1, 77, 0)


def test_a_token_in_the_environment_makes_it_automatic(tmp_path: Path, monkeypatch) -> None:
    origin = {"kaggle": "owner/name", "resource": "a.zip", "by_hand": "log in"}
    recipe = write(tmp_path, {"files": [file("a.zip", 9, origin=origin)]})
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert told(recipe, tmp_path).sources[0].inputs.by_hand
    monkeypatch.setenv("KAGGLE_API_TOKEN", "x")
    assert told(recipe, tmp_path).sources[0].inputs.fetch


def test_what_is_written_follows_cases_channels_and_axes(tmp_path: Path) -> None:
    channels = {
        "channels": [{"name": "a", "component": 0}, {"name": "b", "component": 1}],
    }
    recipe = write(tmp_path, {"cases": 10}, {"cases": 10, **channels}, {}, slices={"axes": ["x", "y", "z"]})
    one, two, unknown = (row.outputs for row in told(recipe, tmp_path).sources)
    assert one.images == 10 * 3 * rates.PLANES_PER_VOLUME
    assert two.images == 2 * one.images
    assert one.masks == 2 * one.images  # two labels, fewer than the mean of masks
    assert one.seconds == pytest.approx(one.images / 432)
    assert unknown.images is None
    assert (
        told(recipe, tmp_path, workers=1).build_seconds == 2 * told(recipe, tmp_path, workers=2).build_seconds
    )


def test_a_lab_s_own_folder_is_counted(tmp_path: Path) -> None:
    """Where its files are: below --data, or beside its own TOML file."""
    recipe = write(tmp_path, {}, {"id": "beside"}, {"id": "empty"})
    here, beside = tmp_path / "data/set-0", tmp_path
    here.mkdir(parents=True)
    for folder, names in (
        (here, ("a.nii", "a_seg.nii", "b.nii", "b_seg.nii", "lost.nii")),
        (beside, ("c.nii",)),
    ):
        for name in names:
            (folder / name).write_bytes(b"x" * 1000)
    (tmp_path / "c_seg.nii").write_bytes(b"y" * 500)
    (tmp_path / "data/empty").mkdir()
    found = told(recipe, tmp_path)
    first, second, third = (row.own for row in found.sources)
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.cases, first.files, first.size_bytes) == (2, 4, 4000)
    assert (second.cases, second.files, second.size_bytes) == (1, 2, 1500)
    assert third.cases is None
    assert [row.outputs.cases for row in found.sources] == [2, 1, None]
    assert any(line.startswith("not there: empty: no case found in ") for line in lines(found))
    shown = CliRunner().invoke(app, ["plan", "--recipe", recipe, "--data", str(tmp_path / "data")]).stdout
    assert "4: 4.0 kB" in shown
    assert facts(found)["sources"][0]["own"]["size_bytes"] == 4000


def test_the_time_of_downloads_is_measured_where_there_were_any(tmp_path: Path, monkeypatch) -> None:
    files = [file("a.zip", 100_000_000)]
    recipe = write(tmp_path, {"files": files})
    before = told(recipe, tmp_path)
    assert before.download_seconds == 8.0
    assert "8 s at 100 Mbit/s (assumed" in "\n".join(lines(before))
    monkeypatch.setattr(throughput, "LEAST_BYTES", 1)
    with fault_server() as server:
        server.serve("/a.zip", CONTENT)
        assert not fetch(tmp_path / "data", behind(f"{server.url}/a.zip")).errors
    (entry,) = json.loads((tmp_path / "data" / throughput.FILE).read_bytes())
    assert entry["received_bytes"] == len(CONTENT)
    after = told(recipe, tmp_path)
    assert after.download_bytes_per_second == len(CONTENT) / entry["seconds"]
    assert after.download_seconds == pytest.approx(1e8 / len(CONTENT) * entry["seconds"])
    assert "(measured, the last download into this folder)" in "\n".join(lines(after))
    assert facts(after)["download_rate_measured"]


def test_what_came_of_files_that_failed_counts_as_their_time_does(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(throughput, "LEAST_BYTES", 1)
    with fault_server() as server:
        server.serve("/a.zip", CONTENT, [Fault(cut_bytes=300_000), Fault(status=404)])
        assert fetch(tmp_path, behind(f"{server.url}/a.zip")).errors
    known = throughput.measured(tmp_path)
    assert known is not None
    assert known.received_bytes == 300_000


def test_a_rate_that_cannot_be_kept_fails_no_download(tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.setattr(throughput, "LEAST_BYTES", 1)
    (tmp_path / throughput.FILE).mkdir()
    with fault_server() as server:
        server.serve("/a.zip", CONTENT)
        fetch(tmp_path, behind(f"{server.url}/a.zip")).check()
    assert (tmp_path / "lab/a.zip").read_bytes() == CONTENT
    assert "download rate not kept" in capfd.readouterr().err


def test_rates_are_summed_and_a_damaged_record_is_no_rate(tmp_path: Path) -> None:
    throughput.note(tmp_path, 9_999_999, 1.0)  # too little to tell anything
    assert throughput.measured(tmp_path) is None
    for number in range(30):
        throughput.note(tmp_path, 10_000_000 * (number + 1), 10.0)
    known = throughput.measured(tmp_path)
    assert known is not None
    assert (known.downloads, known.bytes_per_second) == (20, 20_500_000.0)
    for content in (b"", b"{", b"{}", b'[1, {"seconds": 0, "received_bytes": 5}]'):
        (tmp_path / throughput.FILE).write_bytes(content)
        assert throughput.measured(tmp_path) is None


def test_a_short_disk_is_refused_with_what_it_lacks() -> None:
    disk = {"path": Path("/x"), "needed_bytes": 10, "free_bytes": 10, "needed_inodes": 5, "free_inodes": 5}
    assert not Disk(**disk).short
    assert "about 11 bytes are needed and 10 are free" in Disk(**disk | {"needed_bytes": 11}).short
    assert "about 6 inodes are needed and 5 are free" in Disk(**disk | {"needed_inodes": 6}).short
    assert not Disk(**disk | {"needed_inodes": 6, "free_inodes": None}).short


def test_the_command_refuses_when_the_disk_is_short(tmp_path: Path) -> None:
    recipe = write(tmp_path, {"files": [file("a.zip", 1 << 60)]})
    with pytest.raises(ConfigError, match="bytes are needed and"):
        told(recipe, tmp_path).check()
    done = CliRunner().invoke(app, ["plan", "--recipe", recipe, "--data", str(tmp_path)])
    assert isinstance(done.exception, ConfigError)
    assert "set-0" in done.stdout  # the plan is shown all the same


def test_needs_are_held_against_the_file_system_that_they_fall_on(tmp_path: Path) -> None:
    recipe = write(tmp_path, {"cases": 3, "files": [file("a.zip", 1000, unpack=ZIP)]})
    (disk,) = told(recipe, tmp_path).disks
    written = told(recipe, tmp_path).sources[0].outputs.size_bytes
    assert disk.needed_bytes == 1000 + 1000 + 2 * (written or 0)
    assert disk.free_bytes <= os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize


def test_lines_name_overlaps_winners_terms_and_manual_steps(tmp_path: Path) -> None:
    sources = [
        {"id": "kits19", "files": [file("a.zip", origin={"by_hand": "register"})], "access": "registration"},
        {"id": "kits23"},
    ]
    found = told(write(tmp_path, *sources), tmp_path)
    text = "\n".join(lines(found))
    assert "overlap: kits23 contains kits19 (patients are joined by their ids; kits23 wins)" in text
    assert "terms to accept with --accept-licence: kits19" in text
    assert "by hand: kits19: 1 file (registration)" in text
    assert "to write: about 0 images and 0 masks, without 2 sources of unknown" in text
    by_id = {source["id"]: source for source in facts(found)["sources"]}
    assert by_id["kits19"]["beaten_by"] == ("kits23",)
    dropped = told(write(tmp_path, *sources, lineage="drop"), tmp_path)
    assert "left out: kits19: kits23 contains kits19" in "\n".join(lines(dropped))
    assert [row.source.id for row in dropped.sources] == ["kits23"]


def test_what_is_packaged_is_foretold_whole_as_a_newcomer_asks_first(tmp_path: Path) -> None:
    words = ["plan", "--recipe", "quickstart", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    told = CliRunner().invoke(app, words, catch_exceptions=False).stdout
    assert "?" not in told
    assert "unknown" not in told
    assert "to write: about 901 images" in told


def test_one_of_a_thing_is_told_in_the_singular(tmp_path: Path) -> None:
    found = told(write(tmp_path, {"files": [file("a.zip")]}), tmp_path, workers=1)
    text = "\n".join(lines(found))
    assert "to fetch: 1 file; not counting 1 file of unknown size" in text
    assert "without 1 source of unknown case count; 0 s on 1 core" in text


def test_an_output_that_is_a_file_is_refused_as_by_a_build(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    out.touch()
    words = ["plan", "--recipe", "quickstart", "--data", str(tmp_path), "--out", str(out)]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception) == f"{out}: is a file. Give a new folder."


def test_json_is_whole_and_the_licence_filters(tmp_path: Path) -> None:
    closed = {"id": "closed", "licence": {"id": "CC-BY-NC-4.0", "commercial": "no"}}
    recipe = write(tmp_path, {}, closed)
    words = ["plan", "--recipe", recipe, "--data", str(tmp_path), "--json", "--licence", "commercial"]
    value = json.loads(CliRunner().invoke(app, words, catch_exceptions=False).stdout)
    assert [source["id"] for source in value["sources"]] == ["set-0"]
    why = "its licence is CC-BY-NC-4.0; commercial use: no"
    assert value["left_out"] == [{"source": "closed", "why": why}]
    assert not any(disk["short"] for disk in value["disks"])


def test_every_packaged_source_can_be_planned(tmp_path: Path) -> None:
    intensity = {"default": {"rule": "minmax"}}
    facts_of = {"name": "all", "title": "all", "sources": list(source_ids()), "intensity": intensity}
    recipe = build_kit.write_toml(tmp_path / "all.toml", facts_of)
    found = told(str(recipe), tmp_path)
    assert [row.source.id for row in found.sources] == list(source_ids())
    assert list(lines(found))


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e12, "2.5 TB")]
)
def test_sizes_are_readable(size_bytes: float, text: str) -> None:
    assert size_text(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (119, "119 s"), (600, "10.0 minutes"), (86_400 * 3, "3.0 days")]
)
def test_times_are_readable(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def test_bytes_of_an_archive_that_two_sources_name_count_once(tmp_path: Path) -> None:
    same = {"origin": {"url": "https://example.org/set.zip"}, "sha256": "0" * 64}
    rules = (ZIP, ZIP | {"into": "other"}, ZIP | {"include": ["ct/*"]})
    files = [file("a.zip", 1000, unpack=rule, **same) for rule in rules]
    recipe = write(tmp_path, *({"files": [one]} for one in files))
    found = told(recipe, tmp_path)
    assert [row.inputs.fetch_bytes for row in found.sources] == [1000, 0, 0]
    assert [row.inputs.unpack_bytes for row in found.sources] == [1000, 0, 1000]
    assert found.sources[2].inputs.shared == (("a.zip", "set-0"),)
    assert found.disks[0].needed_bytes == 3000
    text = "\n".join(lines(found))
    assert "shared: set-1: a.zip of set-0, counted there" in text
    assert "to fetch: 1 file, 1.0 kB" in text
    (tmp_path / "data/set-2").mkdir(parents=True)
    (tmp_path / "data/set-2/a.zip").write_bytes(b"")
    assert told(recipe, tmp_path).sources[2].inputs.there == 1


def test_the_packaged_sources_that_share_archives_plan_them_once(tmp_path: Path) -> None:
    pairs = ["picai", "picai-gland", "amos22-ct", "amos22-mr", "chaos-ct", "chaos-mr-t1", "chaos-mr-t2"]
    recipe = build_kit.write_toml(
        tmp_path / "all.toml",
        {"name": "all", "title": "all", "sources": pairs, "intensity": {"default": {"rule": "minmax"}}},
    )
    rows = {row.source.id: row.inputs for row in told(str(recipe), tmp_path).sources}
    for first, others in {
        "picai": ["picai-gland"],
        "amos22-ct": ["amos22-mr"],
        "chaos-ct": pairs[5:],
    }.items():
        assert rows[first].fetch
        for other in others:
            assert not rows[other].fetch
            assert {owner for _, owner in rows[other].shared} == {first}

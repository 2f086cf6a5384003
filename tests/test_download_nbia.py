"""Collections of NBIA, series by series: each answered as its API documents it."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path

import layouts
import pytest
from build_kit import write_toml
from fault_server import Fault
from layouts.proof import built_here, check
from lists_kit import contents, have, listing_server, plan_of, source
from pydicom import dcmread

from medcurate.build.fetch import Network
from medcurate.config.folder import Folder
from medcurate.download import nbia
from medcurate.download.listing import LIST_FILE, listed_files, with_lists
from medcurate.download.types import DownloadError
from medcurate.errors import ConfigError
from medcurate.forecast.plan import forecast
from medcurate.library import load_source, resolve


@pytest.fixture
def server(monkeypatch):
    with listing_server(monkeypatch) as state:
        yield state


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return stream.getvalue()


def test_a_collection_comes_series_by_series_and_is_unpacked(tmp_path, server, monkeypatch):
    monkeypatch.setenv("NBIA_ENDPOINT", server.url)
    series = [
        {"SeriesInstanceUID": "1.2.4", "Modality": "SEG", "PatientID": "p1"},
        {"SeriesInstanceUID": "1.2.3", "Modality": "CT", "PatientID": "p1"},
        {"SeriesInstanceUID": "1.2.5", "Modality": "MR", "PatientID": "p2"},
    ]
    asked = server.serve("/getSeries", json.dumps(series).encode())
    for uid in ("1.2.3", "1.2.4"):
        content = zipped(a_dcm=uid.encode(), LICENSE=b"CC BY")
        server.serve(f"/getImage?SeriesInstanceUID={uid}", content, [Fault(chunked=True)])
    found = source({"into": "set", "nbia": "A Collection", "modalities": ["CT", "SEG"]})
    folder = have(found, tmp_path)
    assert contents(folder / "set") == {
        f"{uid}/{name}": content
        for uid in ("1.2.3", "1.2.4")
        for name, content in (("a.dcm", uid.encode()), ("LICENSE", b"CC BY"))
    }
    assert len(asked.requests) == 1
    assert plan_of(found, tmp_path).there == 2
    # The same series again is another zip: its host made it anew.
    shutil.rmtree(folder / "set" / "1.2.3")
    shutil.rmtree(folder / "archives")
    server.serve("/getImage?SeriesInstanceUID=1.2.3", zipped(LICENSE=b"CC BY", a_dcm=b"1.2.3"))
    assert (have(found, tmp_path) / "set" / "1.2.3" / "a.dcm").read_bytes() == b"1.2.3"
    # What lies there is still what came.
    archive = folder / "archives" / "set" / "1.2.3.zip"
    archive.write_bytes(zipped(a_dcm=b"else"))
    with pytest.raises(ConfigError, match="recorded on"):
        have(found, tmp_path)


@pytest.mark.parametrize("name", ["lctsc", "hcc-tace-seg"])
def test_a_packaged_collection_is_fetched_and_built_from_the_archive_of_record(
    tmp_path, server, monkeypatch, name
):
    """Structure sets and segmentations as NBIA gives them: a zip a series, files in it that say nothing."""
    monkeypatch.setenv("NBIA_ENDPOINT", server.url)
    packaged = load_source(name)
    expected = layouts.make(packaged, tmp_path / "tree")
    listed = []
    for number, files in enumerate(series_of(tmp_path / "tree" / packaged.folders[0].into)):
        uid = f"1.2.{number}"
        headers = dcmread(files[0], stop_before_pixels=True)
        listed.append({"SeriesInstanceUID": uid, "Modality": headers.Modality, "Collection": "X"})
        content = zipped(**{f"1-{at}_dcm": path.read_bytes() for at, path in enumerate(files)})
        server.serve(f"/getImage?SeriesInstanceUID={uid}", content)
    server.serve("/getSeries", json.dumps(listed).encode())
    recipe = {"name": "r", "title": "", "sources": [name], "intensity": {"ct": {"rule": "minmax"}}}
    path = write_toml(tmp_path / "recipe.toml", recipe | {"slices": {"axes": ["z"]}})
    check(packaged, expected, built_here(str(path), tmp_path, network=Network()))


def series_of(folder: Path) -> list[list[Path]]:
    """The files of every series: those of a folder, and each label by itself."""
    labels = [[path] for path in sorted(folder.glob("labels/[!.]*.dcm"))]
    images = [sorted(path.glob("[!.]*.dcm")) for path in sorted(folder.iterdir()) if path.name != "labels"]
    return labels + [files for files in images if files]


def test_a_plan_knows_what_a_packaged_neighbour_s_folder_already_holds(tmp_path, server, monkeypatch):
    """Two packaged sources of one collection: what a build links is not told as a download."""
    monkeypatch.setenv("NBIA_ENDPOINT", server.url)
    uids = ("1.2.3", "1.2.4")
    series = [{"SeriesInstanceUID": uid, "Modality": "CT"} for uid in uids]
    server.serve("/getSeries", json.dumps(series).encode())
    neighbour, wanted = (load_source(name) for name in ("nsclc-radiomics", "plethora"))
    listed = with_lists([neighbour, wanted], tmp_path, ask=True)
    listed.check()
    there = next(file for file in listed.sources[0].files if "1.2.3" in file.path)
    archive = tmp_path / neighbour.id / there.path
    archive.parent.mkdir(parents=True)
    archive.write_bytes(zipped(a_dcm=b"1"))
    facts = {"name": "r", "title": "", "sources": [wanted.id], "intensity": {"ct": {"rule": "minmax"}}}
    resolved = resolve(str(write_toml(tmp_path / "recipe.toml", facts)))
    (row,) = forecast(resolved, tmp_path, tmp_path / "out", 1).sources
    assert [owner for path, owner in row.inputs.shared if path.endswith("1.2.3.zip")] == [neighbour.id]
    assert [path for path in row.inputs.fetch if path.endswith(tuple(f"{uid}.zip" for uid in uids))] == [
        path for path in row.inputs.fetch if path.endswith("1.2.4.zip")
    ]


def test_the_archive_is_asked_at_the_address_that_it_looks_after(monkeypatch):
    """Version 4, as its own tcia_utils does: help with those before it ended in October 2026."""
    monkeypatch.delenv("NBIA_ENDPOINT", raising=False)
    asked = []
    monkeypatch.setattr(
        nbia, "get_json", lambda _, url, **words: asked.append((url, words)) or [{"SeriesInstanceUID": "1.2"}]
    )
    (entry,) = nbia.contents(None, Folder(into="set", nbia="A Collection")).entries
    service = "https://nbia.cancerimagingarchive.net/nbia-api/services/v4"
    assert asked == [(f"{service}/getSeries", {"Collection": "A Collection"})]
    assert entry.origin.url == f"{service}/getImage?SeriesInstanceUID=1.2"


def test_a_collection_that_was_listed_at_another_address_stays_and_grows(tmp_path, monkeypatch):
    """A series is its UID: what lies there need not be removed because the service moved."""
    series = [
        {"SeriesInstanceUID": "1.2.3", "Modality": "CT"},
        {"SeriesInstanceUID": "1.2.4", "Modality": "SEG"},
    ]
    facts = {"into": "set", "nbia": "A Collection"}
    for modalities in (["CT"], ["CT", "SEG"]):
        with listing_server(monkeypatch) as server:  # each on a port of its own
            monkeypatch.setenv("NBIA_ENDPOINT", server.url)
            server.serve("/getSeries", json.dumps(series).encode())
            for uid in ("1.2.3", "1.2.4"):
                server.serve(f"/getImage?SeriesInstanceUID={uid}", zipped(a_dcm=uid.encode()))
            folder = have(source(facts | {"modalities": modalities}), tmp_path)
    assert contents(folder / "set") == {"1.2.3/a.dcm": b"1.2.3", "1.2.4/a.dcm": b"1.2.4"}


def test_series_that_were_listed_at_the_archive_s_former_address_are_asked_for_at_today_s(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("NBIA_ENDPOINT", raising=False)
    monkeypatch.setattr(nbia, "get_json", lambda *_, **__: [{"SeriesInstanceUID": "1.2"}])
    found = source({"into": "set", "nbia": "A Collection"})
    with_lists([found], tmp_path, ask=True).check()
    record = tmp_path / "lab" / LIST_FILE
    today = "https://nbia.cancerimagingarchive.net/nbia-api/services/v4"
    former = "https://services.cancerimagingarchive.net/nbia-api/services/v1"
    assert today in record.read_text()
    record.write_text(record.read_text().replace(today, former))
    (file,) = listed_files(found, tmp_path / "lab")
    assert file.origin.url == f"{today}/getImage?SeriesInstanceUID=1.2"


@pytest.mark.parametrize("answer", [b"[]", b""])
def test_a_collection_that_is_not_public_is_told(tmp_path, server, monkeypatch, answer):
    monkeypatch.setenv("NBIA_ENDPOINT", server.url)
    server.serve("/getSeries", answer)
    with pytest.raises(DownloadError, match='no public series of the collection "X"'):
        have(source({"into": "set", "nbia": "X"}), tmp_path)

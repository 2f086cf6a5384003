"""Whole folders by their host's list: Hugging Face and Dataverse, each answered as its API documents it."""

from __future__ import annotations

import json
import shutil
import sys
import time

import pytest
from download_kit import FAST, OTHER, behind, lab, sha256
from fault_server import Fault
from lists_kit import (
    CASES,
    COMMIT,
    LATER,
    contents,
    dataverse,
    have,
    hub,
    listing_server,
    on_dataverse,
    on_hub,
    plan_of,
    source,
)

from medcurate.build.fetch import OFFLINE, Network, collect, ensure
from medcurate.checks import source_problems
from medcurate.config.folder import Folder
from medcurate.config.identity import identity
from medcurate.download.listing import LIST_FILE, listed_files, with_lists
from medcurate.download.lockfile import JOURNAL, LOCK_FILE, LockFile
from medcurate.download.run import LOCK_FOLDER
from medcurate.download.types import DownloadError, NeedsRegistrationError, SourceChangedError
from medcurate.errors import ConfigError, DataMissing, MedcurateError
from medcurate.library import ontology
from medcurate.lock import locked
from medcurate.tables import check_model


@pytest.fixture
def server(monkeypatch):
    with listing_server(monkeypatch) as state:
        yield state


# --- Hugging Face ----------------------------------------------------------------------------------


def test_a_folder_of_the_hub_comes_whole_with_the_digests_that_the_hub_states(tmp_path, server):
    hub(server)
    found = on_hub()
    assert contents(have(found, tmp_path) / "data") == CASES
    recorded = {file.path: file for file in listed_files(found, tmp_path / "lab")}
    assert recorded["data/a_i.nii.gz"].sha256 == sha256(b"image a")
    assert {file.origin.revision for file in recorded.values()} == {COMMIT}


def test_a_list_is_asked_for_once_and_a_lost_file_comes_from_the_same_commit(tmp_path, server):
    tree = hub(server)
    found = on_hub()
    have(found, tmp_path)
    asked = len(tree.requests)
    hub(server, {**CASES, "c_i.nii.gz": b"image c"}, commit=LATER)
    (tmp_path / "lab" / "data" / "a_i.nii.gz").unlink()
    assert contents(have(found, tmp_path) / "data") == CASES
    assert len(tree.requests) == asked


def test_of_another_revision_nothing_is_mixed_into_the_folder(tmp_path, server):
    hub(server)
    later = {"a_i.nii.gz": b"later", "a_l.nii.gz": b"label a"}
    hub(server, later, commit=LATER)
    folder = have(on_hub(revision=COMMIT), tmp_path)
    with pytest.raises(ConfigError) as error:
        have(on_hub(revision=LATER), tmp_path)
    assert "has otherwise: data/a_i.nii.gz, data/b/b_i.nii.gz. Nothing was changed" in str(error.value)
    assert f"Remove {folder}/data" in str(error.value)
    assert contents(folder / "data") == CASES
    assert contents(have(on_hub(revision=COMMIT), tmp_path) / "data") == CASES
    shutil.rmtree(folder / "data")
    assert contents(have(on_hub(revision=LATER), tmp_path) / "data") == later


def test_what_is_no_longer_included_does_not_stay_among_the_rest(tmp_path, server):
    hub(server)
    folder = have(on_hub(), tmp_path)
    with pytest.raises(ConfigError, match=r"has otherwise: data/b/b_i\.nii\.gz\. Nothing"):
        have(on_hub(include=["a_*"]), tmp_path)
    (folder / "data" / "b" / "b_i.nii.gz").unlink()
    assert set(contents(have(on_hub(include=["a_*"]), tmp_path) / "data")) == {"a_i.nii.gz", "a_l.nii.gz"}
    assert contents(have(on_hub(), tmp_path) / "data") == CASES  # more than before needs no other room


def test_files_that_the_hub_gives_no_digest_of_come_anew_with_a_newer_list(tmp_path, server):
    """As the documentation has it: the record and the folder are removed to take a newer list."""
    hub(server, large=False)
    folder = have(on_hub(), tmp_path)
    later = {**CASES, "a_i.nii.gz": b"image a, mended"}
    hub(server, later, commit=LATER, large=False)
    (folder / LIST_FILE).unlink()
    shutil.rmtree(folder / "data")
    assert contents(have(on_hub(), tmp_path) / "data") == later


def test_a_dot_or_nothing_in_a_listed_path_is_the_folder_itself(tmp_path, server):
    dataverse(server, {"./a_i.nii.gz": b"image a", "b/.//b_i.nii.gz": b"image b"})
    assert set(contents(have(on_dataverse(server, include=["*", "b/*"]), tmp_path) / "data")) == {
        "a_i.nii.gz",
        "b/b_i.nii.gz",
    }


def test_only_what_is_included_comes(tmp_path, server):
    hub(server)
    folder = have(on_hub(include=["*_i.nii.gz", "b/**"]), tmp_path)
    assert set(contents(folder / "data")) == {"a_i.nii.gz", "b/b_i.nii.gz"}


def test_bytes_that_are_not_the_listed_ones_are_refused(tmp_path, server):
    hub(server, stated=lambda content: sha256(OTHER))
    with pytest.raises((DownloadError, SourceChangedError), match=f"expected sha256 {sha256(OTHER)}"):
        have(on_hub(include=["a_i.nii.gz"]), tmp_path)


@pytest.mark.parametrize("name", ["../../evil", "b/../../../evil", "evil\0"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, server, name):
    hub(server, {name: b"evil"})
    with pytest.raises(DownloadError, match="cannot be a file here"):
        have(on_hub(), tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.name == "evil"]


def test_two_names_that_are_one_file_on_some_disks_are_refused(tmp_path, server):
    hub(server, {"A.nii.gz": b"1", "a.nii.gz": b"2"})
    with pytest.raises(DownloadError, match="two of its files"):
        have(on_hub(), tmp_path)


def test_a_closed_repository_names_page_and_place(tmp_path, server):
    server.serve("/api/datasets/org/set", b"", [Fault(status=401)])
    with pytest.raises(NeedsRegistrationError) as error:
        have(on_hub(), tmp_path)
    assert "https://huggingface.co/datasets/org/set" in str(error.value)
    assert f"put them in {tmp_path}/lab/data" in str(error.value)


@pytest.mark.parametrize("path", ["/api/datasets/org/set", f"/api/datasets/org/set/tree/{COMMIT}/train"])
def test_a_hub_that_falls_silent_is_not_waited_for_for_ever(tmp_path, server, path):
    """Its library would: it sets no time-out where it lists."""
    hub(server)
    server.objects[path].script[:] = [Fault(stall_bytes=0, stalled_s=9)]
    started = time.monotonic()
    with pytest.raises(DownloadError, match="cannot be listed: no byte within the time-out"):
        have(on_hub(), tmp_path)
    assert time.monotonic() - started < 6


def test_while_the_hub_limits_requests_a_list_goes_on_where_it_was(tmp_path, server):
    """The library waits as long as the hub says, longer than a time-out: that is no silence."""
    tree = hub(server)
    listed = json.loads(tree.content)
    place = f"/api/datasets/org/set/tree/{COMMIT}/train?cursor=1"
    tree.content = json.dumps(listed[:2]).encode()
    tree.headers = {"Link": f'<{server.url}{place}>; rel="next"'}
    limit = Fault(status=429, headers={"RateLimit": '"api";r=0;t=0', "Retry-After": "0"})
    rest = server.serve(place, json.dumps(listed[2:]).encode(), [limit, Fault()])
    assert contents(have(on_hub(), tmp_path) / "data") == CASES
    assert (len(tree.requests), len(rest.requests)) == (1, 2)


def test_a_server_that_is_busy_is_asked_again(tmp_path, server):
    hub(server)
    server.objects["/api/datasets/org/set"].script = [Fault(status=503), Fault(reset=True), Fault()]
    assert contents(have(on_hub(), tmp_path) / "data") == CASES


def test_a_download_of_many_files_leaves_one_record(tmp_path, server):
    files = {f"{number:03d}_i.nii.gz": f"image {number}".encode() for number in range(100)}
    hub(server, files)
    folder = have(on_hub(), tmp_path)
    assert contents(folder / "data") == files
    assert not (folder / JOURNAL).exists()
    assert len(json.loads((folder / LOCK_FILE).read_bytes())) == 100


# --- Dataverse -------------------------------------------------------------------------------------


def test_a_folder_of_a_dataverse_dataset_comes_file_by_file_with_its_checksums(tmp_path, server):
    dataverse(server)
    found = on_dataverse(server)
    folder = have(found, tmp_path)
    assert contents(folder / "data") == CASES
    assert all(file.md5 and file.size_bytes for file in listed_files(found, folder))
    assert json.loads((folder / LIST_FILE).read_bytes())["data"]["revision"] == "2.1"


def test_files_with_an_md5_come_anew_with_a_newer_list(tmp_path, server):
    dataverse(server)
    found = on_dataverse(server)
    folder = have(found, tmp_path)
    later = {**CASES, "a_i.nii.gz": b"IMAGE A"}  # of the same size
    dataverse(server, later, first=50)
    (folder / LIST_FILE).unlink()
    shutil.rmtree(folder / "data")
    assert contents(have(found, tmp_path) / "data") == later
    # Within one list what came first is what a lost file must be again.
    recorded = LockFile(folder).get("data/a_i.nii.gz")
    assert recorded.sha256 == sha256(b"IMAGE A")


def test_a_file_with_another_checksum_is_refused(tmp_path, server):
    dataverse(server)
    server.serve("/api/access/datafile/40", b"IMAGE A")
    with pytest.raises(DownloadError, match="md5"):
        have(on_dataverse(server), tmp_path)


def test_a_table_that_dataverse_took_in_is_asked_for_as_it_was(tmp_path, server):
    dataverse(server, {"cases.tab": b"original"})
    listed = json.loads(server.objects["/api/datasets/:persistentId/versions/2.1/files"].content)
    listed["data"][0]["dataFile"] |= {"originalFileFormat": "text/csv", "originalFileName": "cases.csv"}
    server.serve("/api/datasets/:persistentId/versions/2.1/files", json.dumps(listed).encode())
    found = on_dataverse(server)
    assert contents(have(found, tmp_path) / "data") == {"cases.csv": b"original"}
    (file,) = listed_files(found, tmp_path / "lab")
    assert file.origin.url.endswith("/40?format=original")
    assert file.md5 is None


def test_a_restricted_file_wants_a_person(tmp_path, server):
    dataverse(server, restricted=True)
    with pytest.raises(NeedsRegistrationError, match="is restricted"):
        have(on_dataverse(server), tmp_path)


def test_what_is_restricted_stops_only_those_who_want_it(tmp_path, server):
    listed = dataverse(server)
    answer = json.loads(listed.content)
    report = {"label": "report.pdf", "restricted": True, "directoryLabel": "train"}
    answer["data"].append({**report, "dataFile": {"id": 8, "filename": "report.pdf", "filesize": 3}})
    listed.content = json.dumps(answer).encode()
    with pytest.raises(NeedsRegistrationError, match=r'"report\.pdf" is restricted'):
        have(on_dataverse(server), tmp_path)
    found = on_dataverse(server, include=["**/*.nii.gz"])
    assert contents(have(found, tmp_path) / "data") == CASES


def test_where_nobody_is_there_one_list_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setenv("NBIA_ENDPOINT", "http://127.0.0.1:9")
    wanted = source(*[{"into": f"c{n}", "nbia": f"C{n}"} for n in range(20)])
    started = time.monotonic()
    errors = with_lists([wanted], tmp_path, ask=True, policy=FAST).errors
    assert time.monotonic() - started < 10 * FAST.patience_s
    assert len(errors) == 20
    assert "all series of the collection C0 (" in str(errors[0])
    assert "Connection refused (not asked again)" in str(errors[1])


def test_a_list_that_fails_for_ever_takes_no_retries_from_the_others_of_its_host(
    tmp_path, server, monkeypatch
):
    monkeypatch.setenv("NBIA_ENDPOINT", server.url)
    server.serve("/getSeries?Collection=A", b"", [Fault(status=500)])
    series = json.dumps([{"SeriesInstanceUID": "1.2"}]).encode()
    server.serve("/getSeries?Collection=B", series, [Fault(status=503), Fault()])
    wanted = source({"into": "a", "nbia": "A"}, {"into": "b", "nbia": "B"})
    listed = with_lists([wanted], tmp_path, ask=True, policy=FAST)
    assert ["collection A (" in str(error) for error in listed.errors] == [True]
    assert [file.path for file in listed.sources[0].files] == ["archives/b/1.2.zip"]


def test_a_page_of_a_list_is_not_the_list(tmp_path, server):
    listed = dataverse(server)
    answer = json.loads(listed.content)
    listed.content = json.dumps(answer | {"totalCount": len(answer["data"])}).encode()
    have(on_dataverse(server), tmp_path / "whole")
    listed.content = json.dumps(answer | {"totalCount": 5000}).encode()
    with pytest.raises(DownloadError, match=rf"it lists {len(answer['data'])} of its 5,000 files"):
        have(on_dataverse(server), tmp_path / "page")


def test_an_answer_that_is_no_list_is_told(tmp_path, server):
    dataverse(server)
    answer = {"status": "ERROR", "message": "Dataset not found"}
    server.serve("/api/datasets/:persistentId/versions/2.1/files", json.dumps(answer).encode())
    with pytest.raises(DownloadError, match="Dataset not found"):
        have(on_dataverse(server), tmp_path)


# --- Without a list --------------------------------------------------------------------------------


def test_without_network_the_folder_is_named_with_its_place(tmp_path):
    with pytest.raises(DataMissing) as error:
        ensure([on_hub()], tmp_path, {"lab": tmp_path}, OFFLINE)
    assert f"{tmp_path}/lab/data/*" in str(error.value)
    assert "https://huggingface.co/datasets/org/set/tree/main/train" in str(error.value)


def test_without_network_folders_of_one_page_are_all_named(tmp_path):
    place = {"dataverse": "doi:10.1/AB", "server": "https://data.example.org"}
    two = source({"into": "training", "resource": "training", **place}, {"into": "test", **place})
    same = two.model_copy(update={"id": "other"})
    with pytest.raises(DataMissing) as error:
        ensure([two, same], tmp_path, dict.fromkeys(("lab", "other"), tmp_path), OFFLINE)
    for folder in ("lab/training", "lab/test", "other/training", "other/test"):
        assert f"{tmp_path}/{folder}/*" in str(error.value)


def test_a_folder_that_was_placed_by_hand_is_used_as_it_is(tmp_path):
    (tmp_path / "lab" / "data").mkdir(parents=True)
    (tmp_path / "lab" / "data" / "a_i.nii.gz").write_bytes(b"mine")
    assert ensure([on_hub()], tmp_path, {"lab": tmp_path}, OFFLINE) == [tmp_path / "lab"]
    assert not plan_of(on_hub(), tmp_path).fetch


def test_one_list_that_cannot_be_had_does_not_stop_other_sources(tmp_path, server):
    hub(server)
    other = on_dataverse(server).model_copy(update={"id": "other"})
    with pytest.raises(DownloadError, match="cannot be listed"):
        collect([other, on_hub()], tmp_path, dict.fromkeys(("lab", "other"), tmp_path), Network())
    assert contents(tmp_path / "lab" / "data") == CASES


def test_what_cannot_be_listed_fetched_or_had_without_a_person_is_told_at_once(tmp_path, server):
    server.serve("/whole.zip", b"", [Fault(status=404)])
    by_hand = {"path": "form.zip", "origin": {"by_hand": "Sign the form."}}
    sources = [lab(behind(f"{server.url}/whole.zip", path="whole.zip"), by_hand), on_dataverse(server)]
    sources[1] = sources[1].model_copy(update={"id": "other"})
    with pytest.raises(MedcurateError) as error:
        collect(sources, tmp_path, dict.fromkeys(("lab", "other"), tmp_path), Network())
    for told in ("cannot be listed", "whole.zip of lab cannot be downloaded", "Sign the form."):
        assert str(error.value).count(told) == 1


def test_without_the_hub_s_library_all_other_sources_come(tmp_path, server, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    dataverse(server)
    sources = [on_hub(), on_dataverse(server).model_copy(update={"id": "other"})]
    with pytest.raises(ConfigError, match=r'pip install "medcurate\[hub\]"'):
        collect(sources, tmp_path, dict.fromkeys(("lab", "other"), tmp_path), Network())
    assert contents(tmp_path / "other" / "data") == CASES


def test_a_list_that_is_damaged_and_one_that_another_process_asks_for_stop_no_other_source(tmp_path, server):
    dataverse(server)
    hub(server)
    on_data = on_dataverse(server)
    sources = [on_hub(), *(on_data.model_copy(update={"id": name}) for name in ("busy", "whole"))]
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / LIST_FILE).write_text("{")
    with locked(tmp_path / "busy" / LOCK_FOLDER, "something else"), pytest.raises(MedcurateError) as error:
        collect(sources, tmp_path, {each.id: tmp_path for each in sources}, Network())
    assert contents(tmp_path / "whole" / "data") == CASES
    assert f"{tmp_path}/lab/{LIST_FILE}: damaged" in str(error.value)
    assert f"{tmp_path}/busy/{LOCK_FOLDER} is in use" in str(error.value)


def test_a_plan_counts_an_unlisted_folder_as_one_file_of_unknown_size(tmp_path, server):
    found = on_hub()
    before = plan_of(found, tmp_path)
    assert (before.fetch, before.unknown_sizes, before.digests) == (("data/",), 1, 0)
    hub(server)
    have(found, tmp_path)
    after = plan_of(found, tmp_path)
    assert (after.fetch, after.there, after.digests) == ((), 3, 3)


def test_a_damaged_record_is_not_forgotten(tmp_path):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / LIST_FILE).write_text("{")
    with pytest.raises(ConfigError, match="restore it from a backup"):
        ensure([on_hub()], tmp_path, {"lab": tmp_path}, OFFLINE)


# --- What a source may say -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "server", ["https://us:p4ss@dataverse.nl", "https://dataverse.nl?key=p4ss", "dataverse.nl"]
)
def test_a_dataverse_server_is_recorded_and_so_holds_no_secret(server):
    with pytest.raises(ConfigError, match="server is an address like") as caught:
        source({"into": "x", "dataverse": "doi:1", "server": server})
    assert "p4ss" not in str(caught.value)


def test_the_address_of_a_service_is_recorded_and_so_holds_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("NBIA_ENDPOINT", "https://us:p4ss@example.org/nbia-api/services/v1")
    with pytest.raises(ConfigError, match=r"^NBIA_ENDPOINT: write the address") as caught:
        with_lists([source({"into": "x", "nbia": "A collection"})], tmp_path, ask=True).check()
    assert "p4ss" not in str(caught.value)


@pytest.mark.parametrize(
    "folder",
    [{"nbia": "X"}, {"dataverse": "doi:1", "server": "https://host:port"}],
    ids=["of a collection", "of a dataset"],
)
def test_a_service_whose_address_is_none_is_told(tmp_path, monkeypatch, folder):
    monkeypatch.setenv("NBIA_ENDPOINT", "https://host:port")
    with pytest.raises(ConfigError, match=r"https://host:port/.*: not a URL"):
        with_lists([source({"into": "x", **folder})], tmp_path, ask=True).check()


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"into": "d"}, "exactly one of"),
        ({"into": "d", "huggingface": "o/n", "nbia": "X"}, "exactly one of"),
        ({"into": "../d", "nbia": "X"}, "a path below"),
        ({"into": "d", "dataverse": "doi:1"}, "server goes with dataverse"),
        ({"into": "d", "huggingface": "o/n", "modalities": ["CT"]}, "modalities go with nbia"),
        ({"into": "d", "nbia": "X", "resource": "a"}, "a collection has no"),
    ],
)
def test_a_folder_that_makes_no_sense_is_refused(facts, said):
    with pytest.raises(ConfigError, match=said):
        check_model(facts, Folder, "test")


def test_a_folder_given_twice_is_a_problem():
    twice = source({"into": "d", "nbia": "X"}, {"into": "d", "nbia": "Y"})
    assert 'folders: the folder "d" is given 2 times' in list(source_problems(twice, ontology()))


def test_where_a_folder_comes_from_does_not_make_another_dataset():
    first, second = on_hub(), source({"into": "data", "dataverse": "doi:1", "server": "https://a.org"})
    assert identity(first) == identity(second)
    assert identity(first) != identity(on_hub(include=["a"]))

"""Downloads from a server that misbehaves and recovers: the same bytes in the end, or a stop that says why."""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import replace

import pytest
from download_kit import CONTENT, FAST, OTHER, SHA, behind, check_same, fetch, names, sha256, stopped
from fault_server import BLOCK, OK, Fault, FaultServer, fault_server

from medcurate.download.lockfile import LOCK_FILE
from medcurate.download.types import DownloadError, Policy, SourceChangedError
from medcurate.errors import DiskFull, OutputError
from medcurate.lock import locked


@pytest.fixture
def server():
    with fault_server() as state:
        yield state


# --- what passes -----------------------------------------------------------------------------------

PASSING = {
    "nothing": [OK],
    "cut at half once": [Fault(cut_bytes=len(CONTENT) // 2), OK],
    "cut at a tenth every time": [Fault(cut_bytes=len(CONTENT) // 6)],
    "cut before the first byte": [Fault(cut_bytes=0), OK],
    "503 twice": [Fault(status=503), Fault(status=503), OK],
    "429 with a date in the past": [Fault(status=429, retry_after="Sun, 06 Nov 1994 08:49:37 GMT"), OK],
    "every passing status": [*(Fault(status=s) for s in (408, 425, 500, 502, 504)), OK],
    "reset twice": [Fault(reset=True), Fault(reset=True), OK],
    "stalls": [Fault(stall_bytes=BLOCK * 3), OK],
    "cut, then 503, then reset": [Fault(cut_bytes=BLOCK), Fault(status=503), Fault(reset=True), OK],
    "weak tag": [Fault(cut_bytes=BLOCK * 2), OK],
    "chunked": [Fault(chunked=True)],
}


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "unknown digest"])
@pytest.mark.parametrize("case", PASSING)
def test_passing_faults_cost_no_byte_twice(tmp_path, server, case, declared):
    served = server.serve("/a.zip", CONTENT, PASSING[case])
    if case == "weak tag":
        served.etag = 'W/"1"'
    facts = {"sha256": SHA, "size_bytes": len(CONTENT)} if declared else {}
    done = fetch(tmp_path, behind(f"{server.url}/a.zip", **facts))
    done.check()
    check_same(tmp_path, served, refetched=BLOCK)
    assert (done.fetched[0].sha256, done.fetched[0].size_bytes) == (SHA, len(CONTENT))


def test_resuming_asks_for_the_rest_of_the_same_object(tmp_path, server):
    served = server.serve("/a.zip", CONTENT, [Fault(cut_bytes=100_000), OK])
    fetch(tmp_path, behind(f"{server.url}/a.zip")).check()
    first, second = served.requests
    assert "range" not in first
    assert (second["range"], second["if-range"]) == ("bytes=100000-", '"1"')
    assert first["user-agent"].startswith("medcurate/")
    assert first["accept-encoding"] == "identity"


def test_a_weak_tag_is_no_condition(tmp_path, server):
    served = server.serve("/a.zip", CONTENT, [Fault(cut_bytes=100_000), OK], etag='W/"1"')
    fetch(tmp_path, behind(f"{server.url}/a.zip")).check()
    assert "if-range" not in served.requests[1]


def test_an_interrupted_call_is_continued_by_the_next(tmp_path, server):
    served = server.serve("/a.zip", CONTENT, [Fault(cut_bytes=150_000), Fault(status=503)])
    text = stopped(tmp_path, behind(f"{server.url}/a.zip"))
    assert "150,000 of 400,000 bytes are kept in" in text
    assert names(tmp_path) == {"a.zip.part", "a.zip.part.json"}
    served.script[:] = [OK]
    fetch(tmp_path, behind(f"{server.url}/a.zip")).check()
    check_same(tmp_path, served)


def test_a_server_that_is_never_there_is_named_with_how_to_continue(tmp_path, server):
    server.serve("/a.zip", CONTENT, [Fault(status=503)])
    text = stopped(tmp_path, behind(f"{server.url}/a.zip", sha256=SHA))
    assert re.search(rf"{server.host}: 503 Service Unavailable \(\d+ times in a row\)", text)
    assert "Run the same command again to continue" in text
    assert f"put the file at {tmp_path}/lab/a.zip, sha256 {SHA}" in text
    assert names(tmp_path) == set()


def test_the_default_patience_ends_within_a_minute():
    for mirrors in (1, 2, 3):
        policy, total = Policy(), 0.0
        for _ in range(mirrors):
            failures, waited = 0, 0.0
            while True:
                failures += 1
                wait = policy.wait_s(failures, None)
                if waited + wait > policy.patience_s / mirrors:
                    break
                waited += wait
            total += waited
        assert 10 < total < 50
        assert failures > 2


@pytest.mark.parametrize("after", ["3600", "Tue, 01 Jan 2999 00:00:00 GMT"])
def test_a_server_that_asks_to_wait_longer_than_patience_is_not_asked_again(tmp_path, server, after):
    served = server.serve("/a.zip", CONTENT, [Fault(status=429, retry_after=after)])
    assert "it asks to wait" in stopped(tmp_path, behind(f"{server.url}/a.zip"))
    assert len(served.requests) == 1


def test_retry_after_is_waited_for_by_all_downloads_of_the_host(tmp_path, server):
    server.serve("/a.zip", CONTENT, [Fault(status=503, retry_after="1"), OK])
    server.serve("/b.zip", CONTENT, [Fault(cut_bytes=BLOCK, stalled_s=0), OK])
    started = time.monotonic()
    files = [behind(f"{server.url}/{name}.zip", path=f"{name}.zip") for name in "ab"]
    fetch(tmp_path, *files, jobs=1, policy=replace(FAST, patience_s=5)).check()
    assert time.monotonic() - started >= 1


def test_a_trickle_counts_as_a_stall(tmp_path):
    with fault_server(bytes_per_s=BLOCK / 0.3) as server:
        server.serve("/a.zip", CONTENT)
        policy = replace(FAST, slow_s=0.2, slow_bytes=BLOCK * 4, patience_s=0.01)
        text = stopped(tmp_path, behind(f"{server.url}/a.zip"), policy=policy)
    assert "bytes came in 0.2 s" in text


@pytest.mark.parametrize("declared", [True, False])
def test_a_server_without_ranges_restarts_the_file(tmp_path, server, declared):
    served = server.serve("/a.zip", CONTENT, [Fault(cut_bytes=300_000), Fault(ignore_range=True)])
    fetch(tmp_path, behind(f"{server.url}/a.zip", **({"sha256": SHA} if declared else {}))).check()
    check_same(tmp_path, served, refetched=300_000)


@pytest.mark.parametrize(
    "lie",
    [
        Fault(wrong_range=1),
        Fault(content_range="bytes 100000-399999/500000"),
        Fault(content_range="bytes 0-399999/400000"),
        Fault(content_range="bytes"),
        Fault(content_range="bytes 100000-200000/400000"),
    ],
)
def test_an_answer_to_another_range_is_not_appended(tmp_path, server, lie):
    served = server.serve("/a.zip", CONTENT, [Fault(cut_bytes=100_000), lie, OK])
    done = fetch(tmp_path, behind(f"{server.url}/a.zip"))
    if done.errors:  # the lie may also look like another object
        assert isinstance(done.errors[0], SourceChangedError)
        assert (tmp_path / "lab" / "a.zip.part").read_bytes() == CONTENT[:100_000]
    else:
        check_same(tmp_path, served, refetched=len(CONTENT))


@pytest.mark.parametrize("said", ["bytes 100000-399999/*", "multipart"])
def test_a_server_that_never_gives_the_rest_gives_the_whole(tmp_path, server, said):
    faults = [Fault(cut_bytes=100_000), Fault(content_range=said)]
    served = server.serve("/a.zip", CONTENT, faults)
    fetch(tmp_path, behind(f"{server.url}/a.zip", sha256=SHA)).check()
    assert (tmp_path / "lab" / "a.zip").read_bytes() == CONTENT
    assert "range" not in served.requests[-1]


def test_more_than_the_rest_is_not_kept(tmp_path, server):
    served = server.serve("/a.zip", CONTENT, [Fault(cut_bytes=100_000), Fault(longer=b"more"), OK])
    fetch(tmp_path, behind(f"{server.url}/a.zip")).check()
    assert (tmp_path / "lab" / "a.zip").read_bytes() == CONTENT
    assert "range" not in served.requests[-1]


@pytest.mark.parametrize("said", ["²", "-1", "soon"])
def test_a_wait_that_is_no_number_is_none(tmp_path, server, said):
    served = server.serve("/a.zip", CONTENT, [Fault(status=503, retry_after=said), OK])
    fetch(tmp_path, behind(f"{server.url}/a.zip")).check()
    check_same(tmp_path, served)


@pytest.mark.parametrize(
    ("limit", "said"),
    [('"resolvers";r=0;t=3600', "it asks to wait 3600 s"), ('"resolvers";r=5;t=3600', "Too Many Requests (")],
)
def test_a_limit_that_is_used_up_says_how_long_to_wait(tmp_path, server, limit, said):
    """As Hugging Face tells it, instead of Retry-After."""
    server.serve("/a.zip", CONTENT, [Fault(status=429, headers={"RateLimit": limit})])
    assert said in stopped(tmp_path, behind(f"{server.url}/a.zip"), policy=replace(FAST, patience_s=0.1))


def test_a_range_without_end_that_was_not_asked_for_is_no_empty_file(tmp_path, server):
    server.serve("/a.zip", CONTENT, [Fault(status=416)])
    assert "416" in stopped(tmp_path, behind(f"{server.url}/a.zip"))
    assert names(tmp_path) == set()


def test_a_size_of_thousands_of_digits_is_told(tmp_path, server):
    lie = Fault(content_range=f"bytes 100000-{'9' * 5000}/{'9' * 5001}")
    served = server.serve("/a.zip", CONTENT, [Fault(cut_bytes=100_000), lie, OK])
    fetch(tmp_path, behind(f"{server.url}/a.zip")).check()
    check_same(tmp_path, served, refetched=len(CONTENT))


def test_a_tag_beyond_ascii_is_no_condition(tmp_path, server):
    served = server.serve("/a.zip", CONTENT, [Fault(cut_bytes=100_000), OK], etag='"é"')
    fetch(tmp_path, behind(f"{server.url}/a.zip")).check()
    check_same(tmp_path, served)
    assert "if-range" not in served.requests[1]


def test_what_is_packed_on_its_way_is_not_taken_for_the_file(tmp_path, server):
    """Nobody asks for it, and some servers do so all the same."""
    served = server.serve("/a", CONTENT, headers={"Content-Encoding": "gzip"})
    assert 'packed, though it was not asked to ("Content-Encoding: gzip")' in stopped(
        tmp_path, behind(f"{server.url}/a", path="a.csv")
    )
    assert names(tmp_path) == set()
    fetch(tmp_path, behind(f"{server.url}/a", path="a.csv", sha256=SHA)).check()
    fetch(tmp_path, behind(f"{server.url}/a", path="a.nii.gz")).check()
    assert names(tmp_path) == {"a.csv", "a.nii.gz"}
    assert len(served.requests) == 3


def test_a_server_without_tags_is_resumed_only_where_a_digest_decides(tmp_path, server):
    for name, facts, ranges in (("a", {"sha256": SHA}, True), ("b", {}, False)):
        script = [Fault(cut_bytes=100_000, no_tag=True), Fault(no_tag=True)]
        served = server.serve(f"/{name}.zip", CONTENT, script)
        fetch(tmp_path, behind(f"{server.url}/{name}.zip", path=f"{name}.zip", **facts)).check()
        assert ("range" in served.requests[1]) is ranges
        assert (tmp_path / "lab" / f"{name}.zip").read_bytes() == CONTENT


def test_an_end_that_cannot_be_told_is_believed_only_with_a_digest(tmp_path, server):
    server.serve("/a.zip", CONTENT, [Fault(no_length=True)])
    assert "whether it is whole" in stopped(tmp_path, behind(f"{server.url}/a.zip"))
    fetch(tmp_path, behind(f"{server.url}/a.zip", sha256=SHA)).check()
    assert (tmp_path / "lab" / "a.zip").read_bytes() == CONTENT


def test_a_chunked_body_that_is_cut_is_not_whole(tmp_path, server):
    server.serve("/a.zip", CONTENT, [Fault(chunked=True, cut_bytes=100_000), Fault(chunked=True)])
    fetch(tmp_path, behind(f"{server.url}/a.zip")).check()
    assert (tmp_path / "lab" / "a.zip").read_bytes() == CONTENT


def test_an_empty_file_is_a_file(tmp_path, server):
    server.serve("/a.zip", b"")
    fetch(tmp_path, behind(f"{server.url}/a.zip", sha256=sha256(b""), size_bytes=0)).check()
    assert (tmp_path / "lab" / "a.zip").read_bytes() == b""
    assert names(tmp_path) == {"a.zip"}


# --- many files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_host", [1, 2])
def test_a_host_gets_no_more_connections_than_its_limit(tmp_path, per_host):
    with fault_server(bytes_per_s=4e6) as server:
        for number in range(6):
            server.serve(f"/{number}", CONTENT[:100_000])
        files = [behind(f"{server.url}/{number}", path=str(number)) for number in range(6)]
        fetch(tmp_path, *files, jobs=6, policy=replace(FAST, per_host=per_host)).check()
        assert server.most_at_once == per_host


def test_one_failure_does_not_stop_the_others(tmp_path, server):
    server.serve("/b", CONTENT)
    files = [behind(f"{server.url}/{name}", path=name) for name in ("a", "b", "c")]
    done = fetch(tmp_path, *files)
    assert [each.target.name for each in done.fetched] == ["b"]
    with pytest.raises(DownloadError, match=r"(?s)^a of lab .*\nc of lab "):
        done.check()


def test_a_part_that_cannot_be_written_stops_its_file_alone(tmp_path, server):
    """As one that another user began; here it is a folder, which nobody can write."""
    for name in "ab":
        server.serve(f"/{name}", CONTENT)
    state = {"url": f"{server.url}/a", "etag": '"1"', "last_modified": "", "size_bytes": len(CONTENT)}
    (tmp_path / "lab" / "a.part").mkdir(parents=True)
    (tmp_path / "lab" / "a.part.json").write_text(json.dumps(state))
    done = fetch(tmp_path, *[behind(f"{server.url}/{name}", path=name) for name in "ab"])
    assert [each.target.name for each in done.fetched] == ["b"]
    with pytest.raises(OutputError, match=r"cannot write \S+/lab/a: .*run the same command again"):
        done.check()


def test_a_second_process_is_kept_out_and_told_who_is_there(tmp_path, server):
    server.serve("/a.zip", CONTENT)
    with (
        locked(tmp_path / "lab" / ".download", "downloading lab"),
        pytest.raises(OutputError, match=r"in use by process \d+ .*downloading lab"),
    ):
        fetch(tmp_path, behind(f"{server.url}/a.zip"))
    fetch(tmp_path, behind(f"{server.url}/a.zip")).check()


def test_an_interrupt_ends_at_once_though_a_server_is_silent(tmp_path, server, monkeypatch):
    served = server.serve("/a.zip", CONTENT, [Fault(stall_bytes=BLOCK, stalled_s=30)])
    real = threading.Thread.join

    def join(thread, timeout=None):
        if thread.name.startswith("download") and timeout is None:
            while not served.sent_bytes:
                time.sleep(0.01)
            raise KeyboardInterrupt
        real(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", join)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path, behind(f"{server.url}/a.zip"), policy=replace(FAST, stall_s=30))
    assert time.monotonic() - started < 8


# --- room and records ------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_with_the_bytes_needed(tmp_path, server):
    served = server.serve("/a.zip", CONTENT)
    with pytest.raises(DiskFull, match="need 9,000,000,000,000,000 bytes, but "):
        fetch(tmp_path, behind(f"{server.url}/a.zip", size_bytes=9 * 10**15))
    assert not served.requests


def test_a_disk_that_fills_stops_with_the_bytes_needed_and_continues(tmp_path, server, monkeypatch):
    import errno

    from medcurate.download.part import Part

    served = server.serve("/a.zip", CONTENT)
    append = Part.append

    def full(part, chunk):
        if part.size_bytes > 200_000:
            raise part._write_error(OSError(errno.ENOSPC, "No space left on device"))
        append(part, chunk)

    monkeypatch.setattr(Part, "append", full)
    text = stopped(tmp_path, behind(f"{server.url}/a.zip"), kind=DiskFull)
    kept = (tmp_path / "lab" / "a.zip.part").stat().st_size
    assert f"{len(CONTENT) - kept:,} more bytes are needed" in text
    monkeypatch.undo()
    fetch(tmp_path, behind(f"{server.url}/a.zip")).check()
    assert "range" in served.requests[1]
    assert (tmp_path / "lab" / "a.zip").read_bytes() == CONTENT


def test_what_came_first_is_recorded_and_must_come_again(tmp_path, server):
    server.serve("/a.zip", CONTENT)
    file = behind(f"{server.url}/a.zip")
    fetch(tmp_path, file).check()
    entry = json.loads((tmp_path / "lab" / LOCK_FILE).read_bytes())["a.zip"]
    assert (entry["sha256"], entry["size_bytes"], entry["etag"]) == (SHA, len(CONTENT), '"1"')
    assert entry["url"] == f"{server.url}/a.zip"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", entry["date"])
    (tmp_path / "lab" / "a.zip").unlink()
    server.serve("/a.zip", OTHER)
    text = stopped(tmp_path, file, kind=SourceChangedError)
    assert re.search(
        rf"expected sha256 {SHA} \(recorded on [\d-]+ in .*{LOCK_FILE}\), got {sha256(OTHER)}", text
    )
    server.serve("/a.zip", CONTENT)
    fetch(tmp_path, file).check()
    assert json.loads((tmp_path / "lab" / LOCK_FILE).read_bytes())["a.zip"] == entry


def test_files_are_readable_whatever_the_umask(tmp_path, server: FaultServer):
    server.serve("/deep/a.zip", CONTENT)
    fetch(tmp_path, behind(f"{server.url}/deep/a.zip", path="deep/er/a.zip")).check()
    assert (tmp_path / "lab" / "deep" / "er" / "a.zip").stat().st_mode & 0o777 == 0o644

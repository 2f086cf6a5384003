"""Downloads that are replaced or damaged on the way: a stop that tells expected and got, never a mixture."""

from __future__ import annotations

import hashlib

import pytest
from download_kit import CONTENT, OTHER, SHA, behind, check_same, fetch, names, sha256, stopped
from fault_server import OK, Fault, Served, fault_server

from medcurate.download.types import SourceChangedError


@pytest.fixture
def server():
    with fault_server() as state:
        yield state


# --- what changed ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [OTHER, OTHER[:-1], OTHER[:50_000]], ids=["same size", "shorter", "much shorter"]
)
@pytest.mark.parametrize("tag", ['"2"', 'W/"2"'])
def test_an_object_that_was_replaced_stops_with_expected_and_got(tmp_path, server, content, tag):
    served = server.serve("/a.zip", CONTENT, [Fault(cut_bytes=100_000), OK])
    if tag.startswith("W/"):
        served.etag = 'W/"1"'
    old = served.etag
    served.swap, served.swap_after = Served(content, etag=tag), 1
    text = stopped(tmp_path, behind(f"{server.url}/a.zip"), kind=SourceChangedError)
    assert f"expected 400,000 bytes, version {old}, got {len(content):,} bytes" in text
    assert f"remove {tmp_path}/lab/a.zip.part" in text
    assert (tmp_path / "lab" / "a.zip.part").read_bytes() == CONTENT[:100_000]
    assert not (tmp_path / "lab" / "a.zip").exists()
    stopped(tmp_path, behind(f"{server.url}/a.zip"), kind=SourceChangedError)  # nor by the next call
    (tmp_path / "lab" / "a.zip.part").unlink()
    fetch(tmp_path, behind(f"{server.url}/a.zip")).check()
    assert (tmp_path / "lab" / "a.zip").read_bytes() == content


def test_what_is_made_on_request_begins_anew_after_a_cut(tmp_path, server):
    """Another tag and size with every answer: a part of one is never continued with another."""
    wanted = behind(f"{server.url}/a.zip", made_on_request=True)
    server.serve("/a.zip", OTHER, [Fault(cut_bytes=150_000), Fault(status=404)])
    assert "Run the same command again to begin anew" in stopped(tmp_path, wanted)
    served = server.serve("/a.zip", OTHER[:-1], [Fault(cut_bytes=300_000), OK], etag='"2"')
    served.swap, served.swap_after = Served(CONTENT, etag='"3"'), 1
    fetch(tmp_path, wanted).check()
    assert (tmp_path / "lab" / "a.zip").read_bytes() == CONTENT
    assert not any("range" in request for request in served.requests)


def test_a_file_that_begins_anew_with_every_cut_is_given_up(tmp_path, server):
    """Bytes that come again and again are no progress, though they come fast."""
    served = server.serve("/a.zip", CONTENT, [Fault(cut_bytes=300_000)])
    text = stopped(tmp_path, behind(f"{server.url}/a.zip", made_on_request=True))
    assert "(5 times in a row). Run the same command again to begin anew" in text
    assert len(served.requests) == 6


@pytest.mark.parametrize("script", [[OK], [Fault(ignore_condition=True), OK]])
def test_a_declared_digest_decides_about_another_tag(tmp_path, server, script):
    """Hosts behind one name may give equal bytes different tags: the file begins anew and is right."""
    served = server.serve("/a.zip", OTHER, [Fault(cut_bytes=100_000), *script])
    served.swap, served.swap_after = Served(CONTENT, etag='"2"'), 1
    fetch(tmp_path, behind(f"{server.url}/a.zip", sha256=SHA)).check()
    check_same(tmp_path, served, refetched=100_000 + (len(CONTENT) if len(script) > 1 else 0))


def test_a_declared_digest_refuses_the_replaced_object(tmp_path, server):
    served = server.serve("/a.zip", CONTENT, [Fault(cut_bytes=100_000), OK])
    served.swap, served.swap_after = Served(OTHER, etag='"2"'), 1
    text = stopped(tmp_path, behind(f"{server.url}/a.zip", sha256=SHA), kind=SourceChangedError)
    assert f"expected sha256 {SHA} (declared), got {sha256(OTHER)}" in text
    assert (tmp_path / "lab" / "a.zip.bad").read_bytes() == OTHER
    assert names(tmp_path) == {"a.zip.bad"}


# --- what is wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault(short=1000), Fault(flip=1234)], ids=["short", "flipped"])
@pytest.mark.parametrize("digest", ["sha256", "md5"])
def test_wrong_bytes_once_are_fetched_again(tmp_path, server, fault, digest):
    served = server.serve("/a.zip", CONTENT, [fault, OK])
    facts = {digest: hashlib.new(digest, CONTENT).hexdigest()}
    fetch(tmp_path, behind(f"{server.url}/a.zip", **facts)).check()
    assert (tmp_path / "lab" / "a.zip").read_bytes() == CONTENT
    assert names(tmp_path) == {"a.zip", "a.zip.bad"}
    assert len(served.requests) == 2


@pytest.mark.parametrize("fault", [Fault(short=1000), Fault(flip=1234)], ids=["short", "flipped"])
def test_wrong_bytes_every_time_stop_and_are_kept_aside(tmp_path, server, fault):
    served = server.serve("/a.zip", CONTENT, [fault])
    text = stopped(tmp_path, behind(f"{server.url}/a.zip", sha256=SHA), kind=SourceChangedError)
    bad = (tmp_path / "lab" / "a.zip.bad").read_bytes()
    assert f"expected sha256 {SHA} (declared), got {sha256(bad)} (2 downloads" in text
    assert f"{tmp_path}/lab/a.zip.bad" in text
    assert (len(bad), names(tmp_path)) == (len(CONTENT) - fault.short, {"a.zip.bad"})
    assert len(served.requests) == 2


def test_other_bytes_each_time_are_damage_not_change(tmp_path, server):
    server.serve("/a.zip", CONTENT, [Fault(flip=1), Fault(flip=2)])
    assert "damaged on the way" in stopped(tmp_path, behind(f"{server.url}/a.zip", sha256=SHA))


def test_a_size_that_is_not_the_declared_one_is_asked_twice_and_not_fetched(tmp_path, server):
    served = server.serve("/a.zip", CONTENT, [Fault(short=1000)])
    text = stopped(tmp_path, behind(f"{server.url}/a.zip", sha256=SHA, size_bytes=len(CONTENT)))
    assert "400,000 bytes are declared, but it has 399,000: the source changed" in text
    assert len(served.requests) == 2
    served.script[:] = [Fault(short=1000), OK]
    fetch(tmp_path, behind(f"{server.url}/a.zip", sha256=SHA, size_bytes=len(CONTENT))).check()


def test_a_damaged_part_is_found_by_the_digest(tmp_path, server):
    served = server.serve("/a.zip", CONTENT, [Fault(cut_bytes=150_000), Fault(status=404)])
    file = behind(f"{server.url}/a.zip", sha256=SHA)
    stopped(tmp_path, file)
    part = tmp_path / "lab" / "a.zip.part"
    part.write_bytes(b"x" + part.read_bytes()[1:])
    served.script[:] = [OK]
    fetch(tmp_path, file).check()
    assert (tmp_path / "lab" / "a.zip").read_bytes() == CONTENT


NO_SIZE = b'{"url": "", "etag": "", "last_modified": "", "size_bytes": 1e999}'


@pytest.mark.parametrize("state", [None, b"", b"[]", b"{}", b'{"url": 1', NO_SIZE])
def test_a_part_whose_state_is_lost_begins_anew(tmp_path, server, state):
    served = server.serve("/a.zip", CONTENT, [Fault(cut_bytes=150_000), Fault(status=404)])
    file = behind(f"{server.url}/a.zip")
    stopped(tmp_path, file)
    path = tmp_path / "lab" / "a.zip.part.json"
    path.unlink() if state is None else path.write_bytes(state)
    served.script[:] = [OK]
    fetch(tmp_path, file).check()
    assert (tmp_path / "lab" / "a.zip").read_bytes() == CONTENT
    assert "range" not in served.requests[-1]

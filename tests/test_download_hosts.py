"""Many files of one host: what they learn of it from each other, and that none pays for the others."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from download_kit import CONTENT, FAST, behind, fetch
from fault_server import OK, Fault, fault_server

from medcurate.download.hosts import Hosts
from medcurate.download.types import RefusedError, TransientError

TIRED = replace(FAST, patience_s=0.2, host_patience_s=0.0)


def files(url: str, count: int) -> list[dict[str, object]]:
    return [behind(f"{url}/{n}.zip", path=f"{n}.zip") for n in range(count)]


def requests(server) -> int:
    return sum(len(served.requests) for served in server.objects.values())


def test_the_time_that_others_take_is_no_failure_of_a_file_that_waits_for_its_turn(tmp_path):
    with fault_server(bytes_per_s=len(CONTENT) / 0.8) as server:
        server.serve("/0.zip", CONTENT)
        server.serve("/1.zip", b"small", [Fault(status=503), OK])
        fetch(
            tmp_path, *files(server.url, 2), policy=replace(FAST, per_host=1, patience_s=0.4, slow_s=9)
        ).check()
    assert (tmp_path / "lab" / "1.zip").read_bytes() == b"small"


def test_files_of_a_host_that_stays_busy_are_asked_for_once_after_a_while(tmp_path):
    with fault_server() as server:
        for n in range(80):
            server.serve(f"/{n}.zip", CONTENT, [Fault(status=503)])
        started = time.monotonic()
        done = fetch(tmp_path, *files(server.url, 80), policy=TIRED)
        assert len(done.errors) == 80
        assert time.monotonic() - started < 80 / 4 * TIRED.patience_s / 2
        assert 1 in {len(served.requests) for served in server.objects.values()}


def test_a_busy_host_from_which_something_comes_again_is_waited_for_again(tmp_path):
    with fault_server() as server:
        server.serve("/0.zip", CONTENT, [Fault(status=503)])
        server.serve("/1.zip", CONTENT)
        server.serve("/2.zip", CONTENT, [Fault(status=503), Fault(status=503), OK])
        done = fetch(tmp_path, *files(server.url, 3), policy=TIRED, jobs=1)
    assert [error.args[0].split(" ")[0] for error in done.errors] == ["0.zip"]


def test_a_host_that_still_sends_a_large_file_is_waited_for(tmp_path):
    """Nothing came of one file for long; then another, not whole for long, is proof that the host works."""
    with fault_server(bytes_per_s=1.5 * len(CONTENT)) as server:
        server.serve("/0.zip", b"", [Fault(status=503)])
        server.serve("/1.zip", CONTENT * 2)
        server.serve("/2.zip", b"", [Fault(status=503)])
        server.serve("/3.zip", b"small", [Fault(status=503), Fault(status=503), OK])
        policy = replace(FAST, patience_s=0.5, host_patience_s=0.3)
        done = fetch(tmp_path, *files(server.url, 4), policy=policy, jobs=2)
    assert [error.args[0].split(" ")[0] for error in done.errors] == ["0.zip", "2.zip"]


def test_of_a_busy_host_that_is_lost_no_further_file_waits_out_a_rest(tmp_path):
    with fault_server() as server:
        for n in range(20):
            server.serve(f"/{n}.zip", CONTENT, [Fault(status=503, retry_after="1")])
        started = time.monotonic()
        done = fetch(tmp_path, *files(server.url, 20), policy=replace(TIRED, patience_s=1.5), jobs=2)
        assert len(done.errors) == 20
        assert time.monotonic() - started < 4
        assert any("it asks to wait" in str(error) for error in done.errors)


def test_a_host_that_asks_for_more_rest_than_anybody_waits_is_left_alone_by_all(tmp_path):
    with fault_server() as server:
        for n in range(20):
            server.serve(f"/{n}.zip", CONTENT, [Fault(status=429, retry_after="3600")])
        done = fetch(tmp_path, *files(server.url, 20), jobs=2)
        assert len(done.errors) == 20
        assert all("it asks to wait 3" in str(error) for error in done.errors)
        assert requests(server) <= 2


def test_where_nobody_is_there_files_do_not_wait_for_one_another(tmp_path):
    with fault_server() as server:
        url = server.url  # of nobody, soon
    started = time.monotonic()
    done = fetch(tmp_path, *files(url, 80), policy=TIRED)
    assert time.monotonic() - started < 80 / 4 * TIRED.patience_s / 2
    assert len(done.errors) == 80
    assert any("Connection refused (not asked again)" in str(error) for error in done.errors)


def test_after_a_short_outage_the_other_files_are_waited_for():
    hosts = Hosts(replace(FAST, host_patience_s=30))
    hosts.give_up("host", TransientError("no connection", unreachable=True))
    with hosts.turn("host"):
        assert not hosts.lost("host")


def test_one_host_that_is_lost_is_no_other():
    hosts = Hosts(TIRED)
    hosts.give_up("host", TransientError("no connection", unreachable=True))
    with hosts.turn("mirror"), pytest.raises(RefusedError, match="not asked again"), hosts.turn("host"):
        pass
    hosts.works("host")
    with hosts.turn("host"):
        pass

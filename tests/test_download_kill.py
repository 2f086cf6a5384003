"""SIGKILL at any instant: what was received stays, what is visible under its name is whole."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from download_kit import CONTENT, behind, names, sha256
from fault_server import fault_server

KILLED = -signal.SIGKILL
BIG = random.Random(6).randbytes(3_000_000)


class Worker:
    """A program that forks a downloading process for every order."""

    def __init__(self, program: subprocess.Popen[str]) -> None:
        self.program = program

    def start(self, folder: Path, file: dict[str, object], die_at: int = 0) -> int:
        """Begin; the id of the process."""
        order = {"folder": str(folder), "files": [file], "die_at": die_at}
        self.program.stdin.write(json.dumps(order) + "\n")
        self.program.stdin.flush()
        return int(self.program.stdout.readline())

    def end(self) -> int:
        """Wait for it; its exit code."""
        return int(self.program.stdout.readline())


@contextmanager
def running() -> Iterator[Worker]:
    program = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("download_worker.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with program:
        try:
            yield Worker(program)
        finally:
            program.stdin.close()


@pytest.fixture(scope="module")
def worker():
    with running() as found:
        yield found


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def wait_for(path: Path, size: int) -> None:
    deadline = time.monotonic() + 20
    while size_of(path) < size and time.monotonic() < deadline:
        time.sleep(0.0005)


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "unknown digest"])
def test_killed_at_twenty_random_offsets_it_resumes_where_it_stopped(tmp_path, worker, declared):
    part = tmp_path / "lab" / "a.zip.part"
    offsets = sorted(random.Random(5 + declared).sample(range(1, len(BIG) // 2), 20))
    kept = []
    with fault_server(bytes_per_s=8e6) as server:
        served = server.serve("/a.zip", BIG)
        file = behind(f"{server.url}/a.zip", **({"sha256": sha256(BIG)} if declared else {}))
        for offset in offsets:
            pid = worker.start(tmp_path, file)
            wait_for(part, max(offset, size_of(part) + 1))
            os.kill(pid, signal.SIGKILL)
            assert worker.end() == KILLED
            kept.append(size_of(part))
            assert part.read_bytes() == BIG[: kept[-1]]
            assert not (tmp_path / "lab" / "a.zip").exists()
        worker.start(tmp_path, file)
        assert worker.end() == 0
    assert (tmp_path / "lab" / "a.zip").read_bytes() == BIG
    assert names(tmp_path) == {"a.zip"}
    # Every byte that was kept was asked for once only.
    assert [request.get("range") for request in served.requests] == [None, *(f"bytes={n}-" for n in kept)]


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "unknown digest"])
def test_killed_before_any_rename_or_fsync_it_is_absent_or_whole(tmp_path, worker, declared):
    target = tmp_path / "lab" / "a.zip"
    with fault_server() as server:
        served = server.serve("/a.zip", CONTENT)
        file = behind(f"{server.url}/a.zip", **({"sha256": sha256(CONTENT)} if declared else {}))
        for die_at in range(1, 40):
            for path in (target, target.with_name("downloads.lock.json")):
                path.unlink(missing_ok=True)
            worker.start(tmp_path, file, die_at)
            code = worker.end()
            assert not target.exists() or target.read_bytes() == CONTENT
            worker.start(tmp_path, file)
            assert worker.end() == 0
            assert target.read_bytes() == CONTENT
            if code == 0:
                break
        assert code == 0
        assert die_at > 8
    assert len(served.requests) < 2 * die_at

"""A folder has one writer; its lock ends with it and with nothing else."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import datetime

import pytest

from medcurate.errors import OutputError
from medcurate.lock import LOCK_FILE, holder, locked

HOLDER = """
import multiprocessing, sys, time
from pathlib import Path
from medcurate.lock import locked

with locked(Path(sys.argv[1]), "building demo"):
    if len(sys.argv) > 2:
        child = multiprocessing.get_context(sys.argv[2]).Process(target=time.sleep, args=(100,))
        child.start()
        print(child.pid, flush=True)
    else:
        print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(folder, *start_method):
    """A process that holds the lock until its stdin closes; gives it and the first line that it printed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), *start_method],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def test_a_second_taker_is_told_who_holds_it(tmp_path):
    with another_process(tmp_path / "new" / "work") as (process, line):
        assert line == "held"
        with pytest.raises(OutputError) as caught, locked(tmp_path / "new" / "work", "packing"):
            pytest.fail("two holders")
        started = json.loads((tmp_path / "new" / "work" / LOCK_FILE).read_bytes())["started"]
    text = str(caught.value)
    assert f"process {process.pid} on {socket.gethostname()} (building demo) since {started}" in text
    assert "Wait for it to end, or stop it" in text
    assert str(tmp_path / "new" / "work") in text
    assert abs((datetime.now().astimezone() - datetime.fromisoformat(started)).total_seconds()) < 600


def test_also_within_one_process(tmp_path):
    with locked(tmp_path, "first"):
        with pytest.raises(OutputError, match=f"process {os.getpid()} .*first"), locked(tmp_path, "second"):
            pytest.fail("two holders")
        with pytest.raises(OutputError), locked(tmp_path, "third"):  # the refused one took nothing away
            pytest.fail("two holders")


def test_it_is_free_after_its_holder_and_the_file_stays(tmp_path):
    with locked(tmp_path, "a rather long purpose"):
        before = (tmp_path / LOCK_FILE).stat().st_ino
    with locked(tmp_path, "short"):
        assert json.loads((tmp_path / LOCK_FILE).read_bytes())["purpose"] == "short"
    with pytest.raises(ZeroDivisionError), locked(tmp_path, "failing"):
        raise ZeroDivisionError
    with locked(tmp_path, "again"):
        assert (tmp_path / LOCK_FILE).stat().st_ino == before


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    with another_process(tmp_path) as (process, _):
        process.kill()
        process.wait()
        assert (
            json.loads((tmp_path / LOCK_FILE).read_bytes())["pid"] == process.pid
        )  # its note is still there
        with locked(tmp_path, "after it"):
            pass


@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
def test_a_living_child_of_a_killed_process_does_not_hold_it(tmp_path, start_method):
    with another_process(tmp_path, start_method) as (process, line):
        child = int(line)
        with pytest.raises(OutputError), locked(tmp_path, "too early"):
            pytest.fail("two holders")
        process.kill()
        process.wait()
        try:
            os.kill(child, 0)  # it lives
            with locked(tmp_path, "after it"):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_holder_that_has_not_yet_written_its_name(tmp_path):
    descriptor = os.open(tmp_path / LOCK_FILE, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(OutputError, match="in use by another process"), locked(tmp_path, "second"):
            pytest.fail("two holders")
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_file_systems_without_locks_are_refused_with_a_remedy(tmp_path, monkeypatch, number):
    def flock(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OutputError, match=r"no file locks .*local disk"), locked(tmp_path, "build"):
        pytest.fail("unlocked")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"), locked(tmp_path / "file" / "work", "build"):
        pytest.fail("nowhere")


def test_who_holds_it_can_be_asked_without_taking_it(tmp_path):
    assert holder(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    with another_process(tmp_path) as (process, _):
        assert holder(tmp_path).startswith(f"process {process.pid} on {socket.gethostname()} (building demo)")
    assert holder(tmp_path) is None
    with locked(tmp_path, "build"):
        assert "build" in holder(tmp_path)


def test_a_glance_does_not_keep_a_builder_out(tmp_path):
    with locked(tmp_path, "first"):
        pass
    with open(tmp_path / LOCK_FILE, "rb") as stream:  # as ``holder`` does, at the worst instant
        fcntl.flock(stream, fcntl.LOCK_SH)
        glance = threading.Timer(0.02, fcntl.flock, (stream, fcntl.LOCK_UN))
        glance.start()
        with locked(tmp_path, "second"):
            assert "second" in holder(tmp_path)
        glance.join()

"""What the engines' tests let workers do: light to import, because every worker process imports it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

MIB = 1 << 20


class Job(NamedTuple):
    """``deed`` names a function below; ``value`` is its argument."""

    deed: str
    value: Any = None


class AwkwardError(Exception):
    """An exception that pickles and cannot be unpickled: its constructor wants more than its args."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")


class Unreadable:
    """A result that pickles and cannot be unpickled in the driver."""

    def __reduce__(self):
        return (_only_in_a_worker, (os.getpid(),))


def _only_in_a_worker(pid: int) -> int:
    if os.getpid() != pid:
        raise LookupError("no such thing here")
    return pid


class Deadly:
    """Ends the process that unpickles it."""

    def __reduce__(self):
        return (os._exit, (3,))


def work(job: Job, guard) -> Any:
    """Do the job's deed."""
    return DEEDS[job.deed](job.value, guard)


def work_with(something: Any, job: Job, guard) -> Any:
    """For functools.partial: the result beside ``something``."""
    return something, work(job, guard)


def _double(value, guard):
    with guard("first"):
        pass
    with guard("second"):
        return 2 * value


def _crash_in_step(step, guard):
    with guard("before"):
        pass
    with guard(step):
        os.kill(os.getpid(), signal.SIGSEGV)


def _crash_after_steps(_, guard):
    with guard("over"):
        pass
    os.kill(os.getpid(), signal.SIGSEGV)


def _crash_while_answering(value, guard):
    def half(connection, data):
        os.write(connection.fileno(), bytes(data[: len(data) // 2]))
        os.kill(os.getpid(), signal.SIGKILL)

    Connection._send = half
    return value


def _exit(status, guard):
    with guard("exit"):
        os._exit(status)


def _kill(number, guard):
    with guard("killed"):
        os.kill(os.getpid(), number)


def _loop_in_c(_, guard):
    with guard("loop"):
        ctypes.PyDLL(None).sleep(100)  # holds the interpreter's lock, as a decoder's endless loop does


def _loop_in_python(_, guard):
    with guard("loop"):
        while True:
            pass


def _nested(seconds, guard):
    with guard("outer"), guard("inner"):
        pass
    with guard("outer"):
        with guard("inner"):
            time.sleep(seconds)
        time.sleep(seconds)


def _slow_but_within(seconds, guard):
    for number in range(4):
        with guard(f"step {number}"):
            time.sleep(seconds)
    time.sleep(seconds)
    return "done"


def _allocate(size_bytes, guard):
    with guard("allocate"):
        try:
            return len(bytearray(size_bytes))
        except MemoryError:
            return "MemoryError"


def _allocate_and_fail(size_bytes, guard):
    with guard("allocate"):
        bytearray(size_bytes)


_leaked = []


def _leak(size_bytes, guard):
    _leaked.append(bytearray(size_bytes))
    return os.getpid()


def _fail_holding(size_bytes, guard):
    held = bytearray(size_bytes)
    raise ValueError(len(held))


def _raise(text, guard):
    with guard("raise"):
        raise ValueError(text)


def _raise_awkward(_, guard):
    raise AwkwardError(7, "seven")


def _raise_local(_, guard):
    class LocalError(Exception):
        pass

    raise LocalError("nobody else knows this class")


def _raise_caught(_, guard):
    with contextlib.suppress(ValueError), guard("caught"):
        raise ValueError
    raise KeyError("outside")


def _system_exit(_, guard):
    sys.exit(3)


def _touch(path, guard):
    with guard("touch"):
        (Path(path) / str(os.getpid())).touch()
        time.sleep(100)


def _open_files():
    handles = [Path(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    return [os.readlink(handle) for handle in handles if handle.exists()]


def _kill_zygote():
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(100)


def _ray_worker() -> int:
    """The process that a worker's zygote serves."""
    facts = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()
    return int(facts[1])


def _kill_ray_worker():
    os.kill(_ray_worker(), signal.SIGKILL)
    time.sleep(100)


def _ray_machine():
    """The process of the machine that started the Ray worker."""
    time.sleep(0.2)
    facts = Path(f"/proc/{_ray_worker()}/stat").read_text().rpartition(")")[2].split()
    return int(facts[1])


DEEDS: dict[str, Callable[..., Any]] = {
    "double": _double,
    "pid": lambda value, guard: os.getpid(),
    "crash in step": _crash_in_step,
    "crash after steps": _crash_after_steps,
    "crash while answering": _crash_while_answering,
    "exit": _exit,
    "kill": _kill,
    "loop in C": _loop_in_c,
    "loop in Python": _loop_in_python,
    "nested": _nested,
    "slow but within": _slow_but_within,
    "allocate": _allocate,
    "allocate and fail": _allocate_and_fail,
    "leak": _leak,
    "fail holding": _fail_holding,
    "raise": _raise,
    "raise awkward": _raise_awkward,
    "raise local": _raise_local,
    "raise caught": _raise_caught,
    "system exit": _system_exit,
    "lambda": lambda value, guard: lambda: value,
    "unreadable": lambda value, guard: Unreadable(),
    "environment": lambda name, guard: os.environ.get(name),
    "libraries": lambda value, guard: _libraries(),
    "touch": _touch,
    "loaded": lambda name, guard: name in sys.modules,
    "folder": lambda value, guard: os.getcwd(),
    "files": lambda value, guard: _open_files(),
    "zygote's threads": lambda value, guard: len(os.listdir(f"/proc/{os.getppid()}/task")),
    "kill zygote": lambda value, guard: _kill_zygote(),
    "kill ray worker": lambda value, guard: _kill_ray_worker(),
    "ray machine": lambda value, guard: _ray_machine(),
    "sleep": lambda seconds, guard: time.sleep(seconds),
}


def _libraries() -> dict[str, Any]:
    """Use the heavy libraries under the limit; how many threads they would use."""
    import io

    import cv2
    import numpy as np
    import polars as pl
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = np.zeros((500, 500), np.uint8)
    cv2.GaussianBlur(image, (9, 9), 2)
    ok, _ = cv2.imencode(".png", image)
    table = io.BytesIO()
    pq.write_table(pa.table({"a": np.arange(100_000)}), table, compression="zstd")
    rows = pl.read_parquet(table.getvalue()).height
    room = np.empty(1024 * MIB, np.uint8).nbytes  # never written, so it costs nothing
    try:
        np.empty(1536 * MIB, np.uint8)
        memory = "allocated"
    except MemoryError:
        memory = "MemoryError"
    try:
        cv2.resize(image, (45_000, 45_000))
        resized = "allocated"
    except cv2.error as error:
        resized = "Insufficient memory" if "Insufficient memory" in str(error) else str(error)
    threads = {"cv2": cv2.getNumThreads(), "arrow": pa.cpu_count(), "polars": pl.thread_pool_size()}
    return {"encoded": ok, "rows": rows, "room": room, "numpy": memory, "cv2": resized, "threads": threads}

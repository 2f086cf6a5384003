"""Run by ``test_kill_steps``: a command killed before its first step, its second, …, and run again each time.

    python kill_worker.py build RECIPE FOLDER
    python kill_worker.py pack DATASET FOLDER

A step is a call of the system that changes a name. Every run is a fork of this process, which itself never
works and so has one thread; libraries are imported once. Prints JSON: the steps and fsyncs of a whole run, how
many kills there were, and for each after which something was wrong, what.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb  # noqa: F401  (imported before the forks)
import pyarrow.parquet  # noqa: F401
from pack_kit import inline, tree

import medcurate.decoders.index  # noqa: F401
import medcurate.readers.nifti  # noqa: F401
from medcurate.build.run import BuildOptions, build
from medcurate.commit import TEMP_PREFIX
from medcurate.engines import ENGINES
from medcurate.pack.dataset import pack_dataset
from medcurate.pack.types import PackRules
from medcurate.progress import configure

STEPS = ("replace", "rename", "link", "unlink", "mkdir", "rmdir")
NEVER = 0
STEP = "step: "


def build_into(source: Path, out: Path) -> None:
    options = BuildOptions(
        data=source.parent,
        out=out,
        work=out.with_name(f"{out.name}.work"),
        engine="inline",
        workers=1,
        memory_bytes=1 << 30,
    )
    build(str(source), options)


def pack_into(source: Path, out: Path) -> None:
    pack_dataset(source, out, PackRules(shard_bytes=1 << 16, size_px=80), engine=inline, workers=1)


def ended(work: Callable[[], None], fatal: int, log: Path) -> int:
    """The exit status of ``work``, killed before step ``fatal``. ``log``: its steps, a line each, then its errors."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        sys.stderr = log.open("w", buffering=1)
        count = [0]
        for name in STEPS:
            setattr(os, name, counted(name, count, fatal))
        os.fsync = lambda descriptor: told(
            "fsync", descriptor
        )  # what a kill cannot undo need not be waited for
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def counted(name: str, count: list[int], fatal: int) -> Callable[..., Any]:
    real = getattr(os, name)

    def step(*arguments: Any, **options: Any) -> Any:
        told(name, arguments[-1] if name in {"replace", "rename"} else arguments[0])
        count[0] += 1
        if count[0] == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)

    return step


def told(name: str, what: Any) -> None:
    sys.stderr.write(f"{STEP}{name} {target(what)}\n")


def steps_in(log: Path) -> list[str]:
    return [line.removeprefix(STEP) for line in log.read_text().splitlines() if line.startswith(STEP)]


def target(what: Any) -> str:
    """Name of a path or of an open file, without the random part of temporary ones."""
    path = Path(os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else what)
    return re.sub(rf"^{re.escape(TEMP_PREFIX)}[0-9a-f]+-", "", path.name)


def problem(work: Callable[[], None], out: Path, whole: dict[str, str], log: Path) -> str:
    """What is wrong with what a killed run left, or with what the next one made of it; "" for nothing."""
    if (out / "dataset.json").exists() and {**tree(out), **whole} != tree(out):
        return "a record, but not all that it names"
    if ended(work, NEVER, log):
        return log.read_text()
    after = tree(out)
    return " ".join(sorted(name for name in {**after, **whole} if after.get(name) != whole.get(name)))


def main(verb: str, source: Path, folder: Path) -> None:
    ENGINES["inline"] = "inline_engine"
    sys.modules["inline_engine"] = SimpleNamespace(run=inline)  # type: ignore[assignment]
    configure("plain")
    into, log = {"build": build_into, "pack": pack_into}[verb], folder / "log"
    if ended(lambda: into(source, folder / "whole" / "out"), NEVER, log):
        raise SystemExit(log.read_text())
    whole, calls, problems = tree(folder / "whole" / "out"), steps_in(log), {}
    place, steps = folder / "killed", 0
    while (code := ended(lambda: into(source, place / "out"), steps + 1, log)) == -signal.SIGKILL:
        steps, before = steps + 1, steps_in(log)[-1]
        if found := problem(lambda: into(source, place / "out"), place / "out", whole, log):
            problems[f"{steps}: {before}"] = found
        shutil.rmtree(place, ignore_errors=True)
    sys.stdout.write(json.dumps({"calls": calls, "kills": steps, "problems": problems, "ended": code}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))

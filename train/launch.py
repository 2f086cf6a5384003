"""``python -m medcurate.train.launch``: torchrun, but that a run which cannot go on ends at once and in one message.

torchrun starts processes again whatever they died of, ends in a traceback of its own, and does not tell a stop with a
checkpoint from processes that it had to kill. A loss that is no number comes again, and a wrong path stays wrong: a
process that knows this tells its launcher, and every process leaves word of how it ended.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import ClassVar, Literal, NoReturn

from medcurate.errors import ConfigError, MedcurateError
from medcurate.train.entry import loading

NO_USE = signal.SIGQUIT  # torchrun hands it on before it ends; no scheduler or lost terminal sends it
COMES_AGAIN = 4  # exit code of what whoever starts the same run again meets again
BY_SIGNAL = 128
KILLED = BY_SIGNAL + signal.SIGKILL
SHUTDOWN_S = 600  # for the batch in hand and its checkpoint; as long as processes wait for each other
_HEAR_S = 10.0  # in which the launcher ends the processes that have nothing to add
_FOLDER = "MEDCURATE_LAUNCH_FOLDER"  # where processes leave word for a launcher of ours
_SAID = "said"
_TALKATIVE = ("agent.server", "multiprocessing")  # parts of torchrun that warn of every signal handed on
_GOES_ON = "The same command goes on from the last checkpoint."

SaidBy = Literal["one", "me", "others"]


class Hopeless(MedcurateError):
    """Whoever starts the run again as it is meets this again.

    ``said_by``: all processes meet it, and "one" says so; only this one can say it ("me"); or the "others" do.
    """

    said_by: ClassVar[SaidBy] = "one"


@contextmanager
def said_once() -> Iterator[None]:
    """End the process with ``COMES_AGAIN`` where the body raises ConfigError or Hopeless, said once a machine."""
    try:
        yield
    except (ConfigError, Hopeless) as error:
        _tell_launcher(f"error: {error}", error.said_by if isinstance(error, Hopeless) else "one")
        sys.exit(COMES_AGAIN)


def launched_here() -> bool:
    """Whether a launcher of ours has started this process."""
    return _FOLDER in os.environ


def begin() -> None:
    """Take back what a process in this one's place, of an earlier attempt, left word of."""
    if word := _own_word():
        word.unlink(missing_ok=True)


def end(code: int) -> None:
    """Leave word that this process has saved what there is to save, and ends with ``code``."""
    if word := _own_word():
        word.write_text(str(code), encoding="ascii")


def _own_word() -> Path | None:
    folder = os.environ.get(_FOLDER)
    return Path(folder) / f"{os.environ.get('LOCAL_RANK', '0')}.end" if folder else None


def _tell_launcher(message: str, said_by: SaidBy) -> None:
    """Say ``message`` on standard error and end the launcher that started this process, if one did and none has."""
    launched = "TORCHELASTIC_RUN_ID" in os.environ
    if launched:
        # A torchrun that is not ours has no folder in which the first to speak could be told.
        second = _FOLDER not in os.environ and os.environ.get("LOCAL_RANK", "0") != "0" and said_by != "me"
        time.sleep(_HEAR_S * ((said_by == "others") + second))
        if not _speaks():
            # The launcher ends this process; one that ends by itself would be started again.
            time.sleep(_HEAR_S)
            return
    sys.stderr.write(message + "\n")
    sys.stderr.flush()
    if launched:
        os.kill(os.getppid(), NO_USE)


def _speaks() -> bool:
    """Whether this process is the first of its machine that says why all end."""
    if folder := os.environ.get(_FOLDER):
        try:
            (Path(folder) / _SAID).touch(exist_ok=False)
        except FileExistsError:
            return False
    return True


def main() -> None:
    """torchrun with the options that are given, which hands SIGUSR1 on too; the exit codes are those of ``train``."""
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SHUTDOWN_S))
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # nohup, which torchrun would overrule
        os.environ.setdefault("PET_SIGNALS_TO_HANDLE", "SIGTERM,SIGINT,SIGQUIT")
    with TemporaryDirectory(prefix="medcurate-launch-") as folder:
        os.environ[_FOLDER] = folder
        code = _launched(Path(folder))
    sys.exit(code)


def _launched(folder: Path) -> int:
    """Run torchrun; its exit code."""
    with loading():
        from torch.distributed.elastic.multiprocessing.api import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.run import parse_args, run

    for part in _TALKATIVE:  # else that follows what a process has said
        logging.getLogger(f"torch.distributed.elastic.{part}.api").setLevel(logging.ERROR)

    def hand_on(number: int, _: FrameType | None) -> NoReturn:
        raise SignalException(f"signal {number}", sigval=signal.Signals(number))

    try:
        signal.signal(signal.SIGUSR1, hand_on)
        run(parse_args(sys.argv[1:]))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        if (folder / _SAID).exists():
            return COMES_AGAIN
        return _after_failures({rank: failure.exitcode for rank, failure in error.failures.items()})
    except SignalException as error:
        return _after(error.sigval, folder)
    return 0


def _after_failures(codes: Mapping[int, int]) -> int:
    """The exit code where processes failed for the last time, with ``codes`` by rank; says which one was killed."""
    # Others that end because one was killed fail by themselves, or by the SIGTERM of torchrun.
    killed = {rank: -code for rank, code in codes.items() if code < 0 and code != -signal.SIGTERM}
    own = [code for code in codes.values() if code > 0]
    if own and not killed:
        return own[0]  # a process that ends by itself has said why
    for rank, number in sorted(killed.items()):
        known = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        hint = " (often because memory ran out)" if number == signal.SIGKILL else ""
        sys.stderr.write(f"error: process {rank} was ended by {known}{hint}. {_GOES_ON}\n")
    return KILLED


def _after(number: signal.Signals, folder: Path) -> int:
    """The exit code where ``number`` ended the launcher, by the word that its processes left in ``folder``."""
    if (folder / _SAID).exists():
        return COMES_AGAIN
    codes = [int(path.read_text(encoding="ascii")) for path in folder.glob("*.end")]
    if codes:  # all ranks have passed the checkpoint once one has
        return BY_SIGNAL + number if any(codes) else 0
    sys.stderr.write(
        f"error: {number.name} came, and the processes ended without a checkpoint: before their first batch, or killed "
        f"after {os.environ['TORCH_ELASTIC_SHUTDOWN_TIMEOUT']} s (TORCH_ELASTIC_SHUTDOWN_TIMEOUT). {_GOES_ON}\n"
    )
    return KILLED


if __name__ == "__main__":
    main()

"""``python -m medcurate.train.launch``: torchrun, but that a run which cannot go on ends at once and in one message.

torchrun starts processes again whatever they died of, and ends in a traceback of its own. A loss that is no number
comes again, and a wrong path stays wrong: a process that knows this tells its launcher.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from medcurate.errors import MedcurateError

NO_USE = signal.SIGHUP  # one of those that torchrun's agent hands on to its processes before it ends
_HEAR_S = 3.0  # in which the launcher ends the processes that have nothing to add


class Hopeless(MedcurateError):
    """Whoever starts the run again as it is meets this again."""


def tell_launcher(message: str) -> None:
    """Say ``message`` on standard error, once a machine, and end the launcher that started this process, if one did.

    Processes but the first wait: what stops all is said by one, and what stops one of them is said all the same.
    """
    launched = "TORCHELASTIC_RUN_ID" in os.environ
    if launched and os.environ.get("LOCAL_RANK", "0") != "0":
        time.sleep(_HEAR_S)
    sys.stderr.write(message + "\n")
    sys.stderr.flush()
    if launched:
        os.kill(os.getppid(), NO_USE)


def main() -> None:
    """torchrun with the options that are given; ends with the code of the process that failed first."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    try:
        run(parse_args(sys.argv[1:]))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        sys.exit(code if code > 0 else 128 - code)
    except SignalException as error:
        sys.exit(1 if error.sigval == NO_USE else 128 + error.sigval)


if __name__ == "__main__":
    main()

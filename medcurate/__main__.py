"""The ``medcurate`` command, also as ``python -m medcurate``."""

import os
import signal


def main() -> None:
    """Entry point. Ctrl-C while the verbs are being loaded ends at once: nothing has begun, and nothing is told.

    An exception raised amid an import may be swallowed there, or come out as a traceback of the importing modules.
    """
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:  # a shell may have it ignored
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from medcurate.cli.main import run

    signal.signal(signal.SIGINT, usual)
    run()


if __name__ == "__main__":
    main()

"""How programs of the trainer begin: they load torch, which takes seconds, and a launcher may have started them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from medcurate.errors import ConfigError
from medcurate.interrupt import TOLD, ended_by_interrupt


def loading() -> AbstractContextManager[None]:
    """Ctrl-C in the body is one line and exit code 130. A launcher, which has the signal too, speaks for its own."""
    return ended_by_interrupt("" if "TORCHELASTIC_RUN_ID" in os.environ else TOLD)


@contextmanager
def packages_needed(what: str) -> Iterator[None]:
    """The body imports what ``what`` needs. Raises ConfigError where a package of that is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if str(error.name).startswith("medcurate"):
            raise
        raise ConfigError(
            f'{what} needs the package "{error.name}": pip install "medcurate[train]"'
        ) from error

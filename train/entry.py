"""How programs of the trainer begin: they load torch, which takes seconds, and a launcher may have started them."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

from medcurate.interrupt import TOLD, ended_by_interrupt


def loading() -> AbstractContextManager[None]:
    """Ctrl-C in the body is one line and exit code 130. A launcher, which has the signal too, speaks for its own."""
    return ended_by_interrupt("" if "TORCHELASTIC_RUN_ID" in os.environ else TOLD)

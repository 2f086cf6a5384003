"""Those who write embeddings into one folder, of several machines even: the first removes what dead ones left."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medcurate.commit import output_error, remove_temporaries
from medcurate.lock import LOCK_FILE


@contextmanager
def among_writers(folder: Path, *others: Path) -> Iterator[None]:
    """Be one of those who write into ``folder`` and ``others``, after what killed writers left there is removed.

    All who write share a lock, which the kernel drops when one ends, however that is: whoever has it alone meets only
    the dead. A file system without locks cannot tell, so nothing is removed there. Raises OutputError.
    """
    path = folder / LOCK_FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise output_error(error, path) from error
    try:
        if _locked(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB):
            for place in (folder, *others):
                remove_temporaries(place)
        _locked(descriptor, fcntl.LOCK_SH)  # waits while another one removes
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind)
    except OSError:  # held by others, or a file system without locks
        return False
    return True

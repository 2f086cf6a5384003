"""Imported by a zygote, it lets every fork fail; for one test."""

import errno
import os


def _refuse() -> int:
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


os.fork = _refuse

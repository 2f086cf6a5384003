"""Programs that get Ctrl-C at one moment of their start."""

from __future__ import annotations


def interrupted_at(module: str) -> str:
    """The beginning of a program (Python) that gets SIGINT when it begins to import ``module``."""
    return f"""
import os, signal, sys

class Interrupting:
    def find_spec(self, name, *_):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
"""

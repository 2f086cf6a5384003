"""A file of prompts that are given again, the same to all processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from medcurate.commit import sha256_file
from medcurate.errors import ConfigError
from medcurate.train.evaluation.interaction import Replay, to_replay
from medcurate.train.prompts.record import read_records


@dataclass(frozen=True, slots=True)
class Replayed:
    """A file of prompts, and its SHA-256 when the evaluation began."""

    path: Path
    sha256: str

    @classmethod
    def at(cls, path: Path) -> Self:
        """The file ``path``. Raises ConfigError where it holds no prompts."""
        read_records(path)
        return cls(path, sha256_file(path))

    def read(self) -> Replay:
        """Its prompts. Raises ConfigError where it is another file by then."""
        records = read_records(self.path)
        if sha256_file(self.path) != self.sha256:
            raise ConfigError(
                f"--replay {self.path}: is another file than it was when the evaluation began. Keep a copy of it, and "
                "replay that."
            )
        return to_replay(records)

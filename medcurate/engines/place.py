"""What a worker on another machine has to find there: the driver's folders, and its versions of what decides bytes."""

from __future__ import annotations

import os
import socket
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medcurate.commit import TEMP_PREFIX
from medcurate.engines.types import Needs
from medcurate.errors import OutputError
from medcurate.tools import tool_versions

_AGAIN = "Run the same command again: it continues."


@dataclass(frozen=True, slots=True)
class Place:
    """Where the driver runs, and with what.

    ``sizes_bytes``: of files that jobs read; ``tokens``: of each folder that they write, a file that the driver has put
    there.
    """

    path: Sequence[str]
    folder: Path
    sizes_bytes: Mapping[Path, int]
    tokens: Mapping[Path, Path]
    tools: Mapping[str, str]

    def settle(self) -> None:
        """Make this process, on whatever machine, find what the driver finds. Raises OutputError where it cannot."""
        sys.path[:] = self.path
        self._enter()
        self._check_folders()
        self._check_tools()

    def _enter(self) -> None:
        try:
            os.chdir(self.folder)
        except OSError as error:
            raise _not_shared(self.folder) from error

    def _check_folders(self) -> None:
        for file, size_bytes in self.sizes_bytes.items():
            if not file.is_file() or file.stat().st_size != size_bytes:
                raise _not_shared(file)
        for folder, token in self.tokens.items():
            if not token.exists():
                raise _not_shared(folder)

    def _check_tools(self) -> None:
        found = tool_versions()
        for name, version in self.tools.items():
            if found[name] != version:
                raise OutputError(
                    f"{socket.gethostname()}: has {name} {found[name]}, the driver {version}, and the bytes of a "
                    "dataset may depend on it. Install the same versions on every machine of the cluster. "
                    f"{_AGAIN}"
                )


@contextmanager
def place(needs: Needs) -> Iterator[Place]:
    """Of this process, as long as the body runs. Folders that jobs write are made where they are not there."""
    tokens = {}
    try:
        for folder in needs.writes:
            folder.mkdir(parents=True, exist_ok=True)
            tokens[folder.absolute()] = token = (folder / f"{TEMP_PREFIX}{uuid.uuid4().hex}").absolute()
            token.touch()
        yield Place(
            path=[entry for entry in sys.path if isinstance(entry, str)],
            folder=Path.cwd(),
            sizes_bytes={file.absolute(): file.stat().st_size for file in needs.reads if file.is_file()},
            tokens=tokens,
            tools=tool_versions(),
        )
    finally:
        for token in tokens.values():
            token.unlink(missing_ok=True)


def _not_shared(path: Path) -> OutputError:
    return OutputError(
        f"{socket.gethostname()}: {path}: this machine has not got what the driver has there. All machines of a "
        "Ray cluster need the sources, the work folder, the output and the folder that the command is started in at "
        f"the same place: put them on a file system that all of them share. {_AGAIN}"
    )

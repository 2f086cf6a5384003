"""Files that rows of a table or patients name: as many as folders have files, so each folder is listed once."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from medcurate.pairings.found import Paths
from medcurate.pairings.letters import Alike
from medcurate.pairings.tree import Folder, entries, files_below, folders, wildcard_pattern


class Listed:
    """What lies below ``root``, as of the first look. Methods raise DataMissing where a folder cannot be listed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[Path, tuple[Alike, Alike]] = {}
        self._folders: dict[str, list[Folder]] = {}

    def matches(self, template: str) -> list[Paths]:
        """What fits ``template`` as it is written: files, or where it ends in "/" all files of each folder."""
        parent, _, last = template.rstrip("/").rpartition("/")
        of_folders, fits = template.endswith("/"), wildcard_pattern(last).fullmatch
        found = [
            self._paths(folder.path / name, of_folders=of_folders)
            for folder in self._matching(parent)
            for name in self._in(folder.path)[of_folders].to(last)
            if fits(name)
        ]
        return [paths for paths in found if paths]

    def in_other_case(self, template: str) -> list[Path]:
        """The files or folders that fit ``template``, which nothing fits as it is written, if letters have no case."""
        of_folders = template.endswith("/")
        *above, last = PurePosixPath(template).parts
        found = [Path()]
        for part in above:
            found = [path for folder in found for path in self._below(folder, part)]
        return [
            folder / name
            for folder in found
            for name in self._in(folder)[of_folders].to(last)
            if self._paths(folder / name, of_folders=of_folders)
        ]

    def _matching(self, template: str) -> list[Folder]:
        if template not in self._folders:
            self._folders[template] = folders(self._root, template or ".")
        return self._folders[template]

    def _below(self, folder: Path, part: str) -> list[Path]:
        if part == "**":
            return [folder / found.path for found in folders(self._root / folder, part)]
        return [folder / name for name in self._in(folder)[True].to(part)]

    def _in(self, folder: Path) -> tuple[Alike, Alike]:
        """Names of files and of folders in ``folder``."""
        if folder not in self._names:
            files, below = entries(self._root / folder)
            self._names[folder] = Alike(files), Alike(below)
        return self._names[folder]

    def _paths(self, path: Path, *, of_folders: bool) -> Paths:
        return files_below(self._root, path) if of_folders else (path,)

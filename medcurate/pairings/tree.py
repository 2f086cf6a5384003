"""The listing of a source's folder: sorted by name, hidden files left out, nothing opened.

Templates know one wildcard, ``*`` (any text inside one name), and ``**`` as a whole component (any number
of folders). Every other character is literal, brackets included, because public sets use them in names.
Names are compared case-sensitively. Hidden names are left out: dot files, the AppleDouble twins (``._x``)
that macOS archivers add beside every file, and their ``__MACOSX`` folder. A name counts as a file only if
it is, or links to, a regular file; FIFOs, sockets and devices are never offered. Links may lead outside
the root: data stores such as DataLad keep every file behind one. A folder may be an archive that is read in
place (``zips.inside``): its members are listed as if they were files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from medcurate.errors import DataMissing
from medcurate.zips import inside

_HIDDEN_FOLDERS = frozenset({"__MACOSX"})


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that matched a template.

    ``path`` is relative to the root; ``wildcards`` holds the text that each wildcard stands for; ``name``
    joins the components of the path that hold a wildcard ("" where the template has none).
    """

    path: Path
    wildcards: tuple[str, ...] = ()
    name: str = ""


def check_template(template: str) -> str:
    """``template`` itself. Raises ValueError unless it is a relative path that stays below the root."""
    parts = PurePosixPath(template).parts
    if not template or template.startswith("/") or ".." in parts or "\\" in template:
        raise ValueError("a path below the source's folder, with '/' between names and without '..'")
    if any("**" in part and part != "**" for part in parts):
        raise ValueError("'**' stands for whole folders: write it between slashes")
    return template


def wildcard_count(template: str) -> int:
    """The number of wildcards of a template; ``**`` counts once."""
    return template.replace("**", "*").count("*")


def folders(root: Path, template: str) -> list[Folder]:
    """The folders below ``root`` that match ``template``, sorted by path."""
    found = [Folder(Path())]
    for part in PurePosixPath(template).parts:
        found = [below for folder in found for below in _step(root, folder, part)]
    return sorted(found, key=lambda folder: folder.path.parts)


def entries(folder: Path) -> tuple[list[str], list[str]]:
    """The visible names in ``folder``: regular files and folders, each sorted; none if it is absent.

    A link that leads nowhere counts as a file: it stands for one that has not been fetched. Raises
    DataMissing when the folder may not be listed.
    """
    files, below = [], []
    try:
        with os.scandir(folder) as listing:
            for entry in listing:
                if hidden(entry.name):
                    continue
                if _is_file(entry):
                    files.append(entry.name)
                elif entry.is_dir():
                    below.append(entry.name)
            if not files and not below and inside.is_mounted(folder):
                return inside.listing(folder) or ([], [])
    except (FileNotFoundError, NotADirectoryError):
        return inside.listing(folder) or ([], [])
    except OSError as error:
        raise DataMissing(f"{folder}: cannot be listed: {error.strerror}. Make it readable.") from error
    return sorted(files), sorted(below)


def names_in(folder: Path) -> Sequence[str]:
    """``entries``' names of files, sorted; of an archive read in place looked up as they are asked for.

    There, names of folders are among them.
    """
    return inside.names(folder) or entries(folder)[0]


def _is_data_file(path: Path) -> bool:
    """Whether ``path`` is a regular file, a link to one, or a link that leads nowhere."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def _is_file(entry: os.DirEntry[str]) -> bool:
    """``_is_data_file`` without a system call for what is no link."""
    return _is_data_file(Path(entry.path)) if entry.is_symlink() else entry.is_file()


def hidden(name: str) -> bool:
    """Whether a name is no data: a dot file, an AppleDouble twin, or the folder of such twins."""
    return name.startswith(".") or name in _HIDDEN_FOLDERS


def files_below(root: Path, folder: Path) -> tuple[Path, ...]:
    """All visible regular files below ``folder``, relative to ``root``, in natural order (img2 < img10)."""
    names, below = entries(root / folder)
    found = [folder / name for name in names]
    for name in below:
        if not (root / folder / name).is_symlink():  # a link may lead to a folder above: no endless walk
            found.extend(files_below(root, folder / name))
    return tuple(sorted(found, key=natural))


def natural(path: Path) -> tuple[tuple[str | tuple[int, str], ...], ...]:
    """Sort key that compares runs of digits as numbers, then as text so that no two paths are equal."""
    return tuple(
        tuple((int(piece), piece) if index % 2 else piece for index, piece in enumerate(_pieces(part)))
        for part in path.parts
    )


def _pieces(part: str) -> list[str]:
    return re.split(r"([0-9]+)", part)


def _step(root: Path, folder: Folder, part: str) -> Iterator[Folder]:
    if part == "**":
        yield from _any_depth(root, folder, folder.path)
    elif "*" not in part:
        path = folder.path / part
        if inside.is_folder(root / path):
            yield Folder(path, folder.wildcards, folder.name)
    else:
        for name in entries(root / folder.path)[1]:
            matched = wildcard_pattern(part).fullmatch(name)
            if matched:
                yield Folder(
                    folder.path / name, (*folder.wildcards, *matched.groups()), _join(folder.name, name)
                )


def _any_depth(root: Path, start: Folder, path: Path) -> Iterator[Folder]:
    text = path.relative_to(start.path).as_posix()
    text = "" if text == "." else text
    yield Folder(path, (*start.wildcards, text), _join(start.name, text))
    for name in entries(root / path)[1]:
        if not (root / path / name).is_symlink():
            yield from _any_depth(root, start, path / name)


def _join(first: str, second: str) -> str:
    return f"{first}/{second}" if first and second else first or second


@cache
def wildcard_pattern(text: str) -> re.Pattern[str]:
    """``text`` as a regular expression: each ``*`` is a group of any characters but a slash."""
    return re.compile("([^/]*)".join(re.escape(piece) for piece in text.split("*")), re.DOTALL)

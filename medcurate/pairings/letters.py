"""Names that would fit what is declared if letters had no case: as likely meant as not, so they are told.

A camera or an archiver of Windows writes ``SCAN.PNG`` where a source says ``*.png``: what was passed over in silence
would be a class that its case does not show, or a patient that is not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from medcurate.errors import DataMissing
from medcurate.pairings.tree import entries, folders, wildcard_pattern


def folded(text: str) -> str:
    """``text`` as it would be if letters had no case.

    Unicode's rule for it goes letter by letter, so that a template's pieces become what the same pieces of a name do.
    ``str.lower`` does not: it writes a sigma otherwise at the end of a word, and keeps "ß", whose capitals are "SS".
    """
    return text.casefold()


class Alike:
    """Names by what they are if letters have no case: each is folded once, whatever is asked of them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names: Mapping[str, Sequence[str]] = {}
        found: dict[str, list[str]] = {}
        for name in names:
            found.setdefault(folded(name), []).append(name)
        self._names = found

    def to(self, part: str) -> Sequence[str]:
        """The names that fit ``part``, one component of a template, if letters have no case; sorted."""
        wanted = folded(part)
        if "*" not in wanted:
            return self._names.get(wanted, ())
        fits = wildcard_pattern(wanted).fullmatch
        return sorted(name for key, same in self._names.items() if fits(key) for name in same)


def no_match(root: Path, template: str, mend: str, what: str = "", *, files: bool = False) -> DataMissing:
    """The error where nothing fits; ``mend``: the option to mend, ``what``: what is looked for there."""
    seen = other_case(root, template, files=files)
    told = f'There is "{seen[0]}", whose name differs only in upper and lower case. ' if seen else ""
    return DataMissing(
        f'{root}: no {"file" if files else "folder"} matches "{template}"{what}. {told}'
        f"Put the files of the source there, or mend {mend} in its [[pairings]] options."
    )


def other_case(root: Path, template: str, *, files: bool = False) -> list[Path]:
    """The folders that only the case of letters keeps apart from ``template``, sorted.

    ``files``: the last part of the template is that of files; those beside one of the same letters that fits are left
    out.
    """
    parts = PurePosixPath(template).parts
    found = {Path(): True}  # whether the path fits as it is written
    for at, part in enumerate(parts):
        may_differ = any(letter.isalpha() for rest in parts[at + 1 :] for letter in rest)
        of_files = files and at == len(parts) - 1
        found = {
            path / name: fits and exact
            for path, fits in found.items()
            for name, exact in _step(root / path, part, of_files=of_files)
            if may_differ or not (fits and exact)
        }
    return sorted((path for path, fits in found.items() if not fits), key=lambda path: path.parts)


def _step(folder: Path, part: str, *, of_files: bool) -> Iterator[tuple[str, bool]]:
    """(path below ``folder``, whether it fits as it is written) of what fits ``part`` if letters have no case."""
    if part == "**":
        yield from ((below.path.as_posix(), True) for below in folders(folder, part))
        return
    files, below = entries(folder)
    fits, alike = wildcard_pattern(part).fullmatch, wildcard_pattern(folded(part)).fullmatch
    found = [(name, fits(name) is not None) for name in (files if of_files else below) if alike(folded(name))]
    twins = {folded(name) for name, exact in found if of_files and exact}
    yield from (entry for entry in sorted(found) if entry[1] or folded(entry[0]) not in twins)

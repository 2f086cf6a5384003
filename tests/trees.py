"""Trees of one-byte files, where only names matter, and what pairings find in them."""

from __future__ import annotations

from pathlib import Path

from medcurate.pairings import PAIRINGS
from medcurate.pairings.found import Found, Names
from medcurate.registry import load


def grow(root: Path, *names: str) -> Path:
    """Create the files ``names`` below ``root``, in the given order."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def find(root: Path, kind: str, names: Names | None = None, **options) -> list[Found]:
    module = load(PAIRINGS, kind, "pairing")
    return list(module.find(root, module.Options(**options), names or Names()))


def shown(found: list[Found]) -> dict[str, tuple[list[str], list[str], str]]:
    """name -> (images as "channel[component]=path|path", labels as "label=path|path", problem)."""

    def line(token: str, paths: tuple[Path, ...]) -> str:
        return f"{token}={'|'.join(path.as_posix() for path in paths)}"

    return {
        entry.name: (
            [line(f"{i.channel}{'' if i.component is None else i.component}", i.paths) for i in entry.images],
            [line(label.label, label.paths) for label in entry.labels],
            entry.problem,
        )
        for entry in found
    }

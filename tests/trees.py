"""Trees of one-byte files, where only names matter."""

from __future__ import annotations

from pathlib import Path


def grow(root: Path, *names: str) -> Path:
    """Create the files ``names`` below ``root``, in the given order."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root

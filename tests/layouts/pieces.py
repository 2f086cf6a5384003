"""What is written: images and labels, and the files that hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from layouts.paint import Strip


@dataclass(frozen=True)
class Piece:
    """One image or label that goes to a file; ``entry``: which one, where the file holds many."""

    array: np.ndarray
    is_label: bool
    entry: str = ""
    key: str = ""  # of [labels] where every class has its own file, or the channel
    dimensions: int = 3
    options: Mapping[str, Any] = field(default_factory=dict)  # of its reader
    strips: Sequence[Strip] = ()  # of a drawing
    turned: str = ""  # the directions that the axes of a label grow to, where not LPS
    frames: str = ""  # the stored axis that counts planes, where not the last
    on_dicom: bool = False  # its own geometry is that of a series, not the writers' usual one
    is_text: bool = False  # says something of a row, as it stands


@dataclass(frozen=True)
class File:
    """All that one file holds, and the options of the reader of the first piece."""

    path: Path  # of the file, or of the folder of a series
    is_folder: bool
    pieces: Sequence[Piece]

    @property
    def options(self) -> Mapping[str, Any]:
        return self.pieces[0].options

    @property
    def array(self) -> np.ndarray:
        (piece,) = self.pieces
        return piece.array

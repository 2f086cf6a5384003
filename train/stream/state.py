"""Where a stream stands: all that a checkpoint needs of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from medcurate.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """The next sample of the order.

    ``samples``: how many of ``epoch`` were seen by all ranks together. ``lanes``: of the order (``order.py``);
    0: to be chosen from the batch size. ``manifest``: SHA-256 of the dataset's manifest. ``selection``: digest
    of the selected samples, masks and weights. Both are empty before the first batch, and checked after.
    """

    seed: int = 0
    epoch: int = 0
    samples: int = 0
    lanes: int = 0
    manifest: str = ""
    selection: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint's JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StreamState:
        """The state that ``to_dict`` gave. Raises ConfigError for anything else."""
        known = {field.name: str if field.type == "str" else int for field in fields(cls)}
        if set(values) != set(known) or any(
            not isinstance(values[name], kind) for name, kind in known.items()
        ):
            raise ConfigError(
                f"not the state of a stream: {dict(values)}; use the checkpoint of this version."
            )
        return cls(**values)

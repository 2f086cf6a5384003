"""Which of a run's processes this one is, as torchrun, or another launcher, says in the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass

from medcurate.errors import ConfigError

_NAMES = ("WORLD_SIZE", "RANK", "LOCAL_RANK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Process ``rank`` of ``size``; ``local_rank`` counts on its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0


def own_place() -> Place:
    """This process's place: the only one where no launcher says otherwise.

    Raises ConfigError where the environment says half of it, or what cannot be: the rest of an earlier launcher's words
    would have this process do another's share, or wait for others who never come.
    """
    said = {name: os.environ[name] for name in _NAMES if name in os.environ}
    if not said:
        return Place()
    try:
        place = Place(
            rank=int(said["RANK"]), size=int(said["WORLD_SIZE"]), local_rank=int(said.get("LOCAL_RANK", "0"))
        )
    except (KeyError, ValueError):
        raise _left_over(said) from None
    if not (0 <= place.rank < place.size and 0 <= place.local_rank < place.size):
        raise _left_over(said)
    return place


def require_meeting_point() -> None:
    """Raise ConfigError where the environment does not say where the processes of a run meet."""
    if absent := [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]:
        size = os.environ["WORLD_SIZE"]
        raise ConfigError(
            f"WORLD_SIZE={size} in the environment, and no {absent[0]}: where do the {size} processes meet? "
            f"If it is left over, unset {' '.join(_NAMES)}; else start the processes by torchrun."
        )


def _left_over(said: dict[str, str]) -> ConfigError:
    words = " ".join(f"{name}={value}" for name, value in said.items())
    return ConfigError(
        f"{words} in the environment is not what a launcher gives its processes: WORLD_SIZE, and a RANK and a "
        f"LOCAL_RANK below it. If they are left over, unset {' '.join(said)}; else start the processes by torchrun."
    )

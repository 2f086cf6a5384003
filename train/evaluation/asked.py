"""Which prompts are given: "box,1,3,5" as SAM-Med2D's tables have them."""

from __future__ import annotations

from dataclasses import dataclass

from medcurate.errors import ConfigError

BOX = "box"
MOST_POINTS = 50


@dataclass(frozen=True, slots=True)
class Asked:
    """``box``: one box without jitter. ``points``: after how many points, given one by one, masks are scored."""

    box: bool
    points: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """ "box", "1 point", "3 points", …"""
        return (*([BOX] if self.box else []), *(points_name(count) for count in self.points))


def points_name(count: int) -> str:
    """The name of ``count`` points in tables."""
    return f"{count} point" if count == 1 else f"{count} points"


def parse_prompts(text: str) -> Asked:
    """ "box,1,3,5" as ``Asked``. Raises ConfigError."""
    words = [word.strip() for word in text.split(",")]
    wrong = [
        word for word in words if word != BOX and not (word.isdecimal() and 1 <= int(word) <= MOST_POINTS)
    ]
    if wrong or len(set(words)) != len(words):
        raise ConfigError(
            f'--prompts "{text}": give "box" and numbers of points up to {MOST_POINTS}, each once: box,1,3,5'
        )
    return Asked(BOX in words, tuple(sorted(int(word) for word in words if word != BOX)))

"""Sizes and counts as people write them."""

from __future__ import annotations

import re

from medcurate.errors import ConfigError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {
    f"{letter}iB".upper(): 1 << shift for letter, shift in (("K", 10), ("M", 20), ("G", 30), ("T", 40))
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


def parse_size(option: str, text: str) -> int:
    """Bytes of "256MiB", "1.5 GB" or "4096", as ``option`` gives them. Raises ConfigError."""
    match = _SIZE.fullmatch(text.strip())
    unit = match.group(2).upper() if match else ""
    if match is None or unit not in _UNITS:
        raise ConfigError(
            f'{option} "{text}": is no size; give bytes, or a number with KB, MB, GB, TB, KiB, MiB, GiB or TiB.'
        )
    return round(float(match.group(1)) * _UNITS[unit])


def counted(count: int, what: str) -> str:
    """ "1 file", "2,000 files"; ``what``: the singular of a noun that takes an s."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"

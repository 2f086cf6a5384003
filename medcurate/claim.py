"""What an output folder is being built from; another recipe, source or tool version is refused, never mixed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medcurate import __version__
from medcurate.commit import write_json
from medcurate.errors import ConfigError
from medcurate.format import CLAIM_FILE, DATASET_FILE, FORMAT_VERSION

# Packages whose version can change the bytes of a dataset.
_TOOLS = (
    "imagecodecs",
    "isal",
    "nibabel",
    "numpy",
    "opencv-python-headless",
    "pyarrow",
    "pydicom",
    "pylibjpeg-libjpeg",
    "pylibjpeg-openjpeg",
    "pynrrd",
    "tifffile",
)
_SHOWN_DIFFERENCES = 12


def tool_versions() -> dict[str, str]:
    """Versions of medcurate, its format, and every installed package that can change bytes."""
    found = {"medcurate": __version__, "format": str(FORMAT_VERSION)}
    for name in _TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def claim(out: Path, made_by: Mapping[str, Any]) -> None:
    """Mark ``out`` as being built from ``made_by``. Raises ConfigError with a diff when it is claimed otherwise."""
    existing = _existing(out)
    if existing is None:
        stray = sorted(p.name for p in out.iterdir()) if out.is_dir() else []
        if stray:
            raise ConfigError(
                f"{out}: not empty and not a dataset of medcurate (found {stray[0]}). Give a new folder."
            )
        write_json(out / CLAIM_FILE, made_by)
        return
    differences = list(diff(existing, json.loads(json.dumps(made_by))))
    if differences:
        shown = differences[:_SHOWN_DIFFERENCES]
        more = f"\n  … and {len(differences) - len(shown)} more" if len(differences) > len(shown) else ""
        raise ConfigError(
            f"{out} was made from something else; datasets are never mixed.\n  "
            + "\n  ".join(shown)
            + more
            + "\nGive another output folder, or restore what differs."
        )


def release(out: Path) -> None:
    """Remove the claim of a finished dataset (its record now says the same)."""
    (out / CLAIM_FILE).unlink(missing_ok=True)


def diff(before: Any, after: Any, key: str = "") -> Iterator[str]:
    """Lines ``dotted.key: before -> after`` for every leaf that differs."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in sorted({*before, *after}):
            yield from diff(
                before.get(name, "absent"), after.get(name, "absent"), f"{key}.{name}" if key else name
            )
    elif _is_list(before) and _is_list(after) and len(before) == len(after):
        for number, (left, right) in enumerate(zip(before, after, strict=True)):
            yield from diff(left, right, f"{key}[{number}]")
    elif before != after:
        yield f"{key}: {_short(before)} -> {_short(after)}"


def _existing(out: Path) -> Any:
    try:
        if (out / DATASET_FILE).is_file():
            return json.loads((out / DATASET_FILE).read_bytes())["made_by"]
        if (out / CLAIM_FILE).is_file():
            return json.loads((out / CLAIM_FILE).read_bytes())
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{out}: its record is damaged ({error}). Give a new folder.") from error
    return None


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _short(value: Any, limit: int = 70) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= limit else f"{text[:limit]}…"

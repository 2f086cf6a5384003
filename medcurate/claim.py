"""What an output folder is being built from; another recipe, source or tool version is refused, never mixed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medcurate.commit import TEMP_PREFIX, write_json
from medcurate.errors import ConfigError
from medcurate.format import CLAIM_FILE, DATASET_FILE

_SHOWN_DIFFERENCES = 12


def work_folder(out: Path) -> Path:
    """Where an output's parts, plan and lock are kept unless another folder is given. Raises ConfigError for "/"."""
    out = out.resolve()
    if not out.name:
        raise ConfigError(
            f"{out}: its work folder would lie beside it, and nothing does. Give a folder below it."
        )
    return out.with_name(f"{out.name}.work")


def claim(out: Path, made_by: Mapping[str, Any], work: Path) -> None:
    """Mark ``out`` as being built from ``made_by``; a copy in ``work`` survives the loss of the output's own.

    Raises ConfigError as ``check_claim`` does.
    """
    check_claim(out, made_by, work)
    write_json(work / CLAIM_FILE, {"out": out.name, "made_by": made_by})
    if not (out / DATASET_FILE).is_file():
        write_json(out / CLAIM_FILE, made_by)


def check_no_file(out: Path) -> None:
    """Raise ConfigError where ``out`` cannot become a folder."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file. Give a new folder.")


def check_claim(out: Path, made_by: Mapping[str, Any], work: Path) -> None:
    """Raise ConfigError, with what differs, when ``out`` is or is being made from something else, or is a file."""
    check_no_file(out)
    existing = _existing(out, work)
    if existing is None:
        stray = (
            sorted(p.name for p in out.iterdir() if not p.name.startswith(TEMP_PREFIX))
            if out.is_dir()
            else []
        )
        if stray:
            raise ConfigError(
                f"{out}: not empty and not a dataset of medcurate (found {stray[0]}). Give a new folder."
            )
        return
    differences = list(diff(existing, json.loads(json.dumps(made_by))))
    if differences:
        shown = differences[:_SHOWN_DIFFERENCES]
        more = f"\n  … and {len(differences) - len(shown)} more" if len(differences) > len(shown) else ""
        raise ConfigError(
            f"{out} was made from something else; datasets are never mixed.\n  "
            + "\n  ".join(shown)
            + more
            + "\nGive another output folder, remove this one, or restore what differs."
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
    elif _is_list(before) and _is_list(after) and _by_id(before) is not None and _by_id(after) is not None:
        yield from diff(_by_id(before), _by_id(after), key)
    elif _is_list(before) and _is_list(after) and len(before) == len(after):
        for number, (left, right) in enumerate(zip(before, after, strict=True)):
            yield from diff(left, right, f"{key}[{number}]")
    elif before != after:
        yield f"{key}: {_short(before)} -> {_short(after)}"


def _existing(out: Path, work: Path) -> Any:
    """What ``out`` is made of: by its record or claim, else by the copy in its work folder."""
    copy = _copy(out, work)
    for path, key in ((out / DATASET_FILE, "made_by"), (out / CLAIM_FILE, None)):
        if not path.is_file():
            continue
        try:
            value = json.loads(path.read_bytes())
            return value if key is None else value[key]
        except (ValueError, KeyError, TypeError) as error:
            if copy is None:
                raise ConfigError(f"{path}: damaged ({error}). Restore it, or give a new folder.") from error
            path.unlink()  # it is written again from what the copy says
    return copy


def _copy(out: Path, work: Path) -> Any:
    path = work / CLAIM_FILE
    if not (path.is_file() and out.is_dir() and any(out.iterdir())):
        return None
    try:
        value = json.loads(path.read_bytes())
        return value["made_by"] if value["out"] == out.name else None
    except (ValueError, KeyError, TypeError):
        return None  # damaged: then only the output's own record can tell


def _by_id(entries: Sequence[Any]) -> dict[str, Any] | None:
    """Entries by their id, None where they have none: lists of sources are compared source by source."""
    if not all(isinstance(entry, Mapping) and "id" in entry for entry in entries):
        return None
    return {entry["id"]: entry for entry in entries}


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _short(value: Any, limit: int = 70) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= limit else f"{text[:limit]}…"

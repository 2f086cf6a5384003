"""A source's files, there and as declared: packaged ones copied, generated ones made, all digests checked.

Nothing is downloaded: files behind a URL are named with the place where they belong, and the user brings
them. A file that is there is never changed or deleted.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from medcurate.commit import committed, sha256_file, write_json
from medcurate.config.source import Origin, Source, SourceFile
from medcurate.errors import ConfigError, DataMissing
from medcurate.library import packaged_sources
from medcurate.phantom import generate

STAMP_FILE = ".verified.json"


def ensure(source: Source, data: Path, home: Path) -> Path:
    """The folder that the source's pairings search, with every declared file in it and verified.

    That is ``data``/<id>. A source that declares no files and has no such folder is searched where its own
    TOML file lies (``home``), so a lab may keep the two together.

    Raises DataMissing, listing every absent file with where it comes from and where it belongs;
    ConfigError where a file differs from its declared size or SHA-256, or cannot be made; OutputError.
    """
    folder = source_folder(source, data, home)
    if not source.files:
        return folder
    absent = [file for file in source.files if not (folder / file.path).exists()]
    missing = [file for file in absent if not _made(file.origin, folder / file.path)]
    if missing:
        raise DataMissing(_missing_text(source.id, folder, missing))
    _verify(source, folder)
    return folder


def source_folder(source: Source, data: Path, home: Path) -> Path:
    """Where the source's files are or belong (see ``ensure``). Raises DataMissing where that is no folder."""
    folder = data / source.id
    if source.files or folder.is_dir():
        return folder
    if home.resolve() != packaged_sources().resolve():
        return home
    owner = source.homepage or "their owner"
    raise DataMissing(
        f'source "{source.id}": there is no folder {folder}. Get the files from {owner} and put them there, '
        "or name the folder above it with --data."
    )


def _made(origin: Origin, path: Path) -> bool:
    """Copy or generate ``path``; False where only the user can bring it."""
    if origin.package:
        _copy(origin, path)
        return True
    if origin.generator:
        generate(origin.generator, path)
        return True
    return False


def _copy(origin: Origin, path: Path) -> None:
    try:
        resource = resources(origin.package).joinpath(origin.resource)
    except ModuleNotFoundError as error:
        raise ConfigError(f'{path}: comes with the package "{origin.package}"; install that') from error
    try:
        with resource.open("rb") as packaged, committed(path) as stream:
            shutil.copyfileobj(packaged, stream)
    except FileNotFoundError as error:
        raise ConfigError(
            f'{path}: the package "{origin.package}" has no file "{origin.resource}"; reinstall it'
        ) from error


def _missing_text(source_id: str, folder: Path, missing: Sequence[SourceFile]) -> str:
    lines = [
        f'source "{source_id}": {len(missing)} of its files are not in {folder}. This version of medcurate '
        "downloads nothing: put them there and run the same command again."
    ]
    for file in missing:
        lines.append(f"  {folder / file.path}")
        lines.append(f"    from: {file.origin.url or file.origin.by_hand}")
        size = "not known" if file.size_bytes is None else f"{file.size_bytes:,} bytes"
        lines.append(f"    size: {size}; sha256: {file.sha256 or 'not known'}")
    return "\n".join(lines)


def _verify(source: Source, folder: Path) -> None:
    """Compare all files with what the source declares; what is untouched since it was hashed is not read."""
    stamps = _read_stamps(folder)
    current = {file.path: _stamp(folder / file.path, file) for file in source.files}
    problems = list(_problems(source.files, folder, current, stamps))
    if problems:
        raise ConfigError(
            "\n".join(problems)
            + "\nNothing was deleted. Remove what is wrong and run the same command again, "
            f'or mend the declaration in the source "{source.id}".'
        )
    if current != stamps and os.access(folder, os.W_OK):
        write_json(folder / STAMP_FILE, current)


def _problems(
    files: Iterable[SourceFile], folder: Path, current: Mapping[str, Any], stamps: Mapping[str, Any]
) -> Iterable[str]:
    for file in files:
        path, size = folder / file.path, current[file.path]["size_bytes"]
        if file.size_bytes is not None and size != file.size_bytes:
            yield f"{path}: {size:,} bytes, but {file.size_bytes:,} are declared"
        elif file.sha256 and current[file.path] != stamps.get(file.path):
            found = sha256_file(path)
            if found != file.sha256:
                yield f"{path}: sha256 {found}, but {file.sha256} is declared"


def _stamp(path: Path, file: SourceFile) -> dict[str, Any]:
    status = path.stat()
    return {"size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": file.sha256}


def _read_stamps(folder: Path) -> dict[str, Any]:
    """What was verified before; empty where that cannot be read, so that everything is verified again."""
    try:
        stamps = json.loads((folder / STAMP_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return stamps if isinstance(stamps, dict) else {}

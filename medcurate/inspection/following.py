"""What to do with a draft: the commands from its questions to a dataset, as they can be pasted."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from medcurate.inspection.digest import Digest
from medcurate.inspection.draft import QUESTION, looks_like_ct, quoted, slug


def following(folder: Path, draft: Path, digest: Digest, question_count: int) -> Iterator[str]:
    """Lines for people, one step after the other.

    A build searches <data>/<id of the source>, else where the source file lies. So a folder that is called
    like the source is found by the folder above it; any other has its source file put into it.
    """
    name = slug(folder.resolve().name)
    home, data, moved = _places(folder, draft, name)
    recipe = home / f"{name}-recipe.toml"
    steps = [
        [
            f"Answer the {question_count} questions in {shlex.quote(str(draft))} (lines that start with "
            f'"{QUESTION}"). Ids are found by:',
            "  medcurate terms WORD",
            "  medcurate terms --kind modalities",
        ]
    ]
    if moved:
        steps.append(["Put it beside the files:", f"  mv {_path(draft)} {_path(home / draft.name)}"])
    else:
        steps[0].append(f'Keep its id = "{name}", the folder\'s name: by it the build finds the files.')
    source = home / draft.name if moved else draft
    check = f"  medcurate check {_path(source)} --data {_path(data)}"
    steps.append(["Hold the answers against the files:", check])
    steps.append([f"Write a recipe, say {shlex.quote(str(recipe))}:", *_recipe(name, draft.name, digest)])
    build = f"medcurate build --recipe {_path(recipe)} --data {_path(data)} --out {name}-corpus"
    steps.append(["Build:", f"  {build}"])
    for number, (first, *rest) in enumerate(steps, 1):
        yield f"{number}. {first}"
        yield from (f"   {line}" for line in rest)


def _places(folder: Path, draft: Path, name: str) -> tuple[Path, Path, bool]:
    """Where the source file has to lie, what --data is, and whether the file has to move for it."""
    real = folder.resolve()
    if real.name == name:
        above = real.parent
        return draft.parent, above if folder.is_absolute() else Path(os.path.relpath(above)), False
    return folder, folder, draft.parent.resolve() != real


def _path(path: Path) -> str:
    """``path`` for a shell; one that starts with "-" is no option."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def _recipe(name: str, source: str, digest: Digest) -> Iterator[str]:
    """The least that a recipe says."""
    yield f'  name = "{name[:33].strip("-")}-corpus"'
    yield f'  title = "{name}"'
    yield f"  sources = [{quoted(source)}]"
    yield ""
    yield "  [intensity.default]"
    if digest.images and all(facts.affine is None and facts.dtype == "uint8" for facts in digest.images):
        yield '  rule = "rgb"  # 8-bit pictures as they are'
    elif looks_like_ct(digest.images):
        yield '  rule = "clip"  # Hounsfield units'
        yield "  low = -500"
        yield "  high = 1000"
    else:
        yield '  rule = "percentiles"'
        yield "  low = 0.5"
        yield "  high = 99.5"

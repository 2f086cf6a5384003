"""From a name or a path to a ``TrainRecipe``, with everything that it extends."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from medcurate.errors import ConfigError
from medcurate.tables import check_model, load_table
from medcurate.train.config.recipe import TrainRecipe

_TAGS = ("rule", "method")  # of tables whose other keys belong to the tag's value


def recipe_names() -> tuple[str, ...]:
    """Names of the packaged train recipes, sorted."""
    return tuple(sorted(path.stem for path in _packaged().glob("*.toml")))


def recipe_path(name_or_path: str, base: Path | None = None) -> Path:
    """The file of a train recipe: a packaged name, or a path (ends in .toml), relative to ``base``.

    Raises ConfigError for an unknown name.
    """
    if name_or_path.endswith(".toml"):
        return (base or Path()) / name_or_path
    known = recipe_names()
    if name_or_path in known:
        return _packaged() / f"{name_or_path}.toml"
    near = difflib.get_close_matches(name_or_path, known, 1)
    hint = f' (did you mean "{near[0]}"?)' if near else ""
    raise ConfigError(
        f'train recipe "{name_or_path}" is unknown{hint}; known: {", ".join(known) or "none"}. '
        "A file of your own is named by a path that ends in .toml."
    )


def load_recipe(name_or_path: str) -> TrainRecipe:
    """The train recipe ``name_or_path``. Raises ConfigError with one line a problem, each "file: key: message"."""
    path = recipe_path(name_or_path)
    recipe = check_model(_extended(path, ()), TrainRecipe, str(path))
    if not name_or_path.endswith(".toml") and recipe.name != path.stem:
        raise ConfigError(f'{path}: name: must be the file\'s name, "{path.stem}"; given: "{recipe.name}"')
    return recipe


def _extended(path: Path, before: tuple[Path, ...]) -> dict[str, Any]:
    """The keys of ``path`` over those of the recipe that it extends; ``before``: the files that led here."""
    if path.resolve() in before:
        raise ConfigError(f"{before[0]}: extends: comes back to {path}; a recipe cannot extend itself.")
    own = load_table(path)
    extends = own.get("extends", "")
    if not isinstance(extends, str) or not extends:
        return own
    base = _extended(recipe_path(extends, path.parent), (*before, path.resolve()))
    return _merged({key: base[key] for key in base.keys() - {"name", "title"}}, own)


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """``own`` over ``base``, table by table. A table that names another rule or method replaces the base's whole."""
    if any(own[tag] != base.get(tag) for tag in _TAGS if tag in own):
        return dict(own)
    merged = {**base, **own}
    for key in base.keys() & own.keys():
        if isinstance(base[key], dict) and isinstance(own[key], dict):
            merged[key] = _merged(base[key], own[key])
    return merged


def _packaged() -> Path:
    return Path(str(files("medcurate.recipes"))) / "train"

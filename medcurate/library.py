"""Sources, recipes and the ontology by name: the packaged ones and a lab's own files.

``resolve`` is where every error of wording ends: after it, nothing in a recipe, its sources and the
ontology contradicts anything else, and no byte of data was read.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from medcurate.checks import recipe_problems, source_problems
from medcurate.choice import LeftOut, Use, choose
from medcurate.config.identity import identity
from medcurate.config.lineage import NO_LINEAGE, Lineage
from medcurate.config.ontology import Ontology
from medcurate.config.recipe import Recipe
from medcurate.config.source import Source
from medcurate.errors import ConfigError
from medcurate.lineage import Overlap, group_facts
from medcurate.tables import check_model, load_model, load_table

_NEAR = 3  # ids that a mistyped one is compared with

# Keys that tell what a file is, where it is given for the other.
_SOURCE, _RECIPE = frozenset({"pairings", "labels"}), frozenset({"sources"})
_IS_A_SOURCE = (
    'is the file of a source, not of a recipe. Name it in a recipe of your own (sources = ["….toml"]); '
    "`medcurate download --source` and `medcurate check` take it as it is."
)
_IS_A_RECIPE = (
    "is a recipe, not the file of a source. Give it with --recipe, or name a source (`medcurate sources`)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A recipe with everything that it names.

    ``sources``: those that are used, in the recipe's order. ``homes``: the folder of each source's TOML file,
    by source id. ``folder``: the folder of the recipe's file. ``left_out``: sources that the licence filter or
    the lineage rule took out. ``overlaps``: what sources share, the ones left out by lineage included.
    """

    recipe: Recipe
    sources: tuple[Source, ...]
    ontology: Ontology
    folder: Path
    homes: Mapping[str, Path]
    lineage: Lineage = NO_LINEAGE
    left_out: tuple[LeftOut, ...] = ()
    overlaps: tuple[Overlap, ...] = ()


@cache
def ontology() -> Ontology:
    """The packaged ontology."""
    return load_model(_manifests() / "ontology.toml", Ontology)


@cache
def lineage() -> Lineage:
    """The packaged lineage."""
    return load_model(_manifests() / "lineage.toml", Lineage)


def packaged_sources() -> Path:
    """The folder of the packaged sources."""
    return _manifests() / "sources"


def source_ids() -> tuple[str, ...]:
    """Ids of the packaged sources, sorted."""
    return _stems(packaged_sources())


def recipe_names() -> tuple[str, ...]:
    """Names of the packaged recipes, sorted."""
    return _stems(_recipes())


def present_sources(data: Path, without: Iterable[Source]) -> Iterator[tuple[Source, Path]]:
    """Packaged sources that have a folder in ``data`` and are not among ``without``, with that folder."""
    names = {source.id for source in without}
    for name in source_ids():
        if name not in names and (data / name).is_dir():
            yield load_source(name), data / name


def source_path(id_or_path: str, base: Path | None = None) -> Path:
    """The TOML file of a source: a packaged id, or a path (ends in .toml) relative to ``base``.

    Raises ConfigError when there is no packaged source of that id.
    """
    if id_or_path.endswith(".toml"):
        return (base or Path()) / id_or_path
    return _packaged(packaged_sources(), id_or_path, "source", source_ids())


def recipe_path(name_or_path: str) -> Path:
    """The TOML file of a recipe: a packaged name, or a path (ends in .toml). Raises ConfigError."""
    if name_or_path.endswith(".toml"):
        return Path(name_or_path)
    return _packaged(_recipes(), name_or_path, "recipe", recipe_names())


def load_source(id_or_path: str, base: Path | None = None) -> Source:
    """The source ``id_or_path`` (see ``source_path``), its keys checked but not its references."""
    path = source_path(id_or_path, base)
    table = _table(path, _SOURCE, other=_RECIPE, instead=_IS_A_RECIPE)
    source = check_model(table, Source, str(path))
    if not id_or_path.endswith(".toml") and source.id != path.stem:
        raise ConfigError(f'{path}: id: must be the file\'s name, "{path.stem}"; given: "{source.id}"')
    return source


def load_recipe(name_or_path: str) -> Recipe:
    """The recipe ``name_or_path`` (see ``recipe_path``), its keys checked but not its references."""
    path = recipe_path(name_or_path)
    table = _table(path, _RECIPE, other=_SOURCE, instead=_IS_A_SOURCE)
    recipe = check_model(table, Recipe, str(path))
    if not name_or_path.endswith(".toml") and recipe.name != path.stem:
        raise ConfigError(f'{path}: name: must be the file\'s name, "{path.stem}"; given: "{recipe.name}"')
    return recipe


def resolve(name_or_path: str, use: Use = "any") -> Resolved:
    """The recipe with its sources and the ontology, all cross-checked; sources whose licence forbids ``use`` go.

    Raises ConfigError with one line a problem, each "file: key: message".
    """
    path = recipe_path(name_or_path)
    recipe = load_recipe(name_or_path)
    paths = [source_path(entry, path.parent) for entry in recipe.sources]
    sources = tuple(load_source(entry, path.parent) for entry in recipe.sources)
    problems = [f"{path}: {line}" for line in recipe_problems(recipe, sources, ontology())]
    for at, source in zip(paths, sources, strict=True):
        problems += [f"{at}: {line}" for line in source_problems(source, ontology())]
    if problems:
        raise ConfigError("\n".join(problems))
    choice = choose(sources, use, lineage(), recipe.lineage)
    return Resolved(
        recipe=recipe,
        sources=choice.sources,
        ontology=ontology(),
        folder=path.parent,
        homes={source.id: at.parent for at, source in zip(paths, sources, strict=True)},
        lineage=lineage(),
        left_out=choice.left_out,
        overlaps=choice.overlaps,
    )


def canonical(resolved: Resolved) -> dict[str, Any]:
    """Everything that decides a dataset's bytes, as plain JSON values.

    Holds the recipe (the sources that are used by id, wherever their files lie, and none of what chose them),
    of the sources what ``identity`` says, of the ontology the terms that the sources use, and of the lineage
    the rules that name their patients.
    """
    recipe = resolved.recipe.model_dump(mode="json", exclude={"lineage"})
    recipe["sources"] = [source.id for source in resolved.sources]
    return {
        "recipe": recipe,
        "sources": [identity(source) for source in resolved.sources],
        "ontology": _used_terms(resolved),
        "lineage": group_facts(resolved.lineage, recipe["sources"]),
    }


def recipe_sha256(resolved: Resolved) -> str:
    """SHA-256, in hexadecimal, of the canonical JSON (sorted keys, no spaces, UTF-8) of ``canonical``."""
    text = json.dumps(
        canonical(resolved), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _used_terms(resolved: Resolved) -> dict[str, Any]:
    terms = resolved.ontology
    labels = sorted({label for source in resolved.sources for label in source.labels.values()})
    organs = sorted({terms.labels[label].organ for label in labels})
    regions = sorted({terms.organs[organ].region for organ in organs})
    return {
        "labels": {name: terms.labels[name].model_dump(mode="json") for name in labels},
        "organs": {name: terms.organs[name].model_dump(mode="json") for name in organs},
        "regions": {name: terms.regions[name].model_dump(mode="json") for name in regions},
    }


def _manifests() -> Path:
    return Path(str(files("medcurate.manifests")))


def _recipes() -> Path:
    return Path(str(files("medcurate.recipes")))


@cache
def _stems(folder: Path) -> tuple[str, ...]:
    """Packaged files do not come and go while a process runs; a recipe of 100 sources asks 200 times."""
    return tuple(sorted(path.stem for path in folder.glob("*.toml")))


def _packaged(folder: Path, name: str, what: str, known: tuple[str, ...]) -> Path:
    if name in known:
        return folder / f"{name}.toml"
    near = [f'"{match}"' for match in difflib.get_close_matches(name, known, _NEAR, cutoff=0.5)]
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    raise ConfigError(
        f'{what} "{name}" is unknown{hint}; `medcurate {what}s` lists all {len(known)}. '
        "A file of your own is named by a path that ends in .toml."
    )


def _table(path: Path, own: Set[str], *, other: Set[str], instead: str) -> Mapping[str, Any]:
    """The values of a file whose keys include ``own``. Raises ConfigError, in one line for one of the other kind."""
    table = load_table(path)
    if other <= table.keys() and not own <= table.keys():
        raise ConfigError(f"{path}: {instead}")
    return table

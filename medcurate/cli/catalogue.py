"""Verbs of the group ``catalogue``: what sources and recipes there are, and what each one says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medcurate.cli.listing import list_sources
from medcurate.cli.options import JsonOption
from medcurate.cli.tables import echo_json, echo_table
from medcurate.cli.verbs import Verbs

if TYPE_CHECKING:
    from medcurate.config.source import Origin, Source, SourceFile
    from medcurate.config.terms import Term
    from medcurate.errors import ConfigError
    from medcurate.library import Resolved


class TermKind(StrEnum):
    """What terms can be listed; medcurate.config.terms holds the same names."""

    labels = "labels"
    modalities = "modalities"
    sequences = "sequences"
    organs = "organs"
    regions = "regions"


def register(app: typer.Typer) -> None:
    """Add the group's verbs to ``app``."""
    sources = typer.Typer(cls=Verbs, help="List the known sources, or show one.", invoke_without_command=True)
    sources.callback()(list_sources)
    sources.command("show")(show_source)
    app.add_typer(sources, name="sources")
    recipes = typer.Typer(cls=Verbs, help="List the known recipes, or show one.", invoke_without_command=True)
    recipes.callback()(list_recipes)
    recipes.command("show")(show_recipe)
    app.add_typer(recipes, name="recipes")
    app.command("terms")(list_terms)


def show_source(
    name: Annotated[str, typer.Argument(metavar="ID", help="A source's id, or the path of a source's file.")],
    as_json: JsonOption = False,
) -> None:
    """Show one source: facts, licence, citation, labels with their ontology terms, files."""
    from medcurate.library import load_source

    source = load_source(name)
    if as_json:
        labels = {value: _label_facts(label) for value, label in source.labels.items()}
        echo_json(source.model_dump(mode="json") | {"labels": labels})
        return
    _echo_facts(source)
    head = ("value", "label", "side", "organ", "region", "group", "lesion", "SNOMED CT")
    echo_table(head, [_label_row(value, label) for value, label in source.labels.items()])
    rows = [_file_row(file) for file in source.files]
    rows += [(f"{each.into}/", "?", "as listed", each.told) for each in source.folders]
    if rows:
        echo_table(("file", "bytes", "sha256", "from"), rows)


def list_recipes(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the known recipes, or show one: recipes show NAME."""
    if context.invoked_subcommand:
        return
    from medcurate.library import load_recipe, recipe_names

    recipes = [load_recipe(name) for name in recipe_names()]
    if as_json:
        echo_json([{"name": r.name, "title": r.title, "sources": r.sources} for r in recipes])
        return
    rows = [(recipe.name, str(len(recipe.sources)), recipe.title) for recipe in recipes]
    echo_table(("recipe", "sources", "title"), rows)
    typer.echo("Details: medcurate recipes show NAME")


def show_recipe(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A recipe's name, or the path of a recipe's file.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Show one recipe resolved: every option with its value, its sources, and the hash that identifies it.

    The text is TOML and a recipe again. Sources and kinds are checked on the way.
    """
    from medcurate.library import canonical, recipe_sha256, resolve

    resolved = resolve(name)
    if as_json:
        echo_json(canonical(resolved) | {"sha256": recipe_sha256(resolved)})
        return
    for line in _recipe_text(resolved, recipe_sha256(resolved)):
        typer.echo(line)


def list_terms(
    word: Annotated[
        str, typer.Argument(metavar="[WORD]", help="What an id, a title or a synonym has to contain.")
    ] = "",
    kind: Annotated[TermKind, typer.Option(help="Which terms.")] = TermKind.labels,
    as_json: JsonOption = False,
) -> None:
    """List the ontology's terms that a source may name, or those that WORD finds."""
    from medcurate.config.terms import matching
    from medcurate.library import ontology

    found = matching(ontology(), kind.value, word)
    if as_json:
        echo_json([_term_facts(kind, name, term) for name, term in found.items()])
        return
    if not found:
        raise _nothing_found(kind, word)
    echo_table(TERM_COLUMNS[kind], [_term_row(kind, name, term) for name, term in found.items()])


TERM_COLUMNS = {
    TermKind.labels: ("label", "title", "side", "organ", "region", "SNOMED CT", "synonyms"),
    TermKind.modalities: ("modality", "title", "DICOM"),
    TermKind.sequences: ("sequence", "title", "modality"),
    TermKind.organs: ("organ", "title", "region", "SNOMED CT"),
    TermKind.regions: ("region", "title", "group"),
}
_FACT_OF = {"side": "laterality", "SNOMED CT": "snomed", "DICOM": "dicom"}


def _term_facts(kind: TermKind, name: str, term: Term) -> dict[str, Any]:
    facts = _label_facts(name) if kind == TermKind.labels else {}
    return {"id": name} | term.model_dump(mode="json") | {k: v for k, v in facts.items() if k != "label"}


def _term_row(kind: TermKind, name: str, term: Term) -> tuple[str, ...]:
    facts = _term_facts(kind, name, term)
    facts["synonyms"] = ", ".join(facts.get("synonyms", ()))
    return name, *(facts[_FACT_OF.get(column, column)] for column in TERM_COLUMNS[kind][1:])


def _nothing_found(kind: TermKind, word: str) -> ConfigError:
    """The error that says where else to look."""
    from medcurate.config.terms import matching, nearest
    from medcurate.errors import ConfigError
    from medcurate.library import ontology

    near = nearest(ontology(), kind.value, word)
    hint = f' (did you mean "{near}"?)' if near else ""
    others = [other for other in TermKind if matching(ontology(), other.value, word)]
    elsewhere = "".join(f"; found with --kind {other.value}" for other in others)
    return ConfigError(f'none of the {kind.value} has "{word}" in its id, title or synonyms{hint}{elsewhere}')


def _label_facts(label: str) -> dict[str, Any]:
    """The label with the ontology's facts; without them where the ontology does not know it."""
    from medcurate.library import ontology

    if label not in ontology().labels:
        return {"label": label}
    term = ontology().labels[label]
    region = ontology().region_of(label)
    return {
        "label": label,
        "title": term.title,
        "laterality": term.laterality,
        "organ": term.organ,
        "region": region,
        "group": ontology().regions[region].group,
        "lesion": term.lesion,
        "snomed": term.snomed,
    }


def _label_row(value: str, label: str) -> tuple[str, ...]:
    facts = _label_facts(label)
    texts = [str(facts.get(key, "")) for key in ("laterality", "organ", "region", "group")]
    return value, label, *texts, "yes" if facts.get("lesion") else "", facts.get("snomed", "")


def _file_row(file: SourceFile) -> tuple[str, str, str, str]:
    size = "" if file.size_bytes is None else f"{file.size_bytes:,}"
    return file.path, size, (file.sha256 or "")[:12], _origin(file.origin)


def _echo_facts(source: Source) -> None:
    images = [
        source.modality,
        source.sequence,
        f"{source.dimensions}D",
        "synthetic" if source.synthetic else "",
    ]
    licence = source.licence
    use = f"commercial use: {licence.commercial}; redistribution: {licence.redistribute}"
    facts = {
        source.id: source.title,
        "homepage": source.homepage,
        "citation": source.citation,
        "images": ", ".join(filter(None, images)),
        "licence": f"{licence.id}; {use}",
        "terms": licence.url,
        "notice": licence.notice,
        "pairing": ", ".join(pairing.kind for pairing in source.pairings),
        "reading": f"{source.image.reader} images, {source.label.reader} labels as {source.label.decoder}",
        "channels": ", ".join(channel.name for channel in source.channels),
        "left out": ", ".join(erratum.case for erratum in source.errata),
    }
    for key, text in facts.items():
        if text:
            typer.echo(f"{key:<{max(10, len(source.id))}}  {text}")
    for note in source.notes:
        typer.echo(f"- {note}")


def _origin(origin: Origin) -> str:
    if origin.package:
        return f"packaged in {origin.package}"
    if origin.generator:
        return f"generated: {origin.generator}"
    from medcurate.download.instructions import automatic, origin_text

    return origin_text(origin) if automatic(origin) else f"by hand: {origin_text(origin)}"


def _recipe_text(resolved: Resolved, sha256: str) -> Iterator[str]:
    yield f"# recipe {resolved.recipe.name}, resolved; sha256 {sha256}"
    for source in resolved.sources:
        yield f"# {source.id}: {source.title}; {source.licence.id}"
    yield from _toml(resolved.recipe.model_dump(mode="json"))


def _toml(table: dict[str, Any], path: str = "") -> Iterator[str]:
    """Nested tables of plain values as TOML; JSON's scalars and lists of scalars are TOML's."""
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    if path and plain:
        yield f"\n[{path}]"
    for key, value in plain.items():
        yield f"{key} = {json.dumps(value, ensure_ascii=False)}"
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _toml(value, f"{path}.{key}" if path else key)

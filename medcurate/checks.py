"""What a model alone cannot see: whether recipe, sources, kinds and ontology fit together.

Every function yields lines "key: message"; the caller puts the file in front.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from medcurate.config.ontology import Ontology
from medcurate.config.recipe import Recipe
from medcurate.config.source import UNRESOLVED, Pairing, Source
from medcurate.config.terms import Kind, nearest, terms
from medcurate.decoders import DECODERS
from medcurate.errors import ConfigError
from medcurate.pairings import PAIRINGS
from medcurate.readers import READERS
from medcurate.registry import load
from medcurate.tables import check_model

CASE_GROUPS = frozenset({"case", "group"})
ONE_OF: Mapping[Kind, str] = {"labels": "label", "modalities": "modality", "sequences": "sequence"}


def recipe_problems(recipe: Recipe, sources: Sequence[Source], ontology: Ontology) -> Iterator[str]:
    """What is wrong between a recipe and its sources."""
    for source_id, count in Counter(source.id for source in sources).items():
        if count > 1:
            yield f'sources: the id "{source_id}" is given {count} times'
    ways: dict[str, set[str]] = {}
    for source in sources:
        ways.setdefault(source.namespace, set()).add(source.case.identifiers)
    for namespace in (name for name, used in ways.items() if len(used) > 1):
        yield (
            f'sources: those of the namespace "{namespace}" must all keep identifiers or all use pseudonyms; '
            "else the same patient has two names"
        )
    for modality in recipe.intensity:
        if modality != "default":
            yield from _unknown(f"intensity.{modality}", modality, ontology, "modalities")
    for source in sources:
        # Of what is no modality at all the source's own line tells enough.
        for modality in sorted(modalities(source) & set(ontology.modalities)):
            if modality not in recipe.intensity and "default" not in recipe.intensity:
                yield (
                    f'intensity: no rule for modality "{modality}" of source "{source.id}"; '
                    f"add [intensity.{modality}] or [intensity.default]"
                )


def modalities(source: Source) -> set[str]:
    """The modality ids that the images of ``source`` have."""
    return {channel.modality or source.modality for channel in source.channels} or {source.modality}


def source_problems(source: Source, ontology: Ontology) -> Iterator[str]:
    """What is wrong between a source, the ontology and the registered kinds."""
    yield from _term_problems(source, ontology)
    yield from _kind_problems(source)
    yield from _name_problems(source)


def _term_problems(source: Source, ontology: Ontology) -> Iterator[str]:
    yield from _unknown("modality", source.modality, ontology, "modalities")
    yield from _sequence_problems("sequence", source.sequence, source.modality, ontology)
    for number, channel in enumerate(source.channels):
        key, modality = f"channels[{number}]", channel.modality or source.modality
        if channel.modality:
            yield from _unknown(f"{key}.modality", channel.modality, ontology, "modalities")
        yield from _sequence_problems(f"{key}.sequence", channel.sequence, modality, ontology)
    for value, label in source.labels.items():
        yield from _unknown(f"labels.{value}", label, ontology, "labels")
    for region, members in source.regions.items():
        yield from _unknown(f"regions.{region}", region, ontology, "labels")
        for label in members:
            if label not in source.labels.values():
                yield f'regions.{region}: "{label}" is not among the values of [labels]'
        if region in source.labels.values() or not members:
            yield f"regions.{region}: a region unites other labels, at least one, and is none of [labels] itself"


def _sequence_problems(key: str, sequence: str, modality: str, ontology: Ontology) -> Iterator[str]:
    if not sequence:
        return
    yield from _unknown(key, sequence, ontology, "sequences")
    known = ontology.sequences.get(sequence)
    if known and known.modality != modality:
        yield f'{key}: "{sequence}" is a sequence of modality "{known.modality}", not of "{modality}"'


def _kind_problems(source: Source) -> Iterator[str]:
    for number, pairing in enumerate(source.pairings):
        key = f"pairings[{number}]"
        problems = list(_options_problems(key, PAIRINGS, pairing.kind, pairing.options, "pairing"))
        yield from problems or _pairing_problems(key, pairing, source)
    yield from _options_problems("image", READERS, source.image.reader, source.image.options, "reader")
    reader_options = source.label.reader_options
    yield from _options_problems(
        "label", READERS, source.label.reader, reader_options, "reader", at="reader_options"
    )
    yield from _decoder_problems(source)
    yield from _drawing_problems(source)
    yield from _rule_problems(source)


def _decoder_problems(source: Source) -> Iterator[str]:
    decoder = source.label.decoder
    problems = list(_options_problems("label", DECODERS, decoder, source.label.options, "decoder"))
    yield from problems
    if not problems:
        try:
            load(DECODERS, decoder, "decoder").check(source.labels)
        except ValueError as error:
            yield f'labels: not of the form that the decoder "{decoder}" needs: {error}'


def _rule_problems(source: Source) -> Iterator[str]:
    """Whether rules about labels fit the kind of label."""
    label = source.label
    if label.decoder in DECODERS:
        decoder = load(DECODERS, label.decoder, "decoder")
        if label.agreement and getattr(decoder, "OBJECTS", False):
            yield f'label.agreement: raters number objects each in their own way; "{label.decoder}" gives objects'
        if getattr(decoder, "NEEDS_CLASSES", False) != (label.classes is not None):
            yield 'label.classes: a table of classes goes with the decoder "instance-table", and it with a table'
    if source.frames and source.dimensions == 2:
        yield "frames: a source of 2 dimensions has no axis of frames"
    if label.geometry == "nearest" and source.dimensions == 2:
        yield 'label.geometry: "nearest" needs a geometry, which pictures have not'


def _drawing_problems(source: Source) -> Iterator[str]:
    """Whether readers give what is asked of them: images volumes, labels what the decoder takes."""
    if source.image.reader in READERS and not hasattr(load(READERS, source.image.reader, "reader"), "read"):
        yield f'image.reader: "{source.image.reader}" reads labels, not images'
    if source.label.reader in READERS and source.label.decoder in DECODERS:
        drawn = hasattr(load(READERS, source.label.reader, "reader"), "draw")
        if drawn != getattr(load(DECODERS, source.label.decoder, "decoder"), "DRAWN", False):
            gives = "named structures" if drawn else "values of voxels"
            yield (
                f'label.decoder: "{source.label.decoder}" does not fit the reader "{source.label.reader}", '
                f'which gives {gives}; "structures" is the decoder of named structures'
            )


def _pairing_problems(key: str, pairing: Pairing, source: Source) -> Iterator[str]:
    """Whether channels and labels of the source have their tokens in the pairing's templates."""
    # Here and not above: it loads numpy, and listing sources must not.
    from medcurate.pairings.found import Names

    module = load(PAIRINGS, pairing.kind, "pairing")
    options = module.Options(**pairing.options)
    names = Names(
        channels=tuple(channel.name for channel in source.channels),
        components=tuple(channel.component for channel in source.channels),
        labels=tuple(source.labels),
    )
    if source.label.vocabulary != "declared" and not hasattr(module, "class_names"):
        yield f'label.vocabulary: the pairing "{pairing.kind}" knows no table in which a set names its classes'
    try:
        module.check(options, names)
        if hasattr(module, "sample_entries"):
            _check_entries(source, *module.sample_entries(options))
    except ValueError as error:
        yield f"{key}.options: {error}"
    if bool(source.label.raters) != ("{rater}" in str(pairing.options)):
        yield f"{key}.options: {{rater}} stands in them where label.raters names raters, and only there"


def _check_entries(source: Source, images: Sequence[str], labels: Sequence[str]) -> None:
    """Raise ValueError where a reader cannot read parts of files, or does not know parts called so."""
    for kind, entries in ((source.image.reader, images), (source.label.reader, labels)):
        if kind not in READERS:
            continue  # its own line tells
        reader = load(READERS, kind, "reader")
        for entry in filter(None, entries):
            if not hasattr(reader, "check_entry"):
                raise ValueError(f'the reader "{kind}" reads whole files, not parts such as "{entry}"')
            reader.check_entry(entry)


def _options_problems(
    key: str,
    table: Mapping[str, str],
    kind: str,
    options: Mapping[str, Any],
    what: str,
    *,
    at: str = "options",
) -> Iterator[str]:
    try:
        module: ModuleType = load(table, kind, what)
    except ConfigError as error:
        yield f"{key}.{'kind' if what == 'pairing' else what}: {error}"
        return
    try:
        check_model(dict(options), module.Options, f"{key}.{at}")
    except ConfigError as error:
        yield from str(error).splitlines()


def _name_problems(source: Source) -> Iterator[str]:
    for name, count in Counter(channel.name for channel in source.channels).items():
        if count > 1:
            yield f'channels: the name "{name}" is given {count} times'
    for path, count in Counter(file.path for file in source.files).items():
        if count > 1:
            yield f'files: the path "{path}" is given {count} times'
    for into, count in Counter(folder.into for folder in source.folders).items():
        if count > 1:
            yield f'folders: the folder "{into}" is given {count} times'
    if source.case.pattern == UNRESOLVED:
        yield (
            "case.pattern: say which part of a case's name is the patient, "
            'or "" if every case is another patient'
        )
        return
    try:
        groups = set(re.compile(source.case.pattern).groupindex)
    except re.error as error:
        yield f"case.pattern: not a regular expression: {error}; given: {source.case.pattern!r}"
        return
    for name in sorted(groups - CASE_GROUPS):
        yield f'case.pattern: unknown named group "{name}"; known: {", ".join(sorted(CASE_GROUPS))}'


def _unknown(key: str, name: str, ontology: Ontology, kind: Kind) -> Iterator[str]:
    if name in terms(ontology, kind):
        return
    what, verb = ONE_OF[kind], f"medcurate terms --kind {kind}" if kind != "labels" else "medcurate terms"
    if name == UNRESOLVED:
        yield f"{key}: say which {what} of the ontology it is; see `{verb} WORD`"
        return
    near = nearest(ontology, kind, name)
    hint = f' (did you mean "{near}"?)' if near else ""
    yield f'{key}: "{name}" is not a {what} of the ontology{hint}; see `{verb} {shlex.quote(name)}`'

"""Verbs of the group ``inspect``: a first look at a lab's own folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from medcurate.inspection.digest import Digest
    from medcurate.inspection.guess import Guess
    from medcurate.inspection.look import Facts
    from medcurate.inspection.survey import Survey

VALUES_SHOWN = 12
PIPE_WIDTH = 160  # characters a line where there is no terminal to fill


def register(app: typer.Typer) -> None:
    """Add the group's verbs to ``app``."""
    app.command("inspect")(inspect_folder)


def inspect_folder(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The folder that holds images and labels.")
    ],
    draft: Annotated[
        Path | None,
        typer.Option("--draft", "-o", metavar="FILE", help="Write a draft of the source file here (.toml)."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Read every case, not only a sample.")] = False,
) -> None:
    """Look at a folder of images and labels: how files pair, what they hold; draft its source file."""
    from medcurate.errors import ConfigError
    from medcurate.inspection.look import likeliest
    from medcurate.inspection.survey import survey
    from medcurate.pairings import PAIRINGS

    _check_draft(draft)
    console = _console()
    found = survey(folder)
    _show_files(console, found)
    best = likeliest(found)
    if best is None:
        _show_unpaired(console, found)
        raise ConfigError(
            f"{folder}: no pairing of images with labels was recognised. {_packed(found)}Write the source file by hand "
            f"(docs/source.md): the kinds of pairings are {', '.join(sorted(PAIRINGS))}."
        )
    _show_pairing(console, found, best)
    digest = _read(folder, best, every=every)
    _show_cases(console, digest)
    if every:
        _show_all(console, digest)
    _show_problems(console, digest)
    _show_patients(console, best)
    if draft:
        _write(console, draft, found, best, digest)


def _packed(found: Survey) -> str:
    """What to do first where the folder holds archives."""
    from medcurate.inspection.survey import ARCHIVES

    there = sorted(ARCHIVES & set(found.extensions))
    return (
        f"It holds archives ({', '.join(there)}), which are not looked into: unpack them first. "
        if there
        else ""
    )


def _check_draft(draft: Path | None) -> None:
    from medcurate.errors import ConfigError

    if draft and draft.suffix != ".toml":
        raise ConfigError(f"{draft}: a recipe names a source file by a path that ends in .toml")
    if draft and draft.exists():
        raise ConfigError(f"{draft} exists: it may hold your answers. Choose another name or remove it.")


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


def _read(folder: Path, best: Guess, *, every: bool) -> Digest:
    from medcurate.inspection.digest import read
    from medcurate.progress import progress

    if not every:
        return read(folder, best)
    with progress("inspect", len(best.usable), "cases") as bar:
        return read(folder, best, every=True, tick=bar.advance)


def _write(console: Console, path: Path, found: Survey, best: Guess, digest: Digest) -> None:
    from medcurate.commit import committed
    from medcurate.inspection.draft import QUESTION
    from medcurate.inspection.draft import draft as drafted
    from medcurate.inspection.following import following
    from medcurate.library import ontology

    text = drafted(found, best, digest, ontology())
    with committed(path) as stream:
        stream.write(text.encode())
    _print(console, f"\nDraft written to {path}. Next:")
    for line in following(found.root, path, digest, text.count(QUESTION)):
        _print(console, line)


def _print(console: Console, text: str) -> None:
    """Whole lines, which a terminal may wrap and a paste joins again."""
    console.print(text.encode(errors="replace").decode(), markup=False, soft_wrap=True)


def _show_files(console: Console, found: Survey) -> None:
    from medcurate.units import counted

    kinds = ", ".join(f"{count:,} {ending or 'without extension'}" for ending, count in _ranked(found))
    console.print(f"{counted(found.file_count, 'file')}: {kinds or 'none'}", markup=False)


def _ranked(found: Survey) -> list[tuple[str, int]]:
    return sorted(found.extensions.items(), key=lambda item: (-item[1], item[0]))


def _show_pairing(console: Console, found: Survey, best: Guess) -> None:
    from medcurate.units import counted

    options = ", ".join(f"{key} = {value!r}" for key, value in best.candidate.options.items())
    lines = [
        f"Pairing: {best.candidate.kind} ({options})",
        f"  {counted(len(best.usable), 'case')} with {best.explained:,} of {counted(found.data_count, 'image file')}",
    ]
    for word, tokens in (("channels", best.candidate.channels), ("classes", best.candidate.tokens)):
        if tokens:
            lines.append(f"  {word}: {', '.join(tokens)}")
    if best.problems:
        lines.append(f"  {counted(len(best.problems), 'incomplete case')}, such as {_incomplete(best)}")
    console.print("\n".join(lines), markup=False)


def _incomplete(best: Guess) -> str:
    first = best.problems[0]
    return _clean(f"{first.name}: {first.problem}")


def _show_unpaired(console: Console, found: Survey) -> None:
    """What some of the files hold, one of each kind of name."""
    from rich.markup import escape
    from rich.table import Table

    from medcurate.inspection.look import peek

    looks = peek(found)
    if not looks:
        return
    table = Table()
    _add_columns(table)
    for look in looks:
        for facts in look.images:
            table.add_row(*(escape(_clean(cell)) for cell in (look.name, *_cells(facts))))
    _print(console, "One file or series of each kind of name, the commonest kinds:")
    if table.row_count:
        console.print(table)
    for problem in (problem for look in looks for problem in look.problems):
        _print(console, f"  {_clean(problem)}")


def _show_cases(console: Console, digest: Digest) -> None:
    from rich.markup import escape
    from rich.table import Table

    from medcurate.units import counted

    count = f"{digest.read_count:,} of {counted(digest.usable_count, 'case')} read"
    partial = digest.read_count < digest.usable_count
    names = [_clean(look.name) for look in digest.shown]
    table = Table()
    # A name that leaves the other columns half of the line is not broken.
    table.add_column("case", overflow="fold", no_wrap=2 * max(map(len, names), default=0) <= console.width)
    _add_columns(table)
    for name, look in zip(names, digest.shown, strict=True):
        rows = [("image", facts) for facts in look.images] + [("label", facts) for facts in look.labels]
        for number, (kind, facts) in enumerate(rows):
            cells = ("" if number else name, f"{kind} {facts.token}", *_cells(facts))
            table.add_row(*(escape(_clean(cell)) for cell in cells), end_section=number == len(rows) - 1)
    _print(console, count + ("; others may hold more values: --all reads every one" if partial else ""))
    console.print(table)


def _show_all(console: Console, digest: Digest) -> None:
    """What all cases hold together."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("file", "type", "values")
    for kind, listed in (("image", digest.images), ("label", digest.labels)):
        for facts in listed:
            cells = (f"{kind} {facts.token}", facts.dtype, _values(facts))
            table.add_row(*(escape(_clean(cell)) for cell in cells))
    _print(console, "In all cases together:")
    console.print(table)


def _add_columns(table: Table) -> None:
    table.add_column("file", no_wrap=True)
    for name in ("shape", "type", "spacing, mm", "values"):
        table.add_column(name, overflow="fold")


def _show_problems(console: Console, digest: Digest) -> None:
    from medcurate.units import counted

    fitting = digest.read_count - digest.doubtful_count
    _print(
        console, f"{fitting:,} of {digest.read_count:,}: image and label can be read and lie on the same grid"
    )
    for name, problem in digest.problems:
        _print(console, f"  {_clean(name)}: {_clean(problem)}")
    rest = digest.doubtful_count - len({name for name, _ in digest.problems})
    if rest > 0:
        _print(console, f"  and {counted(rest, 'more case')} with problems")


def _show_patients(console: Console, best: Guess) -> None:
    from medcurate.inspection.patients import OWN, example, groupings, known, single
    from medcurate.units import counted

    names = [entry.name for entry in best.usable]
    if patients := known(best.usable):
        _print(
            console, f"Patients: {len(patients):,}, by {OWN[best.candidate.kind]}. A split never cuts one."
        )
        return
    _print(console, "Which part of a case's name is the patient? A split never cuts a patient.")
    for line in [example(grouping) for grouping in groupings(names)] or [single(names[0])]:
        _print(console, f"  {_clean(line)}")
    _print(console, f'  with "" every case is another patient: {counted(len(names), "patient")}')


def _clean(text: str) -> str:
    """``text`` as a terminal can show it: no control characters, no halves of surrogate pairs."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return shown.encode(errors="replace").decode()


def _cells(facts: Facts) -> tuple[str, str, str, str]:
    shape = " x ".join(map(str, facts.shape))
    spacing = " x ".join(f"{value:.3g}" for value in facts.spacing_mm) or "not stated"
    return shape, facts.dtype, spacing, _values(facts)


def _values(facts: Facts) -> str:
    if not facts.values and not facts.structures:
        return f"{facts.low:g} to {facts.high:g}"
    counts: dict[str, int] = dict(facts.structures)
    for value, count in (facts.values or {}).items():
        counts[f"#{int(value):06x}" if facts.colours else f"{value:g}"] = count
    shown = [f"{name} ({count:,})" for name, count in counts.items()]
    rest = len(shown) - VALUES_SHOWN
    return ", ".join(shown[:VALUES_SHOWN]) + (f", and {rest} more" if rest > 0 else "")

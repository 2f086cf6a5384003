"""Verbs of the group ``inspect``: a first look at a lab's own folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from medcurate.inspection.guess import Guess
    from medcurate.inspection.look import Facts, Look
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
        typer.Option("--draft", "-o", metavar="FILE", help="Write a draft of the source file here."),
    ] = None,
) -> None:
    """Look at a folder of images and labels: how files pair, what they hold; draft its source file."""
    from rich.console import Console

    from medcurate.errors import ConfigError
    from medcurate.inspection.guess import guess
    from medcurate.inspection.look import look
    from medcurate.inspection.survey import survey

    if draft and draft.exists():
        raise ConfigError(f"{draft} exists: it may hold your answers. Choose another name or remove it.")
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH)
    found = survey(folder)
    _show_files(console, found)
    best = guess(found)
    if best is None:
        raise ConfigError(
            f"{folder}: no pairing of images with labels was recognised. Write the source file by hand: "
            "the kinds are paired-folders, case-folder and flat-suffix."
        )
    _show_pairing(console, found, best)
    looks = look(folder, best)
    _show_looks(console, looks)
    if draft:
        _write(console, draft, found, best, looks)


def _write(console: Console, path: Path, found: Survey, best: Guess, looks: Sequence[Look]) -> None:
    from medcurate.commit import committed
    from medcurate.inspection.draft import QUESTION
    from medcurate.inspection.draft import draft as drafted

    text = drafted(found, best, looks)
    with committed(path) as stream:
        stream.write(text.encode())
    count = text.count(QUESTION)
    console.print(
        f"Draft written to {path}: answer its {count} questions, then name it in a recipe.", markup=False
    )


def _show_files(console: Console, found: Survey) -> None:
    kinds = ", ".join(f"{count:,} {ending or 'without extension'}" for ending, count in _ranked(found))
    console.print(f"{found.file_count:,} files: {kinds or 'none'}", markup=False)


def _ranked(found: Survey) -> list[tuple[str, int]]:
    return sorted(found.extensions.items(), key=lambda item: (-item[1], item[0]))


def _show_pairing(console: Console, found: Survey, best: Guess) -> None:
    options = ", ".join(f"{key} = {value!r}" for key, value in best.candidate.options.items())
    lines = [
        f"Pairing: {best.candidate.kind} ({options})",
        f"  {len(best.usable):,} cases with {best.explained:,} of {found.data_count:,} image files",
    ]
    for word, tokens in (("channels", best.candidate.channels), ("classes", best.candidate.tokens)):
        if tokens:
            lines.append(f"  {word}: {', '.join(tokens)}")
    if best.problems:
        lines.append(f"  {len(best.problems):,} incomplete cases, such as {_incomplete(best)}")
    console.print("\n".join(lines), markup=False)


def _incomplete(best: Guess) -> str:
    first = best.problems[0]
    return f"{first.name}: {first.problem}"


def _show_looks(console: Console, looks: Sequence[Look]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("case", "file", "shape", "type", "spacing, mm", "values", title=f"{len(looks)} cases read")
    for look in looks:
        rows = [("image", facts) for facts in look.images] + [("label", facts) for facts in look.labels]
        for kind, facts in rows:
            cells = (look.name, f"{kind} {facts.token}", *_cells(facts))
            table.add_row(*(escape(cell) for cell in cells))
    console.print(table)
    for look in looks:
        agree = "image and label lie on the same grid" if look.labels else "nothing to compare"
        console.print(f"{look.name}: {'; '.join(look.problems) or agree}", markup=False)


def _cells(facts: Facts) -> tuple[str, str, str, str]:
    shape = " x ".join(map(str, facts.shape))
    spacing = " x ".join(f"{value:.3g}" for value in facts.spacing_mm) or "not stated"
    return shape, facts.dtype, spacing, _values(facts)


def _values(facts: Facts) -> str:
    if not facts.values:
        return f"{facts.low:g} to {facts.high:g}"
    names = {value: f"#{int(value):06x}" if facts.colours else f"{value:g}" for value in facts.values}
    shown = [f"{names[value]} ({count:,})" for value, count in facts.values.items()]
    rest = len(shown) - VALUES_SHOWN
    return ", ".join(shown[:VALUES_SHOWN]) + (f", and {rest} more" if rest > 0 else "")

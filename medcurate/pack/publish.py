"""A dataset to pass on: only what may be passed on, with the texts that must go with it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from medcurate.commit import committed, sha256_file
from medcurate.condition import literal
from medcurate.errors import ConfigError
from medcurate.format.record import FileRecord

LICENCES_FILE = "LICENCES.md"
CITATIONS_FILE = "CITATIONS.md"

Sources = Mapping[str, Mapping[str, Any]]  # as in dataset.json

_ASKED = {"commercial": "commercial", "share-alike": "redistribute"}
_WORDS = {"commercial": "commercial use", "redistribute": "passing copies on"}


def licence_condition(sources: Sources, use: str) -> str:
    """The SQL condition of rows whose source's licence allows ``use`` ("commercial", "share-alike", "any").

    "" where all rows do. Unknown is no. Raises ConfigError where no source allows it.
    """
    if use == "any":
        return ""
    answers = {name: _answer(sources[name], _ASKED[use]) for name in sorted(sources)}
    allowed = [name for name, answer in answers.items() if answer == "yes"]
    if len(allowed) == len(sources):
        return ""
    if not allowed:
        words = _WORDS[_ASKED[use]]
        raise ConfigError(
            f"--licence {use}: the licence of no source of this dataset says yes; nothing was packed:\n"
            + "\n".join(_stated(name, sources[name], words, answer) for name, answer in answers.items())
        )
    return f"source IN ({', '.join(literal(name) for name in allowed)})"


def check_publishable(sources: Sources, used: Collection[str]) -> None:
    """Raise ConfigError unless everything of the sources ``used`` may be passed on."""
    closed = {name: _answer(sources.get(name, {}), "redistribute") for name in sorted(used)}
    lines = [
        _stated(name, sources.get(name, {}), _WORDS["redistribute"], answer)
        for name, answer in closed.items()
        if answer != "yes"
    ]
    if lines:
        raise ConfigError(
            "--publish: not everything in this dataset may be passed on:\n"
            + "\n".join(lines)
            + "\nAdd --licence share-alike to leave these sources out. Nothing was packed."
        )


def write_texts(out: Path, sources: Sources) -> dict[str, FileRecord]:
    """Commit both texts; the facts of each for ``dataset.json``. Raises OutputError."""
    texts = {LICENCES_FILE: licences_text(sources), CITATIONS_FILE: citations_text(sources)}
    for name, text in texts.items():
        with committed(out / name) as stream:
            stream.write(text.encode())
    return {name: FileRecord((out / name).stat().st_size, sha256_file(out / name)) for name in texts}


def licences_text(sources: Sources) -> str:
    """Markdown: the licence of every source, and the notices that must accompany copies, in full."""
    return "\n".join(["# Licences", "", *_licence_lines(sources)])


def _licence_lines(sources: Sources) -> Iterator[str]:
    for name, facts in sorted(sources.items()):
        licence = _licence(facts)
        yield f"## {facts['title']} (`{name}`)"
        yield f"- licence: {licence.get('id', 'unknown')}"
        if licence.get("url"):
            yield f"- terms: {licence['url']}"
        if facts.get("homepage"):
            yield f"- from: {facts['homepage']}"
        yield f"- commercial use: {licence.get('commercial', 'unknown')}"
        yield "- changed: cut to slices, intensities mapped to 8 bits, labels to one mask a region"
        if notice := _notice(licence.get("notice", "")):
            yield ""
            yield from (f"> {line}".rstrip() for line in notice.splitlines())
        yield ""


def citations_text(sources: Sources) -> str:
    """Markdown: how the authors of every source want to be cited."""
    lines = ["# Citations", ""]
    for name, facts in sorted(sources.items()):
        citation = " ".join(str(facts.get("citation") or "").split())  # a line break would end the item
        lines.append(f"- `{name}`: {citation or 'its authors do not say how; name its title and page'}")
    return "\n".join([*lines, ""])


def _notice(notice: str) -> str:
    """``notice`` itself, or what the packaged file of that name says."""
    if not notice or "\n" in notice or " " in notice:
        return notice
    packaged = files("medcurate.manifests").joinpath(notice)
    return packaged.read_text(encoding="utf-8") if packaged.is_file() else notice


def _stated(name: str, facts: Mapping[str, Any], what: str, answer: str) -> str:
    """A line of an error: the source, its licence and what that says of ``what``."""
    return f"  {name}: {_licence(facts).get('id', 'unknown')}; {what}: {answer}"


def _answer(facts: Mapping[str, Any], key: str) -> str:
    return str(_licence(facts).get(key, "unknown"))


def _licence(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    licence = facts.get("licence", {})
    return licence if isinstance(licence, Mapping) else {"id": licence}

"""Every packaged source, from plan to dataset, on a tree in its true layout that is made from its own TOML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import layouts
import pytest
from layouts.cells import cells, table
from layouts.paint import PAINTERS
from layouts.proof import built, check
from layouts.registry import SHAPES
from layouts.release_shapes import with_classes
from layouts.writers import WRITERS

from medcurate.config.source import Source
from medcurate.library import load_source, source_ids


@pytest.mark.parametrize("name", source_ids())
def test_every_source_is_built_from_its_true_layout(name: str, tmp_path: Path) -> None:
    source = load_source(name)
    expected, dataset = built([source], tmp_path)
    check(source, expected[name], dataset)


@pytest.mark.parametrize("name", source_ids())
def test_what_a_source_reads_is_what_it_fetches(name: str, tmp_path: Path) -> None:
    """Every file of the tree lies in a folder that an archive unpacks to or a host lists, or is declared itself.

    Where a pairing has wildcards, archives unpack to some of the folders that these stand for.
    """
    source = load_source(name)
    made = any(file.origin.generator or file.origin.package for file in source.files)
    if made or not (source.files or source.folders):
        return
    layouts.make(with_classes(source), tmp_path)
    places = [Path(file.unpack.into if file.unpack else file.path) for file in source.files]
    places += [Path(folder.into) for folder in source.folders]
    open_ended = [head for head in _heads(source) if any(place.is_relative_to(head) for place in places)]
    for path in (path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()):
        if not path.name.startswith(".") and not any(path.is_relative_to(head) for head in open_ended):
            assert any(place in {path, *path.parents} for place in places), path


def _heads(source: Source) -> Iterator[str]:
    """Of every path with wildcards that a pairing states: the folder before the first of them, if any."""
    for pairing in source.pairings:
        wild = r"[\[(\\*]" if pairing.kind == "pattern" else r"\*"
        for text in (value for value in pairing.options.values() if isinstance(value, str)):
            head = re.split(wild, text, maxsplit=1)
            folder = head[0].rpartition("/")[0]
            if len(head) == 2 and folder:
                yield folder


def test_every_cell_that_a_source_uses_has_a_layout() -> None:
    """A source of a kind without layout fails above; here the kinds are named at once."""
    used = cells()
    assert {pairing for pairing, *_ in used} <= set(SHAPES)
    assert {reader for _, *readers, _ in used for reader in readers} <= set(WRITERS)
    assert {decoder for *_, decoder in used} <= set(PAINTERS)
    assert all("|" in line for line in table().splitlines())

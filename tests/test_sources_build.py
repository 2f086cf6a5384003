"""Every packaged source, from plan to dataset, on a tree in its true layout that is made from its own TOML."""

from __future__ import annotations

from pathlib import Path

import layouts
import pytest
from layouts.cells import cells, table
from layouts.paint import PAINTERS
from layouts.proof import built, check
from layouts.registry import SHAPES
from layouts.writers import WRITERS

from medcurate.library import load_source, source_ids


@pytest.mark.parametrize("name", source_ids())
def test_every_source_is_built_from_its_true_layout(name: str, tmp_path: Path) -> None:
    source = load_source(name)
    expected, dataset = built([source], tmp_path)
    check(source, expected[name], dataset)


@pytest.mark.parametrize("name", source_ids())
def test_what_a_source_reads_is_what_it_fetches(name: str, tmp_path: Path) -> None:
    """Every file of the tree lies in a folder that an archive unpacks to, or is declared itself."""
    source = load_source(name)
    if not source.files or any(file.origin.generator or file.origin.package for file in source.files):
        return
    layouts.make(source, tmp_path)
    places = [Path(file.unpack.into if file.unpack else file.path) for file in source.files]
    for path in (path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()):
        if not path.name.startswith("."):
            assert any(place in {path, *path.parents} for place in places), path


def test_every_cell_that_a_source_uses_has_a_layout() -> None:
    """A source of a kind without layout fails above; here the kinds are named at once."""
    used = cells()
    assert {pairing for pairing, *_ in used} <= set(SHAPES)
    assert {reader for _, *readers, _ in used for reader in readers} <= set(WRITERS)
    assert {decoder for *_, decoder in used} <= set(PAINTERS)
    assert all("|" in line for line in table().splitlines())

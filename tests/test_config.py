"""What a user reads who wrote a source or a recipe wrongly: own sentences, one a cause, never pydantic's."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from medcurate.config.ontology import Ontology
from medcurate.config.recipe import Recipe
from medcurate.config.source import Source
from medcurate.decoders import DECODERS
from medcurate.errors import ConfigError
from medcurate.library import packaged_sources, recipe_path
from medcurate.pairings import PAIRINGS
from medcurate.readers import READERS
from medcurate.registry import load
from medcurate.tables import SENTENCES, check_model, load_model

RECIPE = tomllib.loads(recipe_path("quickstart").read_text(encoding="utf-8"))
SOURCE = tomllib.loads((packaged_sources() / "dsb2018-nuclei-sample.toml").read_text(encoding="utf-8"))
OPTIONS = {
    f"{what} {kind}": load(table, kind, what).Options
    for what, table in (("pairing", PAIRINGS), ("reader", READERS), ("decoder", DECODERS))
    for kind in table
}
CT = ("intensity", "ct")


def changed(value: dict[str, Any], at: tuple[str | int, ...], new: Any) -> dict[str, Any]:
    value = copy.deepcopy(value)
    node: Any = value
    for part in at[:-1]:
        node = node[part]
    node[at[-1]] = new
    return value


def lines(value: dict[str, Any], model: type[BaseModel]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check_model(value, model, "here")
    return str(caught.value).splitlines()


IN_RECIPES = [
    (
        (*CT, "rule"),
        "none",
        'intensity.ct.rule: "none" is not a rule; known: clip, minmax, percentiles, rgb, window',
    ),
    (CT, {}, "intensity.ct.rule: required key is missing; known: clip, minmax, percentiles, rgb, window"),
    (CT, 3, "intensity.ct: must be a table; given: 3"),
    ((*CT, "hihg"), 3, 'intensity.ct.hihg: unknown key (did you mean "high"?); known: high, low, rule'),
    ((*CT, "low"), 2000, "intensity.ct: low must be below high, not 2000 and 1000"),
    ((*CT, "low"), float("-inf"), "intensity.ct.low: must be a finite number; given: -inf"),
    ((*CT, "low"), "a", 'intensity.ct.low: must be a number; given: "a"'),
    (CT, {"rule": "clip", "low": 1}, "intensity.ct.high: required key is missing"),
    (("intensity", "mr", "low"), 100, "intensity.mr.low: must be below 100; given: 100"),
    (("intensity",), 3, "intensity: must be a table; given: 3"),
    (("sources",), [], "sources: name at least one; given: []"),
    (("sources",), "lab.toml", 'sources: must be a list in brackets; given: "lab.toml"'),
    (("sources",), [3], "sources[0]: must be text in quotes; given: 3"),
    (("slices", "axes"), ["axial"], 'slices.axes[0]: "axial" is not one of: out-of-plane, x, y, z'),
    (("slices", "min_aspect"), 2, "slices.min_aspect: must be at most 1; given: 2"),
    (("masks", "min_voxels"), -1, "masks.min_voxels: must be at least 0; given: -1"),
    (("masks", "min_area"), 100, "masks.min_area: must be a table; given: 100"),
    (("split", "train"), 0.7, "split: train + val + test must be 1, not 0.9"),
    (("split", "official"), 3, "split.official: must be true or false; given: 3"),
    (("shards", "size_bytes"), 1, "shards.size_bytes: must be at least 65536; given: 1"),
    (("split", "official"), "yes", 'split.official: must be true or false; given: "yes"'),
    (("split", "official"), 1, "split.official: must be true or false; given: 1"),
    (("split", "train"), "0.8", 'split.train: must be a number; given: "0.8"'),
    (("split", "train"), True, "split.train: must be a number; given: true"),
    (("shards", "seed"), "7", 'shards.seed: must be a whole number; given: "7"'),
    (("shards", "seed"), True, "shards.seed: must be a whole number; given: true"),
    (("shards", "seed"), 7.0, "shards.seed: must be a whole number; given: 7.0"),
    (("shards", "seed"), 0.5, "shards.seed: must be a whole number; given: 0.5"),
    (("limits", "case_seconds"), 0, "limits.case_seconds: must be above 0; given: 0"),
    (
        ("name",),
        "My corpus",
        'name: "My corpus" is not of the form: lower-case letters, digits and hyphens, starting with a '
        "letter or digit, at most 40",
    ),
]
IN_SOURCES = [
    (("dimensions",), 4, "dimensions: 4 is not one of: 2, 3"),
    (("pairings", 0, "split"), "dev", 'pairings[0].split: "dev" is not one of: "", train, val, test'),
    (("labels",), {}, "labels: name at least one"),
    (("files", 0, "sha256"), "abc", 'files[0].sha256: "abc" is not of the form: 64 hexadecimal digits'),
    (("files", 0, "path"), "../a", "files[0].path: a path below the source's folder, without '..'; given: "),
    (
        ("files", 0, "origin"),
        {},
        "files[0].origin: exactly one of url, huggingface, kaggle, synapse, package, generator, by_hand; given: none",
    ),
    (
        ("files", 0, "origin"),
        {"url": "https://a.org/b", "by_hand": "Ask."},
        "files[0].origin: exactly one of url, huggingface, kaggle, synapse, package, generator, by_hand; given: ['url'",
    ),
    (
        ("files", 0, "origin"),
        {"huggingface": "a/b"},
        "files[0].origin: resource goes with package, huggingface or kaggle, and they with it",
    ),
    (
        ("files", 0, "origin"),
        {"by_hand": "Ask.", "mirrors": ["https://a.org"]},
        "files[0].origin: mirrors go with url",
    ),
    (("files", 0, "md5"), "abc", 'files[0].md5: "abc" is not of the form: 32 hexadecimal digits'),
    (
        ("files", 0, "unpack"),
        {"into": ".."},
        "files[0].unpack.into: a path below the source's folder, without '..'",
    ),
    (
        ("files", 0, "unpack"),
        {"into": "a", "format": "arj"},
        'files[0].unpack.format: "arj" is not one of: "", zip,',
    ),
    (
        ("access",),
        "secret",
        'access: "secret" is not one of: open, registration, agreement, kaggle, synapse, ',
    ),
    (("cases",), 0, "cases: must be above 0; given: 0"),
    (("licence", "id"), "CC BY", 'licence.id: "CC BY" is not of the form: an SPDX id, '),
    (("channels",), [{"name": "t1 w"}], 'channels[0].name: "t1 w" is not of the form: letters, digits and '),
]


@pytest.mark.parametrize(("at", "new", "expected"), IN_RECIPES)
def test_what_is_wrong_in_a_recipe_is_said_in_one_own_sentence(at, new, expected):
    assert lines(changed(RECIPE, at, new), Recipe) == [f"here: {expected}"]


@pytest.mark.parametrize(("at", "new", "expected"), IN_SOURCES)
def test_what_is_wrong_in_a_source_is_said_in_one_own_sentence(at, new, expected):
    (line,) = lines(changed(SOURCE, at, new), Source)
    assert line.startswith(f"here: {expected}")


@pytest.mark.parametrize(
    ("options", "given", "expected"),
    [
        ("reader raster", {"spacing_mm": [1]}, "spacing_mm: give at least 2 values; given: [1]"),
        (
            "reader raster",
            {"spacing_mm": [1, 2, 3, 4]},
            "spacing_mm: give at most 3 values; given: [1, 2, 3, 4]",
        ),
        ("reader raster", {"spacing_mm": [1, 0]}, "spacing_mm[1]: must be above 0; given: 0"),
        ("decoder colour-map", {"background": ["red"]}, 'background[0]: "red" is not of the form: #RRGGBB'),
        (
            "pairing flat-suffix",
            {"image_suffix": "", "label_suffix": ".png"},
            'image_suffix[0]: must not be empty; given: ""',
        ),
        (
            "pairing flat-suffix",
            {"image_suffix": "a/b", "label_suffix": ".png"},
            'image_suffix[0]: "a/b" is not of the form: the end of a name, without "/" unless it is the last '
            "character",
        ),
    ],
)
def test_what_is_wrong_in_options_is_said_in_one_own_sentence(options, given, expected):
    assert lines(given, OPTIONS[options]) == [f"here: {expected}"]


def test_a_long_value_is_cut_and_a_table_is_not_quoted():
    (line,) = lines(changed(RECIPE, ("name",), "x" * 1000), Recipe)
    assert len(line) < 250
    assert "{" not in lines(changed(RECIPE, CT, {}), Recipe)[0]


WRONG: list[Any] = [
    {},
    [],
    [[]],
    [{}],
    "",
    "§",
    0,
    -1,
    1 << 70,
    0.5,
    float("nan"),
    True,
    {"§": 1},
    [1] * 9,
    ["", ""],
]


def _places(value: Any, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at] * bool(at) + [place for key, part in parts for place in _places(part, (*at, key))]


@pytest.mark.parametrize(("value", "model"), [(RECIPE, Recipe), (SOURCE, Source)], ids=["recipe", "source"])
def test_no_wrong_value_anywhere_gets_the_wording_of_the_library(value, model):
    seen: set[str] = set()
    for at in _places(value):
        for new in WRONG:
            text, types = _refusal(changed(value, at, new), model)
            assert not _foreign(text), (at, new, text)
            seen |= types
    assert len(seen) >= 12


@pytest.mark.parametrize("options", sorted(OPTIONS))
def test_no_wrong_option_gets_the_wording_of_the_library(options):
    for name in OPTIONS[options].model_fields:
        for new in WRONG:
            text, _ = _refusal({name: new}, OPTIONS[options])
            assert not _foreign(text), (name, new, text)


def _refusal(value: dict[str, Any], model: type[BaseModel]) -> tuple[str, set[str]]:
    """The message and the library's types of its errors; empty for what is allowed."""
    try:
        check_model(value, model, "here")
    except ConfigError as error:
        cause = error.__cause__
        types = {detail["type"] for detail in cause.errors()} if isinstance(cause, ValidationError) else set()
        return str(error), set(types)
    return "", set()


def _foreign(text: str) -> bool:
    words = (
        "Input ",
        "String should",
        "Tuple should",
        "Dictionary should",
        "discriminator",
        "pattern '",
        "^[",
    )
    return any(word in text for word in words)


@pytest.mark.parametrize("model", [Recipe, Source, Ontology, *OPTIONS.values()])
def test_every_pattern_has_words(model):
    def walk(node: Any) -> None:
        if isinstance(node, dict) and node.get("type") == "string" and "pattern" in node:
            assert node.get("description"), node
        for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            walk(part)

    walk(model.model_json_schema())


def test_no_sentence_is_empty():
    context = {
        "error": "e",
        "min_length": 1,
        "max_length": 1,
        "gt": 1,
        "ge": 1,
        "lt": 1,
        "le": 1,
        "multiple_of": 1,
    }
    assert all(sentence(context) for sentence in SENTENCES.values())


# --- files -----------------------------------------------------------------------------------------


def test_a_byte_order_mark_of_windows_is_no_part_of_a_file(tmp_path: Path) -> None:
    packaged = recipe_path("quickstart").read_bytes()
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbf" + packaged.replace(b"\n", b"\r\n"))
    assert load_model(tmp_path / "a.toml", Recipe) == load_model(recipe_path("quickstart"), Recipe)


def test_files_that_cannot_be_read_say_why(tmp_path, monkeypatch):
    path = tmp_path / "a.toml"
    with pytest.raises(ConfigError, match=r"a\.toml: no such file$"):
        load_model(path, Recipe)
    path.write_bytes(b'name = "\xff"')
    with pytest.raises(ConfigError, match=r"a\.toml: not UTF-8 from byte 8 on; save it as UTF-8$"):
        load_model(path, Recipe)
    path.write_text("name = = 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"a\.toml: not TOML: .*line 1"):
        load_model(path, Recipe)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_model(tmp_path, Recipe)

    def forbidden(self: Path, **kinds: str) -> str:  # the tests may run as root, whom no mode keeps out
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", forbidden)
    with pytest.raises(ConfigError, match=r"a\.toml: cannot be read: Permission denied$"):
        load_model(path, Recipe)

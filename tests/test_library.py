"""Finding, loading and cross-checking sources and recipes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from medcurate.build.splits import split_by_hash
from medcurate.config.recipe import SplitRule
from medcurate.errors import ConfigError
from medcurate.library import (
    Resolved,
    canonical,
    load_recipe,
    load_source,
    ontology,
    packaged_sources,
    recipe_names,
    recipe_path,
    recipe_sha256,
    resolve,
    source_ids,
)
from medcurate.phantom import generator_names

SOURCE = """
id = "lab"
title = "A lab's own"
homepage = ""
citation = ""
modality = "ct"
dimensions = 3

[licence]
id = "unresolved"
commercial = "unknown"

[[pairings]]
kind = "paired-folders"
options = { images = "images", labels = "labels", image_suffix = ".nii.gz", label_suffix = ".nii.gz" }

[image]
reader = "nifti"

[label]
reader = "nifti"
decoder = "index"

[labels]
1 = "liver"
"""

RECIPE = """
name = "mine"
title = "Mine"
sources = ["lab.toml"]

[intensity.ct]
rule = "clip"
low = -500
high = 1000
"""

Make = Callable[..., Path]


@pytest.fixture
def lab(tmp_path: Path) -> Make:
    """Writes the source above and its recipe, with replacements, and returns the recipe's path."""

    def make(*changes: tuple[str, str], recipe: tuple[tuple[str, str], ...] = ()) -> Path:
        for name, text, replacements in (("lab", SOURCE, changes), ("mine", RECIPE, recipe)):
            changed = text
            for old, new in replacements:
                assert old in changed
                changed = changed.replace(old, new)
            (tmp_path / f"{name}.toml").write_text(changed, encoding="utf-8")
        return tmp_path / "mine.toml"

    return make


def refusal(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        resolve(str(path))
    return str(caught.value).splitlines()


# --- the packaged ones -----------------------------------------------------------------------------


def test_something_is_packaged():
    assert "quickstart" in recipe_names()
    assert {"mni152-tissues", "synthetic-ct-phantom", "dsb2018-nuclei-sample"} <= set(source_ids())


@pytest.mark.parametrize("name", recipe_names())
def test_every_packaged_recipe_resolves(name):
    resolved = resolve(name)
    assert resolved.recipe.name == name
    assert [source.id for source in resolved.sources] == list(resolved.recipe.sources)
    assert set(resolved.homes) == set(resolved.recipe.sources)


@pytest.mark.parametrize("name", source_ids())
def test_every_packaged_source_fits_into_a_recipe(name, tmp_path):
    source = load_source(name)
    path = tmp_path / "one.toml"
    path.write_text(
        f'name = "one"\ntitle = ""\nsources = ["{source.id}"]\n[intensity.default]\nrule = "minmax"\n',
        encoding="utf-8",
    )
    assert resolve(str(path)).homes[name] == packaged_sources()
    assert source.licence.id != "unresolved" or source.licence.commercial == "unknown"
    for file in source.files:
        assert not file.origin.generator or file.origin.generator in generator_names()
    if source.licence.notice.startswith("embedded/"):
        assert (packaged_sources().parent / source.licence.notice).is_file()


def test_everything_embedded_has_a_notice_and_is_used():
    folder = packaged_sources().parent / "embedded"
    used = {file.origin.resource for name in source_ids() for file in load_source(name).files}
    for part in folder.iterdir():
        assert (part / "NOTICE").is_file()
        for path in part.iterdir():
            assert path.name == "NOTICE" or path.relative_to(folder.parent).as_posix() in used


def test_quickstart_writes_out_every_option():
    """It is what newcomers read: no option of a recipe may hide behind its default."""
    written = tomllib.loads(recipe_path("quickstart").read_text(encoding="utf-8"))
    resolved = resolve("quickstart").recipe.model_dump(mode="json")
    assert set(written) == set(resolved)
    for part in ("slices", "masks", "split", "shards", "limits"):
        assert set(written[part]) == set(resolved[part])


def test_quickstart_fills_all_three_splits():
    recipe = load_recipe("quickstart")
    groups = ["mni152-tissues:icbm152-2009a", "dsb2018-nuclei-sample:stardist-2d"]
    groups += [f"synthetic-ct-phantom:p{number:02d}" for number in range(1, 7)]
    assert {split_by_hash(group, recipe.split) for group in groups} == {"train", "val", "test"}
    assert recipe.split.model_copy(update={"salt": "medcurate"}) == SplitRule()


# --- by name and by path ---------------------------------------------------------------------------


def test_a_misspelt_name_gets_a_suggestion():
    with pytest.raises(ConfigError, match=r'recipe "quickstrat" is unknown \(did you mean "quickstart"\?\)'):
        load_recipe("quickstrat")
    with pytest.raises(
        ConfigError, match=r'did you mean "mni152-tissues"\?\); `medcurate sources` lists all \d+\.'
    ):
        load_source("mni152-tissue")
    with pytest.raises(ConfigError) as caught:
        load_source("kits2")
    assert str(caught.value).index('"kits23"') < len(str(caught.value)) < 300
    assert '"kits19"' in str(caught.value)


def test_a_source_given_for_a_recipe_is_one_line_and_so_is_a_recipe_given_for_a_source(lab):
    recipe = lab()
    with pytest.raises(
        ConfigError, match=r"lab\.toml: is the file of a source, .*download --source"
    ) as caught:
        resolve(str(recipe.with_name("lab.toml")))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=rf"{recipe.name}: is a recipe, .*--recipe") as caught:
        load_source(str(recipe))
    assert "\n" not in str(caught.value)


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.toml: no such file"):
        resolve(str(tmp_path / "nothing.toml"))


def test_sources_by_path_are_relative_to_the_recipe(lab, monkeypatch, tmp_path):
    path = lab()
    monkeypatch.chdir(tmp_path.parent)
    resolved = resolve(str(path))
    assert resolved.folder == resolved.homes["lab"] == tmp_path
    assert load_source("lab.toml", tmp_path) == resolved.sources[0]


def test_packaged_and_own_sources_mix(lab):
    path = lab(recipe=(('["lab.toml"]', '["synthetic-ct-phantom", "lab.toml"]'),))
    resolved = resolve(str(path))
    assert resolved.homes == {"synthetic-ct-phantom": packaged_sources(), "lab": path.parent}


# --- what is refused -------------------------------------------------------------------------------


CHANNEL = '[[channels]]\nname = "a"\n'
BAD_SOURCES = [
    # what is replaced, by what, the line that names it
    ('"ct"', '"cct"', 'modality: "cct" is not a modality of the ontology (did you mean "ct"?)'),
    ('"liver"', '"livre"', 'labels.1: "livre" is not a label of the ontology (did you mean "liver"?)'),
    (
        '"liver"',
        '"hepatic lesion"',
        'labels.1: "hepatic lesion" is not a label of the ontology (did you mean "liver-le',
    ),
    (
        '"liver"',
        '"livre x"',
        'labels.1: "livre x" is not a label of the ontology (did you mean "liver"?); see `medcurate terms \'livre x\'`',
    ),
    (
        '"liver"',
        '"unresolved"',
        "labels.1: say which label of the ontology it is; see `medcurate terms WORD`",
    ),
    (
        '"ct"',
        '"CT"',
        'modality: "CT" is not a modality of the ontology (did you mean "ct"?); '
        "see `medcurate terms --kind modalities CT`",
    ),
    ('"ct"', '"us"', 'modality: "us" is not a modality of the ontology (did you mean "ultrasound"?)'),
    ('"ct"', '"ct"\nsequence = "t1"', 'sequence: "t1" is a sequence of modality "mr", not of "ct"'),
    ('"ct"', '"ct"\nsequence = "flare"', 'sequence: "flare" is not a sequence of the ontology (did you mean'),
    ('"nifti"\n\n', '"nifty"\n\n', 'image.reader: reader "nifty" is unknown; known: array, '),
    ('"nifti"\nd', '"nifty"\nd', 'label.reader: reader "nifty" is unknown; known: array, '),
    ('"paired-folders"', '"pairs"', 'pairings[0].kind: pairing "pairs" is unknown; known: array-pack, '),
    ('"index"', '"indices"', 'label.decoder: decoder "indices" is unknown; known: bits, '),
    ("{ images", "{ image", 'pairings[0].options: image: unknown key (did you mean "images"?)'),
    ('"images"', '"../x"', "pairings[0].options: images: "),
    ('image_suffix = "', 'image_suffix = "_{channel}', "pairings[0].options: {channel} is used but "),
    ('"index"', '"index"\noptions = { nope = 1 }', "label.options: nope: unknown key"),
    ('"index"', '"index"\nreader_options = { nope = 1 }', "label.reader_options: nope: unknown key"),
    ("1 =", "one =", 'labels: not of the form that the decoder "index" needs: '),
    (
        "[labels]",
        "[case]\npattern = '(?P<pat>p)'\n[labels]",
        'case.pattern: unknown named group "pat"; known: ',
    ),
    ("[labels]", "[case]\npattern = '(p'\n[labels]", "case.pattern: not a regular expression: "),
    (
        "[labels]",
        '[case]\npattern = "unresolved"\n[labels]',
        'case.pattern: say which part of a case\'s name is the patient, or "" if every case is another patient',
    ),
    ("[labels]", f'{CHANNEL}modality = "mx"\n[labels]', 'channels[0].modality: "mx" is not a modality'),
    (
        "[labels]",
        f'{CHANNEL}sequence = "t1"\n[labels]',
        'channels[0].sequence: "t1" is a sequence of modality',
    ),
    ("[labels]", f"{CHANNEL}{CHANNEL}[labels]", 'channels: the name "a" is given 2 times'),
]
BAD_RECIPES = [
    ('"lab.toml"', '"lab.toml", "lab.toml"', 'sources: the id "lab" is given 2 times'),
    (".ct]", ".mr]", 'intensity: no rule for modality "ct" of source "lab"; add [intensity.ct]'),
    (".ct]", ".cct]", 'intensity.cct: "cct" is not a modality of the ontology (did you mean "ct"?)'),
]


@pytest.mark.parametrize(("old", "new", "line"), BAD_SOURCES)
def test_a_source_that_fits_nowhere(lab, old, new, line):
    path = lab((old, new))
    lines = refusal(path)
    assert any(text.startswith(f"{path.parent / 'lab.toml'}: {line}") for text in lines), lines


@pytest.mark.parametrize(("old", "new", "line"), BAD_RECIPES)
def test_a_recipe_that_does_not_fit_its_sources(lab, old, new, line):
    path = lab(recipe=((old, new),))
    lines = refusal(path)
    assert any(text.startswith(f"{path}: {line}") for text in lines), lines


def test_all_problems_are_told_at_once(lab):
    path = lab(('modality = "ct"', 'modality = "cct"'), ('1 = "liver"', '1 = "livre"'))
    assert len(refusal(path)) == 2  # not a third, of no intensity rule for what is no modality


def test_a_default_intensity_serves_every_modality(lab):
    path = lab(('modality = "ct"', 'modality = "mr"'), recipe=(("[intensity.ct]", "[intensity.default]"),))
    assert resolve(str(path)).sources[0].modality == "mr"


def test_modalities_of_channels_need_a_rule(lab):
    channels = '[[channels]]\nname = "a"\n[[channels]]\nname = "b"\nmodality = "pet"\n[labels]'
    options = ('image_suffix = ".nii.gz"', 'image_suffix = "_{channel}.nii.gz"')
    lines = refusal(lab(("[labels]", channels), options))
    assert len(lines) == 1
    assert 'no rule for modality "pet"' in lines[0]


# --- identity --------------------------------------------------------------------------------------


def test_the_canonical_form_is_json_and_holds_the_terms_used():
    value = canonical(resolve("quickstart"))
    assert json.loads(json.dumps(value)) == value
    assert "liver-lesion" in value["ontology"]["labels"]
    assert "prostate" not in value["ontology"]["labels"]
    assert value["ontology"]["regions"]["specimen"]["group"] == "other"


def test_where_files_lie_changes_no_identity(lab, tmp_path):
    path = lab()
    before = recipe_sha256(resolve(str(path)))
    moved = tmp_path / "deep" / "er"
    moved.mkdir(parents=True)
    (tmp_path / "lab.toml").rename(moved / "lab.toml")
    path.write_text(path.read_text().replace("lab.toml", "deep/er/lab.toml"), encoding="utf-8")
    assert recipe_sha256(resolve(str(path))) == before


@pytest.mark.parametrize(
    ("source", "recipe"),
    [((('1 = "liver"', '2 = "liver"'),), ()), ((), (("high = 1000", "high = 1001"),))],
)
def test_every_change_of_recipe_or_source_changes_the_identity(lab, source, recipe):
    before = recipe_sha256(resolve(str(lab())))
    assert recipe_sha256(resolve(str(lab(*source, recipe=recipe)))) != before


def test_a_changed_term_changes_the_identity(lab):
    resolved = resolve(str(lab()))
    liver = ontology().labels["liver"].model_copy(update={"snomed": ""})
    terms = ontology().model_copy(update={"labels": ontology().labels | {"liver": liver}})
    changed = Resolved(
        recipe=resolved.recipe,
        sources=resolved.sources,
        ontology=terms,
        folder=resolved.folder,
        homes=resolved.homes,
    )
    assert recipe_sha256(changed) != recipe_sha256(resolved)


def test_the_identity_is_the_same_in_another_process():
    code = "from medcurate.library import *; print(recipe_sha256(resolve('quickstart')))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed, "LC_ALL": locale},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed, locale in (("1", "C"), ("2", "C.UTF-8"))
    }
    assert found == {recipe_sha256(resolve("quickstart"))}

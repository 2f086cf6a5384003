"""Terms: accepted once with the date, filtered at build and pack, and kept when a dataset is passed on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import build_kit
import kit
import lab
import pack_kit
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from medcurate.acceptance import FILE, accept
from medcurate.cli.main import app
from medcurate.commit import write_json
from medcurate.config.source import Licence, Source
from medcurate.errors import ConfigError
from medcurate.format.record import read_record
from medcurate.library import load_source
from medcurate.pack.dataset import pack_dataset
from medcurate.pack.publish import citations_text, licence_condition, licences_text
from medcurate.pack.types import PackRules
from medcurate.verify.run import verify_dataset

OPEN = {"id": "CC-BY-4.0", "commercial": "yes", "redistribute": "yes", "url": "https://example.org/by"}
CLOSED = {"id": "LicenseRef-DUA", "commercial": "no", "redistribute": "no"}


def source(name: str, **facts: object) -> Source:
    return load_source("synthetic-ct-phantom").model_copy(update={"id": name, **facts})


# --- acceptance ------------------------------------------------------------------------------------


def test_terms_are_asked_for_once_and_kept_with_the_date(tmp_path: Path) -> None:
    asked = [source("free"), source("agreed", access="agreement")]
    with pytest.raises(ConfigError, match=r"agreed: CC0-1.0, access by agreement; https://creativecommons"):
        accept(asked, (), tmp_path)
    first = accept(asked, ("agreed",), tmp_path)
    assert set(first) == {"agreed"}
    assert len(first["agreed"].date) == len("2026-01-31")
    assert accept(asked, (), tmp_path) == first
    assert set(json.loads((tmp_path / FILE).read_bytes())) == {"agreed"}


def test_terms_that_nobody_looked_up_are_asked_for_in_other_words_than_those_of_closed_access(
    tmp_path: Path,
) -> None:
    unresolved = source(
        "open", licence=Licence(id="unresolved", commercial="unknown"), homepage="https://a.org"
    )
    with pytest.raises(ConfigError) as caught:
        accept([unresolved], (), tmp_path)
    first, row = str(caught.value).splitlines()
    assert first.startswith("1 source has terms to accept. Read them")
    assert row == "  open: unresolved, access open; https://a.org"
    with pytest.raises(ConfigError, match=r"^2 sources have terms"):
        accept([unresolved, source("other", access="kaggle")], (), tmp_path)


def test_another_licence_is_asked_for_again(tmp_path: Path) -> None:
    accept([source("agreed", access="agreement")], ("all",), tmp_path)
    changed = source("agreed", access="agreement", licence=Licence(id="LicenseRef-New", commercial="no"))
    with pytest.raises(ConfigError, match="LicenseRef-New"):
        accept([changed], (), tmp_path)


def test_a_data_folder_that_cannot_be_written_keeps_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert set(accept([source("agreed", access="kaggle")], ("all",), tmp_path)) == {"agreed"}
    assert not (tmp_path / FILE).exists()


def test_an_id_that_is_not_used_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--accept-licence typo: no source of that id is used; used: free"):
        accept([source("free")], ("typo",), tmp_path)


def test_a_damaged_record_is_said_so(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        accept([source("agreed", access="agreement")], ("all",), tmp_path)


# --- a build ---------------------------------------------------------------------------------------


def built(folder: Path) -> Path:
    """A dataset of an open and a closed set, the closed one's terms accepted."""
    for number, (name, access) in enumerate((("open-set", "open"), ("closed-set", "agreement"))):
        path = lab.write_source(folder, name, cases=2, seed=number, more=f'access = "{access}"')
        text = path.read_text()
        head, _, pairings = text.partition("[[pairings]]")
        head = head.replace(
            'licence = { id = "CC-BY-4.0", commercial = "yes" }', f"licence = {_inline(name)}"
        )
        body, _, more = pairings.rpartition(f'access = "{access}"')
        path.write_text(f'access = "{access}"\n{head}[[pairings]]{body}{more}')
    recipe = lab.write_recipe(folder, "open-set", "closed-set", pixels=40)  # some masks are refused
    refused = lab.build(recipe, folder / "out", code=1)
    assert "closed-set: LicenseRef-DUA, access by agreement" in refused.stderr
    lab.build(recipe, folder / "out", "--accept-licence", "closed-set")
    return folder / "out"


def _inline(name: str) -> str:
    facts = OPEN if name == "open-set" else CLOSED
    return "{ " + ", ".join(f'{key} = "{value}"' for key, value in facts.items()) + " }"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("licences"))


def test_the_record_says_what_was_accepted_and_the_date_changes_no_other_byte(
    dataset: Path, tmp_path: Path
) -> None:
    accepted = read_record(dataset).accepted
    assert set(accepted) == {"closed-set"}
    assert accepted["closed-set"]["licence"] == "LicenseRef-DUA"
    folder = dataset.parent
    other_day = {"closed-set": {"licence": "LicenseRef-DUA", "url": "", "date": "2001-01-01"}}
    write_json(folder / FILE, other_day)
    lab.build(folder / "lab-recipe.toml", tmp_path / "again")
    assert read_record(tmp_path / "again").accepted == other_day
    first, again = lab.digests(dataset), lab.digests(tmp_path / "again")
    assert {name for name in first if first[name] != again[name]} == {"dataset.json"}


def test_a_build_leaves_sources_out_by_licence(dataset: Path, tmp_path: Path) -> None:
    done = lab.build(dataset.parent / "lab-recipe.toml", tmp_path / "out", "--licence", "commercial")
    assert "left out: source closed-set, its licence is LicenseRef-DUA; commercial use: no" in done.stderr
    record = read_record(tmp_path / "out")
    assert set(record.sources) == {"open-set"}
    assert set(record.lineage["left_out"]) == {"closed-set"}
    shown = CliRunner().invoke(app, ["stats", str(tmp_path / "out")], catch_exceptions=False).stdout
    assert "left out: closed-set: its licence is LicenseRef-DUA" in shown


# --- pack ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use", "condition"),
    [("any", ""), ("commercial", "source IN ('a')"), ("share-alike", "source IN ('a', 'it''s')")],
)
def test_conditions_of_licences(use: str, condition: str) -> None:
    alike = {**OPEN, "commercial": "no"}
    sources = {"it's": {"licence": alike}, "a": {"licence": OPEN}, "c": {"licence": CLOSED}, "d": {}}
    assert licence_condition(sources, use) == condition
    assert licence_condition({"a": {"licence": OPEN}}, use) == ""


def test_a_licence_that_no_source_has_is_named_with_those_of_the_sources(
    dataset: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(dataset, tmp_path / "copy")
    words = ["pack", str(copy), str(tmp_path / "out"), "--licence", "commercial"]
    record = json.loads((copy / "dataset.json").read_bytes())
    record["sources"]["open-set"]["licence"]["commercial"] = "unknown"
    (copy / "dataset.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError) as caught:
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert str(caught.value).splitlines() == [
        "--licence commercial: the licence of no source of this dataset says yes; nothing was packed:",
        "  closed-set: LicenseRef-DUA; commercial use: no",
        "  open-set: CC-BY-4.0; commercial use: unknown",
    ]
    assert not (tmp_path / "out").exists()


def test_pack_keeps_rows_whose_licence_allows_it(dataset: Path, tmp_path: Path) -> None:
    words = ["pack", str(dataset), str(tmp_path / "out"), "--licence", "share-alike", "--engine", "serial"]
    CliRunner().invoke(app, words, catch_exceptions=False)
    rows = build_kit.Dataset(tmp_path / "out").rows
    assert set(rows["source"].to_pylist()) == {"open-set"}


def test_a_condition_cannot_close_the_parentheses_of_the_licence(dataset: Path, tmp_path: Path) -> None:
    words = ["pack", str(dataset), str(tmp_path / "out"), "--licence", "share-alike", "--engine", "serial"]
    with pytest.raises(ConfigError, match="syntax error"):
        CliRunner().invoke(app, [*words, "--where", "true) OR (true"], catch_exceptions=False)


def test_a_comment_after_a_condition_does_not_hide_the_licence(dataset: Path, tmp_path: Path) -> None:
    words = ["pack", str(dataset), str(tmp_path / "out"), "--licence", "share-alike", "--engine", "serial"]
    CliRunner().invoke(app, [*words, "--where", "area_px > 0 -- all"], catch_exceptions=False)
    assert set(build_kit.Dataset(tmp_path / "out").rows["source"].to_pylist()) == {"open-set"}


def test_publish_reads_a_condition_as_pack_does(dataset: Path, tmp_path: Path) -> None:
    publish(dataset, tmp_path / "out", where="manifest.source = 'open-set' -- ours")
    assert set(build_kit.Dataset(tmp_path / "out").rows["source"].to_pylist()) == {"open-set"}
    with pytest.raises(ConfigError, match=r"^--where 'organ': .* convert"):
        publish(dataset, tmp_path / "wrong", where="organ")
    assert not (tmp_path / "wrong").exists()


def test_publish_refuses_what_may_not_be_passed_on(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="closed-set: LicenseRef-DUA; passing copies on: no"):
        publish(dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_publish_adds_the_texts_and_they_are_verified(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    publish(dataset, out, where="source = 'open-set'")
    assert "https://example.org/by" in (out / "LICENCES.md").read_text()
    assert "open-set et al." in (out / "CITATIONS.md").read_text()
    assert not verify_dataset(out, engine=pack_kit.inline).count
    before = pack_kit.tree(out)
    publish(dataset, out, where="source = 'open-set'")
    assert pack_kit.tree(out) == before
    (out / "LICENCES.md").write_text("all free")
    (problem,) = verify_dataset(out, engine=pack_kit.inline).problems
    assert problem.file == "LICENCES.md"
    publish(dataset, out, where="source = 'open-set'")
    assert pack_kit.tree(out) == before


def test_a_packed_dataset_becomes_one_to_publish(dataset: Path, tmp_path: Path) -> None:
    out = pack_kit.pack(dataset, tmp_path / "out", where="source = 'open-set'")
    publish(dataset, out, where="source = 'open-set'")
    assert {"LICENCES.md", "CITATIONS.md"} <= set(read_record(out).files)
    assert not verify_dataset(out, engine=pack_kit.inline).count


def test_nothing_of_a_source_that_is_left_out_is_passed_on(dataset: Path, tmp_path: Path) -> None:
    """Its ledger rows count as not selected then; without a selection the ledger stays whole."""
    out, whole = tmp_path / "out", pack_kit.pack(dataset, tmp_path / "whole")
    assert ledger_sources(dataset) == ledger_sources(whole) == {"closed-set", "open-set"}
    publish(dataset, out, where="source = 'open-set'")
    assert ledger_sources(out) == set(read_record(out).sources) == {"open-set"}
    assert not verify_dataset(out, engine=pack_kit.inline).count
    assert not verify_dataset(whole, engine=pack_kit.inline).count
    for kind, before in read_record(dataset).counts.items():
        after = read_record(out).counts[kind]
        assert after["discovered"] == before["discovered"]
        assert after["written"] + after["rejected"] + after["not_selected"] == before["discovered"]


def test_a_source_of_which_all_was_refused_is_asked_for_its_licence_too(
    dataset: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(dataset.parent, tmp_path / "lab", ignore=shutil.ignore_patterns("out*"))
    for label in (folder / "closed-set/seg").iterdir():
        label.unlink()
    lab.build(folder / "lab-recipe.toml", tmp_path / "in", code=3)
    assert set(build_kit.Dataset(tmp_path / "in").rows["source"].to_pylist()) == {"open-set"}
    with pytest.raises(ConfigError, match="closed-set: LicenseRef-DUA; passing copies on: no"):
        publish(tmp_path / "in", tmp_path / "out")
    again = pack_kit.pack(tmp_path / "in", tmp_path / "again")
    with pytest.raises(ConfigError, match="closed-set: LicenseRef-DUA; passing copies on: no"):
        publish(again, tmp_path / "out")


def ledger_sources(dataset: Path) -> set[str]:
    return set(pq.read_table(dataset / "rejects.parquet")["source"].to_pylist())


def publish(dataset: Path, out: Path, **rules: str) -> None:
    pack_dataset(dataset, out, PackRules(**rules), engine=pack_kit.inline, workers=1, publish=True)


def test_a_licence_without_facts_is_not_published(tmp_path: Path) -> None:
    """Records of other tools may hold a name where the facts belong."""
    with pytest.raises(ConfigError, match=r"demo: CC0-1\.0; passing copies on: unknown"):
        publish(kit.write_dataset(tmp_path / "in", kit.pieces(8)), tmp_path / "out")


def test_a_citation_of_several_lines_stays_one_item() -> None:
    facts = {"citation": "@article{a,\n  title = {A},\n\n  year = 2020\n}\n"}
    assert citations_text({"a": facts}).splitlines()[2:] == ["- `a`: @article{a, title = {A}, year = 2020 }"]


def test_texts_hold_notices_whole() -> None:
    facts = {"title": "MNI152", "homepage": "", "citation": "", "licence": {"id": "LicenseRef-MNI-ICBM152"}}
    notice = {"notice": "embedded/mni152-tissues/NOTICE"}
    packaged = load_source("mni152-tissues").licence.notice
    assert packaged == notice["notice"]
    text = licences_text({"mni": {**facts, "licence": {**facts["licence"], **notice}}})
    assert "McConnell" in text or "Copyright" in text
    assert "> keep this" in licences_text({"x": {**facts, "licence": {"id": "x", "notice": "keep this"}}})
    assert "do not say how" in citations_text({"mni": facts})

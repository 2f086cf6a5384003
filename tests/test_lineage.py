"""Sets that hold the same patients: the packaged rules, shared names of patients, and what a recipe does."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import build_kit
import lab
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from medcurate.choice import allows, choose, needs_acceptance
from medcurate.cli.main import app
from medcurate.config.lineage import Lineage, Rule
from medcurate.config.source import Licence, Source
from medcurate.errors import ConfigError
from medcurate.library import canonical, lineage, load_source, recipe_sha256, resolve, source_ids
from medcurate.lineage import dropped, overlaps, shared_patient


def rule(*sources: str, relation: str = "same-patients", **facts: Any) -> Rule:
    return Rule.model_validate({"relation": relation, "sources": sources, "evidence": ["a page"], **facts})


def rules(*given: Rule) -> Lineage:
    return Lineage(sets={name: name for each in given for name in each.sources}, rules=given)


def source(name: str, commercial: str = "yes", redistribute: str = "yes", **facts: Any) -> Source:
    known = load_source("synthetic-ct-phantom")
    licence = Licence(id="CC-BY-4.0", commercial=commercial, redistribute=redistribute)
    return known.model_copy(update={"id": name, "licence": licence, **facts})


# --- the packaged rules ----------------------------------------------------------------------------


def test_the_packaged_rules_join_what_they_say() -> None:
    for name in ("kits19", "kits23"):
        assert shared_patient(lineage(), name, "case_00123") == ("kits", "123")
    assert shared_patient(lineage(), "isic-2017-task1", "ISIC_0000019") == ("isic", "19")
    assert shared_patient(lineage(), "msd-task03-liver", "liver_3") is None


@pytest.mark.parametrize(
    ("sources", "losers"),
    [
        (["lits", "msd-task03-liver"], {"lits"}),
        (["kits19", "kits23"], {"kits19"}),
        (["totalsegmentator-ct-v1", "totalsegmentator-ct-v2"], {"totalsegmentator-ct-v1"}),
        (["brats-2021", "brats-2018"], set()),
        (["kits19", "lits"], set()),
        (["lidc-idri", "luna16"], set()),  # nodules, and lungs of the same scans
    ],
)
def test_editions_of_one_set_have_a_winner(sources: list[str], losers: set[str]) -> None:
    assert set(dropped(overlaps(lineage(), sources))) == losers


def test_packaged_sources_of_one_rule_write_patients_alike() -> None:
    packaged = set(source_ids())
    for each in lineage().rules:
        ways = {load_source(name).case.identifiers for name in each.ids if name in packaged}
        assert len(ways) <= 1, each.patients


def test_the_document_shows_a_packaged_rule_and_every_key() -> None:
    text = (Path(__file__).parents[1] / "docs/lineage.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z]+)` \| [a-z ]+ \|", text, re.M)) == set(Rule.model_fields)
    packaged = (Path(__file__).parents[1] / "manifests/lineage.toml").read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", text, re.S)
    assert block.strip() in packaged


# --- overlaps and winners --------------------------------------------------------------------------


def test_a_rule_needs_two_of_its_sources_and_a_derived_set_itself() -> None:
    known = rules(rule("a", "b"), rule("d", "x", "y", relation="derived-from"))
    assert not overlaps(known, ["a", "x", "y"])
    assert [o.sources for o in overlaps(known, ["b", "a", "y", "d"])] == [("a", "b"), ("d", "y")]


STRONG, WEAK = rule("a", "b", wins="a"), rule("a", "b", "c", relation="shares-some")
MADE = rule("a", "b", "c", relation="derived-from")
IDS = rule("b", "c", relation="contains", patients="p", ids=dict.fromkeys("bc", r"(?P<patient>\d+)"))


@pytest.mark.parametrize(
    ("sources", "told"),
    [
        ("ab", [STRONG]),
        ("bc", [IDS]),  # what is made of both says nothing of the two
        ("ac", [MADE]),
        ("abc", [STRONG, MADE, IDS, WEAK]),  # only the weak rule speaks of all three pairs
    ],
)
def test_of_what_several_rules_say_the_strongest_is_told_in_any_order(sources: str, told: list[Rule]) -> None:
    for given in itertools.permutations([STRONG, WEAK, MADE, IDS]):
        found = [overlap.rule for overlap in overlaps(rules(*given), list(sources))]
        assert found == [each for each in given if each in told]


def test_two_rules_alike_are_told_once() -> None:
    pair = [rule("a", "b", note="one"), rule("a", "b", note="two")]
    for given in (pair, pair[::-1]):
        (found,) = overlaps(rules(*given), ["a", "b"])
        assert found.rule.note == "one"


def test_one_namespace_joins_patients_by_their_ids() -> None:
    known = rules(rule("a", "b"), rule("c", "d", patients="p", ids={"c": r"(?P<patient>\d+)"}))
    (apart,) = overlaps(known, ["a", "b"])
    assert not apart.by_ids
    assert "joined only where voxels are equal" in apart.text
    (joined,) = overlaps(known, ["a", "b"], {"a": "n", "b": "n"})
    assert joined.by_ids
    (half,) = overlaps(known, ["c", "d"], {"c": "n", "d": "n"})  # c's patients are known by the rule's name
    assert not half.by_ids


@pytest.mark.parametrize(
    ("pair", "by_ids"),
    [
        (("verse19", "verse20"), True),
        (("picai", "picai-gland"), True),
        (("plethora", "plethora-effusion"), True),
        (("covid-qu-ex", "covid-qu-ex-infection"), False),
        (("dsb2018", "dsb2018-nuclei-sample"), False),
    ],
)
def test_packaged_pairs_are_known(pair: tuple[str, str], by_ids: bool) -> None:
    (found,) = choose([load_source(name) for name in pair], "any", lineage(), "warn").overlaps
    assert set(found.sources) == set(pair)
    assert found.by_ids == by_ids


@pytest.mark.parametrize(
    "apart",
    [
        ("msd-task07-pancreas", "nih-pancreas-ct"),  # PANORAMA holds scans of both
        ("monuseg", "glas"),  # CoNIC
        ("ctpelvic1k", "msd-task10-colon", "kits19"),  # in other parts of CTPelvic1K than are read
        ("tn3k", "ddti"),  # a folder of the archive of TN3K that is not read
    ],
)
def test_sources_that_share_nobody_are_not_told_to(apart: tuple[str, ...]) -> None:
    assert not overlaps(lineage(), apart)


def test_what_a_set_is_made_of_is_told_through_the_sets_between() -> None:
    parts: dict[str, set[str]] = {}
    for each in lineage().rules:
        first, *others = each.sources
        if each.relation == "derived-from":
            parts.setdefault(first, set()).update(others)
        elif each.relation in ("same-patients", "contains"):
            for one, other in itertools.permutations(each.sources, 2):
                parts.setdefault(one, set()).add(other)
    made = {each.sources[0] for each in lineage().rules if each.relation == "derived-from"}
    pairs = {(one, part) for one in made for between in parts[one] for part in parts.get(between, ())}
    assert len(pairs) > 50
    assert not [pair for pair in sorted(pairs) if len(set(pair)) == 2 and not overlaps(lineage(), pair)]


def test_the_published_release_is_told_to_hold_every_source_that_says_so() -> None:
    named = [source for source in map(load_source, source_ids()) if source.sa_med2d]
    assert len(named) > 50
    for source in named:
        assert overlaps(lineage(), [source.id, f"sa-med2d-20m-{source.modality}"]), source.id


@pytest.mark.parametrize(
    "pair",
    [
        ("abdomenatlas-1-1-mini", "msd-task06-lung"),
        ("abdomenatlas-1-1-mini", "flare23"),
        ("msd-task06-lung", "nsclc-radiogenomics"),
        ("abdomenct-1k", "ct-org"),  # both hold LiTS
        ("seg-a-2023", "sa-med2d-20m-ct"),  # both hold KiTS
    ],
)
def test_leaks_between_sets_of_other_names_are_told(pair: tuple[str, str]) -> None:
    assert overlaps(lineage(), pair)


@pytest.mark.parametrize(
    "takers",
    [
        pytest.param(
            "abdomenct-1k flare21 flare22 flare23 abdomenatlas-1-1-mini ct-org ctspine1k 3d-ircadb-01 sa-med2d-20m-ct",
            id="LiTS",
        ),
        pytest.param(
            "abdomenct-1k flare21 flare22 flare23 abdomenatlas-1-1-mini seg-a-2023 sa-med2d-20m-ct", id="KiTS"
        ),
        pytest.param(
            "abdomenct-1k flare21 flare22 flare23 abdomenatlas-1-1-mini panorama sa-med2d-20m-ct",
            id="pancreas",
        ),
        pytest.param("abdomenatlas-1-1-mini nsclc-radiogenomics sa-med2d-20m-ct", id="lung"),
        pytest.param("flare23 abdomenatlas-1-1-mini sa-med2d-20m-pet sa-med2d-20m-ct", id="autoPET"),
    ],
)
def test_any_two_sets_that_took_from_a_third_are_told(takers: str) -> None:
    pairs = itertools.combinations(takers.split(), 2)
    assert not [pair for pair in pairs if not overlaps(lineage(), pair)]


def test_packaged_sources_that_are_made_of_one_set_are_told() -> None:
    """Also of a rule to come: its author has to say what the new set shares with its siblings."""
    parts: dict[str, set[str]] = {}
    for each in lineage().rules:
        if each.relation == "derived-from":
            parts.setdefault(each.sources[0], set()).update(each.sources[1:])
    made = sorted(parts.keys() & set(source_ids()))
    alike = [pair for pair in itertools.combinations(made, 2) if parts[pair[0]] & parts[pair[1]]]
    assert len(alike) > 15
    assert not [pair for pair in alike if not overlaps(lineage(), pair)]


def test_sets_without_a_packaged_source_are_known_to_a_lab_that_has_them() -> None:
    assert shared_patient(lineage(), "kits21", "case_00007") == ("kits", "7")
    for pair in (("drive", "rite"), ("brats-2019", "brats-2021"), ("brats-2020", "brats-2018")):
        assert overlaps(lineage(), pair)
    assert set(dropped(overlaps(lineage(), ["kits21", "kits19"]))) == {"kits19"}


def test_the_largest_edition_that_is_there_stands_for_the_others() -> None:
    known = rules(rule("v3", "v2", "v1", relation="contains", wins="v3"))
    (found,) = overlaps(known, ["v1", "v2"])
    assert found.losers == ("v1",)
    assert "v2 contains v1" in found.text
    assert "v2 wins" in found.text


def test_a_source_that_lost_takes_no_other_along() -> None:
    """b loses to a, so b cannot make c lose."""
    known = rules(rule("a", "b", wins="a"), rule("b", "c", wins="b"))
    assert set(dropped(overlaps(known, ["a", "b", "c"]))) == {"b"}


def test_ids_join_digits_without_leading_zeros_and_words_as_they_are() -> None:
    ids = {"a": r"(?P<patient>\d+)", "b": r"^x-(?P<patient>\w+)"}
    known = rules(rule("a", "b", patients="p", ids=ids))
    assert shared_patient(known, "a", "case_0070") == ("p", "70")
    assert shared_patient(known, "a", "000") == ("p", "0")
    assert shared_patient(known, "b", "x-0a7") == ("p", "0a7")
    with pytest.raises(ConfigError, match=r"does not fit ids\.b"):
        shared_patient(known, "b", "y-1")


def test_some_patients_may_stand_outside_of_a_partial_rule() -> None:
    known = rules(rule("a", "b", relation="shares-some", patients="p", ids={"a": r"^TCGA-(?P<patient>\w+)"}))
    assert shared_patient(known, "a", "own-1") is None


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"sources": ["a"]}, "too_short|at least 2"),
        ({"sources": ["a", "a"]}, "named twice"),
        ({"wins": "c"}, "c: not among sources"),
        ({"ids": {"a": "(?P<patient>.)"}}, "patients and ids go together"),
        ({"patients": "p", "ids": {"a": "("}}, "ids.a: not a regular expression"),
        ({"patients": "p", "ids": {"a": "(?P<group>.)"}}, r"needs the named group \(\?P<patient>"),
    ],
)
def test_wrong_rules_are_refused(facts: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Rule.model_validate({"relation": "same-patients", "sources": ["a", "b"], "evidence": ["x"], **facts})


def test_a_set_without_title_and_two_names_for_a_patient_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"b: named by a rule but not in \[sets\]"):
        Lineage(sets={"a": "A"}, rules=(rule("a", "b"),))
    ids = {"patients": "p", "ids": {"a": "(?P<patient>.)"}}
    with pytest.raises(ValidationError, match="a: has ids in two rules"):
        rules(rule("a", "b", **ids), rule("a", "c", **ids))


# --- what a recipe does ----------------------------------------------------------------------------


KNOWN = rules(rule("a", "b", wins="b"))
PAIR = [source("a"), source("b"), source("c")]


def test_a_recipe_warns_drops_or_refuses() -> None:
    warned = choose(PAIR, "any", KNOWN, "warn")
    assert [s.id for s in warned.sources] == ["a", "b", "c"]
    assert len(warned.overlaps) == 1
    gone = choose(PAIR, "any", KNOWN, "drop")
    assert [s.id for s in gone.sources] == ["b", "c"]
    assert [(entry.source, "b wins" in entry.why) for entry in gone.left_out] == [("a", True)]
    with pytest.raises(ConfigError, match="a holds the same patients as b"):
        choose(PAIR, "any", KNOWN, "refuse")


@pytest.mark.parametrize(
    ("use", "kept"),
    [("any", ["free", "alike", "unknown"]), ("share-alike", ["free", "alike"]), ("commercial", ["free"])],
)
def test_licences_filter_sources_and_unknown_is_no(use: Any, kept: list[str]) -> None:
    sources = [source("free"), source("alike", "no"), source("unknown", "unknown", "unknown")]
    choice = choose(sources, use, KNOWN, "warn")
    assert [s.id for s in choice.sources] == kept
    assert {entry.source for entry in choice.left_out} == {s.id for s in sources} - set(kept)
    assert all("its licence is CC-BY-4.0" in entry.why for entry in choice.left_out)
    assert [s.id for s in sources if allows(s.licence, use)] == kept


def test_a_source_that_the_licence_takes_out_stands_for_no_other() -> None:
    choice = choose([source("a"), source("b", "no")], "commercial", KNOWN, "drop")
    assert [s.id for s in choice.sources] == ["a"]


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no source is left; left out: a"):
        choose([source("a", "no")], "commercial", KNOWN, "warn")


def test_what_needs_acceptance() -> None:
    unresolved = Licence(id="unresolved", commercial="unknown")
    assert not needs_acceptance(source("a"))
    assert needs_acceptance(source("a", access="registration"))
    assert needs_acceptance(source("a", licence=unresolved))


@pytest.mark.parametrize(
    ("rule_of_recipe", "left_out"),
    [("warn", []), ("drop", ["left out: lits: msd-task03-liver holds the same"])],
)
def test_stats_tell_what_the_sources_of_a_dataset_share(
    tmp_path: Path, rule_of_recipe: str, left_out: list[str]
) -> None:
    for seed, name in enumerate(("lits", "msd-task03-liver")):
        lab.write_source(tmp_path, name, cases=2, seed=seed)
    recipe = lab.write_recipe(tmp_path, "lits", "msd-task03-liver")
    recipe.write_text(recipe.read_text() + f'lineage = "{rule_of_recipe}"\n')
    lab.build(recipe, tmp_path / "out")
    told = CliRunner().invoke(app, ["stats", str(tmp_path / "out")], catch_exceptions=False).stdout
    lines = [line for line in told.splitlines() if line.startswith(("overlap:", "left out:"))]
    assert lines[0] == (
        "overlap: msd-task03-liver holds the same patients as lits (joined only where voxels are equal; "
        "msd-task03-liver wins)"
    )
    assert len(lines) == 1 + len(left_out)
    assert all(line.startswith(start) for line, start in zip(lines[1:], left_out, strict=True))


# --- identity --------------------------------------------------------------------------------------


def write(folder: Path, **facts: Any) -> Path:
    files = [{"path": "a.zip", "origin": {"url": facts.pop("url", "https://example.org/a.zip")}}]
    build_kit.write_source(
        folder,
        "kits19",
        modality="ct",
        pairings=build_kit.flat_suffix(".nii", "_seg.nii"),
        image={"reader": "nifti"},
        label={"reader": "nifti", "decoder": "index"},
        labels={"1": "kidney-left"},
        files=files,
        **facts,
    )
    return build_kit.write_recipe(folder, ["kits19"])


@pytest.mark.parametrize(
    "told",
    [
        {"notes": ["better"]},
        {"evidence": ["a page"]},
        {"sa_med2d": ["KiTS"]},
        {"cases": 7},
        {"access": "agreement"},
        {"url": "https://mirror.example.org/a.zip"},
    ],
)
def test_what_only_tells_people_is_no_part_of_the_identity(told: dict[str, Any], tmp_path: Path) -> None:
    one, other = resolve(str(write(tmp_path / "a"))), resolve(str(write(tmp_path / "b", **told)))
    assert recipe_sha256(one) == recipe_sha256(other)


@pytest.mark.parametrize(
    "decides", [{"labels": {"1": "kidney-right"}}, {"errata": [{"case": "x", "reason": "bad"}]}]
)
def test_what_decides_bytes_is_part_of_the_identity(decides: dict[str, Any], tmp_path: Path) -> None:
    base = {"labels": {"1": "kidney-left"}}
    one = build_kit.write_toml(tmp_path / "one.toml", _facts() | base)
    other = build_kit.write_toml(tmp_path / "two.toml", _facts() | base | decides)
    hashes = set()
    for path in (one, other):
        recipe = build_kit.write_recipe(tmp_path, [path.stem])
        hashes.add(recipe_sha256(resolve(str(recipe))))
    assert len(hashes) == 2


def _facts() -> dict[str, Any]:
    known = load_source("synthetic-ct-phantom").model_dump(mode="json", exclude_defaults=True)
    return {name: value for name, value in known.items() if name not in {"files", "labels"}}


def test_the_rules_that_name_patients_are_part_of_the_identity(tmp_path: Path) -> None:
    facts = canonical(resolve(str(write(tmp_path))))["lineage"]
    assert facts == {"kits19": {"patients": "kits", "ids": r"(?P<patient>\d+)$"}}


# --- a build ---------------------------------------------------------------------------------------


def test_patients_of_two_editions_are_one_group(tmp_path: Path) -> None:
    """Case 1 of both is one patient in one split, though no voxel is equal."""
    for seed, name in enumerate(("kits19", "kits23")):
        for number in range(2):
            lab.write_pair(tmp_path / name, f"case_0000{number}", *lab.volume(10 * seed + number))
        text = lab.SOURCE.format(name=name, more="").replace(r"(?P<group>p\d+)", "")
        (tmp_path / f"{name}.toml").write_text(text)
    lab.build(lab.write_recipe(tmp_path, "kits19", "kits23"), tmp_path / "out")
    dataset = build_kit.Dataset(tmp_path / "out")
    rows = dataset.rows.to_pylist()
    assert {row["group"] for row in rows} == {"kits:0", "kits:1"}
    assert all(
        len({row["split"] for row in rows if row["group"] == group}) == 1 for group in ("kits:0", "kits:1")
    )

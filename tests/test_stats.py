"""``medcurate stats``: numbers against an independent count, charts that fit, a closed page."""

from __future__ import annotations

import io
import json
import math
import random
import shutil
from collections import Counter, defaultdict
from dataclasses import replace
from html.parser import HTMLParser

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from http_kit import served
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import pieces, write_dataset
from pack_kit import summarise
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from medcurate.cli.main import app
from medcurate.errors import ConfigError
from medcurate.explore import page, rows, stats
from medcurate.explore.charts import FIXED_COLOURS, MAX_BARS, Chart, colours, draw, nice_ticks
from medcurate.explore.marks import Rect, Text, compact, font, shortened, svg, text_width
from medcurate.explore.query import run
from medcurate.format.columns import MANIFEST
from medcurate.format.record import DatasetRecord
from medcurate.format.tables import table, write_table

cli = CliRunner()
NAMES = list(stats.named_queries())


@pytest.fixture(scope="module", params=[(5, 0, False), (40, 1, False), (40, 1, True)])
def dataset(request, tmp_path_factory):
    count, seed, with_summary = request.param
    folder = write_dataset(tmp_path_factory.mktemp("stats") / "demo-set", pieces(count, seed=seed))
    if with_summary:
        summarise(folder)
    return folder


@pytest.fixture(scope="module")
def masks(dataset):
    return pq.read_table(dataset / "manifest.parquet").to_pylist()


@pytest.fixture(scope="module")
def answers(dataset):
    return {answer.query.name: answer.rows for answer in stats.compute(dataset).answers}


def _distinct(masks, keys, value):
    found = defaultdict(set)
    for row in masks:
        found[tuple(row[key] for key in keys)].add(row[value])
    return {key: len(values) for key, values in found.items()}


def _counted(masks, *keys):
    return Counter(tuple(row[key] for key in keys) for row in masks)


def _column(rows_, keys, value):
    return {tuple(row[key] for key in keys): row[value] for row in rows_}


@pytest.mark.parametrize(
    ("name", "keys"),
    [("modality", ["modality"]), ("modality-organ", ["modality", "organ"]), ("sources", ["source", "split"])],
)
def test_masks_are_counted(answers, masks, name, keys):
    assert _column(answers[name], keys, "masks") == _counted(masks, *keys)


@pytest.mark.parametrize(
    ("name", "keys", "column", "of"),
    [
        ("modality", ["modality"], "images", "key"),
        ("organ-images", ["modality", "organ"], "images", "key"),
        ("sources", ["source", "split"], "images", "key"),
        ("patients", ["source", "split"], "patients", "group"),
        ("patients", ["source", "split"], "cases", "case"),
    ],
)
def test_images_and_patients_are_counted_once(answers, masks, name, keys, column, of):
    assert _column(answers[name], keys, column) == _distinct(masks, keys, of)


def test_size_bins_hold_every_mask_in_its_place(answers, masks):
    bins = answers["mask-size"]
    assert sum(row["masks"] for row in bins) == len(masks)
    for row in bins:
        inside = [
            m for m in masks
            if m["modality"] == row["modality"]
            and row["percent_from"] <= 100 * m["area_fraction"] < row["percent_to"]
        ]  # fmt: skip
        assert len(inside) == row["masks"]


def test_licences_labels_and_rejects(answers, masks):
    assert _column(answers["licences"], ["licence", "commercial"], "masks") == {
        ("CC0-1.0", "yes"): len(masks)
    }
    kinds = {
        (label, "lesion" if lesion else "structure"): count
        for (label, lesion), count in _counted(masks, "label", "lesion").items()
    }
    assert _column(answers["labels"], ["label", "kind"], "masks") == kinds
    assert answers["rejects"] == [{"reason": "CORRUPT", "stage": "read", "refused": 1}]


def test_a_remote_dataset_gives_the_same_answers(dataset):
    with served(dataset) as server:
        assert stats.compute(server.url).answers == stats.compute(dataset).answers


@pytest.mark.parametrize("first_rows", [0, 1])
def test_terms_that_the_first_rows_lack_are_found(dataset, answers, monkeypatch, first_rows):
    monkeypatch.setattr("medcurate.format.summary._FIRST_ROWS", first_rows)
    assert {answer.query.name: answer.rows for answer in stats.compute(dataset).answers} == answers


def test_totals(dataset, masks):
    totals = stats.compute(dataset).totals
    assert totals == {
        "masks": len(masks),
        "images": len({row["key"] for row in masks}),
        "sources": 1,
        "modalities": len({row["modality"] for row in masks}),
        "organs": len({row["organ"] for row in masks}),
        "refused": 1,
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_packaged_query_names_columns_that_it_returns(name, tmp_path):
    query = stats.named_queries()[name]
    answer = stats.compute(write_dataset(tmp_path, pieces(4)), [name]).answers[0]
    assert answer.rows
    assert {query.x, query.y, query.colour} - {""} <= set(answer.columns)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SELECT 1", "title is missing"),
        ("-- title: a\n-- colur: b\nSELECT 1", "colur"),
        ("-- title: a\n-- chart: pie\nSELECT 1", "pie"),
        ("-- title: a\n-- chart: bar\n-- x: b\nSELECT 1", "x, y and colour"),
        ("-- title: a\n-- order: first\nSELECT 1", "whole numbers"),
    ],
)
def test_a_wrong_query_file_is_named(text, words):
    with pytest.raises(ConfigError, match=words) as caught:
        stats.parse_query("mine", text)
    assert "manifests/queries/mine.sql" in str(caught.value)


def test_slow_queries_are_left_out_of_large_datasets_unless_named(tmp_path, monkeypatch):
    packaged = stats.named_queries()
    known = {"rejects": packaged["rejects"], "patients": replace(packaged["patients"], default_up_to=3)}
    monkeypatch.setattr(stats, "named_queries", lambda: known)
    folder = write_dataset(tmp_path, pieces(4))
    found = stats.compute(folder)
    assert [answer.query.name for answer in found.answers] == ["rejects"]
    assert "patients" in page.html(found)
    assert [a.query.name for a in stats.compute(folder, ["patients"]).answers] == ["patients"]


def test_a_dataset_without_masks_has_empty_answers(tmp_path):
    found = stats.compute(write_dataset(tmp_path, []))
    assert found.totals["masks"] == found.totals["images"] == 0
    assert page.png(found).startswith(b"\x89PNG")
    assert "None." in page.html(found)


def test_charts_are_drawn_where_all_counts_are_nothing(tmp_path):
    """As of a manifest of elsewhere, whose masks are numbered otherwise and which names no first one of an organ."""
    found = stats.compute(
        _of_masks(tmp_path, [{"source": "a", "modality": "ct", "organ": "x", "annotation": 7}])
    )
    assert "Images by source and split" in page.html(found)
    assert page.png(found).startswith(b"\x89PNG")


def test_a_column_of_the_histogram_says_its_bin_in_plain_numbers(tmp_path):
    shares = {1.0: "100% to 316%", 0.05: "3.16% to 10%", 2e-5: "0.001% to 0.00316%"}
    masks = [{"modality": "ct", "area_fraction": share} for share in shares]
    drawn = page.html(stats.compute(_of_masks(tmp_path, masks), ["mask-size"]))
    assert all(f"<title>{text}: 1 masks (ct)</title>" in drawn for text in shares.values())


@pytest.mark.parametrize(
    ("table", "names", "lacks"),
    [
        ("rejects.parquet", ["modality"], "has no summary to count (tables here: rejects)"),
        ("rejects.parquet", ["mask-size", "patients"], "has no manifest, sizes to count"),
        ("manifest.parquet", ["rejects"], "has no rejects to count (tables here: manifest)"),
        ("scores.parquet", [], "has no manifest to count (tables here: scores)"),
    ],
)
def test_what_cannot_be_counted_is_told_instead_of_nothing(tmp_path, table, names, lacks):
    folder = write_dataset(tmp_path / "set", pieces(2))
    shutil.copy(folder / "manifest.parquet", folder / "scores.parquet")
    with pytest.raises(ConfigError) as caught:
        stats.compute(folder / table, names)
    assert lacks in str(caught.value)


# from the summary that a dataset has, or from its manifest


TERMS = {
    "source": ["a", "b", "it's"],
    "split": ["train", "val"],
    "modality": ["ct", "mr"],
    "label": ["liver", "unmapped:x", None],
    "organ": ["liver", "kidney", ""],
    "lesion": [False, True],
    "licence": ["CC0-1.0", "unresolved", None],
    "commercial": [True, False, None],
    "annotation": [0, 1, 2],
    "organ_first": [False, True],
    "area_fraction": [None, 0.0, 1.0, 0.3, 0.1, 0.01, 0.001, 1e-9, 1e-300, 1e300, -0.5, math.inf, math.nan],
}


def _of_masks(folder, found):
    """A dataset that has only what statistics of masks read."""
    values = {column.name: [row.get(column.name) for row in found] for column in MANIFEST}
    write_table(folder / "manifest.parquet", MANIFEST, [table(MANIFEST, values)])
    DatasetRecord(name="made", made_by={}, sources={}, counts={}).write(folder)
    return folder


def _has_summary(folder):
    return "summary" in {row["name"] for row in run(folder, "SHOW TABLES").to_pylist()}


@pytest.mark.parametrize("count", [0, 1, 500])
def test_a_summary_gives_the_answers_that_the_manifest_gives(tmp_path, count):
    chance = random.Random(count)
    found = [{name: chance.choice(terms) for name, terms in TERMS.items()} for _ in range(count)]
    folder = _of_masks(tmp_path, found)
    counted = stats.compute(folder)
    assert counted.totals["masks"] == count
    summarise(folder)
    assert _has_summary(folder)
    assert stats.compute(folder) == counted


def test_a_label_that_rows_put_under_several_organs_has_one(tmp_path):
    found = [{"source": "a", "label": "x", "organ": organ, "annotation": 0} for organ in ("liver", "kidney")]
    folder = _of_masks(tmp_path, found)
    for _ in range(2):
        (answer,) = stats.compute(folder, ["labels"]).answers
        assert [(row["organ"], row["masks"]) for row in answer.rows] == [("kidney", 2)]
        summarise(folder)
    assert _has_summary(folder)


@pytest.mark.parametrize("where", ["folder", "url"])
def test_a_summary_is_all_that_is_read_of_the_masks(tmp_path, where):
    folder = write_dataset(tmp_path / "set", pieces(12))
    counted = stats.compute(folder)
    summarise(folder)
    names = [name for name in NAMES if name != "patients"]
    manifest = folder / "manifest.parquet"
    manifest.write_bytes(bytes(manifest.stat().st_size))  # not even its footer any more
    with served(folder) as server:
        found = stats.compute(server.url if where == "url" else folder, names)
    assert found.answers == [answer for answer in counted.answers if answer.query.name in names]


def test_of_a_url_each_file_is_asked_for_once_and_what_no_answer_needs_not_at_all(tmp_path):
    folder = write_dataset(tmp_path / "set", pieces(12))
    summarise(folder)
    names = [name for name in NAMES if name != "patients"]
    sizes = {f"/{name}.parquet": 1 for name in ("manifest", "rejects", "summary")} | {"/dataset.json": 1}
    for chosen, read in [
        (names, {"/dataset.json", "/summary.parquet", "/rejects.parquet"}),
        (["modality"], {"/dataset.json", "/summary.parquet"}),
        (["rejects"], {"/dataset.json", "/rejects.parquet"}),
        ([], {"/dataset.json", "/summary.parquet", "/rejects.parquet", "/manifest.parquet"}),
    ]:
        with served(folder) as server:
            stats.compute(server.url, chosen)
        bodies = Counter(path for path, _ in server.bodies)
        assert bodies.keys() == read
        assert max(bodies.values()) <= 2  # the footer, and the columns of the one query
        assert Counter(server.heads) == sizes


def _longer_manifest(folder):
    _of_masks(folder / "other", [{"source": "a", "label": "x", "annotation": 0}] * 7)
    (folder / "other/manifest.parquet").replace(folder / "manifest.parquet")


@pytest.mark.parametrize(
    "change",
    [
        _longer_manifest,
        lambda folder: (folder / "summary.parquet").write_bytes(b"PAR1"),
        lambda folder: (folder / "summary.parquet").unlink(),
        lambda folder: (folder / "dataset.json").unlink(),
        lambda folder: (folder / "dataset.json").write_text("{"),
        lambda folder: (folder / "dataset.json").write_text('{"format_version": 2}'),
    ],
)
@pytest.mark.parametrize("where", ["folder", "url"])
def test_a_summary_that_is_not_known_to_be_the_manifests_is_not_read(tmp_path, change, where):
    folder = write_dataset(tmp_path / "set", pieces(12))
    summarise(folder)
    change(folder)
    masks = pq.read_metadata(folder / "manifest.parquet").num_rows
    with served(folder) as server:
        found = stats.compute(server.url if where == "url" else folder)
    assert not _has_summary(folder)
    assert found.totals["masks"] == masks
    assert sum(row["masks"] for row in found.answers[0].rows) == masks


@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.99])
def test_a_damaged_summary_is_not_read(tmp_path, part):
    folder = write_dataset(tmp_path / "set", pieces(12))
    counted = stats.compute(folder)
    summarise(folder)
    data = bytearray((folder / "summary.parquet").read_bytes())
    data[int(part * len(data))] ^= 0x55
    (folder / "summary.parquet").write_bytes(data)
    assert stats.compute(folder) == counted


def test_a_summary_by_itself_answers_what_it_can(tmp_path):
    folder = write_dataset(tmp_path / "set", pieces(12))
    summarise(folder)
    whole = {answer.query.name: answer for answer in stats.compute(folder).answers}
    found = stats.compute(folder / "summary.parquet")
    assert {answer.query.name: answer for answer in found.answers} == {
        name: answer for name, answer in whole.items() if name not in {"patients", "rejects"}
    }
    assert found.totals["images"] == 12


def test_a_file_that_is_no_manifest_is_told_in_one_line(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "rows.parquet")
    with pytest.raises(ConfigError, match="not found in FROM clause") as caught:
        stats.compute(tmp_path / "rows.parquet")
    assert "\n" not in str(caught.value)


CATEGORIES = st.lists(
    st.tuples(st.text("abcW -", min_size=0, max_size=40), st.sampled_from(["ct", "mr", "x<y>", "oct", ""]),
              st.integers(1, 10**9)),
    min_size=1, max_size=60,
)  # fmt: skip


def _boxes(drawing):
    for mark in drawing.marks:
        if isinstance(mark, Text):
            width = font(mark.size).getlength(mark.text)
            left = mark.x - {"start": 0, "middle": width / 2, "end": width}[mark.anchor]
            yield left, mark.y - mark.size / 2 + 1, left + width, mark.y + mark.size / 2 - 1


def _overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@settings(max_examples=40, deadline=None)
@given(CATEGORIES)
def test_bars_fit_their_drawing_and_labels_never_overlap(entries):
    data = [{"organ": organ, "modality": modality, "masks": masks} for organ, modality, masks in entries]
    drawing = draw(Chart(kind="stacked-bar", title="t", x="organ", y="masks", colour="modality", rows=data))
    boxes = list(_boxes(drawing))
    assert all(box[0] >= -0.5 and box[2] <= drawing.width + 0.5 for box in boxes)
    assert all(box[1] >= -1 and box[3] <= drawing.height + 1 for box in boxes)
    assert not any(_overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
    bars = [mark for mark in drawing.marks if isinstance(mark, Rect) and mark.tip]
    assert all(bar.x + bar.width <= drawing.width for bar in bars)
    assert len({bar.y for bar in bars}) == min(len({organ for organ, _, _ in entries}), MAX_BARS) - (
        len({organ for organ, _, _ in entries}) > MAX_BARS
    )


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.integers(-10, 3), st.integers(1, 10**8), min_size=1))
def test_a_histogram_shows_every_bin_to_scale(bins):
    data = [{"from": 10 ** (half / 2), "modality": "ct", "masks": masks} for half, masks in bins.items()]
    drawing = draw(Chart(kind="histogram", title="t", x="from", y="masks", colour="modality", rows=data))
    columns = sorted((mark for mark in drawing.marks if isinstance(mark, Rect)), key=lambda mark: mark.x)
    wanted = [bins[half] for half in sorted(bins)]
    assert [c.height / columns[0].height for c in columns] == pytest.approx([w / wanted[0] for w in wanted])
    boxes = list(_boxes(drawing))
    assert not any(_overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(box[0] >= -0.5 and box[2] <= drawing.width + 0.5 for box in boxes)


@given(st.floats(0.5, 1e12))
def test_ticks_are_round_and_reach_the_largest_value(largest):
    ceiling, ticks = nice_ticks(largest)
    assert ceiling >= largest
    assert ticks[0] == 0
    assert math.isclose(ticks[-1], ceiling)
    assert 2 <= len(ticks) <= 6
    assert ceiling - largest < ticks[1]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1k"),
        (1250, "1.2k"),
        (999_960, "1M"),
        (12_345_678, "12.3M"),
        (2e9, "2G"),
    ],
)
def test_compact_numbers(number, text):
    assert compact(number) == text


@given(st.text("iWm. ", max_size=60), st.floats(30, 300))
def test_shortened_text_fits(text, width):
    found = shortened(text, width)
    assert text_width(found) <= width
    assert found == text or found.endswith("…")


def test_a_term_has_one_colour_whatever_else_is_there():
    assert colours("modality", ["mr", "ct"])["ct"] == colours("modality", ["ct", "oct", "lab"])["ct"]
    everything = colours("modality", [*FIXED_COLOURS["modality"]])
    assert len(set(everything.values())) == len(everything) == 11
    assert len(set(colours("modality", ["ct", "lab-a", "lab-b"]).values())) == 3


class _Page(HTMLParser):
    """Collects tags with attributes, and the text of cells and of chart titles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_page_asks_for_nothing_and_repeats(dataset):
    text = page.html(stats.compute(dataset))
    assert text == page.html(stats.compute(dataset))
    parsed = _Page(text)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in parsed.tags}
    assert not {"src", "href", "onload", "onclick"} & {name for _, attrs in parsed.tags for name in attrs}
    assert "url(" not in text
    assert "@import" not in text
    policy = [a["content"] for t, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert "prefers-color-scheme: dark" in text


def test_every_chart_has_a_name_for_screen_readers_and_its_numbers_as_a_table(dataset):
    parsed = _Page(page.html(stats.compute(dataset)))
    identifiers = {attrs.get("id") for tag, attrs in parsed.tags if tag == "title"}
    charts = [attrs for tag, attrs in parsed.tags if tag == "svg"]
    assert charts
    assert all(c["role"] == "img" and c["aria-labelledby"] in identifiers for c in charts)
    assert len([tag for tag, _ in parsed.tags if tag == "table"]) >= len(charts)


def test_text_of_a_dataset_is_escaped(tmp_path):
    nasty = "<script>alert(1)</script>&"
    odd = [replace(p, key=p.key.replace("demo", nasty)) for p in pieces(2)]
    found = stats.compute(write_dataset(tmp_path / "<b>set", odd))
    text = page.html(found)
    assert "<script" not in text
    assert "<b>set" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in text
    drawing = draw(Chart(kind="bar", title=nasty, x="a", y="n", colour="a", rows=[{"a": nasty, "n": 3}]))
    assert "<script" not in svg(drawing, "x")


def test_the_picture_repeats_and_is_not_empty(dataset):
    found = stats.compute(dataset)
    data = page.png(found)
    assert data == page.png(stats.compute(dataset))
    image = Image.open(io.BytesIO(data))
    assert image.width > 2000
    assert len(image.getcolors(1 << 20)) > 10


def test_the_command_writes_what_it_is_asked_for(dataset, tmp_path):
    files = [tmp_path / "s.html", tmp_path / "s.png"]
    arguments = ["stats", str(dataset), "--html", str(files[0]), "--png", str(files[1]), "--json"]
    result = cli.invoke(app, arguments)
    assert result.exit_code == 0
    assert files[0].read_text().startswith("<!doctype html>")
    assert files[1].read_bytes().startswith(b"\x89PNG")
    found = json.loads(result.stdout)
    assert list(found["queries"]) == NAMES
    assert found["queries"]["modality"]["rows"][0]["masks"] > 0


def test_a_wrong_name_lists_the_known_ones(dataset):
    with pytest.raises(ConfigError, match=r"organs.*modality-organ"):
        stats.compute(dataset, ["organs"])


def test_a_query_without_rows_is_told_in_a_line_instead_of_an_empty_table():
    query = stats.named_queries()["rejects"]
    found = stats.Statistics("set", {}, [stats.Answer(query, ("reason", "stage", "refused"), [])], [])
    console = Console(file=io.StringIO(), width=100)
    rows.show_statistics(found, whole=False, console=console)
    assert console.file.getvalue().splitlines()[2:] == ["Refused, by reason and stage: none"]


def test_the_terminal_shows_thousands_and_says_what_it_leaves_out():
    query = replace(stats.named_queries()["modality"], name="mine")
    many = [{"modality": f"[b]{i}", "masks": 1_234_567 - i} for i in range(20)]
    found = stats.Statistics(
        "set", {"masks": 9_876_543}, [stats.Answer(query, ("modality", "masks"), many)], []
    )
    console = Console(file=io.StringIO(), width=100)
    rows.show_statistics(found, whole=False, console=console)
    text = console.file.getvalue()
    assert "9,876,543 masks" in text
    assert "1,234,567" in text
    assert "[b]0" in text
    assert "8 more rows: --name mine" in text

"""An evaluation from dataset to tables: what is asked, what is scored, who leaks, what is written."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from answering import answering, block, every_checkpoint_is, recipe_of, write_run, write_tiny_recipe
from kit import Piece, pieces, write_dataset
from PIL import Image
from pycocotools import mask as coco
from surface_distance import compute_surface_dice_at_tolerance, compute_surface_distances
from typer.testing import CliRunner

from medcurate.cli.main import app
from medcurate.errors import ConfigError, OutputError
from medcurate.explore.query import run as query
from medcurate.format.sample import decode
from medcurate.format.shards import read_sample
from medcurate.job.grid import Grid
from medcurate.stages.orient import orientation
from medcurate.train.evaluation import run as running
from medcurate.train.evaluation import work as working
from medcurate.train.evaluation.asked import Asked, parse_prompts
from medcurate.train.evaluation.columns import FACTS, PREDICTIONS, SCORES, VOLUME_FACTS, VOLUMES
from medcurate.train.evaluation.interaction import Asking, ask, draw_keys, to_replay
from medcurate.train.evaluation.run import Options, evaluate
from medcurate.train.evaluation.scoring import filled_boxes, visible
from medcurate.train.geometry import frame_of, place_masks
from medcurate.train.loop.checkpoint import GROUPS_FILE, RUN_FILE
from medcurate.train.model.build import build_sam
from medcurate.train.model.checkpoint import save_original
from medcurate.train.prediction.loading import load_trained
from medcurate.train.prompts.record import read_records

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "dataset", pieces(32, size=48))


def scored(
    monkeypatch: pytest.MonkeyPatch, dataset: Path, out: Path, trained=None, **options
) -> running.Evaluation:
    """``evaluate`` with a model that answers with its box."""
    model = trained or answering()
    every_checkpoint_is(monkeypatch, model)
    return evaluate(Options(data=str(dataset), checkpoint="x", out=out, **options))


def truth_of(dataset: Path) -> dict[tuple[str, int], np.ndarray]:
    found = {}
    for row in pq.read_table(dataset / "manifest.parquet").to_pylist():
        with open(dataset / row["shard"], "rb") as stream:
            blob = read_sample(stream.fileno(), row["offset"], row["size"], row["digest"])
        found[row["key"], row["annotation"]] = decode(blob).masks[row["annotation"]]
    return found


def test_there_is_one_row_a_mask_and_prompt_that_query_reads(monkeypatch, dataset, tmp_path) -> None:
    out = tmp_path / "scores"
    scored(monkeypatch, dataset, out, prompts="box,1,3")
    masks = query(dataset, "SELECT count(*) AS n FROM manifest WHERE split = 'test'")["n"][0].as_py()
    found = query(
        out, "SELECT prompt, count(*) AS n, count(DISTINCT (key, annotation)) AS m FROM scores GROUP BY ALL"
    )
    assert {(row["prompt"], row["n"], row["m"]) for row in found.to_pylist()} == {
        (name, masks, masks) for name in ("box", "1 point", "3 points")
    }
    assert query(out, "SELECT count(*) AS n FROM predictions")["n"][0].as_py() == 4 * masks
    assert query(out, "SELECT count(*) AS n FROM volumes")["n"][0].as_py() > 0
    with pytest.raises(ConfigError, match=r"tables here: .*scores, volumes"):
        query(out, "SELECT * FROM manifest")


def test_scores_are_those_of_the_saved_predictions(monkeypatch, dataset, tmp_path) -> None:
    """Against pycocotools' masks, numpy and surface-distance, from the files alone."""
    out = tmp_path / "scores"
    scored(monkeypatch, dataset, out, prompts="box,2")
    truth = truth_of(dataset)
    predicted = {
        (row["prompt"], row["key"], row["annotation"]): coco.decode({
            "size": [48, 48],
            "counts": row["counts"].encode(),
        }).astype(bool)
        for row in query(out, "SELECT * FROM predictions WHERE model <> 'truth'").to_pylist()
    }
    rows = query(out, "SELECT * FROM scores").to_pylist()
    assert len(rows) == len(predicted)
    for row in rows:
        mine, own = (
            truth[row["key"], row["annotation"]],
            predicted[row["prompt"], row["key"], row["annotation"]],
        )
        assert row["dice"] == pytest.approx(2 * (mine & own).sum() / (mine.sum() + own.sum()))
        assert row["iou"] == pytest.approx((mine & own).sum() / (mine | own).sum())
        assert row["predicted_px"] == own.sum()
        expected = compute_surface_dice_at_tolerance(compute_surface_distances(mine, own, (0.5, 1.0)), 1.0)
        assert row["nsd"] == pytest.approx(expected if own.any() else 0.0)
        assert row["nsd_px"] is None
    assert {row["prompt"] for row in rows if row["dice"] > 0.5} >= {"box"}


@pytest.mark.parametrize(
    ("size", "step", "fit"), [(48, 4, "sam-med2d"), (96, 6, "resize"), (48, 6, "pad"), (96, 6, "sam-med2d")]
)
def test_predictions_come_back_to_the_original_pixels(monkeypatch, tmp_path, size, step, fit) -> None:
    """A rectangle on the low-resolution grid is found again whole, scaled, padded or centred."""
    masks = np.stack([block((size, size), 2 * step, 3 * step, 6 * step, 7 * step)])
    piece = Piece("demo--case003--z0000", np.zeros((size, size), np.uint8), masks, "test")
    dataset = write_dataset(tmp_path / "dataset", [piece])
    trained = answering(fit=fit)
    found = scored(monkeypatch, dataset, tmp_path / "scores", trained, prompts="box")
    (row,) = [row for row in found.rows if row.by == "all"]
    assert row.dice > 0.98  # its corners are rounded off; a shift by one pixel would give 0.93


def test_volumes_join_the_slices_of_a_label(monkeypatch, tmp_path) -> None:
    """Dice of all voxels is not the mean of the slices' Dice."""
    large, small = block((48, 48), 8, 8, 40, 40), block((48, 48), 8, 8, 16, 16)
    samples = [
        Piece(f"demo--case003--z{index:04d}", np.zeros((48, 48), np.uint8), np.stack([mask]), "test")
        for index, mask in enumerate([large, small, large])
    ]
    dataset = write_dataset(tmp_path / "dataset", samples)
    out = tmp_path / "scores"
    scored(monkeypatch, dataset, out, prompts="1")
    slices = query(out, "SELECT dice, area_px, predicted_px FROM scores").to_pylist()
    (volume,) = query(out, "SELECT * FROM volumes").to_pylist()
    both = sum(row["dice"] * (row["area_px"] + row["predicted_px"]) for row in slices)
    assert volume["dice"] == pytest.approx(both / sum(row["area_px"] + row["predicted_px"] for row in slices))
    assert (volume["slices"], volume["masks"], volume["label"]) == (3, 3, "liver")
    assert volume["nsd"] is None  # these samples do not say how far slices are apart
    assert volume["dice"] != pytest.approx(np.mean([row["dice"] for row in slices]), abs=1e-3)


def test_slices_of_one_volume_that_differ_in_size_are_refused_before_any_model_is_asked(
    monkeypatch, tmp_path
) -> None:
    heights = {"case001": (48, 40, 48), "case003": (48, 48)}
    samples = [
        Piece(f"demo--{case}--z{index:04d}", np.zeros((height, 48), np.uint8), mask[None], "test")
        for case in heights
        for index, height in enumerate(heights[case])
        for mask in [block((height, 48), 8, 8, 20, 20)]
    ]
    dataset = write_dataset(tmp_path / "dataset", samples)
    out = tmp_path / "scores"
    with pytest.raises(
        ConfigError, match=r"/manifest\.parquet: slices of one volume have one size"
    ) as refused:
        scored(monkeypatch, dataset, out, prompts="box")
    text = str(refused.value)
    assert "case case001 of source demo along z are of 40 x 48 and 48 x 48 pixels" in text
    assert not out.exists()
    *_, where = shlex.split(text[text.index("--where") :])  # as it is told
    scored(monkeypatch, dataset, out, prompts="box", where=where)
    assert query(out, "SELECT masks FROM volumes")["masks"].to_pylist() == [2]


def test_a_condition_that_is_none_is_named_as_it_was_given(monkeypatch, dataset, tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"^--where 'organ ='"):
        scored(monkeypatch, dataset, tmp_path / "scores", where="organ =")


def test_patients_that_were_trained_on_are_refused_unless_told(monkeypatch, dataset, tmp_path) -> None:
    rows = query(
        dataset, "SELECT \"group\" AS patient, count(*) AS n FROM manifest WHERE split = 'test' GROUP BY ALL"
    )
    patient, count = rows["patient"][0].as_py(), rows["n"][0].as_py()
    trained = answering(groups=frozenset({patient, "demo:another"}))
    with pytest.raises(
        ConfigError, match=f"1 of {len(rows)} patients and {count} of .*{patient}.*--allow-leaks"
    ):
        scored(monkeypatch, dataset, tmp_path / "scores", trained, prompts="box")
    found = scored(monkeypatch, dataset, tmp_path / "scores", trained, prompts="box", allow_leaks=True)
    assert (found.leaks["answering"].patients, found.leaks["answering"].masks) == (1, count)
    leaking = query(tmp_path / "scores", 'SELECT DISTINCT "group" AS patient FROM scores WHERE leaked')
    assert leaking["patient"].to_pylist() == [patient]
    record = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert record["leaks"]["answering"]["masks"] == count
    assert "empty" in record["empty_masks"]


def test_a_checkpoint_that_does_not_say_its_patients_is_scored_and_told(
    monkeypatch, dataset, tmp_path
) -> None:
    found = scored(monkeypatch, dataset, tmp_path / "scores", prompts="box")
    assert not found.leaks["answering"].known
    assert query(tmp_path / "scores", "SELECT count(leaked) AS n FROM scores")["n"][0].as_py() == 0


def test_batches_change_nothing_and_a_seed_changes_points(monkeypatch, dataset, tmp_path) -> None:
    def rows(name: str, **options) -> list[dict]:
        scored(monkeypatch, dataset, tmp_path / name, prompts="box,1,4", **options)
        return query(tmp_path / name, "SELECT * FROM scores ORDER BY prompt, key, annotation").to_pylist()

    once = rows("a", masks_at_once=1)
    assert once == rows("b", masks_at_once=7) == rows("c")
    assert once != rows("d", seed=1)


def test_saved_prompts_can_be_given_again(monkeypatch, dataset, tmp_path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    scored(monkeypatch, dataset, first, prompts="box,1,3")
    replay = first / "prompts.parquet"
    scored(monkeypatch, dataset, second, prompts="box,1,3", seed=9, replay=replay)
    for table in ("scores", "prompts", "predictions"):
        assert query(first, f"SELECT * FROM {table}") == query(second, f"SELECT * FROM {table}")
    with pytest.raises(ConfigError, match="points number 3"):
        scored(monkeypatch, dataset, second, prompts="5", replay=replay)


def test_means_of_masks_patients_and_labels_are_what_they_say(monkeypatch, dataset, tmp_path) -> None:
    out = tmp_path / "scores"
    found = scored(monkeypatch, dataset, out, prompts="box")
    for row in found.rows:
        where = "true" if row.by == "all" else f"{row.by} = '{row.value}'"
        inner = f"SELECT avg(dice) AS d FROM scores WHERE {where}"
        assert row.dice == pytest.approx(query(out, inner)["d"][0].as_py())
        for column, mean in (('"group"', row.dice_per_patient), ("label", row.dice_per_label)):
            text = f"SELECT avg(d) AS m FROM ({inner} GROUP BY {column})"
            assert mean == pytest.approx(query(out, text)["m"][0].as_py())
    assert {row.by for row in found.rows} == {"all", "source", "modality", "organ"}


def test_a_filled_box_and_an_untrained_model_stand_beside(dataset, tmp_path) -> None:
    weights = weights_in(tmp_path, "sam.pth", 1)
    picture = tmp_path / "sheet.png"
    result = CliRunner().invoke(
        app,
        ["evaluate", str(dataset), "--checkpoint", str(weights), "--recipe", str(tmp_path / "recipe.toml"),
         "--prompts", "box,1", "--against", "filled-box", "--against", "untrained", "--out", str(tmp_path / "scores"),
         "--picture", str(picture), "--device", "cpu"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "filled-box" in result.output
    assert "does not say which patients" in result.output.replace("\n", " ")
    models = query(tmp_path / "scores", "SELECT DISTINCT model FROM scores")["model"].to_pylist()
    assert sorted(models) == ["filled-box", "sam", "untrained"]
    boxes = {name: box for name, mask in truth_of(dataset).items() for box in filled_boxes(mask[None])}
    rows = query(tmp_path / "scores", "SELECT * FROM scores WHERE model = 'filled-box'").to_pylist()
    truth = truth_of(dataset)
    for row in rows:
        name = (row["key"], row["annotation"])
        assert row["dice"] == pytest.approx(2 * truth[name].sum() / (truth[name].sum() + boxes[name].sum()))
    with Image.open(picture) as image:
        assert image.width == (2 + 2 + 2) * 236 + 12


def test_an_untrained_model_is_of_the_runs_own_recipe(dataset, tmp_path) -> None:
    write_run(tmp_path / "run")
    evaluate(
        Options(
            data=str(dataset),
            checkpoint=str(tmp_path / "run"),
            out=tmp_path / "scores",
            prompts="box",
            against=("untrained",),
        )
    )
    models = query(tmp_path / "scores", "SELECT DISTINCT model FROM scores")["model"].to_pylist()
    assert sorted(models) == ["run/step-00000007", "untrained"]


def weights_in(folder: Path, name: str, seed: int) -> Path:
    """A file of random weights, with its train recipe beside it."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(seed)
    save_original(build_sam(recipe_of(64).model), folder / name)
    write_tiny_recipe(folder)
    return folder / name


def test_models_of_one_name_stay_apart(dataset, tmp_path) -> None:
    one, other = weights_in(tmp_path / "a", "truth.pth", 1), weights_in(tmp_path / "b", "truth.pth", 2)
    recipe = str(tmp_path / "a/recipe.toml")
    common = {"data": str(dataset), "recipe": recipe, "prompts": "box"}
    both = evaluate(Options(**common, checkpoint=str(one), against=(str(other),), out=tmp_path / "both"))
    names = ["truth (2)", "truth (3)"]  # the plain name is that of the dataset's own masks
    assert list(both.leaks) == names
    record = json.loads((tmp_path / "both/scores.json").read_text())
    assert record["models"] == dict(zip(names, (str(one), str(other)), strict=True))
    for name, path in zip(names, (one, other), strict=True):
        evaluate(Options(**common, checkpoint=str(path), out=tmp_path / "alone"))
        for table in ("scores", "predictions", "volumes"):
            text = f"SELECT * EXCLUDE model FROM {table} WHERE model = '{{}}'"
            assert query(tmp_path / "both", text.format(name)) == query(
                tmp_path / "alone", text.format(names[0])
            )


def test_another_run_is_of_its_own_recipe(dataset, tmp_path) -> None:
    weights = weights_in(tmp_path / "a", "sam.pth", 1)
    run = write_run(tmp_path / "run", side=32)
    evaluate(
        Options(
            data=str(dataset), checkpoint=str(weights), recipe=str(tmp_path / "a/recipe.toml"), prompts="box",
            against=(str(run),), out=tmp_path / "both",
        )
    )  # fmt: skip
    evaluate(Options(data=str(dataset), checkpoint=str(run), prompts="box", out=tmp_path / "alone"))
    text = "SELECT * FROM scores WHERE model = 'run/step-00000007'"
    assert query(tmp_path / "both", text) == query(tmp_path / "alone", text)


def test_all_models_are_found_fit_before_one_is_asked(dataset, tmp_path, monkeypatch) -> None:
    """And before an earlier evaluation in the same folder is touched."""
    run, out = write_run(tmp_path / "run"), tmp_path / "scores"
    options = Options(data=str(dataset), checkpoint=str(run), prompts="box", out=out)
    evaluate(options)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    patients = query(dataset, 'SELECT DISTINCT "group" AS patient FROM manifest')["patient"].to_pylist()
    leaking = write_run(tmp_path / "leaking", groups=patients)
    (tmp_path / "damaged.pth").write_bytes(b"x")
    monkeypatch.setattr(working, "samples", lambda *_: pytest.fail("a model was asked"))
    for last, message in (
        (tmp_path / "absent", "no checkpoint here"),
        (tmp_path / "damaged.pth", "damaged"),
        (leaking, "--allow-leaks"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluate(replace(options, against=("filled-box", str(last)), seed=1))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


# --- loading ---------------------------------------------------------------------------------------


def test_a_checkpoint_folder_loads_with_its_recipe_patients_and_rules(tmp_path: Path) -> None:
    recipe = recipe_of(64)
    torch.manual_seed(3)
    sam = build_sam(recipe.model)
    folder = tmp_path / "run" / "checkpoints" / "step-00000007"
    folder.mkdir(parents=True)
    save_original(sam, folder / "model.safetensors")
    (folder / "state.json").write_text("{}")
    facts = {
        "recipe": recipe.model_dump(mode="json"),
        "intensity": {"ct": {"rule": "clip", "low": 0, "high": 1}},
    }
    (tmp_path / "run" / RUN_FILE).write_text(json.dumps(facts))
    (tmp_path / "run" / GROUPS_FILE).write_text('["demo:a"]')
    for path in (tmp_path / "run", folder, folder / "model.safetensors"):
        found = load_trained(path, device="cpu")
        assert (found.name, found.groups) == ("run/step-00000007", frozenset({"demo:a"}))
        assert found.intensity["ct"]["rule"] == "clip"
        assert all(
            torch.equal(value, found.sam.state_dict()[name]) for name, value in sam.state_dict().items()
        )
    (tmp_path / "run" / RUN_FILE).unlink()
    with pytest.raises(ConfigError, match=r"run\.json is not with it; give --recipe"):
        load_trained(folder, device="cpu")


@pytest.mark.parametrize(
    ("name", "recipe", "message"),
    [
        ("absent", "", "no checkpoint here"),
        ("a.pth", "", "give --recipe"),
        ("a.pth", "sam-med2d", "no such checkpoint"),
    ],
)
def test_what_cannot_be_loaded_is_said(tmp_path: Path, name: str, recipe: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_trained(tmp_path / name, recipe=recipe, device="cpu")


# --- prompts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "box,box", "0", "boxes", "1,3,1", "51", "-1"])
def test_wrong_prompts_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--prompts"):
        parse_prompts(text)


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        (["--picture", "scores"], {}, "--picture scores: the picture is written as .png"),
        (["--tolerance", "inf"], {}, "--tolerance inf: give a number of millimetres"),
        ([], {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2"}, "run it without torchrun"),
    ],
)
def test_mistakes_of_the_command_are_said(
    dataset, tmp_path, monkeypatch, words: list[str], environment: dict, message: str
) -> None:
    run = str(write_run(tmp_path / "run"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "scores"
    done = CliRunner().invoke(app, ["evaluate", str(dataset), "--checkpoint", run, "--out", str(out), *words])
    assert isinstance(done.exception, ConfigError)
    assert message in str(done.exception)
    assert not out.exists()


def test_a_picture_that_cannot_be_written_is_told_before_anything_is_scored(dataset, tmp_path) -> None:
    run, picture = str(write_run(tmp_path / "run")), tmp_path / "sheet.png"
    picture.mkdir()
    with pytest.raises(OutputError, match=r"sheet\.png: is a folder"):
        evaluate(Options(data=str(dataset), checkpoint=run, out=tmp_path / "scores", picture=picture))
    assert not (tmp_path / "scores").exists()


def test_prompts_are_parsed() -> None:
    assert parse_prompts("5, 1,box") == Asked(True, (1, 5))
    assert parse_prompts("box,1,3").names == ("box", "1 point", "3 points")


def _asking(trained, masks: np.ndarray) -> Asking:
    names = [("key", number) for number in range(len(masks))]
    return Asking(
        trained.sam.encode(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)),
        torch.zeros(len(masks), dtype=torch.int64),
        torch.from_numpy(masks),
        draw_keys(0, names),
        names,
    )


def test_boxes_have_no_jitter_and_points_add_up_in_the_error() -> None:
    trained = answering(box={"jitter": {"rule": "shift", "pixels": 5}})
    masks = np.stack([block((64, 64), 10, 20, 40, 50), block((64, 64), 4, 4, 8, 8)])
    answers = list(ask(trained, _asking(trained, masks), Asked(True, (1, 3))))
    assert [answer.prompt for answer in answers] == ["box", "1 point", "3 points"]
    box, *turns = trained.sam.asked
    assert box.boxes.tolist() == [[10, 20, 39, 49], [4, 4, 7, 7]]
    assert [turn.points.shape[1] for turn in turns] == [1, 2, 3]
    assert [turn.mask_logits is None for turn in turns] == [True, False, False]
    for turn in turns:
        assert turn.boxes is None
        for points, labels, mask in zip(turn.points.long(), turn.point_labels, masks, strict=True):
            given = [
                (bool(mask[y, x]), label)
                for (x, y), label in zip(points.tolist(), labels.tolist(), strict=True)
            ]
            assert all(inside == (label == 1) for inside, label in given if label >= 0)
    assert torch.equal(turns[1].points[:, :1], turns[0].points)


def test_records_of_an_evaluation_are_read_back(tmp_path: Path, monkeypatch, dataset) -> None:
    scored(monkeypatch, dataset, tmp_path / "scores", prompts="box,2")
    records = read_records(tmp_path / "scores" / "prompts.parquet")
    assert len(to_replay(records)) == len(records)
    assert {(one.kind, one.turn, one.feedback) for one in records} == {
        ("box", 0, False), ("point", 0, False), ("correction", 1, True),
    }  # fmt: skip


def test_a_mask_that_scaling_empties_can_still_be_asked_for() -> None:
    masks = np.stack([block((640, 640), 331, 77, 332, 78), block((640, 640), 0, 0, 300, 300)])
    frame = frame_of(640, 640, 64, "resize")
    squares = place_masks(masks, frame)
    assert not squares[0].any()
    found = visible(masks, squares, frame)
    assert np.argwhere(found[0]).tolist() == [[7, 33]]
    assert np.array_equal(found[1], place_masks(masks, frame)[1])


# --- volumes and documents ---------------------------------------------------------------------------


def test_surface_distance_in_3d_is_that_of_the_stacked_slices(monkeypatch, tmp_path) -> None:
    samples = [
        Piece(f"demo--case003--z{index:04d}", np.zeros((48, 48), np.uint8), np.stack([mask]), "test")
        for index, mask in enumerate(block((48, 48), 8 + z, 9, 30, 33 - z) for z in range(4))
    ]
    dataset = write_dataset(tmp_path / "dataset", samples)
    read = working.samples
    monkeypatch.setattr(
        working, "samples", lambda *to: (replace(one, slice_spacing_mm=0.8) for one in read(*to))
    )
    out = tmp_path / "scores"
    scored(monkeypatch, dataset, out, prompts="2")
    texts = query(out, "SELECT counts FROM predictions WHERE prompt = '2 points' ORDER BY key")[
        "counts"
    ].to_pylist()
    predicted = np.stack([coco.decode({"size": [48, 48], "counts": text.encode()}) > 0 for text in texts])
    truth = np.concatenate([piece.masks for piece in samples])
    expected = compute_surface_dice_at_tolerance(
        compute_surface_distances(truth, predicted, (0.8, 0.5, 1.0)), 1.0
    )
    (volume,) = query(out, "SELECT nsd, dice FROM volumes").to_pylist()
    assert volume["nsd"] == pytest.approx(expected)
    assert 0 < volume["nsd"] < 1
    assert set(query(out, "SELECT DISTINCT slice_spacing_mm AS s FROM scores")["s"].to_pylist()) == {0.8}


def test_a_volumes_grid_says_how_far_slices_are_apart() -> None:
    affine = np.diag([0.5, 0.7, 3.0, 1.0])
    grid = Grid((4, 4, 4), affine, orientation(affine), None)
    assert [grid.slice_spacing_mm(axis) for axis in ("x", "y", "z")] == [0.5, 0.7, 3.0]
    assert Grid((4, 4), None, None, (1.0, 1.0)).slice_spacing_mm(None) is None


@pytest.mark.parametrize(
    ("columns", "skipped"), [(SCORES, FACTS), (VOLUMES, VOLUME_FACTS), (PREDICTIONS, ())]
)
def test_the_document_lists_every_column_as_it_is(columns, skipped) -> None:
    text = (Path(__file__).parents[1] / "docs" / "train.md").read_text(encoding="utf-8")
    rows = [f"| `{c.name}` | {c.type} | {c.meaning} |" for c in columns if c.name not in skipped]
    assert "\n".join(rows) in text
    assert all(f"`{name}`" in text for name in skipped)

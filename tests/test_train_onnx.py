"""``medcurate export``: ONNX files run by onnxruntime against the model, SAM's own layout, what cannot be exported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from answering import TINY, block, write_tiny_recipe
from safetensors.torch import load_file
from sam_kit import images_of, randomised
from typer.testing import CliRunner, Result

from medcurate.cli.main import app
from medcurate.errors import ConfigError
from medcurate.tables import check_model
from medcurate.train.config.recipe import TrainRecipe
from medcurate.train.evaluation.asked import Asked
from medcurate.train.evaluation.interaction import Asking, ask, draw_keys
from medcurate.train.export import run as exporting
from medcurate.train.export.onnx import export_decoder, export_encoder
from medcurate.train.loop.checkpoint import GROUPS_FILE, RUN_FILE
from medcurate.train.model.build import build_sam
from medcurate.train.model.checkpoint import save_original
from medcurate.train.model.sam import Sam
from medcurate.train.prediction.loading import load_trained
from medcurate.train.prompts.record import PromptRecord
from medcurate.train.types import Prompts

INTENSITY = {"ct": {"rule": "clip", "low": -500, "high": 1000}}


def recipe_of(feedback: str = "logits", **model: object) -> TrainRecipe:
    value = {
        "name": "test",
        "title": "Test",
        "model": {"trainable": ["mask-decoder"], **model},
        "data": {"fit": "pad"},
        "prompts": {"box": {"end": "after"}},
        "steps": {"method": "interactive", "multimask": False, "feedback": feedback},
        "run": {"epochs": 1},
    }
    return check_model(value, TrainRecipe, "test")


def run_of(folder: Path, recipe: TrainRecipe) -> Sam:
    """A run in ``folder`` with one checkpoint, and its model."""
    sam = randomised(build_sam(recipe.model)).eval()
    save_original(sam, folder / "checkpoints/step-00000007/model.safetensors")
    facts = {"recipe": recipe.model_dump(mode="json"), "intensity": INTENSITY}
    (folder / RUN_FILE).write_text(json.dumps(facts))
    (folder / GROUPS_FILE).write_text("[]")
    return sam


SMALL = {"kind": "tiny", "dims": TINY, "image_side": 64, "adapter": "sam-med2d"}


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, Sam]:
    return tmp_path / "run", run_of(tmp_path / "run", recipe_of(**SMALL))


def exported(*words: object) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, words)])


def ran(path: Path, **inputs: torch.Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {name: value.numpy() for name, value in inputs.items()})


def assert_exports_equal(sam: Sam, folder: Path, batches: tuple[int, ...], tolerance: float) -> None:
    """What lies in ``folder`` is ``sam``."""
    for batch in batches:
        images = images_of(batch, sam.side)
        (embeddings,) = ran(folder / "encoder.onnx", images=images)
        with torch.no_grad():
            np.testing.assert_allclose(embeddings, sam.encode(images).numpy(), atol=tolerance)
    assert_decoder_equals(sam, folder / "decoder.onnx", torch.from_numpy(embeddings), tolerance)


def assert_decoder_equals(sam: Sam, path: Path, embeddings: torch.Tensor, tolerance: float) -> None:
    """Boxes and points, with and without a mask, a mask alone, one prompt and several."""
    last = len(embeddings) - 1
    side = sam.side
    for rows in (torch.tensor([last]), torch.tensor([last, 0, 0, last, 0])):
        count = len(rows)
        boxes = torch.rand(count, 4) * side
        points, labels = torch.rand(count, 3, 2) * side, torch.randint(0, 2, (count, 3))
        masks = torch.randn(count, 1, side // 4, side // 4) * 3
        absent = (torch.zeros(count, 1, 2), torch.full((count, 1), -1))
        as_points = (boxes.view(-1, 2, 2), torch.tensor([2, 3]).expand(count, 2))
        cases = [
            (Prompts(boxes=boxes), *as_points, False),
            (Prompts(boxes=boxes, mask_logits=masks), *as_points, True),
            (Prompts(points=points, point_labels=labels), torch.cat([points, absent[0]], 1),
             torch.cat([labels, absent[1]], 1), False),
            (Prompts(mask_logits=masks), points[:, :0], labels[:, :0], True),
        ]  # fmt: skip
        for prompts, positions, kinds, has_mask in cases:
            logits, iou = ran(
                path, embeddings=embeddings, image_of_prompt=rows, points=positions,
                point_kinds=kinds, mask_logits=masks, has_mask=torch.full((count,), has_mask),
            )  # fmt: skip
            for multimask, chosen in ((False, slice(0, 1)), (True, slice(1, None))):
                with torch.no_grad():
                    expected = sam.decode(embeddings, rows, prompts, multimask)
                np.testing.assert_allclose(logits[:, chosen], expected[0].numpy(), atol=tolerance)
                np.testing.assert_allclose(iou[:, chosen], expected[1].numpy(), atol=tolerance)


def test_onnx_files_equal_the_model(run: tuple[Path, Sam], tmp_path: Path) -> None:
    folder, sam = run
    result = exported(folder, "--format", "onnx", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""  # the exporter's own talk
    names = ["decoder.onnx", "encoder.onnx", "model.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert_exports_equal(sam, tmp_path / "out", (1, 3), 2e-5)
    assert json.loads((tmp_path / "out/model.json").read_text()) == {
        "checkpoint": "run/step-00000007", "image_side": 64, "fit": "pad", "interpolation": "linear",
        "padding": [124, 116, 104], "box_end": "after", "multimask": False, "feedback": "logits",
        "intensity": INTENSITY,
    }  # fmt: skip


@pytest.mark.parametrize("feedback", ["logits", "probabilities"])
def test_what_onnx_files_say_leads_to_the_masks_that_were_scored(tmp_path: Path, feedback: str) -> None:
    """Points one by one, each with the mask of the turn before, as an evaluation gives them."""
    sam = run_of(tmp_path / "run", recipe_of(feedback, **SMALL))
    assert exported(tmp_path / "run", "--format", "onnx", "-o", tmp_path / "out").exit_code == 0
    about = json.loads((tmp_path / "out/model.json").read_text())
    names = [("key", 0)]
    given: list[PromptRecord] = []
    with torch.no_grad():
        embeddings = sam.encode(images_of(1, 64))
        truth = torch.from_numpy(block((64, 64), 10, 20, 40, 50))[None]
        asking = Asking(embeddings, torch.zeros(1, dtype=torch.int64), truth, draw_keys(0, names), names)
        trained = load_trained(tmp_path / "run", device="cpu")
        scored = list(ask(trained, asking, Asked(False, (1, 2, 3)), witness=given.extend))
    mask = torch.zeros(1, 1, 16, 16)
    for turn, answer in zip(given, scored, strict=True):
        logits, _ = ran(
            tmp_path / "out/decoder.onnx", embeddings=embeddings, image_of_prompt=torch.tensor([0]),
            points=torch.tensor([[*turn.points, (0, 0)]], dtype=torch.float32),
            point_kinds=torch.tensor([[*turn.labels, -1]]), mask_logits=mask,
            has_mask=torch.tensor([turn.feedback]),
        )  # fmt: skip
        low_res = torch.from_numpy(logits[:, :1])
        np.testing.assert_allclose(low_res, answer.low_res, atol=1e-4)
        mask = low_res.sigmoid() if about["feedback"] == "probabilities" else low_res


@pytest.mark.parametrize(
    ("words", "there"),
    [((), "sam.pth"), (("-o", "b.pth"), "b.pth"), (("--format", "onnx"), "sam-onnx/encoder.onnx")],
)
def test_what_is_there_is_not_overwritten(tmp_path, monkeypatch, words, there) -> None:
    """By default, the name may be that of the file that is read."""
    monkeypatch.chdir(tmp_path)
    recipe = write_tiny_recipe(tmp_path)
    save_original(randomised(build_sam(recipe_of(**SMALL).model)), Path("sam.pth"))
    if there != "sam.pth":
        Path(there).parent.mkdir(exist_ok=True)
        Path(there).write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    result = exported("sam.pth", "--recipe", recipe, *words)
    assert isinstance(result.exception, ConfigError)
    assert f"{Path(there).parts[0]}: is there already" in str(result.exception)
    assert "-o" in str(result.exception)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_weights_are_written_in_sams_own_layout(run: tuple[Path, Sam], tmp_path, monkeypatch, kind) -> None:
    folder, sam = run
    monkeypatch.chdir(tmp_path)
    result = exported(folder, "--format", kind)
    assert result.exit_code == 0, result.output
    (path,) = tmp_path.glob(f"*.{kind}")
    assert path.name == f"run-step-00000007.{kind}"
    found = load_file(path) if kind == "safetensors" else torch.load(path, weights_only=True)["model"]
    assert found.keys() == sam.state_dict().keys()
    assert all(torch.equal(value, found[name]) for name, value in sam.state_dict().items())
    again = load_trained(path, recipe=write_tiny_recipe(tmp_path), device="cpu").sam
    with torch.no_grad():
        assert torch.equal(again.encode(images_of(1, 64)), sam.encode(images_of(1, 64)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--format", "onnx", "-o", "model.onnx"), "give a folder"),
        (("--format", "pth", "-o", "model.onnx"), "its name ends in .pth"),
    ],
)
def test_a_name_that_does_not_fit_the_format_is_refused(
    run: tuple[Path, Sam], tmp_path, monkeypatch, words, message
) -> None:
    monkeypatch.chdir(tmp_path)
    result = exported(run[0], *words)
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)
    assert not list(tmp_path.glob("model.*"))


def test_a_model_too_large_for_one_file_is_refused_before_anything_is_written(
    run: tuple[Path, Sam], tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(exporting, "_ONNX_BYTES", 1000)
    result = exported(run[0], "--format", "onnx", "-o", tmp_path / "out")
    assert "an ONNX file holds 2 GiB" in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter about itself
def test_exports_of_vit_b_equal_the_model(tmp_path: Path) -> None:
    sam = randomised(build_sam(recipe_of(adapter="sam-med2d").model)).eval()
    export_encoder(sam, tmp_path / "encoder.onnx")
    export_decoder(sam, tmp_path / "decoder.onnx")
    assert_exports_equal(sam, tmp_path, (2,), 1e-3)

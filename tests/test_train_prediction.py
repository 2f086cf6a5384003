"""Prediction from files: coordinates, intensity, slices, what is written; and the predictor's calls."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pytest
import torch
from answering import answering, block
from dicom_kit import series, written
from sam_kit import randomised
from typer.testing import CliRunner

from medcurate.cli.main import app
from medcurate.config.recipe import Clip, Percentiles, Rgb, Window
from medcurate.errors import ConfigError, OutputError
from medcurate.format import png
from medcurate.prediction import run as running
from medcurate.prediction.inputs import read_subject
from medcurate.prediction.intensity import choose_rule, parse_rule
from medcurate.prediction.run import Options, predict
from medcurate.train.config.objective import Interactive
from medcurate.train.evaluation.asked import Asked
from medcurate.train.evaluation.interaction import Asking, ask, draw_keys
from medcurate.train.loop.world import device_of, joined
from medcurate.train.model.build import build_sam
from medcurate.train.prediction.loading import Trained
from medcurate.train.prediction.predictor import NoImageError, Predictor
from medcurate.train.prediction.slices import box_around, largest_region, through_slices
from medcurate.train.prompts.record import PromptRecord
from medcurate.train.types import Prompts

torch.set_num_threads(1)
RULES = {"ct": {"rule": "clip", "low": -500, "high": 1000}, "default": {"rule": "minmax"}}


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Trained:
    """The model that every checkpoint is: it fills the box."""
    trained = answering(64, "pad")
    monkeypatch.setattr(running.Predictor, "from_checkpoint", classmethod(lambda cls, *_, **__: cls(trained)))
    return trained


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * (one & other).sum() / (one.sum() + other.sum())


# --- the predictor ---------------------------------------------------------------------------------


def test_answers_have_the_shapes_and_values_of_the_model() -> None:
    """Against the model called by hand, on an image that needs no scaling."""
    recipe = answering(64).recipe
    torch.manual_seed(0)
    sam = build_sam(recipe.model).eval()
    predictor = Predictor(Trained(sam=sam, recipe=recipe, name="random"))
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    predictor.set_image(image)
    given = {"point_coords": [[3, 5], [40, 41]], "point_labels": [1, 0], "box": [2, 4, 50, 60]}
    logits, iou, low_res = predictor.predict(**given, return_logits=True)
    prompts = Prompts(
        points=torch.tensor([[[3.0, 5], [40, 41]]]), point_labels=torch.tensor([[1, 0]]),
        boxes=torch.tensor([[2.0, 4, 50, 60]]),
    )  # fmt: skip
    with torch.no_grad():
        embedding = sam.encode(torch.from_numpy(image.transpose(2, 0, 1)[None].copy()))
        mine, mine_iou = sam.decode(embedding, torch.zeros(1, dtype=torch.int64), prompts, True)
    np.testing.assert_allclose(low_res, mine[0], atol=1e-5)
    np.testing.assert_allclose(iou, mine_iou[0], atol=1e-5)
    assert (logits.shape, iou.shape, low_res.shape) == ((3, 64, 64), (3,), (3, 16, 16))
    masks, _, again = predictor.predict(**given, multimask_output=False, mask_input=low_res[:1])
    assert masks.shape == (1, 64, 64)
    assert masks.dtype == np.bool_
    assert not np.allclose(again, predictor.predict(**given, multimask_output=False)[2])


@pytest.mark.parametrize("feedback", ["logits", "probabilities"])
def test_a_mask_is_given_back_as_the_model_was_trained_to_take_it(feedback: str) -> None:
    """The second turn of an evaluation, by hand."""
    plain = answering(64).recipe
    steps = Interactive(method="interactive", feedback=feedback, multimask=False)
    recipe = plain.model_copy(update={"steps": steps})
    sam = randomised(build_sam(recipe.model)).eval()
    trained = Trained(sam=sam, recipe=recipe, name="random")
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    names = [("key", 0)]
    with torch.no_grad():
        asking = Asking(
            sam.encode(torch.from_numpy(image.transpose(2, 0, 1)[None].copy())),
            torch.zeros(1, dtype=torch.int64),
            torch.from_numpy(block((64, 64), 10, 20, 40, 50))[None],
            draw_keys(0, names),
            names,
        )
        given: list[PromptRecord] = []
        first, second = ask(trained, asking, Asked(False, (1, 2)), witness=given.extend)
    predictor = Predictor(trained)
    predictor.set_image(image)
    last = given[-1]
    answers = {
        feeding: predictor.predict(last.points, last.labels, mask_input=mask, multimask_output=False)[2]
        for feeding, mask in (("as it was", first.low_res[0].numpy()), ("none", None))
    }
    np.testing.assert_allclose(answers["as it was"], second.low_res[0], atol=1e-4)
    assert not np.allclose(answers["none"], second.low_res[0], atol=1e-2)


def test_coordinates_are_those_of_the_image() -> None:
    predictor = Predictor(answering(64, "pad"))
    predictor.set_image(np.zeros((128, 96), np.uint8))
    masks, iou = predictor.predict_boxes([[24, 32, 71, 95], [8, 8, 23, 23]])
    assert masks.shape == (2, 128, 96)
    assert iou.tolist() == pytest.approx([0.9, 0.9])
    assert dice(masks[0], block((128, 96), 24, 32, 72, 96)) > 0.97
    assert dice(masks[1], block((128, 96), 8, 8, 24, 24)) > 0.9


def test_wrong_calls_are_refused() -> None:
    predictor = Predictor(answering())
    with pytest.raises(NoImageError, match="set_image"):
        predictor.predict(box=[0, 0, 5, 5])
    with pytest.raises(NoImageError, match="set_volume"):
        predictor.set_slice(0)
    with pytest.raises(ValueError, match="not float64"):
        predictor.set_image(np.zeros((8, 8)))
    predictor.set_image(np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match="give points"):
        predictor.predict()
    with pytest.raises(ValueError, match="go with"):
        predictor.predict(point_coords=[[1, 2]], point_labels=[1, 1])
    with pytest.raises(ValueError, match=r"mask_input is one mask .* not \(3, 16, 16\)"):
        predictor.predict(box=[0, 0, 5, 5], mask_input=np.zeros((3, 16, 16)))
    predictor.set_volume(np.zeros((2, 8, 8), np.uint8))
    with pytest.raises(IndexError, match="slice 2 of 2"):
        predictor.set_slice(2)


# --- slices ----------------------------------------------------------------------------------------


class Following(Predictor):
    """Marks what is bright inside of the box, as a good model would."""

    def predict_boxes(self, boxes):
        ((x0, y0, x1, y1),) = np.asarray(boxes, int)
        mask = np.zeros(self._volume.shape[1:], np.bool_)
        mask[y0 : y1 + 1, x0 : x1 + 1] = True
        mask &= self._volume[self.index] > 100
        return mask[None], np.array([0.2 if self.index == 11 else 0.9], np.float32)

    def set_slice(self, index: int) -> None:
        self.index = index


def test_an_object_is_followed_while_it_is_there() -> None:
    """A tube that moves 2 pixels a slice, from slice 3 on; slice 11 is one that the model does not trust."""
    truth = np.stack([block((64, 64), 2 * z, 10, 2 * z + 8, 20) for z in range(16)])
    truth[:3] = False
    predictor = Following(answering())
    predictor.set_volume((truth * 200).astype(np.uint8))
    told: list[int] = []
    found = through_slices(predictor, 6, truth[6], margin_px=3, min_iou=0.5, advance=told.append)
    assert np.array_equal(found[:11], truth[:11])
    assert not found[11:].any()
    assert sum(told) == 3 + 4


def test_a_speck_beside_the_object_does_not_stretch_the_next_box() -> None:
    truth = np.stack([block((64, 64), 2 * z, 10, 2 * z + 8, 20) for z in range(8)])
    seen = truth | block((64, 64), 40, 40, 64, 64)  # another organ, in all slices
    first = truth[4].copy()
    first[50, 50] = True
    predictor = Following(answering())
    predictor.set_volume((seen * 200).astype(np.uint8))
    found = through_slices(predictor, 4, first, margin_px=3)
    assert np.array_equal(found[4], first)
    assert np.array_equal(np.delete(found, 4, axis=0), np.delete(truth, 4, axis=0))


def test_the_largest_region_of_a_mask() -> None:
    one, two = block((20, 30), 4, 6, 10, 9), block((20, 30), 20, 2, 29, 9)
    assert np.array_equal(largest_region(one | two), two)
    assert np.array_equal(largest_region(one), one)
    assert not largest_region(one & two).any()
    corner = block((20, 30), 10, 9, 12, 11)  # touches ``one`` diagonally
    assert np.array_equal(largest_region(one | corner), one | corner)


def test_the_box_of_a_mask() -> None:
    assert box_around(block((20, 30), 4, 6, 10, 9)) == (4, 6, 9, 8)
    assert box_around(block((20, 30), 0, 6, 30, 20), 4) == (0, 2, 29, 19)
    assert box_around(np.zeros((4, 4), np.bool_)) is None


# --- files -----------------------------------------------------------------------------------------


def test_a_picture_gives_a_png_and_an_overlay(model, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "image.png"), image[..., ::-1])
    result = CliRunner().invoke(
        app,
        ["predict", str(tmp_path / "image.png"), "--checkpoint", "x", "--box", "8,16,39,47",
         "-o", str(tmp_path / "mask.png"), "--overlay", str(tmp_path / "overlay.png")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    mask = png.decode((tmp_path / "mask.png").read_bytes())
    assert set(np.unique(mask)) == {0, 255}
    assert dice(mask > 0, block((64, 48), 8, 16, 40, 48)) > 0.98
    assert np.array_equal(
        model.sam.images[0][0, :, :, :48].numpy(), image.transpose(2, 0, 1)
    )  # rgb: as it is
    overlay = cv2.imread(str(tmp_path / "overlay.png"))
    assert overlay.shape[:2] == (64 * 12, 48 * 12)
    assert "object 1" in result.output


def test_several_boxes_are_several_objects(model, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "image.png"), np.zeros((64, 64), np.uint8))
    options = Options(
        path=tmp_path / "image.png", checkpoint="x", out=tmp_path / "mask.png",
        boxes=((4, 4, 19, 19), (40, 40, 59, 59)),
    )  # fmt: skip
    done = predict(options)
    mask = png.decode((tmp_path / "mask.png").read_bytes())
    assert set(np.unique(mask)) == {0, 1, 2}
    assert (mask[10, 10], mask[50, 50]) == (1, 2)
    assert done.pixels == ((mask == 1).sum(), (mask == 2).sum())


def test_numbers_of_objects_do_not_depend_on_what_is_found(model, tmp_path: Path) -> None:
    """Of two boxes on one place the later one stands; of the same two with nothing in one, the other keeps its own."""
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), np.zeros((64, 64), np.uint8))
    model.sam.decode = lambda embeddings, which, prompts, multimask: (
        torch.where(prompts.boxes[:, 0] < 30, 9.0, -9.0)[:, None, None, None].expand(-1, 1, 16, 16),
        torch.ones(len(which), 1),
    )
    predict(Options(path=path, checkpoint="x", out=tmp_path / "m.png", boxes=((4, 4, 9, 9), (40, 4, 50, 9))))
    assert set(np.unique(png.decode((tmp_path / "m.png").read_bytes()))) == {1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": Path("ct.nii")}, "ct.nii: is the image itself"),
        ({"out": Path("link.nii")}, "link.nii: is the image itself"),
        ({"overlay": Path("look.jpg")}, "look.jpg: the picture is written as .png"),
        ({"path": Path("p.png"), "overlay": Path("p.png")}, "p.png: is the image itself"),
        (
            {"path": Path("p.png"), "out": Path("m.png"), "overlay": Path("./m.png")},
            "where the mask is written",
        ),
    ],
)
def test_nothing_takes_the_place_of_the_image_or_the_mask(
    model, tmp_path: Path, monkeypatch, options: dict, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    nibabel.save(nibabel.Nifti1Image(np.arange(2880.0).reshape(24, 20, 6), np.eye(4)), "ct.nii")
    Path("link.nii").symlink_to("ct.nii")
    cv2.imwrite("p.png", np.zeros((64, 64), np.uint8))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    given = {"path": Path("ct.nii"), "slice_index": 1, "axis": "z", "intensity": "minmax"}
    if "path" in options:
        given = {}
    with pytest.raises(ConfigError, match=message):
        predict(Options(**{"checkpoint": "x", "boxes": ((0, 0, 9, 9),), **given, **options}))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("which", ["out", "overlay"])
@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("full/m.png", "full is a file, where a folder is needed"),
        ("folder.png", "is a folder"),
        ("locked/new/m.png", "Permission denied"),
    ],
)
def test_a_place_that_takes_no_file_is_told_before_the_work(
    model, tmp_path: Path, monkeypatch, which: str, place: str, message: str
) -> None:
    cv2.imwrite(str(tmp_path / "p.png"), np.zeros((64, 64), np.uint8))
    (tmp_path / "full").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "locked").mkdir()
    access = os.access  # root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "locked" and access(path, mode))
    monkeypatch.setattr(running.Predictor, "set_volume", lambda *_: pytest.fail("worked"))
    given = {"out": tmp_path / "free.png", which: tmp_path / place}
    with pytest.raises(OutputError, match=f"{place}: .*{message}"):
        predict(Options(path=tmp_path / "p.png", checkpoint="x", boxes=((0, 0, 9, 9),), **given))


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, -1, 1), (-1, 1, -1)])
@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_a_volume_gives_nifti_on_its_own_grid(
    model, tmp_path: Path, axis: str, flips: tuple[int, ...]
) -> None:
    """A box drawn where a dataset shows the object marks the object's own voxels, whatever the orientation."""
    voxels = np.zeros((64, 64, 64), np.int16)
    voxels[4:20, 16:28, 36:56] = 300
    affine = np.diag([*(1.5 * np.array(flips)), 1.0])
    affine[:3, 3] = 10, 20, 30
    nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "volume.nii.gz")
    subject = read_subject(tmp_path / "volume.nii.gz", axis=axis, of_training=RULES, modality="ct")
    bright = subject.stack > subject.stack.min()
    index = int(np.flatnonzero(bright.any(axis=(1, 2)))[3])
    predict(
        Options(path=tmp_path / "volume.nii.gz", checkpoint="x", out=tmp_path / "mask.nii.gz", axis=axis,
                slice_index=index, boxes=(box_around(bright[index]),), one_slice=True, intensity="clip:-500:1000")
    )  # fmt: skip
    written = nibabel.load(tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(written.affine, affine)
    mask = np.asarray(written.dataobj) == 1
    assert mask.shape == voxels.shape
    plane = "xyz".index(axis)
    (marked,) = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {plane})))
    assert dice(mask.take(marked, plane), voxels.take(marked, plane) > 0) > 0.97


def test_the_grey_is_that_of_the_training_data(tmp_path: Path) -> None:
    voxels = np.linspace(-1000, 2000, 24 * 20 * 6).reshape(24, 20, 6).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "ct.nii")
    found = read_subject(tmp_path / "ct.nii", axis="z", modality="ct", of_training=RULES)
    expected = np.floor((voxels.astype(float).clip(-500, 1000) + 500) / 1500 * 255 + 0.5)
    assert np.array_equal(found.as_stored(found.stack), expected)
    other = read_subject(tmp_path / "ct.nii", axis="z", of_training=RULES)
    assert not np.array_equal(other.stack, found.stack)


def test_a_dicom_series_is_a_volume(model, tmp_path: Path) -> None:
    """Also a part of one: its numbers begin at 3, and a build would ask for the planes before."""
    voxels = np.random.default_rng(0).integers(0, 900, (24, 20, 5)).astype(np.uint16)
    planes = series(voxels)
    for number, plane in enumerate(planes, start=3):
        plane.InstanceNumber = number
    written(tmp_path, planes)
    out = tmp_path / "out" / "mask.nii.gz"
    predict(
        Options(
            path=tmp_path, checkpoint="x", out=out, intensity="minmax", slice_index=2, boxes=((2, 3, 9, 12),)
        )
    )
    mask = nibabel.load(out)
    assert mask.shape == voxels.shape
    # LPS of the files, (0.6, 0.8, 2.5) mm from (-10, -20, 30), is RAS with x and y turned round.
    expected = [[-0.6, 0, 0, 10], [0, -0.8, 0, 20], [0, 0, 2.5, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(mask.affine, expected, atol=1e-5)
    # Axial planes are shown with columns to the patient's left and rows to the back: as these files store them.
    assert dice(np.asarray(mask.dataobj)[:, :, 2].T > 0, block((20, 24), 2, 3, 10, 13)) > 0.8


def test_dicom_files_may_be_named_by_their_uids(model, tmp_path: Path, monkeypatch) -> None:
    """Which end in a number. The folder that one is in has no name of its own in "."."""
    folder = tmp_path / "series"
    folder.mkdir()
    written(folder, series(np.random.default_rng(0).integers(0, 900, (24, 20, 5)).astype(np.uint16)))
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / f"1.2.840.10008.{number}")
    (folder / "notes.txt").write_text("no plane")
    monkeypatch.chdir(folder)
    given = {"checkpoint": "x", "intensity": "minmax", "boxes": ((2, 3, 9, 12),)}
    assert predict(Options(path=Path(), slice_index=2, **given)).written == (Path("series-mask.nii.gz"),)
    alone = predict(Options(path=Path("1.2.840.10008.3"), axis="z", **given))  # its only slice
    assert alone.written == (Path("1.2.840.10008.3-mask.nii.gz"),)
    assert nibabel.load(alone.written[0]).shape == (24, 20, 1)
    Path("README").write_text("may be a plane, by its name")
    with pytest.raises(ConfigError, match="README: is no DICOM file"):
        predict(Options(path=Path(), slice_index=2, **given))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "at least one --box"),
        ({"boxes": ((0, 0, 9, 9),)}, "say with --slice"),
        ({"boxes": ((0, 0, 9, 9),), "slice_index": 6}, "has 6 slices along z"),
        ({"boxes": ((9, 0, 0, 9),), "slice_index": 1}, "--box 9,0,0,9"),
        ({"points": ((50, 0),), "slice_index": 1}, "--point 50,0"),
        ({"points": ((5, 0),), "boxes": ((0, 0, 9, 9),) * 2}, "points belong to one object"),
        (
            {"boxes": ((0, 0, 9, 9),), "slice_index": 1, "out": Path("mask.png")},
            r"written as \.nii or \.nii\.gz",
        ),
        ({"boxes": ((0, 0, 9, 9),), "slice_index": 1, "axis": "q"}, '--axis "q"'),
        ({"boxes": ((0, 0, 9, 9),), "slice_index": 1, "intensity": ""}, "give --intensity"),
        ({"path": Path("absent.nii"), "boxes": ((0, 0, 9, 9),)}, "no such file"),
        ({"path": Path("frames.nii"), "boxes": ((0, 0, 9, 9),)}, "2 values a voxel, frames or channels"),
    ],
)
def test_mistakes_are_said(model, tmp_path: Path, options: dict, message: str) -> None:
    nibabel.save(nibabel.Nifti1Image(np.arange(2880.0).reshape(24, 20, 6), np.eye(4)), tmp_path / "ct.nii")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6, 2)), np.eye(4)), tmp_path / "frames.nii")
    given = {"path": tmp_path / "ct.nii", "checkpoint": "x", "intensity": "minmax", "axis": "z"}
    if "path" in options:
        options["path"] = tmp_path / options["path"]
    with pytest.raises(ConfigError, match=message):
        predict(Options(**{**given, **options}))


def test_points_choose_an_object(model, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "image.png"), np.zeros((64, 64), np.uint8))
    args = ["predict", str(tmp_path / "image.png"), "--checkpoint", "x", "-o", str(tmp_path / "m.png")]
    result = CliRunner().invoke(app, [*args, "--point", "5,6,0", "--point", "30,32"])
    assert result.exit_code == 0, result.output
    assert model.sam.asked[0].point_labels.tolist() == [[0, 1]]
    assert png.decode((tmp_path / "m.png").read_bytes())[32, 30] == 255
    for wrong in ("5", "5,6,2", "a,b"):
        found = CliRunner().invoke(app, [*args, "--point", wrong])
        assert isinstance(found.exception, ConfigError)


# --- intensity -------------------------------------------------------------------------------------


def test_rules_are_written_on_the_command_line() -> None:
    assert parse_rule("clip:-500:1000") == Clip(rule="clip", low=-500, high=1000)
    assert parse_rule("window:40:400") == Window(rule="window", level=40, width=400)
    assert parse_rule("percentiles:0.5:99.5:nonzero") == Percentiles(
        rule="percentiles", low=0.5, high=99.5, voxels="nonzero"
    )
    assert parse_rule("rgb") == Rgb(rule="rgb")


@pytest.mark.parametrize(
    "text", ["clip", "clip:1", "clip:5:1", "clip:a:b", "gamma:2", "clip:1:2:3", "minmax:1"]
)
def test_wrong_rules_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--intensity"):
        parse_rule(text)


def test_the_rule_is_the_stated_one_or_that_of_the_training_data() -> None:
    assert choose_rule("rgb", "ct", RULES, picture=False).rule == "rgb"
    assert choose_rule("", "ct", RULES, picture=True).rule == "clip"
    assert choose_rule("", "us", RULES, picture=True).rule == "minmax"
    assert choose_rule("", "", {}, picture=True).rule == "rgb"
    with pytest.raises(ConfigError, match="one of ct"):
        choose_rule("", "", {"ct": RULES["ct"]}, picture=False)
    with pytest.raises(ConfigError, match="give --intensity"):
        choose_rule("", "ct", {}, picture=False)


def test_a_modality_that_is_none_takes_no_grey_of_others(model, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "image.png"), np.zeros((64, 64), np.uint8))
    args = ["predict", str(tmp_path / "image.png"), "--checkpoint", "x", "-o", str(tmp_path / "m.png")]
    for given, right in (("CT", False), ("ultrasonic", False), ("ct", True)):
        result = CliRunner().invoke(app, [*args, "--box", "8,8,40,40", "--modality", given])
        assert (result.exit_code == 0) is right
        if not right:
            assert f'--modality "{given}" is unknown; known: ct, ' in str(result.exception)
    with pytest.raises(ConfigError, match='none for "us"'):
        choose_rule("", "us", {"ct": RULES["ct"]}, picture=False)


def test_prediction_uses_no_more_cores_than_it_was_given(model, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.zeros((64, 64), np.uint8))
    seen: list[int] = []
    decode = model.sam.decode
    monkeypatch.setattr(model.sam, "decode", lambda *to: seen.append(torch.get_num_threads()) or decode(*to))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        predict(Options(path=path, checkpoint="x", boxes=((8, 8, 40, 40),), out=tmp_path / "m.png"))
    finally:
        torch.set_num_threads(before)
    assert seen == [1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tpu", 'device "tpu" is unknown; known: auto, cpu, cuda'),
        pytest.param(
            "cuda",
            "there is no GPU here that torch can use; give --device cpu",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_training_and_prediction_name_devices_alike(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        device_of(name)
    with pytest.raises(ConfigError, match=message), joined(name):
        pass

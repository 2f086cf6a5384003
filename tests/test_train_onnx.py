"""The exported files run by onnxruntime against the model: other batches, numbers of prompts and of points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from sam_kit import SMALL, images_of, randomised, small_sam

from medcurate.train.config.model import ModelTable
from medcurate.train.export.onnx import export_decoder, export_encoder
from medcurate.train.model.build import build_sam
from medcurate.train.model.sam import Sam
from medcurate.train.types import Prompts


def ran(path: Path, **inputs: torch.Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {name: value.numpy() for name, value in inputs.items()})


def assert_exports_equal(sam: Sam, folder: Path, batches: tuple[int, ...], tolerance: float) -> None:
    export_encoder(sam, folder / "encoder.onnx")
    for batch in batches:
        images = images_of(batch, sam.side)
        (embeddings,) = ran(folder / "encoder.onnx", images=images)
        with torch.no_grad():
            np.testing.assert_allclose(embeddings, sam.encode(images).numpy(), atol=tolerance)
    export_decoder(sam, folder / "decoder.onnx")
    assert_decoder_equals(sam, folder / "decoder.onnx", torch.from_numpy(embeddings), tolerance)
    assert sorted(path.name for path in folder.iterdir()) == ["decoder.onnx", "encoder.onnx"]


def assert_decoder_equals(sam: Sam, path: Path, embeddings: torch.Tensor, tolerance: float) -> None:
    """Boxes and points, with and without a mask, one prompt and several."""
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


@pytest.mark.filterwarnings("ignore")  # of the exporter about itself
def test_exports_equal_the_model(tmp_path: Path) -> None:
    dims = SMALL.model_copy(update={"depth": 2})  # a block with windows and one without
    assert_exports_equal(small_sam(64, dims, adapter="sam-med2d"), tmp_path, (1, 3), 2e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_exports_of_vit_b_equal_the_model(tmp_path: Path) -> None:
    sam = randomised(build_sam(ModelTable(adapter="sam-med2d", trainable=("adapters",))))
    assert_exports_equal(sam, tmp_path, (2,), 1e-3)

"""``Predictor``: an image is set once, then prompts are given, as with segment-anything's ``SamPredictor``."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from medcurate.train.geometry import PADDING, frame_of, place_image, restore_logits, to_square
from medcurate.train.prediction.loading import Trained, load_trained
from medcurate.train.steps.player import fed_back
from medcurate.train.types import Frame, Prompts

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
_LOGITS_AN_EMBEDDING = 4  # low-resolution logits along a side of one vector of the embedding


class NoImageError(RuntimeError):
    """``predict`` was called before ``set_image``."""


class Predictor:
    """Masks of one image at a time. Source of the calls: segment-anything, predictor.py.

    Images are uint8 with the intensity rule of the training data already applied (``medcurate predict`` does that for
    files); volumes are stacks of such images.
    """

    def __init__(self, trained: Trained) -> None:
        self.trained = trained
        self._sam = trained.sam
        self._frame: Frame | None = None
        self._embedding: torch.Tensor | None = None
        self._volume: npt.NDArray[np.uint8] | None = None

    @classmethod
    def from_checkpoint(cls, path: str | Path, *, recipe: str = "", device: str = "auto") -> Self:
        """Load ``path`` as ``load_trained`` does. Raises ConfigError."""
        return cls(load_trained(path, recipe=recipe, device=device))

    @torch.inference_mode()
    def set_image(self, image: npt.NDArray[np.uint8]) -> None:
        """Take uint8 (H, W) grey or (H, W, 3) RGB and compute its embedding. Raises ValueError for anything else."""
        if image.dtype != np.uint8 or image.ndim not in {2, 3} or image.shape[2:] not in {(), (3,)}:
            raise ValueError(f"an image is uint8 (H, W) or (H, W, 3), not {image.dtype} {image.shape}")
        side, data = self._sam.side, self.trained.recipe.data
        frame = frame_of(image.shape[0], image.shape[1], side, data.fit)
        square = np.empty((3, side, side), np.uint8)
        padding = PADDING[self.trained.recipe.model.channel_order]
        place_image(np.ascontiguousarray(image), frame, data.interpolation, square, padding)
        self._embedding = self._sam.encode(torch.from_numpy(square)[None].to(self._device))
        self._frame = frame

    def set_volume(self, stack: npt.NDArray[np.uint8]) -> None:
        """Take planes, uint8 (n, H, W) or (n, H, W, 3), for ``set_slice``; nothing is computed yet."""
        if stack.dtype != np.uint8 or stack.ndim not in {3, 4} or stack.shape[3:] not in {(), (3,)}:
            raise ValueError(f"a volume is uint8 (n, H, W) or (n, H, W, 3), not {stack.dtype} {stack.shape}")
        self._volume = stack

    def set_slice(self, index: int) -> None:
        """Set plane ``index`` of the volume as the image. Raises NoImageError, IndexError."""
        if self._volume is None:
            raise NoImageError("set_volume must be called first")
        if not 0 <= index < len(self._volume):
            raise IndexError(f"slice {index} of {len(self._volume)}")
        self.set_image(self._volume[index])

    @property
    def volume_shape(self) -> tuple[int, int, int]:
        """(n, H, W) of the volume. Raises NoImageError."""
        if self._volume is None:
            raise NoImageError("set_volume must be called first")
        count, height, width = self._volume.shape[:3]
        return count, height, width

    def predict(
        self,
        point_coords: npt.ArrayLike | None = None,
        point_labels: npt.ArrayLike | None = None,
        box: npt.ArrayLike | None = None,
        mask_input: npt.ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[Bools | Floats, Floats, Floats]:
        """Masks for one object.

        ``point_coords`` (P, 2) as (x, y) and ``box`` (4,) as (x0, y0, x1, y1), in pixels of the image;
        ``point_labels`` (P,): 1 inside, 0 outside; ``mask_input`` (1, S/4, S/4): low-resolution logits of an earlier
        answer, which the model is given as its recipe's ``steps.feedback`` says. Returns masks bool (M, H, W) (logits
        float32 with ``return_logits``), predicted IoU float32 (M,) and low-resolution logits float32 (M, S/4, S/4),
        with M = 3 if ``multimask_output``, else 1.
        Raises NoImageError, and ValueError where nothing is given or shapes do not fit.
        """
        prompts = self._prompts(
            None if point_coords is None else np.asarray(point_coords, np.float32)[None],
            None if point_labels is None else np.asarray(point_labels, np.int64)[None],
            None if box is None else np.asarray(box, np.float32).reshape(1, 4),
            None if mask_input is None else np.asarray(mask_input, np.float32)[None],
        )
        logits, iou, low_res = self._decoded(prompts, 1, multimask_output)
        masks = logits[0].cpu().numpy()
        return masks if return_logits else masks > 0, iou[0].cpu().numpy(), low_res[0].cpu().numpy()

    def predict_boxes(self, boxes: npt.ArrayLike) -> tuple[Bools, Floats]:
        """The best mask of each box: bool (N, H, W) and predicted IoU (N,). ``boxes`` (N, 4) as in ``predict``."""
        given = np.asarray(boxes, np.float32).reshape(-1, 4)
        multimask = self.trained.recipe.steps.multimask
        logits, iou, _ = self._decoded(self._prompts(None, None, given, None), len(given), multimask)
        best = iou.argmax(dim=1)
        rows = torch.arange(len(given), device=best.device)
        return (logits[rows, best] > 0).cpu().numpy(), iou[rows, best].cpu().numpy()

    @property
    def _device(self) -> torch.device:
        return self._sam.pixel_mean.device

    @property
    def _set(self) -> tuple[Frame, torch.Tensor]:
        if self._frame is None or self._embedding is None:
            raise NoImageError("set_image must be called before predict")
        return self._frame, self._embedding

    @torch.inference_mode()
    def _decoded(
        self, prompts: Prompts, count: int, multimask: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        frame, embedding = self._set
        which = torch.zeros(count, dtype=torch.int64, device=self._device)
        low_res, iou = self._sam.decode(embedding, which, prompts, multimask)
        return restore_logits(low_res, frame), iou, low_res

    def _prompts(
        self,
        points: Floats | None,
        labels: npt.NDArray[np.int64] | None,
        boxes: Floats | None,
        masks: Floats | None,
    ) -> Prompts:
        """Prompts in pixels of the image, N of them, to those of the model's square."""
        frame, embedding = self._set
        if points is None and boxes is None and masks is None:
            raise ValueError("give points, a box or a mask")
        if (points is None) != (labels is None) or (
            points is not None and labels is not None and points.shape != (*labels.shape, 2)
        ):
            raise ValueError("point_coords (P, 2) go with point_labels (P,)")
        side = _LOGITS_AN_EMBEDDING * embedding.shape[-1]
        if masks is not None and masks.shape != (1, 1, side, side):
            raise ValueError(f"mask_input is one mask of logits, (1, {side}, {side}), not {masks.shape[1:]}")
        corners = None if boxes is None else to_square(boxes.reshape(-1, 2, 2), frame).reshape(-1, 4)
        moved = None if points is None else to_square(points, frame)
        fed = self._tensor(masks)
        return Prompts(
            points=self._tensor(moved),
            point_labels=self._tensor(labels),
            boxes=self._tensor(corners),
            mask_logits=None if fed is None else fed_back(fed, self.trained.recipe.steps),
        )

    def _tensor(self, values: npt.NDArray[np.float32] | npt.NDArray[np.int64] | None) -> torch.Tensor | None:
        return None if values is None else torch.from_numpy(np.ascontiguousarray(values)).to(self._device)

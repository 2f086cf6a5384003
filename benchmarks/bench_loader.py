"""The stream against the usual loader, webdataset and litdata, on the same samples.

    pip install "medcurate[bench]"
    python benchmarks/bench_loader.py [--samples 1000] [--runs 5] [--folder DIR]
    python benchmarks/bench_loader.py --order [--rows 20000000]

Prints the tables of docs/benchmarks.md "Loader". 256 x 256 grey images with five masks; a batch of eight has
images, masks, a box and a point a mask. Every arm runs in turn in this process, on page-cached files, one
thread a process. ``--order`` measures index, order and resume on a generated manifest instead.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import measure
import numpy as np
import torch
from loader_data import MASKS, SIDE_PX, write_all
from manifest_data import write_manifest
from PIL import Image
from pycocotools import mask as coco
from torch.utils.data import DataLoader
from usual_loader import MEAN, STD, UsualDataset

from medcurate.commit import sha256_file
from medcurate.storage import locate
from medcurate.train.config.data import DataTable, Weights
from medcurate.train.config.prompts import BoxRule
from medcurate.train.prompts.boxes import draw_boxes
from medcurate.train.prompts.counters import mask_keys
from medcurate.train.prompts.points import draw_points
from medcurate.train.stream.course import Course
from medcurate.train.stream.open import open_stream
from medcurate.train.stream.order import lanes_for
from medcurate.train.stream.select import open_index
from medcurate.train.stream.state import StreamState

BATCH = 8
Batches = Iterator[dict[str, torch.Tensor]]


def main() -> None:
    """Run all arms and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="on a local disk")
    parser.add_argument("--order", action="store_true", help="measure index, order and resume")
    parser.add_argument("--rows", type=int, default=20_000_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print(measure.machine(), end="\n\n")
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="bench-loader-") as name:
        if args.order:
            order(Path(name), args.rows)
        else:
            loaders(Path(name), args.samples, args.runs)


def loaders(folder: Path, samples: int, runs: int) -> None:
    """Samples per second of every arm, medians and ratios inside a run."""
    write_all(folder, samples)
    arms: dict[str, Callable[[int], Batches]] = {
        "usual": lambda workers: usual(folder / "files", workers),
        "medcurate, float32 and int64": lambda workers: medcurate(folder, workers, same_dtypes=True),
        "medcurate": lambda workers: medcurate(folder, workers, same_dtypes=False),
        "webdataset": lambda workers: webdataset(folder / "pack", workers),
        "litdata": lambda workers: litdata(folder / "lit", workers),
    }
    _check_equal(arms)
    timed = {
        f"{name}, {workers} workers": _timed(arm, workers, samples if name != "usual" else samples // 4)
        for workers in (0, 2)
        for name, arm in arms.items()
    }
    seconds = measure.interleaved(timed, runs)
    base = seconds["usual, 0 workers"]
    print("| arm | samples/s | times the usual loader | of it, in the same worker count |\n|---|---|---|---|")
    for name, taken in seconds.items():
        count = samples // 4 if name.startswith("usual") else samples
        scale = count / (samples // 4)
        alike = seconds[f"usual, {name[-9:]}"]
        ratios = [measure.ratio(one, taken) * scale for one in (base, alike)]
        print(f"| {name} | {count / statistics.median(taken):,.0f} | {ratios[0]:.1f} | {ratios[1]:.1f} |")


def _timed(arm: Callable[[int], Batches], workers: int, samples: int) -> Callable[[], None]:
    """Time of ``samples`` samples after the first batch: starting workers is no loading."""
    return _Ready(arm, workers, -(-samples // BATCH))


class _Ready:
    """An arm that keeps its loader between runs."""

    def __init__(self, arm: Callable[[int], Batches], workers: int, batches: int) -> None:
        self._make, self._batches = (
            lambda: itertools.chain.from_iterable(arm(workers) for _ in itertools.count()),
            batches,
        )

    def __call__(self) -> None:
        source = self._make()
        next(source)
        for _ in range(self._batches):
            next(source)


def medcurate(folder: Path, workers: int, *, same_dtypes: bool) -> Batches:
    """The stream with prompts of every mask, drawn for the batch."""
    rule = BoxRule()
    with open_stream(
        folder / "pack",
        DataTable(),
        side=SIDE_PX,
        seed=0,
        batch_images=BATCH,
        workers=workers,
        cache=folder / "cache",
    ) as stream:
        for batch in stream:
            masks, keys = batch.masks.flatten(0, 1), mask_keys(batch.seeds, MASKS)
            found = {"image": batch.images, "masks": batch.masks}
            if same_dtypes:
                mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
                found = {"image": batch.images.float().sub_(mean).div_(std), "masks": batch.masks.long()}
            yield found | {"boxes": draw_boxes(masks, rule, keys), "points": draw_points(masks, 1, keys)[0]}


def usual(folder: Path, workers: int) -> Batches:
    """The dataset class of the usual scripts in torch's DataLoader."""
    yield from DataLoader(UsualDataset(folder, MASKS, SIDE_PX), BATCH, shuffle=True, num_workers=workers)


def decoded(item: dict[str, bytes]) -> dict[str, torch.Tensor]:
    """What a careful user writes for webdataset and litdata: uint8, bool, pycocotools, no regionprops."""
    image = np.asarray(Image.open(io.BytesIO(item["png"])).convert("RGB"))
    annotations = json.loads(item["json"])["annotations"][:MASKS]
    masks = coco.decode([annotation["segmentation"] for annotation in annotations]).transpose(2, 0, 1)
    x, y, width, height = np.array([annotation["bbox"] for annotation in annotations], np.float32).T
    points = []
    for mask in masks:
        inside = np.flatnonzero(mask)
        row, col = divmod(int(inside[np.random.randint(len(inside))]), mask.shape[1])
        points.append((col, row))
    return {
        "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
        "masks": torch.from_numpy(np.ascontiguousarray(masks)).bool(),
        "boxes": torch.from_numpy(np.stack([x, y, x + width - 1, y + height - 1], axis=1)),
        "points": torch.tensor(points, dtype=torch.float32)[:, None],
    }


def _named(item: tuple[bytes, bytes]) -> dict[str, torch.Tensor]:
    return decoded({"png": item[0], "json": item[1]})


def webdataset(folder: Path, workers: int) -> Batches:
    """webdataset's pipeline over the same shards, with its shuffle and its loader."""
    import webdataset as wds

    shards = [str(path) for path in sorted((folder / "shards").glob("*.tar"))]
    dataset = wds.WebDataset(shards, shardshuffle=100, empty_check=False).shuffle(1000)
    ready = (
        dataset
        .to_tuple("png", "json")
        .map(_named)
        .batched(BATCH, collation_fn=torch.utils.data.default_collate)
    )
    yield from wds.WebLoader(ready, batch_size=None, num_workers=workers)


def litdata(folder: Path, workers: int) -> Batches:
    """litdata's streaming dataset and loader over its own chunks of the same bytes."""
    from litdata import StreamingDataLoader, StreamingDataset

    class Decoding(StreamingDataset):  # its documented way to transform: override __getitem__
        def __getitem__(self, index: Any) -> dict[str, torch.Tensor]:
            return decoded(super().__getitem__(index))

    yield from StreamingDataLoader(Decoding(str(folder), shuffle=True), batch_size=BATCH, num_workers=workers)


def _check_equal(arms: dict[str, Callable[[int], Batches]]) -> None:
    """Every arm gives images and masks of the shapes and kinds that it is compared for."""
    wanted = {"image": (BATCH, 3, SIDE_PX, SIDE_PX), "masks": (BATCH, MASKS, SIDE_PX, SIDE_PX)}
    for name, arm in arms.items():
        batch = next(iter(arm(0)))
        ready = name == "usual" or "int64" in name
        for key, shape in wanted.items():
            assert tuple(batch[key].shape) == shape, (name, key, batch[key].shape)
        assert batch["image"].dtype == (torch.float32 if ready else torch.uint8), name
        assert batch["masks"].dtype == (torch.int64 if ready else torch.bool), name
        inside = batch["masks"].flatten(0, 1).bool()
        x, y = batch["points"].reshape(-1, 2).long().T
        assert inside[torch.arange(len(inside)), y, x].all(), name


def order(folder: Path, rows: int) -> None:
    """Index, order of an epoch and resume for a manifest of ``rows`` masks, with and without weights."""
    file = folder / "manifest.parquet"
    writer = multiprocessing.get_context("spawn").Process(target=write_manifest, args=(file, rows))
    writer.start()  # in a process of its own, so that its memory is not counted
    writer.join()
    facts = {"sha256": sha256_file(file), "size_bytes": file.stat().st_size}
    (folder / "dataset.json").write_text(
        json.dumps({"format_version": 1, "files": {"manifest.parquet": facts}})
    )
    print("| what | s | CPU s |\n|---|---|---|")
    for name, by in (("", ()), (", weights by modality", ("modality",))):
        temper = 0.5 if by else 1.0
        with _told(f"index of the samples, once a dataset and selection{name}"):
            index = open_index(locate(folder), split="", where="", by=by, cache=folder / "cache" / "indexes")
        course = Course(index, temper=temper, seed=1, lanes=lanes_for(256))
        course.samples_at(0, np.arange(256))  # its pages are in memory now
        with _told(f"order of one more epoch{name}"):
            course.samples_at(1, np.arange(256))
        for share in (0.0, 0.5, 0.9):
            first = int(share * len(index))
            with _told(f"a new process at {share:.0%} of epoch 7: order and 256 samples{name}"):
                fresh = Course(index, temper=temper, seed=1, lanes=lanes_for(256))
                fresh.samples_at(7, np.arange(first, first + 256))
    state = StreamState(seed=1, epoch=7, samples=int(0.9 * len(index)))
    weighted = DataTable(split="", weights=Weights(by=("modality",), temper=0.5))
    with _told("`open_stream` at 90% of epoch 7, weights by modality"):
        open_stream(
            folder, weighted, side=256, seed=1, batch_images=256, start=state, cache=folder / "cache"
        ).close()
    print(f"\n{len(index):,} samples. Peak resident memory of this process: {_peak_mb():,.0f} MB")


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    wall, processor = time.perf_counter(), time.process_time()
    yield
    print(f"| {what} | {time.perf_counter() - wall:.2f} | {time.process_time() - processor:.2f} |")


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    main()

"""Pack against webdataset's ShardWriter on the same samples, and its memory at 1x and 10x.

    python benchmarks/bench_pack.py [--samples 12000] [--runs 5] [--rows 2000000] [--folder DIR]

Prints the tables of docs/benchmarks.md. All timed arms are pinned to one processor and include fsync where
the tool does it (pack does, ShardWriter does not); the input is in the page cache for all of them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import measure
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import webdataset as wds
from manifest_data import write_manifest

from medcurate.commit import sha256_file
from medcurate.engines import serial
from medcurate.format import MANIFEST_FILE, REJECTS_FILE, png, rle, sample
from medcurate.format.columns import MANIFEST, REJECTS, schema
from medcurate.format.record import DatasetRecord, FileRecord
from medcurate.format.shards import shard_writer
from medcurate.format.tables import table, write_table
from medcurate.pack.dataset import pack_dataset
from medcurate.pack.types import PackRules

SIDE_PX, MASKS, TEMPLATES, SAMPLES_PER_SHARD = 512, 4, 32, 2_000
SHARD_BYTES = 256 << 20
POLL_SECONDS = 0.02


def main() -> None:
    """Run all arms and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=12_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--folder", type=Path, default=None, help="on a local disk")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="bench-pack-") as name:
        folder = Path(name)
        print(measure.machine(), end="\n\n")
        _speed(folder, args.samples, args.runs)
        _memory(folder, args.samples)
        _plan_memory(folder, args.rows)


# speed


def _speed(folder: Path, samples: int, runs: int) -> None:
    source, out = write_input(folder / "in", samples), folder / "out"
    size_bytes = sum(path.stat().st_size for path in (source / "shards").iterdir())
    arms = {
        "copy the shard files, fsync (floor)": lambda: _copy(source, out),
        "medcurate pack": lambda: _pack(source, out, PackRules(shard_bytes=SHARD_BYTES)),
        "webdataset, shuffle 1000, ShardWriter": lambda: _webdataset(source, out),
        "medcurate pack --where": lambda: _pack(source, out, PackRules(where="area_px > 5000")),
        "medcurate pack --size 256": lambda: _pack(source, out, PackRules(size_px=256)),
    }
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    seconds = measure.interleaved(arms, runs)
    os.sched_setaffinity(0, allowed)
    about = f"{samples:,} samples of {SIDE_PX} x {SIDE_PX} with {MASKS} masks"
    print(f"{about}, {size_bytes / 1e6:,.0f} MB; one core\n")
    print("| arm | s (median) | samples/s | in + out MB/s | against ShardWriter |\n|---|--:|--:|--:|--:|")
    for name, times in seconds.items():
        median = statistics.median(times)
        moved = f"{2 * size_bytes / 1e6 / median:,.0f}" if "--" not in name else ""
        gain = measure.ratio(seconds["webdataset, shuffle 1000, ShardWriter"], times)
        print(f"| {name} | {median:.2f} | {samples / median:,.0f} | {moved} | {gain:.2f}x |")
    print()
    shutil.rmtree(source)
    _remove(out)


def _pack(source: Path, out: Path, rules: PackRules) -> None:
    _remove(out)
    pack_dataset(source, out, rules, engine=serial.run, workers=1)


def _webdataset(source: Path, out: Path) -> None:
    """The usual way to shuffle shards: a buffer of 1000 samples, raw bytes in, raw bytes out."""
    _remove(out)
    out.mkdir()
    shards = sorted(str(path) for path in (source / "shards").iterdir())
    samples = wds.WebDataset(shards, shardshuffle=len(shards), seed=0).shuffle(1000)
    with wds.ShardWriter(
        str(out / "train-%06d.tar"), maxsize=SHARD_BYTES, maxcount=10**9, verbose=0
    ) as writer:
        for entry in samples:
            writer.write({name: entry[name] for name in ("__key__", "png", "json")})


def _copy(source: Path, out: Path) -> None:
    _remove(out)
    out.mkdir()
    for path in sorted((source / "shards").iterdir()):
        shutil.copyfile(path, out / path.name)
        with open(out / path.name, "rb") as stream:
            os.fsync(stream.fileno())


def _remove(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(out.with_name(f"{out.name}.work"), ignore_errors=True)


# memory


def _memory(folder: Path, samples: int) -> None:
    print(
        "| `medcurate pack`, samples | input MB | peak of the driver MB | peak of the worker MB |\n|--:|--:|--:|--:|"
    )
    for count in (samples // 10, samples):
        source, out = write_input(folder / "in", count), folder / "out"
        size_bytes = sum(path.stat().st_size for path in (source / "shards").iterdir())
        command = [sys.executable, "-m", "medcurate", "pack", str(source), str(out)]
        driver, worker = _peaks([*command, "--workers", "1", "--shard-size", "16MiB"])
        print(f"| {count:,} | {size_bytes / 1e6:,.0f} | {driver / 1e6:,.0f} | {worker / 1e6:,.0f} |")
        shutil.rmtree(source)
        _remove(out)
    print()


def _plan_memory(folder: Path, rows: int) -> None:
    print("| planning (sort and cut) of a manifest, masks | s | peak MB |\n|--:|--:|--:|")
    code = (
        "import sys; from pathlib import Path; from medcurate.pack.plan import make_plan;"
        "from medcurate.pack.types import PackInput, PackRules; here = Path(sys.argv[1]);"
        "make_plan(PackInput(here, (here / 'rows.parquet',)), PackRules(), here / 'work')"
    )
    for count in (rows // 10, rows):
        here = folder / "plan"
        here.mkdir()
        subprocess.run([sys.executable, __file__, "--write-rows", str(count), str(here)], check=True)
        started = time.perf_counter()
        peak, _ = _peaks([sys.executable, "-c", code, str(here)])
        print(f"| {count:,} | {time.perf_counter() - started:.1f} | {peak / 1e6:,.0f} |")
        shutil.rmtree(here)


def write_rows(folder: Path, rows: int) -> None:
    """A manifest with unique keys; the samples themselves are not needed for a plan."""
    write_manifest(folder / "all.parquet", rows)
    tables = (
        _unique(pa.Table.from_batches([b])) for b in pq.ParquetFile(folder / "all.parquet").iter_batches()
    )
    write_table(folder / "rows.parquet", MANIFEST, tables)


def _unique(rows: pa.Table) -> pa.Table:
    place = [rows[name].cast(pa.string()) for name in ("key", "shard", "offset")]
    return rows.set_column(0, "key", pc.binary_join_element_wise(*place, "-"))


def _peaks(command: list[str]) -> tuple[int, int]:
    """Peak resident bytes of a command and of its largest child (VmHWM, which exec resets)."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    own = children = 0
    while process.poll() is None:
        own = max(own, _high_water(process.pid))
        children = max([children, *(_high_water(pid) for pid in _children(process.pid))])
        time.sleep(POLL_SECONDS)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return own, children


def _children(pid: int) -> list[int]:
    try:
        return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _high_water(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


# input


def write_input(folder: Path, samples: int) -> Path:
    """A dataset of ``samples`` textured 512 x 512 images; a few templates under different keys."""
    templates = [_template(np.random.default_rng(seed)) for seed in range(TEMPLATES)]
    tables = []
    for first in range(0, samples, SAMPLES_PER_SHARD):
        name = f"shards/train-{first // SAMPLES_PER_SHARD:06d}.tar"
        stop = min(first + SAMPLES_PER_SHARD, samples)
        with shard_writer(folder / name) as writer:
            tables.append(_write_shard(writer, name, range(first, stop), templates))
    masks = write_table(folder / MANIFEST_FILE, MANIFEST, tables)
    write_table(folder / REJECTS_FILE, REJECTS, [schema(REJECTS).empty_table()])
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    files = {name: FileRecord((folder / name).stat().st_size, sha256_file(folder / name)) for name in names}
    counts = {"cases": samples, "slices": samples, "masks": masks}
    DatasetRecord(
        name="bench",
        made_by={"verb": "bench"},
        sources={"bench": {"title": "Generated"}},
        counts={kind: {"written": count, "rejected": 0} for kind, count in counts.items()},
        files=files,
    ).write(folder)
    return folder


def _template(rng: np.random.Generator) -> tuple[bytes, list[dict[str, object]]]:
    noise = rng.normal(0, 1, (SIDE_PX, SIDE_PX)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 6)
    image = np.clip(128 + 500 * smooth + 2 * noise, 0, 255).astype(np.uint8)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    annotations = []
    for number in range(MASKS):
        cy, cx, radius = rng.uniform(100, 400), rng.uniform(100, 400), rng.uniform(15, 70)
        mask = (y - cy) ** 2 + (x - cx) ** 2 <= radius**2
        ys, xs = np.nonzero(mask)
        box = [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]
        segmentation = {"size": [SIDE_PX, SIDE_PX], "counts": rle.encode(mask).decode()}
        annotations.append({
            "id": number,
            "label": "organ",
            "area": int(mask.sum()),
            "bbox": box,
            "segmentation": segmentation,
        })
    return png.encode(image), annotations


def _write_shard(writer, name: str, numbers: range, templates: list) -> pa.Table:
    rows: dict[str, list[object]] = {column.name: [] for column in MANIFEST}
    empty = {"string": "", "dictionary": "", "bool": False}
    constant = {column.name: empty.get(column.type, 0) for column in MANIFEST}
    constant |= {"area_mm2": None, "row_spacing_mm": None, "col_spacing_mm": None}
    constant |= {"shard": name, "source": "bench", "split": "train", "height": SIDE_PX, "width": SIDE_PX}
    for number in numbers:
        image_png, annotations = templates[number % TEMPLATES]
        key = f"bench--case{number:07d}--z0000"
        image = {"image_id": key, "file_name": f"{key}.png", "height": SIDE_PX, "width": SIDE_PX}
        blob = sample.encode(key, image_png, {"image": image, "annotations": annotations})
        place = {"key": key, "case": f"case{number:07d}", "group": f"bench:{number}", "label": "organ"}
        place |= {"offset": writer.append(blob), "size": len(blob), "digest": sample.digest(blob)}
        for index, mask in enumerate(annotations):
            x0, y0, width, height = mask["bbox"]
            box = {"x0": x0, "y0": y0, "x1": x0 + width, "y1": y0 + height}
            about = {"annotation": index, "instance": index + 1, "area_px": mask["area"]}
            about["area_fraction"] = mask["area"] / SIDE_PX**2
            for column, value in (constant | place | box | about).items():
                rows[column].append(value)
    return table(MANIFEST, rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write-rows"]:  # in a process of its own, so that its memory is not counted
        write_rows(Path(sys.argv[3]), int(sys.argv[2]))
    else:
        main()

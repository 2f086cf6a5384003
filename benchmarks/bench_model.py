"""The model and the training iteration against the straightforward ones of ``baseline_sam`` and ``baseline_loop``.

    python benchmarks/bench_model.py [encoder] [iteration] [losses] [memory] [cached] [throughput]
        [--device cpu] [--threads 2] [--runs 5] [--kind vit-b] [--batch 2] [--clock wall]

Prints the tables of docs/benchmarks.md. Arms are interleaved in one run; both models have the same random weights, and
their results are compared before they are timed. ``throughput`` (all precisions, compiled or not, several batch sizes)
is meant for a GPU and left out unless named. ``--clock processor`` is for a machine that does other work as well.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import baseline_loop
import measure
import numpy as np
import torch
from baseline_sam import PlainSam

from medcurate.train.config.load import load_recipe
from medcurate.train.config.recipe import TrainRecipe
from medcurate.train.loop.optimiser import make_optimiser
from medcurate.train.model.build import build_sam
from medcurate.train.model.sam import Sam
from medcurate.train.prompts.record import Turn
from medcurate.train.steps.iterations import iterations
from medcurate.train.types import Batch, Frame

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
MASKS = 5
LOSSES_TO_COMPARE = 45  # of 5 batches


def main() -> None:
    """Run the sections that are named, or all that suit a CPU."""
    sections = {
        "encoder": encoder, "iteration": iteration, "losses": compared_losses, "memory": memory,
        "cached": cached, "throughput": throughput, "peak-ours": peak, "peak-straightforward": peak,
    }  # fmt: skip
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "sections",
        nargs="*",
        choices=sections,
        default=["encoder", "iteration", "losses", "memory", "cached"],
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--kind", default="vit-b")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.sections[0].startswith("peak-"):
        peak(args)
        return
    print(hardware(args), end="\n\n")
    for name in args.sections:
        sections[name](args)
        print(flush=True)


def hardware(args: argparse.Namespace) -> str:
    card = torch.cuda.get_device_name() if args.device == "cuda" else f"{args.threads} threads"
    return f"{measure.machine()}, torch {torch.__version__}, {card}, {args.clock} time"


# what is measured


def recipe_of(args: argparse.Namespace, side: int = 256) -> TrainRecipe:
    """SAM-Med2D as published, which is what the straightforward loop does."""
    recipe = load_recipe("sam-med2d-published")
    model = recipe.model.model_copy(update={"kind": args.kind, "image_side": side})
    return recipe.model_copy(update={"model": model})


def both(args: argparse.Namespace, recipe: TrainRecipe) -> tuple[Sam, PlainSam]:
    """Ours and the straightforward model with the same weights, which are small enough to train at once."""
    torch.manual_seed(0)
    sam = build_sam(recipe.model)
    with torch.no_grad():
        for name, value in sam.named_parameters():
            if "rel_pos" in name or "pos_embed" in name:
                value.normal_(std=0.02)
    plain = PlainSam(
        recipe.model.numbers, recipe.model.image_side, adapter=recipe.model.adapter == "sam-med2d"
    )
    plain.load_state_dict(sam.state_dict())
    for name, value in plain.named_parameters():
        value.requires_grad_(sam.get_parameter(name).requires_grad)
    return sam.to(args.device), plain.to(args.device)


def batch_of(args: argparse.Namespace, side: int, number: int, count: int) -> Batch:
    """``count`` noisy images with ``MASKS`` ellipses each."""
    generator = torch.Generator().manual_seed(number)
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    centre = side * (0.25 + torch.rand(count, MASKS, 2, 1, 1, generator=generator) / 2)
    radius = side * (0.05 + torch.rand(count, MASKS, 2, 1, 1, generator=generator) / 6)
    masks = ((x - centre[:, :, 0]) / radius[:, :, 0]) ** 2 + (
        (y - centre[:, :, 1]) / radius[:, :, 1]
    ) ** 2 < 1
    grey = 80 * masks.sum(1, keepdim=True).clamp(max=2) + 60 * torch.rand(
        count, 3, side, side, generator=generator
    )
    return Batch(
        images=grey.to(torch.uint8).to(args.device), masks=masks.to(args.device),
        valid=torch.ones(count, MASKS, dtype=torch.bool, device=args.device),
        annotations=torch.arange(MASKS).repeat(count, 1), seeds=torch.arange(count, device=args.device) + 1000 * number,
        keys=tuple(map(str, range(count))), frames=(Frame(side, side, side, side, side),) * count,
        number=number, samples=count, seed=number,
    )  # fmt: skip


def settled(args: argparse.Namespace, work: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        work()
        if args.device == "cuda":
            torch.cuda.synchronize()

    return run


class Run:
    """A model with its optimiser: ours as the trainer makes it, the straightforward one torch's Adam as it comes."""

    def __init__(self, args: argparse.Namespace, recipe: TrainRecipe, model: Sam | PlainSam) -> None:
        self.recipe, self.model = recipe, model
        self.rng = random.Random(0)
        parameters = [value for value in model.parameters() if value.requires_grad]
        if isinstance(model, Sam):
            self.optimiser = make_optimiser(parameters, recipe.optimiser, torch.device(args.device))
        else:
            self.optimiser = torch.optim.Adam(parameters, lr=recipe.optimiser.lr)

    def steps(self, batch: Batch, turns: list[Turn]) -> Iterator[torch.Tensor]:
        """Losses of ``batch``. The straightforward loop fills ``turns``; ours gives those, if there are any."""
        if isinstance(self.model, Sam):
            for step in iterations(self.model, batch, self.recipe, replayed=turns):
                yield step.loss
        else:
            yield from baseline_loop.losses(self.model, batch.images, batch.masks, self.rng, turns)

    def train(self, batch: Batch, turns: list[Turn] | None = None) -> list[torch.Tensor]:
        losses = []
        for loss in self.steps(batch, [] if turns is None else turns):
            loss.backward()
            self.optimiser.step()
            self.optimiser.zero_grad()
            losses.append(loss.detach())
        return losses


# sections


def encoder(args: argparse.Namespace) -> None:
    """Forward pass of the image encoder, without gradients."""
    print("| encoder forward | straightforward, ms | ours, ms | ratio |\n|---|--:|--:|--:|")
    for side, count, adapter in ((256, 2, True), (256, 8, True), (1024, 1, False)):
        recipe = recipe_of(args, side)
        model = recipe.model.model_copy(
            update={"adapter": "sam-med2d" if adapter else "none", "trainable": ("mask-decoder",)}
        )
        sam, plain = both(args, recipe.model_copy(update={"model": model}))
        images = batch_of(args, side, 0, count).images
        with torch.no_grad():
            torch.testing.assert_close(sam.encode(images), plain.encode(images), atol=1e-4, rtol=1e-4)
            slow, fast = timed(args, lambda: plain.encode(images), lambda: sam.encode(images))  # noqa: B023
        title = f"{side} px, batch {count}{', adapters' if adapter else ''}"
        row(title, slow, fast)


def iteration(args: argparse.Namespace) -> None:
    """Nine optimiser steps of one batch, prompts drawn by each loop in its way."""
    recipe = recipe_of(args)
    sam, plain = both(args, recipe)
    ours, theirs = Run(args, recipe, sam), Run(args, recipe, plain)
    batch = batch_of(args, 256, 0, args.batch)
    slow, fast = timed(args, lambda: theirs.train(batch), lambda: ours.train(batch))
    print("| iteration (9 steps) | straightforward, ms | ours, ms | ratio |\n|---|--:|--:|--:|")
    row(f"{args.kind}, batch {args.batch} x {MASKS} masks, float32", slow, fast)


def timed(
    args: argparse.Namespace, slow: Callable[[], object], fast: Callable[[], object]
) -> tuple[list[float], list[float]]:
    arms = {"slow": settled(args, slow), "fast": settled(args, fast)}
    seconds = measure.interleaved(arms, args.runs, CLOCKS[args.clock])
    return seconds["slow"], seconds["fast"]


def row(title: str, slow: list[float], fast: list[float]) -> None:
    times = [f"{1e3 * statistics.median(seconds):,.0f}" for seconds in (slow, fast)]
    print(f"| {title} | {times[0]} | {times[1]} | {measure.ratio(slow, fast):.2f} |", flush=True)


def compared_losses(args: argparse.Namespace) -> None:
    """Both loops from the same weights on the same prompts."""
    recipe = recipe_of(args)
    sam, plain = both(args, recipe)
    ours, theirs = Run(args, recipe, sam), Run(args, recipe, plain)
    pairs = []
    for number in range(LOSSES_TO_COMPARE // (1 + baseline_loop.ROUNDS)):
        batch, turns = batch_of(args, 256, number, args.batch), []
        slow = theirs.train(batch, turns)
        pairs += zip(slow, ours.train(batch, turns), strict=True)
    apart = max(abs(a - b).item() for a, b in pairs)
    first, last = pairs[0][0].item(), pairs[-1][0].item()
    print(f"{len(pairs)} losses ({first:.3f} to {last:.3f}) of both loops differ by at most {apart:.1e}")


def memory(args: argparse.Namespace) -> None:
    """Peak of one iteration, each loop in a process of its own."""
    print("| peak memory of an iteration | MB |\n|---|--:|")
    for name in ("straightforward", "ours"):
        command = [
            sys.executable, __file__, f"peak-{name}", "--device", args.device, "--batch", str(args.batch),
            "--threads", str(args.threads), "--kind", args.kind,
        ]  # fmt: skip
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        print(f"| {name} | {int(done.stdout.split()[-1]) / 1e6:,.0f} |", flush=True)


def peak(args: argparse.Namespace) -> None:
    recipe = recipe_of(args)
    sam, plain = both(args, recipe)
    model = sam if args.sections[0] == "peak-ours" else plain
    del sam, plain
    run, batch = Run(args, recipe, model), batch_of(args, 256, 0, args.batch)
    for _ in range(2):
        run.train(batch)
    on_card = args.device == "cuda"
    print(
        torch.cuda.max_memory_allocated()
        if on_card
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )


def cached(args: argparse.Namespace) -> None:
    """MedSAM's step, decoder only, with the encoder in it and with embeddings in half precision from a file."""
    print(
        "| decoder-only, one mask an image | encoder every time, ms | from the file, ms | ratio |\n|---|--:|--:|--:|"
    )
    for side, count in ((256, 8), (1024, 1)):
        recipe = load_recipe("medsam")
        model = recipe.model.model_copy(update={"kind": args.kind, "image_side": side})
        recipe = recipe.model_copy(update={"model": model})
        sam, _ = both(args, recipe)
        whole = batch_of(args, side, 0, count)
        batch = replace(
            whole, masks=whole.masks[:, :1], valid=whole.valid[:, :1], annotations=whole.annotations[:, :1]
        )
        run = Run(args, recipe, sam)
        with tempfile.TemporaryFile() as file:
            with torch.no_grad():
                np.save(file, sam.encode(batch.images).half().cpu().numpy())

            def read() -> torch.Tensor:
                file.seek(0)
                return torch.from_numpy(np.load(file)).to(args.device)

            slow, fast = timed(args, lambda: sam.encode(batch.images), read)  # noqa: B023
            row(f"embedding, {side} px, batch {count}", slow, fast)
            steps = (
                lambda: run.train(batch),  # noqa: B023
                lambda: run.train(replace(batch, embeddings=read())),  # noqa: B023
            )
            row(f"whole step, {side} px, batch {count}", *timed(args, *steps))


def throughput(args: argparse.Namespace) -> None:
    """Images per second of whole iterations; a batch size that does not fit is said so."""
    print("| arm | batch | images/s | peak, MB |\n|---|--:|--:|--:|")
    for precision, compiled in (("fp32", False), ("bf16", False), ("bf16", True)):
        for name in ("straightforward", "ours"):
            for count in (args.batch, 4 * args.batch, 16 * args.batch):
                title = f"{name}, {precision}{', compiled' if compiled else ''}"
                print(f"| {title} | {count} | {_rate(args, name, precision, compiled, count)} |", flush=True)


def _rate(args: argparse.Namespace, name: str, precision: str, compiled: bool, count: int) -> str:
    recipe = recipe_of(args)
    sam, plain = both(args, recipe)
    sam.configure(precision=precision, compiled=compiled)
    if compiled:
        plain.image_encoder.compile()
        plain.mask_decoder.compile()
    run, batch = Run(args, recipe, sam if name == "ours" else plain), batch_of(args, 256, 0, count)
    cast = torch.autocast(args.device, torch.bfloat16, enabled=precision == "bf16" and name != "ours")

    def work() -> None:
        with cast:
            run.train(batch)

    try:
        if args.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = measure.interleaved({"": settled(args, work)}, args.runs)[""]
    except torch.OutOfMemoryError:
        return "out of memory | "
    used = torch.cuda.max_memory_allocated() / 1e6 if args.device == "cuda" else float("nan")
    return f"{count / statistics.median(seconds):,.1f} | {used:,.0f}"


if __name__ == "__main__":
    main()

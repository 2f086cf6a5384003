"""The ``train`` verb: ``medcurate train``, or ``python -m medcurate.train`` under torchrun."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from medcurate.errors import ConfigError
from medcurate.progress import configure
from medcurate.train.entry import packages_needed
from medcurate.train.launch import BY_SIGNAL, end, launched_here, said_once
from medcurate.train.place import own_place

if TYPE_CHECKING:
    from medcurate.train.config.recipe import TrainRecipe
    from medcurate.train.loop.replay import ReplayedStep
    from medcurate.train.loop.start import Options

SHOWN_IMAGES = 8  # of a replayed step, those with the largest losses


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="Name of a train recipe (quickstart, sam-med2d, medsam, or one of these two with -published), or path "
            "of a .toml file."
        ),
    ],
    data: Annotated[str, typer.Option(help="Dataset: folder, or https:// or s3:// URL.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of checkpoints and logs.", show_default="runs/ and the recipe's name"),
    ] = None,
    checkpoint: Annotated[
        str, typer.Option(help="Weights to start from, in place of the recipe's: .pth or .safetensors.")
    ] = "",
    resume: Annotated[
        str,
        typer.Option(help="auto: go on from the last checkpoint in --out; never: refuse where there is one."),
    ] = "auto",
    processes: Annotated[
        int, typer.Option(min=1, help="Training processes on this machine, one a GPU; started by torchrun.")
    ] = 1,
    restarts: Annotated[
        int, typer.Option(min=0, help="With --processes: how often to go on after a process died.")
    ] = 3,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that read data, for each training process.")
    ] = 2,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    replay: Annotated[
        bool,
        typer.Option(
            "--replay",
            help="Go through the batch that stopped the run in --out, step by step; trains nothing.",
        ),
    ] = False,
    log: Annotated[
        list[str] | None, typer.Option(help="Also log to: tensorboard, wandb. May be given twice.")
    ] = None,
    log_format: Annotated[
        str, typer.Option(help="Progress on standard error: auto, plain or json.")
    ] = "auto",
) -> None:
    """Fine-tune SAM on a dataset; run again to continue from the last checkpoint.

    Exit codes: 0 done, 1 error, 2 usage, 4 an error that comes again until something is changed, 128 + number of the
    signal that stopped it after a checkpoint, 137 killed without one.
    """
    with said_once():
        if processes > 1 and not replay and not launched_here():
            _become_torchrun(processes, restarts)
        configure(log_format)
        chosen = _recipe(recipe, checkpoint)
        with packages_needed("training"):
            from medcurate.train.loop.start import Options
        options = Options(
            data=data,
            out=out or Path("runs") / chosen.name,
            resume=_resume(resume),
            workers=workers,
            device=device,
            tools=tuple(log or ()),
        )
        if replay:
            _replay(chosen, options)
        else:
            _train(chosen, options)


def _train(recipe: TrainRecipe, options: Options) -> None:
    from medcurate.storage import without_user
    from medcurate.train.loop.run import train as run

    outcome = run(recipe, options)
    code = BY_SIGNAL + outcome.stopped_by if outcome.stopped_by else 0
    end(code)
    if code:
        raise typer.Exit(code)
    if own_place().rank == 0:
        typer.echo(
            f"{outcome.checkpoint}: after {outcome.batches:,} batches, loss {outcome.loss:.4f}\n"
            f"next: medcurate evaluate {without_user(options.data)} --checkpoint {outcome.checkpoint}"
        )


def _replay(recipe: TrainRecipe, options: Options) -> None:
    from medcurate.train.loop.replay import replay as steps_of

    for step in steps_of(recipe, options):
        typer.echo(replayed_lines(step))


def replayed_lines(step: ReplayedStep) -> str:
    """One line of the step's losses, one of the images that they come from."""
    terms = ", ".join(f"{name} {value:.6g}" for name, value in step.terms.items() if name != "loss")
    first = (
        f"step {step.number}, {step.prompt}: loss {step.terms['loss']:.6g} (recorded {step.recorded_loss:.6g}; "
        f"{terms}); largest weight after it {step.largest_weight:.3g}"
    )
    by_image = sorted(
        zip(step.image_losses, step.keys, strict=False), key=lambda one: (math.isfinite(one[0]), -one[0])
    )
    told = ", ".join(f"{key} {loss:.6g}" for loss, key in by_image[:SHOWN_IMAGES])
    return f"{first}\n    images: {told}{', …' if len(by_image) > SHOWN_IMAGES else ''}" if told else first


def _recipe(name: str, checkpoint: str) -> TrainRecipe:
    from medcurate.train.config.load import load_recipe

    recipe = load_recipe(name)
    if not checkpoint:
        return recipe
    model = recipe.model.model_copy(update={"checkpoint": checkpoint})
    return recipe.model_copy(update={"model": model})


def _resume(text: str) -> Literal["auto", "never"]:
    if text == "auto":
        return "auto"
    if text == "never":
        return "never"
    raise ConfigError(f'--resume "{text}" is unknown; known: auto, never')


def _become_torchrun(processes: int, restarts: int) -> NoReturn:
    """Go on as torchrun running this very command, so that signals reach it, which hands them on.

    Raises ConfigError where a launcher has started this process: one of both decides how many there are.
    """
    if "WORLD_SIZE" in os.environ:
        raise ConfigError(
            f"--processes {processes} starts torchrun, and WORLD_SIZE={os.environ['WORLD_SIZE']} in the environment "
            "says that a launcher has started this process. Leave --processes out; or, if that is left over, "
            "unset WORLD_SIZE."
        )
    # The verb has its own name first; ``python -m medcurate.train`` has not.
    own = sys.argv[2:] if sys.argv[1:2] == ["train"] else sys.argv[1:]
    command = [sys.executable, "-m", "medcurate.train.launch", "--standalone"]
    command += [f"--nproc-per-node={processes}", f"--max-restarts={restarts}", "-m", "medcurate.train", *own]
    sys.stdout.flush()
    os.execv(sys.executable, command)

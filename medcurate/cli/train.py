"""The verbs that train on a dataset; what they do lies in ``medcurate.train``."""

from __future__ import annotations

import typer

from medcurate.train.command import train
from medcurate.train.command_evaluate import evaluate


def register(app: typer.Typer) -> None:
    """Add the verbs of this group."""
    app.command()(train)
    app.command()(evaluate)

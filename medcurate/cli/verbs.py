"""The class of all groups of verbs."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup, TyperOption


class Verbs(TyperGroup):
    """A group whose ``--help`` is False where it is not given, which typer takes for a flag as it is.

    None, its own default, it holds against a schema, and loads pydantic for that: a third of the time of a verb's help.
    """

    def get_help_option(self, ctx: Any) -> TyperOption | None:
        """The option ``--help``."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.default = False
        return option

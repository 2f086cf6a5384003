"""Images in one folder, labels under the same name in another (MSD, nnU-Net, ISIC, Kvasir, IDRiD, …)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, model_validator

from medcurate.config.source import Strict
from medcurate.errors import ConfigError
from medcurate.pairings.collect import Search, collect
from medcurate.pairings.found import Found, Names
from medcurate.pairings.names import CHANNEL, LABEL, Suffixes, check_distinct, check_tokens, expand
from medcurate.pairings.tree import check_template, wildcard_count

FolderTemplate = Annotated[str, AfterValidator(check_template)]


class Options(Strict):
    """``images`` and ``labels``: folders below the source's, ``*`` and ``**`` allowed (see ``tree.py``).

    A file's name is prefix + stem + suffix, and image and label of a case share the stem. Where both
    folders have wildcards they must also stand for the same text (images = "*/images",
    labels = "*/masks"), and the case's name is that folder's part and the stem ("train01/img3"). Where
    only one side has wildcards its folders are pooled and the name is the stem.

    ``{channel}`` may stand in ``images`` or ``image_suffix``, ``{label}`` in ``labels`` or
    ``label_suffix`` (one file a class; a class without file is an object that the case does not show).
    ``*`` in ``label_suffix`` allows several label files ("_mask*.png"). A suffix "/" or "…/" means a
    folder whose files are one series. ``ignore``: file names, with ``*``, that are neither.
    """

    images: FolderTemplate
    labels: FolderTemplate
    image_suffix: Suffixes
    label_suffix: Suffixes
    image_prefix: str = ""
    label_prefix: str = ""
    ignore: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fitting(self) -> Options:
        counts = {wildcard_count(self.images), wildcard_count(self.labels)} - {0}
        if len(counts) > 1:
            raise ValueError("images and labels need the same number of wildcards, or one of them none")
        check_distinct(
            (self.images, self.image_prefix, self.image_suffix),
            (self.labels, self.label_prefix, self.label_suffix),
        )
        return self


def check(options: Options, names: Names) -> None:
    """Raise ValueError where tokens in templates and the source's channels do not fit."""
    check_tokens(names, (options.images, *options.image_suffix), (options.labels, *options.label_suffix))


def find(root: Path, options: Options, names: Names) -> Iterator[Found]:
    """The cases below ``root``, sorted by name. Raises ConfigError, DataMissing."""
    try:
        check(options, names)
    except ValueError as error:
        raise ConfigError(f"paired-folders: {error}") from error
    search = Search(
        images=expand(options.images, options.image_prefix, options.image_suffix, CHANNEL, names.channels),
        labels=expand(options.labels, options.label_prefix, options.label_suffix, LABEL, names.labels),
        ignore=options.ignore,
        several_labels=any("*" in suffix for suffix in options.label_suffix),
    )
    return collect(root, search, names)

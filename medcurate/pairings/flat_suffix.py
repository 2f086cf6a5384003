"""Images and labels side by side in one folder, told apart by their names (BUSI, LiTS, ACDC, GlaS, …)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import model_validator

from medcurate.config.source import Strict
from medcurate.errors import ConfigError
from medcurate.pairings import paired_folders
from medcurate.pairings.found import Found, Names
from medcurate.pairings.names import Suffixes, check_distinct
from medcurate.pairings.paired_folders import FolderTemplate


class Options(Strict):
    """``folder``: below the source's, ``*`` and ``**`` allowed; "." is the source's folder itself.

    A file that fits both suffixes is what the longer one says: with image_suffix ".png" and label_suffix
    "_mask.png", "a_mask.png" is a label. The other options are those of ``paired-folders``.
    """

    folder: FolderTemplate = "."
    image_suffix: Suffixes
    label_suffix: Suffixes
    image_prefix: str = ""
    label_prefix: str = ""
    ignore: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _told_apart(self) -> Options:
        check_distinct(("", self.image_prefix, self.image_suffix), ("", self.label_prefix, self.label_suffix))
        return self

    def as_paired(self) -> paired_folders.Options:
        """The same search with both folders being the one."""
        return paired_folders.Options(
            images=self.folder, labels=self.folder, **self.model_dump(exclude={"folder"})
        )


def check(options: Options, names: Names) -> None:
    """Raise ValueError where tokens in templates and the source's channels do not fit."""
    paired_folders.check(options.as_paired(), names)


def find(root: Path, options: Options, names: Names) -> Iterator[Found]:
    """The cases below ``root``, sorted by name. Raises ConfigError, DataMissing."""
    try:
        check(options, names)
    except ValueError as error:
        raise ConfigError(f"flat-suffix: {error}") from error
    return paired_folders.find(root, options.as_paired(), names)

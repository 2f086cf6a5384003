"""Errors named by what happens next.

``ConfigError``: the user mends a file or a flag and runs again. ``CaseRejected``: the case goes to the
ledger and the build goes on. ``OutputError``: the build stops, nothing half-visible is left, a rerun
continues. None of them ever reaches a user as a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import NoReturn


class Reason(StrEnum):
    """Stable reason codes of ``rejects.parquet``. Codes are never renamed; new ones may be added."""

    # a case: files
    ERRATUM = "ERRATUM"  # declared bad by its source
    UNPAIRED = "UNPAIRED"  # an image without label or a label without image
    MISSING_FILE = "MISSING_FILE"
    UNREADABLE = "UNREADABLE"  # not of the format that the source declares, or an unsupported variant of it
    CORRUPT = "CORRUPT"  # truncated, wrong CRC or length, damaged pixels
    HEADER_SIZE = "HEADER_SIZE"  # claims more than the limit, or more than the file can hold
    OUTSIDE_REFERENCE = "OUTSIDE_REFERENCE"  # refers to a file outside its case
    SERIES_GAP = "SERIES_GAP"  # DICOM: missing or duplicate positions
    MIXED_SERIES = "MIXED_SERIES"  # DICOM: more than one series, orientation or grid
    # a case: content
    GEOMETRY = "GEOMETRY"  # image and label differ in shape or affine, or the affine is singular
    BAD_LABEL = "BAD_LABEL"  # NaN, fractions, or values that the source does not declare
    NO_ANNOTATION = "NO_ANNOTATION"  # no voxel carries a declared label; nothing is wrong with the case
    BAD_INTENSITY = "BAD_INTENSITY"  # NaN or infinite voxels, or nothing between the bounds
    DUPLICATE_KEY = "DUPLICATE_KEY"
    # a case: process
    DECODER_CRASH = "DECODER_CRASH"
    TIMEOUT = "TIMEOUT"
    MEMORY = "MEMORY"
    # a slice
    ASPECT = "ASPECT"
    NO_MASK_LEFT = "NO_MASK_LEFT"
    # a mask
    AREA = "AREA"
    VOLUME = "VOLUME"
    LOST_BY_RESIZE = "LOST_BY_RESIZE"


class MedcurateError(Exception):
    """Base of every error that a user can meet; its text is one paragraph: rule, value, file, remedy."""


class ConfigError(MedcurateError):
    """A recipe, a source, a flag or a query is wrong; nothing was read or written."""


class DataMissing(ConfigError):
    """Files of a source are not there and cannot be had automatically; the text says what to put where."""


class CaseRejected(MedcurateError):
    """One case cannot be used. Carries the ledger's reason code and what was measured.

    ``detail`` must never quote a header's free text, a patient's name or an absolute path: it is stored.
    """

    def __init__(self, reason: Reason, detail: str, measures: Mapping[str, float] | None = None) -> None:
        super().__init__(reason, detail, measures)
        self.reason = reason
        self.detail = detail
        self.measures = dict(measures or {})

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@contextmanager
def blamed_on(what: str) -> Iterator[None]:
    """Say in a rejection which of the case's files ("image t1", "label") it is about."""
    try:
        yield
    except CaseRejected as error:
        raise CaseRejected(error.reason, f"{what}: {error.detail}", error.measures) from error


@contextmanager
def ended_by_mistake() -> Iterator[None]:
    """End the program, with one paragraph on standard error and exit code 1, where the body meets a user's mistake.

    So it does where the system refuses something that nobody has foreseen.
    """
    try:
        yield
    except MedcurateError as error:
        _end(str(error))
    except OSError as error:
        _end(f"{error.filename or 'system'}: {error.strerror or error}")


def _end(text: str) -> NoReturn:
    sys.stderr.write(f"error: {text}\n")
    sys.exit(1)


class OutputError(MedcurateError):
    """The build cannot go on (disk full, locked, changed inputs, damaged parts); a rerun continues."""


class DiskFull(OutputError):
    """There is no room for what must be written."""

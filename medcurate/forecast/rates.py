"""The figures that forecasts rest on, each with where it comes from. All are of one machine: see docs/scale.md."""

from __future__ import annotations

SLICES_PER_CORE_SECOND = {"ct": 432.0, "default": 281.0}
"""Slices that one core builds, by modality (docs/benchmarks.md, "Build"); pictures as the slower."""

SAMPLE_BYTES = {"ct": 73_000, "default": 165_000}
"""Image and JSON of one 512 x 512 sample, by modality (docs/scale.md)."""

PLANES_PER_VOLUME = 100
"""Annotated planes of a volume along one axis: those of the benchmark's volumes. Public sets have 10 to 1000."""

MASKS_PER_IMAGE = 19.7 / 4.6
"""Of SA-Med2D-20M (arXiv 2311.11969): 19.7 million masks on 4.6 million images. Never more than a set has labels."""

MANIFEST_BYTES_PER_MASK = 39
"""776 MB for 20 million rows (docs/benchmarks.md, "Manifest")."""

DOWNLOAD_BYTES_PER_SECOND = 12.5e6
"""An assumption, where nothing was measured: a line of 100 Mbit/s."""

UNPACKED_PER_ARCHIVE = 1.0
"""An assumption: medical archives hold files that are compressed already."""

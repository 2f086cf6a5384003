"""Versions of everything that can change the bytes of a dataset."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from medcurate import __version__
from medcurate.format import FORMAT_VERSION

_PACKAGES = (
    "imagecodecs",
    "isal",
    "nibabel",
    "numpy",
    "opencv-python-headless",
    "pyarrow",
    "pydicom",
    "pylibjpeg-libjpeg",
    "pylibjpeg-openjpeg",
    "pynrrd",
    "tifffile",
)


def tool_versions() -> dict[str, str]:
    """Versions of medcurate, its format, and every installed package that can change bytes."""
    found = {"medcurate": __version__, "format": str(FORMAT_VERSION)}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found

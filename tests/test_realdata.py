"""Tests on real images may be skipped on a developer's machine, and nowhere else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import realdata

ABSENT = {
    "absent": realdata.Package(
        "1", "absent.tgz", "0" * 64, (sys.executable, "-c", "raise SystemExit(1)"), "", (".nrrd",)
    )
}


@pytest.fixture(params=["", "true"])
def ci(request, tmp_path: Path, monkeypatch) -> bool:
    """Whether $CI is set; the only package is one that cannot be fetched."""
    monkeypatch.setenv("CI", request.param)
    monkeypatch.setenv("MEDCURATE_REALDATA", str(tmp_path))
    monkeypatch.setattr(realdata, "PACKAGES", ABSENT)
    monkeypatch.setattr(sys, "argv", ["realdata.py"])
    return bool(request.param)


def test_a_package_that_is_not_fetched_ends_ci(ci: bool, capsys) -> None:
    assert realdata.main() == int(ci)
    told = capsys.readouterr().out
    assert "0 of 1 packages" in told
    assert "not fetched: absent 1" in told


def test_a_test_without_its_image_fails_in_ci(ci: bool) -> None:
    outcome = pytest.fail.Exception if ci else pytest.skip.Exception
    with pytest.raises(outcome, match=r"absent/image\.nrrd is not here"):
        realdata.path("absent/image.nrrd")


def test_what_is_here_is_no_failure_in_ci(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setattr(realdata, "PACKAGES", {})
    monkeypatch.setattr(sys, "argv", ["realdata.py", str(tmp_path)])
    assert realdata.main() == 0
    assert realdata.path("nibabel/__init__.py").is_file()

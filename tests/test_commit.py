"""Files appear whole or not at all; what cannot be written is said with what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from medcurate.commit import committed, committed_folder, output_error, require_place
from medcurate.errors import DiskFull, OutputError


@pytest.mark.parametrize("place", ["file/m.png", "file/new/m.png"])
@pytest.mark.parametrize("commit", [committed, committed_folder, lambda path: require_place(path)])
def test_a_folder_that_is_a_file_is_named(tmp_path: Path, commit, place: str) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(
            OutputError, match=r"m\.png: .*file is a file, where a folder is needed\. Give another"
        ),
        commit(tmp_path / place),
    ):
        pytest.fail("opened")


def test_a_disk_that_is_full_before_the_folder_is_there_says_what_is_free(tmp_path: Path) -> None:
    error = output_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), tmp_path / "new" / "m.png")
    assert isinstance(error, DiskFull)
    assert "bytes are free there" in str(error)


def test_a_place_is_looked_at_and_left_alone(tmp_path: Path) -> None:
    require_place(tmp_path / "new" / "deep" / "m.png")
    (tmp_path / "m.png").write_bytes(b"old")
    require_place(tmp_path / "m.png")
    assert [path.name for path in tmp_path.iterdir()] == ["m.png"]
    with pytest.raises(OutputError, match="is a folder"):
        require_place(tmp_path)

"""Which machine may run a job: the one that has the driver's folders and its versions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from medcurate.engines import place as module
from medcurate.engines.place import Place, place
from medcurate.engines.types import Needs
from medcurate.errors import OutputError


@pytest.fixture
def needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Needs:
    (tmp_path / "start").mkdir()
    monkeypatch.chdir(tmp_path / "start")
    data = tmp_path / "data"
    data.mkdir()
    (data / "case_1.nii.gz").write_bytes(b"image")
    return Needs(reads=(data / "case_1.nii.gz", data / "gone.nii.gz"), writes=(tmp_path / "parts",))


@pytest.fixture
def here(needs: Needs) -> Iterator[Place]:
    with place(needs) as found:
        yield found


def test_the_drivers_own_machine_is_fit_also_while_others_write(
    here: Place, needs: Needs, tmp_path: Path
) -> None:
    (tmp_path / "data" / "notes.txt").touch()
    (needs.writes[0] / "part.tar").touch()
    here.settle()
    assert Path.cwd() == tmp_path / "start"


@pytest.mark.parametrize("name", ["start", "data", "parts"])
def test_a_machine_without_a_folder_is_refused(here: Place, name: str, tmp_path: Path) -> None:
    (tmp_path / name).rename(tmp_path / "elsewhere")
    with pytest.raises(
        OutputError, match=rf"/{name}.*: this machine has not got .*file system that all of them share"
    ):
        here.settle()


def test_a_machine_with_another_file_or_folder_of_that_name_is_refused(here: Place, tmp_path: Path) -> None:
    (tmp_path / "parts").rename(tmp_path / "elsewhere")
    (tmp_path / "parts").mkdir()
    with pytest.raises(OutputError, match=r"/parts: this machine has not got what the driver has there"):
        here.settle()
    (tmp_path / "data" / "case_1.nii.gz").write_bytes(b"another")
    with pytest.raises(OutputError, match=r"/data/case_1.nii.gz: this machine has not got"):
        here.settle()


def test_a_machine_with_other_versions_is_refused(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "tool_versions", lambda: {**here.tools, "isal": "0.1"})
    with pytest.raises(OutputError, match=rf"has isal 0\.1, the driver {here.tools['isal']}.*same versions"):
        here.settle()


def test_nothing_of_it_stays(needs: Needs) -> None:
    with place(needs):
        assert len(list(needs.writes[0].iterdir())) == 1
    assert not list(needs.writes[0].iterdir())
    assert [path.name for path in needs.reads[0].parent.iterdir()] == ["case_1.nii.gz"]

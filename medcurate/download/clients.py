"""Kaggle and Synapse, through their official command lines, where the user's token is in the environment.

Both run as programs of their own: they print, prompt and exit as they like without doing so to us. What they
leave is checked as any other download is.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medcurate.config.source import Origin
from medcurate.download.hosts import Hosts
from medcurate.download.types import DownloadError
from medcurate.errors import ConfigError

WHOLE = (
    "."  # as ``resource``: all of a Kaggle dataset or competition, as the one archive that Kaggle makes of it
)

_GLANCE_SECONDS = 0.2
_LAST_WORDS = 600  # characters of what a client says that are shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One official command line. ``tokens``: sets of variables, of which one must be set whole."""

    name: str
    module: str  # run by ``python -m``
    extra: str
    tokens: tuple[tuple[str, ...], ...]

    @property
    def token_set(self) -> bool:
        """Whether the environment lets it in."""
        return any(all(os.environ.get(name) for name in names) for names in self.tokens)

    @property
    def hint(self) -> str:
        """How to make it automatic."""
        names = " or ".join(" and ".join(names) for names in self.tokens)
        return f'with {names} set and pip install "medcurate[{self.extra}]" it is downloaded automatically'


KAGGLE = Client(
    name="Kaggle",
    module="kaggle",
    extra="kaggle",
    tokens=(("KAGGLE_API_TOKEN",), ("KAGGLE_USERNAME", "KAGGLE_KEY")),
)
SYNAPSE = Client(name="Synapse", module="synapseclient", extra="synapse", tokens=(("SYNAPSE_AUTH_TOKEN",),))


def client_of(origin: Origin) -> Client | None:
    """The client that ``origin`` needs; None where it needs none."""
    if origin.kaggle:
        return KAGGLE
    return SYNAPSE if origin.synapse else None


def arguments(origin: Origin, folder: Path) -> list[str]:
    """What the client is asked: to put the one file of ``origin`` into ``folder``."""
    if origin.synapse:
        return ["get", origin.synapse, "--downloadLocation", str(folder), "--manifest", "suppress"]
    kind = "datasets" if "/" in origin.kaggle else "competitions"
    one = [] if origin.resource == WHOLE else ["-f", origin.resource]
    return [kind, "download", origin.kaggle, *one, "-p", str(folder), "-q"]


def run_client(client: Client, words: Sequence[str], folder: Path, hosts: Hosts) -> Path:
    """The one file that the client leaves in ``folder``, which is its own; what is there already it may continue.

    Raises ConfigError where the client is not installed; DownloadError with its last words where it fails;
    StoppedError when the command was interrupted.
    """
    if importlib.util.find_spec(client.module) is None:
        raise ConfigError(
            f'{client.name} needs a package that is not installed: pip install "medcurate[{client.extra}]"'
        )
    folder.mkdir(parents=True, exist_ok=True)
    code, said = _run([sys.executable, "-m", client.module, *words], folder, hosts)
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    if code or len(found) != 1:
        why = said.strip()[-_LAST_WORDS:] or f"it left {len(found)} files"
        raise DownloadError(
            f"{client.name} client: {' '.join(words)} failed (exit code {code}): {why}. "
            f"Run the same command again, or {_by_itself(client)}."
        )
    return found[0]


def _by_itself(client: Client) -> str:
    return f"get the file in a browser; {client.name} may want you to accept terms on its page first"


def _run(command: Sequence[str], folder: Path, hosts: Hosts) -> tuple[int, str]:
    log = folder / ".log"
    with open(log, "w+b") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                hosts.wait(_GLANCE_SECONDS)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        output.seek(0)
        said = output.read().decode("utf-8", "replace")
    log.unlink(missing_ok=True)
    return process.returncode, said

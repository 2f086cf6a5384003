"""Files of dataset repositories on Hugging Face: what the hub says through its library, bytes through our own client.

The library names the commit, the size and (of files in large-file storage) the SHA-256, and knows the user's
token. Its own download begins anew after a kill, so the bytes come through ``http``, resumed and checked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import httpx

from medcurate.config.folder import Folder
from medcurate.config.source import Origin
from medcurate.download.entry import Contents, Entry, below_resource
from medcurate.download.http import HttpFile, asked_wait_s, untrusted
from medcurate.download.types import Answer, Identity, RefusedError, TransientError
from medcurate.errors import ConfigError

_SHA256 = re.compile(r"[0-9a-f]{64}")
_LOGIN = frozenset({401, 403})
_ENDPOINT = "https://huggingface.co"


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or _ENDPOINT


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """``resource`` of the dataset repository ``repository``, at ``revision`` ("": the main branch of the day)."""

    client: httpx.Client
    repository: str
    resource: str
    revision: str = ""
    endpoint: str = field(default_factory=_endpoint)

    @property
    def url(self) -> str:
        """What records call it."""
        return f"hf://datasets/{self.repository}@{self.revision or 'main'}/{self.resource}"

    @property
    def host(self) -> str:
        """One for all repositories."""
        return "Hugging Face"

    @contextmanager
    def open(self, offset: int, known: Identity | None) -> Iterator[Answer]:
        """See ``types.Remote``. Raises ConfigError where the library is not installed."""
        hub = _library()
        with _blamed(hub):
            stated = hub.get_hf_file_metadata(self._resolve_url(hub, self.revision), endpoint=self.endpoint)
        # The branch may move between this request and the next, the commit does not.
        url = self._resolve_url(hub, stated.commit_hash or self.revision)
        file = HttpFile(client=self.client, address=url, headers=hub.utils.build_hf_headers(), page=True)
        with ExitStack() as stack:
            answer = stack.enter_context(file.open(offset, known))
            tag = (stated.etag or "").strip('"')
            if stated.size is not None and answer.identity.size_bytes not in {None, stated.size}:
                raise TransientError(
                    f"{stated.size:,} bytes are stated, {answer.identity.size_bytes:,} answered"
                )
            yield replace(answer, sha256=tag if _SHA256.fullmatch(tag) else None)

    def _resolve_url(self, hub: Any, revision: str) -> str:
        return str(
            hub.hf_hub_url(
                self.repository,
                self.resource,
                repo_type="dataset",
                revision=revision or None,
                endpoint=self.endpoint,
            )
        )


def contents(client: httpx.Client, folder: Folder) -> Contents:
    """The files of a dataset repository at one commit, with the SHA-256 of those in large-file storage.

    The library has a client of its own; of ``client`` the time-out is taken. Raises RefusedError, TransientError;
    ConfigError where the library is not installed.
    """
    hub = _library()
    api = hub.HfApi(endpoint=_endpoint())
    with _blamed(hub):
        steps = _awaited(_listed(api, folder), client.timeout.read)
        commit = next(steps)
        found = [each for each in steps if isinstance(each, hub.hf_api.RepoFile)]
    return Contents(commit, list(_entries(found, folder, commit)))


def _listed(api: Any, folder: Folder) -> Iterator[Any]:
    """The commit, then what lies in the repository at that commit."""
    name = folder.huggingface
    commit = api.dataset_info(name, revision=folder.revision or None).sha
    if not isinstance(commit, str):
        raise RefusedError("it does not say at which commit the repository is")
    yield commit
    yield from api.list_repo_tree(
        name, folder.resource.strip("/") or None, recursive=True, revision=commit, repo_type="dataset"
    )


def _awaited(steps: Iterator[Any], seconds: float | None) -> Iterator[Any]:
    """``steps``, made in a thread of their own: the library waits for a silent server for ever.

    Raises what they raise, and TransientError where the next does not come in ``seconds``.
    """
    made: SimpleQueue[Any] = SimpleQueue()
    done = object()

    def make() -> None:
        try:
            for step in steps:
                made.put(step)
            made.put(done)
        except BaseException as error:  # told by the thread that waits
            made.put(error)

    Thread(target=make, name="list of Hugging Face", daemon=True).start()
    while True:
        try:
            step = made.get(timeout=seconds)
        except Empty as error:
            raise TransientError("no byte within the time-out") from error
        if step is done:
            return
        if isinstance(step, BaseException):
            raise step
        yield step


def _entries(found: Iterable[Any], folder: Folder, commit: str) -> Iterator[Entry]:
    for file in found:
        path = below_resource(file.path, folder.resource)
        if path is not None:
            origin = Origin(huggingface=folder.huggingface, resource=file.path, revision=commit)
            sha256 = file.lfs.sha256 if file.lfs else None
            yield Entry(path=path, origin=origin, size_bytes=file.size, sha256=sha256)


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError(
            'files on Hugging Face need a package that is not installed: pip install "medcurate[hub]"'
        ) from error
    return huggingface_hub


@contextmanager
def _blamed(hub: Any) -> Iterator[None]:
    try:
        yield
    except hub.errors.GatedRepoError as error:
        raise RefusedError("its terms must be accepted on its page, and HF_TOKEN set", login=True) from error
    except hub.errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        said = f"{status} {type(error).__name__}"
        if status in _LOGIN:
            raise RefusedError(said, login=True) from error
        if 400 <= status < 500 and status not in {408, 429}:
            raise RefusedError(said) from error
        asked = asked_wait_s(error.response.headers) if error.response is not None else None
        raise TransientError(said, asked) from error
    except hub.errors.HFValidationError as error:
        raise RefusedError(str(error)) from error
    except hub.errors.OfflineModeIsEnabled as error:
        raise RefusedError("HF_HUB_OFFLINE forbids it; unset it to download") from error
    except Exception as error:
        kind = type(error)
        if not isinstance(error, OSError) and not kind.__module__.startswith("http"):
            raise
        if refused := untrusted(error):
            raise refused from error
        unreachable = kind.__name__ in {"ConnectError", "ConnectTimeout"}
        raise TransientError(str(error) or kind.__name__, unreachable=unreachable) from error

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
from typing import Any
from urllib.parse import quote

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
    name, timeout_s, endpoint = folder.huggingface, client.timeout.read, _endpoint()
    with _blamed(hub):
        facts = hub.HfApi(endpoint=endpoint).dataset_info(
            name, revision=folder.revision or None, timeout=timeout_s
        )
        if not isinstance(facts.sha, str):
            raise RefusedError("it does not say at which commit the repository is")
        inside = quote(folder.resource.strip("/"), safe="")
        tree = f"{endpoint}/api/datasets/{name}/tree/{facts.sha}/{inside}".rstrip("/")
        found = [
            hub.hf_api.RepoFile(**each) for each in _tree(hub, tree, timeout_s) if each["type"] == "file"
        ]
    return Contents(facts.sha, list(_entries(found, folder, facts.sha)))


def _tree(hub: Any, url: str, timeout_s: float | None) -> Iterator[dict[str, Any]]:
    """What lies below the folder at ``url``, page by page, as the library's ``list_repo_tree`` asks for it.

    That waits for a silent server for ever, in some versions whatever its session's time-out is. Where the hub
    limits the rate of requests, the library's patience counts: to begin with the first page anew would ask for more.
    """
    wanted: dict[str, bool] | None = {"recursive": True, "expand": False}
    while url:
        page = hub.utils.http_backoff(
            "GET",
            url,
            params=wanted,
            headers=hub.utils.build_hf_headers(),
            timeout=timeout_s,
            retry_on_exceptions=(),
            retry_on_status_codes=429,
        )
        hub.utils.hf_raise_for_status(page)
        yield from page.json()
        url, wanted = page.links.get("next", {}).get("url", ""), None  # the next address has them


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
        if not isinstance(error, OSError) and not type(error).__module__.startswith("http"):
            raise
        raise _failure(error) from error


def _failure(error: Exception) -> TransientError | RefusedError:
    """What an error of the library's own client means, whichever of the clients of its versions that is."""
    if refused := untrusted(error):
        return refused
    kind = type(error).__name__
    if kind == "ReadTimeout":
        return TransientError("no byte within the time-out")
    return TransientError(str(error) or kind, unreachable=kind in {"ConnectError", "ConnectTimeout"})

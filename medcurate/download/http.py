"""Files over HTTPS: one GET an attempt, resumed by Range only where the answer proves to be the same object.

HTTP semantics: RFC 9110 (conditional ranges 13.1.5, Range 14.2, Content-Range 14.4, Retry-After 10.2.3).
"""

from __future__ import annotations

import base64
import json
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from medcurate.download.session import proxied
from medcurate.download.types import (
    Answer,
    Identity,
    OtherRangeError,
    RefusedError,
    TransientError,
    without_secrets,
)
from medcurate.errors import ConfigError
from medcurate.storage import is_loopback, without_user

PAGE_BYTES = 512  # at the start of a file, which tell whether it is a web page
_REDIRECTS = 10
_LIST_BYTES = 256 << 20  # of an answer that is held in memory
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_LOGIN = frozenset({401, 403})
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
# "r": requests that are left; "t": seconds until there are more (draft-ietf-httpapi-ratelimit-headers; Hugging Face).
_RATE_LIMIT = re.compile(r"\br *= *0 *; *t *= *([0-9]{1,9})")


def check_url(url: str) -> None:
    """Raises ConfigError unless ``url`` is https, or http to this machine itself."""
    shown = without_secrets(url)
    try:
        parsed = httpx.URL(url)
        parsed.host.encode("idna")
    except (httpx.InvalidURL, UnicodeError) as error:
        # What stands before an "@" may be a password, whose "/" or "#" made this no URL; so may what the error quotes.
        why = ". Write special characters of a password as % and two digits" if "@" in url else f": {error}"
        raise ConfigError(f"{shown.rpartition('@')[2]}: not a URL{why}") from error
    if not parsed.host or not _allowed(parsed, loopback=is_loopback(parsed.host)):
        raise ConfigError(f"{shown}: only https:// and s3:// are downloaded from")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpFile:
    """A file behind an address. ``headers`` go to its own host only; a redirect elsewhere drops them.

    ``page``: whether the file itself is a web page; else a page in its place is a login form.
    """

    client: httpx.Client
    address: str
    headers: Mapping[str, str] = field(default_factory=dict)
    page: bool = False

    @property
    def url(self) -> str:
        """See ``types.Remote``."""
        return without_secrets(self.address)

    @property
    def host(self) -> str:
        """Host and port of the address."""
        return httpx.URL(self.url).netloc.decode()

    @contextmanager
    def open(self, offset: int, known: Identity | None) -> Iterator[Answer]:
        """See ``types.Remote``."""
        response = self._get(_range_headers(offset, known))
        try:
            _check_status(response, offset)
            self._check_no_page(response)
            yield _answer(response, offset)
        except httpx.TransportError as error:
            raise _failure(error) from error
        finally:
            response.close()

    def _get(self, headers: Mapping[str, str]) -> httpx.Response:
        request = self.client.build_request("GET", self.address, headers={**self.headers, **headers})
        loopback = is_loopback(request.url.host)
        for _ in range(_REDIRECTS):
            try:
                response = self.client.send(request, stream=True)
            except httpx.TransportError as error:
                raise _failure(error) from error
            except UnicodeError as error:
                raise RefusedError("it redirects to a host whose name cannot be one") from error
            if response.next_request is None:
                return response
            response.close()
            request = response.next_request
            if not _allowed(request.url, loopback=loopback):
                raise RefusedError(f"it redirects to {request.url.scheme}://{request.url.host}, not to https")
        raise RefusedError(f"it redirects more than {_REDIRECTS} times")

    def _check_no_page(self, response: httpx.Response) -> None:
        kind = response.headers.get("content-type", "").split(";")[0].strip().lower()
        if not self.page and kind in {"text/html", "application/xhtml+xml"}:
            raise RefusedError("it answers with a web page instead of the file", login=True)


def file_behind(client: httpx.Client, url: str, *, page: bool = False) -> HttpFile:
    """The file behind ``url``, whose name and password, if it has any, become a header (RFC 7617)."""
    parsed = httpx.URL(url)
    headers = {}
    if parsed.userinfo:
        words = base64.b64encode(f"{parsed.username}:{parsed.password}".encode()).decode()
        headers["Authorization"] = f"Basic {words}"
    return HttpFile(client=client, address=without_user(url), headers=headers, page=page)


def get_json(client: httpx.Client, url: str, **parameters: str) -> Any:
    """What ``url`` answers as JSON to a query with ``parameters``, None for an empty body.

    Raises RefusedError, TransientError; ConfigError for addresses that are not allowed.
    """
    check_url(url)
    content = bytearray()
    with file_behind(client, str(httpx.URL(url, params=parameters))).open(0, None) as answer:
        for chunk in answer.chunks:
            content += chunk
            if len(content) > _LIST_BYTES:
                raise RefusedError(f"its list is longer than {_LIST_BYTES >> 20} MiB")
    try:
        return json.loads(content) if content.strip() else None
    except ValueError as error:
        raise TransientError(f"it answers with damaged JSON ({error})") from error


def looks_like_page(first_bytes: bytes) -> bool:
    """Whether a file begins as an HTML page does: no archive and no image format begins so."""
    start = first_bytes[:PAGE_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return start.startswith((b"<!doctype html", b"<html"))


def _allowed(url: httpx.URL, *, loopback: bool) -> bool:
    return url.scheme == "https" or (url.scheme == "http" and loopback and is_loopback(url.host))


def _range_headers(offset: int, known: Identity | None) -> dict[str, str]:
    """If-Range takes no weak entity tag (RFC 9110, 13.1.5), and no request can carry one beyond ASCII."""
    if not offset:
        return {}
    headers = {"Range": f"bytes={offset}-"}
    if known and known.etag.isascii() and known.etag and not known.etag.startswith("W/"):
        headers["If-Range"] = known.etag
    return headers


def _check_status(response: httpx.Response, offset: int) -> None:
    status = response.status_code
    if status in {200, 206} or (status == 416 and offset):
        return
    said = f"{status} {response.reason_phrase}".strip()
    if "x-amzn-waf-action" in response.headers:  # AWS WAF: 202 or 405, and a script that browsers run
        raise RefusedError(f"it lets only browsers in ({said})", login=True)
    if status in _PASSING:
        raise TransientError(said, asked_wait_s(response.headers))
    raise RefusedError(said, login=status in _LOGIN)


def asked_wait_s(headers: Mapping[str, str]) -> float | None:
    """How long a host asks to wait, by Retry-After or by what is left of its limit; None where it asks for nothing."""
    if "retry-after" in headers:
        return _retry_after_s(headers["retry-after"])
    limit = _RATE_LIMIT.search(headers.get("ratelimit", ""))
    return float(limit[1]) if limit else None


def _retry_after_s(value: str) -> float | None:
    """Seconds, or seconds until a date; None where it is neither."""
    if re.fullmatch("[0-9]+", value.strip()):
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _answer(response: httpx.Response, offset: int) -> Answer:
    headers = response.headers
    length = int(headers["content-length"]) if headers.get("content-length", "").isdigit() else None
    start = 0
    if response.status_code == 416:  # nothing at that offset: the object is not the one that was begun
        size = re.fullmatch(r"bytes \*/([0-9]{1,18})", headers.get("content-range", "").strip())
        known = Identity(etag=headers.get("etag", ""), size_bytes=int(size[1]) if size else None)
        return Answer(known, 0, iter(()))
    if response.status_code == 206:
        start, length = _content_range(headers.get("content-range", ""), offset)
    identity = Identity(
        etag=headers.get("etag", ""), last_modified=headers.get("last-modified", ""), size_bytes=length
    )
    marked = length is not None or "chunked" in headers.get("transfer-encoding", "").lower()
    encoding = headers.get("content-encoding", "").strip().lower().replace("identity", "")
    return Answer(identity, start, response.iter_raw(), marked, encoding=encoding)


def _content_range(value: str, offset: int) -> tuple[int, int]:
    """Offset and size of the object; the part must be all that is missing."""
    match = _CONTENT_RANGE.fullmatch(value.strip())
    if match is None:
        raise OtherRangeError(f'it answers a range with "Content-Range: {value}"')
    first, last, size = map(int, match.groups())
    if first != offset or last != size - 1:
        raise OtherRangeError(
            f"it answers with bytes {first}-{last} of {size}, asked for those from {offset} on"
        )
    return first, size


def untrusted(error: BaseException) -> RefusedError | None:
    """What to say where ``error`` comes of a certificate that nobody vouches for; None where it does not."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return RefusedError(
                f"its certificate cannot be verified: {cause.verify_message} (where a network signs for its hosts, "
                "SSL_CERT_FILE names the file of its own certificate)"
            )
        cause = cause.__cause__ or cause.__context__
    return None


def _failure(error: httpx.TransportError) -> TransientError | RefusedError:
    if refused := untrusted(error):
        return refused
    if isinstance(error, httpx.ProxyError):
        said = f"the proxy answers {error}"
        return TransientError(said) if str(error)[:3] in map(str, _PASSING) else RefusedError(said)
    if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return RefusedError(str(error))
    unreachable = isinstance(error, httpx.ConnectTimeout | httpx.ConnectError)
    way = " by way of its proxy" if unreachable and proxied(error.request.url) else ""
    if isinstance(error, httpx.TimeoutException):
        what = "no connection" if unreachable else "no byte"
        return TransientError(f"{what} within the time-out{way}", unreachable=unreachable)
    return TransientError(f"{error}{way}" if str(error) else type(error).__name__, unreachable=unreachable)

"""The HTTP client of a command, with what the environment says of proxies and certificates."""

from __future__ import annotations

import os
from urllib.request import getproxies, proxy_bypass

import httpx

from medcurate import __version__
from medcurate.download.types import Policy
from medcurate.errors import ConfigError
from medcurate.storage import is_loopback

USER_AGENT = f"medcurate/{__version__} (builds training corpora from public medical image sets)"

_PROXY_VARIABLES = ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
# What is sent to this machine itself travels over no wire, whatever proxy the environment names.
_DIRECT = dict.fromkeys(("all://localhost", "all://127.0.0.1", "all://[::1]"))


def make_client(policy: Policy) -> httpx.Client:
    """A client for all downloads of a command: TLS verified, no redirect followed without a look at it.

    Proxies and further certificates come from the usual variables (HTTPS_PROXY, SSL_CERT_FILE). Raises ConfigError
    where they cannot be used; what they hold is not told, since it may be a password.
    """
    timeout = httpx.Timeout(policy.stall_s, connect=policy.connect_s, pool=None)
    headers = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
    try:
        return httpx.Client(timeout=timeout, headers=headers, mounts=_DIRECT, follow_redirects=False)
    except ImportError as error:
        raise ConfigError(
            f"{_set_variables()}: a SOCKS proxy needs a package that is not installed: pip install socksio"
        ) from error
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"SSL_CERT_FILE={os.environ.get('SSL_CERT_FILE', '')}: certificates cannot be read from it "
            f"({error.strerror or error}). Name a file in PEM format, or unset the variable."
        ) from error
    except (ValueError, httpx.InvalidURL) as error:
        raise ConfigError(
            f"{_set_variables()}: one of them is no address of a proxy, or names one that cannot be left out. Write "
            "http://host:port, special characters of a password as % and two digits, and in NO_PROXY names and "
            "addresses without brackets, of IPv6 no ranges."
        ) from error


def proxied(url: httpx.URL) -> bool:
    """Whether the environment names a proxy on the way to ``url``."""
    named = {url.scheme, "all"} & getproxies().keys()
    return bool(named) and not is_loopback(url.host) and not proxy_bypass(url.host)


def _set_variables() -> str:
    return ", ".join(name for name in sorted(os.environ) if name.upper() in _PROXY_VARIABLES)

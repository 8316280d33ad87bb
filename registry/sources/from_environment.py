"""The proxies and logins for web servers that the user's environment names.

aiohttp's own ``trust_env`` logs in at every host, where ``~/.netrc`` has a ``default`` entry.
"""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def proxy_for(url: str) -> str | None:
    """The proxy for a URL (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY), unless NO_PROXY names its host."""
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def netrc_login(host: str | None) -> Any:
    """The login (aiohttp's ``BasicAuth``) of the ``machine`` that is called ``host``, in NETRC or
    ``~/.netrc``; ``None`` where there is none. A ``default`` entry names no host."""
    place = os.environ.get("NETRC")
    path = Path(place) if place else Path("~/.netrc").expanduser()
    try:
        entry = netrc.netrc(str(path)).hosts.get(host or "")
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return None
    if entry is None or host == "default":
        return None
    from aiohttp import BasicAuth

    login, account, password = entry
    return BasicAuth(login or account or "", password or "")

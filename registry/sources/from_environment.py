"""The proxies and logins for web servers that the user's environment names.

aiohttp's own ``trust_env`` logs in at every host, where ``~/.netrc`` has a ``default`` entry.
"""

from __future__ import annotations

import netrc
import os
from base64 import b64encode
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def proxy_for(url: str) -> str | None:
    """The proxy for a URL (HTTP_PROXY, HTTPS_PROXY), unless NO_PROXY names its host."""
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if not proxy or proxy_bypass(parts.hostname or ""):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def netrc_login(host: str | None) -> str | None:
    """The ``Authorization`` header for the ``machine`` that is called ``host``, in NETRC or
    ``~/.netrc``, or ``None``. A ``default`` entry names no host."""
    place = os.environ.get("NETRC")
    path = Path(place) if place else Path("~/.netrc").expanduser()
    try:
        entry = netrc.netrc(str(path)).hosts.get(host or "")
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return None
    if entry is None or host == "default":
        return None
    login, account, password = entry
    return "Basic " + b64encode(f"{login or account}:{password or ''}".encode()).decode()

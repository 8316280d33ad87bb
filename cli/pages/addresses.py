"""Names of pages, and which texts are links. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from .facts import Key

LONGEST = 60
_OTHER = re.compile(r"[^a-z0-9]+")
_TAKEN = re.compile(r"(con|nul|aux|prn|com[0-9]|lpt[0-9]|.*-[0-9a-f]{10})\Z")
"""Devices on Windows, and what looks like a name with a digest."""


def page_names(keys: Iterable[Key]) -> Mapping[Key, str]:
    """A file name for each adapter. It depends on nothing but the names: those that would have the
    same one, in upper or lower case, get a digest each."""
    plain = {key: _slug(key[1]) for key in keys}
    count: dict[str, int] = {}
    for name in plain.values():
        count[name] = count.get(name, 0) + 1
    found: dict[Key, str] = {}
    for key, name in plain.items():
        clear = name and count[name] == 1 and not _TAKEN.match(name)
        digest = hashlib.sha256("\0".join(key).encode("utf-8", "replace")).hexdigest()[:10]
        found[key] = f"{name if clear else f'{name}-{digest}'.strip('-')}.html"
    return found


def web_link(text: str) -> str | None:
    """``text`` where it is an address of the web that a page may link to, else ``None``."""
    if not text.isascii() or not text.isprintable() or any(c in text for c in " \"'<>\\`"):
        return None
    try:
        parts = urlsplit(text)
        inside = parts.username is not None or parts.password is not None
        good = parts.scheme in ("http", "https") and parts.hostname and not inside
        _ = parts.port
    except ValueError:
        return None
    return text if good else None


def _slug(name: str) -> str:
    return _OTHER.sub("-", name.lower()).strip("-")[:LONGEST].strip("-")

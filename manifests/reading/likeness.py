"""Whether a text may be shown. Without importing YAML, so that a command that fails is quick."""

from __future__ import annotations

import re

TELLING_KEYS = (
    *("base", "adapters", "compositions", "registries", "mirrors", "rules", "policy", "residency"),
    *("active", "extends"),
)
"""Keys at the top of a manifest that other files seldom have there."""
_POLICY_KEYS = ("allow_sources", "allow_bases", "require_digest", "max_adapter_bytes")
_OURS = re.compile(
    rf"^\{{?[ \t]*[\"']?(?:(?:{'|'.join((*TELLING_KEYS, *_POLICY_KEYS))})[\"']?[ \t]*:"
    r"|version[\"']?[ \t]*:[ \t]*1[ \t]*[,#\r\n])",
    re.MULTILINE,
)


def reads_like_ours(text: str) -> bool:
    """Whether a line of ``text`` may be shown, because it looks like a manifest or a policy. A path
    may lead, through ``extends`` or a link, to a file with somebody's secrets."""
    return _OURS.search(text + "\n") is not None

"""Whether a text is ours to show. Imports no YAML: a command that only fails starts quickly."""

from __future__ import annotations

import re

TELLING_KEYS = (
    *("base", "adapters", "compositions", "registries", "mirrors", "rules", "policy", "residency"),
    *("active", "extends"),
)
"""Keys at the top of a manifest that files of other kinds seldom have there."""
_POLICY_KEYS = ("allow_sources", "allow_bases", "require_digest", "max_adapter_bytes")
_OURS = re.compile(
    rf"^\{{?[ \t]*[\"']?(?:(?:{'|'.join((*TELLING_KEYS, *_POLICY_KEYS))})[\"']?[ \t]*:"
    r"|version[\"']?[ \t]*:[ \t]*1[ \t]*[,#\r\n])",
    re.MULTILINE,
)


def reads_like_ours(text: str) -> bool:
    """Whether a line of ``text`` may be shown: it reads like a manifest or a policy. A path may
    lead, by ``extends`` or a link, to a file of somebody's secrets."""
    return _OURS.search(text + "\n") is not None

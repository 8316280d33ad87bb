"""The version of PEFT that wrote an adapter.

PEFT writes ``peft_version`` since 0.18; files of earlier versions do not name theirs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

_VERSION = re.compile(
    r"(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?(?P<rest>[.\-+@]?[\w.\-+@]{0,100})\Z", re.ASCII
)


class PeftVersion(NamedTuple):
    """``0.21.2``. An ``unreleased`` version has changes since the release before it, and perhaps
    those of the release of its number."""

    major: int
    minor: int
    patch: int = 0
    unreleased: bool = False

    def at_least(self, *release: int) -> bool:
        return self[:3] >= release


def version_of(config: Mapping[str, Any]) -> PeftVersion | None:
    """The version in ``peft_version``; ``None`` where it is missing or invalid."""
    value = config.get("peft_version")
    match = _VERSION.match(value) if isinstance(value, str) else None
    if match is None:
        return None
    rest = match["rest"].lower()
    unreleased = "dev" in rest or "rc" in rest
    return PeftVersion(int(match[1]), int(match[2]), int(match[3] or 0), unreleased)

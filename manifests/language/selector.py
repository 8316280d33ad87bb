"""What follows the ``@`` in ``registry://team/refunds@...``: version, range, alias or digest."""

from __future__ import annotations

import re
from dataclasses import dataclass

from semver import Version

from .published_names import wrong_alias
from .versions import Range, parse_range, parse_version

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Selector:
    """Exactly one of the four.

    Attributes:
        text: As written.
        version: One version.
        range: Versions, of which the highest that is not yanked is taken.
        alias: A name whose value moves.
        digest: The ``sha256:HEX`` of an entry's bytes.
    """

    text: str
    version: Version | None = None
    range: Range | None = None
    alias: str | None = None
    digest: str | None = None

    @property
    def moves(self) -> bool:
        """Whether it can select something else tomorrow."""
        return self.range is not None or self.alias is not None


def parse_selector(text: str) -> Selector | None:
    """The selector that ``text`` is, or ``None``."""
    if _DIGEST.match(text):
        return Selector(text, digest=text)
    if (version := parse_version(text)) is not None:
        return Selector(text, version=version)
    if wrong_alias(text) is None:
        return Selector(text, alias=text)
    found = parse_range(text)
    return None if found is None else Selector(text, range=found)

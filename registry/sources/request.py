"""One source that is to be opened, with all that bears on how it is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...manifests.findings import sources as codes
from ...manifests.findings.finding import Where
from ...manifests.language.source import Source
from ..files.facts import FileFact
from .failures import scrub, source_error

Permits = Callable[[str], bool]
"""Whether a URL (normalised, without query) may be fetched from."""


@dataclass(frozen=True)
class SourceRequest:
    """What ``open_source`` was asked for.

    Each kind of source has a module with ``open_folder(asked)``, which gives its ``Folder``.

    Attributes:
        source: The source, a mirror's in place of the declared one.
        directory: What a relative local path counts from.
        options: For the fsspec filesystem, or the Hub's client.
        offline: Whether the network must not be used.
        revision: The commit of the Hub that a lock pins.
        pins: The files that a lock pins, by path.
        permits: Whether a redirection may be followed; ``None`` where every one may.
        trusted: Whether the user's credentials may be sent.
        where: The place in the manifest, for findings.
    """

    source: Source
    directory: Path
    options: Mapping[str, Any]
    offline: bool
    revision: str | None
    pins: Mapping[str, FileFact] | None
    permits: Permits | None
    trusted: bool
    where: Where

    def only_options(self, *known: str) -> None:
        """Raise ``SourceError`` for options that are not among the ``known``."""
        unknown = sorted(set(self.options) - set(known))
        if unknown:
            raise source_error(
                codes.BAD_STORAGE_OPTIONS,
                f"{scrub(str(self.source))} does not take these storage options",
                self.where,
                found=", ".join(unknown),
                expected=", ".join(sorted(known)) or "none",
            )

    def need_network(self) -> None:
        """Raise ``OfflineError`` where there must be none."""
        if self.offline:
            raise source_error(codes.OFFLINE, f"{self.source} is not on this machine", self.where)

"""One source that is to be opened, with everything that decides how it is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...manifests.findings import sources as codes
from ...manifests.findings.errors import SourceError
from ...manifests.findings.finding import Where
from ...manifests.language.source import Source
from ..files.facts import FileFact
from .failures import scrub, source_error
from .ways import Way

Permits = Callable[[str], bool]
"""Whether a URL (normalised, without query) may be fetched from."""


@dataclass(frozen=True)
class SourceRequest:
    """The arguments of ``open_source``.

    Each kind of source has a module with ``open_folder(request)``, which returns its ``Folder``.

    Attributes:
        source: The source; a mirror's, where one replaces the declared source.
        directory: The folder that a relative local path starts from.
        options: For the fsspec filesystem, or the Hub's client.
        offline: Whether the network must not be used.
        revision: The commit of the Hub that a lock pins.
        pins: The files that a lock pins, by path.
        permits: Whether a redirection may be followed; ``None`` where each may.
        strange: The options that lead to a host which only the manifest chose. Where there are
            any, the user's credentials must not be sent.
        where: The place in the manifest, for findings.
    """

    source: Source
    directory: Path = Path()
    options: Mapping[str, Any] = field(default_factory=dict)
    offline: bool = False
    revision: str | None = None
    pins: Mapping[str, FileFact] | None = None
    permits: Permits | None = None
    strange: tuple[Way, ...] = ()
    where: Where = Where()  # noqa: RUF009 - frozen

    def only_options(self, *known: str) -> None:
        """Raise ``SourceError`` for options other than ``known``."""
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
        """Raise ``OfflineError`` where the network must not be used."""
        if self.offline:
            raise source_error(codes.OFFLINE, f"{self.source} is not on this machine", self.where)

    def withheld(self) -> SourceError:
        """The error where a host that only the manifest chose asks for credentials."""
        chosen = ", ".join(way.url or way.option for way in self.strange)
        return source_error(
            codes.CREDENTIALS_WITHHELD,
            f"Your credentials were not used for {scrub(str(self.source))}: "
            f"only the manifest chose {chosen}",
            self.where,
            found=", ".join(
                way.option if way.url is None else f"{way.option}: {way.url}"
                for way in self.strange
            ),
        )

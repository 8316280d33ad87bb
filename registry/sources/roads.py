"""The road that the bytes of a source take: its mirror, and the endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...manifests.findings.finding import Where
from ...manifests.language.source import Source
from ...manifests.manifest import ManifestFile
from .mirrors import mirror_for, options_for
from .ways import Way, reached_at, ways_of


@dataclass(frozen=True)
class Road:
    """``place`` is opened (the source itself, or its mirror), with ``options``. ``mirror`` is the
    right side of the mirror's row. ``from_user`` are the values that the environment chose."""

    place: Source
    options: Mapping[str, Any]
    mirror: str | None
    from_user: frozenset[str]

    @classmethod
    def of(
        cls,
        file: ManifestFile | None,
        source: Source,
        options: Mapping[str, Any],
        revision: str | None = None,
        where: Where = Where(),  # noqa: B008 - frozen
    ) -> Road:
        """The road under the mirrors of ``file``. Raises ``SourceError`` for an invalid mirror."""
        if file is None:
            return cls(source, options, None, frozenset())
        row = mirror_for(source, file.manifest.mirrors, revision=revision, where=where)
        if row is None:
            return cls(source, options, None, file.from_user)
        mirror, place = row
        return cls(place, options_for(place, source, options), mirror, file.from_user)

    @property
    def is_mirrored_by_manifest(self) -> bool:
        return self.mirror is not None and self.mirror not in self.from_user

    @property
    def is_mirrored_by_user(self) -> bool:
        return self.mirror is not None and self.mirror in self.from_user

    @property
    def ways(self) -> tuple[Way, ...]:
        """The options that decide where requests go and that the environment did not choose."""
        found = ways_of(self.place, self.options)
        return tuple(w for w in found if not w.is_url_itself and w.text not in self.from_user)

    @property
    def end(self) -> str | None:
        """Where the bytes come from, if not from the source's own host: for the lock."""
        reached = reached_at(self.place, self.options)
        return reached or (None if self.mirror is None else str(self.place))

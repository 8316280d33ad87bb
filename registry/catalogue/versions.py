"""See :mod:`adapterdock.manifests.language.versions`, the grammar of sources."""

from __future__ import annotations

from ...manifests.language.versions import Range, parse_range, parse_version

__all__ = ["Range", "parse_range", "parse_version"]

"""See :mod:`adapterdock.manifests.language.selector`, the grammar of sources."""

from __future__ import annotations

from ...manifests.language.selector import Selector, parse_selector

__all__ = ["Selector", "parse_selector"]

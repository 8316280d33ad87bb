"""See :mod:`adapterdock.manifests.language.oci_reference`, the grammar of sources."""

from __future__ import annotations

from ...manifests.language.oci_reference import OciReference, parse_reference

__all__ = ["OciReference", "parse_reference"]

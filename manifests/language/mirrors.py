"""Mirrors: a prefix of a URL, and what replaces it when something is fetched."""

from __future__ import annotations

import re

from .source import Source, SourceSyntaxError


def mirror_problem(prefix: str, target: str) -> str | None:
    """Why ``prefix`` cannot be rewritten to ``target``, or ``None``.

    Both end with a slash or neither does, so that the rest of the address can follow.
    """
    if "://" not in prefix:
        return "The prefix does not start with a scheme such as hf:// or s3://"
    if prefix.lower().startswith("registry://"):
        return "A mirror cannot replace a registry; change its address under 'registries'"
    if prefix.lower().startswith("oci://"):
        return "A mirror cannot replace an OCI repository"
    if prefix.endswith("/") != target.endswith("/"):
        return "The prefix and its replacement do not both end with a slash"
    try:
        source = Source.parse(target.removesuffix("/") if len(target) > 1 else target)
    except SourceSyntaxError as error:
        # a mirror of the complete Hub ("hf://") or of a bare scheme is an address too
        if re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://", target):
            return None
        return f"Invalid source as replacement: {error}"
    if source.is_oci or source.is_archive:
        return "An OCI repository or archive cannot be a mirror"
    return "A registry cannot be a mirror" if source.is_registry else None

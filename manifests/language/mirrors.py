"""Mirrors: a prefix of a URL, and what stands for it when something is fetched."""

from __future__ import annotations

import re

from .source import Source, SourceSyntaxError


def mirror_problem(prefix: str, target: str) -> str | None:
    """Why ``prefix`` cannot be rewritten to ``target``, or ``None``.

    Both end with a slash or neither does, so that what follows the prefix fits on.
    """
    if "://" not in prefix:
        return "The prefix does not start with a scheme such as hf:// or s3://."
    if prefix.lower().startswith("registry://"):
        return "A registry is moved under 'registries', not by a mirror."
    if prefix.endswith("/") != target.endswith("/"):
        return "The prefix and its replacement do not both end with a slash."
    try:
        source = Source.parse(target.removesuffix("/") if len(target) > 1 else target)
    except SourceSyntaxError as error:
        # a mirror of the whole Hub ("hf://") or of a bare scheme is an address of its own
        if re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://", target):
            return None
        return f"The replacement is no source: {error}."
    return "A mirror cannot be a registry." if source.is_registry else None

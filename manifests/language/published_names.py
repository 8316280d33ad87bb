"""Names of published adapters and of aliases: one spelling, safe as a path on every system.

A name has one to three segments: ``team/refunds``. It becomes a folder of the registry and the name
of an OCI repository, so both must accept it.
"""

from __future__ import annotations

import re

MOST_SEGMENTS = 3
LONGEST = 63
"""Characters of a segment and of an alias."""

_SEGMENT = re.compile(r"[a-z][a-z0-9]*(?:[._-][a-z0-9]+)*\Z")
_ALIAS = re.compile(r"[a-z][a-z0-9-]*\Z")
_VERSION_LIKE = re.compile(r"v[0-9]|x\Z")
RESERVED = frozenset(
    {"versions", "aliases", "marks", "signatures", "journal", "gc", "con", "nul", "aux", "prn"}
    | {f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10)}
)
"""Segments that are folders of the layout, or devices on Windows."""


def wrong_name(name: str) -> str | None:
    """What is wrong with the name of an adapter, or ``None``."""
    segments = name.split("/")
    if len(segments) > MOST_SEGMENTS:
        return f"it has {len(segments)} segments, at most {MOST_SEGMENTS} are allowed"
    for segment in segments:
        if not _SEGMENT.match(segment) or len(segment) > LONGEST:
            return (
                f"the segment {segment[:LONGEST]!r} must be lower-case letters and digits, with "
                f"single '.', '_' or '-' between them, and at most {LONGEST} characters"
            )
        if segment.split(".")[0] in RESERVED:
            return f"the segment {segment!r} is reserved"
    return None


def wrong_alias(alias: str) -> str | None:
    """What is wrong with an alias, or ``None``. An alias never looks like a version or a digest."""
    if not _ALIAS.match(alias) or len(alias) > LONGEST:
        return (
            "it must be a lower-case letter, then lower-case letters, digits and '-', at most "
            f"{LONGEST} characters"
        )
    if _VERSION_LIKE.match(alias) or alias == "sha256":
        return "it looks like a version or a digest"
    return None

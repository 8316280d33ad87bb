"""Licences of a base and of an adapter, and what using both together means. A small table.

It knows the licences that models on the Hub have. It gives no legal advice: it says where a person
should look.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum

from ..manifests.findings.errors import ManifestError
from ..manifests.reading.document import Bounds, read_document
from .sources.folder import Folder


class Kind(str, Enum):
    """What a licence asks of who uses a model commercially, changes it or passes it on."""

    PERMISSIVE = "permissive"
    SHARE_ALIKE = "share-alike"
    NON_COMMERCIAL = "non-commercial"
    NO_DERIVATIVES = "no-derivatives"
    OWN_TERMS = "own terms"
    UNKNOWN = "unknown"


P, S, N = Kind.PERMISSIVE, Kind.SHARE_ALIKE, Kind.NON_COMMERCIAL
D, T, U = Kind.NO_DERIVATIVES, Kind.OWN_TERMS, Kind.UNKNOWN

KINDS: Mapping[Kind, tuple[str, ...]] = {
    D: ("cc-by-nd-*", "cc-by-nc-nd-*"),
    N: (
        *("cc-by-nc-*", "fair-noncommercial-research-license", "apple-amlr", "intel-research"),
        *("h-research", "mrl", "mnpl", "deepfloyd-if-license", "cohere-*"),
    ),
    S: (
        *("cc-by-sa-*", "gpl", "gpl-*", "agpl-*", "lgpl", "lgpl-*", "odbl", "odbl-*"),
        *("eupl-*", "osl-3.0", "gfdl", "cdla-sharing-1.0"),
    ),
    T: (
        *("llama*", "gemma", "openrail", "openrail++", "*-openrail-m", "*-rail-1.0"),
        *("grok*-community", "qwen", "deepseek", "stabilityai-ai-community", "c-uda"),
    ),
    P: (
        *("apache-2.0", "mit", "mit-0", "isc", "bsd", "bsd-*", "bsl-1.0", "cc-by-*", "cc0-1.0"),
        *("unlicense", "zlib", "ncsa", "wtfpl", "0bsd", "postgresql", "afl-3.0", "ms-pl"),
        *("artistic-2.0", "ecl-2.0", "mpl-2.0", "epl-1.0", "epl-2.0", "odc-by", "pddl"),
        *("cdla-permissive-1.0", "cdla-permissive-2.0", "etalab-2.0", "openmdw-1.0"),
    ),
}
"""By kind, names of licences (SPDX ids or the Hub's) in lower case; ``*`` is any text. The first
kind that has a name counts."""

_NO_SALE = "together they must not be used commercially"
_SAME = "the base's licence may require that the adapter has the same one"
_CHANGED = "an adapter may count as a changed base, which the base's licence does not allow"
_UNCHANGED = "the adapter's licence allows no changes, such as merging it or training it further"
_TERMS = "the base's own terms apply to both together"
_ADAPTERS_TERMS = "the adapter's own terms apply to both together"
_BOTH = "both have terms of their own, and all of them apply"
_EXCLUDE = "the two licences may exclude one another when both are passed on together"

TOGETHER: Mapping[tuple[Kind, Kind], str] = {
    (P, N): _NO_SALE,
    (P, D): _UNCHANGED,
    (P, T): _ADAPTERS_TERMS,
    (S, P): _SAME,
    (S, S): _EXCLUDE,
    (S, N): _EXCLUDE,
    (S, D): _EXCLUDE,
    (S, T): _EXCLUDE,
    (N, P): _NO_SALE,
    (N, S): _EXCLUDE,
    (N, N): _NO_SALE,
    (N, D): _NO_SALE,
    (N, T): _NO_SALE,
    **{(D, kind): _CHANGED for kind in (P, S, N, D, T)},
    (T, P): _TERMS,
    (T, S): _EXCLUDE,
    (T, N): _NO_SALE,
    (T, D): _UNCHANGED,
    (T, T): _BOTH,
}
"""By the kinds of base and adapter, what to look at; a permissive base and a permissive or
share-alike adapter need nothing."""


def kind_of(licence: str | None) -> Kind:
    """The kind of a licence; an expression of several licences is unknown."""
    name = (licence or "").strip().lower()
    for kind, patterns in KINDS.items():
        if any(_is(name, pattern) for pattern in patterns):
            return kind
    return U


def _is(name: str, pattern: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", r"[^ ()]*"), name) is not None


def together(base: str | None, adapter: str | None) -> str | None:
    """What to look at where this adapter is used on this base; ``None`` where that is nothing, and
    where one of the licences is unknown."""
    kinds = kind_of(base), kind_of(adapter)
    same = (base or "").strip().lower() == (adapter or "").strip().lower()
    if same and kinds[0] in (S, T):
        return None
    return TOGETHER.get(kinds)


CARD = "README.md"
CARD_LIMIT = 64 << 10
"""Bytes of a model card in which its metadata is looked for."""
_FRONT = re.compile(rb"\A(?:\xef\xbb\xbf)?---[ \t]*\r?\n(.*?\n)---[ \t]*(?:\r?\n|\Z)", re.DOTALL)


def licence_beside(folder: Folder) -> str | None:
    """The licence in the model card of a folder, or ``None``. Raises :class:`SourceError`."""
    card = folder.files().get(CARD)
    if card is None:
        return None
    return card_licence(folder.read(CARD, 0, min(card.size, CARD_LIMIT)))


def card_licence(card: bytes) -> str | None:
    """The licence in the metadata of a model card (the Hub's ``README.md``), or ``None``."""
    match = _FRONT.match(card[:CARD_LIMIT])
    if match is None:
        return None
    try:
        data = read_document(match[1], bounds=Bounds(CARD_LIMIT, 10_000)).data
    except ManifestError:
        return None
    found = data.get("license")
    if found == "other" and isinstance(data.get("license_name"), str):
        found = data["license_name"]
    if isinstance(found, list) and found and all(isinstance(one, str) for one in found):
        found = found[0] if len(found) == 1 else " AND ".join(found)
    return found.strip()[:200] or None if isinstance(found, str) else None

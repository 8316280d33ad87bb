"""What the files of a registry are, by their paths alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from ...manifests.language.published_names import wrong_alias, wrong_name
from ...manifests.language.versions import parse_version
from ..files.digests import PREFIX, is_digest
from ..storages.layout import ADAPTERS, BLOBS, IDENTITY, JOURNAL, RULES, SNAPSHOTS
from .series import BrokenSeriesError, numbers_in

_PART = re.compile(
    rf"{ADAPTERS}/(?P<name>.+?)/(?P<part>versions|aliases|marks|signatures)/(?P<rest>.+)\Z"
)
_NUMBERED = re.compile(r"[0-9]{8}\.json\Z")
_SIGNATURE = re.compile(r"(?:.+/)?[0-9a-f]{64}\.json\Z")
_RULES_SIGNATURES = f"{RULES}/signatures/"


class Part(str, Enum):
    """A kind of series."""

    ALIAS = "alias"
    MARKS = "marks"
    RULES = "rules"
    JOURNAL = "journal"


@dataclass(frozen=True, order=True)
class Series:
    """A series: its folder, and what it is about (``what`` is an alias or a version)."""

    folder: str
    part: Part
    name: str = ""
    what: str = ""


JOURNAL_SERIES = Series(JOURNAL, Part.JOURNAL)
RULES_SERIES = Series(RULES, Part.RULES)


@dataclass(frozen=True)
class Inventory:
    """The files of a registry, sorted by what they are.

    Attributes:
        sizes: Bytes by path, of all files.
        entries: By path, name and version.
        series: By series, the paths of its files in order; gaps too.
        signatures: Paths.
        blobs: Bytes by digest.
        snapshots: Paths.
    """

    sizes: Mapping[str, int]
    entries: Mapping[str, tuple[str, str]]
    series: Mapping[Series, tuple[str, ...]]
    signatures: tuple[str, ...]
    blobs: Mapping[str, int]
    snapshots: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Names that have entries, sorted."""
        return sorted({name for name, _ in self.entries.values()})

    def gaps(self, series: Series) -> str | None:
        """What is missing in a series."""
        try:
            numbers_in(series.folder, self.series.get(series, ()))
        except BrokenSeriesError as error:
            return str(error)
        return None

    def small(self) -> list[str]:
        """Paths of everything but contents, snapshots, and what is of one storage only."""
        files = [*self.entries, *self.signatures, *(p for s in self.series.values() for p in s)]
        return sorted([*files, *(path for path in (IDENTITY,) if path in self.sizes)])


def take_inventory(sizes: Mapping[str, int]) -> Inventory:
    """Sort the files of a registry. Those with other names are nothing of it."""
    entries: dict[str, tuple[str, str]] = {}
    series: dict[Series, list[str]] = {}
    signatures: list[str] = []
    for path in sorted(sizes):
        match = _PART.match(path)
        if match is not None and wrong_name(match["name"]) is None:
            name, part, rest = match["name"], match["part"], match["rest"]
            if part == "versions":
                version = rest.removesuffix(".json")
                if rest != version and parse_version(version) is not None:
                    entries[path] = (name, version)
            elif part == "signatures":
                if _SIGNATURE.match(rest):
                    signatures.append(path)
            else:
                found = _series(path, name, part, rest)
                if found is not None:
                    series.setdefault(found, []).append(path)
        elif path.startswith(_RULES_SIGNATURES):
            signatures.extend([path] if _SIGNATURE.match(path) else [])
        else:
            for whole in (RULES_SERIES, JOURNAL_SERIES):
                if path.startswith(f"{whole.folder}/") and _NUMBERED.match(
                    path.removeprefix(f"{whole.folder}/")
                ):
                    series.setdefault(whole, []).append(path)
    return Inventory(
        sizes,
        entries,
        {key: tuple(paths) for key, paths in series.items()},
        tuple(signatures),
        blob_sizes(sizes),
        tuple(path for path in sorted(sizes) if path.startswith(f"{SNAPSHOTS}/")),
    )


def blob_sizes(files: Mapping[str, int]) -> dict[str, int]:
    """By digest, the bytes of each content among ``files``."""
    start = f"{BLOBS}/"
    found = {PREFIX + p.removeprefix(start): n for p, n in files.items() if p.startswith(start)}
    return {digest: size for digest, size in found.items() if is_digest(digest)}


def entry_paths(paths: Iterable[str]) -> list[str]:
    """The files of entries among ``paths``; also those whose names this version does not know."""
    return sorted(path for path in paths if "/versions/" in path and path.endswith(".json"))


def _series(path: str, name: str, part: str, rest: str) -> Series | None:
    what, _, file = rest.rpartition("/")
    if not _NUMBERED.match(file):
        return None
    folder = path.rpartition("/")[0]
    if part == "aliases":
        return Series(folder, Part.ALIAS, name, what) if wrong_alias(what) is None else None
    return Series(folder, Part.MARKS, name, what) if parse_version(what) is not None else None

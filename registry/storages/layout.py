"""Where each file of a registry lies. Paths are relative to the registry's folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ..files.digests import PREFIX

IDENTITY = "registry.json"
MIRROR = "mirror.json"
"""Only in a mirror."""
PROBE = "probe"
"""Written by the first writer, to prove that a file cannot be created twice; its bytes mean
nothing."""
RULES = "rules"
JOURNAL = "journal"
SNAPSHOTS = "snapshots"
ADAPTERS = "adapters"
BLOBS = "blobs/sha256"
GC = "gc"
HOLDS = "holds"
"""Contents that somebody is about to publish, so that no gc removes them."""
_SIGNATURE = re.compile(r"((aliases|marks)/[0-9a-z.-]+/[0-9]{8}|[0-9a-z.-]+)/[0-9a-f]{64}\.json")


def blob_file(digest: str) -> str:
    """Of a content, by its ``sha256:HEX``."""
    return f"{BLOBS}/{digest.removeprefix(PREFIX)}"


def adapter_folder(name: str) -> str:
    return f"{ADAPTERS}/{name}"


def versions_folder(name: str) -> str:
    return f"{ADAPTERS}/{name}/versions"


def entry_file(name: str, version: str) -> str:
    return f"{versions_folder(name)}/{version}.json"


def alias_folder(name: str, alias: str) -> str:
    """A series."""
    return f"{ADAPTERS}/{name}/aliases/{alias}"


def marks_folder(name: str, version: str) -> str:
    """A series."""
    return f"{ADAPTERS}/{name}/marks/{version}"


def signatures_folder(name: str, version: str) -> str:
    return f"{ADAPTERS}/{name}/signatures/{version}"


def value_signatures_folder(name: str, series: str, number: int) -> str:
    """Of one value of an alias or one mark: ``series`` is :func:`alias_folder` or
    :func:`marks_folder`. No version is called ``aliases`` or ``marks``."""
    inside = series.removeprefix(f"{adapter_folder(name)}/")
    return f"{adapter_folder(name)}/signatures/{inside}/{number:08d}"


def rules_signatures_folder(number: int) -> str:
    return f"{RULES}/signatures/{number:08d}"


def is_signature(name: str, path: str) -> bool:
    """Whether this may be the path of a signature of something with this name."""
    start = f"{adapter_folder(name)}/signatures/"
    if not path.startswith(start) or ".." in path:
        return False
    return _SIGNATURE.fullmatch(path.removeprefix(start)) is not None


def names_in(paths: Iterable[str]) -> Iterator[str]:
    """The names that files of entries are for."""
    for path in paths:
        name, found, _ = path.removeprefix(f"{ADAPTERS}/").partition("/versions/")
        if found:
            yield name


def versions_in(name: str, paths: Iterable[str]) -> list[str]:
    """The versions (as text) whose entries are among ``paths``."""
    start = f"{versions_folder(name)}/"
    files = [path.removeprefix(start) for path in paths if path.startswith(start)]
    return [file.removesuffix(".json") for file in files if file.endswith(".json")]


def gc_file(number: int) -> str:
    """Of a run of gc: the contents that it may remove."""
    return f"{GC}/{number:08d}.json"


def gc_mark(number: int, digest: str) -> str:
    """Says ``keep`` or ``delete``: whoever creates it decides."""
    return f"{GC}/{number:08d}/{digest.removeprefix(PREFIX)}"


def gc_removed(number: int, digest: str) -> str:
    """Exists once a content was removed, and is not going to be removed again by this run."""
    return f"{gc_mark(number, digest)}.removed"


def gc_closed(number: int) -> str:
    """Exists once a run of gc removes nothing any more."""
    return f"{GC}/{number:08d}/closed"


def hold_file(name: str) -> str:
    return f"{HOLDS}/{name}.json"

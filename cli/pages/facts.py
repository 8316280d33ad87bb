"""What a site shows, as frozen data: nothing here knows of HTML, files or networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ...registry.catalogue.promote import AliasValue
from ...registry.heat_map import HeatMap
from ...registry.records.entry import EntryFile, EntryMethod

Key = tuple[str, str]
"""Of an adapter: the registry, manifest or folder that has it, and its name there."""


@dataclass(frozen=True)
class Problem:
    """Something that could not be read, or is wrong: ``what`` it is about, and a finding's code.
    ``left_out``: the site lacks it."""

    what: str
    code: str
    message: str
    left_out: bool = False


@dataclass(frozen=True)
class Signature:
    """An envelope beside an entry: the ids of the keys that it names, which nobody verified here;
    none for a file that is not a signature."""

    keys: tuple[str, ...]


@dataclass(frozen=True)
class Version:
    """One version of a published adapter. ``digest`` is that of its entry; ``signatures`` are
    ``None`` where they cannot be listed."""

    version: str
    created: str
    digest: str
    aliases: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    why: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    signatures: tuple[Signature, ...] | None = ()
    method: EntryMethod | None = None
    size: int = 0


@dataclass(frozen=True)
class Alias:
    """An alias with all its values, oldest first."""

    name: str
    values: tuple[AliasValue, ...]

    @property
    def version(self) -> str | None:
        """The version that it selects now."""
        return self.values[-1].version if self.values else None


@dataclass(frozen=True)
class Heat:
    """Where an adapter acts. Without maps, ``why`` says why there are none.

    ``relative``: the values are parts of the base's weights, else absolute norms. ``notes`` are on
    modules that have no value, or one of another meaning.
    """

    maps: tuple[HeatMap, ...] = ()
    relative: bool = False
    version: str | None = None
    why: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Composition:
    """Several adapters that act as one. ``members`` are their names with their weights as text,
    ``options`` what else is declared, ``lines`` what to copy into a manifest."""

    group: str
    name: str
    combine: str
    members: tuple[tuple[str, str], ...]
    options: tuple[tuple[str, str], ...] = ()
    active: bool = False
    lines: str = ""


@dataclass(frozen=True)
class Adapter:
    """One adapter. What is said of a published one is that of the version ``shown``."""

    group: str
    name: str
    origin: Literal["registry", "manifest", "folder"]
    source: str
    lines: str
    """What to copy into a manifest."""
    shown: str | None = None
    created: str | None = None
    owner: str | None = None
    licence: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    base: str | None = None
    base_names: tuple[str, ...] = ()
    """Other names of the base."""
    base_note: str | None = None
    """Its architecture and licence."""
    method: EntryMethod | None = None
    files: tuple[EntryFile, ...] = ()
    marks: tuple[str, ...] = ()
    why: str | None = None
    """Why it is marked."""
    data: tuple[str, ...] = ()
    code: str | None = None
    trained: str | None = None
    parents: tuple[str, ...] = ()
    versions: tuple[Version, ...] = ()
    """The newest first."""
    aliases: tuple[Alias, ...] = ()
    heat: Heat = Heat()
    active: bool = False
    findings: tuple[Problem, ...] = ()

    @property
    def key(self) -> Key:
        return self.group, self.name


@dataclass(frozen=True)
class Fit:
    """Whether an adapter fits a base: ``None`` where it could not be checked. ``code`` is of the
    finding that says why not, or why it was not checked."""

    adapter: Key
    base: str
    fits: bool | None
    code: str | None = None


@dataclass(frozen=True)
class Matrix:
    """Which adapters fit which bases. ``bases`` are the columns; a pair without a row in ``fits``
    was not checked."""

    bases: tuple[str, ...] = ()
    fits: tuple[Fit, ...] = ()


@dataclass(frozen=True)
class Site:
    """Everything on the site."""

    title: str
    adapters: tuple[Adapter, ...]
    matrix: Matrix = Matrix()
    compositions: tuple[Composition, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def unread(self) -> tuple[Problem, ...]:
        """The problems that left something out of the site."""
        return tuple(one for one in self.problems if one.left_out)

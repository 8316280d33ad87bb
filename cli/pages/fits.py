"""Which adapters fit which bases: by their files, as ``matrix`` checks them, or by what a registry
records, as ``search --fits`` compares it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ...manifests.language.schema import Fingerprint
from ...registry.access.shared_reads import Reads
from ...registry.base.fingerprint import Measured
from ...registry.fits import fitting
from ...registry.matrix import CheckFile, Column, Input, own_base, reports_on, rows_of
from ...registry.records.thin_row import base_fingerprints, base_names
from .facts import Fit, Key, Matrix
from .places import free_name


@dataclass(frozen=True)
class KnownBase:
    """A base as a column. ``place`` is where it is: bases in one place are one. ``opened`` is what
    adapters' files are checked on, and ``measured`` its fingerprint, each where it is known."""

    label: str
    place: str
    opened: Column | None = None
    measured: Measured | None = None


@dataclass(frozen=True)
class Files:
    """Rows: the adapters of an input, with what was read of them. ``own`` is the label of the base
    that the input declares."""

    group: str
    input: Input
    reads: Reads
    own: str | None = None


@dataclass(frozen=True)
class Published:
    """A row: a published adapter, with the bases that its registry records (see ``base_text``)."""

    key: Key
    bases: str


def matrix(
    bases: Sequence[KnownBase],
    files: Iterable[Files],
    published: Sequence[Published],
    check: CheckFile,
) -> Matrix:
    """Every adapter beside every base; ``check`` checks the files of one input."""
    fits = [fit for one in files for fit in _checked(one, bases, check)]
    fits += [fit for base in bases for fit in _recorded(published, base)]
    return Matrix(tuple(base.label for base in bases), tuple(fits))


def recorded_bases(texts: Iterable[str], known: Sequence[KnownBase]) -> list[KnownBase]:
    """The bases that registries record, without those that are ``known`` already. Bases with one
    fingerprint are one."""
    found: list[KnownBase] = []
    for text in dict.fromkeys(texts):
        fingerprints = [one for one in base_fingerprints(text) if _decides(one)]
        if not fingerprints:
            continue
        others = [one.measured for one in (*known, *found) if one.measured is not None]
        if any(fitting({0: text}, measured).fits for measured in others):
            continue
        names = base_names(text)
        label = names[0] if names else fingerprints[0].architecture or "unnamed base"
        measured = Measured(fingerprints[0])
        taken = {one.label for one in (*known, *found)}
        found.append(KnownBase(free_name(label, taken), text, measured=measured))
    return found


def with_base(columns: Sequence[KnownBase], base: KnownBase) -> tuple[list[KnownBase], str]:
    """The columns with one more base, or with more of what is known of one; and its label there."""
    for number, column in enumerate(columns):
        if column.place == base.place:
            known = replace(
                column,
                opened=_both(column.opened, base.opened),
                measured=column.measured or base.measured,
            )
            return [*columns[:number], known, *columns[number + 1 :]], column.label
    taken = {column.label for column in columns}
    named = replace(base, label=free_name(base.label, taken))
    return [*columns, named], named.label


def _both(one: Column | None, other: Column | None) -> Column | None:
    if one is None or other is None:
        return one or other
    return one.also_called(other.aliases)


def _checked(one: Files, bases: Sequence[KnownBase], check: CheckFile) -> Iterator[Fit]:
    columns = {base.label: base.opened for base in bases if base.opened is not None}
    own = own_base(one.input.file)
    if one.own is not None and own is not None:
        columns[one.own] = own  # perhaps by another path
    for row in rows_of(one.input, reports_on(columns, one.input, check, one.reads)):
        for label, verdict in row.cells.items():
            code = next(iter(verdict.codes), None)
            yield Fit((one.group, row.adapter), label, verdict.fits, code)


def _recorded(published: Sequence[Published], base: KnownBase) -> Iterator[Fit]:
    if base.measured is None:
        return
    texts = [*dict.fromkeys(row.bases for row in published)]
    found = fitting(dict(enumerate(texts)), base.measured)
    fits: Mapping[str, bool | None] = {
        text: None if number in found.unknown else number in found.fits
        for number, text in enumerate(texts)
    }
    for row in published:
        yield Fit(row.key, base.label, fits[row.bases])


def _decides(fingerprint: Fingerprint) -> bool:
    return fingerprint.structure is not None and fingerprint.weights is not None

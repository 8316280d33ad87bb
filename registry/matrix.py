"""Which adapters fit which bases: every adapter of the inputs, checked on every base."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..manifests.find import SUFFIXES, find_manifests, names_several, place_of
from ..manifests.findings import usage as codes
from ..manifests.findings.artefacts import BASE_NOT_READ
from ..manifests.findings.errors import AdapterdockError, UsageError
from ..manifests.findings.finding import Finding, Report, Where
from ..manifests.language.frozen import FrozenDict
from ..manifests.language.source import Source, SourceSyntaxError
from ..manifests.manifest import ManifestFile, read_manifest
from .access.shared_reads import Reads
from .files.names import ADAPTER_CONFIG
from .files.pool import each
from .locks.project import open_manifest
from .validate_many import WORKERS
from .verdicts import Verdict, verdicts

CheckFile = Callable[[ManifestFile, Reads], Report]
"""``check(file, reads)``: the report on one manifest."""
_ALONE = "adapter"
"""The name of an adapter that no manifest declares."""


@dataclass(frozen=True)
class Column:
    """A base that adapters are checked on.

    Attributes:
        source: Where it is; a folder's path is absolute.
        aliases: Its other names, as the manifests that declare it say.
    """

    source: Source
    aliases: tuple[str, ...] = ()

    def also_called(self, aliases: Iterable[str]) -> Column:
        """The same base with more names."""
        return replace(self, aliases=tuple(dict.fromkeys((*self.aliases, *aliases))))


@dataclass(frozen=True)
class Input:
    """What the adapters of some rows come from.

    Attributes:
        title: The manifest's path; or the folder, or the reference, of one adapter.
        file: The manifest; one made for it, if it is one adapter.
        alone: Whether it is one adapter.
    """

    title: str
    file: ManifestFile
    alone: bool = False


@dataclass(frozen=True)
class Row:
    """One adapter.

    Attributes:
        adapter: Its name in the manifest, else its folder or reference.
        manifest: The manifest that declares it, if there is one.
        facts: What is known of it (source, method, rank), if it could be read.
        cells: By base, whether it fits.
    """

    adapter: str
    manifest: str | None
    facts: Mapping[str, Any]
    cells: Mapping[str, Verdict]


@dataclass(frozen=True)
class Matrix:
    """The rows of all inputs, their bases, and what is wrong with the inputs and bases that could
    not be read."""

    bases: tuple[str, ...]
    rows: tuple[Row, ...]
    problems: tuple[Finding, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def exit_status(self) -> int:
        """1 where an input or a base could not be read, 3 where a cell is unchecked, else 0: that
        an adapter does not fit is an answer."""
        if self.problems:
            return 1
        unchecked = any(cell.fits is None for row in self.rows for cell in row.cells.values())
        return 3 if unchecked else 0


def matrix_of(
    inputs: Sequence[str],
    bases: Sequence[str],
    check: CheckFile,
    registries: Mapping[str, str] | None = None,
    workers: int = WORKERS,
) -> Matrix:
    """Check every adapter of ``inputs`` on every base.

    Args:
        inputs: Manifests; folders and globs with manifests, else with adapters; adapters by their
            folder, another source, or ``REGISTRY/NAME@SELECT``.
        bases: Sources of bases; a relative folder starts from the current one. Without any, those
            that the manifests declare.
        check: Checks one manifest.
        registries: By name, the registries that references name.
        workers: How many inputs are checked at once.

    Returns:
        The matrix. A manifest is checked as it is on the base that it declares. On another base
        its own ``aliases``, ``fingerprint`` and ``storage_options`` do not count. The ``aliases``
        of that base do where a manifest declares it, and not where ``bases`` name it.

    Raises:
        UsageError: An input does not exist, a base is invalid, or there is none.
    """
    given, problems, skipped = _read_inputs(inputs, registries or {})
    wanted = _named(bases) or _declared(given)
    if not wanted and given:
        raise UsageError(
            codes.NO_BASES.finding("None of the inputs declares a base", found=", ".join(inputs))
        )
    shared = Reads()

    def rows(one: Input) -> tuple[list[Row], list[Finding]]:
        reports = reports_on(wanted, one, check, shared.of_one_manifest())
        unread = [
            replace(finding, where=Where(file=text)) if bases else finding
            for text, report in reports.items()
            for finding in _base_unread(report)
        ]
        return list(rows_of(one, reports)), unread

    found: list[Row] = []
    for some, unread in each(rows, given, workers):
        found += some
        problems += [finding for finding in unread if finding not in problems]
    return Matrix(tuple(wanted), tuple(found), tuple(problems), skipped)


def reports_on(
    bases: Mapping[str, Column], one: Input, check: CheckFile, reads: Reads
) -> dict[str, Report]:
    """The report on an input with each of the bases, by their labels."""
    return {label: check(_on(one.file, base), reads) for label, base in bases.items()}


def _base_unread(report: Report) -> list[Finding]:
    """Why the base could not be read; nothing if it could."""
    if not any(finding.code == BASE_NOT_READ.id for finding in report.findings):
        return []
    failed = [*report.errors, *report.unchecked]  # unchecked: one that cannot be reached now
    return [finding for finding in failed if finding.where.path[:1] == ("base",)]


def rows_of(one: Input, reports: Mapping[str, Report]) -> Iterator[Row]:
    """A row for each adapter of an input, from :func:`reports_on` it."""
    cells = {base: verdicts(report) for base, report in reports.items()}
    for name in one.file.manifest.adapters:
        facts = next((r.adapters[name] for r in reports.values() if r.adapters.get(name)), {})
        yield Row(
            one.title if one.alone else name,
            None if one.alone else one.title,
            facts,
            {
                base: found.get(name) or Verdict(None, reports[base].errors)
                for base, found in cells.items()
            },
        )


def registries_of(file: ManifestFile | None) -> dict[str, str]:
    """The registries that a manifest names, as they are seen from any folder."""
    named = {} if file is None else file.manifest.registries
    return {
        name: str(_absolute(source, file.directory if file else Path.cwd()))
        for name, source in named.items()
    }


# -- the bases ----------------------------------------------------------------------------------


def _base_source(text: str) -> Source:
    try:
        return _absolute(Source.parse(text), Path.cwd())
    except SourceSyntaxError as error:
        raise UsageError(
            codes.BAD_MODEL.finding("Invalid --base", found=text, expected=error)
        ) from error


def _named(bases: Sequence[str]) -> dict[str, Column]:
    """The bases that the user named, each once."""
    found: dict[Source, str] = {}
    for text in bases:
        found.setdefault(_base_source(text), text)
    return {text: Column(source) for source, text in found.items()}


def _declared(given: Sequence[Input]) -> dict[str, Column]:
    """The bases that the manifests declare, each once: by its source, a folder as it is seen from
    the current one."""
    found: dict[Source, Column] = {}
    for one in given:
        own = own_base(one.file)
        if own is not None:
            found[own.source] = found.get(own.source, own).also_called(own.aliases)
    return {_from_here(source): column for source, column in found.items()}


def _from_here(source: Source) -> str:
    if not source.is_local:
        return str(source)
    path = os.path.relpath(source.location)
    return path if path.startswith(os.pardir) else os.path.join(os.curdir, path)  # noqa: PTH118


def own_base(file: ManifestFile) -> Column | None:
    """The base that a manifest declares."""
    base = file.manifest.base
    if base.model is None:
        return None
    return Column(_absolute(base.model, file.directory), base.aliases)


def _absolute(source: Source, directory: Path) -> Source:
    if not source.is_local and not source.is_archive:
        return source
    return replace(source, location=os.path.normpath(source.local_path(directory).absolute()))


def _on(file: ManifestFile, base: Column) -> ManifestFile:
    """The manifest with ``base`` in place of its own."""
    own = own_base(file)
    if own is not None and own.source == base.source:
        return file
    # the credentials and the code that it trusts are for its own base only
    theirs = {"fingerprint": None, "storage_options": FrozenDict(), "trust_remote_code": False}
    other = file.manifest.base.model_copy(
        update={"model": base.source, "aliases": base.aliases, **theirs}
    )
    return replace(file, manifest=file.manifest.model_copy(update={"base": other}))


# -- the inputs ---------------------------------------------------------------------------------


def _read_inputs(
    inputs: Sequence[str], registries: Mapping[str, str]
) -> tuple[list[Input], list[Finding], tuple[str, ...]]:
    """The inputs that could be read, each once, findings on the others, and the files that were
    skipped."""
    given: list[Input] = []
    problems: list[Finding] = []
    wrong: list[Finding] = []
    skipped: dict[str, None] = {}
    seen: set[Hashable] = set()
    for text in inputs:
        try:
            readers, others = _readers(text, registries)
        except UsageError as error:
            wrong += error.findings
            continue
        except OSError as error:
            message, reason = "Cannot access this path", error.strerror
            wrong.append(codes.NO_SUCH_FILE.finding(message, Where(file=text), found=reason))
            continue
        skipped |= dict.fromkeys(others)
        for identity, read in readers:
            if identity in seen:
                continue
            seen.add(identity)
            try:
                given.append(read())
            except AdapterdockError as error:
                problems += error.findings
    if wrong:
        raise UsageError(*wrong)
    return given, problems, tuple(skipped)


_Reader = tuple[Hashable, Callable[[], Input]]
"""What an input is known by, however it is written, and what reads it."""


def _readers(text: str, registries: Mapping[str, str]) -> tuple[list[_Reader], tuple[str, ...]]:
    """What reads the inputs that an argument names, and the YAML files that are not manifests."""
    path = Path(text)
    if (path / ADAPTER_CONFIG).is_file():
        return [_of_folder(path)], ()
    if names_several(path):
        found = find_manifests([path])
        if found.manifests:
            return [_of_manifest(one) for one in found.manifests], found.skipped
        folders = _adapter_folders(path) if path.is_dir() else []
        if folders:
            return [_of_folder(one) for one in folders], found.skipped
        message = "There is neither a manifest nor an adapter here"
        raise UsageError(codes.NO_MANIFESTS.finding(message, Where(file=text)))
    if path.exists():
        return [_of_manifest(text)], ()
    source = _source_of(text)
    return [(source, partial(_published, text, source, registries))], ()


def _of_manifest(text: str) -> _Reader:
    return place_of(Path(text)), partial(_manifest, text)


def _of_folder(folder: Path) -> _Reader:
    return Path(os.path.realpath(folder)), partial(_adapter_folder, folder)


def _manifest(text: str) -> Input:
    return Input(text, open_manifest(text))


def _adapter_folders(folder: Path) -> list[Path]:
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if ADAPTER_CONFIG in names:
            folders.clear()  # what is below are its checkpoints
            found.append(Path(place))
    return found


def _adapter_folder(folder: Path) -> Input:
    return alone(str(folder), str(folder.absolute()))


def _published(text: str, source: str, registries: Mapping[str, str]) -> Input:
    return alone(text, source, registries)


def alone(title: str, source: str, registries: Mapping[str, str] | None = None) -> Input:
    """One adapter by its source, as an input."""
    data = {
        "version": 1,
        "base": {},
        "registries": {name: url.replace("$", "$$") for name, url in (registries or {}).items()},
        "adapters": {_ALONE: {"source": source.replace("$", "$$")}},
    }
    return Input(title, read_manifest(data), alone=True)


def _source_of(text: str) -> str:
    """The source that an argument names if it is not a path: a URL, or ``REGISTRY/NAME@SELECT``."""
    if "://" in text or text.startswith("oci-archive:"):
        try:
            return str(Source.parse(text))
        except SourceSyntaxError as error:
            raise UsageError(
                codes.NO_SUCH_FILE.finding("Invalid source", found=text, expected=error)
            ) from error
    from .catalogue.reference import needs_selector, parse_reference

    if "@" in text and not text.endswith(SUFFIXES):
        reference = parse_reference(text)
        needs_selector(reference)
        return f"registry://{reference}"
    raise UsageError(
        codes.NO_SUCH_FILE.finding(
            "No such manifest or folder",
            Where(file=text),
            hint="Check the path, or write REGISTRY/NAME@VERSION for an adapter in a registry.",
        )
    )

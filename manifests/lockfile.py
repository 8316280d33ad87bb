"""The lock of a manifest: its format, and reading and writing it.

``NAME.lock`` is beside ``NAME.yaml``: sorted YAML that is easy to read in a diff. The samples of
the base's weights, which are not, are in ``NAME.lock.samples``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from .bounds import LOCK_BYTES, LOCK_VALUES
from .find import SUFFIXES
from .findings import lock as codes
from .findings.catalogue import find_code
from .findings.errors import LockError, ManifestError
from .findings.finding import Finding, Where
from .findings.notebook import frame, table, text
from .findings.said import clean
from .language.schema import Digest, Fingerprint, Model, Name
from .lock_conflict import both_sides, first_conflict
from .lock_samples import (
    TABLE,
    find_table,
    one_writer,
    read_tables,
    render_tables,
    samples_digest,
    samples_path,
)
from .owner import left_beside, made_beside
from .reading.bounded_file import read_at_most
from .reading.complaints import expected_of
from .reading.conform import conform, shape_of
from .reading.document import Bounds, Document, read_document
from .reading.nodes import describe, find

LOCK_SUFFIX = ".lock"
LOCK_VERSION = 1
LOCK_COLUMNS = ("name", "method", "rank", "digest", "source")
"""What a person is shown of a lock."""
BOUNDS = Bounds(LOCK_BYTES, LOCK_VALUES)
"""A lock is written by adapterdock, and is many times as large as its manifest."""


class LockedFile(Model):
    """One file in use. A base's large remote files have a ``version`` (S3 VersionId, ETag or
    similar) until the first pull adds their ``sha256``."""

    size: int = Field(ge=0, description="bytes")
    sha256: Digest | None = Field(default=None, description="of its content")
    version: str | None = Field(
        default=None, description="S3's VersionId, an ETag or similar, until there is a sha256"
    )


class LoadedAs(Model):
    """How a base is loaded, if that differs from its own config.json."""

    architecture: str | None = Field(default=None, description="class of transformers")
    num_labels: int | None = Field(default=None, description="classes of its head")
    id2label: Mapping[str, str] = Field(default_factory=dict, description="names of the classes")
    vocab_size: int | None = Field(
        default=None, description="rows that its embeddings are resized to"
    )
    resized_from: int | None = Field(default=None, description="rows in its files")
    new: tuple[str, ...] = Field(
        default=(), description="modules that no file of the base has: every adapter must have them"
    )


class LockedBase(Model):
    """The base, pinned."""

    declared: str = Field(description="source after variables and overrides")
    options: Digest | None = Field(default=None, description="of the storage options, if any")
    source: str = Field(description="the same, at an immutable revision if its kind has one")
    revision: str | None = Field(
        default=None, description="commit or version of all files together"
    )
    fetched_from: str | None = Field(
        default=None, description="mirror or endpoint that its bytes came from, if not from source"
    )
    files: Mapping[str, LockedFile] = Field(description="by their path in the folder")
    fingerprint: Fingerprint | None = Field(
        default=None, description="of its architecture, weights and tokenizer"
    )
    samples: str | None = Field(
        default=None,
        description="sample table of fingerprint.weights; in the file, its digest: the table is in "
        "NAME.lock.samples",
    )
    loaded_as: LoadedAs | None = Field(
        default=None, description="where that differs from its config.json"
    )


NEW_ADAPTER = "begun"
"""The source, in a lock, of an adapter that is created from its config."""


class LockedValue(Model):
    """One numbered file of a registry, which later ones come after."""

    serial: int = Field(ge=1, description="number of the file")
    sha256: Digest = Field(description="of the file")


class LockedEntry(Model):
    """What was published, pinned: where a registry is does not matter, but which one it is."""

    id: str = Field(description="of the registry")
    version: str = Field(description="that was selected")
    entry: Digest = Field(description="of the entry's bytes")
    alias: LockedValue | None = Field(
        default=None, description="value of the alias that was followed"
    )
    journal: LockedValue | None = Field(
        default=None, description="last line of the registry's journal"
    )
    keys: tuple[str, ...] = Field(default=(), description="ids of the trusted keys that signed it")


class LockedAdapter(Model):
    """One adapter, pinned. A ``mutable`` one is listed and not pinned. A new one (``NEW_ADAPTER``)
    has no files: its digest is that of its config and its ``seed``."""

    declared: str = Field(description="source after variables and overrides")
    options: Digest | None = Field(default=None, description="of the storage options, if any")
    source: str = Field(description="the same, at an immutable revision if its kind has one")
    revision: str | None = Field(
        default=None, description="commit or version of all files together"
    )
    fetched_from: str | None = Field(
        default=None, description="mirror or endpoint that its bytes came from, if not from source"
    )
    digest: Digest | None = Field(default=None, description="of the folder's files in use")
    seed: int | None = Field(default=None, description="of a new adapter")
    files: Mapping[str, LockedFile] = Field(
        default_factory=dict, description="by their path in the folder"
    )
    registry: LockedEntry | None = Field(default=None, description="of a registry:// source")
    method: str = Field(description="PEFT's name of it")
    rank: int = Field(description="the largest that it has; 0 for a method without one")
    targets: tuple[str, ...] = Field(
        default=(), description="last names of the modules where it acts"
    )
    mutable: bool = Field(default=False, description="whether it is listed and not pinned")


class LockedComposition(Model):
    """One composition: the digest is of the method, its options, members and weights."""

    combine: str = Field(description="the way of combining")
    digest: Digest | None = Field(default=None, description="missing while a member is mutable")


class Lock(Model):
    """A complete lock."""

    version: Literal[1] = Field(
        description="of the lock's format; the last line, which shows that the file is complete"
    )
    generator: str = Field(description="adapterdock and its version")
    inputs: Digest = Field(description="digest of everything that resolving depends on")
    declared: Mapping[str, str] | None = Field(
        default=None, description="inputs that are in no other field, so that a change can be named"
    )
    overrides: Mapping[str, str] = Field(
        default_factory=dict, description="what the command line replaced: model, dtype"
    )
    base: LockedBase | None = Field(default=None, description="the base model, pinned")
    adapters: Mapping[Name, LockedAdapter] = Field(
        default_factory=dict, description="each adapter of the manifest, by its name"
    )
    compositions: Mapping[Name, LockedComposition] = Field(
        default_factory=dict, description="each composition, by its name"
    )
    accepted: tuple[str, ...] = Field(
        default=(), description="codes of unchecked findings accepted"
    )

    @field_validator("accepted")
    @classmethod
    def _of_today(cls, ids: tuple[str, ...]) -> tuple[str, ...]:
        """Replace ids of earlier releases by today's."""
        codes = ((id, find_code(id)) for id in ids)
        return tuple(dict.fromkeys(id if code is None else code.id for id, code in codes))

    def _repr_html_(self) -> str:
        cells = [[text(cell) for cell in row] for row in lock_rows(self, _short)]
        return frame(table(LOCK_COLUMNS, [[f"<code>{row[0]}</code>", *row[1:]] for row in cells]))

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        rows = [LOCK_COLUMNS, *lock_rows(self, _short)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
        printer.text("\n".join(map(clean, lines)))


def lock_rows(lock: Lock, shown: Callable[[str | None], str | None]) -> list[tuple[str, ...]]:
    """The base and each adapter of ``lock``, with their digests as ``shown`` writes them."""
    rows: list[tuple[str, ...]] = []
    if lock.base is not None:
        known = lock.base.fingerprint
        rows.append(("base", known.architecture or "" if known else "", "", "", lock.base.source))
    for name, one in lock.adapters.items():
        digest = shown(one.digest) or "(mutable)"
        rows.append((name, one.method, str(one.rank), digest, one.source))
    return rows


def _short(digest: str | None) -> str | None:
    return None if digest is None else digest[:19]


def lock_path(manifest: str | os.PathLike[str]) -> Path:
    """``adapters.lock`` for ``adapters.yaml``, ``team.v2.lock`` for a manifest ``team.v2``."""
    path = Path(manifest)
    stem = path.stem if path.suffix.lower() in (".yaml", ".yml") else path.name
    return path.with_name(f"{stem}{LOCK_SUFFIX}")


def manifest_path(lock: Path) -> Path | None:
    """The manifest beside a lock; ``None`` if there is none, or ``lock`` is another file."""
    if lock.suffix != LOCK_SUFFIX:
        return None
    return next((p for p in map(lock.with_suffix, SUFFIXES) if p.is_file()), None)


def read_lock(path: Path, *, to_replace: bool = False) -> Lock | None:
    """The lock at ``path`` with its samples, or ``None`` if there is no such file.

    With ``to_replace`` the samples may be missing: they are made again. Raises
    :class:`LockError` for a file that is not a lock, has another version or a merge conflict, and
    for a lock without its samples.
    """
    raw = _read(path)
    while raw is not None:
        _require_merged(raw, path)
        lock = _with_samples(_parse(raw, path), path)
        if lock is not None:
            return lock
        before, raw = raw, _read(path)
        if raw != before:
            continue  # it was replaced while it was read
        if to_replace:
            return without_samples(_parse(before, path))
        raise _samples_missing(path)
    return None


def read_both_sides(path: Path) -> tuple[Lock, Lock] | None:
    """Both sides of a lock with a merge conflict, ``None`` for one without.

    Samples that are not there are absent. Raises :class:`LockError` where a side is not a lock.
    """
    raw = _read(path)
    if raw is None or first_conflict(raw) is None:
        return None
    try:
        sides = both_sides(raw)
        if sides is None:
            raise _conflict(raw, path, "conflict markers that are not in pairs")
        ours, theirs = (_parse(side, path) for side in sides)
    except LockError as error:
        if error.code == codes.LOCK_CONFLICT.id:
            raise
        raise _conflict(raw, path, error.findings[0].found or error.findings[0].message) from error
    return (
        _with_samples(ours, path) or without_samples(ours),
        _with_samples(theirs, path) or without_samples(theirs),
    )


def is_written(lock: Lock, path: Path) -> bool:
    """Whether the files at ``path`` have today's form for ``lock``, which was read from there: its
    samples, and only those, in their own file, and no merge conflict."""
    raw = _read(path)
    if raw is None or first_conflict(raw) is not None or _INLINE in raw:
        return False
    samples = lock.base.samples if lock.base else None
    beside = samples_path(path)
    try:
        if samples is None:
            return not beside.exists()
        return beside.read_text(encoding="utf-8") == render_tables([samples])
    except (OSError, UnicodeDecodeError):
        return False


def without_samples(lock: Lock) -> Lock:
    """The lock, as if its base had no samples."""
    if lock.base is None or lock.base.samples is None:
        return lock
    return lock.model_copy(update={"base": lock.base.model_copy(update={"samples": None})})


def _with_samples(lock: Lock, path: Path) -> Lock | None:
    """A lock from a file with its samples in place of their digest; ``None`` if they are not
    there."""
    if lock.base is None or lock.base.samples is None or lock.base.samples.startswith(TABLE):
        return lock  # without samples, or of an earlier release, which had them in the lock
    try:
        table = find_table(samples_path(path), lock.base.samples)
    except OSError as error:
        raise LockError(
            codes.SAMPLES_MISSING.finding(
                "Cannot read the samples of the lock",
                Where(file=str(samples_path(path))),
                found=error.strerror or error,
            )
        ) from error
    if table is None:
        return None
    return lock.model_copy(update={"base": lock.base.model_copy(update={"samples": table})})


def _samples_missing(path: Path) -> LockError:
    beside = samples_path(path)
    there = beside.exists()
    return LockError(
        codes.SAMPLES_MISSING.finding(
            "The samples of the lock belong to another lock"
            if there
            else "The samples of the lock are missing",
            Where(file=str(beside)),
            found="no table with the digest that the lock has" if there else "no such file",
            expected=f"the file that `adapterdock lock` wrote beside {path.name}",
        )
    )


def _require_merged(raw: bytes, path: Path) -> None:
    if first_conflict(raw) is not None:
        raise _conflict(raw, path)


def _conflict(raw: bytes, path: Path, unreadable: str | None = None) -> LockError:
    line = first_conflict(raw)
    if unreadable is None:
        return LockError(
            codes.LOCK_CONFLICT.finding(
                "The lock has a merge conflict", Where(file=str(path), line=line, column=1)
            )
        )
    return LockError(
        codes.LOCK_CONFLICT.finding(
            "The merge conflict in the lock cannot be resolved: one side is not a lock",
            Where(file=str(path), line=line, column=1),
            found=unreadable,
            hint="Take one side (`git checkout --ours` or `--theirs`), and run `adapterdock lock`.",
        )
    )


def _read(path: Path) -> bytes | None:
    try:
        return read_at_most(path, LOCK_BYTES, regular=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LockError(
            codes.LOCK_UNREADABLE.finding(
                "Cannot read the lock", Where(file=str(path)), found=error.strerror or error
            )
        ) from error


def _parse(raw: bytes, path: Path) -> Lock:
    where = Where(file=str(path))
    try:
        document = read_document(raw, str(path), BOUNDS)
    except ManifestError as error:
        raise LockError(
            codes.LOCK_UNREADABLE.finding(
                "Invalid lock: it is not the YAML that `adapterdock lock` writes",
                error.findings[0].where,
                found=error.findings[0].message,
            )
        ) from error
    data = conform(document.root, shape_of(Lock))
    version = data.get("version")
    if type(version) is int and version != LOCK_VERSION:
        raise LockError(
            codes.LOCK_VERSION_UNKNOWN.finding(
                "The lock was written by another version of adapterdock",
                where,
                found=f"version: {version}",
                expected=f"version: {LOCK_VERSION}",
            )
        )
    try:
        return Lock.model_validate(data, strict=True)
    except ValidationError as error:
        raise LockError(
            *(
                _invalid(problem, document)
                for problem in error.errors(include_url=False, include_input=False)[:10]
            )
        ) from error


def _invalid(problem: Mapping[str, Any], document: Document) -> Finding:
    path: tuple[str | int, ...] = tuple(part for part in problem["loc"] if part != "[key]")
    node, last = find(document.root, path), str(path[-1])[:100] if path else ""
    message, kind = "Invalid lock: it was edited by hand or cut off", problem["type"]
    found = None if node is None else describe(node)
    if kind == "missing":
        message, found = f"{message}: missing key {last!r}", None
    elif kind == "extra_forbidden":
        message, found = f"{message}: unknown key {last!r}", None
    elif kind == "value_error":
        found = f"{found}: {problem.get('ctx', {}).get('error', '')}"
    return codes.LOCK_UNREADABLE.finding(
        message, document.where(path), found=found, expected=expected_of(problem)
    )


def render_lock(lock: Lock) -> str:
    """The lock as text, always the same for the same lock; ``read_lock`` reads it back."""
    data = lock.model_dump(mode="json", exclude_defaults=True)
    # PyYAML's own dumper, not libyaml's: some machines lack that, and it folds lines differently.
    return _HEAD + yaml.dump(
        data, Dumper=yaml.SafeDumper, sort_keys=True, width=10_000, allow_unicode=True
    )


def write_lock(lock: Lock, path: Path) -> None:
    """Write ``lock``, and its samples beside it, by rename.

    A reader sees the old lock or the new one, each with its samples, also after the writer was
    killed: both tables are written first, then the lock, and then the old table is removed. A link
    stays a link. Temporary files of killed processes are removed.
    """
    where = Where(file=str(path))
    samples = lock.base.samples if lock.base else None
    beside = samples_path(path)
    try:
        for target in (path, beside):
            for left in left_beside(target.resolve(), ""):
                left.unlink(missing_ok=True)
        if samples is None and not beside.exists():
            _replace(path, render_lock(lock))
            return
        with one_writer(path.parent):
            _write_with_samples(lock, path, samples)
    except OSError as error:
        raise LockError(
            codes.LOCK_UNWRITABLE.finding("Cannot write the lock", where, found=error.strerror)
        ) from error


def _write_with_samples(lock: Lock, path: Path, samples: str | None) -> None:
    beside = samples_path(path)
    if samples is None:
        _replace(path, render_lock(lock))
        beside.unlink(missing_ok=True)
        return
    assert lock.base is not None
    base = lock.base.model_copy(update={"samples": samples_digest(samples)})
    new = not beside.exists()
    try:
        tables = read_tables(beside)
        if samples not in tables:
            _replace(beside, render_tables((*tables, samples)))
        _replace(path, render_lock(lock.model_copy(update={"base": base})))
    except BaseException:
        if new and not path.exists():
            beside.unlink(missing_ok=True)
        raise
    if not is_written(lock, path):
        _replace(beside, render_tables([samples]))


def _replace(path: Path, text: str) -> None:
    path = path.resolve()  # a link stays a link
    temporary = made_beside(path, "")
    try:
        with temporary.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


_HEAD = "# Written by `adapterdock lock`; commit it beside its manifest, do not edit it.\n"
_INLINE = b"\n  samples: " + TABLE.encode()
"""In a lock of an earlier release, which had the samples in it."""

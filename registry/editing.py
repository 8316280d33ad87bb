"""Adding an adapter to a manifest's file, or removing one, together with the lock.

The new text is checked and locked before the file is touched. So a failure, or Ctrl-C, leaves the
manifest and the lock as they were.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ..manifests.bounds import MANIFEST_BYTES
from ..manifests.cut_entry import cut_entry
from ..manifests.edit import set_mapping
from ..manifests.findings import language, usage
from ..manifests.findings.errors import AdapterdockError, ManifestError, UsageError
from ..manifests.findings.finding import Finding, Where
from ..manifests.language.names import NAME_RULE, is_name
from ..manifests.language.rules import unknown_adapter
from ..manifests.language.source import Source, SourceSyntaxError
from ..manifests.language.uses import uses_of
from ..manifests.lock_samples import samples_path
from ..manifests.lockfile import Lock, lock_path, write_lock
from ..manifests.manifest import ManifestFile, read_manifest
from ..manifests.put_back import put_back_on_error
from ..manifests.reading.bounded_file import read_at_most
from ..manifests.reading.document import Document, read_document
from ..manifests.reading.nodes import find
from ..manifests.reading.secrets import redacted
from ..manifests.rewrite import rewrite
from .access.session import Session
from .lock import make_lock
from .locks.project import is_to_write, lock_to_replace
from .resolution import Resolution


@dataclass(frozen=True)
class Edit:
    """A manifest's file with another text. ``file`` is what that text says."""

    path: Path
    before: bytes
    after: bytes
    file: ManifestFile
    document: Document
    """What the file is now."""

    def text(self) -> tuple[str, str]:
        """The text as it is, and as it will be."""
        return self.before.decode("utf-8"), self.after.decode("utf-8")


@dataclass(frozen=True)
class Locked:
    """The lock of an edited manifest, and the one before it."""

    old: Lock | None
    new: Lock
    resolution: Resolution


def add(
    path: Path, name: str, source: str, *, model: str | None = None, dtype: str | None = None
) -> Edit:
    """The manifest with one more adapter. ``source`` counts from the current folder, and is
    written relative to the manifest.

    Args:
        path: The manifest.
        name: Of the adapter.
        source: Where it is.
        model: Replaces ``base.model``, as of :func:`read_manifest`.
        dtype: Replaces ``base.dtype``.

    Raises:
        UsageError: The name is in use, or invalid, or the source is invalid.
        ManifestError: The manifest is invalid, or would be.
    """
    before = _content(path)
    file = _unless_it_lacks(name, path, before, model, dtype)
    if not is_name(name):
        raise UsageError(language.BAD_NAME.finding(f"Invalid name {name!r}", expected=NAME_RULE))
    for section in ("adapters", "compositions"):
        if file is not None and name in getattr(file.manifest, section):
            kind = "an adapter" if section == "adapters" else "a composition"
            raise UsageError(
                usage.ALREADY_DECLARED.finding(
                    f"The manifest already has {kind} {name!r}",
                    file.where((section, name), key=True),
                    found=name,
                )
            )
    registries = () if file is None else file.manifest.registries
    written = source_for(source, path.parent, registries)

    def change(text: str) -> str:
        return set_mapping(text, ("adapters", name), {"source": written.replace("$", "$$")})

    return _edited(path, before, change, model, dtype)


def remove(path: Path, name: str, *, model: str | None = None, dtype: str | None = None) -> Edit:
    """The manifest without an adapter or a composition. ``model`` and ``dtype`` are
    those of :func:`add`.

    Raises:
        UsageError: There is none of this name, something uses it, or another file declares it.
        ManifestError: The manifest is invalid, or would be.
    """
    file, before = _read(path, model, dtype)
    manifest = file.manifest
    if name not in manifest.adapters and name not in manifest.compositions:
        known = [*manifest.adapters, *manifest.compositions]
        raise UsageError(redacted(unknown_adapter(name, known, file.where(("adapters",)))))
    if used := list(uses_of(manifest, name)):
        raise UsageError(*(_still_used(file, name, place) for place in used))
    section = "adapters" if name in manifest.adapters else "compositions"
    document = read_document(before, os.fspath(path))
    if find(document.root, (section, name)) is None:
        raise _elsewhere(file, section, name)

    edit = _edited(path, before, lambda text: cut_entry(text, (section, name)), model, dtype)
    if name in getattr(edit.file.manifest, section):
        raise _elsewhere(edit.file, section, name)
    return edit


def apply(edit: Edit, session: Session) -> Locked:
    """Lock the manifest as it will be, then write both files. Nothing is written if this raises.

    Raises:
        AdapterdockError: As of :func:`make_lock`; or a file cannot be written, or has changed.
    """
    old = lock_to_replace(edit.file)
    try:
        new, resolution = make_lock(edit.file, old, session)
    except AdapterdockError as error:
        raise type(error)(*_as_now(error.findings, edit.document)) from error
    lock = lock_path(edit.path)
    try:
        rewrite(edit.path, edit.before, edit.after)
        if is_to_write(edit.file, old, new):
            with put_back_on_error(lock, samples_path(lock)):
                write_lock(new, lock)
    except BaseException:
        if edit.path.read_bytes() == edit.after:
            rewrite(edit.path, edit.after, edit.before)
        raise
    return Locked(old, new, resolution)


def source_for(text: str, directory: Path, registries: Collection[str] = ()) -> str:
    """A source that counts from the current folder, as a manifest in ``directory`` names it.
    ``registries`` are those that it may mean, for messages.

    Raises :class:`UsageError` for an invalid one.
    """
    bare = text and not text.startswith((".", "/", "~")) and ":" not in text and Path(text).is_dir()
    try:
        source = Source.parse(f"./{text}" if bare else text)
    except SourceSyntaxError as error:
        published = text.partition("/")[0] in registries
        hint = f"Write registry://{text} for what is published there." if published else None
        found = language.BAD_SOURCE.finding("Invalid source", found=text, expected=error, hint=hint)
        raise UsageError(redacted(found)) from error
    relative = not source.location.startswith(("/", "~"))
    if not (source.is_local or source.is_archive) or not relative:
        return text
    there = os.path.relpath(Path(source.location).absolute(), directory.absolute())
    there = there.replace(os.sep, "/")
    if there != ".." and not there.startswith("../"):
        there = "./" if there == "." else f"./{there}"
    return str(replace(source, location=there))


def _unless_it_lacks(
    name: str, path: Path, before: bytes, model: str | None, dtype: str | None
) -> ManifestFile | None:
    """The manifest; ``None`` where all that is wrong with it is that ``name`` is missing, as in
    ``active``, which was written first."""
    try:
        return read_manifest(path, model=model, dtype=dtype, content=before)
    except ManifestError as error:
        missing = (language.UNKNOWN_ADAPTER.id, name)
        if all((finding.code, finding.found) == missing for finding in error.findings):
            return None
        raise


def _read(path: Path, model: str | None, dtype: str | None) -> tuple[ManifestFile, bytes]:
    before = _content(path)
    return read_manifest(path, model=model, dtype=dtype, content=before), before


def _content(path: Path) -> bytes:
    try:
        return read_at_most(path, MANIFEST_BYTES, regular=True)
    except OSError as error:
        raise ManifestError(
            language.UNREADABLE.finding(
                f"Cannot read the file: {error.strerror or error}", Where(os.fspath(path))
            )
        ) from error


def _edited(
    path: Path,
    before: bytes,
    change: Callable[[str], str],
    model: str | None,
    dtype: str | None,
) -> Edit:
    """The edit. What is wrong with the new text is reported where it is in the file as it is."""
    document = read_document(before, os.fspath(path))
    try:
        after = change(before.decode("utf-8")).encode("utf-8")
        file = read_manifest(path, model=model, dtype=dtype, content=after)
    except ManifestError as error:
        raise ManifestError(*_as_now(error.findings, document)) from error
    return Edit(path, before, after, file, document)


def _as_now(findings: Iterable[Finding], document: Document) -> list[Finding]:
    """Findings about the new text, with the lines of the file as it is."""
    files = (None, document.file)  # the one that edits a text does not know the file's name
    return [
        replace(finding, where=_where_now(finding.where, document))
        if finding.where.file in files and (finding.where.path or finding.where.file)
        else finding
        for finding in findings
    ]


def _where_now(where: Where, document: Document) -> Where:
    path = where.path
    if not path or find(document.root, path) is None:
        return Where(document.file, path)
    return document.where(path)


def _still_used(file: ManifestFile, name: str, place: tuple[str | int, ...]) -> Finding:
    where = file.where(place, key=place[0] == "compositions")
    return usage.STILL_USED.finding(f"{name!r} is still used in {where.dotted}", where, found=name)


def _elsewhere(file: ManifestFile, section: str, name: str) -> UsageError:
    where = file.where((section, name), key=True)
    return UsageError(
        usage.DECLARED_ELSEWHERE.finding(
            f"{name!r} is declared in {where.file}, which the manifest extends", where, found=name
        )
    )

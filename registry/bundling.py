"""Bundles: a manifest, its lock and all locked files in one OCI archive."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..manifests.bounds import MANIFEST_BYTES
from ..manifests.findings import registry as codes
from ..manifests.findings import usage as usage_codes
from ..manifests.findings.errors import AdapterdockError, LockError, UsageError
from ..manifests.findings.finding import Where
from ..manifests.lock_samples import render_tables, samples_digest, samples_path
from ..manifests.lockfile import Lock, lock_path, render_lock
from ..manifests.reading.bounded_file import read_at_most
from ..manifests.reading.document import read_document
from ..manifests.reading.nodes import Scalar
from ..manifests.reading.overlay import EXTENDS
from .access.access import opening_of
from .access.published import open_folder
from .access.published_artifacts import artifacts_of
from .access.session import Session, session_for
from .files.disk import guarded, output_path, writing
from .files.progress import Progress, transfer_shown
from .locks.inputs import LockEntry
from .locks.project import lock_of, open_manifest
from .locks.state import kept, mutable, require_lock
from .oci.artifact import Artifact
from .oci.layout import CANNOT_WRITE, OciLayout, write_layout
from .oci.setup_artifact import Content, UnpackableError, pack_files, pack_setup
from .pull import Pulled, pull_file, require_policy
from .setup_places import Places, below, places_of
from .sources.fetch import Fetched, Request, fetch_all
from .store.store import Store

SETUP = "setup"
"""The reference name of the set-up in the archive."""
ADAPTERS = "adapters"
"""What the reference names of its adapters start with."""


@dataclass(frozen=True)
class Bundled:
    """What a bundle has. ``manifest`` is the digest of the set-up's OCI manifest, ``digest`` that
    of the archive's bytes (``None`` where nothing was written); ``size`` is in bytes."""

    files: int
    size: int
    has_base: bool
    manifest: str | None = None
    digest: str | None = None


def bundle(
    manifest: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    with_base: bool = False,
    policy: str | os.PathLike[str] | None = None,
    offline: bool = False,
    dry_run: bool = False,
    store: Store | None = None,
    progress: Progress | None = None,
) -> Bundled:
    """Pack a locked set-up into one OCI archive, which appears when it is complete.

    Files that are not here are fetched as :func:`pull` does, and each is verified. Equal set-ups
    give equal bytes.

    Args:
        manifest: The manifest's path. Its lock must be there and current.
        out: The archive. An archive that is there is replaced.
        with_base: Whether to pack the base's files too.
        policy: A policy file that must allow everything too.
        offline: Use no network.
        dry_run: Check what can be checked without a transfer, and write nothing.
        store: Where fetched files are kept; the user's cache by default.
        progress: Gets what is fetched and written.

    Returns:
        What was packed, or with ``dry_run`` would be.

    Raises:
        UsageError: A part of the set-up exists on this machine only, or ``out`` is something else,
            or cannot be written.
        LockError: The lock is missing, stale or incomplete, or an adapter is mutable.
        PolicyError, SourceError, IntegrityError, StoreError: As :func:`pull`.
    """
    file, out = open_manifest(Path(manifest)), output_path(out)
    session = session_for(file, policy=policy, offline=offline, store=store, progress=progress)
    lock = lock_of(file)
    require_lock(file, lock, frozen=lock is None)
    assert lock is not None
    if findings := mutable(file):
        raise LockError(*findings)
    places = places_of(file, with_base=with_base, extends=_extends(_read(file.files)))
    beside = lock_path(file.files[0])
    check_out(out, [*places.files.values(), beside, samples_path(beside)])
    if dry_run:
        require_policy(file, lock, session.access)
        base = {} if lock.base is None or not with_base else lock.base.files
        locked = [base, *(adapter.files for adapter in lock.adapters.values())]
        sizes = [one.size for files in locked for one in files.values()]
        return Bundled(len(sizes), sum(sizes), bool(base))
    pulled = pull_file(file, session, with_base=with_base)
    read = _read(places.files.values())
    written = {place: read[path] for place, path in places.files.items()}
    artifacts = pack(places, written, pulled) | _from_registries(pulled, session)
    sizes = {c.digest: c.size for one in artifacts.values() for c in one.manifest.contents}
    with (
        session.store.hold(sizes),
        transfer_shown(progress, out.name, sum(sizes.values())) as on_bytes,
    ):
        digest = write_layout(out, artifacts, on_bytes)
    packed = [pulled.base, *pulled.adapters.values()]
    return Bundled(
        sum(map(len, packed)),
        sum(one.fact.size for files in packed for one in files.values()),
        bool(pulled.base),
        artifacts[SETUP].manifest.digest,
        digest,
    )


def pack(places: Places, written: Mapping[str, bytes], pulled: Pulled) -> dict[str, Artifact]:
    """By reference name, the set-up and each of its adapters.

    Args:
        places: Where its files lie.
        written: The bytes of ``places.files``, by place.
        pulled: All locked files.

    Raises:
        UsageError: They cannot be one artifact.
    """
    files = {path: Content.of(raw) for path, raw in written.items()}
    files |= {path: Content.of(raw) for path, raw in lock_files(places, pulled.lock).items()}
    contents: list[Content] = []
    artifacts: dict[str, Artifact] = {}
    entries: dict[LockEntry, Mapping[str, Fetched]] = {None: pulled.base, **pulled.adapters}
    for entry, fetched in entries.items():
        here = {path: _content(one) for path, one in fetched.items()}
        folder = places.folders.get(entry)
        if folder is None:
            contents += here.values()
        else:
            files |= {below(folder, path): content for path, content in here.items()}
        if entry is not None and not _is_published(pulled, entry):
            artifacts[f"{ADAPTERS}/{entry}"] = pack_files(here)
    try:
        artifacts[SETUP] = pack_setup(places.manifest, files, contents)
    except UnpackableError as error:
        raise UsageError(
            codes.SETUP_NOT_MOVABLE.finding(
                f"Cannot pack the set-up: {error}", Where(file=pulled.file.file)
            )
        ) from error
    return artifacts


def _is_published(pulled: Pulled, name: str) -> bool:
    source = pulled.file.manifest.adapters[name].source
    return source is not None and source.is_registry


def _from_registries(pulled: Pulled, session: Session) -> dict[str, Artifact]:
    """The artifacts of adapters that were published in a registry, with what is there of them."""
    file, lock = pulled.file, pulled.lock
    access = replace(session.access, store=session.store).started().under(lock, kept(file, lock))
    folders = [
        open_folder(opening_of(file, name, access, file.where(("adapters", name, "source"))))
        for name in file.manifest.adapters
        if _is_published(pulled, name)
    ]
    wanted = [Request(folder, tuple(folder.files().values())) for folder in folders]
    fetched = fetch_all(wanted, session.store, progress=session.progress)
    return artifacts_of(dict(zip(folders, fetched, strict=True)))


def lock_files(places: Places, lock: Lock) -> dict[str, bytes]:
    """The files that a lock is written to, by place."""
    samples = None if lock.base is None else lock.base.samples
    if lock.base is None or samples is None:
        return {places.lock: render_lock(lock).encode()}
    base = lock.base.model_copy(update={"samples": samples_digest(samples)})
    return {
        places.lock: render_lock(lock.model_copy(update={"base": base})).encode(),
        places.samples: render_tables([samples]).encode(),
    }


def check_out(out: Path, own: Iterable[Path]) -> None:
    """Raise :class:`UsageError` where the archive would replace something else."""
    at = Where(file=str(out))
    real = os.path.realpath(out)
    if real in {os.path.realpath(path) for path in own}:
        raise UsageError(
            codes.TARGET_OCCUPIED.finding("The archive would replace a file of the set-up", at)
        )
    with writing(out, usage_codes.UNWRITABLE, CANNOT_WRITE):
        _require_writable(out.absolute().parent)
        if not os.path.lexists(out):
            return
    try:
        OciLayout(out).close()
    except AdapterdockError as error:
        raise UsageError(
            codes.TARGET_OCCUPIED.finding(
                "The archive would replace something that is not an OCI archive",
                at,
                found=error.findings[0].message,
            )
        ) from error


def _require_writable(folder: Path) -> None:
    """Raise :class:`OSError` where no file can be created in ``folder``."""
    if not stat.S_ISDIR(folder.stat().st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if not os.access(folder, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def _read(paths: Iterable[Path]) -> dict[Path, bytes]:
    found: dict[Path, bytes] = {}
    for path in paths:
        with guarded(path):
            found[path] = read_at_most(path, MANIFEST_BYTES, regular=True)
    return found


def _extends(manifests: Mapping[Path, bytes]) -> Iterator[str]:
    for path, raw in manifests.items():
        entry = read_document(raw, str(path)).root.entries.get(EXTENDS)
        if entry is not None and isinstance(entry.value, Scalar):
            yield entry.value.text


def _content(fetched: Fetched) -> Content:
    assert fetched.fact.sha256 is not None  # a fetched file has one
    return Content(fetched.fact.sha256, fetched.fact.size, fetched.path)

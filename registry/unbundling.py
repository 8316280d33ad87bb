"""What is in a bundle, onto this machine: the set-up into a folder, contents into the store."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from ..manifests.findings import registry as codes
from ..manifests.findings.errors import SourceError, UsageError
from ..manifests.findings.finding import Where
from ..manifests.findings.usage import UNWRITABLE
from ..manifests.language.source import Source
from ..manifests.lockfile import Lock, LockedAdapter, LockedBase
from ..manifests.owner import left_beside, made_beside
from .access.proofs import keep, kept_storage
from .catalogue.catalogue import open_catalogue
from .files.digests import sha256_file
from .files.disk import guarded, output_path, remove, sync_file, sync_folder, writing
from .files.progress import Progress, transfer_shown
from .oci.archive_storage import REGISTRY_TYPE, ArchiveStorage
from .oci.layout import OciLayout
from .oci.manifest import Descriptor, InvalidManifestError
from .oci.setup_artifact import SETUP_TYPE, Setup, read_setup
from .records.entry import LIMIT
from .storages.layout import ADAPTERS
from .store.store import Store

UNPACKING = "unpacking"
"""In the name of a folder that is being written."""
_CANNOT = "Cannot write the set-up"
MOST_TIMES = 100
"""How many times as large as its archive a set-up may be: adapters share tokenizers."""


@dataclass(frozen=True)
class Unpacked:
    """``manifest`` is the set-up's, in ``folder``. ``new`` is whether anything was written."""

    folder: Path
    manifest: Path
    files: tuple[str, ...]
    new: bool


def open_setup(layout: OciLayout, where: Where) -> Setup:
    """The only set-up of an archive. Raises :class:`SourceError` (AD898)."""
    found: list[Setup] = []
    for descriptor in layout.names.values():
        manifest = layout.manifest(descriptor)
        if manifest.artifact_type == SETUP_TYPE:
            try:
                found.append(read_setup(manifest, layout))
            except InvalidManifestError as error:
                raise _invalid(f"Cannot use the set-up of this archive: {error}", where) from error
    if len(found) != 1:
        raise _invalid(f"This archive has {len(found) or 'no'} set-ups", where)
    return found[0]


def unpack(
    archive: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
) -> Unpacked:
    """Write the manifest, the lock and the local files of a bundle into a folder.

    The folder appears when it is complete. One that holds the same files already is left as it is.

    Args:
        archive: What ``bundle`` wrote.
        folder: A new or empty folder.
        progress: Gets what is written.

    Raises:
        SourceError: The archive is damaged, or has no set-up.
        IntegrityError: A content is not what its digest says.
        UsageError: The folder holds something else, or cannot be written: the disk is full.
        StoreError: The archive cannot be read.
    """
    archive, target = Path(archive), Path(os.path.abspath(output_path(folder)))  # noqa: PTH100
    with OciLayout(archive) as layout:
        setup = open_setup(layout, Where(file=str(archive)))
        for left in left_beside(target, UNPACKING):
            remove(left)
        done = Unpacked(target, target / setup.manifest, tuple(sorted(setup.files)), new=True)
        if not _is_free(target):
            _require_same(target, setup.files)
            return replace(done, new=False)
        _check_sizes(setup, archive, target)
        new = made_beside(target, UNPACKING)
        try:
            with _writing(target):
                new.mkdir(parents=True)
            for path, descriptor in sorted(setup.files.items()):
                _write(layout, descriptor, new / path, target, progress)
            with _writing(target):
                new.replace(target)
                sync_folder(target.parent)
        finally:
            remove(new)
    return done


def fill_store(
    archive: str | os.PathLike[str],
    lock: Lock,
    store: Store,
    *,
    with_base: bool = True,
    progress: Progress | None = None,
) -> int:
    """Put the contents that ``lock`` pins by digest, and that an archive has, into the store.

    What is in the store already is not read again. Only digests count, not what the archive says.
    Signatures of its registries are kept too; nothing is believed of them here.

    Returns:
        How many were new.

    Raises:
        SourceError: The archive is damaged.
        IntegrityError: A content is not what its digest says.
        StoreError: The disk refuses.
    """
    new = 0
    wanted = stored_contents(lock, with_base=with_base)
    with OciLayout(Path(archive)) as layout, store.hold(wanted):
        for digest, (path, size) in wanted.items():
            if layout.size(digest) is None or store.find(digest, size) is not None:
                continue
            with store.temporary() as temporary:
                with transfer_shown(progress, path, size) as on_bytes:
                    layout.copy(Descriptor("", digest, size, path), temporary, on_bytes)
                store.publish(temporary, digest, size, origin=f"{path} of {Path(archive).name}")
            new += 1
        _keep_proofs(layout, Path(archive), lock, store)
    return new


def _keep_proofs(layout: OciLayout, archive: Path, lock: Lock, store: Store) -> None:
    """Keep what an archive has of the registries of ``lock``: the signatures that a policy may
    demand, which are verified when an adapter is used."""
    wanted = [
        adapter.registry for adapter in lock.adapters.values() if adapter.registry is not None
    ]
    ids = {entry.id for entry in wanted}
    if not ids:
        return
    for name, descriptor in layout.names.items():
        if layout.manifest(descriptor).artifact_type != REGISTRY_TYPE:
            continue
        catalogue = open_catalogue(ArchiveStorage(archive, name, Where(file=str(archive))))
        if catalogue.id in ids:
            kept = kept_storage(catalogue.id, store)
            for path in catalogue.storage.find(ADAPTERS):
                keep(kept, path, catalogue.storage.read(path, LIMIT))


def stored_contents(lock: Lock, *, with_base: bool = True) -> dict[str, tuple[str, int]]:
    """By digest, a path and the size of each content that the store holds for ``lock``: all that
    are pinned by digest, but those of local folders."""
    entries: list[LockedAdapter | LockedBase] = [*lock.adapters.values()]
    if with_base and lock.base is not None:
        entries.append(lock.base)
    return {
        file.sha256: (path, file.size)
        for entry in entries
        if entry.files and not Source.parse(entry.source).is_local
        for path, file in entry.files.items()
        if file.sha256 is not None
    }


def _writing(target: Path) -> AbstractContextManager[None]:
    """Errors of the disk where the user wants the set-up: not those of the cache."""
    return writing(target, UNWRITABLE, _CANNOT)


def _write(
    layout: OciLayout,
    descriptor: Descriptor,
    into: Path,
    target: Path,
    progress: Progress | None,
) -> None:
    with _writing(target):
        into.parent.mkdir(parents=True, exist_ok=True)
    with transfer_shown(progress, descriptor.title or into.name, descriptor.size) as on_bytes:
        layout.copy(descriptor, into, on_bytes, lambda _: _writing(target))
    with _writing(target):
        sync_file(into)


def _check_sizes(setup: Setup, archive: Path, target: Path) -> None:
    """Raise an error where the files cannot fit, or are far more than the archive has: one content
    may be many files."""
    total = sum(one.size for one in setup.files.values())
    with guarded(archive):
        size = archive.stat().st_size
    if total > MOST_TIMES * size:
        raise _invalid(
            f"Its files are more than {MOST_TIMES} times as large as the archive",
            Where(file=str(archive)),
        )
    place = next(folder for folder in target.parents if folder.is_dir())
    with _writing(target):
        usage = shutil.disk_usage(place)
    if usage.total > 0 and usage.free < total:  # some network mounts report 0 for all
        raise UsageError(
            UNWRITABLE.finding(
                f"Not enough disk space at {place} for the files of the set-up",
                Where(file=str(target)),
                found=f"{usage.free:,} bytes free",
                expected=f"{total:,} bytes",
            )
        )


def _is_free(folder: Path) -> bool:
    with _writing(folder):
        if not os.path.lexists(folder):
            return True
        if folder.is_symlink() or not folder.is_dir():
            raise _occupied(folder, "it is not a folder")
        return not any(folder.iterdir())


def _require_same(folder: Path, files: Mapping[str, Descriptor]) -> None:
    """Raise :class:`UsageError` unless ``folder`` holds exactly these files."""
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    for path in sorted({*there, *files}):
        if path not in files:
            raise _occupied(folder, f"{path}, which is not in the bundle")
        if path not in there:
            raise _occupied(folder, f"other files, and not {path}")
        here = folder / path
        with _writing(folder):
            if here.is_symlink() or sha256_file(here) != files[path].digest:
                raise _occupied(folder, f"another {path}")


def _occupied(folder: Path, found: str) -> UsageError:
    return UsageError(
        codes.TARGET_OCCUPIED.finding(
            "The folder holds something else", Where(file=str(folder)), found=found
        )
    )


def _invalid(message: str, where: Where) -> SourceError:
    return SourceError(codes.SETUP_INVALID.finding(message, where))

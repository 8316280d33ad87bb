"""Bundles: a manifest, its lock and all locked files in one OCI archive."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..manifests.bounds import MANIFEST_BYTES
from ..manifests.findings import registry as codes
from ..manifests.findings.errors import AdapterdockError, LockError, UsageError
from ..manifests.findings.finding import Where
from ..manifests.lock_samples import render_tables, samples_digest
from ..manifests.lockfile import Lock, lock_path, render_lock
from ..manifests.manifest import ManifestFile
from ..manifests.reading.bounded_file import read_at_most
from ..manifests.reading.document import read_document
from ..manifests.reading.nodes import Scalar
from .catalogue.oci_layout import OciLayout, write_layout
from .catalogue.oci_artifact import Artifact
from .catalogue.setup_artifact import Content, UnpackableError, pack_setup
from .files.disk import guarded
from .files.progress import Progress
from .locks.inputs import LockEntry
from .locks.project import lock_of, open_manifest
from .locks.state import mutable, require_lock
from .pull import Pulled, pull_file, require_policy
from .session import session_for
from .setup_places import Places, below, places_of
from .sources.fetch import Fetched
from .store.store import Store

SETUP = "setup"
"""The reference name of the set-up in the archive."""


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
        UsageError: A part of the set-up exists on this machine only, or ``out`` is something else.
        LockError: The lock is missing, stale or incomplete, or an adapter is mutable.
        PolicyError, SourceError, IntegrityError, StoreError: As :func:`pull`.
    """
    file, out = open_manifest(Path(manifest)), Path(out)
    session = session_for(file, policy=policy, offline=offline, store=store, progress=progress)
    lock = lock_of(file)
    require_lock(file, lock, frozen=lock is None)
    assert lock is not None
    if findings := mutable(file):
        raise LockError(*findings)
    manifests = _read_manifests(file)
    places = places_of(file, with_base=with_base, extends=_extends(manifests.values()))
    check_out(out, [*places.manifests.values(), *_beside(file)], file.directory)
    if dry_run:
        require_policy(file, lock, session.access)
        sizes = list(_locked_sizes(lock, with_base=with_base))
        has_base = with_base and lock.base is not None
        return Bundled(len(sizes), sum(sizes), has_base)
    pulled = pull_file(file, session, with_base=with_base)
    packed = pack(places, manifests, pulled)
    total = sum(one.size for one in packed.manifest.contents)
    with _shown(progress, out, total) as on_bytes:
        digest = write_layout(out, {SETUP: packed}, on_bytes)
    count = sum(len(files) for files in (pulled.base, *pulled.adapters.values()))
    return Bundled(count, total, bool(pulled.base), packed.manifest.digest, digest)

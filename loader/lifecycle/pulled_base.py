"""The base that a manifest declares: loaded from its files, or compared with a live model."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from pathlib import Path

from torch import nn

from ...manifests.findings.errors import FingerprintError, StoreError
from ...manifests.findings.finding import Finding, Where, refused
from ...manifests.language.schema import Fingerprint
from ...manifests.lockfile import LoadedAs
from ...registry.access import Access
from ...registry.base.fingerprint import Measured, compare
from ...registry.base.samples import Samples
from ...registry.lock import measure
from ...registry.methods.resized import token_rows
from ...registry.pull import Pulled
from ...registry.resolve import resolve_base
from ...registry.store.link_trees import materialise
from ...registry.store.store import Store
from ..base.checkpoint_weights import Originals
from ..base.float32 import keep_float32
from ..base.load_base import load_base, offloads_to_disk
from ..base.resized import check_rows
from ..base.streamed_load import give_back

log = logging.getLogger("adapterdock")


def loaded_as_of(pulled: Pulled) -> LoadedAs:
    """How the lock says that the base is loaded."""
    locked = pulled.lock.base
    return (locked.loaded_as if locked is not None else None) or LoadedAs()


def resized_as(pulled: Pulled, access: Access, base: nn.Module) -> LoadedAs:
    """Of a live model that the manifest wants with ``vocab_size`` rows: how many rows the base's
    files have. Raises :class:`AttachError` for a model that was not resized: it is not touched."""
    file = pulled.file
    rows = file.manifest.base.vocab_size
    if rows is None:
        return LoadedAs()
    check_rows(base, rows, file.where(("base", "vocab_size")))
    known = loaded_as_of(pulled).resized_from
    if known is None and pulled.lock.base is None and file.manifest.base.model is not None:
        facts = resolve_base(file, access).base
        known = None if facts is None or facts.layout is None else token_rows(facts.layout)
    return LoadedAs(vocab_size=rows, resized_from=known)


def check_declared(pulled: Pulled) -> list[Finding]:
    """What of the manifest's fingerprint the pulled base is not: a lock that was made before the
    fingerprint was declared, or edited, may be of another base."""
    file, locked = pulled.file, pulled.lock.base
    declared = file.manifest.base.fingerprint
    if declared is None or locked is None:
        return []
    found = Measured(
        locked.fingerprint or Fingerprint(weights=None, head_weights=None), _samples(pulled)
    )
    return compare(declared, found, file.where(("base", "fingerprint")))


def load_pulled_base(pulled: Pulled, store: Store) -> tuple[nn.Module, Path, list[Finding]]:
    """The base from its verified files, the folder that it was loaded from, and warnings.

    As long as the model lives, its files are held in the store (a part that is offloaded to disk
    is read from there at each use), and so is the folder for what is offloaded otherwise.
    """
    file = pulled.file
    declared = file.manifest.base
    with ExitStack() as stack:
        stack.enter_context(
            store.hold(f.fact.sha256 for f in pulled.base.values() if f.fact.sha256)
        )
        place: Path | None = None
        if offloads_to_disk(declared):
            try:
                place = stack.enter_context(store.temporary())
            except StoreError as error:  # it may do without
                log.debug("no place to offload to: %s", error)
        folder = base_folder(pulled, store)
        where = file.where(("base", "model"))
        base, notes = load_base(declared, folder, where, place, loaded_as_of(pulled))
        if declared.float32_modules:
            where = file.where(("base", "float32_modules"))
            keep_float32(base, declared.float32_modules, Originals(base, folder, where), where)
            give_back()
        weakref.finalize(base, close_here, os.getpid(), stack.pop_all().close)
    return base, folder, notes


def close_here(process: int, close: Callable[[], None]) -> None:
    """A forked child that drops its copy of the model must not take the parent's files away."""
    if os.getpid() == process:
        close()


def require(findings: Iterable[Finding], accepted: Collection[str]) -> None:
    """Raise :class:`FingerprintError` for what is wrong with a base."""
    bad = refused(findings, accepted)
    if bad:
        raise FingerprintError(*bad)


def _samples(pulled: Pulled) -> Samples | None:
    locked = pulled.lock.base
    return Samples.parse(locked.samples) if locked and locked.samples else None


def expected_fingerprint(
    pulled: Pulled, access: Access, accepted: Collection[str] = ()
) -> tuple[Fingerprint, Samples | None, Where] | None:
    """What the live model is to be compared with, and the samples that name its tensors: the
    manifest's fingerprint, else the lock's, else the base's own files.

    ``None`` where the manifest says nothing of its base, or where its files are out of reach and
    that is ``accepted``. Raises :class:`FingerprintError` where they cannot be read.
    """
    file, locked = pulled.file, pulled.lock.base
    declared = file.manifest.base.fingerprint
    if declared is not None:
        return declared, _samples(pulled), file.where(("base", "fingerprint"))
    where = file.where(("base", "model"))
    if locked is not None and locked.fingerprint is not None:
        return locked.fingerprint, _samples(pulled), where
    if file.manifest.base.model is None:
        return None
    resolution = resolve_base(file, access)
    require(resolution.findings, accepted)
    if resolution.base is None:
        return None
    measured = measure(resolution)
    return measured.fingerprint, measured.samples, where


def base_folder(pulled: Pulled, store: Store) -> Path:
    """A folder with the base's files under their names, for ``from_pretrained``.

    It holds what the lock pins and nothing else (a file dropped beside a local base would be
    read too), by links to where the files are.
    """
    return materialise(store, {path: fetched.path for path, fetched in pulled.base.items()})

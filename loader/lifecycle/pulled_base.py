"""The base that a manifest declares: loaded from its files, or compared with a live model."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from pathlib import Path

from torch import nn

from ...manifests.findings.errors import FingerprintError, StoreError
from ...manifests.findings.finding import Finding, Where, refused
from ...manifests.language.schema import Fingerprint
from ...manifests.lockfile import LoadedAs
from ...registry.access.access import Access
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
from ..model.deployment import close_with

log = logging.getLogger("adapterdock")


def loaded_as_of(pulled: Pulled) -> LoadedAs:
    """How the lock says that the base is loaded."""
    locked = pulled.lock.base
    return (locked.loaded_as if locked is not None else None) or LoadedAs()


def resized_as(pulled: Pulled, access: Access, base: nn.Module) -> LoadedAs:
    """How a live model was loaded where the manifest has ``vocab_size``: how many rows the base's
    files have. Raises :class:`AttachError` for a model that was not resized."""
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
    """Findings where the pulled base differs from the manifest's fingerprint. (A lock may be older
    than the fingerprint, or edited.)"""
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

    As long as the model lives, its files are kept in the store (a part that is offloaded to disk
    is read from there at each use), and so is the folder for other offloaded weights.
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
            except StoreError as error:  # it may not be needed
                log.debug("no folder for offloaded weights: %s", error)
        folder = base_folder(pulled, store)
        where = file.where(("base", "model"))
        base, notes = load_base(declared, folder, where, place, loaded_as_of(pulled))
        if declared.float32_modules:
            where = file.where(("base", "float32_modules"))
            keep_float32(base, declared.float32_modules, Originals(base, folder, where), where)
            give_back()
        close_with(base, stack)
    return base, folder, notes


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
    """The fingerprint to compare the live model with, the samples that name its tensors, and where
    it comes from: the manifest, else the lock, else the base's files.

    ``None`` where the manifest has no base, or where its files cannot be reached and that is
    ``accepted``. Raises :class:`FingerprintError` where they cannot be read.
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

    It holds links to what the lock pins, and nothing else (``from_pretrained`` would read other
    files beside a local base too).
    """
    return materialise(store, {path: fetched.path for path, fetched in pulled.base.items()})

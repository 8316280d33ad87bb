"""From a manifest to a model with its adapters: on a base that is loaded, or on a live one."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from ..manifests.findings import usage as usage_codes
from ..manifests.findings.errors import UsageError
from ..registry.access.session import session_for
from ..registry.files.progress import Progress
from ..registry.locks.project import ManifestSource, open_manifest
from ..registry.pull import pull_file
from ..registry.store.store import Store
from .adapted import AdaptedModel
from .base.live_fingerprint import check_model
from .lifecycle.deployment import budget_of, in_memory_folders, set_up
from .lifecycle.pulled_base import (
    check_declared,
    expected_fingerprint,
    load_pulled_base,
    loaded_as_of,
    require,
    resized_as,
)
from .methods.peft.fit import peft_asker
from .model.deployment import InMemory
from .model.stand_in import host_of

log = logging.getLogger("adapterdock")


def load(
    manifest: ManifestSource,
    *,
    model: str | None = None,
    dtype: str | None = None,
    policy: str | os.PathLike[str] | None = None,
    accept: Iterable[str] = (),
    frozen: bool = False,
    offline: bool = False,
    sources: Mapping[str, InMemory] | None = None,
    residency: int | str | None = None,
    store: Store | None = None,
    progress: Progress | None = None,
) -> AdaptedModel:
    """Load the base of a manifest, attach its adapters, and activate what ``active`` names.

    Obeys the lock beside the manifest. Without one, sources are resolved as ``lock`` resolves them,
    and a finding and a log line say so. Every error has all findings.

    Args:
        manifest: The manifest's path, or its data.
        model: Replaces ``base.model`` in this call; a relative path is from the current folder.
        dtype: Replaces ``base.dtype`` in this call: ``auto`` or a torch dtype's name.
        policy: A policy file that must allow everything too.
        accept: Codes (id or name) of unchecked findings to accept.
        frozen: Refuse a missing or partial lock, and mutable adapters.
        offline: Use no network.
        sources: Adapters in memory by name, in place of their sources: each maps the names of its
            files to bytes (or a config, and tensors by name).
        residency: Bytes (or text such as ``2GiB``) that adapters' weights may take on the model's
            device; replaces the manifest's. See :attr:`AdaptedModel.residency`.
        store: Where fetched files are kept; the user's cache by default.
        progress: Gets what is fetched.

    Returns:
        The base with its adapters, in evaluation mode, on the devices and in the dtype that the
        manifest declares.

    Raises:
        ManifestError: The manifest or the policy file is invalid.
        LockError: The lock is stale or cannot be read, or is missing and ``frozen``.
        SourceError, OfflineError, StoreError: Files cannot be fetched.
        IntegrityError: A file is not what the lock or the manifest says.
        FitError, AttachError: An adapter does not fit, or cannot be attached.
        FingerprintError: The base is not the declared one.
        PolicyError: A policy forbids it.
        UsageError: An argument is wrong.
    """
    budget = budget_of(residency)
    file = open_manifest(manifest, model=model, dtype=dtype)
    declared = file.manifest.base
    if declared.model is None:
        raise UsageError(
            usage_codes.NEEDS_BASE.finding("The manifest declares no base", file.where(("base",)))
        )
    session = session_for(
        file,
        policy=policy,
        accept=accept,
        frozen=frozen,
        offline=offline,
        store=store,
        progress=progress,
        in_memory=in_memory_folders(file, sources),
        ask_peft=peft_asker(later=True),
    )
    pulled = pull_file(file, session)
    session = session.after(pulled.lock)
    require(check_declared(pulled), session.accepted)
    base, folder, notes = load_pulled_base(pulled, session.store)
    adapted = AdaptedModel(base)
    host = host_of(adapted)
    host.live.loaded_as = loaded_as_of(pulled)
    set_up(host, pulled, session, budget, folder, notes)
    return adapted


def attach(
    base: nn.Module,
    manifest: ManifestSource,
    *,
    policy: str | os.PathLike[str] | None = None,
    accept: Iterable[str] = (),
    frozen: bool = False,
    offline: bool = False,
    tokenizer: Any = None,
    sources: Mapping[str, InMemory] | None = None,
    residency: int | str | None = None,
    store: Store | None = None,
    progress: Progress | None = None,
) -> AdaptedModel:
    """Attach a manifest's adapters onto a model that is already loaded.

    The model's own weights are not changed. It is compared with the base that the manifest
    (``base.fingerprint``), else its lock, else the base's files describe; ``base: {}`` compares
    nothing. Whether adapters fit is decided on the live model. If anything raises, nothing is
    attached.

    Args:
        base: The model. Where the manifest has ``base.vocab_size``, it must be resized already.
        manifest: The manifest's path, or its data.
        tokenizer: The model's tokenizer, to be compared with the base's too.
        policy, accept, frozen, offline, sources, residency, store, progress: As for :func:`load`.

    Returns:
        The model with the adapters, and ``active`` set.

    Raises:
        AdapterdockError: As :func:`load`; :class:`FingerprintError` for a model that is not the
            declared base.
    """
    adapted = AdaptedModel(base)
    host = host_of(adapted)
    budget = budget_of(residency)
    file = open_manifest(manifest)
    session = session_for(
        file,
        policy=policy,
        accept=accept,
        frozen=frozen,
        offline=offline,
        store=store,
        progress=progress,
        in_memory=in_memory_folders(file, sources),
        layout=host.live.layout,
        ask_peft=peft_asker(host.live.modules.by_name, later=True),
        base_config=host.live.config,
    )
    pulled = pull_file(file, session)
    session = session.after(pulled.lock)
    host.live.loaded_as = resized_as(pulled, session.access, base)
    expected = expected_fingerprint(pulled, session.access, session.accepted)
    if expected is not None:
        fingerprint, samples, where = expected
        found = check_model(base, fingerprint, samples, where, tokenizer, host.live.loaded_as)
        require(found, session.accepted)
    set_up(host, pulled, session, budget)
    return adapted

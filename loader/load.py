"""From a manifest to a model with its adapters: load the base, or take a live one, and attach."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from ..manifests.findings import usage as usage_codes
from ..manifests.findings.errors import UsageError
from ..registry.files.progress import Progress
from ..registry.locks.project import ManifestSource, open_manifest
from ..registry.pull import pull_file
from ..registry.session import session_for
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
    """The base that ``manifest`` declares, with its adapters attached and ``active`` set.

    Obeys the lock beside the manifest; without one, resolves as ``lock`` would and says so
    (a finding, and a log line). ``model`` and ``dtype`` replace the manifest's for this once.
    ``sources`` hands adapters over in memory, by name, in place of what their sources hold.
    ``residency`` (bytes, or text as in a manifest, whose own it replaces) bounds what adapters'
    weights take on the model's device: see :attr:`AdaptedModel.residency`.
    ``accept`` lists codes of unchecked findings that are accepted. Raises the errors of
    ``manifests.findings.errors``, with every finding.
    """
    budget = budget_of(residency)
    file = open_manifest(manifest, model=model, dtype=dtype)
    declared = file.manifest.base
    if declared.model is None:
        raise UsageError(
            usage_codes.NEEDS_BASE.finding("the manifest declares no base", file.where(("base",)))
        )
    session = session_for(
        file,
        policy=policy,
        accept=accept,
        frozen=frozen,
        offline=offline,
        store=store,
        progress=progress,
        given=in_memory_folders(file, sources),
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
    """Attach the manifest's adapters onto a model that is already loaded; it is not touched.

    The live model is compared with the base that the manifest (``base.fingerprint``), else its
    lock, else the base's own files describe; ``base: {}`` compares nothing. Where the manifest says
    ``vocab_size``, the model must have been resized already. ``tokenizer`` is compared too, if
    given. Fit is decided against the live model itself. ``residency`` is as for :func:`load`.
    Raises as that does, and then nothing is attached.
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
        given=in_memory_folders(file, sources),
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

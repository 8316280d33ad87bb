"""From a manifest to a model with its adapters: load the base, or take a live one, and attach."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..manifests.codes import usage as usage_codes
from ..manifests.errors import FingerprintError, FitError, UsageError
from ..manifests.findings import Finding, Severity, Where
from ..manifests.manifest import ManifestFile
from ..manifests.rules import check_active
from ..manifests.schema import Fingerprint
from ..registry.facts import Layout
from ..registry.fetch import Fetched
from ..registry.gather import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from ..registry.lock import measure
from ..registry.progress import Progress
from ..registry.pull import Pulled, pull
from ..registry.resolve import Access, resolve_base
from ..registry.samples import Samples
from ..registry.store import Store
from ..registry.validate import ManifestSource, open_manifest, policies_in_force
from .adapted import AdaptedModel
from .base import DTYPES, load_base
from .fingerprint import check_model
from .float32 import keep_float32
from .layout import layout_of_model
from .one import Declared, InMemory, attach_declared

log = logging.getLogger("adapterdock")


@dataclass(frozen=True)
class Deployment:
    """What a model was set up from; ``load_adapter`` obeys the same policies and aliases.

    ``base_folder`` is where the base's files (and its tokenizer) are, if the base was loaded
    here. ``findings`` are the warnings of setting it up.
    """

    file: ManifestFile
    pulled: Pulled
    access: Access
    store: Store
    base_folder: Path | None = None
    findings: tuple[Finding, ...] = ()


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
    store: Store | None = None,
    progress: Progress | None = None,
) -> AdaptedModel:
    """The base that ``manifest`` declares, with its adapters attached and ``active`` set.

    Obeys the lock beside the manifest; without one, resolves as ``lock`` would and says so
    (a finding, and a log line). ``sources`` hands adapters over in memory, by name, in place of
    what the manifest says. ``accept`` lists codes of unchecked findings that are accepted.
    Raises the errors of :mod:`adapterdock.manifests.errors`, with every finding.
    """
    file = open_manifest(manifest, model=model, dtype=dtype)
    if file.manifest.base.model is None:
        raise UsageError(
            usage_codes.NEEDS_BASE.finding("the manifest declares no base", file.where(("base",)))
        )
    store = store or Store.default()
    file, in_memory = _without(file, sources)
    pulled = pull(
        file, policy=policy, accept=accept, frozen=frozen, offline=offline,
        store=store, progress=progress,
    )
    where = file.where(("base", "model"))
    folder = base_folder(pulled, store)
    declared = file.manifest.base
    base = load_base(declared, folder, where)
    if declared.float32_modules:
        keep_float32(base, declared.float32_modules, where=file.where(("base", "float32_modules")))
    return _set_up(base, pulled, in_memory, policy, accept, offline, store, folder)


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
    store: Store | None = None,
    progress: Progress | None = None,
) -> AdaptedModel:
    """Attach the manifest's adapters onto a model that is already loaded; it is not touched.

    The live model is compared with the base that the manifest (``base.fingerprint``), else its
    lock, else the base's own files describe; ``base: {}`` compares nothing. ``tokenizer`` is
    compared too, if given. Fit is decided against the live model itself. Raises as :func:`load`
    does, and then nothing is attached.
    """
    file = open_manifest(manifest)
    store = store or Store.default()
    file, in_memory = _without(file, sources)
    layout = layout_of_model(base)
    pulled = pull(
        file, policy=policy, accept=accept, frozen=frozen, offline=offline,
        layout=layout, store=store, progress=progress,
    )
    access = Access(offline=offline, policies=policies_in_force(file, policy))
    accepted = {*pulled.lock.accepted, *accept}
    expected = expected_fingerprint(pulled, access)
    if expected is not None:
        fingerprint, samples, where = expected
        findings = check_model(base, fingerprint, samples, where, tokenizer=tokenizer)
        _refuse(findings, accepted, FingerprintError)
    return _set_up(base, pulled, in_memory, policy, accept, offline, store, None)


def expected_fingerprint(
    pulled: Pulled, access: Access
) -> tuple[Fingerprint, Samples | None, Where] | None:
    """What the live model is to be compared with, and the samples that name its tensors.

    ``None`` where the manifest says nothing of its base.
    """
    file, lock = pulled.file, pulled.lock
    where = file.where(("base", "fingerprint"))
    declared = file.manifest.base.fingerprint
    samples = Samples.parse(lock.base.samples) if lock.base and lock.base.samples else None
    if declared is not None:
        return declared, samples, where
    if lock.base is not None and lock.base.fingerprint is not None:
        return lock.base.fingerprint, samples, file.where(("base", "model"))
    if file.manifest.base.model is None:
        return None
    resolution = resolve_base(file, access)
    if resolution.base is None:
        raise FingerprintError(*resolution.findings)
    measured = measure(resolution)
    return measured.fingerprint, measured.samples, file.where(("base", "model"))


def base_folder(pulled: Pulled, store: Store) -> Path:
    """A folder with the base's files under their names, for ``from_pretrained``.

    A local base is used where it is; others are linked from the store and the Hub's cache.
    """
    model = pulled.file.manifest.base.model
    assert model is not None
    if model.is_local:
        return model.local_path(pulled.file.directory)
    return store.materialise({path: fetched.path for path, fetched in pulled.base.items()})


def _set_up(
    base: nn.Module,
    pulled: Pulled,
    in_memory: Mapping[str, InMemory],
    policy: str | os.PathLike[str] | None,
    accept: Iterable[str],
    offline: bool,
    store: Store,
    folder: Path | None,
) -> AdaptedModel:
    """The wrapper with every adapter, composition and rule of the manifest; all or nothing."""
    file = pulled.file
    access = Access(offline=offline, policies=policies_in_force(file, policy))
    for note in pulled.notes:
        log.warning("%s", note)
    adapted = AdaptedModel(base)
    notes: list[Finding] = [*pulled.notes, *file.warnings]
    try:
        for name, declared in _declared(pulled, in_memory, store):
            notes += attach_declared(
                adapted, name, declared, accepted={*pulled.lock.accepted, *accept}
            )
        _define(adapted, file)
    except BaseException:
        adapted.detach()
        raise
    adapted.deployment = Deployment(
        file, pulled, access, store, folder, tuple(dict.fromkeys(notes))
    )
    return adapted


def _define(adapted: AdaptedModel, file: ManifestFile) -> None:
    manifest = file.manifest
    rules, where = manifest.rules, file.where(("rules",))
    adapted.rules = lambda active: check_active(
        rules, active, {n: a.rank for n, a in adapted.attached.items()}, where
    )
    from .compose import define_compositions

    define_compositions(adapted, manifest)
    if manifest.active is not None:
        adapted.set_adapter(
            manifest.active if isinstance(manifest.active, str) else list(manifest.active)
        )


def _declared(
    pulled: Pulled, in_memory: Mapping[str, InMemory], store: Store
) -> Iterable[tuple[str, Declared]]:
    file = pulled.file
    common = {"aliases": file.manifest.base.aliases, "base": file.manifest.base.model}
    for name, adapter in file.manifest.adapters.items():
        files: Mapping[str, Fetched] = pulled.adapters[name]
        yield (
            name,
            Declared(
                config=files[ADAPTER_CONFIG],
                weights=files[ADAPTER_WEIGHTS],
                verified=store.verified,
                source=adapter.source,
                dtype=_dtype(adapter.dtype),
                trainable=adapter.trainable,
                where=file.where(("adapters", name, "source")),
                **common,
            ),
        )
    for name, given in in_memory.items():
        yield name, Declared(config=given.config, weights=given.weights, **common)


def _dtype(name: str | None) -> torch.dtype | None:
    return None if name is None else DTYPES.get(name)


def _without(
    file: ManifestFile, sources: Mapping[str, InMemory] | None
) -> tuple[ManifestFile, Mapping[str, InMemory]]:
    raise NotImplementedError


def _refuse(
    findings: Iterable[Finding], accepted: Iterable[str], kind: type[FitError | FingerprintError]
) -> None:
    bad = [
        f
        for f in findings
        if f.severity is Severity.ERROR
        or (f.severity is Severity.UNCHECKED and f.code not in set(accepted))
    ]
    if bad:
        raise kind(*bad)


_ = (replace, Layout)

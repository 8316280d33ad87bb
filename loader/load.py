"""From a manifest to a model with its adapters: load the base, or take a live one, and attach."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..manifests.codes import loader as codes
from ..manifests.codes import usage as usage_codes
from ..manifests.errors import FingerprintError, RoutingError, UsageError
from ..manifests.findings import Finding, Where, refused
from ..manifests.manifest import ManifestFile
from ..manifests.names import did_you_mean
from ..manifests.rules import check_active, flatten
from ..manifests.schema import Fingerprint
from ..registry.lock import measure
from ..registry.progress import Progress
from ..registry.project import ManifestSource, open_manifest, policies_in_force
from ..registry.pull import Pulled, pull
from ..registry.resolve import Access, resolve_base
from ..registry.samples import Samples
from ..registry.sources.given import GivenFolder
from ..registry.store import Store
from .adapted import AdaptedModel
from .base import DTYPES, load_base
from .fingerprint import check_model
from .float32 import keep_float32
from .layout import layout_of_model
from .one import attach_files

log = logging.getLogger("adapterdock")

InMemory = Mapping[str, bytes]
"""An adapter in memory: ``adapter_config.json`` and ``adapter_model.safetensors`` to bytes."""


@dataclass(frozen=True)
class Deployment:
    """What a model was set up from; ``load_adapter`` obeys the same policies and aliases.

    ``base_folder`` is where the base's files (and its tokenizer) are, if the base was loaded
    here. ``accepted`` are the codes of unchecked findings that a person accepted, ``findings``
    the warnings of setting it up.
    """

    file: ManifestFile
    pulled: Pulled
    access: Access
    store: Store
    accepted: frozenset[str] = frozenset()
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
    (a finding, and a log line). ``model`` and ``dtype`` replace the manifest's for this once.
    ``sources`` hands adapters over in memory, by name, in place of what their sources hold.
    ``accept`` lists codes of unchecked findings that are accepted. Raises the errors of
    :mod:`adapterdock.manifests.errors`, with every finding.
    """
    file = open_manifest(manifest, model=model, dtype=dtype)
    declared = file.manifest.base
    if declared.model is None:
        raise UsageError(
            usage_codes.NEEDS_BASE.finding("the manifest declares no base", file.where(("base",)))
        )
    given = given_folders(file, sources)
    store = store or Store.default()
    accepted = frozenset(accept)
    pulled = pull(
        file,
        policy=policy,
        accept=accepted,
        frozen=frozen,
        offline=offline,
        given=given,
        store=store,
        progress=progress,
    )
    with store.hold(f.fact.sha256 for f in pulled.base.values() if f.fact.sha256):
        folder = base_folder(pulled, store)
        base = load_base(declared, folder, file.where(("base", "model")))
    if declared.float32_modules:
        keep_float32(base, declared.float32_modules, where=file.where(("base", "float32_modules")))
    access = Access(offline=offline, policies=policies_in_force(file, policy))
    return set_up(base, pulled, access, store, accepted, folder)


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
    given = given_folders(file, sources)
    store = store or Store.default()
    accepted = frozenset(accept)
    pulled = pull(
        file,
        policy=policy,
        accept=accepted,
        frozen=frozen,
        offline=offline,
        given=given,
        layout=layout_of_model(base),
        store=store,
        progress=progress,
    )
    access = Access(offline=offline, policies=policies_in_force(file, policy))
    accepted |= frozenset(pulled.lock.accepted)
    expected = expected_fingerprint(pulled, access)
    if expected is not None:
        fingerprint, samples, where = expected
        findings = check_model(base, fingerprint, samples, where, tokenizer=tokenizer)
        bad = refused(findings, accepted)
        if bad:
            raise FingerprintError(*bad)
    return set_up(base, pulled, access, store, accepted, None)


def expected_fingerprint(
    pulled: Pulled, access: Access
) -> tuple[Fingerprint, Samples | None, Where] | None:
    """What the live model is to be compared with, and the samples that name its tensors.

    ``None`` where the manifest says nothing of its base.
    """
    file, lock = pulled.file, pulled.lock
    declared = file.manifest.base.fingerprint
    samples = Samples.parse(lock.base.samples) if lock.base and lock.base.samples else None
    if declared is not None:
        return declared, samples, file.where(("base", "fingerprint"))
    where = file.where(("base", "model"))
    if lock.base is not None and lock.base.fingerprint is not None:
        return lock.base.fingerprint, samples, where
    if file.manifest.base.model is None:
        return None
    resolution = resolve_base(file, access)
    if resolution.base is None:
        raise FingerprintError(*resolution.findings)
    measured = measure(resolution)
    return measured.fingerprint, measured.samples, where


def base_folder(pulled: Pulled, store: Store) -> Path:
    """A folder with the base's files under their names, for ``from_pretrained``.

    A local base is used where it is; others are linked from the store and the Hub's cache.
    """
    model = pulled.file.manifest.base.model
    assert model is not None
    if model.is_local:
        return model.local_path(pulled.file.directory)
    return store.materialise({path: fetched.path for path, fetched in pulled.base.items()})


def given_folders(
    file: ManifestFile, sources: Mapping[str, InMemory] | None
) -> dict[str, GivenFolder]:
    """Adapters handed over in memory as opened folders. Raises :class:`UsageError` for a name
    that the manifest does not declare."""
    adapters = file.manifest.adapters
    unknown = sorted(set(sources or ()) - set(adapters))
    if unknown:
        raise UsageError(
            *(
                usage_codes.GIVEN_UNDECLARED.finding(
                    f"the manifest declares no adapter {name!r}",
                    file.where(("adapters",)),
                    found=name,
                    expected=", ".join(adapters) or "none is declared",
                    hint=did_you_mean(name, adapters),
                )
                for name in unknown
            )
        )
    return {
        name: GivenFolder(adapters[name].source, files, file.where(("adapters", name)))
        for name, files in (sources or {}).items()
    }


def set_up(
    base: nn.Module,
    pulled: Pulled,
    access: Access,
    store: Store,
    accepted: frozenset[str],
    folder: Path | None,
) -> AdaptedModel:
    """The wrapper with every adapter, composition and rule of the manifest; all or nothing."""
    file = pulled.file
    manifest = file.manifest
    accepted |= frozenset(pulled.lock.accepted)
    adapted = AdaptedModel(base)
    notes = [*pulled.notes, *file.warnings]
    try:
        for name, adapter in manifest.adapters.items():
            notes += attach_files(
                adapted,
                name,
                pulled.adapters[name],
                store.verified,
                source=adapter.source,
                base=manifest.base,
                directory=file.directory,
                accepted=accepted,
                dtype=DTYPES.get(adapter.dtype or ""),
                trainable=adapter.trainable,
                where=file.where(("adapters", name, "source")),
            )
        define(adapted, file)
    except BaseException:
        adapted.detach()
        raise
    for note in pulled.notes:
        log.warning("%s", note)
    findings = tuple(dict.fromkeys(notes))
    adapted.deployment = Deployment(file, pulled, access, store, accepted, folder, findings)
    return adapted


def define(adapted: AdaptedModel, file: ManifestFile) -> None:
    """Give the model the manifest's rules, compositions and active set."""
    manifest = file.manifest
    where = file.where(("rules",))
    adapted.rules = lambda active: check_active(
        manifest.rules, active, {n: a.rank for n, a in adapted.attached.items()}, where
    )
    findings: list[Finding] = []
    for name, composition in manifest.compositions.items():
        if composition.combine == "sum":
            adapted.define_composition(name, flatten(manifest, name))
        else:
            findings.append(
                codes.COMBINE_NOT_YET.finding(
                    f"the composition {name!r} cannot be made yet",
                    file.where(("compositions", name, "combine")),
                    found=composition.combine,
                    expected="sum",
                )
            )
    if findings:
        raise RoutingError(*findings)
    if manifest.active is not None:
        adapted.set_adapter(
            manifest.active if isinstance(manifest.active, str) else list(manifest.active)
        )

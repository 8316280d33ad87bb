"""From a manifest to a model with its adapters: load the base, or take a live one, and attach."""

from __future__ import annotations

import logging
import os
import re
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..manifests.findings import usage as usage_codes
from ..manifests.findings.errors import FingerprintError, StoreError, UsageError
from ..manifests.findings.finding import Finding, Where, refused
from ..manifests.language.names import did_you_mean
from ..manifests.language.rules import answering, check_active, flatten, is_made
from ..manifests.language.schema import BYTE_SIZE_PATTERN, Fingerprint, Manifest, Rules, parse_bytes
from ..manifests.lockfile import LoadedAs, Lock
from ..manifests.manifest import ManifestFile
from ..registry.base.fingerprint import Measured, compare
from ..registry.base.samples import Samples
from ..registry.files.progress import Progress
from ..registry.lock import accepted_codes, measure
from ..registry.locks.project import ManifestSource, open_manifest, policies_in_force
from ..registry.methods.resized import token_rows
from ..registry.pull import Pulled, pull
from ..registry.resolve import Access, resolve_base
from ..registry.sources.in_memory import GivenFolder
from ..registry.store.link_trees import materialise
from ..registry.store.store import Store
from .adapted import AdaptedModel
from .adapter.adapter import Adapter
from .base.checkpoint_weights import Originals
from .base.float32 import keep_float32
from .base.live_fingerprint import check_model
from .base.load_base import DTYPES, load_base, offloads_to_disk
from .base.resized import check_rows
from .base.streamed_load import give_back
from .build.from_files import AdapterFiles, attach_files
from .build.in_memory import files_in
from .build.new_adapter import attach_begun, config_of
from .methods.peft.fit import peft_asker
from .routing.selection import Selection

log = logging.getLogger("adapterdock")

InMemory = Mapping[str, Any]
"""An adapter in memory: the names of its files to their bytes. ``adapter_config.json`` may also be
a PEFT config or a mapping, ``adapter_model.safetensors`` a mapping of names to tensors."""


@dataclass(frozen=True)
class Deployment:
    """What a model was set up from; ``load_adapter`` obeys the same policies and aliases.

    ``base_folder`` is where the base's files (and its tokenizer) are, if the base was loaded
    here. ``accepted`` are the codes of unchecked findings that a person accepted, ``findings``
    the warnings of setting it up, ``residency`` the budget that was given beside the manifest.
    ``base_from`` are the manifest and lock that say which base it is, where ``file`` does not.
    """

    file: ManifestFile
    pulled: Pulled
    access: Access
    store: Store
    accepted: frozenset[str] = frozenset()
    base_folder: Path | None = None
    findings: tuple[Finding, ...] = ()
    residency: int | None = None
    base_from: tuple[ManifestFile, Lock] | None = None

    @property
    def said_of_base(self) -> tuple[ManifestFile, Lock]:
        """The manifest and lock that last said which base this is; those in force if none did."""
        return self.base_from or (self.file, self.pulled.lock)


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
    given = given_folders(file, sources)
    store = store or Store.default()
    accepted = accepted_codes(accept)
    pulled = pull(
        file,
        policy=policy,
        accept=accepted,
        frozen=frozen,
        offline=offline,
        given=given,
        ask_peft=peft_asker(later=True),
        store=store,
        progress=progress,
    )
    accepted |= frozenset(pulled.lock.accepted)
    require(check_declared(pulled), accepted)
    base, folder, notes = load_pulled_base(pulled, store)
    access = Access(offline=offline, policies=policies_in_force(file, policy))
    adapted = AdaptedModel(base)
    adapted.loaded_as = loaded_as_of(pulled)
    return set_up(adapted, pulled, access, store, accepted, budget, folder, notes)


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
    budget = budget_of(residency)
    file = open_manifest(manifest)
    given = given_folders(file, sources)
    store = store or Store.default()
    accepted = accepted_codes(accept)
    pulled = pull(
        file,
        policy=policy,
        accept=accepted,
        frozen=frozen,
        offline=offline,
        given=given,
        layout=adapted.layout,
        ask_peft=peft_asker(adapted.modules_of_base.by_name, later=True),
        base_config=config_of(adapted),
        store=store,
        progress=progress,
    )
    access = Access(offline=offline, policies=policies_in_force(file, policy))
    accepted |= frozenset(pulled.lock.accepted)
    adapted.loaded_as = resized_as(pulled, access, base)
    expected = expected_fingerprint(pulled, access, accepted)
    if expected is not None:
        fingerprint, samples, where = expected
        found = check_model(base, fingerprint, samples, where, tokenizer, adapted.loaded_as)
        require(found, accepted)
    return set_up(adapted, pulled, access, store, accepted, budget)


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
        weakref.finalize(base, _close_here, os.getpid(), stack.pop_all().close)
    return base, folder, notes


def _close_here(process: int, close: Callable[[], None]) -> None:
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


def given_folders(
    file: ManifestFile, sources: Mapping[str, InMemory] | None
) -> dict[str, GivenFolder]:
    """Adapters handed over in memory as opened folders. Raises :class:`UsageError` for a name
    that the manifest does not declare."""
    adapters = file.manifest.adapters
    located = {name: one.source for name, one in adapters.items() if one.source is not None}
    unknown = sorted(set(sources or ()) - set(located))
    if unknown:
        raise UsageError(
            *(
                usage_codes.GIVEN_UNDECLARED.finding(
                    f"the manifest declares no source of an adapter {name!r}",
                    file.where(("adapters",)),
                    found=name,
                    expected=", ".join(located) or "none is declared",
                    hint=did_you_mean(name, located),
                )
                for name in unknown
            )
        )
    return {
        name: GivenFolder(located[name], files_in(files), file.where(("adapters", name)))
        for name, files in (sources or {}).items()
    }


def set_up(
    adapted: AdaptedModel,
    pulled: Pulled,
    access: Access,
    store: Store,
    accepted: frozenset[str],
    budget: int | None = None,
    folder: Path | None = None,
    base_notes: Iterable[Finding] = (),
) -> AdaptedModel:
    """Give the wrapper every adapter, composition and rule of the manifest; all or nothing."""
    file = pulled.file
    manifest = file.manifest
    notes = [*pulled.notes, *file.warnings, *base_notes]
    at_once = used_at_once(manifest)
    try:
        adapted.residency = budget if budget is not None else declared_budget(manifest)
        for name, adapter in manifest.adapters.items():
            if adapter.config is not None:
                notes += attach_begun(adapted, file, name, accepted)
                continue
            files = files_of(pulled, name, store, accepted)
            notes += attach_files(adapted, files, lazy=adapter.lazy and name not in at_once)
        define(adapted, file)
        hold_files(adapted, pulled, store)
    except BaseException:
        adapted.detach()
        raise
    for note in pulled.notes:
        log.warning("%s", note)
    findings = tuple(dict.fromkeys(notes))
    adapted.deployment = Deployment(file, pulled, access, store, accepted, folder, findings, budget)
    return adapted


def files_of(pulled: Pulled, name: str, store: Store, accepted: Collection[str]) -> AdapterFiles:
    """A pulled adapter's files, and how the manifest wants it attached."""
    file = pulled.file
    adapter = file.manifest.adapters[name]
    return AdapterFiles(
        name,
        pulled.adapters[name],
        store.verified,
        source=adapter.source,
        base=file.manifest.base,
        directory=file.directory,
        accepted=accepted,
        dtype=DTYPES.get(adapter.dtype or ""),
        trainable=adapter.trainable,
        where=file.where(("adapters", name, "source")),
    )


def used_at_once(manifest: Manifest) -> frozenset[str]:
    """Adapters that are needed as soon as the model is: the active ones, and those that are
    combined into others. Being lazy puts them off no further."""
    combined = [name for name, one in manifest.compositions.items() if one.combine != "sum"]
    active = () if manifest.active is None else manifest.active
    named = [active] if isinstance(active, str) else list(active)
    return frozenset(flatten(manifest, dict.fromkeys((*named, *combined), 1.0)))


def budget_of(residency: int | str | None) -> int | None:
    """A residency budget in bytes. Raises :class:`UsageError` for what is none."""
    if residency is None:
        return None
    if isinstance(residency, str) and re.match(BYTE_SIZE_PATTERN, residency):
        return parse_bytes(residency)
    if isinstance(residency, int) and not isinstance(residency, bool) and residency >= 0:
        return residency
    raise UsageError(
        usage_codes.BAD_RESIDENCY.finding(f"{residency!r} is no number of bytes", found=residency)
    )


def declared_budget(manifest: Manifest) -> int | None:
    return None if manifest.residency is None else parse_bytes(manifest.residency)


def hold_files(adapted: AdaptedModel, pulled: Pulled, store: Store) -> None:
    """Keep the adapters' files in the store as long as the model lives, where they will be read
    again."""
    lazy = any(not adapter.loaded for adapter in adapted.attached.values())
    if not lazy and adapted.residency is None:
        return
    with ExitStack() as stack:
        files = [one.fact.sha256 for found in pulled.adapters.values() for one in found.values()]
        stack.enter_context(store.hold(digest for digest in files if digest))
        weakref.finalize(adapted, _close_here, os.getpid(), stack.pop_all().close)


@dataclass(frozen=True)
class ManifestRules:
    """A manifest's rules, asked of the adapters that are attached when they are asked."""

    rules: Rules
    attached: Mapping[str, Adapter]
    where: Where

    def __call__(self, active: Mapping[str, float]) -> list[Finding]:
        ranks = {name: self.attached[name].rank for name in active}
        return check_active(self.rules, active, ranks, self.where)


def define(adapted: AdaptedModel, file: ManifestFile, made: Collection[str] = ()) -> None:
    """Give the model the manifest's rules, compositions and active set. The compositions ``made``
    are adapters of the model already."""
    manifest = file.manifest
    define_rules(adapted, file)
    for name, composition in manifest.compositions.items():
        weights = flatten(manifest, name)
        if name in made:
            adapted.name_composition(name, composition, weights)
            continue
        options = composition.model_dump(exclude={"combine", "of"})
        where = file.where(("compositions", name))
        adapted.define_composition(
            name, weights, combine=composition.combine, where=where, **options
        )
    active = manifest.active
    if active is not None:
        adapted.set_adapter(active if isinstance(active, str) else _active(manifest, active))


def _active(manifest: Manifest, names: Sequence[str]) -> Selection:
    """What several names of ``active`` select. Where adapters are named by several roads, their
    weights add up."""
    sums = [flatten(manifest, name) for name in names if not is_made(manifest, name)]
    if len({adapter for part in sums for adapter in part}) == sum(map(len, sums)):
        return list(names)
    return answering(manifest, names)


def define_rules(adapted: AdaptedModel, file: ManifestFile) -> None:
    """Give the model the manifest's rules."""
    rules = file.manifest.rules
    if rules != Rules():
        adapted.rules = ManifestRules(rules, adapted.attached, file.where(("rules",)))

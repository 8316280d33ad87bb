"""Change a running model to another manifest: plan the changes, and apply all at once."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ...manifests.findings import changing as codes
from ...manifests.findings import lock as lock_codes
from ...manifests.findings.errors import AttachError, FingerprintError
from ...manifests.findings.finding import Finding, refused
from ...manifests.language.rules import flatten, is_made
from ...manifests.language.schema import Rules
from ...manifests.lockfile import Lock
from ...manifests.manifest import ManifestFile
from ...registry.access.access import Access, open_adapter_folder
from ...registry.access.session import Session, session_for
from ...registry.files.digests import folder_digest
from ...registry.lock import make_lock
from ...registry.locks.project import ManifestSource, lock_of, open_manifest
from ...registry.locks.state import overridden, require_lock
from ...registry.plan import (
    Held,
    Plan,
    State,
    as_weights,
    check_same_base,
    plan_of,
    same_recipe,
    wanted_state,
)
from ...registry.pull import Pulled, pull_pinned, require_policy
from ...registry.read_facts import gather_adapter
from ...registry.sources.fetch import fetch
from ...registry.store.store import Store
from ..adapter.adapter import Built
from ..adapter.memory import put_off
from ..base.live_fingerprint import check_model
from ..base.resized import check_rows
from ..build.from_files import digest_of
from ..build.new_adapter import make_declared_adapter
from ..methods.peft.fit import peft_asker
from ..model.deployment import Deployment, InMemory
from ..model.host import AdapterHost
from .choose import ManifestRules, define
from .deployment import declared_budget, files_of, hold_files, in_memory_folders, used_at_once
from .pulled_base import expected_fingerprint

log = logging.getLogger("adapterdock")


def plan_change(
    host: AdapterHost,
    manifest: ManifestSource,
    *,
    policy: str | os.PathLike[str] | None = None,
    accept: Iterable[str] = (),
    frozen: bool = False,
    offline: bool = False,
    sources: Mapping[str, InMemory] | None = None,
    lock: Lock | None = None,
) -> Plan:
    """See :meth:`AdaptedModel.plan`. ``lock`` is obeyed in place of the one beside the manifest, of
    which it is a newer version: what an alias was promoted to."""
    deployment = host.deployment
    read = isinstance(manifest, ManifestFile)
    file = manifest if read else open_manifest(manifest, **overrides_of(host))
    session = session_for(
        file,
        policy=policy,
        accept=(*accept, *host.session.accepted),
        frozen=frozen,
        offline=offline,
        store=host.session.store,
        in_memory=in_memory_folders(file, sources),
        layout=host.live.layout,
        ask_peft=peft_asker(host.live.modules.by_name, later=True),
        base_config=host.live.config,
    )
    if lock is None:
        lock = _lock(file, session)
    accepted, access = session.accepted | frozenset(lock.accepted), session.access
    _require_same_base(host, file, lock, access, accepted)
    stamp = _stamp(host)
    now = _state(host)
    wanted = wanted_state(file, lock, _digests_of_mutable(file, access, session.store))
    wanted = replace(wanted, residency=_budget(deployment, file))
    return plan_of(now, wanted, file, lock, access, accepted, stamp, locked=lock_of(file) == lock)


def apply_plan(host: AdapterHost, plan: Plan) -> None:
    """See :meth:`AdaptedModel.apply`."""
    _require_current(host, plan)
    file, old = plan.file, host.deployment
    session = Session(plan.access, plan.accepted, store=host.session.store)
    locked = plan.lock if plan.locked else None
    pulled = pull_pinned(file, plan.lock, session, locked, with_base=False)
    _require_unchanged(pulled, plan)
    if locked is None and lock_of(file) is not None:  # the caller's newer lock pins it
        notes = (note for note in pulled.notes if note.code != lock_codes.NO_LOCK.id)
        pulled = replace(pulled, notes=tuple(notes))
    if old is not None:
        pulled = replace(pulled, base=old.pulled.base)
    with host.adapters.changing():
        _require_current(host, plan)
        built, notes = _build(host, plan, pulled, session)
        computed = [name for name, recipe in host.state.recipes.items() if recipe.combine != "sum"]
        kept, composed = _compositions(host, plan, built)
        built += composed
        deployment = Deployment(
            file,
            pulled,
            session.after(plan.lock),
            old.base_folder if old else None,
            tuple(dict.fromkeys([*pulled.notes, *file.warnings, *notes])),
            old.residency if old else None,
            old.base_declaration if old and file.manifest.base.model is None else None,
        )

        def define_anew() -> int | None:
            made = [n for n in file.manifest.compositions if n in host.adapters.by_name]
            define(host, file, made)
            host.adapters.say(deployment=deployment)
            return _budget(old, file)

        gone = [name for name in computed if name not in kept]
        host.adapters.exchange(built, (*plan.removed, *plan.replaced, *gone), define_anew)
        hold_files(host, pulled, session.store)
    for note in pulled.notes:
        log.warning("%s", note)


def overrides_of(host: AdapterHost) -> dict[str, str | None]:
    """``model`` and ``dtype`` that were passed at load, in place of the manifest's own."""
    overrides = host.file.overrides if host.file else {}
    return {"model": overrides.get("model"), "dtype": overrides.get("dtype")}


def _budget(deployment: Deployment | None, file: ManifestFile) -> int | None:
    """The residency budget: the one passed at load, else the manifest's."""
    passed = deployment.residency if deployment else None
    return passed if passed is not None else declared_budget(file.manifest)


def _build(
    host: AdapterHost, plan: Plan, pulled: Pulled, session: Session
) -> tuple[list[Built], list[Finding]]:
    """All new or changed adapters, checked and built, not yet attached."""
    manifest, budget = plan.file.manifest, host.adapters.residency.budget
    arriving: list[Built] = []
    notes: list[Finding] = []
    at_once = used_at_once(manifest)
    for name, adapter in manifest.adapters.items():
        if name in plan.kept:
            continue
        if adapter.config is not None:
            built, more = make_declared_adapter(host.live, plan.file, name, plan.accepted)
            arriving.append(built)
            notes += more
            continue
        files = files_of(pulled, name, session)
        put = adapter.lazy and name not in at_once
        built, more = files.put_off(host.live) if put else files.build(host.live)
        if budget is not None and name not in at_once and built.adapter.reload:
            put_off(built.adapter)  # it is checked, and there may be no room for it
            built = Built(built.adapter, {}, {}, {})
        arriving.append(built)
        notes += more
    return arriving, notes


def _compositions(
    host: AdapterHost, plan: Plan, arriving: Iterable[Built]
) -> tuple[list[str], list[Built]]:
    """Names of computed compositions that do not change, and the others, built."""
    file, manifest = plan.file, plan.file.manifest
    new = {built.adapter.name: built for built in arriving}
    kept: list[str] = []
    composed: list[Built] = []
    for name, composition in manifest.compositions.items():
        if not is_made(manifest, name):
            continue
        weights, old = flatten(manifest, name), host.state.recipes.get(name)
        same = old is not None and same_recipe(old, as_weights(composition, weights))
        if old is not None and same and set(old.of) <= set(plan.kept):
            kept.append(name)
        else:
            where = file.where(("compositions", name))
            composed.append(host.compositions.made(name, composition, weights, new, where=where))
    return kept, composed


# -- the model as it is -------------------------------------------------------------------------


def _state(host: AdapterHost) -> State:
    adapters = {
        name: adapter.held
        or Held(None, None, adapter.trainable, None, "+".join(adapter.methods), adapter.rank)
        for name, adapter in host.adapters.by_name.items()
        if name not in host.state.compositions
    }
    rules = host.state.rules
    return State(
        adapters=adapters,
        compositions=host.state.recipes,
        rules=rules.rules if isinstance(rules, ManifestRules) else None if rules else Rules(),
        active=dict(host.state.default.weights),
        residency=host.adapters.residency.budget,
    )


def _stamp(host: AdapterHost) -> object:
    """Equal while the model has the same adapters, compositions, rules and manifest."""
    return (
        id(host),
        tuple(sorted(adapter.serial for adapter in host.adapters.by_name.values())),
        tuple(sorted((name, tuple(of.items())) for name, of in host.state.compositions.items())),
        id(host.state.rules),
        id(host.deployment),
    )


def _require_current(host: AdapterHost, plan: Plan) -> None:
    if _stamp(host) != plan.stamp:
        raise AttachError(codes.PLAN_STALE.finding("The model changed since the plan was made"))


def _require_unchanged(pulled: Pulled, plan: Plan) -> None:
    """Raise :class:`AttachError` for adapters without a pin that changed since the plan."""
    findings = [
        codes.PLAN_STALE.finding(
            f"The files of {name!r} changed since the plan was made",
            plan.file.where(("adapters", name, "source")),
            found=digest,
            expected=plan.wanted[name].digest,
        )
        for name, files in pulled.adapters.items()
        if (digest := digest_of(files)) != plan.wanted[name].digest
    ]
    if findings:
        raise AttachError(*findings)


# -- the manifest as it is pinned ---------------------------------------------------------------


def _lock(file: ManifestFile, session: Session) -> Lock:
    """The lock beside the manifest, or a new one in memory."""
    lock = lock_of(file)
    require_lock(file, lock, frozen=session.frozen)
    require_policy(file, lock, session.access)
    if lock is None or overridden(file, lock):
        lock, _ = make_lock(file, lock, session)
    return lock


def _digests_of_mutable(file: ManifestFile, access: Access, store: Store) -> dict[str, str]:
    """The current digests of local folders that are not pinned."""
    found: dict[str, str] = {}
    for name, adapter in file.manifest.adapters.items():
        if adapter.mutable:
            where = file.where(("adapters", name, "source"))
            folder = open_adapter_folder(file, name, access)
            wanted = gather_adapter(name, folder, where).files
            files = fetch(folder, wanted, store, where=where)
            found[name] = folder_digest(fetched.fact for fetched in files.values())
    return found


def _require_same_base(
    host: AdapterHost,
    file: ManifestFile,
    lock: Lock,
    access: Access,
    accepted: frozenset[str],
) -> None:
    """Raise :class:`FingerprintError` if the manifest is for another base than the model's."""
    deployment = host.deployment
    if deployment is not None:
        loaded = deployment.base_folder is not None
        if wrong := check_same_base(deployment.base_declaration, (file, lock), loaded=loaded):
            raise FingerprintError(*wrong)
    if (rows := file.manifest.base.vocab_size) is not None:
        check_rows(host.live.module, rows, file.where(("base", "vocab_size")))
    if deployment is not None and _same_said(deployment, file):
        return  # compared when the model was set up
    expected = expected_fingerprint(Pulled(file, lock, {}), replace(access, layout=None), accepted)
    if expected is not None:
        fingerprint, samples, where = expected
        base, loaded_as = host.live.module, host.live.loaded_as
        findings = check_model(base, fingerprint, samples, where, loaded_as=loaded_as)
        if bad := refused(findings, accepted):
            raise FingerprintError(*bad)


def _same_said(deployment: Deployment, file: ManifestFile) -> bool:
    before, now = deployment.file.manifest.base, file.manifest.base
    same_folder = Path(deployment.file.directory) == Path(file.directory)
    return before.model is not None and same_folder and before == now

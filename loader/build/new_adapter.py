"""Adapters that are begun here: PEFT's initialisation, on the places that a config selects.

A fresh adapter is made as the file that PEFT would have written before the first step, and goes
the way of every other: the same plan, the same checks, the same attach.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from ...manifests.findings import loader as loader_codes
from ...manifests.findings import training as codes
from ...manifests.findings.errors import AttachError, FitError
from ...manifests.findings.finding import Finding, Severity, Where, refused
from ...manifests.manifest import ManifestFile
from ...registry.checks.base_record import without_names
from ...registry.checks.check_adapter import check_adapter
from ...registry.checks.loaded_as import uncovered
from ...registry.checks.new_adapter import NewAdapterFiles, plan_new_adapter
from ...registry.files.facts import AdapterFacts, AdapterPlan, SitePlan
from ...registry.locks.state import declared_as, new_adapter_digest
from ...registry.methods.config_file import parse_adapter_config
from ...registry.methods.table import dropout_of
from ...registry.plan import Held, declared_dtype
from ..adapter.adapter import Built
from ..base.live_base import LiveBase
from ..methods.new_site import NewSite
from ..methods.prompts.encoders import Encoder
from ..methods.prompts.initial import initial_prompt
from ..methods.prompts.virtual_tokens import embedding_of, unsupported
from ..methods.table import METHODS
from ..weights.dtypes import DTYPES
from ..weights.placement import offloaded
from ..weights.tensors import read_bytes
from ..weights.write import on_cpu
from .build_adapter import build_adapter
from .in_memory import config_bytes
from .prompt_requirements import PROMPT

log = logging.getLogger("adapterdock")

_OWN_CODES = frozenset(code.id for code in vars(codes).values() if hasattr(code, "id"))


def make_new_adapter(
    live: LiveBase,
    name: str,
    config: Mapping[str, Any],
    *,
    dtype: torch.dtype | None = None,
    generator: torch.Generator | None = None,
    base: str | None = None,
    directory: Path = Path(),
    accepted: Collection[str] = (),
    where: Where = Where(),  # noqa: B008 - frozen
) -> tuple[Built, list[Finding]]:
    """A new adapter of this ``config``, made for this base but on no model yet, its first values
    drawn from ``generator`` (torch's own, if none is given); and what is worth a warning. ``base``
    is the name of the base that it records; a tokenizer's path counts from ``directory``.
    ``accepted`` are the codes of unchecked findings that a person accepted.

    Raises :class:`FitError` for a config that is wrong, :class:`AttachError` for one that cannot
    be begun.
    """
    named = {**config, "base_model_name_or_path": base}
    bare = [name for name, _ in live.module.named_modules() if name]
    beginning, begun = plan_new_adapter(named, live.config, live.layout, where, bare)
    if beginning is None or refused(begun, accepted):
        raise _refusal(refused(begun))
    facts = AdapterFacts(name, None, beginning.config, beginning.header)
    checked, plan = check_adapter(facts, None, where=where, layout=live.layout)
    findings = [*begun, *without_names(checked)]
    if plan is not None:
        findings += uncovered(live.loaded_as, live.layout, name, plan, where)
    bad = refused(findings, accepted)
    if bad or plan is None:
        raise FitError(*(bad or findings))
    _check_live(live, plan, where)
    state, encoder = _first_values(live, beginning, plan, generator, directory, where)
    built = build_adapter(
        live,
        name,
        plan,
        read_bytes(save(on_cpu(state)), where=where),
        dtype=dtype,
        trainable=True,
        dropout=dropout_of(beginning.config),
        config=beginning.config,
        encoder=encoder,
        where=where,
    )
    return built, [one for one in findings if one.severity is Severity.WARNING]


def make_declared_adapter(
    live: LiveBase, file: ManifestFile, name: str, accepted: Collection[str] = ()
) -> tuple[Built, list[Finding]]:
    """The same of a new adapter that a manifest declares: for one seed, the same values."""
    adapter, where = file.manifest.adapters[name], file.where(("adapters", name, "config"))
    built, notes = make_new_adapter(
        live,
        name,
        parse_adapter_config(config_bytes(adapter.config), where),
        dtype=DTYPES.get(adapter.dtype or ""),
        generator=torch.Generator().manual_seed(adapter.seed or 0),
        base=base_name(live, file),
        directory=file.directory,
        accepted=accepted,
        where=where,
    )
    one = built.adapter
    one.held = Held(
        new_adapter_digest(adapter),
        declared_dtype(adapter.dtype),
        True,
        declared_as(adapter),
        "+".join(one.methods),
        one.rank,
    )
    return built, notes


def base_name(live: LiveBase, file: ManifestFile | None) -> str | None:
    """The name of the base that its adapters record: that of the manifest ``file``, else the one
    that transformers loaded it by."""
    declared = file.manifest.base.model if file else None
    if file is not None and declared is not None:
        if declared.is_local:
            return str(declared.local_path(file.directory))
        return declared.location if declared.is_hub else str(declared)
    name = getattr(getattr(live.module, "config", None), "_name_or_path", None)
    return name if isinstance(name, str) and name else None


def _refusal(findings: list[Finding]) -> AttachError | FitError:
    kind = AttachError if all(one.code in _OWN_CODES for one in findings) else FitError
    return kind(*findings)


def _check_live(live: LiveBase, plan: AdapterPlan, where: Where) -> None:
    """Raise :class:`AttachError` for modules on which the method cannot sit: before their weights
    are asked for first values."""
    by_name, shape = live.modules.by_name, live.modules.shape
    reasons = {
        site.module: METHODS[site.method].unsupported(
            site, by_name[site.module], shape(site.module)
        )
        for site in plan.sites
    }
    if plan.prompt is not None:
        reasons["the model"] = unsupported(plan.prompt, live.module)
    found = [
        loader_codes.MODULE_UNSUPPORTED.finding(f"{name}: {reason}", where)
        for name, reason in reasons.items()
        if reason is not None
    ]
    if found:
        raise AttachError(*found)


def _first_values(
    live: LiveBase,
    beginning: NewAdapterFiles,
    plan: AdapterPlan,
    generator: torch.Generator | None,
    directory: Path,
    where: Where,
) -> tuple[dict[str, torch.Tensor], Encoder | None]:
    """What PEFT would save of the adapter before its first step, by names on disk; and what is
    trained in the place of virtual tokens. Drawn in the order of the model's modules."""
    state: dict[str, torch.Tensor] = {}
    encoder: Encoder | None = None
    for site in plan.sites:
        if site.settings.get("follows", site.module) == site.module:
            state |= _values_at(live, site, beginning, generator)
    state |= _shared(live, plan)
    if plan.prompt is not None:
        shape = beginning.header.tensors[PROMPT].shape
        embedding = embedding_of(live.module)
        drawn = initial_prompt(
            plan.prompt.method, shape, beginning.config, embedding, generator, directory, where
        )
        encoder = drawn if isinstance(drawn, Encoder) else None
        state[PROMPT] = (
            drawn.output(dict(drawn.named_parameters())) if isinstance(drawn, Encoder) else drawn
        )
    state |= {key: _value(live, name, where) for key, name in beginning.copies.items()}
    return {key: state[key] for key in beginning.header.tensors if key in state}, encoder


def _values_at(
    live: LiveBase, site: SitePlan, beginning: NewAdapterFiles, generator: torch.Generator | None
) -> dict[str, torch.Tensor]:
    row, modules = METHODS[site.method], live.modules
    module, sizes = modules.by_name[site.module], modules.shape(site.module)
    own = {role: key for role, key in site.tensors.items() if role not in row.shared}
    shapes = {role: beginning.header.tensors[key].shape for role, key in own.items()}
    if row.shapes is not None:  # the live module knows which way its experts lie
        shapes = dict(row.shapes(site, module, sizes))
    assert row.initial is not None  # of a method that trains
    made = row.initial(NewSite(site, module, sizes, shapes, beginning.config, generator))
    return {key: made[role] for role, key in own.items()}


def _shared(live: LiveBase, plan: AdapterPlan) -> Iterator[tuple[str, torch.Tensor]]:
    """What all sites of a method have in common, where the file holds it."""
    for name in {site.method for site in plan.sites}:
        row = METHODS[name]
        sites = [site for site in plan.sites if site.method == name]
        keys = {role: key for role, key in sites[0].tensors.items() if role in row.shared}
        if row.make_shared is None or not keys:
            continue
        bare = [
            (
                site._replace(tensors={r: k for r, k in site.tensors.items() if r not in keys}),
                live.modules.shape(site.module),
            )
            for site in sites
        ]
        made = row.make_shared(bare)
        yield from ((key, made[role]) for role, key in keys.items())


def _value(live: LiveBase, name: str, where: Where) -> torch.Tensor:
    """A parameter or buffer of the base, wherever accelerate keeps it."""
    path, _, leaf = name.rpartition(".")
    found = offloaded(live.module.get_submodule(path), leaf)
    if found is None or found.is_meta:
        message = f"{name} of the base cannot be read"
        raise AttachError(loader_codes.MODULE_ON_META.finding(message, where))
    return found

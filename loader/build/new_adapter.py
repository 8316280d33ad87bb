"""New adapters: PEFT's initialisation at the modules that a config selects.

A new adapter is made as the file that PEFT would have written before the first training step, so
it has the same plan, checks and build as any other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from ...manifests.findings import loader as loader_codes
from ...manifests.findings import training as codes
from ...manifests.findings.errors import AttachError, FitError
from ...manifests.findings.finding import Finding, Where, refused
from ...manifests.manifest import ManifestFile
from ...registry.checks.base_record import without_names
from ...registry.checks.check_adapter import check_adapter
from ...registry.checks.loaded_as import uncovered
from ...registry.checks.new_adapter import NewAdapterFiles, plan_new_adapter
from ...registry.files.facts import AdapterFacts, AdapterPlan, SitePlan
from ...registry.locks.changes import declared_as
from ...registry.locks.inputs import new_adapter_digest
from ...registry.methods.config_file import parse_adapter_config
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
from .from_files import require_fit
from .in_memory import config_bytes
from .prompt_requirements import PROMPT
from .site_requirements import leader_of

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
    """Build a new adapter of this ``config`` for this base, not on a model yet; and the warnings
    about it.

    Its first values are drawn from ``generator`` (torch's own if there is none). ``base`` is the
    name of the base that it records; a tokenizer's path is relative to ``directory``. ``accepted``
    are the codes of unchecked findings that a person accepted. Raises :class:`FitError` for a
    wrong config, :class:`AttachError` for one of which no new adapter can be made.
    """
    named = {**config, "base_model_name_or_path": base}
    names = [name for name, _ in live.module.named_modules() if name]
    layout = live.layout
    files, findings = plan_new_adapter(named, live.config, layout, where, names)
    if files is None or refused(findings, accepted):
        raise _refusal(refused(findings))
    facts = AdapterFacts(name, None, files.config, files.header)
    checked, plan = check_adapter(facts, None, where=where, layout=layout)
    findings = [*findings, *without_names(checked)]
    if plan is not None:
        findings += uncovered(live.loaded_as, layout, name, plan, where)
    plan, notes = require_fit(findings, plan, accepted)
    _check_live(live, plan, where)
    state, encoder = _first_values(live, files, plan, generator, directory, where)
    built = build_adapter(
        live,
        name,
        plan,
        read_bytes(save(on_cpu(state)), where=where),
        dtype=dtype,
        trainable=True,
        config=files.config,
        encoder=encoder,
        where=where,
    )
    return built, notes


def make_declared_adapter(
    live: LiveBase, file: ManifestFile, name: str, accepted: Collection[str] = ()
) -> tuple[Built, list[Finding]]:
    """The same for a new adapter that a manifest declares; its seed decides the values."""
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
    built.adapter.held = Held(
        new_adapter_digest(adapter),
        declared_dtype(adapter.dtype),
        True,
        declared_as(adapter),
        "+".join(built.adapter.methods),
        built.adapter.rank,
    )
    return built, notes


def base_name(live: LiveBase, file: ManifestFile | None) -> str | None:
    """The base's name that its adapters record: that in the manifest ``file``, else the one by
    which transformers loaded it."""
    declared = file.manifest.base.model if file else None
    if file is not None and declared is not None:
        if declared.is_local:
            return str(declared.local_path(file.directory))
        return declared.location if declared.is_hub else str(declared)
    name = getattr(getattr(live.module, "config", None), "_name_or_path", None)
    return name if isinstance(name, str) and name else None


def _refusal(findings: list[Finding]) -> AttachError | FitError:
    kind = AttachError if all(f.code in _OWN_CODES for f in findings) else FitError
    return kind(*findings)


def _check_live(live: LiveBase, plan: AdapterPlan, where: Where) -> None:
    """Raise :class:`AttachError` for modules that cannot have the method, before their weights are
    read for first values."""
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
    files: NewAdapterFiles,
    plan: AdapterPlan,
    generator: torch.Generator | None,
    directory: Path,
    where: Where,
) -> tuple[dict[str, torch.Tensor], Encoder | None]:
    """The tensors that PEFT would save before the first step, by names on disk; and the encoder
    that is trained in place of virtual tokens. Drawn in the order of the model's modules."""
    state: dict[str, torch.Tensor] = {}
    encoder: Encoder | None = None
    for site in plan.sites:
        if leader_of(site) == site.module:
            state |= _values_at(live, site, files, generator)
    state |= _shared(live, plan)
    if plan.prompt is not None:
        shape = files.header.tensors[PROMPT].shape
        embedding = embedding_of(live.module)
        drawn = initial_prompt(
            plan.prompt.method, shape, files.config, embedding, generator, directory, where
        )
        if isinstance(drawn, Encoder):
            encoder, drawn = drawn, drawn.output(dict(drawn.named_parameters()))
        state[PROMPT] = drawn
    state |= {key: _value(live, name, where) for key, name in files.copies.items()}
    return {key: state[key] for key in files.header.tensors if key in state}, encoder


def _values_at(
    live: LiveBase, site: SitePlan, files: NewAdapterFiles, generator: torch.Generator | None
) -> dict[str, torch.Tensor]:
    row, modules = METHODS[site.method], live.modules
    module, sizes = modules.by_name[site.module], modules.shape(site.module)
    own = {role: key for role, key in site.tensors.items() if role not in row.shared}
    shapes = {role: files.header.tensors[key].shape for role, key in own.items()}
    if row.shapes is not None:  # the live module knows the axes of its experts
        shapes = dict(row.shapes(site, module, sizes))
    assert row.initial is not None  # of a method that trains
    made = row.initial(NewSite(site, module, sizes, shapes, files.config, generator))
    return {key: made[role] for role, key in own.items()}


def _shared(live: LiveBase, plan: AdapterPlan) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that all sites of a method share, where the file has them."""
    for name in {site.method for site in plan.sites}:
        row = METHODS[name]
        sites = [site for site in plan.sites if site.method == name]
        keys = {role: key for role, key in sites[0].tensors.items() if role in row.shared}
        if row.make_shared is None or not keys:
            continue
        made = row.make_shared(
            (site._replace(tensors={}), live.modules.shape(site.module)) for site in sites
        )
        yield from ((key, made[role]) for role, key in keys.items())


def _value(live: LiveBase, name: str, where: Where) -> torch.Tensor:
    """A parameter or buffer of the base, wherever accelerate keeps it."""
    path, _, leaf = name.rpartition(".")
    found = offloaded(live.module.get_submodule(path), leaf)
    if found is None or found.is_meta:
        message = f"Cannot read {name} of the base"
        raise AttachError(loader_codes.MODULE_ON_META.finding(message, where))
    return found

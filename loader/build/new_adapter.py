"""Adapters that are begun here: PEFT's initialisation, on the places that a config selects.

A fresh adapter is made as the file that PEFT would have written before the first step, and goes
the way of every other: the same plan, the same checks, the same attach.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import save

from ...manifests.findings import loader as loader_codes
from ...manifests.findings import training as codes
from ...manifests.findings.errors import AttachError, FitError
from ...manifests.findings.finding import Finding, Severity, Where, refused
from ...manifests.manifest import ManifestFile
from ...registry.checks.base_record import without_names
from ...registry.files.facts import AdapterFacts, AdapterPlan, SitePlan
from ...registry.checks.check_adapter import check_adapter
from ...registry.checks.new_adapter import Beginning, begin
from ...registry.checks.loaded_as import uncovered
from ...registry.locks.state import begun_digest, declared_as
from ...registry.methods.config_file import parse_adapter_config
from ...registry.methods.table import dropout_of
from ...registry.plan import Held, declared_dtype
from ..adapter.adapter import Built
from ..model.attach import check_free, put_adapters
from ..base.load_base import DTYPES
from .build_adapter import build_adapter
from .in_memory import config_bytes
from ..methods.new_site import NewSite
from ..methods.table import METHODS
from ..lifecycle.load_adapter import check_name, dtype_of
from ..weights.placement import offloaded
from .prompt_requirements import PROMPT
from ..methods.prompts.encoders import Encoder
from ..methods.prompts.initial import begun_prompt
from ..methods.prompts.virtual_tokens import embedding_of, unsupported
from ..lifecycle.save_adapter import on_cpu
from ..weights.tensors import read_bytes

if TYPE_CHECKING:
    from ..adapted import AdaptedModel

log = logging.getLogger("adapterdock")

_OWN_CODES = frozenset(code.id for code in vars(codes).values() if hasattr(code, "id"))


def add_adapter(
    model: AdaptedModel, name: str, config: Any, dtype: str | torch.dtype | None = None
) -> None:
    """See :meth:`AdaptedModel.add_adapter`."""
    where = Where(file=f"add_adapter({name!r})")
    check_name(model, name, False, where)
    kept_in = dtype_of(dtype, where)
    read = parse_adapter_config(config_bytes(config), where)
    check_free(model, name, False, where)
    built, notes = begun_adapter(model, name, read, dtype=kept_in, where=where)
    put_adapters(model, [built], where)
    for note in notes:
        log.warning("%s", note)


def begun_adapter(
    model: AdaptedModel,
    name: str,
    config: Mapping[str, Any],
    *,
    dtype: torch.dtype | None = None,
    generator: torch.Generator | None = None,
    file: ManifestFile | None = None,
    accepted: Collection[str] = (),
    where: Where = Where(),  # noqa: B008 - frozen
) -> tuple[Built, list[Finding]]:
    """A new adapter of this ``config``, made for ``model`` but not on it, its first values drawn
    from ``generator`` (torch's own, if none is given); and what is worth a warning. ``file`` is the
    manifest that declares it, which names the base, and from which a tokenizer's path counts.
    ``accepted`` are the codes of unchecked findings that a person accepted.

    Raises :class:`FitError` for a config that is wrong, :class:`AttachError` for one that cannot
    be begun.
    """
    named = {**config, "base_model_name_or_path": base_name(model, file)}
    directory = file.directory if file is not None else Path()
    bare = [name for name, _ in model.base_model.named_modules() if name]
    beginning, begun = begin(named, config_of(model), model.layout, where, bare)
    if beginning is None or refused(begun, accepted):
        raise _refusal(refused(begun))
    facts = AdapterFacts(name, None, beginning.config, beginning.header)
    checked, plan = check_adapter(facts, None, where=where, layout=model.layout)
    findings = [*begun, *without_names(checked)]
    if plan is not None:
        findings += uncovered(model.loaded_as, model.layout, name, plan, where)
    bad = refused(findings, accepted)
    if bad or plan is None:
        raise FitError(*(bad or findings))
    _check_live(model, plan, where)
    state, encoder = _first_values(model, beginning, plan, generator, directory, where)
    built = build_adapter(
        model,
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


def begun_declared(
    model: AdaptedModel, file: ManifestFile, name: str, accepted: Collection[str] = ()
) -> tuple[Built, list[Finding]]:
    """The same of a new adapter that a manifest declares: for one seed, the same values."""
    adapter, where = file.manifest.adapters[name], file.where(("adapters", name, "config"))
    built, notes = begun_adapter(
        model,
        name,
        parse_adapter_config(config_bytes(adapter.config), where),
        dtype=DTYPES.get(adapter.dtype or ""),
        generator=torch.Generator().manual_seed(adapter.seed or 0),
        file=file,
        accepted=accepted,
        where=where,
    )
    one = built.adapter
    one.held = Held(
        begun_digest(adapter),
        declared_dtype(adapter.dtype),
        True,
        declared_as(adapter),
        "+".join(one.methods),
        one.rank,
    )
    return built, notes


def attach_begun(
    model: AdaptedModel, file: ManifestFile, name: str, accepted: Collection[str] = ()
) -> list[Finding]:
    """Put it on the model, all of it or nothing; returns what is worth a warning."""
    where = file.where(("adapters", name, "config"))
    with model.changing():
        check_free(model, name, False, where)
        built, notes = begun_declared(model, file, name, accepted)
        put_adapters(model, [built], where)
    return notes


def config_of(model: AdaptedModel) -> Mapping[str, Any]:
    """The base's ``config.json``; empty for a model that has none."""
    config = getattr(model.base_model, "config", None)
    if not hasattr(config, "to_dict"):
        return {}
    return json.loads(json.dumps(cast(Any, config).to_dict(), default=str))


def base_name(model: AdaptedModel, file: ManifestFile | None = None) -> str | None:
    """The name of the base that its adapters record: that of the manifest ``file``, or of the
    model's own, else the one that transformers loaded it by."""
    file = file or (model.deployment.file if model.deployment else None)
    declared = file.manifest.base.model if file else None
    if file is not None and declared is not None:
        if declared.is_local:
            return str(declared.local_path(file.directory))
        return declared.location if declared.is_hub else str(declared)
    name = getattr(getattr(model.base_model, "config", None), "_name_or_path", None)
    return name if isinstance(name, str) and name else None


def _refusal(findings: list[Finding]) -> AttachError | FitError:
    kind = AttachError if all(one.code in _OWN_CODES for one in findings) else FitError
    return kind(*findings)


def _check_live(model: AdaptedModel, plan: AdapterPlan, where: Where) -> None:
    """Raise :class:`AttachError` for modules on which the method cannot sit: before their weights
    are asked for first values."""
    by_name, shape = model.modules_of_base.by_name, model.modules_of_base.shape
    reasons = {
        site.module: METHODS[site.method].unsupported(
            site, by_name[site.module], shape(site.module)
        )
        for site in plan.sites
    }
    if plan.prompt is not None:
        reasons["the model"] = unsupported(plan.prompt, model.base_model)
    found = [
        loader_codes.MODULE_UNSUPPORTED.finding(f"{name}: {reason}", where)
        for name, reason in reasons.items()
        if reason is not None
    ]
    if found:
        raise AttachError(*found)


def _first_values(
    model: AdaptedModel,
    beginning: Beginning,
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
            state |= _values_at(model, site, beginning, generator)
    state |= _shared(model, plan)
    if plan.prompt is not None:
        shape = beginning.header.tensors[PROMPT].shape
        embedding = embedding_of(model.base_model)
        drawn = begun_prompt(
            plan.prompt.method, shape, beginning.config, embedding, generator, directory, where
        )
        encoder = drawn if isinstance(drawn, Encoder) else None
        state[PROMPT] = (
            drawn.output(dict(drawn.named_parameters())) if isinstance(drawn, Encoder) else drawn
        )
    state |= {key: _value(model, name, where) for key, name in beginning.copies.items()}
    return {key: state[key] for key in beginning.header.tensors if key in state}, encoder


def _values_at(
    model: AdaptedModel, site: SitePlan, beginning: Beginning, generator: torch.Generator | None
) -> dict[str, torch.Tensor]:
    row, modules = METHODS[site.method], model.modules_of_base
    module, sizes = modules.by_name[site.module], modules.shape(site.module)
    own = {role: key for role, key in site.tensors.items() if role not in row.shared}
    shapes = {role: beginning.header.tensors[key].shape for role, key in own.items()}
    if row.shapes is not None:  # the live module knows which way its experts lie
        shapes = dict(row.shapes(site, module, sizes))
    assert row.initial is not None  # of a method that trains
    made = row.initial(NewSite(site, module, sizes, shapes, beginning.config, generator))
    return {key: made[role] for role, key in own.items()}


def _shared(model: AdaptedModel, plan: AdapterPlan) -> Iterator[tuple[str, torch.Tensor]]:
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
                model.modules_of_base.shape(site.module),
            )
            for site in sites
        ]
        made = row.make_shared(bare)
        yield from ((key, made[role]) for role, key in keys.items())


def _value(model: AdaptedModel, name: str, where: Where) -> torch.Tensor:
    """A parameter or buffer of the base, wherever accelerate keeps it."""
    path, _, leaf = name.rpartition(".")
    found = offloaded(model.base_model.get_submodule(path), leaf)
    if found is None or found.is_meta:
        message = f"{name} of the base cannot be read"
        raise AttachError(loader_codes.MODULE_ON_META.finding(message, where))
    return found

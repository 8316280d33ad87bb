"""Adapters that are begun here: PEFT's initialisation, on the places that a config selects.

A fresh adapter is made as the file that PEFT would have written before the first step, and goes
the way of every other: the same plan, the same checks, the same attach.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import save

from ..manifests.codes import loader as loader_codes
from ..manifests.codes import training as codes
from ..manifests.errors import AttachError, FitError
from ..manifests.findings import Finding, Where, refused
from ..registry.checks.base_record import without_names
from ..registry.facts import AdapterFacts, Layout, ModuleKind
from ..registry.fit import check_adapter, check_config
from ..registry.methods.config_file import parse_adapter_config
from ..registry.methods.naming import PEFT_PREFIX, Naming
from ..registry.methods.places import saved_module
from ..registry.methods.table import Method
from ..registry.methods.tuner_config import TunerConfig
from ..registry.patterns import Patterns, PatternTable
from ..registry.targets import Selection
from .attach import attach_adapter
from .bias import bias_of
from .given import config_bytes
from .methods.new_site import NewSite
from .methods.table import METHODS
from .one import check_name, dtype_of
from .placement import offloaded
from .save import on_cpu
from .tensors import read_bytes
from .twins import own_tensors

if TYPE_CHECKING:
    from .adapted import AdaptedModel

_HEADS: Mapping[str, tuple[str, ...]] = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}
"""What PEFT (0.21, ``peft_model.py``) adds to ``modules_to_save`` by the task."""

_INITS = (True, False, None, "gaussian", "orthogonal")


def add_adapter(
    model: AdaptedModel, name: str, config: Any, dtype: str | torch.dtype | None = None
) -> None:
    """See :meth:`AdaptedModel.add_adapter`."""
    where = Where(file=f"add_adapter({name!r})")
    check_name(model, name, False, where)
    kept_in = dtype_of(dtype, where)
    read = parse_adapter_config(config_bytes(config), where)
    method, findings = check_config(read, where)
    if bad := refused(findings):
        raise FitError(*bad)
    assert method is not None  # a config without one is refused
    full = _completed(read, model)
    _check_beginning(full, method, where)
    state = initial_state(model, full, method, where)
    tensors = read_bytes(save(on_cpu(state)), where=where)
    facts = AdapterFacts(name, None, full, tensors.header)
    found, plan = check_adapter(facts, None, where=where, layout=model.layout)
    bad = refused(without_names(found))
    if bad or plan is None:
        raise FitError(*(bad or found))
    dropout = full.get("lora_dropout")
    attach_adapter(
        model,
        name,
        plan,
        tensors,
        dtype=kept_in,
        trainable=True,
        dropout=float(dropout) if isinstance(dropout, int | float) else 0.0,
        config=full,
        where=where,
    )


def initial_state(
    model: AdaptedModel,
    config: Mapping[str, Any],
    method: Method,
    where: Where = Where(),  # noqa: B008 - frozen
) -> dict[str, torch.Tensor]:
    """What PEFT would save of a fresh adapter with this ``config``: names on disk to tensors.

    Drawn from torch's generator, in the order of the model's modules. Raises :class:`AttachError`
    where the config selects nothing.
    """
    typed = cast(TunerConfig, method.read_config(config))
    patterns, layout = Patterns(), model.layout
    ranks = PatternTable(typed.rank_pattern, patterns)
    chosen = Selection(typed, patterns, method.kinds).live_modules(layout, Naming())
    modules = model.modules_of_base.by_name
    initial = METHODS[method.peft_type].initial
    spelled = {role: ".".join(filter(None, parts)) for parts, role in method.roles.items()}
    state: dict[str, torch.Tensor] = {}
    for name in layout.modules:
        if name in chosen and initial is not None:
            rank = ranks.get(name, getattr(typed, "r", 0))
            new = NewSite(name, modules[name], model.modules_of_base.shape(name), rank, config)
            for role, tensor in initial(new).items():
                state[f"{PEFT_PREFIX}{name}.{spelled[role]}"] = tensor
    saved = _saved_modules(typed, layout)
    for name in saved:
        for path in own_tensors(modules[name]):
            state[f"{PEFT_PREFIX}{name}.{path}"] = _value(model, f"{name}.{path}", where)
    for name in _biases(model, typed, chosen, saved):
        inner = "base_layer." if name in chosen else ""
        state[f"{PEFT_PREFIX}{name}.{inner}bias"] = _value(model, f"{name}.bias", where)
    if not chosen and not saved:
        message = "the config selects no module of this model"
        targets = config.get("target_modules")
        raise AttachError(codes.FRESH_NOTHING.finding(message, where, found=targets))
    return state


def _completed(config: Mapping[str, Any], model: AdaptedModel) -> dict[str, Any]:
    """The config as PEFT would write it: with the heads of the task, the way the weights lie, and
    the base's name."""
    full = {**config, "base_model_name_or_path": base_name(model)}
    heads = _HEADS.get(str(config.get("task_type")), ())
    saved: list[str] = list(config.get("modules_to_save") or ())
    if heads:
        full["modules_to_save"] = [*saved, *(head for head in heads if head not in saved)]
    kinds = {module.kind for module in model.layout.modules.values()}
    if ModuleKind.CONV1D in kinds and "fan_in_fan_out" in config:
        full["fan_in_fan_out"] = True
    return full


def base_name(model: AdaptedModel) -> str | None:
    """The name of the base that its adapters record: the manifest's, else the one that
    transformers loaded it by."""
    deployment = model.deployment
    declared = deployment.file.manifest.base.model if deployment else None
    if deployment is not None and declared is not None:
        if declared.is_local:
            return str(declared.local_path(deployment.file.directory))
        return declared.location if declared.is_hub else str(declared)
    name = getattr(getattr(model.base_model, "config", None), "_name_or_path", None)
    return name if isinstance(name, str) and name else None


def _check_beginning(config: Mapping[str, Any], method: Method, where: Where) -> None:
    """Raise :class:`AttachError` for what can be loaded and not be begun here."""
    found: list[Finding] = []
    if METHODS[method.peft_type].initial is None:
        message = f"{method.peft_type} is loaded and trained on here, but not begun"
        found.append(codes.FRESH_METHOD.finding(message, where, found=method.peft_type))
    how = config.get("init_lora_weights")
    how = how.lower() if isinstance(how, str) else how
    if how not in _INITS:
        message = f"an adapter cannot be begun with init_lora_weights: {how} here"
        expected = "true, false, gaussian or orthogonal"
        found.append(codes.FRESH_INIT.finding(message, where, found=how, expected=expected))
    ranks = [config.get("r", 8), *(config.get("rank_pattern") or {}).values()]
    if how == "orthogonal" and any(rank % 2 for rank in ranks):
        message = "init_lora_weights: orthogonal needs even ranks"
        found.append(codes.FRESH_INIT.finding(message, where, found=ranks))
    if config.get("ensure_weight_tying"):
        message = "ensure_weight_tying makes one adapter for two modules, which is not begun here"
        found.append(codes.FRESH_INIT.finding(message, where, found="ensure_weight_tying: true"))
    if found:
        raise AttachError(*found)


def _saved_modules(typed: TunerConfig, layout: Layout) -> list[str]:
    """The outermost modules that ``modules_to_save`` names."""
    found = (saved_module(typed, name) for name in layout.modules)
    return list(dict.fromkeys(name for name in found if name is not None))


def _biases(
    model: AdaptedModel, typed: TunerConfig, chosen: Iterable[str], saved: Iterable[str]
) -> list[str]:
    """The modules whose bias is trained."""
    if typed.bias == "none":
        return []
    inside = tuple(f"{name}." for name in saved)
    layout, modules = model.layout, model.modules_of_base.by_name
    names = [name for name in layout.modules if not f"{name}.".startswith(inside)]
    if typed.bias == "lora_only":
        wanted = set(chosen)
        return [n for n in names if n in wanted and bias_of(modules[n]) is not None]
    return [n for n in names if "bias" in layout.modules[n].parameters]


def _value(model: AdaptedModel, name: str, where: Where) -> torch.Tensor:
    """A parameter or buffer of the base, wherever accelerate keeps it."""
    path, _, leaf = name.rpartition(".")
    found = offloaded(model.base_model.get_submodule(path), leaf)
    if found is None or found.is_meta:
        message = f"{name} of the base cannot be read"
        raise AttachError(loader_codes.MODULE_ON_META.finding(message, where))
    return found

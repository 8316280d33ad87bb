"""Adapters of methods without native code, built from PEFT's own layers.

All layers are made in a shell beside the base (``loader.methods.peft.make_layers``); then each
layer is taken out of it, as the factors of one site.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import nn

from ...manifests.findings import fit as fit_codes
from ...manifests.findings import loader as codes
from ...registry.files.facts import PeftPlan
from ...registry.methods.peft_table import PEFT_TABLE
from ..adapter.weights import SitePart
from ..methods.peft.layers import PeftFactors, buffers_of, relink, set_apart
from ..methods.peft.make_layers import NAME, Shell, make_shell, misfits, tensors_for_peft
from ..methods.peft_merge import changes_weights, example_of
from ..weights.dtypes import INTEGERS
from ..weights.placement import compute_dtype, device_of
from .requirements import Requirements

_PREFIX = "base_model."


@dataclass
class PeftParts:
    """An adapter that PEFT made: its factors by module, and its tensors by PEFT's live names."""

    factors: Mapping[str, PeftFactors] = field(default_factory=dict)
    parts: Sequence[SitePart] = ()
    parameters: dict[str, nn.Parameter] = field(default_factory=dict)
    changes: bool = False
    """Whether it changes what any module returns."""
    keys: dict[str, str] = field(default_factory=dict)
    """Their live names, by those in the file. Not all of them where PEFT stores something else than
    its layers hold (SHiRA's indices, VB-LoRA's best vectors)."""
    kept: list[torch.Tensor] = field(default_factory=list)
    """Tensors that were exchanged, kept so that no new tensor gets the same ``id``."""


def require_peft(
    required: Requirements, peft: PeftPlan, replaced: Mapping[str, Mapping[str, str]]
) -> PeftParts:
    """PEFT's layers with the adapter's values in them. The model is not touched. Raises
    :class:`AttachError` if they cannot be where they should be."""
    modules = {live: required.module(live) for live in peft.authors if required.usable(live)}
    for live, module in modules.items():
        if any(f"{live}.".startswith(f"{outer}.") for outer in replaced):
            required.problem(
                codes.SITE_INSIDE_SAVED, f"{live} is inside a module that the adapter replaces"
            )
        elif device_of(module, required.base) is None:
            required.problem(codes.MODULE_ON_META, f"{live} is on the meta device")
    keys = tensors_for_peft(required.plan, peft)
    infos = required.tensors.header.tensors
    required.problems += required.tensors.findings(
        {
            key: torch.int64 if infos[key].dtype in INTEGERS else required.dtype or torch.float32
            for key in keys.values()
        }
    )
    required.settle()
    before = _states(modules)
    try:
        shell = make_shell(peft, modules, required.where, trainable=required.trainable)
        required.problems += misfits(shell, required.plan, infos, required.where)
        required.settle()
        _load(required, shell, keys)
    finally:
        changed = _states(modules) != before
    if changed:
        required.problem(codes.PEFT_CHANGED_BASE, f"{peft.method} changed the base's weights")
        required.settle()
    return _taken_out(required, shell, modules)


def _states(modules: Mapping[str, nn.Module]) -> list[tuple[Any, ...]]:
    """Values that differ after a write into these modules' parameters."""
    return [
        (id(p), p.data_ptr() if type(p.data) is torch.Tensor else 0, p._version, p.requires_grad)
        for module in modules.values()
        for p in module.parameters()
    ]


def _load(required: Requirements, shell: Shell, keys: Mapping[str, str]) -> None:
    values = {name: required.tensors.host(key).clone() for name, key in keys.items()}
    try:
        shell.load(values)
    except Exception as error:
        message = "PEFT cannot load the tensors"
        raise required.failure(fit_codes.PEFT_REFUSES, message, error) from error


def _taken_out(required: Requirements, shell: Shell, modules: Mapping[str, nn.Module]) -> PeftParts:
    """Each layer as the factors of its site, with its tensors where the module computes."""
    assert required.plan.peft is not None
    for live, layer in shell.layers.items():
        relink(shell.stand_ins[live], modules[live])
        set_apart(layer, shell.stand_ins[live])
    parts = [
        SitePart(
            site,
            required.modules.shape(site.module),
            {},
            of_input=False,
            layer=shell.layers[site.module],
        )
        for site in required.plan.sites
    ]
    by_batch = PEFT_TABLE[required.plan.peft.method].by_batch
    factors = {live: PeftFactors(layer, by_batch) for live, layer in shell.layers.items()}
    found = PeftParts(factors, parts)
    made: dict[int, nn.Parameter] = {}
    for live, layer in shell.layers.items():
        _own(found, made, required, f"{_PREFIX}model.{live}.", layer, modules[live])
    first = next(iter(modules.values()))
    for name, part in shell.tuner.named_children():
        if name != "model":
            _own(found, made, required, f"{_PREFIX}{name}.", part, first)
    found.changes = _changes(required, found, modules)
    return found


def _own(
    found: PeftParts,
    made: dict[int, nn.Parameter],
    required: Requirements,
    prefix: str,
    layer: nn.Module,
    module: nn.Module,
) -> None:
    """Collect the layer's tensors by their live names, with the adapter's own name in place of the
    shell's. A tensor that layers share is listed under each of its names, as PEFT does."""
    dtype, device = required.dtype, cast(torch.device, device_of(module, required.base))
    for path, parameter in layer.named_parameters(remove_duplicate=False):
        if id(parameter) not in made:
            made[id(parameter)] = parameter
            parameter.data = _placed(parameter.data, dtype, device)
            parameter.requires_grad_(required.trainable and parameter.requires_grad)
        _note(found, required, prefix, path, parameter)
    for path, buffers, name in list(buffers_of(layer)):
        old = buffers[name]
        if id(old) not in made:
            value = nn.Parameter(_placed(old.detach(), dtype, device), requires_grad=False)
            made[id(old)] = made[id(value)] = value
            found.kept.append(old)
        buffers[name] = made[id(old)]
        _note(found, required, prefix, path, made[id(old)])


def _note(
    found: PeftParts, required: Requirements, prefix: str, path: str, value: nn.Parameter
) -> None:
    live = prefix + _named(path, required.name)
    key = ".".join(part for part in f"{prefix}{path}".split(".") if part != NAME)
    found.parameters[live] = value
    if key in required.tensors.header.tensors:
        found.keys[key] = live


def _placed(tensor: torch.Tensor, dtype: torch.dtype | None, device: torch.device) -> torch.Tensor:
    """On the module's device, in the declared dtype or else the one that PEFT chose: it computes in
    float32 with adapters for a base in half precision."""
    return tensor.to(device, dtype if tensor.is_floating_point() else None)


def _named(path: str, name: str) -> str:
    """``boft_R.default`` with the adapter's own name, which a path without a name gets too."""
    parts = path.split(".")
    if NAME in parts:
        parts[parts.index(NAME)] = name
        return ".".join(parts)
    return f"{path}.{name}"


@torch.no_grad()
def _changes(required: Requirements, found: PeftParts, modules: Mapping[str, nn.Module]) -> bool:
    """Whether any module returns something else with its layer, for an input of noise. If the file
    holds indices, every layer is run: an index may be out of range, and PyTorch does not check."""
    infos = required.tensors.header.tensors
    every = any(info.dtype in INTEGERS for info in infos.values())
    differs = False
    for live, factors in found.factors.items():
        module = modules[live]
        shape = required.modules.shape(live)
        if _cannot_run(module):
            if changes_weights(factors.layer, module, shape, live):
                return True
            continue
        device = cast(torch.device, device_of(module, required.base))
        x = example_of(shape, module, device, compute_dtype(module, required.base))
        try:
            base = cast(torch.Tensor, module.forward(x))
            with torch.sparse.check_sparse_tensor_invariants(every):
                answer = factors.add(module, x, base, base, 1.0)
        except Exception as error:
            message = f"PEFT's layer fails at {live}"
            raise required.failure(codes.PEFT_PLACE, message, error) from error
        if answer.shape != base.shape:
            required.problem(
                codes.PEFT_PLACE, f"PEFT's layer at {live} returns {tuple(answer.shape)}"
            )
            required.settle()
        differs = differs or not torch.equal(answer, base)
        if differs and not every:
            break
    return differs


def _cannot_run(module: nn.Module) -> bool:
    """Whether its values are only in files (``adapterdock merge``); accelerate loads those that it
    has offloaded."""
    meta = any(p.is_meta for p in module.parameters())
    return meta and "_old_forward" not in vars(module)

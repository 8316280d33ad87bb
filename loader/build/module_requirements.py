"""Modules and biases that an adapter replaces: can the live ones be exchanged?"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ...manifests.findings import fit as fit_codes
from ...manifests.findings import loader as codes
from ..base.uncalled import CONTAINERS
from ..sites.bias import bias_of, inner_bias_of
from ..sites.replacements import own_tensors
from ..weights.dtypes import FLOATS
from ..weights.placement import offloaded
from .requirements import Requirements


def replaced_modules(required: Requirements) -> dict[str, Mapping[str, str]]:
    """Every module that the adapter replaces: {path under it: tensor}. Saved embeddings are such
    modules too; a head that is tied to a saved embedding gets the same weight, as it does in PEFT,
    where loading writes into the tied parameter."""
    kept = {**required.plan.saved, **required.plan.tuned}
    found: dict[str, Mapping[str, str]] = {**kept}
    for name, key in required.plan.embeddings.items():
        found[name] = {"weight": key}
        for other in required.modules.tied_to(f"{name}.weight"):
            tied, _, parameter = other.rpartition(".")
            if parameter == "weight" and tied not in required.plan.embeddings:
                found.setdefault(tied, {"weight": key})
    return {
        name: paths
        for name, paths in found.items()
        if name in kept or not _is_the_bases_own(required, name, paths["weight"])
    }


def _is_the_bases_own(required: Requirements, name: str, key: str) -> bool:
    """Whether a saved embedding is the base's, unchanged: PEFT always saves targeted and resized
    embeddings. It needs no copy. Rows that the adapter replaces (trained tokens) may differ: a
    resized base has its own numbers there."""
    module = required.modules.by_name.get(name)
    old = offloaded(module, "weight") if module is not None else None
    if old is None or required.tensors.header.tensors[key].dtype not in FLOATS:
        return False
    rows = [
        index
        for site in required.plan.sites
        if site.module == name
        for index in site.settings.get("indices", ())
        if 0 <= index < len(old)
    ]
    if not rows or required.tensors.shape(key) != tuple(old.shape):
        return not required.differs(key, old)
    kept = torch.ones(len(old), dtype=torch.bool)
    kept[rows] = False
    new = required.tensors.host(key).to(old.dtype)
    return torch.equal(new[kept], old[kept.to(old.device)].to(new.device))


def require_module(required: Requirements, name: str, paths: Mapping[str, str]) -> None:
    """Note what keeps the module from being replaced by these tensors, given by their paths."""
    if not required.usable(name):
        return
    module = required.module(name)
    if isinstance(module, CONTAINERS):
        kind = type(module).__name__
        required.problem(codes.SAVED_CONTAINER, f"{name} is a {kind}, which is never called")
        return
    old = own_tensors(module)
    found = {path: required.tensors.shape(key) for path, key in paths.items()}
    expected = {path: tuple(tensor.shape) for path, tensor in old.items()}
    code = fit_codes.SAVED_MODULE
    if name not in required.plan.saved and name not in required.plan.tuned:  # an embedding or head
        rows, width = found["weight"][:1], expected["weight"][1:]
        if expected.get("bias", rows) == rows:
            code, expected = fit_codes.EMBEDDING_MISMATCH, {"weight": (*rows, *width)}
        else:  # more rows than the base's bias has
            code = fit_codes.SIZE_MISMATCH
    if found != expected:
        required.misfit(name, found, expected, code)
        return
    for path, key in paths.items():
        owner, _, _ = path.rpartition(".")
        dtype = None if old[path].is_floating_point() else old[path].dtype  # a counter
        if not required.want(f"{name}.{owner}" if owner else name, [key], dtype):
            return


def require_bias(
    required: Requirements, name: str, key: str
) -> tuple[str, str, torch.Tensor] | None:
    """(module, key, the base's own bias), if it can be exchanged; else a problem is noted."""
    if not required.usable(name):
        return None
    module = required.module(name)
    old = bias_of(module)
    if old is None and (adds := _adds_bias_of(required, name)) is not None:
        other = required.plan.biases.get(adds)
        if other is None:
            return require_bias(required, adds, key)
        if torch.equal(required.tensors.host(key), required.tensors.host(other)):
            return None  # the file has it under both names
    if old is None and not required.modules.tied_to(f"{name}.bias"):
        old = inner_bias_of(module)
    if old is None:
        kind = type(module).__name__
        required.problem(
            fit_codes.BIAS_MISMATCH, f"{name}: the bias of a {kind} cannot be exchanged"
        )
        return None
    return (name, key, old) if required.want(name, [key]) else None


def _adds_bias_of(required: Requirements, name: str) -> str | None:
    """The module that adds the bias of ``name``: in BERT's heads for language models it is tied to
    the decoder's."""
    for tied in required.modules.tied_to(f"{name}.bias"):
        other, _, leaf = tied.rpartition(".")
        if leaf == "bias" and bias_of(required.modules.by_name[other]) is not None:
            return other
    return None

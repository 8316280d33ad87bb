"""Whole modules and biases that an adapter brings: do they fit those that they stand for?"""

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


def whole_modules(required: Requirements) -> dict[str, Mapping[str, str]]:
    """Every replaced module: {path under it: tensor}. Saved embeddings are such modules too;
    a head that is tied to a saved embedding gets the same weight, as it does in PEFT, where
    loading writes into the tied parameter."""
    whole: dict[str, Mapping[str, str]] = {**required.plan.saved, **required.plan.tuned}
    for name, key in required.plan.embeddings.items():
        whole[name] = {"weight": key}
        module = required.modules.by_name.get(name)
        weight = getattr(module, "weight", None)
        if weight is None:
            continue
        for other in required.modules.tied_to(f"{name}.weight"):
            tied, _, parameter = other.rpartition(".")
            if parameter == "weight" and tied not in required.plan.embeddings:
                whole.setdefault(tied, {"weight": key})
    return {n: paths for n, paths in whole.items() if not _is_the_bases_own(required, n, paths)}


def _is_the_bases_own(required: Requirements, name: str, paths: Mapping[str, str]) -> bool:
    """A saved embedding that the training left as it was: PEFT saves targeted and resized
    embeddings always. It needs no copy. Rows that the adapter replaces (trained tokens) may
    differ: a resized base has its own numbers there."""
    if name in required.plan.saved or name in required.plan.tuned:
        return False
    module = required.modules.by_name.get(name)
    old = offloaded(module, "weight") if module is not None else None
    key = paths["weight"]
    infos = required.tensors.header.tensors
    if old is None or key not in infos or infos[key].dtype not in FLOATS:
        return False
    replaced = [
        index
        for site in required.plan.sites
        if site.module == name
        for index in site.settings.get("indices", ())
        if 0 <= index < len(old)
    ]
    if not replaced or required.tensors.shape(key) != tuple(old.shape):
        return not required.differs(key, old)
    kept = torch.ones(len(old), dtype=torch.bool)
    kept[replaced] = False
    new = required.tensors.host(key).to(old.dtype)
    return torch.equal(new[kept], old[kept.to(old.device)].to(new.device))


def require_module(
    required: Requirements, name: str, paths: Mapping[str, str]
) -> Mapping[str, str] | None:
    """The module's tensors by their paths, if all are there and fit; else problems are noted."""
    module = required.usable_module(name)
    if module is None or not required.present(name, paths.values()):
        return None
    if isinstance(module, CONTAINERS):
        kind = type(module).__name__
        required.problem(codes.SAVED_CONTAINER, f"{name} is a {kind}, which is never called")
        return None
    expected = {path: tuple(t.shape) for path, t in own_tensors(module).items()}
    kept = name in required.plan.saved or name in required.plan.tuned
    grows = set(paths) == {"weight"} and not kept
    if grows:
        rows = required.tensors.shape(paths["weight"])[:1]
        if "bias" in expected and rows != expected["weight"][:1]:
            required.misfit(f"{name}.bias", expected["bias"], rows)
            return None
        expected = {"weight": (*rows, *expected["weight"][1:])}
    missing = sorted(expected.keys() - paths.keys())
    unknown = sorted(paths.keys() - expected.keys())
    if missing or unknown:
        required.problem(
            fit_codes.SAVED_MODULE,
            f"{name} is not whole",
            found=f"missing {missing}, unexpected {unknown}",
            expected=", ".join(sorted(expected)),
        )
        return None
    for path, key in paths.items():
        if required.tensors.shape(key) != expected[path]:
            shape = required.tensors.shape(key)
            code = fit_codes.SAVED_MODULE if kept else fit_codes.EMBEDDING_MISMATCH
            required.misfit(f"{name}.{path}", shape, expected[path], code)
    old = own_tensors(module)
    for path, key in paths.items():
        owner, _, _ = path.rpartition(".")
        kept = None if old[path].is_floating_point() else old[path].dtype  # a counter
        if not required.want(f"{name}.{owner}" if owner else name, [key], kept):
            return None
    return paths


def require_bias(
    required: Requirements, name: str, key: str
) -> tuple[str, str, torch.Tensor] | None:
    """(module, key, the base's own bias), if it can be exchanged; else a problem is noted."""
    module = required.usable_module(name)
    if module is None or not required.present(name, [key]):
        return None
    old = bias_of(module)
    if old is None and (adds := _adds_bias_of(required, name)) is not None:
        other = required.plan.biases.get(adds)
        if other is not None and _same(required, key, other):
            return None  # the file has it under both names
        if other is None:
            return require_bias(required, adds, key)
    if old is None and not required.modules.tied_to(f"{name}.bias"):
        old = inner_bias_of(module)
    if old is None:
        required.problem(
            fit_codes.BIAS_MISMATCH,
            f"{name}: the bias of a {type(module).__name__} cannot be exchanged",
        )
        return None
    if required.tensors.shape(key) != tuple(old.shape):
        shape = required.tensors.shape(key)
        required.misfit(f"{name}.bias", shape, tuple(old.shape), fit_codes.BIAS_MISMATCH)
    return (name, key, old) if required.want(name, [key]) else None


def _adds_bias_of(required: Requirements, name: str) -> str | None:
    """The module that adds the bias which ``name`` owns: in BERT's heads for language models it
    is tied to the decoder's."""
    for tied in required.modules.tied_to(f"{name}.bias"):
        other, _, leaf = tied.rpartition(".")
        if leaf == "bias" and bias_of(required.modules.by_name[other]) is not None:
            return other
    return None


def _same(required: Requirements, key: str, other: str) -> bool:
    infos = required.tensors.header.tensors
    return other in infos and torch.equal(required.tensors.host(key), required.tensors.host(other))

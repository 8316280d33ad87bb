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
from .requirements import Claims


def whole_modules(claims: Claims) -> dict[str, Mapping[str, str]]:
    """Every replaced module: {path under it: tensor}. Saved embeddings are such modules too;
    a head that is tied to a saved embedding gets the same weight, as it does in PEFT, where
    loading writes into the tied parameter."""
    whole: dict[str, Mapping[str, str]] = {**claims.plan.saved, **claims.plan.tuned}
    for name, key in claims.plan.embeddings.items():
        whole[name] = {"weight": key}
        module = claims.modules.by_name.get(name)
        weight = getattr(module, "weight", None)
        if weight is None:
            continue
        for other in claims.modules.tied_to(f"{name}.weight"):
            tied, _, parameter = other.rpartition(".")
            if parameter == "weight" and tied not in claims.plan.embeddings:
                whole.setdefault(tied, {"weight": key})
    return {n: paths for n, paths in whole.items() if not _is_the_bases_own(claims, n, paths)}


def _is_the_bases_own(claims: Claims, name: str, paths: Mapping[str, str]) -> bool:
    """A saved embedding that the training left as it was: PEFT saves targeted and resized
    embeddings always. It needs no copy. Rows that the adapter replaces (trained tokens) may
    differ: a resized base has its own numbers there."""
    if name in claims.plan.saved or name in claims.plan.tuned:
        return False
    module = claims.modules.by_name.get(name)
    old = offloaded(module, "weight") if module is not None else None
    key = paths["weight"]
    infos = claims.tensors.header.tensors
    if old is None or key not in infos or infos[key].dtype not in FLOATS:
        return False
    replaced = [
        index
        for site in claims.plan.sites
        if site.module == name
        for index in site.settings.get("indices", ())
        if 0 <= index < len(old)
    ]
    if not replaced or claims.tensors.shape(key) != tuple(old.shape):
        return not claims.differs(key, old)
    kept = torch.ones(len(old), dtype=torch.bool)
    kept[replaced] = False
    new = claims.tensors.host(key).to(old.dtype)
    return torch.equal(new[kept], old[kept.to(old.device)].to(new.device))


def claim_whole(claims: Claims, name: str, paths: Mapping[str, str]) -> Mapping[str, str] | None:
    """The module's tensors by their paths, if all are there and fit; else problems are noted."""
    module = claims.usable_module(name)
    if module is None or not claims.present(name, paths.values()):
        return None
    if isinstance(module, CONTAINERS):
        kind = type(module).__name__
        claims.problem(codes.SAVED_CONTAINER, f"{name} is a {kind}, which is never called")
        return None
    expected = {path: tuple(t.shape) for path, t in own_tensors(module).items()}
    kept = name in claims.plan.saved or name in claims.plan.tuned
    grows = set(paths) == {"weight"} and not kept
    if grows:
        rows = claims.tensors.shape(paths["weight"])[:1]
        if "bias" in expected and rows != expected["weight"][:1]:
            claims.misfit(f"{name}.bias", expected["bias"], rows)
            return None
        expected = {"weight": (*rows, *expected["weight"][1:])}
    missing = sorted(expected.keys() - paths.keys())
    unknown = sorted(paths.keys() - expected.keys())
    if missing or unknown:
        claims.problem(
            fit_codes.SAVED_MODULE,
            f"{name} is not whole",
            found=f"missing {missing}, unexpected {unknown}",
            expected=", ".join(sorted(expected)),
        )
        return None
    for path, key in paths.items():
        if claims.tensors.shape(key) != expected[path]:
            shape = claims.tensors.shape(key)
            code = fit_codes.SAVED_MODULE if kept else fit_codes.EMBEDDING_MISMATCH
            claims.misfit(f"{name}.{path}", shape, expected[path], code)
    old = own_tensors(module)
    for path, key in paths.items():
        owner, _, _ = path.rpartition(".")
        kept = None if old[path].is_floating_point() else old[path].dtype  # a counter
        if not claims.want(f"{name}.{owner}" if owner else name, [key], kept):
            return None
    return paths


def claim_bias(claims: Claims, name: str, key: str) -> tuple[str, str, torch.Tensor] | None:
    """(module, key, the base's own bias), if it can be exchanged; else a problem is noted."""
    module = claims.usable_module(name)
    if module is None or not claims.present(name, [key]):
        return None
    old = bias_of(module)
    if old is None and (adds := _adds_bias_of(claims, name)) is not None:
        other = claims.plan.biases.get(adds)
        if other is not None and _same(claims, key, other):
            return None  # the file has it under both names
        if other is None:
            return claim_bias(claims, adds, key)
    if old is None and not claims.modules.tied_to(f"{name}.bias"):
        old = inner_bias_of(module)
    if old is None:
        claims.problem(
            fit_codes.BIAS_MISMATCH,
            f"{name}: the bias of a {type(module).__name__} cannot be exchanged",
        )
        return None
    if claims.tensors.shape(key) != tuple(old.shape):
        shape = claims.tensors.shape(key)
        claims.misfit(f"{name}.bias", shape, tuple(old.shape), fit_codes.BIAS_MISMATCH)
    return (name, key, old) if claims.want(name, [key]) else None


def _adds_bias_of(claims: Claims, name: str) -> str | None:
    """The module that adds the bias which ``name`` owns: in BERT's heads for language models it
    is tied to the decoder's."""
    for tied in claims.modules.tied_to(f"{name}.bias"):
        other, _, leaf = tied.rpartition(".")
        if leaf == "bias" and bias_of(claims.modules.by_name[other]) is not None:
            return other
    return None


def _same(claims: Claims, key: str, other: str) -> bool:
    infos = claims.tensors.header.tensors
    return other in infos and torch.equal(claims.tensors.host(key), claims.tensors.host(other))

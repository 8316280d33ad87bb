"""What of an attached adapter can be combined: its pairs, its trained biases, its whole modules."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch

from ...manifests.findings import loader as codes
from ...manifests.findings.finding import Finding, Where
from ...registry.methods.naming import strip_peft_prefix
from ..adapter.adapter import Adapter, Built
from ..adapter.factors import Factors
from ..base.live_base import LiveBase
from ..methods.lora import ConvFactors, EmbeddingFactors, LinearFactors
from ..sites.bias import BiasFactors
from ..sites.replacements import own_tensors
from .pairs import Pair, PairPlace, fold, plain

_PAIRED = (LinearFactors, EmbeddingFactors, ConvFactors)


@dataclass(frozen=True, eq=False)
class Member:
    """One adapter as matrices (float32, CPU). ``biases`` are (the adapter's, the base's own);
    ``whole`` are {module: {path under it: tensor}}; ``rank`` is the largest at any module."""

    name: str
    digest: str
    rank: int
    pairs: Mapping[str, Pair]
    biases: Mapping[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    whole: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)


def member_of(
    live: LiveBase,
    built: Built,
    where: Where = Where(),  # noqa: B008 - frozen
) -> tuple[Member | None, dict[str, PairPlace], list[Finding]]:
    """The adapter's parts with their places, or what of it is no pair of factors: a combination
    is of plain LoRA deltas, and leaving the rest out would be another adapter."""
    adapter = built.adapter
    pairs: dict[str, Pair] = {}
    places: dict[str, PairPlace] = {}
    biases: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    used: set[int] = set()
    odd: dict[str, str] = {}
    for module, factors in built.outputs.items():
        for one in factors:
            used.update(map(id, _tensors_of(one)))
            if isinstance(one, BiasFactors):
                biases[module] = (plain(one.value), plain(one.old))
            elif type(one) in _PAIRED and module not in pairs:
                shape = live.modules.shape(module)
                place = PairPlace(module, shape.kind, tuple(shape.kernel), shape.groups)
                places[module] = place
                pairs[module] = _pair(one, place)
            else:
                odd.setdefault(type(one).__name__.removesuffix("Factors"), module)
    for key, parameter in adapter.resident.parameters.items():
        if id(parameter) not in used:
            odd.setdefault(strip_peft_prefix(key), key)
    if odd:
        kinds = "+".join(adapter.methods) or "no factors"
        return None, {}, [_unsupported(adapter, kinds, odd, where)]
    whole = {
        name: {path: plain(t) if t.is_floating_point() else t for path, t in found.items()}
        for name, replacement in built.replacements.items()
        if (found := own_tensors(replacement))
    }
    digest = adapter.digest or content_digest(pairs, biases)
    return Member(adapter.name, digest, adapter.rank, pairs, biases, whole), places, []


def digest_of(live: LiveBase, built: Built) -> str | None:
    """By what an adapter's random masks are drawn; ``None`` where it cannot be combined."""
    if built.adapter.digest is not None:
        return built.adapter.digest
    member, _, _ = member_of(live, built)
    return member.digest if member is not None else None


def content_digest(
    pairs: Mapping[str, Pair], biases: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
) -> str:
    """What stands for the folder's digest where an adapter came without one (from memory, or a
    local folder that nothing pins): sha256 over its factors' places, shapes, scales and values."""
    total = hashlib.sha256()
    for module, pair in sorted(pairs.items()):
        parts = [t for t in (pair.a, pair.b, pair.bias) if t is not None]
        total.update(json.dumps([module, pair.scale, [list(t.shape) for t in parts]]).encode())
        for tensor in parts:
            total.update(tensor.contiguous().numpy().tobytes())
    for module, (value, _) in sorted(biases.items()):
        total.update(json.dumps([module, list(value.shape)]).encode())
        total.update(value.contiguous().numpy().tobytes())
    return f"sha256:{total.hexdigest()}"


def _pair(one: Factors, place: PairPlace) -> Pair:
    assert isinstance(one, _PAIRED)
    bias = None if isinstance(one, EmbeddingFactors) else one.bias
    return fold(one.a, one.b, one.scale, bias, place.groups)


def _tensors_of(one: Factors) -> Iterable[torch.Tensor]:
    """The parameters that a reading of these factors takes in."""
    if isinstance(one, BiasFactors):
        return [one.value]
    if type(one) in _PAIRED:
        own = [getattr(one, name, None) for name in ("a", "b", "bias")]
        return [tensor for tensor in own if tensor is not None]
    return []


def _unsupported(adapter: Adapter, kinds: str, odd: Mapping[str, str], where: Where) -> Finding:
    part, at = next(iter(odd.items()))
    return codes.COMBINE_UNSUPPORTED.finding(
        f"{adapter.name!r} ({kinds}) is not made of plain pairs of LoRA factors",
        where,
        found=part if part in at else f"{part} at {at}",
        expected="LoRA without DoRA, trained tokens or parameters of experts",
    )

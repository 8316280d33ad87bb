"""The parts of an attached adapter that can be combined: pairs, trained biases, saved modules."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import RoutingError
from ...manifests.findings.finding import Where
from ...registry.methods.naming import strip_peft_prefix
from ..adapter.adapter import Built
from ..methods.table import METHODS
from ..sites.replacements import own_tensors
from .pairs import Pair, PairPlace, plain


@dataclass(frozen=True, eq=False)
class Member:
    """One adapter as matrices (float32, CPU). ``biases`` are (the adapter's, the base's own);
    ``replaced`` are {module: {path under it: tensor}}; ``rank`` is the largest at any module."""

    name: str
    digest: str
    rank: int
    pairs: Mapping[str, Pair]
    places: Mapping[str, PairPlace]
    biases: Mapping[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    replaced: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)


def member_of(built: Built, where: Where = Where()) -> Member:  # noqa: B008 - frozen
    """The adapter's parts. Raises :class:`RoutingError` if there is more to it than pairs of
    factors: a combination without the rest would be another adapter."""
    adapter, weights = built.adapter, built.adapter.resident
    pairs: dict[str, Pair] = {}
    places: dict[str, PairPlace] = {}
    others = {key: strip_peft_prefix(key) for key in weights.unassigned()}
    for part in weights.parts:
        site = part.site
        method = METHODS.get(site.method)
        if site.module in pairs or method is None or not method.is_pair(site):
            roles = ", ".join(sorted(site.tensors))
            others[site.module] = f"{site.method} ({roles}) at {site.module}"
        else:
            places[site.module] = place = PairPlace.of(site.module, part.shape)
            pairs[site.module] = Pair.of(part.roles, site.scale, place.groups)
    # a module may do more with its bias than add it last
    others |= {m: f"{m}.bias" for m in weights.biases.keys() & built.weights.keys()}
    if others:
        raise RoutingError(
            codes.COMBINE_UNSUPPORTED.finding(
                f"{adapter.name!r} ({'+'.join(adapter.methods) or 'no factors'}) is not made of "
                "plain pairs of LoRA factors",
                where,
                found=next(iter(others.values())),
                expected="LoRA without DoRA, trained tokens or parameters of experts",
            )
        )
    biases = {m: (plain(one.value), plain(one.old)) for m, one in weights.biases.items()}
    replaced = {
        name: {path: plain(t) if t.is_floating_point() else t for path, t in found.items()}
        for name, replacement in built.replacements.items()
        if (found := own_tensors(replacement))
    }
    digest = adapter.digest or content_digest(pairs, biases)
    return Member(adapter.name, digest, adapter.rank, pairs, places, biases, replaced)


def digest_of(built: Built) -> str | None:
    """The digest that keys an adapter's random masks; ``None`` if it cannot be combined."""
    if built.adapter.digest is not None:
        return built.adapter.digest
    try:
        return member_of(built).digest
    except RoutingError:
        return None


def content_digest(
    pairs: Mapping[str, Pair], biases: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
) -> str:
    """In place of the folder's digest, where an adapter has none (from memory, or from a local
    folder without a lock): sha256 over its factors' places, shapes, scales and values."""
    total = hashlib.sha256()

    def add(facts: list[object], tensors: list[torch.Tensor]) -> None:
        total.update(json.dumps(facts).encode())
        for tensor in tensors:
            total.update(tensor.contiguous().numpy().tobytes())

    for module, pair in sorted(pairs.items()):
        tensors = [t for t in (pair.a, pair.b, pair.bias) if t is not None]
        add([module, pair.scale, [list(t.shape) for t in tensors]], tensors)
    for module, (value, _) in sorted(biases.items()):
        add([module, list(value.shape)], [value])
    return f"sha256:{total.hexdigest()}"

"""Adapters with other tensors as parameters, for one call.

``torch.func.functional_call`` and ``torch.export`` exchange the parameters in ``named_parameters``,
but the sites hold the adapters' own.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from torch import nn

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import RoutingError
from ...registry.methods.table import dropout_of
from ..adapter.adapter import Adapter, Built
from ..adapter.factors import Factors, WeightFactors
from ..methods.table import METHODS
from ..routing.routing import Routing
from ..sites.attachments import Attachments
from ..sites.bias import BiasFactors, BiasWeight, bias_of


@contextmanager
def with_exchanged(
    routing: Routing,
    exchanged: Mapping[str, Any],
    attachments: Attachments,
    modules: Mapping[str, nn.Module],
) -> Generator[Routing, None, None]:
    """The routing with the tensors ``exchanged`` (by PEFT's live names) as its adapters'
    parameters. Raises :class:`RoutingError` if that is not possible."""
    adapters = [adapter for adapter, _ in routing.terms]
    others = {
        a: made_with(a, exchanged, modules)
        for a in adapters
        if a.resident.parameters.keys() & exchanged.keys()
    }
    if others and routing.rows is not None:
        raise _refusal("the rows of a batch have different adapters")
    try:
        with attachments.lock:
            for built in others.values():
                other = built.adapter
                attachments.put(other, built.outputs, built.replacements, built.weights, modules)
        yield Routing(tuple((others[a].adapter if a in others else a, w) for a, w in routing.terms))
    finally:
        with attachments.lock:
            for built in others.values():
                built.adapter.retired = True  # it was there for one call only
                attachments.vacate(built.adapter)


def made_with(
    adapter: Adapter, exchanged: Mapping[str, Any], modules: Mapping[str, nn.Module]
) -> Built:
    """A copy of the adapter with other tensors."""
    now = {id(p): exchanged.get(key, p) for key, p in adapter.resident.parameters.items()}
    known = {id(t) for part in adapter.resident.parts for t in part.roles.values()}
    known |= {id(bias.value) for bias in adapter.resident.biases.values()}
    prompt = adapter.resident.prompt
    if prompt is not None and prompt.encoder is None:
        known.add(id(prompt.embeddings))
    through_peft = any(part.site.method not in METHODS for part in adapter.resident.parts)
    if through_peft or not now.keys() <= known:
        raise _refusal(f"{adapter.name!r} ({'+'.join(adapter.methods)}) has them in its own layers")
    outputs: dict[str, list[Factors]] = {}
    weights: dict[str, list[WeightFactors]] = {}
    dropout = dropout_of(adapter.config)
    parts = [
        part._replace(roles={r: now.get(id(t), t) for r, t in part.roles.items()})
        for part in adapter.resident.parts
    ]
    for part in parts:
        name = part.site.module
        method = METHODS[part.site.method]
        made = method.build(part.site, part.shape, part.roles, dropout)
        if name in adapter.resident.replaced:
            method.on_replacement(made, adapter.resident.replaced[name])
        if hasattr(made, "add_to"):
            weights.setdefault(name, []).append(cast(WeightFactors, made))
        else:
            outputs.setdefault(name, []).append(cast(Factors, made))
    for name, bias in adapter.resident.biases.items():
        old = bias_of(modules[name])
        value = now[id(bias.value)]
        if isinstance(bias, BiasFactors):
            old = bias.old if old is None else old
            outputs.setdefault(name, []).append(BiasFactors(value, old, called=not bias.reads))
        else:
            weights.setdefault(name, []).append(BiasWeight(value, bias.old))
    if prompt is not None and prompt.encoder is None and id(prompt.embeddings) in now:
        value, prompt = now[id(prompt.embeddings)], copy.copy(prompt)
        prompt.exchange(value)
    other = dataclasses.replace(
        adapter,
        trainable=False,
        weights=dataclasses.replace(adapter.resident, parts=tuple(parts), prompt=prompt),
        serial=Adapter("").serial,  # no key-value cache of the one is the other's
    )
    return Built(
        other,
        {name: tuple(factors) for name, factors in outputs.items()},
        dict(adapter.resident.replaced),
        {name: tuple(factors) for name, factors in weights.items()},
    )


def _refusal(why: str) -> RoutingError:
    return RoutingError(codes.NOT_EXCHANGED.finding(f"Cannot exchange the parameters: {why}"))

"""An independent copy of a base with its adapters.

The base is copied first, by ``copy.deepcopy``, whose ``memo`` then knows every module and tensor of
it. The adapters are copied with the same ``memo``, so that what they share with the base (a tied
weight, a bias beside a replaced weight) is shared with the copy in the same way.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import AttachError
from ..adapter.adapter import Adapter, Terms
from ..routing.routing import Routing
from ..sites.sites import unadapted
from .host import AdapterHost
from .model_state import ModelState, routing_of


def copied_base(host: AdapterHost, memo: dict[int, Any]) -> nn.Module:
    """A copy of the base alone. Raises :class:`AttachError` for weights that cannot be copied."""
    base = host.live.module
    away = [name for name, tensor in base.named_parameters() if tensor.is_meta]
    if away:
        raise AttachError(
            codes.COPY_REFUSED.finding(
                f"Cannot copy {away[0]}: it is offloaded, and in memory only while it is used",
                found=f"{len(away)} such parameters",
            )
        )
    made = copy.deepcopy(base, memo)
    for module in made.modules():
        unadapted(module)
    return made


def copy_adapters(host: AdapterHost, other: AdapterHost, memo: dict[int, Any]) -> None:
    """Give ``host``, whose base is a copy of that of ``other``, copies of the same adapters in the
    same state. The caller keeps ``other`` from changing."""
    here, there = host.adapters, other.adapters
    host.live.loaded_as = other.live.loaded_as
    adapters = {adapter: adapter.copied(memo) for adapter in there.by_name.values()}
    modules = host.live.known_modules.by_name
    here.attachments.copy_of(there.attachments, adapters, modules, memo)
    for mine in adapters.values():
        if mine.loaded:
            here.tree.put(mine)
    here.tree.train(there.tree.training)
    here.residency.copy_of(there.residency, adapters)
    here.state = _state(there.state, adapters, memo)
    if (deployment := here.state.deployment) is not None:
        deployment.keep_files(here)
    compiled = there.state.compiled
    if compiled is not None and any(site.factors for site in here.attachments.outputs.values()):
        host.calls.compile(max_rank=compiled.rank, **compiled.options)


def _state(
    state: ModelState, adapters: Mapping[Adapter, Adapter], memo: dict[int, Any]
) -> ModelState:
    def mine(terms: Terms) -> Terms:
        return tuple((adapters[one], weight) for one, weight in terms if one in adapters)

    def routing(old: Routing) -> Routing:
        return routing_of(mine(old.terms))

    default, before = routing(state.default), None
    if state.before_merge is not None:
        first, after = state.before_merge
        same = after is state.default  # unmerging asks for this very object
        before = (routing(first), default if same else routing(after))
    merge = None if state.merge is None else state.merge.copied(mine(state.merge.terms), memo)
    return replace(
        state,
        default=default,
        compositions=dict(state.compositions),
        recipes=dict(state.recipes),
        merge=merge,
        before_merge=before,
        compiled=None,
        routings={},
    )

"""Targets that the model never calls, and the tensors that show whether anything is lost there.

PEFT trains nothing at such a target: it has no gradient, and keeps its initial values. A factor
that was initialised to zero is still zero then, and ignoring the target loses nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ..files.facts import AdapterPlan, Layout, SitePlan
from .table import SITES

_MAMBA = frozenset({"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"})
_READ_BY_KERNELS = frozenset({"out_proj", "conv1d"})
"""Modules whose weight Mamba's kernels read, where these are installed; PEFT
(``_check_lora_target_modules_mamba`` of ``tuners_utils.py``) refuses these targets."""


def needs_call(site: SitePlan) -> bool:
    """Whether the site acts only where its module's own forward runs."""
    return SITES[site.method].needs_call(site)


def uncalled(plan: AdapterPlan, layout: Layout) -> Iterator[SitePlan]:
    """The sites of a plan that can never act."""
    for site in plan.sites:
        module = layout.modules.get(site.module)
        if module is None or not needs_call(site):
            continue
        by_kernels = site.module.rpartition(".")[2] in _READ_BY_KERNELS
        if not module.called or (by_kernels and layout.model_type in _MAMBA):
            yield site


def deciding(site: SitePlan) -> Iterator[frozenset[str]]:
    """Sets of the site's tensors. If all tensors of one set are zero, the site does nothing."""
    for roles in SITES[site.method].idle:
        if found := frozenset(site.tensors[role] for role in roles if role in site.tensors):
            yield found


def is_idle(site: SitePlan, zeros: Collection[str]) -> bool:
    """Whether the site does nothing, given that the tensors ``zeros`` are all zero."""
    return any(all(key in zeros for key in keys) for keys in deciding(site))

"""One site of an adapter: can the live module have it, and where do its tensors go?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch

from ...manifests.findings import loader as codes
from ...registry.files.facts import SIZED, ModuleShape, SitePlan
from ...registry.methods.lora_variants import ONLY_USED
from ...registry.methods.peft_table import PEFT_TABLE
from ...registry.methods.table import SITES as REGISTERED
from ..methods.method import Method
from ..methods.table import METHODS
from .requirements import Requirements

RequiredSite = tuple[SitePlan, Method, ModuleShape]


def check_trainable(required: Requirements) -> None:
    """Note a problem for each method whose training is more than gradients."""
    if not required.trainable:
        return
    sites = required.plan.sites
    names = {s.settings[ONLY_USED] for s in sites if ONLY_USED in s.settings}
    if (peft := required.plan.peft) is None:
        names |= {site.method for site in sites if not REGISTERED[site.method].trains}
    elif not PEFT_TABLE[peft.method].trains:
        names.add(peft.method)
    for name in sorted(names):
        required.problem(codes.METHOD_NOT_TRAINED, f"{name} adapters cannot be trained")


def require_site(
    required: Requirements, site: SitePlan, replaced: Mapping[str, Mapping[str, str]]
) -> RequiredSite | None:
    """The site with its method and its module's sizes; ``None``, and a problem, if the module
    cannot have it. ``replaced`` are the modules that the adapter replaces."""
    if not required.usable(site.module, replaced):
        return None
    if site.module in replaced and "parameter" in site.settings:
        required.problem(
            codes.SITE_INSIDE_SAVED, f"{site.module} is both adapted and replaced by the adapter"
        )
        return None
    method, module = METHODS[site.method], required.module(site.module)
    shape = _grown(required, site.module, required.modules.shape(site.module), replaced)
    reason = method.unsupported(site, module, shape)
    if shape.kind in SIZED and None in (shape.in_features, shape.out_features):
        reason = f"the sizes of this {type(module).__name__} are unknown"
    if reason is not None:
        required.problem(codes.MODULE_UNSUPPORTED, f"{site.module}: {reason}")
        return None
    if not _repeats(required, site) or not required.want(site.module, site.tensors.values()):
        return None
    return site, method, shape


def _repeats(required: Requirements, site: SitePlan) -> bool:
    """Whether a site that follows another has that one's tensors, or equal ones of its own."""
    leader = leader_of(site)
    if leader == site.module:
        return True
    first = next(s for s in required.plan.sites if s.module == leader and s.method == site.method)
    for role, key in site.tensors.items():
        other = first.tensors[role]
        if key != other and not torch.equal(
            required.tensors.host(key), required.tensors.host(other)
        ):
            required.problem(
                codes.TIED_DIFFERS, f"{key} differs from {other}, and the base ties their modules"
            )
            return False
    return True


def _grown(
    required: Requirements,
    name: str,
    shape: ModuleShape,
    replaced: Mapping[str, Mapping[str, str]],
) -> ModuleShape:
    """The module's sizes, with the number of rows of the weight that the adapter has for it."""
    key = replaced.get(name, {}).get("weight")
    if key is None or name not in required.plan.embeddings:
        return shape
    rows = required.tensors.shape(key)[0]
    if "num_embeddings" in vars(required.module(name)):
        return dataclasses.replace(shape, in_features=rows)
    return dataclasses.replace(shape, out_features=rows)


def leader_of(site: SitePlan) -> str:
    """The module whose parameters this site has: its own, or that of the one that it follows."""
    return site.settings.get("follows", site.module)

"""One site of an adapter: can it sit on its module, and do its tensors fit?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import nn

from ...manifests.findings import fit as fit_codes
from ...manifests.findings import loader as codes
from ...registry.files.conversion import Shape
from ...registry.files.facts import SIZED, ModuleShape, SitePlan
from ...registry.methods.lora_variants import ONLY_USED
from ...registry.methods.method import Method as MethodOnDisk
from ...registry.methods.table import SITES as REGISTERED
from ..methods.method import Method
from ..methods.table import METHODS
from .requirements import Requirements, Unfit

RequiredSite = tuple[SitePlan, Method, ModuleShape]


def check_trainable(required: Requirements) -> None:
    """Note a problem for each method whose training is more than gradients."""
    methods = {site.method for site in required.plan.sites} if required.trainable else set[str]()
    for name in sorted(methods & METHODS.keys()):
        if not REGISTERED[name].trains:
            required.problem(codes.METHOD_NOT_TRAINED, f"{name} adapters cannot be trainable")
    if required.trainable:
        for name in sorted(
            {s.settings[ONLY_USED] for s in required.plan.sites if ONLY_USED in s.settings}
        ):
            required.problem(codes.METHOD_NOT_TRAINED, f"{name} adapters cannot be trainable")


def require_site(
    required: Requirements, site: SitePlan, whole: Mapping[str, Mapping[str, str]]
) -> RequiredSite | None:
    """The site with its method and its module's sizes, if its tensors fit; else problems are
    noted."""
    method = METHODS.get(site.method)
    if method is None:
        required.problem(
            fit_codes.METHOD_UNSUPPORTED,
            f"{site.module}: {site.method} has no native implementation",
            expected=", ".join(METHODS),
        )
        return None
    module = required.usable_module(site.module)
    if module is None or not required.present(site.module, site.tensors.values()):
        return None
    if required.lost(site):
        return None
    inside = next((w for w in whole if site.module.startswith(f"{w}.")), None) if whole else None
    if inside is not None:
        required.problem(
            codes.SITE_INSIDE_SAVED, f"{site.module} is inside {inside}, which is replaced"
        )
        return None
    known = REGISTERED[site.method]
    if frozenset(site.tensors) not in known.role_sets:
        required.problem(
            fit_codes.HALF_PRESENT,
            f"{site.module} has not the parts that {site.method} needs",
            found=", ".join(sorted(site.tensors)),
            expected=" or ".join(", ".join(sorted(one)) for one in known.role_sets),
        )
        return None
    if site.module in whole and "parameter" in site.settings:
        required.problem(
            codes.SITE_INSIDE_SAVED, f"{site.module} is adapted and replaced by one adapter"
        )
        return None
    if not _repeats(required, site):
        return None
    shape = _grown(required, site.module, required.modules.shape(site.module), whole)
    infos = required.tensors.header.tensors
    shapes = {role: infos[key].shape for role, key in site.tensors.items()}
    expected = _expected(required, known, method, site, module, shape, shapes)
    if isinstance(expected, Unfit):
        required.problem(expected.code, f"{site.module}: {expected.reason}")
        return None
    for role, found in shapes.items():
        if found != expected.get(role):
            required.misfit(f"{role} at {site.module}", found, expected.get(role))
    return (site, method, shape) if required.want(site.module, site.tensors.values()) else None


def _expected(
    required: Requirements,
    known: MethodOnDisk,
    method: Method,
    site: SitePlan,
    module: nn.Module,
    shape: ModuleShape,
    found: Mapping[str, Shape],
) -> Mapping[str, Shape] | Unfit:
    """What each role's tensor must be at this module, or why none can be there."""
    sizes = (shape.kind, shape.in_features, shape.out_features)
    key = (site.method, sizes, site.rank, tuple(found.items()))
    # DoRA asks each module for its weight
    plain = type(module) is nn.Linear and not site.settings and "magnitude" not in found
    expected = required.linears.get(key) if plain else None
    if expected is None:
        wrong_kind = shape.kind not in known.kinds
        if wrong_kind or (shape.kind in SIZED and None in sizes):
            code = fit_codes.KIND_MISMATCH if wrong_kind else codes.MODULE_UNSUPPORTED
            expected = Unfit(code, f"{site.method} cannot sit on a {type(module).__name__}")
        elif reason := method.unsupported(site, module, shape):
            expected = Unfit(codes.MODULE_UNSUPPORTED, reason)
        else:
            expected = known.shapes(site, shape, found)
            if isinstance(expected, str):
                expected = Unfit(fit_codes.SITE_UNSUPPORTED, expected)
        if plain:
            required.linears[key] = expected
    return expected


def _repeats(required: Requirements, site: SitePlan) -> bool:
    """Whether what follows another module has that one's tensors, under a key of its own or
    not."""
    leader = leader_of(site)
    if leader == site.module:
        return True
    first = next(s for s in required.plan.sites if s.module == leader and s.method == site.method)
    for role, key in site.tensors.items():
        other = first.tensors[role]
        if other not in required.tensors.header.tensors:
            return True  # reported there
        if key != other and not torch.equal(
            required.tensors.host(key), required.tensors.host(other)
        ):
            required.problem(
                codes.TIED_DIFFERS, f"{key} is not {other}, though the base ties their modules"
            )
            return False
    return True


def _grown(
    required: Requirements,
    name: str,
    shape: ModuleShape,
    whole: Mapping[str, Mapping[str, str]],
) -> ModuleShape:
    """The module's sizes, with the rows of the weight that the adapter brings for it."""
    if name not in required.plan.embeddings:
        return shape
    key = whole.get(name, {}).get("weight")
    if key is None:
        return shape
    rows = required.tensors.shape(key)[0]
    if "num_embeddings" in vars(required.module(name)):
        return dataclasses.replace(shape, in_features=rows)
    return dataclasses.replace(shape, out_features=rows)


def leader_of(site: SitePlan) -> str:
    """The module whose parameters this site has: its own, or that of the one that it follows."""
    return site.settings.get("follows", site.module)

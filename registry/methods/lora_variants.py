"""Variants of LoRA that have its two factors and use them in another way.

PEFT 0.21.2, ``tuners/lora/variants.py``; a field of ``LoraConfig`` asks for each:

- VeLoRA (https://arxiv.org/abs/2405.17991) keeps a compressed input for backward. Its forward is
  LoRA's. The projection, ``lora_velora_embed`` (in / num_groups, rounded up), is in the file.
- BD-LoRA: one of the two factors is block-diagonal, and only its blocks are stored, one below the
  other: A (r, in / nblocks) or B (out, r / nblocks). Parts of paths select the modules.
- aLoRA (https://arxiv.org/abs/2512.04492): acts from the last invocation sequence of a row on.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding, Where
from ..files.facts import AdapterPlan, ModuleKind, ModuleShape, SitePlan
from .options import Expect, any_text, boolean, either, index, list_of, number, optional, rank

BLOCKS, ACTIVATED, ONLY_USED = "blocks", "activated", "only_used"
"""Settings of a site: {role: number of blocks}; the invocation's tokens; why it is not trained."""

VARIANTS: Mapping[str, str] = {
    "use_dora": "DoRA",
    "velora_config": "VeLoRA",
    "use_bdlora": "BD-LoRA",
    "alora_invocation_tokens": "aLoRA",
}
"""Fields that PEFT applies one at a time."""


def _fields(**kinds: Expect) -> Expect:
    def expect(value: object) -> str | None:
        if not isinstance(value, dict):
            return "a map"
        fields = cast("Mapping[str, object]", value)
        if fields.keys() - kinds.keys():
            return f"a map of {', '.join(kinds)}"
        wrong = ((name, kinds[name](found)) for name, found in fields.items())
        return next((f"a map in which {name} is {w}" for name, w in wrong if w), None)

    return expect


VELORA: Expect = optional(_fields(num_groups=rank, scale=number, init_type=any_text))
BDLORA: Expect = optional(
    either(
        boolean,
        _fields(
            target_modules_bd_a=optional(list_of(any_text)),
            target_modules_bd_b=optional(list_of(any_text)),
            nblocks=rank,
            match_strict=optional(boolean),
        ),
    )
)
ALORA: Expect = optional(list_of(index))


def check_config(config: Mapping[str, Any], where: Where) -> list[Finding]:
    """Find combinations of these fields that PEFT refuses, once each is of the right kind."""
    found: list[Finding] = []

    def contradicts(message: str, said: object = None) -> None:
        found.append(codes.OPTION_CONTRADICTION.finding(message, where, found=said))

    asked = [field for field in VARIANTS if config.get(field)]
    if len(asked) > 1:
        contradicts(f"{' and '.join(asked)} cannot be combined")
    if asked and asked != ["use_dora"] and config.get("target_parameters"):
        contradicts(f"{asked[0]} cannot be combined with target_parameters")
    blocks = config.get("use_bdlora")
    if not blocks:
        return found
    if blocks is True:
        contradicts("use_bdlora: true does not say which factors have blocks", True)
        return found
    one, other = (set(blocks.get(f"target_modules_bd_{end}") or ()) for end in "ab")
    if both := sorted(one & other):
        contradicts(f"use_bdlora names {both[0]} both for A and for B", both)
    ranks = [config.get("r", 8), *(config.get("rank_pattern") or {}).values()]
    number_of = blocks.get("nblocks", 1)
    if odd := [r for r in ranks if r % number_of]:
        contradicts(f"A rank of {odd[0]} cannot be cut into {number_of} blocks", odd[0])
    return found


def settings_of(config: Mapping[str, Any], author: str) -> Mapping[str, Any]:
    """The settings from these fields at the module that the file calls ``author``."""
    found: dict[str, Any] = {}
    if velora := config.get("velora_config"):
        found["groups"] = velora.get("num_groups", 64)
        found[ONLY_USED] = "VeLoRA"
    if tokens := config.get("alora_invocation_tokens"):
        found[ACTIVATED] = tuple(tokens)
    if isinstance(blocks := config.get("use_bdlora"), dict):
        number_of = blocks.get("nblocks", 1)
        names = {"A": "target_modules_bd_a", "B": "target_modules_bd_b"}
        cut = {
            role: number_of
            for role, name in names.items()
            if any(part in author for part in blocks.get(name) or ())
        }
        if cut:
            found[BLOCKS] = MappingProxyType(cut)
    return MappingProxyType(found)


def invocation_of(plan: AdapterPlan) -> tuple[int, ...] | None:
    """The tokens that start the adapter's effect; ``None`` where it acts everywhere."""
    return next((s.settings[ACTIVATED] for s in plan.sites if ACTIVATED in s.settings), None)


def misplaced(site: SitePlan, module: ModuleShape) -> str | None:
    """Why this variant cannot adapt a module of this kind or these sizes."""
    name = next((n for s, n in _SHOWN.items() if s in site.settings), None)
    if name is None:
        return None
    kinds = {ModuleKind.LINEAR} if name == "BD-LoRA" else {ModuleKind.LINEAR, ModuleKind.CONV1D}
    if module.kind not in kinds:
        return f"{name} only adapts linear modules"
    cut: Mapping[str, int] = site.settings.get(BLOCKS, {})
    sizes = {"A": module.in_features, "B": module.out_features}
    for role, number_of in cut.items():
        if (sizes[role] or 0) % number_of:
            return f"{sizes[role]} features cannot be cut into {number_of} blocks"
    if len(cut) > 1:
        return "use_bdlora names this module both for A and for B"
    return None


_SHOWN = {"groups": "VeLoRA", ACTIVATED: "aLoRA", BLOCKS: "BD-LoRA"}

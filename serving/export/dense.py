"""An adapter as pairs of factors at linear layers, which is all that GGUF and MLX can hold.

Everything else is refused by name, before anything is written: a program that reads such a file
ignores what it does not know, and answers as if it were complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...manifests.findings import serving as codes
from ...manifests.findings.finding import Finding, Where
from ...registry.deltas import Deltas, LowRank
from ...registry.files.arrays import READABLE
from ...registry.files.facts import (
    AdapterFacts,
    AdapterPlan,
    Layout,
    ModuleKind,
    SitePlan,
    TensorInfo,
)
from ...registry.methods.lora_variants import ACTIVATED, BLOCKS

_SHOWN = 3
_PARTS: Mapping[str, str] = {
    "magnitude": "DoRA's magnitude",
    "B_bias": "a bias of B (lora_bias)",
    "embedding_A": "factors of an embedding",
    "rows": "trained rows of an embedding (trainable_token_indices)",
    "velora": "VeLoRA's projection",
}
"""What a role other than A and B is, in words."""
_OTHER_KINDS: Mapping[ModuleKind, str] = {
    ModuleKind.CONV1D: "a Conv1D, whose weight is turned",
    ModuleKind.CONV: "a convolution",
    ModuleKind.EMBEDDING: "an embedding",
}


@dataclass(frozen=True)
class DenseLora:
    """A LoRA of linear layers alone, with the rank and the rows of B of each module."""

    name: str
    deltas: Deltas
    ranks: Mapping[str, int] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        """The largest rank."""
        return max(self.ranks.values())

    def pairs(self) -> Iterator[tuple[str, LowRank]]:
        """Each module with its factors, one after another: A (r, in), and B (out, r) with the true
        scale of the module in it (rsLoRA, ``alpha_pattern``), float64. Raises ``OSError``."""
        for module in self.ranks:
            yield module, self.deltas.read(module)


def dense_lora(
    name: str,
    facts: AdapterFacts,
    plan: AdapterPlan,
    places: Mapping[str, Path],
    layout: Layout,
    form: str,
    where: Where,
) -> tuple[DenseLora | None, list[Finding]]:
    """The adapter for a file of the format ``form``, or findings that say why it cannot be one.

    Args:
        name: The adapter's name.
        facts: What its files say.
        plan: Where its tensors go.
        places: Where its files are.
        layout: The base's modules.
        form: The format, as a person calls it.
        where: The adapter's place in the manifest.
    """
    reasons = {
        **dict.fromkeys(plan.saved, "the module is replaced (modules_to_save)"),
        **dict.fromkeys(plan.embeddings, "a replaced embedding (save_embedding_layers)"),
        **dict.fromkeys(plan.tuned, f"{plan.tuned_by} replaces the module"),
        **dict.fromkeys(plan.biases, "a trained bias of the base"),
    }
    if plan.prompt is not None:
        reasons["(the model)"] = f"{plan.prompt.method} adds virtual tokens"
    if plan.peft is not None:
        reasons |= dict.fromkeys(plan.peft.authors, plan.peft.method)
    deltas = Deltas.of(facts, plan, places)
    tensors = plan.converted(facts).header.tensors
    tied = frozenset(
        parameter.rpartition(".")[0] for pair in layout.tied.items() for parameter in pair
    )
    for site in plan.sites:
        why = _unwritable(site, tensors, layout, tied) or deltas.left_out.get(site.module)
        if why is not None:
            reasons.setdefault(site.module, why)
    if not reasons and not plan.sites:
        reasons["(the model)"] = "the adapter changes no linear layer"
    if reasons:
        return None, [_refused(name, reasons, form, where)]
    return DenseLora(
        name,
        deltas,
        {site.module: site.rank for site in plan.sites},
        {site.module: tensors[site.tensors["B"]].shape[0] for site in plan.sites},
    ), []


def _unwritable(
    site: SitePlan, tensors: Mapping[str, TensorInfo], layout: Layout, tied: frozenset[str]
) -> str | None:
    """Why a site is not a plain LoRA of a linear layer."""
    if site.method != "LORA":
        return f"{site.method} is not LoRA"
    if extra := sorted(site.tensors.keys() - {"A", "B"}):
        return _PARTS.get(extra[0], extra[0])
    if ACTIVATED in site.settings:
        return "an aLoRA acts from its invocation tokens on only"
    if BLOCKS in site.settings:
        return "factors in blocks (BD-LoRA)"
    module = layout.modules.get(site.module)
    if module is None:
        return "the base has no such module"
    if module.kind is not ModuleKind.LINEAR:
        return _OTHER_KINDS.get(module.kind, "not a linear layer")
    if site.module in tied:
        return "a head that is tied to the embeddings"
    for key in site.tensors.values():
        if tensors[key].dtype not in READABLE:
            return f"factors in {tensors[key].dtype}"
    return None


def _refused(name: str, reasons: Mapping[str, str], form: str, where: Where) -> Finding:
    """One finding for an adapter, with the first module of each reason."""
    first: dict[str, str] = {}
    for module, why in reasons.items():
        first.setdefault(why, module)
    found = "; ".join(f"{module}: {why}" for why, module in [*first.items()][:_SHOWN])
    more = len(first) - _SHOWN
    return codes.FORMAT_LACKS.finding(
        f"Cannot write {name!r} as {form}: it holds more than LoRA factors of linear layers",
        where,
        found=f"{found}; {more} more reasons" if more > 0 else found,
        expected="lora_A and lora_B of linear layers, and nothing else",
    )

"""LoRA on ``nn.MultiheadAttention``, which runs its projections without calling a module.

Key grammar: PEFT 0.21.2, ``tuners/lora/layer.py``, ``MultiheadAttention``. Such a target adapts
``in_proj_weight`` (``<module>.lora_A.weight``) and the weight of its ``out_proj``
(``<module>.base_layer.out_proj.lora_A.weight``) with the rank and alpha of the target. PEFT adds
the second delta twice, itself and through the layer that it has put there, in training too. Such an
adapter was trained with this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..files.facts import TARGET, Layout, SitePlan
from .lora_parameters import NAME
from .naming import Naming
from .targets import TargetSelection

IN, OUT = "in_proj_weight", "out_proj"
INSIDE = f"base_layer.{OUT}"
"""What PEFT wraps the output projection in, after the module's name."""

Settled = tuple[int, float, float]
Parts = Mapping[str, Mapping[str, str]]


def sites(live: str, parts: Parts, settled: Settled) -> Iterator[SitePlan]:
    """The two sites of one such target, of {what PEFT has wrapped: {role: key}}."""
    rank, alpha, scale = settled
    settings = {"parameter": IN, "wraps": "", TARGET: live}
    yield SitePlan(live, NAME, parts[""], rank, alpha, scale, settings)
    settings = {"parameter": "weight", "wraps": "", TARGET: live}
    yield SitePlan(f"{live}.{OUT}", NAME, parts[INSIDE], rank, alpha, 2 * scale, settings)


def reader_of(site: SitePlan) -> tuple[str, str]:
    """The module whose forward reads the site's parameter, and the parameter's path in it."""
    inside = site.module[len(site.reader) + 1 :]
    name = site.settings["parameter"]
    return site.reader, f"{inside}.{name}" if inside else name


def selected(layout: Layout, selection: TargetSelection, naming: Naming) -> list[str]:
    """The live modules of this kind that a config selects. Raises ``PatternError``."""
    return [
        live
        for live, module in layout.modules.items()
        if IN in module.parameters and selection.selects(naming.author(live))
    ]

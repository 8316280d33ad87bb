"""The ways to combine adapters in a composition, by PEFT's names
(``LoraModel.add_weighted_adapter``): one row each, and one name in the list that the schema reads.

``loader/compose/methods.py`` computes what a row says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

Combine = Literal[
    "sum",
    "linear",
    "cat",
    "svd",
    "ties",
    "ties_svd",
    "dare_linear",
    "dare_ties",
    "dare_linear_svd",
    "dare_ties_svd",
    "magnitude_prune",
    "magnitude_prune_svd",
]


@dataclass(frozen=True)
class CombineMethod:
    """One way of combining.

    Attributes:
        on: What it works on: the ``factors`` (A with A and B with B, which gives PEFT's cross
            terms), the ``ranks`` (factors side by side: exact), or the computed ``delta`` (then
            an SVD).
        prune: Which values of each member are first set to zero, if any.
        elect: Whether it elects the sign of each value before it sums.
        by_module: Whether a member's weights may differ by module.
    """

    on: Literal["factors", "ranks", "delta"]
    prune: Literal["largest", "random"] | None = None
    elect: bool = False
    by_module: bool = False


COMBINE_METHODS: Mapping[str, CombineMethod] = {
    "sum": CombineMethod("ranks", by_module=True),
    "linear": CombineMethod("factors"),
    "cat": CombineMethod("ranks"),
    "svd": CombineMethod("delta"),
    "ties": CombineMethod("factors", "largest", elect=True),
    "ties_svd": CombineMethod("delta", "largest", elect=True),
    "dare_linear": CombineMethod("factors", "random"),
    "dare_ties": CombineMethod("factors", "random", elect=True),
    "dare_linear_svd": CombineMethod("delta", "random"),
    "dare_ties_svd": CombineMethod("delta", "random", elect=True),
    "magnitude_prune": CombineMethod("factors", "largest"),
    "magnitude_prune_svd": CombineMethod("delta", "largest"),
}

USED_BY: Mapping[str, Callable[[CombineMethod], bool]] = {
    "density": lambda method: method.prune is not None,
    "seed": lambda method: method.prune == "random",
    "majority_sign_method": lambda method: method.elect,
    "svd_rank": lambda method: method.on == "delta",
    "svd_clamp": lambda method: method.on == "delta",
}
"""By field of a composition, the methods that use it."""

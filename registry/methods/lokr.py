"""LoKr: the delta is a Kronecker product, ``kron(w1, w2)``; either may be of low rank.

Tensors and kinds: PEFT 0.21.2, ``tuners/lokr/layer.py``. Roles are PEFT's parameter names without
``lokr_``. With out = l * k and in / groups = m * n (:func:`factorization`), and n' = n * kernel:

==================  ======================================================================
role                shape
==================  ======================================================================
``w1``              (l, m), or of low rank (``decompose_both``, and r < max(l, m) / 2):
``w1_a``, ``w1_b``  (l, r), (r, m)
``w2``              (k, n, *kernel), or where r < max(k, n) / 2:
``w2_a``, ``w2_b``  (k, r), (r, n'), with ``use_effective_conv2d`` (r, k), (r, n) and:
``t2``              (r, r, *kernel), conv of one dimension: (r, r, kernel, 1)
==================  ======================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..files.conversion import Shape
from ..files.facts import ModuleKind, ModuleShape, SitePlan
from . import lycoris
from .keys import Roles
from .lycoris import LycorisConfig
from .options import Option, Support, boolean, index, optional

OPTIONS: tuple[Option, ...] = (
    *lycoris.OPTIONS,
    Option("decompose_both", Support.SUPPORTED, "makes w1 of low rank too", optional(boolean)),
    Option("decompose_factor", Support.SUPPORTED, "splits the module's sizes", index),
    Option(
        "rank_dropout_scale",
        Support.SUPPORTED,
        "scales what rank_dropout leaves while training",
        optional(boolean),
    ),
)
ROLES: Roles = {
    (f"lokr_{role}", ""): role for role in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")
}
_FIRST = (frozenset({"w1"}), frozenset({"w1_a", "w1_b"}))
_SECOND = (
    frozenset({"w2"}),
    frozenset({"w2_a", "w2_b"}),
    frozenset({"t2", "w2_a", "w2_b"}),
)
ROLE_SETS: tuple[frozenset[str], ...] = tuple(one | other for one in _FIRST for other in _SECOND)


class LokrConfig(LycorisConfig):
    """The part of LoKr's config that changes the computation."""

    @staticmethod
    def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
        """Those of both methods, and LoKr's own."""
        found = LycorisConfig.settings_of(config)
        found["factor"] = config.get("decompose_factor", -1)
        for name in ("decompose_both", "rank_dropout_scale"):
            if config.get(name):
                found[name] = True
        return found


def expected(site: SitePlan, module: ModuleShape) -> Mapping[str, Shape]:
    """The shape of each role's tensor at this module."""
    r, factor = site.rank, site.settings.get("factor", -1)
    l_size, k = factorization(module.out_features or 0, factor)
    m, n = factorization(lycoris.inner_of(module), factor)
    found: dict[str, Shape] = {}
    if site.settings.get("decompose_both") and r < max(l_size, m) / 2:
        found |= {"w1_a": (l_size, r), "w1_b": (r, m)}
    else:
        found["w1"] = (l_size, m)
    if r >= max(k, n) / 2:
        found["w2"] = (k, n, *module.kernel)
    elif lycoris.is_effective(site, module):
        found |= {"t2": lycoris.core(r, module), "w2_a": (r, k), "w2_b": (r, n)}
    else:
        found |= {"w2_a": (k, r), "w2_b": (r, n * math.prod(module.kernel))}
    return found


def factorization(size: int, factor: int) -> tuple[int, int]:
    """``size`` as a product of two. The first is ``factor`` if it divides ``size``, else the
    largest divisor up to ``factor`` (-1: any) and up to the square root."""
    if factor > 0 and size % factor == 0:
        return factor, size // factor
    root = math.isqrt(size)
    bound = root if factor == -1 else min(factor, root)
    first = next((n for n in range(bound, 1, -1) if size % n == 0), 1)
    return first, size // first


_ALL = frozenset(ROLES.values())
METHOD = lycoris.row(
    "LOKR",
    OPTIONS,
    LokrConfig.of,
    ROLES,
    {ModuleKind.LINEAR: _ALL - {"t2"}, ModuleKind.CONV: _ALL},
    expected,
    ROLE_SETS,
)

"""LoHa (https://arxiv.org/abs/2108.06098): the delta is the product, element by element, of two
products of low rank.

Tensors and kinds: PEFT 0.21.2, ``tuners/loha/layer.py``. Roles are PEFT's parameter names without
``hada_``; n is in / groups * kernel. With ``use_effective_conv2d`` a kernel above 1 has its own
tensors and the first factors lie transposed:

==================  ==================  ==============================================
role                shape               effective
==================  ==================  ==============================================
``w1_a``, ``w2_a``  (out, r)            (r, out)
``w1_b``, ``w2_b``  (r, n)              (r, in / groups)
``t1``, ``t2``                          (r, r, *kernel), conv of one dimension: (r, r, k, 1)
==================  ==================  ==============================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..files.conversion import Shape
from ..files.facts import ModuleKind, ModuleShape, SitePlan
from . import lycoris
from .keys import Roles
from .lycoris import LycorisConfig

ROLES: Roles = {(f"hada_{role}", ""): role for role in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")}
PLAIN = frozenset({"w1_a", "w1_b", "w2_a", "w2_b"})


def expected(site: SitePlan, module: ModuleShape) -> Mapping[str, Shape]:
    """The shape of each role's tensor at this module."""
    r, outer, inner = site.rank, module.out_features or 0, lycoris.inner_of(module)
    if lycoris.is_effective(site, module):
        a, b, t = (r, outer), (r, inner), lycoris.core(r, module)
        return {"w1_a": a, "w1_b": b, "w2_a": a, "w2_b": b, "t1": t, "t2": t}
    a, b = (outer, r), (r, inner * math.prod(module.kernel))
    return {"w1_a": a, "w1_b": b, "w2_a": a, "w2_b": b}


METHOD = lycoris.row(
    "LOHA",
    lycoris.OPTIONS,
    LycorisConfig.of,
    ROLES,
    {ModuleKind.LINEAR: PLAIN, ModuleKind.CONV: PLAIN | {"t1", "t2"}},
    expected,
)

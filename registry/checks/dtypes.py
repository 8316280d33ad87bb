"""Are the adapter's tensors of a dtype that can be computed with?"""

from __future__ import annotations

from collections.abc import Mapping

from ...manifests.codes import fit as codes
from ...manifests.findings import Finding, Where
from ..facts import TensorInfo
from .subject import count, some

FLOATS = frozenset({"F16", "BF16", "F32", "F64"})


def check(tensors: Mapping[str, TensorInfo], where: Where) -> list[Finding]:
    """One finding for each dtype that is not an ordinary float. A saved batch norm counts its
    batches in integers."""
    wrong: dict[str, list[str]] = {}
    for name, info in tensors.items():
        if info.dtype not in FLOATS and not name.endswith(".num_batches_tracked"):
            wrong.setdefault(info.dtype, []).append(name)
    return [
        codes.TENSOR_DTYPE.finding(
            f"{count(len(names), 'tensor')} of dtype {dtype}: {some(names)}",
            where,
            found=dtype,
            expected=", ".join(sorted(FLOATS)),
        )
        for dtype, names in wrong.items()
    ]

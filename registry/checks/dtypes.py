"""Do the adapter's tensors have a dtype that can be computed with?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding, Where
from ..files.facts import TensorInfo
from ..files.wording import listed

FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
_COUNTS = re.compile(r"(\.num_batches_tracked|_indices(_[AB])?|\.frod_s_(indices|size)\.[^.]+)\Z")
"""Tensors that may be integers: a batch norm counts its batches, some of PEFT's methods store which
values of a weight they change."""
INTEGERS = frozenset({"I64", "I32", "I16", "U8"})


def check(tensors: Mapping[str, TensorInfo], where: Where) -> Iterator[Finding]:
    """One finding for each dtype that is neither an ordinary float nor an allowed integer."""
    wrong: dict[str, list[str]] = {}
    for name, info in tensors.items():
        if info.dtype not in FLOATS and not (info.dtype in INTEGERS and _COUNTS.search(name)):
            wrong.setdefault(info.dtype, []).append(name)
    for dtype, names in wrong.items():
        message = f"Unsupported dtype {dtype} of {listed(names, 'tensor')}"
        expected = ", ".join(sorted(FLOATS))
        yield codes.TENSOR_DTYPE.finding(message, where, found=dtype, expected=expected)

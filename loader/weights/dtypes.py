"""Dtypes by their names in manifests and in safetensors files."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ...manifests.findings import usage as usage_codes
from ...manifests.findings.errors import UsageError
from ...manifests.findings.finding import Where

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}

HALVES = frozenset({torch.float16, torch.bfloat16})
COMPUTE = HALVES | {torch.float32, torch.float64}
"""Dtypes that a module computes in; float8 and integers are storage only."""


FLOATS: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
"""The dtypes of weights, by their names in a safetensors header."""

FLOAT_NAMES = {dtype: name for name, dtype in FLOATS.items()}


INTEGERS: Mapping[str, torch.dtype] = {
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Dtypes of buffers in saved modules (a BatchNorm counts its batches)."""


TORCH_DTYPES: Mapping[str, torch.dtype] = {**FLOATS, **INTEGERS}


def as_dtype(data: torch.Tensor, dtype: str, start: int, end: int) -> torch.Tensor:
    """These bytes of a flat uint8 tensor as a flat tensor of a dtype of the format."""
    kind = TORCH_DTYPES[dtype]
    part = data[start:end]
    if start % kind.itemsize:  # the format allows it, but torch needs alignment
        part = part.clone()
    return part.view(kind)


def dtype_of(dtype: str | torch.dtype | None, where: Where) -> torch.dtype | None:
    """``float32``, ``torch.float32``, ``None`` or ``auto`` (the module's own) as a torch dtype."""
    if dtype is None or dtype == "auto":
        return None
    found = dtype if isinstance(dtype, torch.dtype) else DTYPES.get(dtype)
    if found not in DTYPES.values():
        raise UsageError(
            usage_codes.BAD_DTYPE.finding(
                f"Invalid dtype {dtype!r}", where, found=dtype, expected=", ".join(DTYPES)
            )
        )
    return found

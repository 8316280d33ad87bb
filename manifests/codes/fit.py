"""Codes AD3xx: whether an adapter is whole, understood, and fits its base."""

from __future__ import annotations

from ..findings import Severity
from .code import Code

HEADER_MALFORMED = Code(
    id="AD301",
    name="header-malformed",
    severity=Severity.ERROR,
    summary="The file is not a safetensors file.",
    explanation=(
        "A safetensors file begins with the length of its header and the header itself, a JSON "
        "object. This file does not, so it is something else (a pickle, a Git LFS pointer, an "
        "error page) or it is damaged. Pickles are refused on principle: opening one runs code."
    ),
    example="adapter_model.safetensors that holds `version https://git-lfs.github.com/spec/v1`",
    fix="fetch the file again, or save the adapter again with safetensors",
)
HEADER_TENSOR = Code(
    id="AD302",
    name="header-tensor-invalid",
    severity=Severity.ERROR,
    summary="A tensor's entry in a safetensors header contradicts itself or its neighbours.",
    explanation=(
        "Each entry gives a dtype, a shape and where its bytes lie. The bytes must be as many as "
        "dtype and shape need, and the tensors must fill the data part without hole or overlap; "
        "otherwise two tensors could share bytes, or bytes could hide between them."
    ),
    example='{"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 12]}}',
    fix="the file was written wrongly: save it again with the safetensors library",
)
FILE_TRUNCATED = Code(
    id="AD303",
    name="file-size-wrong",
    severity=Severity.ERROR,
    summary="A safetensors file is shorter or longer than its header says.",
    explanation=(
        "The header says where the last tensor ends, and the file must end there. A shorter file "
        "is a download or an upload that broke off; a longer one was appended to."
    ),
    example="a 40 MB adapter_model.safetensors whose upload stopped at 31 MB",
    fix="upload or download the file again",
)

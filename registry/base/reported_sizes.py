"""Sizes of packed weights that a file states, where no shape in its header has them.

Three quantisers write the shape of the weight beside what they packed: bitsandbytes in 4 bits (JSON
in a tensor of bytes, ``functional.QuantState.as_dict(packed=True)``), compressed-tensors
(``weight_shape``) and HQQ (``shape``, ``HQQLinear.state_dict``). These are some hundred bytes for
each weight, read with one range each. torchao writes them into the metadata of the file
(``prototype/safetensors``), which is read already.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from ...manifests.bounds import DESCRIPTION_BYTES, DESCRIPTIONS
from ..files.conversion import Shape
from ..files.facts import TensorInfo

_QUANT_STATE = re.compile(r"(?P<weight>.*\.weight)\.quant_state\.bitsandbytes__\w+")
_NUMBERS = ((".weight_shape", ".weight_packed"), (".shape", ".W_q"))
_WIDTHS = {"I64": 8, "I32": 4}
_AS_STORED = frozenset({"Float8Tensor", "Int8Tensor", "IntxUnpackedToInt8Tensor"})
"""torchao's classes whose ``qdata`` has the shape of the weight."""

ReadTensors = Callable[[list[str]], Iterable[bytes]]
"""The contents of tensors, by their names on disk."""


def reported_sizes(
    tensors: Mapping[str, TensorInfo],
    metadata: Mapping[str, str],
    read: ReadTensors,
) -> dict[str, Shape]:
    """(out, in) by the name of the weight, for every weight that is described.

    What ``read`` raises passes through; an invalid description is ignored.
    """
    described = _descriptions(tensors)
    found = _in_metadata(tensors, metadata)
    if not 0 < len(described) <= DESCRIPTIONS:
        return found
    contents = read(list(described))
    for (name, weight), content in zip(described.items(), contents, strict=True):
        width = _WIDTHS.get(tensors[name].dtype)
        shape = (
            _shape(_object(content).get("shape"))
            if width is None
            else _from_numbers(content, width)
        )
        if shape is not None:
            found[weight] = shape
    return found


def _descriptions(tensors: Mapping[str, TensorInfo]) -> dict[str, str]:
    """By describing tensor, its weight."""
    found: dict[str, str] = {}
    for name, info in tensors.items():
        if info.nbytes > DESCRIPTION_BYTES:
            continue
        state = _QUANT_STATE.fullmatch(name) if info.dtype == "U8" else None
        if state is not None and state["weight"] in tensors:
            found[name] = state["weight"]
        for ending, values in _NUMBERS:
            module = name.removesuffix(ending)
            written = info.dtype in _WIDTHS and info.shape == (2,)
            if module != name and written and module + values in tensors:
                found[name] = f"{module}.weight"
    return found


def _object(content: str | bytes) -> Mapping[str, Any]:
    """A JSON object; empty where it is not one."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", data) if isinstance(data, dict) else {}


def _from_numbers(content: bytes, width: int) -> Shape | None:
    parts = (content[at : at + width] for at in range(0, len(content), width))
    return _shape([int.from_bytes(part, "little", signed=True) for part in parts])


def _in_metadata(
    tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str]
) -> dict[str, Shape]:
    """torchao's descriptions: JSON objects under the names of the weights."""
    found: dict[str, Shape] = {}
    for name in tensors if metadata.keys() - {"format"} else ():
        module, _, own = name.removesuffix("_qdata").rpartition("._")
        weight = f"{module}.{own}"
        if not name.endswith("_qdata") or weight not in metadata:
            continue
        entry = _object(metadata[weight])
        inner = entry.get("_data")
        shape = _shape(inner.get("shape")) if isinstance(inner, dict) else None
        if shape is None and entry.get("_type") in _AS_STORED:
            shape = tensors[name].shape
        if shape is not None:
            found[weight] = shape
    return found


def _shape(value: Any) -> Shape | None:
    if not isinstance(value, list):
        return None
    sizes = tuple(cast("list[Any]", value))
    return sizes if sizes and all(type(size) is int and size > 0 for size in sizes) else None

"""A quantised checkpoint in the form of the unquantised one: names, and sizes where known.

The tensors say which modules are quantised, never the lists in config.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, cast

from ..files.conversion import Shape
from ..files.facts import ModuleKind, ModuleShape, TensorInfo
from .packings import (
    BYTES,
    COMPANION,
    OF_CACHE,
    OF_PARAMETER,
    OF_TORCHAO,
    PACKINGS,
    WORDS,
    Packing,
    Quantisation,
    Stored,
)

DEEPEST = 3
"""Parts of a companion's name below its module: ``weight.quant_state.bitsandbytes__nf4``."""


LAST_PIECES = [p.values.rpartition(".")[2] if "." in p.values else "" for p in PACKINGS]
BY_LAST_PIECE = {
    last: tuple(p for p, own in zip(PACKINGS, LAST_PIECES, strict=True) if own == last)
    for last in LAST_PIECES
}
"""The possible packings by the last part of a name; ``""``: those for any name."""


@dataclass(frozen=True)
class Unpacked:
    """``shapes`` by the names in the unquantised checkpoint, ``None`` where a packing hides them;
    the values of those in ``packed`` are packed."""

    shapes: Mapping[str, Shape | None]
    packed: frozenset[str] = frozenset()


def unpacked(
    config: Mapping[str, Any],
    tensors: Mapping[str, TensorInfo],
    reported: Mapping[str, Shape],
) -> Unpacked:
    """``tensors`` (by their names on disk) with each packed weight and its companions as one.

    ``config`` is ``config.json``; ``reported`` are the sizes that the files state
    (``reported_sizes``), by the weight's name. A weight of integers in no known packing is packed
    too if the config says that the base is quantised, and an ordinary tensor if not.
    """
    quantisation = quantisation_of(config)
    weights: dict[str, str] = {}
    sizes: dict[str, Shape | None] = {}
    for name, info in tensors.items():
        found = _packing(name, info, tensors)
        if found is not None:
            packing, stem = found
            weight = weights[name] = packing.weight_of(stem)
            stored = Stored(info, stem, tensors, quantisation, reported.get(weight))
            sizes[weight] = _sizes(packing, stored)
        elif quantisation and info.dtype in BYTES | WORDS and name.endswith(".weight"):
            weights[name], sizes[name] = name, None
    if not weights:
        return Unpacked({name: info.shape for name, info in tensors.items()})
    modules = {weight.rpartition(".")[0] for weight in sizes}
    shapes: dict[str, Shape | None] = {}
    for name, info in tensors.items():
        if name in weights:
            shapes[weights[name]] = sizes[weights[name]]
        elif name in sizes or not _is_companion(name, sizes.keys(), modules):
            shapes.setdefault(name, info.shape)
    return Unpacked(shapes, frozenset(sizes))


def with_stand_ins(modules: Mapping[str, ModuleShape], packed: Set[str]) -> dict[str, ModuleShape]:
    """``modules`` after quantisation, which replaces a ``Conv1D`` by a linear, whose weight is
    (out, in) on disk too (transformers' ``replace_with_bnb_linear``)."""
    return {
        name: ModuleShape(ModuleKind.LINEAR, old.out_features, old.in_features, old.parameters)
        if old.kind is ModuleKind.CONV1D and f"{name}.weight" in packed
        else old
        for name, old in modules.items()
    }


def quantisation_of(config: Mapping[str, Any]) -> Quantisation:
    """``quantization_config`` (``compression_config`` of older compressed-tensors), of the model or
    its text model; empty where there is none."""
    text = config.get("text_config")
    for part in (config, cast("Mapping[str, Any]", text) if isinstance(text, Mapping) else {}):
        for key in ("quantization_config", "compression_config"):
            found = part.get(key)
            if isinstance(found, Mapping) and found:
                return cast("Quantisation", found)
    return {}


def _packing(
    name: str, info: TensorInfo, tensors: Mapping[str, TensorInfo]
) -> tuple[Packing, str] | None:
    for packing in BY_LAST_PIECE.get(name.rpartition(".")[2], BY_LAST_PIECE[""]):
        stem = packing.stem(name, info, tensors)
        if stem is not None:
            return packing, stem
    return None


def _sizes(packing: Packing, stored: Stored) -> Shape | None:
    try:
        shape = packing.sizes(stored)
    except ValueError:  # other dimensions than this packing has
        return None
    return shape if shape and all(shape) else None


def _is_companion(name: str, weights: Set[str], modules: Set[str]) -> bool:
    pieces = name.split(".")
    for depth in range(1, min(DEEPEST, len(pieces) - 1) + 1):
        module, own = ".".join(pieces[:-depth]), ".".join(pieces[-depth:])
        if module not in modules:
            continue
        if f"{module}.weight" in weights and COMPANION.fullmatch(own):
            return True
        for pattern in (OF_PARAMETER, OF_TORCHAO):
            found = pattern.fullmatch(own)
            if found is not None and f"{module}.{found['parameter']}" in weights:
                return True
    return OF_CACHE.fullmatch(name) is not None

"""The layout of a live model, like the one that ``registry.base.architectures`` derives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from ...registry.base.architectures import conversions_of
from ...registry.files.conversion import Rule
from ...registry.files.facts import Layout, ModuleKind, ModuleShape
from .inputs import inputs_of
from .uncalled import uncalled_in

CLASSIFICATION_HEADS = ("score", "classifier")
"""The heads that PEFT's ``all-linear`` leaves out in a model without output embeddings."""


def layout_of_model(model: nn.Module) -> Layout:
    """Every module of ``model`` that owns or contains a parameter, with its kind and sizes.

    Works on any ``nn.Module``. Quantised linears have the sizes in ``in_features`` and
    ``out_features``, not those of their packed weight. Parameters that accelerate moved to
    ``meta`` keep their shape there. Modules without parameters (activations, dropout, rotary
    tables) are left out, because adapters cannot change them. No weights are read.
    """
    modules = dict(model.named_modules())
    shapes = {name: shape_of_module(module) for name, module in modules.items() if name}
    for name in uncalled_in(modules) & shapes.keys():
        shapes[name] = replace(shapes[name], called=False)
    kept: set[str] = set()
    for name, shape in shapes.items():
        if shape.parameters or shape.kind is ModuleKind.LINEAR:
            while name and name not in kept:
                kept.add(name)
                name = name.rpartition(".")[0]
    return Layout(
        modules={name: shape for name, shape in shapes.items() if name in kept},
        output_modules=output_modules(model) & kept,
        tied=_tied_parameters(model),
        prefix=str(getattr(model, "base_model_prefix", "") or ""),
        inputs=inputs_of(model),
        model_type=str(getattr(getattr(model, "config", None), "model_type", None) or ""),
        conversions=_conversions(model),
    )


def _conversions(model: nn.Module) -> Callable[[], Sequence[Rule]]:
    """The rules of the model's class: from the table for a class of transformers, and from the
    class itself (``_checkpoint_conversion_mapping``: {pattern: name}, used by remote code)."""
    kind = type(model)
    config: Any = getattr(model, "config", None)
    own = getattr(kind, "_checkpoint_conversion_mapping", None)
    pairs = cast("Mapping[str, str]", own) if isinstance(own, Mapping) else {}

    def rules() -> Sequence[Rule]:
        known: tuple[Rule, ...] = ()
        names = [one.__name__ for one in kind.__mro__ if one.__module__.startswith("transformers.")]
        if names and hasattr(config, "to_dict"):
            said = config.to_dict()
            known = next((found for one in names if (found := conversions_of(one, said))), ())
        return (*(Rule.parse([f"(?P<g0>{old})", new]) for old, new in pairs.items()), *known)

    return rules


def shape_of_module(module: nn.Module) -> ModuleShape:
    """The kind and sizes of one module, by its type and its own parameters."""
    own: dict[str, tuple[int, ...]] = {}
    seen: set[int] = set()  # named_parameters(recurse=False) takes three times as long
    for name, parameter in module._parameters.items():  # pyright: ignore[reportPrivateUsage]
        if parameter is not None and id(parameter) not in seen:
            seen.add(id(parameter))
            own[name] = tuple(parameter.shape)
    if type(module) is nn.Linear:  # most of a model
        inner, out = module.in_features, module.out_features
        return ModuleShape(ModuleKind.LINEAR, inner, out, _unpacked(own, (out, inner)))
    if isinstance(module, nn.Embedding):
        rows, width = module.num_embeddings, module.embedding_dim
        return ModuleShape(ModuleKind.EMBEDDING, rows, width, _unpacked(own, (rows, width)))
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return ModuleShape(
            ModuleKind.CONV,
            module.in_channels,
            module.out_channels,
            own,
            tuple(module.kernel_size),
            module.groups,
        )
    if _is_transformers_conv1d(module):
        out = cast(int, cast(Any, module).nf)
        inner = cast("int | None", getattr(module, "nx", None))
        if inner is None and "weight" in own:
            inner = own["weight"][0]
        return ModuleShape(ModuleKind.CONV1D, inner, out, own)
    inner, out = getattr(module, "in_features", None), getattr(module, "out_features", None)
    if isinstance(inner, int) and isinstance(out, int) and _is_linear(module):
        return ModuleShape(ModuleKind.LINEAR, inner, out, _unpacked(own, (out, inner)))
    kind = ModuleKind.NORM if len(own.get("weight", ())) == 1 else ModuleKind.OTHER
    buffers = {name: tuple(buffer.shape) for name, buffer in persistent_buffers(module).items()}
    return ModuleShape(kind, parameters=own, buffers=buffers)


def persistent_buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    """The module's own buffers that are saved with it."""
    left_out = module._non_persistent_buffers_set  # pyright: ignore[reportPrivateUsage]
    own = module._buffers.items()  # pyright: ignore[reportPrivateUsage]
    return {n: buffer for n, buffer in own if buffer is not None and n not in left_out}


def _is_linear(module: nn.Module) -> bool:
    """Whether it is an ``nn.Linear``, or a quantiser's replacement for one.

    The replacements (GPTQ, AWQ, HQQ, EETQ...) are not subclasses. Their weight is packed: integers
    or floats of one byte. A module with plain floats may multiply with its weight or with the
    transposed one, whatever its class is called; PEFT adapts none of these.
    """
    torch_own = getattr(torch.ao.nn, "quantized", None)  # quantize_dynamic's
    if isinstance(module, nn.Linear) or (torch_own and isinstance(module, torch_own.Linear)):
        return True
    own = (*module._parameters.values(), *module._buffers.values())  # pyright: ignore[reportPrivateUsage]
    weight = module._parameters.get("weight")  # pyright: ignore[reportPrivateUsage]
    plain = weight is not None and not _is_packed(weight)
    return not plain and any(one is not None and _is_packed(one) for one in own)


def _is_packed(tensor: torch.Tensor) -> bool:
    """Whether these may be a quantiser's values, and not a counter or a mask."""
    if tensor.dim() == 0 or tensor.dtype is torch.bool or tensor.dtype.is_complex:
        return False
    return not tensor.is_floating_point() or tensor.dtype.itemsize == 1


def _is_transformers_conv1d(module: nn.Module) -> bool:
    """By name, so that transformers is not imported for other models."""
    names = ((kind.__module__, kind.__name__) for kind in type(module).__mro__)
    return ("transformers.pytorch_utils", "Conv1D") in names


def _unpacked(
    own: dict[str, tuple[int, ...]], logical: tuple[int, int]
) -> dict[str, tuple[int, ...]]:
    """The shapes with the logical one for a packed weight."""
    return {**own, "weight": logical} if own.get("weight", logical) != logical else own


def output_modules(model: nn.Module) -> frozenset[str]:
    """The modules that PEFT's ``all-linear`` leaves out: the output embeddings, else the first of
    the classification heads."""
    getter = getattr(model, "get_output_embeddings", None)
    head = getter() if callable(getter) else None
    if head is None:
        heads = (getattr(model, name, None) for name in CLASSIFICATION_HEADS)
        head = next((one for one in heads if isinstance(one, nn.Module)), None)
    if head is None:
        return frozenset()
    return frozenset(name for name, module in model.named_modules() if module is head)


def _tied_parameters(model: nn.Module) -> dict[str, str]:
    """Tied parameters by transformers' names; other shared ones map to their first name."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    known = cast("Mapping[str, str]", getattr(model, "all_tied_weights_keys", None) or {})
    tied = {
        name: source
        for name, source in known.items()
        if name in parameters
        and source in parameters
        and _same_storage(parameters[name], parameters[source])
    }
    first: dict[object, str] = {}
    for name in tied.values():
        first.setdefault(_storage(parameters[name]), name)
    for name, parameter in parameters.items():
        source = first.setdefault(_storage(parameter), name)
        if source != name and name not in tied:
            tied[name] = source
    return tied


def _same_storage(one: torch.Tensor, other: torch.Tensor) -> bool:
    # offloaded parameters are separate placeholders: only transformers' record says that they share
    return _storage(one) == _storage(other) or (one.is_meta and other.is_meta)


def _storage(parameter: torch.Tensor) -> object:
    """Equal for two names of one tensor: the object, or its memory, shape and strides."""
    if parameter.is_meta or type(parameter.data) is not torch.Tensor:
        return id(parameter)
    pointer = parameter.data_ptr()
    return (pointer, parameter.shape, parameter.stride()) if pointer else id(parameter)

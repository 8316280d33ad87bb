"""The base's weights as PEFT's own layer merges them: made beside the base, of copies.

PEFT's merge is not taken on trust: the merged copy must answer as the layer does.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...manifests.findings import merging as codes
from ...manifests.findings.errors import AttachError
from ...registry.files.facts import ModuleKind, ModuleShape
from .peft.layers import Values, buffers_of, stand_in_of

_NAME = "default"
"""What PEFT calls the one adapter of a layer (see :data:`..peft_shell.NAME`)."""
_NEAR = 1e-3
"""How far the merged answer may be from the live one, relative to the largest answer: far above
what another order of sums comes to in float32, far below what another computation does."""


@torch.no_grad()
def merged_by_peft(
    layer: nn.Module, module: nn.Module, shape: ModuleShape, wide: torch.dtype, name: str
) -> dict[str, Tensor]:
    """The parameters of ``module`` (``weight``, ``bias``) with the adapter of PEFT's ``layer`` in
    them, in the dtype ``wide``. Neither is changed. Raises :class:`AttachError` where PEFT cannot
    merge there, or where its merge is not what the layer answers."""
    own = _of_own(module, wide)
    replacement = _replacement(layer, own, wide)
    x = example_of(shape, module, next(own.parameters()).device, wide)
    try:
        base, live = own(x), replacement(x)
        cast(Any, replacement).merge(safe_merge=False, adapter_names=[_NAME])
        merged = own(x)
    except Exception as error:
        raise _refusal(name, f"{type(error).__name__}: {error}"[:400]) from error
    off = float((merged - live).abs().max())
    largest = float(torch.stack([base.abs().max(), live.abs().max()]).max())
    if not off <= _NEAR * largest:
        raise _refusal(name, f"its merged weights answer {off:.3g} off its layer")
    return {leaf: value.data for leaf, value in own.named_parameters()}


def changes_weights(layer: nn.Module, module: nn.Module, shape: ModuleShape, name: str) -> bool:
    """Whether merging it changes any value: asked where the module has no values to answer with."""
    old = _of_own(module, torch.float32)
    new = merged_by_peft(layer, module, shape, torch.float32, name)
    return any(not torch.equal(new[leaf], value) for leaf, value in old.named_parameters())


def example_of(
    shape: ModuleShape, module: nn.Module, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """A small input for the module: noise, or the first of its tokens."""
    inner = shape.in_features or 1
    generator = torch.Generator().manual_seed(0)
    if shape.kind is ModuleKind.EMBEDDING:
        return torch.arange(min(inner, 64), device=device).view(1, -1)
    size: tuple[int, ...] = (1, 4, inner)
    if shape.kind is ModuleKind.CONV:
        spread = cast("tuple[int, ...]", module.dilation)
        reach = [2 * d * (k - 1) + 2 for d, k in zip(spread, shape.kernel, strict=True)]
        size = (1, inner, *reach)
    return torch.randn(size, generator=generator).to(device, dtype)


def _of_own(module: nn.Module, wide: torch.dtype) -> nn.Module:
    """The module with values of its own, in ``wide``, and the forward of its class."""
    own = stand_in_of(module, Values.OWN)
    del own.__dict__["forward"]
    for leaf, value in own._parameters.items():  # pyright: ignore[reportPrivateUsage]
        if value is not None:
            wider = value.detach().to(wide, copy=True)
            own._parameters[leaf] = nn.Parameter(wider, requires_grad=False)  # pyright: ignore[reportPrivateUsage]
    return own


def _replacement(layer: nn.Module, own: nn.Module, wide: torch.dtype) -> nn.Module:
    """The layer around ``own``, with tensors of its own in ``wide``."""
    replacement = copy.deepcopy(layer, {id(vars(layer)["base_layer"]): own}).eval()
    for parameter in replacement.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(wide)
    for _, place, name in list(buffers_of(replacement)):
        if place[name].is_floating_point():
            place[name] = place[name].to(wide)
    for part in replacement.modules():  # ADAMSS keeps the dtype that it computes in
        for name, value in vars(part).items():
            if isinstance(value, torch.dtype) and value.is_floating_point:
                vars(part)[name] = wide
    return replacement


def _refusal(name: str, why: str) -> AttachError:
    return AttachError(
        codes.MERGE_METHOD.finding(f"PEFT cannot merge the adapter into {name}", found=why)
    )

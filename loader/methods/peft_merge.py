"""The base's weights with an adapter merged by PEFT's own layer; only copies are changed.

PEFT's merge is verified: the merged copy must return what the layer returns.
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
from .peft.make_layers import NAME

_NEAR = 1e-3
"""The largest allowed difference between the merged and the live output, relative to the largest
output: far above the effect of another order of sums in float32, far below that of another
computation."""


@torch.no_grad()
def merged_by_peft(
    layer: nn.Module, module: nn.Module, shape: ModuleShape, wide: torch.dtype, name: str
) -> dict[str, Tensor]:
    """The parameters of ``module`` (``weight``, ``bias``) with the adapter of PEFT's ``layer``
    merged, in the dtype ``wide``. Neither is changed. Raises :class:`AttachError` if PEFT cannot
    merge there, or if its merged module does not return what the layer returns."""
    own = _copy_of(module, wide)
    replacement = _replacement(layer, own, wide)
    x = example_of(shape, module, next(own.parameters()).device, wide)
    try:
        base, live = own(x), replacement(x)
        cast(Any, replacement).merge(safe_merge=False, adapter_names=[NAME])
        merged = own(x)
    except Exception as error:
        raise _refusal(name, f"{type(error).__name__}: {error}"[:400]) from error
    off = float((merged - live).abs().max())
    largest = float(torch.stack([base.abs().max(), live.abs().max()]).max())
    if not off <= _NEAR * largest:
        raise _refusal(name, f"the merged output differs by {off:.3g} from the layer's")
    return {leaf: value.data for leaf, value in own.named_parameters()}


def changes_weights(layer: nn.Module, module: nn.Module, shape: ModuleShape, name: str) -> bool:
    """Whether merging it changes any value; for modules that cannot run."""
    old = _copy_of(module, torch.float32)
    new = merged_by_peft(layer, module, shape, torch.float32, name)
    return any(not torch.equal(new[leaf], value) for leaf, value in old.named_parameters())


def example_of(
    shape: ModuleShape, module: nn.Module, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """A small input for the module: noise, or its first tokens."""
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


def _copy_of(module: nn.Module, wide: torch.dtype) -> nn.Module:
    """A copy of the module in ``wide``, with the forward of its class."""
    own = stand_in_of(module, Values.OWN)
    del own.__dict__["forward"]
    for leaf, value in own._parameters.items():  # pyright: ignore[reportPrivateUsage]
        if value is not None:
            wider = value.detach().to(wide, copy=True)
            own._parameters[leaf] = nn.Parameter(wider, requires_grad=False)  # pyright: ignore[reportPrivateUsage]
    return own


def _replacement(layer: nn.Module, own: nn.Module, wide: torch.dtype) -> nn.Module:
    """A copy of the layer around ``own``, in ``wide``."""
    replacement = copy.deepcopy(layer, {id(vars(layer)["base_layer"]): own}).eval()
    for parameter in replacement.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(wide)
    for _, place, name in list(buffers_of(replacement)):
        if place[name].is_floating_point():
            place[name] = place[name].to(wide)
    for part in replacement.modules():  # ADAMSS stores the dtype in which it computes
        for name, value in vars(part).items():
            if isinstance(value, torch.dtype) and value.is_floating_point:
                vars(part)[name] = wide
    return replacement


def _refusal(name: str, why: str) -> AttachError:
    return AttachError(
        codes.MERGE_METHOD.finding(f"PEFT cannot merge the adapter into {name}", found=why)
    )

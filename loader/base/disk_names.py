"""The names on disk of a live model's tensors, from transformers' own conversion run backwards.

A checkpoint has the names of the release that introduced its architecture. Live names change
between transformers versions, and experts are fused at loading. ``save_pretrained`` writes the old
names again with ``revert_weight_conversion``. Here it runs layer by layer on meta tensors, which
takes no memory, and only once for layers that are alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...registry.base.backbone import is_tied_head
from ..weights.dtypes import FLOAT_NAMES

Revert = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]

_LAYER = re.compile(r"(.*?\.|)(\d+)\.(.*)")
_INTEGER = "I64"
"""The name for every dtype that is not sampled."""


@dataclass(frozen=True)
class DiskPlace:
    """A tensor under its name on disk: ``live`` is the name of the same tensor in the model, or
    ``None`` where a conversion of the layer ``group`` makes it."""

    live: str | None
    shape: tuple[int, ...]
    dtype: str
    group: str = ""


def every_tensor(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers under all their names."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return {**parameters, **dict(model.named_buffers(remove_duplicate=False))}


def with_prefix(model: nn.Module, *names: str) -> Iterator[str]:
    """Each name as it is, and with and without the prefix of the base's inner model."""
    prefix = str(getattr(model, "base_model_prefix", "") or "")
    for name in dict.fromkeys(names):
        yield name
        if prefix:
            yield name.removeprefix(f"{prefix}.")
            yield f"{prefix}.{name}"


def live_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of the model that are saved. A shared tensor is listed once, under the name that
    transformers calls the source."""
    state = {
        name: value
        for name, value in model.state_dict(keep_vars=True).items()
        if isinstance(value, Tensor)
    }
    for name in cast("Iterable[str]", getattr(model, "_keys_to_ignore_on_save", None) or ()):
        state.pop(name, None)
    expand = getattr(model, "get_expanded_tied_weights_keys", None)
    if expand is not None:
        for alias, source in cast("dict[str, str]", expand(all_submodels=True)).items():
            if alias in state and source in state:
                state.pop(source if is_tied_head(source) and not is_tied_head(alias) else alias)
        return state
    first: dict[int, str] = {}
    for name, value in state.items():
        first.setdefault(id(value), name)
    return {name: value for name, value in state.items() if first[id(value)] == name}


def places_on_disk(model: nn.Module, live: Mapping[str, Tensor]) -> dict[str, DiskPlace]:
    """Every tensor's place by its name on disk, from reverting meta tensors layer by layer. Of
    layers that are alike, the first is reverted and renumbered, and the last one checked."""
    revert = reverter(model)
    if revert is None:
        return unconverted(live)
    alike: dict[tuple[Any, ...], list[str]] = {}
    groups = layers_of(live)
    for group, names in groups.items():
        before = group.rstrip(".").rpartition(".")[0]
        form = tuple((n[len(group) :], tuple(live[n].shape), live[n].dtype) for n in names)
        alike.setdefault((before, group == "", form), []).append(group)
    found: dict[str, DiskPlace] = {}
    for same in alike.values():
        first, last = same[0], same[-1]
        model_places = _reverted(revert, live, groups[first], first)
        if len(same) > 1:
            last_places = _reverted(revert, live, groups[last], last)
            if _renumbered(model_places, first, last) != last_places:
                for group in same:
                    found |= _reverted(revert, live, groups[group], group)
                continue
        for group in same:
            found |= _renumbered(model_places, first, group)
    return found


def unconverted(live: Mapping[str, Tensor]) -> dict[str, DiskPlace]:
    """The places of tensors that have their live names on disk."""
    return {name: DiskPlace(name, tuple(t.shape), _stored(t)) for name, t in live.items()}


def layers_of(live: Iterable[str]) -> dict[str, list[str]]:
    """Live names by layer (``model.layers.3.``); those outside of all layers under ``""``."""
    groups: dict[str, list[str]] = {}
    for name in live:
        layer = _LAYER.fullmatch(name)
        group = f"{layer.group(1)}{layer.group(2)}." if layer is not None else ""
        groups.setdefault(group, []).append(name)
    return groups


def _reverted(
    revert: Revert, live: Mapping[str, Tensor], names: Iterable[str], group: str
) -> dict[str, DiskPlace]:
    metas = {n: torch.empty(live[n].shape, dtype=live[n].dtype, device="meta") for n in names}
    name_of = {id(meta): name for name, meta in metas.items()}
    return {
        name: DiskPlace(name_of.get(id(t)), tuple(t.shape), _stored(t), group)
        for name, t in revert(metas).items()
    }


def _renumbered(places: Mapping[str, DiskPlace], old: str, new: str) -> dict[str, DiskPlace]:
    """The places of the layer ``old`` as they are in the layer ``new``."""
    if old == new:
        return dict(places)
    number, other = old.rstrip(".").rpartition(".")[2], new.rstrip(".").rpartition(".")[2]
    pattern = re.compile(rf"(^|\.){number}(?=\.)")
    return {
        pattern.sub(rf"\g<1>{other}", name, count=1): DiskPlace(
            None if place.live is None else new + place.live[len(old) :],
            place.shape,
            place.dtype,
            new,
        )
        for name, place in places.items()
    }


def reverter(model: nn.Module) -> Revert | None:
    """transformers' ``revert_weight_conversion`` for this model; ``None`` for a foreign model."""
    if not hasattr(model, "config") or not hasattr(model, "base_model_prefix"):
        return None
    from transformers.core_model_loading import revert_weight_conversion

    def revert(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return cast("dict[str, Tensor]", revert_weight_conversion(cast(Any, model), dict(state)))

    return revert


def _stored(tensor: Tensor) -> str:
    return FLOAT_NAMES.get(tensor.dtype, _INTEGER)

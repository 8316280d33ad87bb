"""Ways of combining, PEFT's combinations as the oracle, and what dense arithmetic says."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.compose.members import member_of
from adapterdock.manifests.language.combine_methods import COMBINE_METHODS

from support.near import as_near_as
from support.peft_adapters import Saved, attach, inputs_of, logits, peft_loads

ALL = tuple(COMBINE_METHODS)
PEFTS = tuple(name for name in ALL if name != "sum")
RANDOM = tuple(name for name in ALL if name.startswith("dare"))
FIXED = tuple(name for name in PEFTS if name not in RANDOM)


def options_of(method: str, density: float = 0.5, seed: int = 7) -> dict[str, Any]:
    """The options that a method needs."""
    options: dict[str, Any] = {}
    if method.startswith(("ties", "dare", "magnitude_prune")):
        options["density"] = density
    if method.startswith("dare"):
        options["seed"] = seed
    return options


def with_adapters(base: Any, **saved: Saved) -> AdaptedModel:
    """A model with these adapters, none of them active."""
    model = AdaptedModel(base)
    for name, one in saved.items():
        attach(model, one, name)
    model.set_adapter(None)
    return model


def peft_combines(
    base: Any,
    folders: Sequence[Path],
    weights: Sequence[float],
    method: str,
    keep: Callable[[torch.Tensor, float, bool], torch.Tensor] | None = None,
    **options: Any,
) -> Any:
    """PEFT's model with its own combination active. ``keep`` stands in for its random pruning."""
    options.pop("seed", None)
    model = peft_loads(base, *folders)
    names = [folder.name for folder in folders]
    with (
        warnings.catch_warnings(),
        mock.patch("peft.utils.merge_utils.random_pruning", keep or _must_not),
    ):
        warnings.simplefilter("ignore")
        model.base_model.add_weighted_adapter(names, list(weights), "mix", method, **options)
    model.base_model.set_adapter("mix")
    return model.eval()


def peft_answer(base: Any, *args: Any, **options: Any) -> torch.Tensor:
    return logits(peft_combines(base, *args, **options), inputs_of(base))


def dense_answer(base: Any, deltas: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The base with these deltas (in the weights' own orientation) written into its weights."""
    with torch.no_grad():
        for name, delta in deltas.items():
            base.get_submodule(name).weight += delta
    return logits(base)


def peft_deltas(base: Any, saved: Saved) -> dict[str, torch.Tensor]:
    """What PEFT adds to each weight, by module."""
    model = peft_loads(base, saved.folder)
    return deltas_of(model, model.active_adapter)


def deltas_of(model: Any, name: str) -> dict[str, torch.Tensor]:
    """What this adapter of a PEFT model adds to each weight, by module."""
    return {
        path.removeprefix("base_model.model."): module.get_delta_weight(name).detach()
        for path, module in model.named_modules()
        if hasattr(module, "get_delta_weight") and name in getattr(module, "scaling", {})
    }


def products(model: AdaptedModel, name: str) -> dict[str, torch.Tensor]:
    """The delta of an attached adapter at each of its pairs, by module."""
    member = member_of(model._host.adapters.built_of(name))
    return {module: pair.delta() for module, pair in member.pairs.items()}


def digest_of(model: AdaptedModel, name: str) -> str:
    """The digest that keys this adapter's random masks."""
    return member_of(model._host.adapters.built_of(name)).digest


def is_pefts(found: torch.Tensor, base: Any, *args: Any, **options: Any) -> bool:
    """Whether ``found`` is the answer of PEFT's combination: as near as PEFT's own in float32 is to
    PEFT's in float64."""
    exact = peft_answer(copy.deepcopy(base).double(), *args, **options)
    return as_near_as(found, peft_answer(base, *args, **options), exact)


def _must_not(*_: Any) -> torch.Tensor:
    raise AssertionError("random pruning was not expected")

"""One adapter onto a model from its plan and tensors, without files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.adapter.adapter import Adapter
from adapterdock.loader.build.build_adapter import build_adapter
from adapterdock.loader.weights.tensors import AdapterTensors
from adapterdock.manifests.findings.finding import Where
from adapterdock.registry.files.facts import AdapterPlan


def attach_adapter(
    model: AdaptedModel,
    name: str,
    plan: AdapterPlan,
    tensors: AdapterTensors,
    *,
    dtype: torch.dtype | None = None,
    trainable: bool = False,
    dropout: float = 0.0,
    members: Mapping[str, float] | None = None,
    replace: bool = False,
    config: Mapping[str, Any] | None = None,
    where: Where = Where(),  # noqa: B008 - frozen
) -> Adapter:
    """Attach ``tensors`` as ``plan`` says, under ``name``: what ``build_adapter`` makes of them."""
    if dropout:
        config = {"peft_type": "LORA", **(config or {}), "lora_dropout": dropout}
    adapters = model._host.adapters
    with adapters.changing():
        adapters.check_free(name, replace, where)
        built = build_adapter(
            adapters.live,
            name,
            plan,
            tensors,
            dtype=dtype,
            trainable=trainable,
            members=members,
            config=config,
            where=where,
        )
        adapters.put([built], where)
        return built.adapter

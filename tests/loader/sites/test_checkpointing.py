"""Gradient checkpointing uses the routing of the forward."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.sites.checkpointing import Carrying
from adapterdock.manifests.findings.errors import RoutingError
from adapterdock.registry.files.facts import AdapterPlan, SitePlan
from support.attach import attach_adapter
from support.near import close
from support.peft_adapters import (
    Saved,
    adapted,
    attach,
    ids,
    peft_saves,
    same_traces,
    tensors_of,
    tiny_llama,
    traces,
)
from torch import nn
from torch.utils.checkpoint import checkpoint


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp("adapters") / "it"
    return peft_saves(tiny_llama(), folder, target_modules="all-linear")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp("adapters") / "other"
    return peft_saves(tiny_llama(), folder, seed=9, target_modules=["v_proj"])


def trainable(saved: Saved, reentrant: bool | None) -> AdaptedModel:
    model = adapted(tiny_llama(), saved, trainable=True)
    model.set_adapter(None)
    model.train()
    if reentrant is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.enable_input_require_grads()
    return model


def loss(model: AdaptedModel, **options: Any) -> torch.Tensor:
    return model(input_ids=ids(), labels=ids(), use_cache=False, **options).loss


def gradients(model: AdaptedModel) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("road", ["default", "using", "adapter", "thread"])
def test_backward_runs_with_the_routing_of_its_forward(
    reentrant: bool, road: str, saved: Saved, other: Saved
) -> None:
    plain = trainable(saved, None)
    loss(plain, adapter="it").backward()
    expected = gradients(plain)

    model = trainable(saved, reentrant)
    attach(model, other, "other")
    model.set_adapter("other")
    if road == "default":
        model.set_adapter("it")
        value = loss(model)
        model.set_adapter("other")
        value.backward()
    elif road == "using":
        with model.using("it"):
            value = loss(model)
        value.backward()
    elif road == "adapter":
        value = loss(model, adapter="it")
        with model.using("other"):
            value.backward()
    else:
        value = loss(model, adapter="it")
        thread = threading.Thread(target=value.backward)
        thread.start()
        thread.join()
    found = gradients(model)
    assert found.keys() == expected.keys()
    assert all(close(found[n], expected[n]) for n in found)


def test_checkpointing_enabled_on_the_base_keeps_the_routing(saved: Saved) -> None:
    plain = trainable(saved, None)
    loss(plain, adapter="it").backward()
    model = trainable(saved, None)
    loss(model, adapter="it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.base_model.gradient_checkpointing_enable({"use_reentrant": False})
    loss(model, adapter="it").backward()
    found, expected = gradients(model), gradients(plain)
    assert all(close(found[n], expected[n]) for n in expected)


@pytest.mark.parametrize("reentrant", [True, False])
def test_an_adapter_deleted_before_backward_is_an_error(reentrant: bool, saved: Saved) -> None:
    model = trainable(saved, reentrant)
    value = loss(model, adapter="it")
    model.delete_adapter("it")
    with pytest.raises(RoutingError) as caught:
        value.backward()
    assert caught.value.code == "AD735"


def test_checkpointed_training_of_the_base_alone_is_not_affected(saved: Saved) -> None:
    def train(base: Any) -> dict[str, torch.Tensor]:
        base.train()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            base.gradient_checkpointing_enable({"use_reentrant": False})
        base(input_ids=ids(), labels=ids(), use_cache=False).loss.backward()
        return {n: p.grad for n, p in base.named_parameters()}

    expected = train(tiny_llama())
    base = tiny_llama()
    adapted(base, saved)
    found = train(base)
    assert all(torch.equal(found[n], expected[n]) for n in expected)


def test_detaching_restores_every_checkpointing_function(saved: Saved) -> None:
    base = tiny_llama().train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base.gradient_checkpointing_enable({"use_reentrant": False})
    before = traces(base)
    model = adapted(base, saved, trainable=True)
    loss(model).backward()
    layer = base.model.layers[0]
    assert type(vars(layer)["_gradient_checkpointing_func"]) is Carrying
    model.detach()
    assert same_traces(traces(base), before)


class Own(nn.Module):
    """Checkpoints without transformers."""

    def __init__(self, reentrant: bool, frozen: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.proj = nn.Linear(4, 4)
        self.reentrant = reentrant
        self.frozen = frozen

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.frozen:
            with torch.no_grad():
                x = self.proj(x)
            return self.first(x)
        return checkpoint(self.proj, self.first(x), use_reentrant=self.reentrant)


def own(reentrant: bool, frozen: bool = False) -> AdaptedModel:
    torch.manual_seed(0)
    model = AdaptedModel(Own(reentrant, frozen))
    tensors = {"a": torch.randn(2, 4), "b": torch.randn(4, 2)}
    sites = tuple(
        SitePlan(name, "LORA", {"A": "a", "B": "b"}, 2, 2.0, 1.0) for name in ("first", "proj")
    )
    attach_adapter(model, "it", AdapterPlan(sites), tensors_of(tensors), trainable=True)
    model.set_adapter("it")
    return model


def test_a_models_own_reentrant_checkpointing_is_refused() -> None:
    with pytest.raises(RoutingError) as caught:
        own(reentrant=True)(torch.randn(3, 4))
    assert caught.value.code == "AD735"
    with torch.no_grad():  # nothing is lost where no gradients are recorded
        own(reentrant=True)(torch.randn(3, 4))


def test_a_models_own_checkpointing_is_never_silently_wrong() -> None:
    from torch.utils.checkpoint import CheckpointError

    model = own(reentrant=False)
    with pytest.raises(CheckpointError):
        model(torch.randn(3, 4)).sum().backward()


def test_a_part_that_runs_without_gradients_is_allowed() -> None:
    model = own(reentrant=True, frozen=True)
    model(torch.randn(3, 4)).sum().backward()
    assert (
        model._host.adapters.by_name["it"]
        .resident.parameters["base_model.model.first.lora_A.it.weight"]
        .grad
        is not None
    )

"""``target_parameters``: PEFT's logits on mixtures of experts, and an unchanged base."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.sites.weight_sites import WeightSite
from adapterdock.manifests.findings.errors import AttachError, FitError, RoutingError
from peft import LoraConfig
from safetensors.torch import load_file
from support.method_fit import codes, facts_of, tampered
from support.moes import tiny_gpt_oss, tiny_mixtral, tiny_qwen_moe
from support.near import close, differs
from support.peft_adapters import (
    OneLayer,
    adapted,
    attach,
    by_peft_name,
    inputs_of,
    logits,
    peft_loads,
    peft_saves,
    same_traces,
    tensors_of,
    tiny_llama,
    traces,
)

BOTH = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
OPTIONS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "both": (tiny_mixtral, {"target_parameters": BOTH, "target_modules": []}),
    "one": (tiny_mixtral, {"target_parameters": BOTH[:1], "target_modules": ["q_proj"]}),
    "qwen": (tiny_qwen_moe, {"target_parameters": BOTH, "target_modules": ["q_proj"]}),
    "transposed": (tiny_gpt_oss, {"target_parameters": BOTH, "target_modules": ["q_proj"]}),
    "router": (tiny_mixtral, {"target_parameters": ["gate.weight"], "target_modules": []}),
    "ranks": (
        tiny_mixtral,
        {
            "target_parameters": BOTH,
            "target_modules": ["q_proj"],
            "rank_pattern": {"layers.0.mlp.experts.down_proj": 2, "gate_up_proj": 3},
            "alpha_pattern": {"experts.down_proj": 1},
            "use_rslora": True,
        },
    ),
    "all-linear": (tiny_mixtral, {"target_modules": "all-linear"}),
    "saved": (
        tiny_mixtral,
        {"target_parameters": BOTH, "target_modules": [], "modules_to_save": ["lm_head"]},
    ),
    "a linear": (tiny_llama, {"target_parameters": ["mlp.down_proj.weight"], "target_modules": []}),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_logits_match_peft_and_the_base_is_unchanged(option: str, tmp_path: Path) -> None:
    make, config = OPTIONS[option]
    base = make()
    alone, before = logits(base), traces(base)
    saved = peft_saves(base, tmp_path / "it", **config)
    assert differs(saved.answer, alone), "the adapter must matter"
    model = adapted(base, saved)
    assert close(logits(model), saved.answer)
    assert torch.equal(logits(base), alone)
    assert list(base.state_dict()) == list(before["state"])
    assert model.findings == ()
    assert same_traces(traces(model.detach()), before)


def test_live_names_match_peft(tmp_path: Path) -> None:
    base = tiny_mixtral()
    saved = peft_saves(base, tmp_path / "it", target_parameters=BOTH, target_modules=[])
    theirs = {n: v for n, v in peft_loads(base, saved.folder).state_dict().items() if "lora_" in n}
    ours = adapted(base, saved).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[n], theirs[n]) for n in ours)


@pytest.mark.parametrize("make", [tiny_mixtral, tiny_gpt_oss])
def test_sum_matches_the_sum_of_each_experts_dense_delta(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    base = make()
    one = peft_saves(base, tmp_path / "one", target_parameters=BOTH, target_modules=[])
    two = peft_saves(base, tmp_path / "two", seed=2, r=2, target_parameters=BOTH, target_modules=[])
    expected = copy.deepcopy(base)
    experts, turned = 4, make is tiny_gpt_oss
    for saved, rank, scale, weight in ((one, 4, 2.0, 0.5), (two, 2, 4.0, 1.0)):
        tensors = load_file(saved.file)
        for layer in range(2):
            module = f"base_model.model.model.layers.{layer}.mlp.experts"
            for name, wraps in (("gate_up_proj", ".base_layer"), ("down_proj", "")):
                a = tensors[f"{module}{wraps}.lora_A.weight"]
                b = tensors[f"{module}{wraps}.lora_B.weight"]
                parameter = getattr(expected.model.layers[layer].mlp.experts, name)
                for e in range(experts):
                    # A is ordered by expert, B by rank
                    delta = b[:, e::experts] @ a[e * rank : (e + 1) * rank]
                    parameter.data[e] += weight * scale * (delta.t() if turned else delta)
    model = AdaptedModel(base)
    attach(model, one, "one")
    attach(model, two, "two")
    for order in ({"one": 0.5, "two": 1.0}, {"two": 1.0, "one": 0.5}):
        model.set_adapter(order)
        assert close(logits(model), logits(expected))


def test_other_threads_see_the_base_during_a_call(tmp_path: Path) -> None:
    base = tiny_mixtral()
    alone = logits(base)
    saved = peft_saves(base, tmp_path / "it", target_parameters=BOTH, target_modules=[])
    model = adapted(base, saved)
    inside, seen = threading.Event(), []
    experts = base.model.layers[0].mlp.experts
    weight = experts.gate_up_proj

    class Waits(torch.nn.Module):
        """The experts' activation, which runs inside their forward."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inside.set()
            watcher.join(10)
            return torch.nn.functional.silu(x)

    def watch() -> None:
        inside.wait(10)
        seen.append(experts.gate_up_proj is weight)
        experts.act_fn = plain
        seen.append(torch.equal(logits(base), alone))

    plain, experts.act_fn = experts.act_fn, Waits()
    watcher = threading.Thread(target=watch)
    watcher.start()
    answer = logits(model)
    assert inside.is_set() and seen == [True, True]
    assert close(answer, saved.answer)


def test_gradients_match_peft(tmp_path: Path) -> None:
    base = tiny_mixtral()
    saved = peft_saves(base, tmp_path / "it", target_parameters=BOTH, target_modules=[])
    oracle = peft_loads(base, saved.folder)
    for name, parameter in oracle.named_parameters():
        parameter.requires_grad_("lora_" in name)
    batch = {**inputs_of(base), "labels": inputs_of(base)["input_ids"]}
    oracle(**batch).loss.backward()
    model = adapted(base, saved, trainable=True)
    model(**batch).loss.backward()
    theirs = {n: p.grad for n, p in oracle.named_parameters() if p.grad is not None}
    ours = {n: p.grad for n, p in by_peft_name(model).items() if p.grad is not None}
    assert ours.keys() == theirs.keys() and ours
    assert all(close(ours[n], theirs[n]) for n in ours)
    assert all(p.grad is None for p in base.parameters())


def test_bfloat16_base_matches_peft(tmp_path: Path) -> None:
    base = tiny_llama()
    targets = {"target_parameters": ["mlp.down_proj.weight"], "target_modules": []}
    saved = peft_saves(base, tmp_path / "it", **targets)
    half = base.to(torch.bfloat16)
    oracle = logits(peft_loads(half, saved.folder), inputs_of(base))
    for dtype in (None, torch.float32):
        model = adapted(half, saved, dtype=dtype)
        answer = logits(model)
        assert answer.dtype is torch.bfloat16
        assert close(answer, oracle, 8)
        model.detach()


def test_offloaded_experts_are_read_and_changed(tmp_path: Path) -> None:
    from accelerate import cpu_offload

    base = tiny_mixtral()
    saved = peft_saves(base, tmp_path / "it", target_parameters=BOTH, target_modules=["q_proj"])
    alone = logits(base)
    cpu_offload(base)
    assert base.model.layers[0].mlp.experts.down_proj.is_meta
    model = adapted(base, saved)
    for _ in range(2):
        assert close(logits(model), saved.answer)
        assert close(logits(base), alone)


def test_float32_experts_return_the_dtype_of_their_input(tmp_path: Path) -> None:
    from adapterdock.loader.base.float32 import keep_float32

    base = tiny_mixtral()
    saved = peft_saves(base, tmp_path / "it", target_parameters=BOTH, target_modules=[])
    half = base.to(torch.bfloat16)
    keep_float32(half, ["*experts"])
    answer = logits(adapted(half, saved))
    assert answer.dtype is torch.bfloat16
    assert close(answer, saved.answer, 32)


@pytest.mark.parametrize("role", ["A", "B"])
def test_wrong_number_of_experts_is_refused(role: str, tmp_path: Path) -> None:
    base, other = tiny_mixtral(), tiny_mixtral(num_local_experts=6)
    saved = peft_saves(other, tmp_path / "it", target_parameters=BOTH, target_modules=[])
    with pytest.raises(FitError) as caught:
        AdaptedModel(base).load_adapter(saved.folder, "it")
    assert {f.code for f in caught.value.findings} == {"AD343"}
    assert any(f"lora_{role}" in f.message for f in caught.value.findings)


def test_file_saved_by_peft_passes_every_check(tmp_path: Path) -> None:
    from adapterdock.loader.base.layout import layout_of_model
    from adapterdock.registry.checks.check_adapter import check_adapter
    from adapterdock.registry.files.facts import AdapterFacts, Layout, ModuleShape

    for option, (make, config) in OPTIONS.items():
        base = make()
        saved = peft_saves(base, tmp_path / option, **config)
        facts = AdapterFacts("it", None, saved.config, saved.tensors().header)
        layout = layout_of_model(base)
        # a header does not keep the order of a module's parameters
        turned = Layout(
            {
                name: ModuleShape(
                    m.kind,
                    m.in_features,
                    m.out_features,
                    dict(reversed(m.parameters.items())),
                )
                for name, m in layout.modules.items()
            },
            layout.output_modules,
            layout.tied,
            layout.prefix,
        )
        for known in (layout, turned):
            findings, plan = check_adapter(facts, None, layout=known)
            assert [f for f in findings if f.severity.value != "warning"] == []
            assert plan is not None and plan == saved.plan(base)


def test_replaced_forward_is_an_error(tmp_path: Path) -> None:
    base = tiny_mixtral()
    saved = peft_saves(base, tmp_path / "it", target_parameters=BOTH, target_modules=[])
    experts = base.model.layers[0].mlp.experts
    own = experts.forward
    experts.forward = lambda *args: own(*args)
    with pytest.raises(AttachError, match="cannot run with another"):
        adapted(base, saved)
    del experts.forward
    model = adapted(base, saved)
    experts.__dict__["forward"].inner = lambda *args: own(*args)
    with pytest.raises(RoutingError) as caught:
        logits(model)
    assert [f.code for f in caught.value.findings] == ["AD749"]


def test_factors_in_a_module_replaced_by_another_adapter_are_refused(tmp_path: Path) -> None:
    base = tiny_mixtral()
    one = peft_saves(base, tmp_path / "one", target_parameters=BOTH, target_modules=[])
    two = peft_saves(
        base, tmp_path / "two", target_modules=["q_proj"], modules_to_save=["layers.0.mlp.experts"]
    )
    model = AdaptedModel(base)
    attach(model, one, "one")
    attach(model, two, "two")
    with pytest.raises(RoutingError):
        model.set_adapter(["one", "two"])


@pytest.mark.parametrize("late", [False, True])
def test_failed_attach_leaves_the_model_unchanged(
    late: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_mixtral()
    saved = peft_saves(base, tmp_path / "it", target_parameters=BOTH, target_modules=["q_proj"])
    before, original = traces(base), WeightSite.install

    def fail(site: WeightSite) -> None:
        if late:
            original(site)
        raise KeyError("injected")

    monkeypatch.setattr(WeightSite, "install", fail)
    model = AdaptedModel(base)
    with pytest.raises(AttachError):
        attach(model, saved)
    assert same_traces(traces(base), before) and model.adapters == {}


def test_tensors_without_a_parameter_name_are_leftovers(tmp_path: Path) -> None:
    base = tiny_mixtral()
    saved = peft_saves(base, tmp_path / "it", target_parameters=BOTH, target_modules=[])
    tensors = {k: v for k, v in load_file(saved.file).items() if ".base_layer." in k}
    from adapterdock.loader.base.layout import layout_of_model
    from support.method_fit import planned

    header = tensors_of(tensors).header.tensors
    plan = planned("LORA", saved.config, header, layout_of_model(base))
    assert plan.sites == () and set(plan.leftovers) == set(tensors)


@pytest.mark.parametrize("name", ["LinearOfMine", "Projection"])
def test_sizes_come_from_the_parameter_and_not_from_the_class_name(
    name: str, tmp_path: Path
) -> None:
    def init(self: Any) -> None:
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = 10, 20
        self.weight = torch.nn.Parameter(torch.randn(10, 20))

    kind: Any = type(
        name, (torch.nn.Module,), {"__init__": init, "forward": lambda self, x: x @ self.weight}
    )
    torch.manual_seed(0)
    base = OneLayer(kind(), torch.randn(3, 10))
    fields = {"target_parameters": ["layer.weight"], "target_modules": []}
    saved = peft_saves(base, tmp_path / "it", **fields)
    assert close(logits(adapted(copy.deepcopy(base), saved)), saved.answer)
    model = AdaptedModel(base)
    model.add_adapter("new", LoraConfig(r=2, **fields))
    assert {tuple(p.shape) for p in model.state_dict().values()} == {(2, 20), (10, 2)}
    assert logits(model, adapter="new").shape == (3, 20)


def test_unknown_parameter_name_is_a_warning_if_another_name_matches(tmp_path: Path) -> None:
    """As in PEFT: HunYuan's router is not ``gate.weight`` but ``gate.wg.weight``."""
    base = tiny_mixtral()
    names = ["experts.gate_up_proj", "gate.wg.weight"]
    saved = peft_saves(base, tmp_path / "it", target_parameters=names, target_modules=[])
    facts = facts_of(saved.folder)
    assert codes(facts, base) == ["AD355"]
    model = AdaptedModel(base)
    model.load_adapter(saved.folder, "it")
    assert close(logits(model, adapter="it"), saved.answer)
    assert "AD376" in codes(tampered(facts, target_parameters=["gate.wg.weight"]), base)

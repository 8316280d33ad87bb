"""Attaching an adapter: complete, or refused with a reason."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel, AdapterWarning
from adapterdock.loader.base.modules import ModuleMap
from adapterdock.loader.build import build_adapter as engine
from adapterdock.loader.build import requirements as requirements
from adapterdock.loader.model.adapter_set import AdapterSet
from adapterdock.loader.sites.attachments import Attachments
from adapterdock.loader.sites.sites import ModuleSite, OutputSite
from adapterdock.loader.weights.tensors import AdapterTensors
from adapterdock.manifests.findings import fit as codes
from adapterdock.manifests.findings import loader as loader_codes
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    AttachError,
    FitError,
    IntegrityError,
)
from adapterdock.registry.files.facts import AdapterPlan, SitePlan
from support.attach import attach_adapter
from support.near import close, differs
from support.peft_adapters import (
    Saved,
    adapted,
    attach,
    logits,
    peft_saves,
    same_traces,
    tensors_of,
    tiny_bert,
    tiny_llama,
    traces,
)
from torch import nn

Q = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp("saved") / "it"
    return peft_saves(
        tiny_llama(), folder, target_modules=["q_proj", "v_proj"], modules_to_save=["lm_head"]
    )


def factors(rank: int = 2, inner: int = 16, outer: int = 16, **more: torch.Tensor) -> Any:
    """A plan and tensors for one LoRA on the first q_proj."""
    torch.manual_seed(3)
    tensors = {"a": torch.randn(rank, inner), "b": torch.randn(outer, rank), **more}
    site = SitePlan(Q, "LORA", {"A": "a", "B": "b"}, rank, 4.0, 2.0)
    return AdapterPlan((site,)), tensors


def refused(base: nn.Module, plan: AdapterPlan, tensors: Any, **options: Any) -> AdapterdockError:
    """Attaching fails, and the base is bit for bit what it was."""
    before = traces(base)
    model = AdaptedModel(base)
    if not isinstance(tensors, AdapterTensors):
        tensors = tensors_of(tensors)
    with pytest.raises(AdapterdockError) as caught:
        attach_adapter(model, "it", plan, tensors, **options)
    assert model.adapters == {}
    assert model.state_dict() == {}
    assert same_traces(traces(base), before)
    return caught.value


def test_a_misfit_leaves_nothing_and_a_retry_with_the_right_one_works(tmp_path: Path) -> None:
    other = tiny_llama(hidden_size=24)
    wrong = peft_saves(other, tmp_path / "wrong", target_modules=["q_proj"])
    right = peft_saves(tiny_llama(), tmp_path / "right", target_modules=["q_proj"])
    base = tiny_llama()
    before = traces(base)
    model = AdaptedModel(base)
    with pytest.raises(FitError) as caught:
        model.load_adapter(wrong.folder, "it")
    assert caught.value.code == codes.SIZE_MISMATCH.id
    assert model.adapters == {}
    assert same_traces(traces(base), before)
    model.load_adapter(right.folder, "it")
    assert close(logits(model, adapter="it"), right.answer)


def test_fit_is_checked_with_the_sizes_that_the_base_has_now(tmp_path: Path) -> None:
    saved = peft_saves(tiny_llama(), tmp_path / "it", target_modules=["embed_tokens"])
    base = tiny_llama()
    model = AdaptedModel(base)
    model.load_adapter(saved.folder, "before")
    model.delete_adapter("before")
    rows = base.get_input_embeddings().num_embeddings
    base.resize_token_embeddings(rows + 8)
    with pytest.raises(FitError) as caught:
        model.load_adapter(saved.folder, "after")
    assert caught.value.code == codes.SIZE_MISMATCH.id
    assert caught.value.findings[0].found == f"(4, {rows})"


def test_every_problem_is_reported_at_once() -> None:
    plan, tensors = factors()
    missing = plan.sites[0]._replace(module="model.layers.9.q_proj")
    norm = plan.sites[0]._replace(module="model.norm")
    more = AdapterPlan((*plan.sites, missing, norm), saved={"model.layers": {}})
    found = [f.code for f in refused(tiny_llama(), more, tensors).findings]
    wanted = [codes.MODULE_MISSING, loader_codes.SITE_INSIDE_SAVED, loader_codes.SAVED_CONTAINER]
    assert sorted(found) == sorted(code.id for code in wanted)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused_trainable_or_not(bad: float) -> None:
    plan, tensors = factors()
    tensors["b"][0, 0] = bad
    for trainable in (False, True):
        assert refused(tiny_llama(), plan, tensors, trainable=trainable).code == "AD703"


@pytest.mark.parametrize("zero", ["a", "b", "scale"])
def test_an_adapter_that_would_change_nothing_is_refused_unless_trainable(zero: str) -> None:
    plan, tensors = factors()
    if zero == "scale":
        plan = AdapterPlan((plan.sites[0]._replace(scale=0.0),))
    else:
        tensors[zero].zero_()
    assert refused(tiny_llama(), plan, tensors).code == codes.EMPTY.id
    model = AdaptedModel(tiny_llama())
    attach_adapter(model, "it", plan, tensors_of(tensors), trainable=True)
    assert "it" in model.adapters


def test_zero_factors_with_a_changed_replacement_are_accepted(tmp_path: Path) -> None:
    base = tiny_llama()

    def untrained(model: Any) -> None:
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.zero_()

    one = peft_saves(
        base,
        tmp_path / "it",
        change=untrained,
        target_modules=["q_proj"],
        modules_to_save=["lm_head"],
    )
    assert close(logits(adapted(base, one)), one.answer)


def test_zero_factors_with_an_unchanged_replacement_are_refused(tmp_path: Path) -> None:
    base = tiny_llama()
    plan, tensors = factors(w=base.lm_head.weight.detach().clone())
    tensors["b"].zero_()
    plan = dataclasses.replace(plan, saved={"lm_head": {"weight": "w"}})
    assert refused(base, plan, tensors).code == codes.EMPTY.id


def test_bytes_that_differ_from_the_pin_are_refused_first(saved: Saved) -> None:
    base = tiny_llama()
    from adapterdock.loader.weights.tensors import read_file

    tensors = read_file(saved.file, "sha256:" + "1" * 64)
    norm = SitePlan("nowhere", "LORA", {}, 2, 4.0, 2.0)
    error = refused(base, AdapterPlan((*saved.plan(base).sites, norm)), tensors)
    assert isinstance(error, IntegrityError)


def test_values_too_large_for_float16_are_refused() -> None:
    plan, tensors = factors()
    tensors["a"][0, 0] = 1e5
    assert refused(tiny_llama().half(), plan, tensors).code == "AD706"
    attach_adapter(AdaptedModel(tiny_llama()), "it", plan, tensors_of(tensors))


def test_an_existing_name_is_refused_and_keeps_its_own_alpha(saved: Saved) -> None:
    base = tiny_llama()
    model = adapted(base, saved)
    plan = saved.plan(base)
    louder = AdapterPlan(tuple(s._replace(scale=s.scale * 9) for s in plan.sites), plan.saved)
    with pytest.raises(AttachError) as caught:
        attach_adapter(model, "it", louder, saved.tensors())
    assert caught.value.code == "AD720"
    assert close(logits(model), saved.answer)
    with pytest.warns(AdapterWarning, match="AD737"):
        model.delete_adapter("it")
    attach_adapter(model, "it", louder, saved.tensors())
    model.set_adapter("it")
    assert differs(logits(model), saved.answer)


@pytest.mark.parametrize("name", ["", "__base__", None, 3])
def test_invalid_names_are_refused(name: Any) -> None:
    plan, tensors = factors()
    with pytest.raises(AttachError) as caught:
        attach_adapter(AdaptedModel(tiny_llama()), name, plan, tensors_of(tensors))
    assert caught.value.code == "AD721"


@pytest.mark.parametrize("name", ["q_proj", "a.b", "lora_a", "base_model", "weight", "it-2"])
def test_names_that_contain_each_other_stay_apart(name: str, saved: Saved) -> None:
    base = tiny_llama()
    model = adapted(base, saved, name)
    attach(model, saved, name + ".x")
    model.set_adapter(name)
    assert close(logits(model, adapter=name), saved.answer)
    model.delete_adapter(name + ".x")
    assert close(logits(model, adapter=name), saved.answer)
    assert all(f".{name}" in key for key in model.state_dict())


def test_a_compiled_model_is_refused_but_not_its_plain_copy() -> None:
    base = tiny_llama()
    with pytest.raises(AttachError) as caught:
        AdaptedModel(torch.compile(base))
    assert caught.value.code == "AD722"
    base.model.layers[0].compile()
    with pytest.raises(AttachError) as caught:
        AdaptedModel(base)
    assert caught.value.code == "AD722"
    with pytest.raises(AttachError) as caught:
        AdaptedModel(torch.jit.script(nn.Linear(2, 2)))
    assert caught.value.code == "AD722"
    with pytest.raises(AttachError) as caught:
        AdaptedModel("model")  # type: ignore[arg-type]
    assert caught.value.code == "AD723"
    hint = str(caught.value.findings[0].hint)
    assert "AutoModelForCausalLM.from_pretrained" in hint and "adapterdock.load" in hint
    later = tiny_llama()
    model = AdaptedModel(later)
    later.compile()
    plan, tensors = factors()
    with pytest.raises(AttachError) as caught:
        attach_adapter(model, "it", plan, tensors_of(tensors))
    assert caught.value.code == "AD722"


def test_a_model_with_pefts_layers_is_refused_and_its_base_is_not() -> None:
    from peft import LoraConfig, get_peft_model, inject_adapter_in_model

    wrapped = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(AttachError) as caught:
        AdaptedModel(wrapped)
    assert caught.value.code == "AD723"
    injected = tiny_llama()
    inject_adapter_in_model(LoraConfig(target_modules=["q_proj"]), injected)
    with pytest.raises(AttachError):
        AdaptedModel(injected)
    added = tiny_llama()
    added.add_adapter(LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(AttachError):
        AdaptedModel(added)
    AdaptedModel(wrapped.unload())


def test_a_wrapped_base_is_refused_until_it_is_detached(saved: Saved) -> None:
    base = tiny_llama()
    model = adapted(base, saved)
    with pytest.raises(AttachError) as caught:
        AdaptedModel(base)
    assert caught.value.code == "AD723"
    model.detach()
    AdaptedModel(base)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.proj = nn.Linear(8, 8)
        self.alias = self.proj
        self.unused = nn.Linear(8, 8)
        self.read = nn.Linear(8, 8)
        self.free = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, further: bool = False) -> torch.Tensor:
        x, _ = self.attention(x, x, x)
        if further:
            x = self.unused(x)
        return self.free(self.alias(x)) @ self.read.weight


def plain(module: str, size: int = 8) -> Any:
    torch.manual_seed(3)
    tensors = {"a": torch.randn(2, size), "b": torch.randn(size, 2)}
    return AdapterPlan((SitePlan(module, "LORA", {"A": "a", "B": "b"}, 2, 4.0, 2.0),)), tensors


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("proj", "AD714"),
        ("alias", "AD714"),
        ("nothing", codes.MODULE_MISSING.id),
    ],
)
def test_modules_that_cannot_be_adapted_are_refused(module: str, code: str) -> None:
    assert refused(Attention(), *plain(module)).code == code


def test_only_modules_that_never_run_are_reported() -> None:
    torch.manual_seed(0)
    model = AdaptedModel(Attention().eval())
    x = {"x": torch.randn(1, 3, 8)}
    for module in ("free", "unused"):
        plan, tensors = plain(module)
        attach_adapter(model, module, plan, tensors_of(tensors))
    assert model.findings == ()
    with pytest.warns(AdapterWarning, match="AD716"):
        logits(model, x, adapter="unused")
    (finding,) = model.findings
    assert "unused" in finding.message
    logits(model, x, adapter="free")
    assert model.findings == (finding,)
    model.delete_adapter("unused")
    assert model.findings == ()


def test_modules_on_the_meta_device_are_refused() -> None:
    with torch.device("meta"):
        base = tiny_llama()
    plan, tensors = factors()
    model = AdaptedModel(base)
    with pytest.raises(AttachError) as caught:
        attach_adapter(model, "it", plan, tensors_of(tensors))
    assert caught.value.code == "AD715"


def test_a_saved_module_must_be_complete() -> None:
    base = tiny_bert()
    torch.manual_seed(0)
    tensors = {"w": torch.randn(3, 16), "b": torch.randn(3), "x": torch.randn(3)}
    half = AdapterPlan((), saved={"classifier": {"weight": "w"}})
    more = AdapterPlan((), saved={"classifier": {"weight": "w", "bias": "b", "extra": "x"}})
    whole = AdapterPlan((), saved={"classifier": {"weight": "w", "bias": "b"}})
    assert refused(base, half, tensors).code == codes.SAVED_MODULE.id
    assert refused(base, more, tensors).code == codes.SAVED_MODULE.id
    model = AdaptedModel(base)
    attach_adapter(model, "it", whole, tensors_of(tensors))
    assert not torch.equal(logits(model, adapter="it"), logits(base))


def test_a_saved_module_of_another_size_has_the_code_that_it_has_at_fit() -> None:
    base = tiny_bert()
    tensors = {"w": torch.randn(4, 16), "b": torch.randn(4)}
    saved = AdapterPlan((), saved={"classifier": {"weight": "w", "bias": "b"}})
    assert refused(base, saved, tensors).code == codes.SAVED_MODULE.id


def test_factors_inside_a_saved_module_are_refused() -> None:
    base = tiny_llama()
    plan, tensors = factors()
    layer = base.model.layers[0].self_attn
    kept = {f"w{i}": p.detach() + 1 for i, p in enumerate(layer.parameters())}
    paths = {n: f"w{i}" for i, (n, _) in enumerate(layer.named_parameters())}
    plan = dataclasses.replace(plan, saved={"model.layers.0.self_attn": paths})
    assert refused(base, plan, {**tensors, **kept}).code == "AD719"


def test_a_bias_that_is_not_simply_added_is_exchanged_during_a_call() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Bilinear(4, 4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.table(x, x)

    base, x = Net(), {"x": torch.randn(3, 4)}
    alone, old = logits(base, x), base.table.bias.detach().clone()
    model = AdaptedModel(base)
    plan = AdapterPlan((), biases={"table": "b"})
    attach_adapter(model, "it", plan, tensors_of({"b": torch.ones(4)}))
    for weight in (1.0, 0.5):
        expected = alone + weight * (1 - old)
        assert close(logits(model, x, adapter={"it": weight}), expected)
    assert torch.equal(logits(base, x), alone)
    model.merge_adapter({"it": 1.0})
    assert close(logits(base, x), alone + 1 - old)
    model.unmerge_adapter()
    assert torch.equal(logits(base, x), alone)


def test_a_bias_that_the_base_does_not_have_is_refused() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Linear(4, 4, bias=False)

    plan = AdapterPlan((), biases={"table": "b"})
    assert refused(Net(), plan, {"b": torch.ones(4)}).code == codes.BIAS_MISMATCH.id


def test_a_dilated_convolution_is_refused() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(4, 4, 3, dilation=2)

    site = SitePlan("conv", "LORA", {"A": "a", "B": "b"}, 2, 4.0, 2.0)
    tensors = {"a": torch.ones(2, 4, 3), "b": torch.ones(4, 2, 1)}
    assert refused(Net(), AdapterPlan((site,)), tensors).code == "AD712"


class Boom(BaseException):
    """As unexpected as a keyboard interrupt."""


STEPS: list[tuple[Any, str]] = [
    (engine, "replacement_of"),
    (ModuleMap, "shape"),
    (requirements, "placement_of"),
    (engine._Builder, "_parameter"),
    (AdapterTensors, "findings"),
    (AdapterTensors, "place"),
    (AdapterTensors, "verify"),
    (AdapterSet, "_add"),
    (Attachments, "put"),
    (Attachments, "_freeze"),
    (OutputSite, "install"),
    (ModuleSite, "install"),
]


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt, Boom])
@pytest.mark.parametrize(("place", "name"), STEPS, ids=[name for _, name in STEPS])
@pytest.mark.parametrize("late", [False, True])
def test_a_failure_at_any_step_changes_no_bit_of_the_model(
    place: Any,
    name: str,
    kind: type[BaseException],
    late: bool,
    saved: Saved,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = tiny_llama()
    untouched = traces(base)
    model = adapted(base, saved, "first")
    answer, state, before = logits(model), model.state_dict(), traces(base)
    plan, tensors = saved.plan(base), saved.tensors()

    original: Callable[..., Any] = getattr(place, name)

    def fail(*args: Any, **kwargs: Any) -> Any:
        if late:
            original(*args, **kwargs)
        raise kind("injected")

    monkeypatch.setattr(place, name, fail)
    with pytest.raises((AttachError, KeyboardInterrupt, Boom)) as caught:
        attach_adapter(model, "second", plan, tensors, trainable=True)
    monkeypatch.undo()
    if kind is RuntimeError:
        assert caught.value.code == "AD726"  # type: ignore[attr-defined]
        assert isinstance(caught.value.__cause__, RuntimeError)
    if not (name == "_add" and late):  # there it had succeeded
        assert list(model.adapters) == ["first"]
        assert same_traces(traces(base), before)
        assert model.state_dict().keys() == state.keys()
    assert torch.equal(logits(model), answer)
    if "second" in model.adapters:
        model.delete_adapter("second")
    attach_adapter(model, "second", plan, saved.tensors())
    assert torch.equal(logits(model, adapter="second"), answer)
    model.detach()
    assert same_traces(traces(base), untouched)


def test_a_copy_of_the_base_is_not_adapted_and_works(saved: Saved) -> None:
    base = tiny_llama()
    alone = logits(base)
    model = adapted(base, saved)
    replacement = copy.deepcopy(base)
    with torch.no_grad():
        base.lm_head.weight.add_(1)
    assert torch.equal(logits(replacement), alone)
    assert replacement.lm_head.forward.__self__ is replacement.lm_head
    del model


def test_the_base_can_be_pickled_while_it_is_adapted(saved: Saved, tmp_path: Path) -> None:
    base = tiny_llama()
    alone = logits(base)
    adapted(base, saved)
    torch.save(base, tmp_path / "base.pt")
    again = torch.load(tmp_path / "base.pt", weights_only=False)
    assert torch.equal(logits(again), alone)

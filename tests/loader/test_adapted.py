"""The wrapper: which adapters are active, in which thread, and that it looks like the base."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import threading
import time
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel, AdapterWarning
from adapterdock.manifests.findings import rules as rule_codes
from adapterdock.manifests.findings.errors import AttachError, PolicyError, RoutingError
from adapterdock.manifests.findings.finding import Finding
from safetensors.torch import load_file, save_file
from support.near import close, differs
from support.peft_adapters import (
    Saved,
    adapted,
    attach,
    by_peft_name,
    ids,
    logits,
    peft_loads,
    peft_saves,
    same_traces,
    tiny_bert,
    tiny_conv,
    tiny_llama,
    tiny_t5,
    traces,
    word_tokenizer,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def one(folder: Path) -> Saved:
    return peft_saves(tiny_llama(), folder / "one", seed=1, target_modules="all-linear")


@pytest.fixture(scope="module")
def two(folder: Path) -> Saved:
    return peft_saves(tiny_llama(), folder / "two", seed=2, r=2, target_modules=["v_proj"])


@pytest.fixture(scope="module")
def headed(folder: Path) -> Saved:
    return peft_saves(
        tiny_llama(),
        folder / "headed",
        seed=3,
        target_modules=["q_proj"],
        modules_to_save=["lm_head"],
    )


@pytest.fixture
def model(one: Saved, two: Saved) -> AdaptedModel:
    model = AdaptedModel(tiny_llama())
    attach(model, one, "one")
    attach(model, two, "two")
    model.set_adapter(None)
    return model


# -- choosing -------------------------------------------------------------------------------


def test_no_adapter_is_active_at_first(model: AdaptedModel) -> None:
    assert model.active_adapters() == []
    assert torch.equal(logits(model), logits(model.base_model))


def test_call_overrides_using_and_using_overrides_the_default(
    model: AdaptedModel, one: Saved, two: Saved
) -> None:
    alone = logits(model.base_model)
    model.set_adapter("one")
    assert close(logits(model), one.answer)
    with model.using("two"):
        assert model.active_adapters() == ["two"]
        assert close(logits(model), two.answer)
        assert close(logits(model, adapter="one"), one.answer)
        assert torch.equal(logits(model, adapter=None), alone)
        assert torch.equal(logits(model, adapter="__base__"), alone)
        with model.using(None):
            assert torch.equal(logits(model), alone)
            with model.using("one"):
                assert close(logits(model), one.answer)
            assert torch.equal(logits(model), alone)
        assert close(logits(model), two.answer)
    assert close(logits(model), one.answer)
    assert model.active_adapters() == ["one"]


def test_using_ends_with_an_exception_too(model: AdaptedModel) -> None:
    with pytest.raises(ZeroDivisionError), model.using("one"):
        _ = 1 / 0
    assert model.active_adapters() == []


def test_direct_calls_of_the_base_never_use_adapters(model: AdaptedModel) -> None:
    base = model.base_model
    alone = logits(base)
    model.set_adapter("one")
    assert torch.equal(logits(base), alone)
    with model.using("two"):
        assert torch.equal(logits(base), alone)
        assert torch.equal(logits(model.get_base_model()), alone)

    seen: list[torch.Tensor] = []

    def processor(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        seen.append(logits(base))
        return scores

    model.generate(ids(), max_new_tokens=3, do_sample=False, logits_processor=[processor])
    assert len(seen) == 3
    assert all(torch.equal(one, alone) for one in seen)


def test_disable_and_enable_restore_the_default_and_replacements(
    model: AdaptedModel, headed: Saved
) -> None:
    attach(model, headed, "headed")
    alone = logits(model.base_model)
    model.disable_adapters()
    assert model.active_adapters() == []
    assert torch.equal(logits(model), alone)
    assert torch.equal(logits(model, adapter=None), alone)
    with pytest.raises(RoutingError) as caught:
        logits(model, adapter="one")
    assert caught.value.code == "AD733"
    model.enable_adapters()
    assert close(logits(model), headed.answer)
    with model.disable_adapter():
        assert torch.equal(logits(model), alone)
    assert close(logits(model), headed.answer)


def test_lists_weights_and_compositions_are_sums(model: AdaptedModel) -> None:
    model.set_adapter(["one", "two"])
    both = logits(model)
    assert model.active_adapters() == ["one", "two"]
    model.define_composition("mix", {"one": 1.0, "two": 1})
    model.set_adapter("mix")
    assert torch.equal(logits(model), both)
    assert model.active_weights() == {"one": 1.0, "two": 1.0}
    model.set_adapter({"mix": 0.5})
    half = logits(model)
    assert torch.equal(logits(model, adapter={"one": 0.5, "two": 0.5}), half)
    assert differs(half, both)


def test_a_switch_takes_effect_without_touching_any_module(model: AdaptedModel) -> None:
    before = traces(model.base_model)
    begin = time.perf_counter()
    for _ in range(1000):
        model.set_adapter("one")
        model.set_adapter("two")
    assert time.perf_counter() - begin < 2.0  # 1 ms a switch: a walk of the model would be more
    assert same_traces(traces(model.base_model), before)


@pytest.mark.parametrize(
    ("selection", "code"),
    [
        ("on", "AD730"),
        ("ones", "AD730"),
        (["one", "three"], "AD730"),
        (["one", "one"], "AD731"),
        ({"one": float("nan")}, "AD731"),
        ({"one": float("inf")}, "AD731"),
        ({"one": "1"}, "AD731"),
        ({"one": True}, "AD731"),
        ({1: 1.0}, "AD731"),
        ([1], "AD731"),
        (7, "AD731"),
    ],
)
def test_an_invalid_selection_keeps_the_default(
    model: AdaptedModel, selection: Any, code: str
) -> None:
    model.set_adapter("two")
    for choose in (model.set_adapter, model.using, lambda s: logits(model, adapter=s)):
        with pytest.raises(RoutingError) as caught:
            choose(selection)
        assert caught.value.code == code
    assert model.active_adapters() == ["two"]


def test_a_misspelt_adapter_gets_a_hint(model: AdaptedModel) -> None:
    for act in (model.set_adapter, model.delete_adapter):
        with pytest.raises(RoutingError, match="Did you mean 'two'"):
            act("twoo")


def test_replacements_need_weight_one_and_cannot_be_combined(
    model: AdaptedModel, headed: Saved
) -> None:
    attach(model, headed, "headed")
    attach(model, headed, "headed2")
    model.set_adapter(["headed", "one"])  # a sum with a whole module of one member is fine
    for mix in ({"headed": 0.5}, ["headed", "headed2"]):
        with pytest.raises(RoutingError) as caught:
            model.set_adapter(mix)
        assert caught.value.code == "AD732"
    with pytest.raises(RoutingError):
        model.define_composition("bad", {"headed": 2.0})


def test_an_adapter_inside_another_adapters_replacement_is_refused(
    folder: Path, one: Saved
) -> None:
    base = tiny_llama()
    block = peft_saves(
        base, folder / "block", target_modules=["lm_head"], modules_to_save=["layers.1.mlp"]
    )
    model = adapted(base, block, "block")
    attach(model, one, "one")
    with pytest.raises(RoutingError) as caught:
        model.set_adapter(["one", "block"])
    assert caught.value.code == "AD719"


def test_rules_apply_however_a_selection_is_set(model: AdaptedModel) -> None:
    def at_most_one(weights: Mapping[str, float]) -> list[Finding]:
        return [rule_codes.TOO_MANY_ACTIVE.finding("two is too many")] if len(weights) > 1 else []

    model.set_adapter(["one", "two"])
    with pytest.raises(PolicyError):
        model.rules = at_most_one
    assert model.rules is None
    model.set_adapter("one")
    model.rules = at_most_one
    model.define_composition("mix", {"one": 1, "two": 1})
    for choose in (
        lambda: model.set_adapter(["one", "two"]),
        lambda: model.using("mix"),
        lambda: model.generate(ids(), adapter={"one": 1, "two": 0.1}),
    ):
        with pytest.raises(PolicyError, match="too many"):
            choose()
    model.set_adapter({"one": 1, "two": 0})


def test_deleting_does_not_leave_a_default_that_the_rules_forbid(model: AdaptedModel) -> None:
    def two_needs_one(weights: Mapping[str, float]) -> list[Finding]:
        wrong = "two" in weights and "one" not in weights
        return [rule_codes.REQUIRED.finding("two needs one")] if wrong else []

    model.rules = two_needs_one
    model.set_adapter(["one", "two"])
    with pytest.raises(PolicyError, match="two needs one"):
        model.delete_adapter("one")
    assert model.active_adapters() == ["one", "two"]
    assert logits(model).isfinite().all()


def test_cached_routings_are_limited(model: AdaptedModel) -> None:
    for step in range(1000):
        model.set_adapter({"one": step / 1000})
    assert len(model._host.state.routings) <= 256


# -- threads --------------------------------------------------------------------------------


def test_threads_have_independent_selections(model: AdaptedModel, one: Saved, two: Saved) -> None:
    alone = logits(model.base_model)
    expected = {"one": one.answer, "two": two.answer, None: alone}
    start = threading.Barrier(6)

    def work(at: int) -> bool:
        name = [None, "one", "two"][at % 3]
        start.wait()
        fine = True
        for _ in range(12):
            with model.using(name):
                fine &= close(logits(model), expected[name])
            fine &= close(logits(model, adapter=name), expected[name])
            fine &= torch.equal(logits(model.base_model), alone)
        return fine

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))


def test_a_new_thread_starts_with_the_default(model: AdaptedModel, two: Saved) -> None:
    model.set_adapter("two")
    answers: list[torch.Tensor] = []
    with model.using("one"):
        thread = threading.Thread(target=lambda: answers.append(logits(model)))
        thread.start()
        thread.join()
    assert close(answers[0], two.answer)


def test_asyncio_tasks_have_independent_selections(
    model: AdaptedModel, one: Saved, two: Saved
) -> None:
    async def work(saved: Saved, name: str) -> bool:
        with model.using(name):
            await asyncio.sleep(0.01)
            return close(logits(model), saved.answer)

    async def both() -> list[bool]:
        return await asyncio.gather(work(one, "one"), work(two, "two"))

    assert asyncio.run(both()) == [True, True]


def test_a_running_call_keeps_its_adapters(model: AdaptedModel, one: Saved) -> None:
    """In the midst of a forward another thread switches and deletes; the call ends as it began,
    and then nothing of the deleted adapter is left."""
    base = model.base_model
    model.set_adapter("one")
    entered, go = threading.Event(), threading.Event()

    def wait(*_: Any) -> None:
        entered.set()
        assert go.wait(20)

    handle = base.model.layers[0].register_forward_pre_hook(wait)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(logits, model)
        assert entered.wait(20)
        model.set_adapter("two")
        model.delete_adapter("one")
        with pytest.raises(RoutingError) as caught:
            model.detach()
        go.set()
        handle.remove()
        assert close(answer.result(), one.answer)
    assert caught.value.code == "AD734"
    assert all(
        len(site.factors) == 1 for site in model._host.adapters.attachments.outputs.values()
    ), "only `two` is left"
    with pytest.raises(RoutingError):
        logits(model, adapter="one")


def test_using_a_deleted_adapter_is_an_error(model: AdaptedModel) -> None:
    with model.using("one"):
        model.delete_adapter("one")
        with pytest.raises(RoutingError) as caught:
            logits(model)
    assert caught.value.code == "AD730"


# -- deleting and detaching -----------------------------------------------------------------


def test_deleting_the_default_gives_a_warning(model: AdaptedModel) -> None:
    model.set_adapter(["one", "two"])
    model.delete_adapter("one")
    assert model.active_adapters() == ["two"]
    with pytest.warns(AdapterWarning, match="AD737"):
        model.delete_adapter("two")
    assert torch.equal(logits(model), logits(model.base_model))
    assert list(model.parameters()) == list(model.base_model.parameters())


def test_members_of_a_composition_cannot_be_deleted(model: AdaptedModel) -> None:
    model.define_composition("mix", {"one": 1, "two": 1})
    with pytest.raises(RoutingError) as caught:
        model.delete_adapter(["two", "one"])
    assert caught.value.code == "AD734"
    assert list(model.adapters) == ["one", "two"]
    model.delete_composition("mix")
    model.delete_adapter(["two", "one"])
    assert list(model.adapters) == []


def test_sites_are_removed_with_their_last_adapter(model: AdaptedModel) -> None:
    base = model.base_model
    hooks = {n: len(m._forward_hooks) for n, m in base.named_modules() if m._forward_hooks}
    assert set(hooks.values()) == {1}
    model.delete_adapter("one")
    left = [n for n, m in base.named_modules() if m._forward_hooks]
    assert all(n.endswith("v_proj") for n in left)
    model.delete_adapter("two")
    assert not any(m._forward_hooks or "forward" in vars(m) for m in base.modules())


def test_repr_shows_the_selection_without_tensors(model: AdaptedModel) -> None:
    shown = repr(model.using("one"))
    assert "'one'" in shown
    assert "tensor(" not in shown


@pytest.mark.parametrize("generated", [False, True])
def test_a_deleted_wrapper_releases_the_base(generated: bool, one: Saved, headed: Saved) -> None:
    base = tiny_llama()
    before = traces(base)
    model = adapted(base, one, trainable=True)
    attach(model, headed, "headed")
    if generated:  # the view holds the wrapper, so that only the collector finds it dead
        model.generate(ids(), max_new_tokens=2, adapter="it")
    factor = weakref.ref(model._host.adapters.by_name["it"])
    del model
    again = AdaptedModel(base)
    assert same_traces(before, traces(base))
    assert factor() is None
    attach(again, one)
    assert close(logits(again), one.answer)


def test_calls_and_methods_keep_the_wrapper_alive(one: Saved) -> None:
    base = tiny_llama()
    generate = adapted(base, one).generate
    gc.collect()
    with pytest.raises(AttachError, match="Another AdaptedModel"):
        AdaptedModel(base)
    assert torch.equal(generate(ids(), max_new_tokens=2)[:, :-2], ids())


def test_detaching_leaves_no_trace_and_ends_the_wrapper(one: Saved, headed: Saved) -> None:
    base = tiny_llama()
    kept: list[int] = []
    base.model.layers[0].mlp.register_forward_hook(lambda *_: kept.append(1))
    before = traces(base)
    model = AdaptedModel(base)
    attach(model, one, "one")
    attach(model, headed, "headed", trainable=True)
    model.train()
    model(ids(), labels=ids()).loss.backward()
    model.eval()
    assert model.detach() is base
    assert same_traces(traces(base), before)
    for use in (lambda: model(ids()), lambda: model.generate(ids()), lambda: attach(model, one)):
        with pytest.raises(RoutingError) as caught:
            use()
        assert caught.value.code == "AD736"
    logits(base)
    assert kept


def test_an_exception_in_forward_resets_the_routing(model: AdaptedModel) -> None:
    model.set_adapter("one")
    with pytest.raises(IndexError):
        model(torch.tensor([[999]]))
    assert torch.equal(logits(model.base_model), logits(tiny_llama()))
    assert model._host.adapters.attachments.running() == []


# -- passing for the base -------------------------------------------------------------------


def test_generate_is_pefts(model: AdaptedModel, one: Saved, two: Saved) -> None:
    settings = {"max_new_tokens": 8, "do_sample": False}
    oracle = peft_loads(model.base_model, one.folder, two.folder)
    expected = {}
    for name in ("one", "two"):
        oracle.set_adapter(name)
        expected[name] = oracle.generate(input_ids=ids(), **settings)
    assert torch.equal(model.generate(ids(), adapter="one", **settings), expected["one"])
    with model.using("two"):
        assert torch.equal(model.generate(ids(), **settings), expected["two"])
    model.set_adapter("one")
    assert torch.equal(model.generate(input_ids=ids(), **settings), expected["one"])
    alone = model.base_model.generate(ids(), **settings)
    assert torch.equal(model.generate(ids(), adapter=None, **settings), alone)
    assert not torch.equal(expected["one"], alone)
    beams = {"num_beams": 3, "max_new_tokens": 5, "do_sample": False}
    oracle.set_adapter("two")
    assert torch.equal(
        model.generate(ids(), adapter="two", **beams), oracle.generate(input_ids=ids(), **beams)
    )


def test_an_encoder_called_by_generate_is_adapted(tmp_path: Path) -> None:
    base = tiny_t5()
    saved = peft_saves(base, tmp_path / "it", r=8, target_modules=["q", "v", "wi", "wo"])
    model = adapted(base, saved)
    settings = {"max_new_tokens": 6, "do_sample": False}
    expected = peft_loads(base, saved.folder).generate(input_ids=ids(), **settings)
    assert torch.equal(model.generate(ids(), **settings), expected)
    assert not torch.equal(base.generate(ids(), **settings), expected)
    assert model.findings == ()


def test_methods_of_the_base_run_with_the_adapters(tmp_path: Path) -> None:
    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = torch.nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.proj(x)

        def encode(self, x: torch.Tensor, beside: Any = lambda: None) -> torch.Tensor:
            beside()
            return self(x) + self.proj(x)

        def stream(self, x: torch.Tensor) -> Any:
            for _ in range(2):
                yield self.proj(x)

    torch.manual_seed(0)
    base = Encoder()
    x = {"x": torch.randn(2, 4)}
    import support.peft_adapters as support

    original = support.inputs_of
    support.inputs_of = lambda _: x  # type: ignore[assignment]
    try:
        saved = peft_saves(base, tmp_path / "it", target_modules=["proj"])
    finally:
        support.inputs_of = original
    model = adapted(base, saved)
    with torch.no_grad():
        assert close(model.encode(x["x"]), 2 * saved.answer)
        assert torch.equal(base.encode(x["x"]), 2 * base(x["x"]))
        alone = base(x["x"])
        direct: list[torch.Tensor] = []
        model.encode(x["x"], lambda: direct.append(base(x["x"])))
        assert torch.equal(direct[0], alone)
        with model.using(None):
            steps = model.stream(x["x"])
        assert all(torch.equal(step, alone) for step in steps)
        model.set_adapter("it")
        steps = model.stream(x["x"])
        model.set_adapter(None)
        assert all(close(step, saved.answer) for step in steps)


def test_the_wrapper_looks_like_the_base(model: AdaptedModel) -> None:
    base = model.base_model
    assert type(model).__name__ == "LlamaForCausalLM"
    assert isinstance(model, AdaptedModel)
    assert inspect.signature(model.forward) == inspect.signature(base.forward)
    assert inspect.signature(type(model).forward) == inspect.signature(type(base).forward)
    from transformers.utils import can_return_loss
    from transformers.utils.generic import find_labels

    assert find_labels(type(model)) == ["labels"]
    assert can_return_loss(type(model)) == can_return_loss(type(base))
    for name in (
        "config",
        "device",
        "dtype",
        "generation_config",
        "main_input_name",
        "name_or_path",
    ):
        assert getattr(model, name) == getattr(base, name)
    assert model.can_generate()
    assert model.get_input_embeddings() is base.get_input_embeddings()
    assert not hasattr(model, "nothing_of_the_kind")
    assert "AdaptedModel(LlamaForCausalLM" in repr(model)
    model.generation_config = copy.deepcopy(base.generation_config)
    assert model.generation_config is base.generation_config


def test_a_pipeline_accepts_the_wrapper(
    model: AdaptedModel, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import pipeline

    pipe = pipeline("text-generation", model=model, tokenizer=word_tokenizer())
    assert "not supported" not in caplog.text
    settings = {"max_new_tokens": 6, "do_sample": False}
    alone = pipe("w5 w6 w7", **settings)
    with model.using("one"):
        answer = pipe("w5 w6 w7", **settings)
    assert answer != alone
    model.set_adapter("one")
    assert pipe("w5 w6 w7", **settings) == answer


def test_train_eval_and_to_reach_base_and_adapters(model: AdaptedModel, headed: Saved) -> None:
    attach(model, headed, "headed")
    assert not model.training
    model.train()
    assert all(m.training for m in model.base_model.modules())
    model.eval()
    assert not any(m.training for m in model.modules())
    (replacement,) = model._host.adapters.by_name["headed"].resident.replacements.values()
    model.base_model.train()
    logits(model)
    assert replacement.training
    model.eval()
    assert model.to(torch.float64) is model
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert logits(model).dtype is torch.float64
    assert close(logits(model).float(), headed.answer)


def test_the_state_dict_holds_the_adapters_under_pefts_names(
    one: Saved, headed: Saved, tmp_path: Path
) -> None:
    base = tiny_llama()
    model = adapted(base, headed, "headed")
    attach(model, one, "one")
    oracle = peft_loads(base, headed.folder, one.folder).state_dict()
    theirs = {k for k in oracle if ".headed" in k or ".one" in k}
    state = model.state_dict()
    assert set(state) == theirs
    ours = {n for n in by_peft_name(model) if ".headed" in n or ".one" in n}
    assert set(state) == ours
    assert all(model.get_parameter(n) is p for n, p in model.named_parameters())
    save_file(state, tmp_path / "state.safetensors")
    torch.save(state, tmp_path / "state.pt")
    again = load_file(tmp_path / "state.safetensors")
    assert all(torch.equal(again[k], v) for k, v in state.items())

    answer = logits(model)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.zero_()
    assert differs(logits(model), answer)
    model.load_state_dict(again)
    assert torch.equal(logits(model), answer)


def test_a_state_dict_of_other_adapters_changes_nothing(model: AdaptedModel) -> None:
    state = {k: v.clone() for k, v in model.state_dict().items()}
    first = next(iter(state))
    for wrong in (
        {k: v for k, v in state.items() if k != first},
        {**state, "other": torch.ones(1)},
        {**state, first: torch.ones(1)},
        {**state, first: "text"},
    ):
        zeros = {
            k: torch.zeros_like(v) if isinstance(v, torch.Tensor) else v for k, v in wrong.items()
        }
        with pytest.raises(AttachError) as caught:
            model.load_state_dict(zeros)
        assert caught.value.code == "AD740"
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    result = model.load_state_dict({first: state[first]}, strict=False)
    assert len(result.missing_keys) == len(state) - 1


def test_a_state_dict_of_mixed_dtypes_can_be_saved(tmp_path: Path) -> None:
    base = tiny_conv()
    saved = peft_saves(base, tmp_path / "it", target_modules=["first"], modules_to_save=["norm"])
    state = adapted(base, saved).state_dict()
    assert {t.dtype for t in state.values()} == {torch.float32, torch.int64}
    torch.save(state, tmp_path / "state.pt")


def test_an_adapter_that_a_composition_brings_again_is_named_with_it(model: AdaptedModel) -> None:
    model.define_composition("mix", {"one": 0.5, "two": 1})
    with pytest.raises(RoutingError) as caught:
        model.set_adapter({"mix": 0.5, "two": 1.0})
    (finding,) = caught.value.findings
    assert finding.message == "'two' is selected twice: by 'mix' and by 'two'"
    assert finding.hint == (
        "Write the adapters of the composition instead of its name, and 'two' once."
    )
    with pytest.raises(RoutingError, match=r"'two' is selected twice\n"):
        model.set_adapter(["two", "two"])
    model.set_adapter({"mix": 0.5})


def test_wrapping_twice_and_taken_names_are_refused(model: AdaptedModel) -> None:
    with pytest.raises(AttachError) as caught:
        AdaptedModel(model)
    assert caught.value.code == "AD723"
    for name in ("one", "__base__", ""):
        with pytest.raises(RoutingError):
            model.define_composition(name, {"two": 1})


def test_a_base_with_exchanged_modules_is_refused(model: AdaptedModel, two: Saved) -> None:
    attention = model.base_model.model.layers[0].self_attn
    attention.v_proj = copy.deepcopy(attention.v_proj)
    with pytest.raises(AttachError) as caught:
        attach(model, two, "three")
    assert caught.value.code == "AD744"
    assert list(model.adapters) == ["one", "two"]
    fresh = AdaptedModel(tiny_llama())
    attention = fresh.base_model.model.layers[0].self_attn
    _ = fresh._host.live.modules
    attention.v_proj = copy.deepcopy(attention.v_proj)
    attach(fresh, two, "two")  # nothing sat there yet: the new module is adapted
    assert close(logits(fresh), two.answer)


def test_base_only_methods_are_refused(model: AdaptedModel, tmp_path: Path) -> None:
    for refuse in (lambda: model.resize_token_embeddings(99),):
        with pytest.raises(AttachError):
            refuse()
    for refuse, instead in (
        (model.get_adapter_state_dict, "get_peft_model_state_dict"),
        (model.enable_peft_hotswap, "hotswap=True"),
        (model.resize_token_embeddings, "model.base_model"),
    ):
        with pytest.raises(AttachError, match="AD739") as caught:
            refuse()
        assert instead in str(caught.value.findings[0].hint)
    model.base_model.save_pretrained(tmp_path / "base")
    assert (tmp_path / "base" / "model.safetensors").exists()


def test_generate_of_a_base_without_it_is_an_error(tmp_path: Path) -> None:
    model = AdaptedModel(tiny_bert())
    assert not model.can_generate()
    with pytest.raises(RoutingError) as caught:
        model.generate(ids())
    assert caught.value.code == "AD743"


def test_adapters_lists_ranks_and_sizes(model: AdaptedModel, headed: Saved) -> None:
    attach(model, headed, "headed", dtype=torch.bfloat16)
    infos = model.adapters
    assert list(infos) == ["one", "two", "headed"]
    assert (infos["one"].rank, infos["two"].rank) == (4, 2)
    assert infos["two"].modules == tuple(f"model.layers.{i}.self_attn.v_proj" for i in range(2))
    assert infos["two"].parameters == 2 * (2 * 16 + 8 * 2)
    assert infos["two"].nbytes == infos["two"].parameters * 4
    assert infos["headed"].dtypes == (torch.bfloat16,)
    assert "lm_head" in infos["headed"].modules


def test_attaching_for_inference_never_freezes_a_trainable_adapter(one: Saved, two: Saved) -> None:
    base = tiny_llama()
    flags = [p.requires_grad for p in base.parameters()]
    model = adapted(base, one, "one", trainable=True)
    attach(model, two, "two")
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all(".one." in n for n in trained)
    assert {p.dtype for n, p in model.named_parameters() if n in trained} == {torch.float32}
    model.set_adapter("one")
    model.delete_adapter("two")
    assert {n for n, p in model.named_parameters() if p.requires_grad} == trained
    model.set_adapter(None)
    model.delete_adapter("one")
    assert [p.requires_grad for p in base.parameters()] == flags


def test_wrappers_nested_in_a_call_are_independent(one: Saved, two: Saved) -> None:
    model, other = adapted(tiny_llama(), one), adapted(tiny_llama(), two)
    seen: list[torch.Tensor] = []
    model.base_model.model.norm.register_forward_hook(
        lambda *_: seen.append(logits(other)) if len(seen) < 1 else None
    )
    assert close(logits(model), one.answer)
    assert close(seen[0], two.answer)

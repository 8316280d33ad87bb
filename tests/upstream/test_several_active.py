"""What PEFT's tests of several adapters on one model prove, proved here:
``docs/reference/upstream.md`` lists them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import RoutingError
from peft import (
    AdaLoraConfig,
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoKrConfig,
    OFTConfig,
    VeraConfig,
)
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from support.near import close, differs
from support.peft_adapters import (
    Saved,
    adapted,
    attach,
    ids,
    logits,
    peft_loads,
    peft_saves,
    same_traces,
    tiny_bert,
    tiny_llama,
    traces,
)
from support.small_nets import Letters, Steps


def two_on(
    base: Any, folder: Path, one: dict[str, Any], two: dict[str, Any]
) -> tuple[AdaptedModel, dict[str, Saved]]:
    """A model with adapters ``one`` and ``two`` of these configs, and what PEFT saved."""
    saved = {
        name: peft_saves(base, folder / name, seed=seed, **config)
        for seed, (name, config) in enumerate({"one": one, "two": two}.items(), 1)
    }
    model = AdaptedModel(base)
    for name, adapter in saved.items():
        attach(model, adapter, name)
    model.set_adapter(None)
    return model, saved


WIDE, NARROW = {"target_modules": ["wide"]}, {"target_modules": ["narrow"]}
FIRST = {"target_modules": ["rate"], "trainable_token_indices": {"letters": [0, 1, 2]}}
OTHER = {"target_modules": ["rate"], "trainable_token_indices": {"letters": [3, 4, 5, 6]}}
STEPS = {"total_step": 10}
IA3 = {"kind": IA3Config, "feedforward_modules": ["wide"]}


def of(kind: Any, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """On one layer, and on the other."""
    return {"kind": kind, **WIDE, **options}, {"kind": kind, **NARROW, **options}


PAIRS: dict[str, tuple[Callable[[], Any], dict[str, Any], dict[str, Any]]] = {
    "LoRA, the same": (Steps, WIDE, WIDE),
    "LoRA, another": (Steps, WIDE, NARROW),
    "tokens, the same": (Letters, FIRST, OTHER),
    "tokens, another": (Letters, FIRST, {**OTHER, "target_modules": ["window"]}),
    "parameters, the same": (
        Steps,
        {"target_modules": [], "target_parameters": ["wide.weight"]},
        {"target_modules": [], "target_parameters": ["wide.weight"]},
    ),
    "parameters, another": (
        Steps,
        {"target_modules": [], "target_parameters": ["wide.weight"]},
        {"target_modules": [], "target_parameters": ["narrow.weight"]},
    ),
    "IA3, the same": (Steps, {**IA3, **WIDE}, {**IA3, **WIDE}),
    "IA3, another": (
        Steps,
        {**IA3, **WIDE},
        {**IA3, **NARROW, "feedforward_modules": ["narrow"]},
    ),
    "DoRA, the same": (Steps, {**WIDE, "use_dora": True}, {**WIDE, "use_dora": True}),
}
for name, (here, there) in {
    "LoHa": of(LoHaConfig, r=2),
    "LoKr": of(LoKrConfig, r=2),
    "OFT": of(OFTConfig, oft_block_size=2),
    "VeRA": of(VeraConfig, r=3),
    "AdaLoRA": of(AdaLoraConfig, **STEPS),
}.items():
    PAIRS[f"{name}, the same"] = (Steps, here, here)
    PAIRS[f"{name}, another"] = (Steps, here, there)

ADDITIVE = [
    *(n for n in PAIRS if n.split(",")[0] in ("LoRA", "tokens", "LoHa", "LoKr")),
    "VeRA, the same",
    "IA3, another",
    "OFT, another",
]
"""Where PEFT's several active adapters are the sum, too."""


@pytest.mark.parametrize("case", PAIRS)
def test_two_active_adapters_differ_from_each_and_commute(case: str, tmp_path: Path) -> None:
    make, one, two = PAIRS[case]
    base = make().eval()
    model, saved = two_on(base, tmp_path, one, two)
    both = logits(model, adapter=["one", "two"])
    for name, adapter in saved.items():
        assert close(logits(model, adapter=name), adapter.answer)
        assert differs(adapter.answer, both)
    assert differs(saved["one"].answer, saved["two"].answer)
    assert close(logits(model, adapter=["two", "one"]), both)
    assert close(logits(model, adapter=["one", "two"]), both)
    assert model.findings == ()


@pytest.mark.parametrize("case", ADDITIVE)
def test_two_active_adapters_match_peft(case: str, tmp_path: Path) -> None:
    make, one, two = PAIRS[case]
    base = make().eval()
    model, saved = two_on(base, tmp_path, one, two)
    oracle = peft_loads(base, saved["one"].folder, saved["two"].folder)
    for module in oracle.modules():  # one by one: PEFT has no other way for trained tokens
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
            module.set_adapter(["one", "two"])
    assert close(logits(model, adapter=["one", "two"]), logits(oracle, {"x": base.example}))


@pytest.mark.parametrize("case", ["LoRA, the same", "LoRA, another"])
def test_cat_equals_both_active(case: str, tmp_path: Path) -> None:
    make, one, two = PAIRS[case]
    model, _ = two_on(make().eval(), tmp_path, one, two)
    model.add_weighted_adapter(["one", "two"], [1.0, 1.0], "made", "cat")
    assert close(logits(model, adapter="made"), logits(model, adapter=["one", "two"]))


@pytest.mark.parametrize("case", PAIRS)
def test_merging_both_equals_both_active(case: str, tmp_path: Path) -> None:
    make, one, two = PAIRS[case]
    base = make().eval()
    alone = logits(base)
    model, saved = two_on(base, tmp_path, one, two)
    before = traces(base)
    live = logits(model, adapter=["one", "two"])
    model.merge_adapter(["one", "two"])
    assert close(logits(model), live)
    model.unmerge_adapter()
    assert torch.equal(logits(model), alone)
    assert same_traces(traces(base), before)

    for names in (["two", "one"], ["two"], ["one"]):
        plain = make().eval()
        again = AdaptedModel(plain)
        for name, adapter in saved.items():
            attach(again, adapter, name)
        assert again.merge_and_unload(adapter_names=names) is plain
        assert close(logits(plain), logits(model, adapter=names))


@pytest.mark.parametrize("case", ["LoRA, the same", "LoRA, another"])
def test_merging_one_after_the_other_equals_merging_both(case: str, tmp_path: Path) -> None:
    make, one, two = PAIRS[case]
    base = make().eval()
    model, _ = two_on(base, tmp_path, one, two)
    before = traces(base)
    model.merge_adapter(["one", "two"])
    together = {name: value.clone() for name, value in base.state_dict().items()}
    model.unmerge_adapter()
    for name in ("one", "two"):
        model.merge_adapter(name)
    assert model.merged_adapters == ["one", "two"]
    assert all(torch.equal(value, together[n]) for n, value in base.state_dict().items())
    model.unmerge_adapter()
    assert same_traces(traces(base), before)


# -- which are active -----------------------------------------------------------------------


def test_active_adapters_are_exactly_those_set(tmp_path: Path) -> None:
    model, saved = two_on(Steps().eval(), tmp_path, WIDE, NARROW)
    assert model.active_adapters() == []
    model.load_adapter(saved["one"].folder, "third")
    assert model.active_adapters() == []
    for choice in ("one", "two"):
        model.set_adapter(choice)
        assert model.active_adapters() == [choice]
    for several in (["one", "two"], ["two", "third", "one"]):
        model.set_adapter(several)
        assert model.active_adapters() == several
    with pytest.raises(RoutingError) as caught:
        model.set_adapter(["nobody", "one", "no-one"])
    assert [f.code for f in caught.value.findings] == ["AD730", "AD730"]
    assert model.active_adapters() == ["two", "third", "one"]


PARTS: dict[str, tuple[Callable[[], Any], dict[str, Any], dict[str, Any]]] = {
    "some of the same": (Steps, WIDE, {"target_modules": ["wide", "narrow"]}),
    "a whole module": (Steps, WIDE, {**WIDE, "modules_to_save": ["narrow"]}),
    "tokens": (Letters, {"target_modules": ["rate"]}, FIRST),
}


@pytest.mark.parametrize("turned", [False, True], ids=["", "turned"])
@pytest.mark.parametrize("case", PARTS)
def test_switching_covers_modules_only_one_adapter_has(
    case: str, turned: bool, tmp_path: Path
) -> None:
    make, one, two = PARTS[case]
    if turned:
        one, two = two, one
    base = make().eval()
    alone = logits(base)
    model, saved = two_on(base, tmp_path, one, two)
    for name in ("one", "two", "one"):
        model.set_adapter(name)
        assert close(logits(model), saved[name].answer)
        assert torch.equal(logits(base), alone)
    model.set_adapter(["one", "two"])
    assert model.active_adapters() == ["one", "two"]
    assert logits(model).isfinite().all()


@pytest.mark.parametrize(
    "kind", [None, LoHaConfig, LoKrConfig, IA3Config, OFTConfig, VeraConfig], ids=str
)
def test_adapters_may_replace_different_modules(kind: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"kind": kind} if kind else {}
    if kind is IA3Config:
        options["feedforward_modules"] = []
    if kind is OFTConfig:
        options["oft_block_size"] = 4
    base = tiny_llama()
    model = AdaptedModel(base)
    saved: dict[str, Saved] = {}
    for seed, (name, whole) in enumerate(
        {
            "head": ["lm_head"],
            "head-too": ["lm_head"],
            "norm": ["layers.0.mlp"],
            "norm-and-head": ["layers.1.mlp", "lm_head"],
        }.items()
    ):
        config = {"target_modules": ["q_proj"], "modules_to_save": whole, **options}
        saved[name] = peft_saves(base, tmp_path / name, seed=seed, **config)
        attach(model, saved[name], name)
    for name, one in saved.items():
        assert close(logits(model, adapter=name), one.answer)
    for apart in (["head", "norm"], ["norm", "norm-and-head"]):
        model.set_adapter(apart)
        assert not close(logits(model), logits(model, adapter=apart[0]))
        assert not close(logits(model), logits(model, adapter=apart[1]))
    for meeting in (["head", "head-too"], ["norm-and-head", "head"]):
        with pytest.raises(RoutingError) as caught:
            model.set_adapter(meeting)
        assert caught.value.code == "AD732"
    assert model.active_adapters() == ["norm", "norm-and-head"]
    copies = [name for name in model.state_dict() if "modules_to_save" in name]
    assert not any("lm_head" in name and ".norm." in name for name in copies), "no needless copy"


def test_the_same_token_of_two_adapters_gets_both_differences(tmp_path: Path) -> None:
    base = Letters().eval()
    rows = {"letters": [0, 1, 2]}
    config = {"target_modules": ["rate"], "trainable_token_indices": rows}
    model, _ = two_on(base, tmp_path, config, config)
    first, second = (
        model.state_dict()[f"base_model.model.letters.token_adapter.trainable_tokens_delta.{n}"]
        for n in ("one", "two")
    )
    seen: list[torch.Tensor] = []
    handle = base.window.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    logits(model, {"x": torch.tensor([[0, 1, 2, 3, 4]])}, adapter=["one", "two"])
    handle.remove()
    own = base.letters.weight[:5].detach().clone()
    own[:3] += (first - own[:3]) + (second - base.letters.weight[:3].detach())
    assert close(seen[0][0].T, own)


def test_many_may_come_from_one_folder(tmp_path: Path) -> None:
    saved = peft_saves(tiny_llama(), tmp_path / "it", target_modules="all-linear")
    model = AdaptedModel(tiny_llama())
    for name in ("it", "other", "yet-another"):
        model.load_adapter(saved.folder, name)
    assert model.findings == ()
    for name in model.adapters:
        assert close(logits(model, adapter=name), saved.answer)


def test_each_has_its_own_ranks(tmp_path: Path) -> None:
    pattern = {f"layers.{n}.self_attn.q_proj": 2 * n + 1 for n in range(2)}
    base = tiny_llama()
    one = {"target_modules": ["q_proj", "v_proj"], "r": 6}
    two = {**one, "rank_pattern": pattern, "alpha_pattern": {k: 2 * v for k, v in pattern.items()}}
    model, saved = two_on(base, tmp_path, one, two)
    for name in ("one", "two"):
        assert close(logits(model, adapter=name), saved[name].answer)
    ranks = {
        key: value.shape[0] for key, value in model.state_dict().items() if "lora_A.two" in key
    }
    assert sorted(ranks.values()) == [1, 3, 6, 6]
    assert all(v.shape[0] == 6 for k, v in model.state_dict().items() if "lora_A.one" in k)


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_two_adapters_with_biases_can_be_attached(bias: str, tmp_path: Path) -> None:
    config = {"target_modules": ["query", "value"], "bias": bias}
    base = tiny_bert()
    alone = logits(base)
    model, saved = two_on(base, tmp_path, config, {**config, "r": 2})
    for name in ("one", "two", "one"):
        assert close(logits(model, adapter=name), saved[name].answer)
    assert torch.equal(logits(model, adapter=None), alone)
    assert not close(logits(model, adapter=["one", "two"]), saved["one"].answer)


def test_heads_that_a_task_brings_are_each_adapters_own(tmp_path: Path) -> None:
    config = {"target_modules": ["query"], "task_type": "SEQ_CLS"}
    model, saved = two_on(tiny_bert(), tmp_path, config, config)
    for name in ("one", "two", "one"):
        assert any(f"classifier.modules_to_save.{name}" in key for key in model.state_dict())
        assert close(logits(model, adapter=name), saved[name].answer)


def test_a_replaced_module_called_with_keywords_only_is_switched(tmp_path: Path) -> None:
    class Sight(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Linear(6, 6)

        def forward(self, *, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    class Seeing(Steps):
        def __init__(self) -> None:
            super().__init__()
            self.sight = Sight()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(self.sight(x=x))

    config = {**WIDE, "modules_to_save": ["sight"]}
    base = Seeing().eval()
    alone = logits(base)
    model, saved = two_on(base, tmp_path, config, config)
    for name in ("one", "two", "one"):
        assert close(logits(model, adapter=name), saved[name].answer)
        assert torch.equal(logits(model, adapter=None), alone)


# -- deleting -------------------------------------------------------------------------------


DELETED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "factors": ({}, {}),
    "whole modules": ({"modules_to_save": ["lm_head"]}, {}),
    "tokens": ({"trainable_token_indices": [5, 6]}, {"trainable_token_indices": [6, 7]}),
}


@pytest.mark.filterwarnings("ignore::adapterdock.loader.adapted.AdapterWarning")
@pytest.mark.parametrize("case", DELETED)
def test_deleting_one_keeps_the_others(case: str, tmp_path: Path) -> None:
    extra, third = DELETED[case]
    base = tiny_llama()
    alone, before = logits(base), traces(base)
    model, saved = two_on(
        base,
        tmp_path,
        {"target_modules": ["q_proj"], **extra},
        {"target_modules": ["q_proj"]},
    )
    last = peft_saves(base, tmp_path / "last", seed=5, target_modules=["v_proj"], **third)
    attach(model, last, "last")
    model.set_adapter(["one", "two"])
    model.delete_adapter("one")  # an active one: the other stays active
    assert model.active_adapters() == ["two"]
    assert close(logits(model), saved["two"].answer)
    assert not any(".one." in name or name.endswith(".one") for name in model.state_dict())
    model.delete_adapter("last")  # one that is not active
    assert model.active_adapters() == ["two"]
    assert close(logits(model), saved["two"].answer)
    model.delete_adapter("two")
    assert model.active_adapters() == [] and list(model.adapters) == []
    assert torch.equal(logits(model), alone)
    assert list(model.state_dict()) == []
    assert same_traces(traces(model.detach()), before)


def test_a_merged_adapter_cannot_be_deleted(tmp_path: Path) -> None:
    model, _ = two_on(Steps().eval(), tmp_path, WIDE, NARROW)
    model.merge_adapter("two")
    merged = logits(model)
    for names in (["one", "two"], "two"):
        with pytest.raises(RoutingError) as caught:
            model.delete_adapter(names)
        assert caught.value.code == "AD756"
    assert list(model.adapters) == ["one", "two"] and model.merged_adapters == ["two"]
    model.delete_adapter("one")
    assert list(model.adapters) == ["two"] and model.merged_adapters == ["two"]
    assert torch.equal(logits(model), merged)
    model.unmerge_adapter()
    model.delete_adapter("two")
    assert list(model.adapters) == []


def test_the_name_of_a_deleted_adapter_is_free(tmp_path: Path) -> None:
    model, saved = two_on(Steps().eval(), tmp_path, WIDE, NARROW)
    both = logits(model, adapter=["one", "two"])
    model.delete_adapter("two")
    with pytest.raises(RoutingError) as caught:
        model.set_adapter(["one", "two"])
    assert caught.value.code == "AD730"
    model.load_adapter(saved["two"].folder, "two")
    assert torch.equal(logits(model, adapter=["one", "two"]), both)


# -- of different methods -------------------------------------------------------------------


METHODS: dict[str, dict[str, Any]] = {
    "LoRA": {},
    "LoHa": {"kind": LoHaConfig, "r": 2},
    "LoKr": {"kind": LoKrConfig, "r": 2},
    "AdaLoRA": {"kind": AdaLoraConfig, **STEPS},
}
PLACES = {
    "the first": ("wide", "wide"),
    "the last": ("narrow", "narrow"),
    "another": ("wide", "narrow"),
    "another, turned": ("narrow", "wide"),
}


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize(
    "methods", list(itertools.combinations_with_replacement(METHODS, 2)), ids="+".join
)
def test_adapters_of_two_methods_act_together(
    methods: tuple[str, str], places: str, tmp_path: Path
) -> None:
    base = Steps().eval()
    alone = logits(base)
    configs = [
        {**METHODS[method], "target_modules": [place]}
        for method, place in zip(methods, PLACES[places], strict=True)
    ]
    model, saved = two_on(base, tmp_path, *configs)
    both = logits(model, adapter=["one", "two"])
    one, two = (saved[name].answer for name in ("one", "two"))
    assert not close(both, one) and not close(both, two)
    assert close(logits(model, adapter=["two", "one"]), both)
    if places == "the last":  # nothing bends behind it: the answers add up
        assert close(both, one + two - alone)
    model.set_adapter(["one", "two"])
    with model.disable_adapter():
        assert torch.equal(logits(model), alone)
    assert torch.equal(logits(model), both)
    assert torch.equal(logits(model.detach()), alone)


def test_four_methods_one_inside_the_other(tmp_path: Path) -> None:
    from peft import PeftMixedModel

    base = Steps().eval()
    alone = logits(base)
    configs: dict[str, dict[str, Any]] = {
        "a": {"target_modules": ["wide", "narrow"]},
        "b": {**METHODS["LoHa"], "target_modules": ["wide"]},
        "c": {**METHODS["AdaLoRA"], "target_modules": ["narrow"]},
        "d": {**METHODS["LoKr"], "target_modules": ["wide", "narrow"]},
    }
    model = AdaptedModel(base)
    for seed, (name, config) in enumerate(configs.items()):
        attach(model, peft_saves(base, tmp_path / name, seed=seed, **config), name)
    oracle = PeftMixedModel.from_pretrained(Steps().eval(), str(tmp_path / "a"), "a")
    for name in ("b", "c", "d"):
        oracle.load_adapter(str(tmp_path / name), name)
    oracle.eval()
    for choice in (["a", "b", "c", "d"], ["b", "d"], ["d", "a"]):
        oracle.set_adapter(choice)
        assert close(logits(model, adapter=choice), logits(oracle, {"x": base.example}))
    assert torch.equal(logits(model, adapter=None), alone)


def test_two_adapters_that_replace_one_module_cannot_be_active_together(tmp_path: Path) -> None:
    one = {**WIDE, "modules_to_save": ["narrow"]}
    two = {**METHODS["LoHa"], **one}
    model, _ = two_on(Steps().eval(), tmp_path, one, two)
    with pytest.raises(RoutingError) as caught:
        model.set_adapter(["one", "two"])
    assert caught.value.code == "AD732"


def test_unloading_drops_a_replaced_module_that_was_not_active(tmp_path: Path) -> None:
    base = Steps().eval()
    alone, weight = logits(base), base.narrow.weight.detach().clone()
    model, saved = two_on(base, tmp_path, {**WIDE, "modules_to_save": ["narrow"]}, WIDE)
    model.set_adapter("two")
    assert close(logits(model), saved["two"].answer)
    plain = Steps().eval()
    merged = AdaptedModel(plain)
    for name in ("one", "two"):
        attach(merged, saved[name], name)  # the last one is active
    assert merged.merge_and_unload() is plain
    assert torch.equal(plain.narrow.weight, weight)
    assert close(logits(plain), saved["two"].answer)
    assert model.detach() is base
    assert torch.equal(logits(base), alone) and type(base.narrow) is torch.nn.Linear


def test_all_wrong_sizes_are_reported(tmp_path: Path) -> None:
    configs = {
        "a": WIDE,
        "b": {**METHODS["LoHa"], **NARROW},
        "c": {**METHODS["LoKr"], "target_modules": ["wide", "narrow"]},
    }
    base = Steps().eval()
    size = sum(p.numel() for p in base.parameters())
    model = AdaptedModel(base)
    for name, config in configs.items():
        saved = peft_saves(base, tmp_path / name, **config)
        attach(model, saved, name)
        tensors = saved.tensors().header.tensors.values()
        numbers = sum(torch.Size(t.shape).numel() for t in tensors)
        assert model.adapters[name].nbytes == 4 * numbers
    everything = sum(p.numel() for p in model.parameters())
    assert everything == size + sum(info.nbytes // 4 for info in model.adapters.values())


def test_a_prompt_of_mixed_methods_generates_with_padding(tmp_path: Path) -> None:
    from peft import PeftMixedModel

    base = tiny_llama()
    one, two = {"target_modules": ["q_proj"]}, {**METHODS["LoHa"], "target_modules": ["v_proj"]}
    model, saved = two_on(base, tmp_path, one, two)
    oracle = PeftMixedModel.from_pretrained(tiny_llama(), str(saved["one"].folder), "one")
    oracle.load_adapter(str(saved["two"].folder), "two")
    oracle.eval()
    oracle.set_adapter(["one", "two"])
    mask = torch.ones_like(ids())
    mask[0, :3] = 0
    settings: dict[str, Any] = {
        "input_ids": ids(),
        "attention_mask": mask,
        "max_new_tokens": 6,
        "do_sample": False,
        "eos_token_id": None,
    }
    found = model.generate(adapter=["one", "two"], **settings)
    assert torch.equal(found, oracle.generate(**settings))
    assert not torch.equal(found, model.generate(adapter=None, **settings))


@pytest.mark.parametrize("kind", [LNTuningConfig, OFTConfig])
def test_biases_and_norms_of_other_methods_count(kind: Any, tmp_path: Path) -> None:
    """OFT's own biases beside a LoRA; whole norms beside a LoRA."""
    base = tiny_bert()
    config: dict[str, Any] = {"kind": kind, "target_modules": ["LayerNorm"]}
    if kind is OFTConfig:
        config = {"kind": kind, "target_modules": ["query"], "oft_block_size": 4}
        config["bias"] = "oft_only"
    model, saved = two_on(base, tmp_path, config, {"target_modules": ["value"]})
    assert close(logits(model, adapter="one"), saved["one"].answer)
    both = logits(model, adapter=["one", "two"])
    assert not close(both, saved["one"].answer) and not close(both, saved["two"].answer)
    assert adapted(tiny_bert(), saved["one"]).findings == ()

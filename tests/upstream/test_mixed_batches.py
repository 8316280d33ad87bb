"""What PEFT's tests of mixed batches prove, proved here:
``docs/reference/upstream.md`` lists them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import RoutingError
from support.moes import tiny_mixtral
from support.near import close, differs
from support.peft_adapters import (
    attach,
    logits,
    peft_loads,
    peft_saves,
    tiny_gpt2,
    tiny_llama,
)
from support.small_nets import ROWS, Attention, Letters, Pictures, Sequence, Steps
from torch.utils._python_dispatch import TorchDispatchMode

NAMES = ["__base__", "one", "two"] * (ROWS // 3)


@dataclass(frozen=True)
class Pair:
    """A model with the adapters ``one`` and ``two``, PEFT with the same two, and a batch."""

    model: AdaptedModel
    peft: Any
    batch: dict[str, torch.Tensor]

    def alone(self, name: str) -> torch.Tensor:
        """PEFT's answer to the whole batch with one adapter, or with none."""
        if name == "__base__":
            with self.peft.disable_adapter():
                return logits(self.peft, self.batch)
        self.peft.set_adapter(name)
        return logits(self.peft, self.batch)


def pair_of(
    base: Any, folder: Path, one: dict[str, Any], two: dict[str, Any], **batch: torch.Tensor
) -> Pair:
    model = AdaptedModel(base)
    for seed, (name, config) in enumerate({"one": one, "two": two}.items(), 1):
        attach(model, peft_saves(base, folder / name, seed=seed, **config), name)
    model.set_adapter(None)
    oracle = peft_loads(base, folder / "one", folder / "two")
    return Pair(model, oracle, batch or {"x": base.example})


def words() -> torch.Tensor:
    return torch.randint(3, 61, (ROWS, 5), generator=torch.Generator().manual_seed(4))


def rows_of(answers: dict[str, torch.Tensor], names: list[str]) -> torch.Tensor:
    return torch.stack([answers[name][row] for row, name in enumerate(names)])


def check(pair: Pair, *, batched_in_peft: bool = True) -> None:
    """Each row is what PEFT answers it with its adapter alone, and PEFT's own mixed batch."""
    answers = {name: pair.alone(name) for name in NAMES[:3]}
    base, one, two = answers.values()
    assert differs(base, one)
    assert differs(base, two)
    assert differs(one, two)
    found = logits(pair.model, pair.batch, adapter_names=NAMES)
    assert close(found, rows_of(answers, NAMES))
    if batched_in_peft:
        theirs = logits(pair.peft, pair.batch, adapter_names=NAMES)
        assert close(found, theirs)


LLAMA = {"target_modules": ["q_proj", "down_proj"]}
CASES: dict[str, tuple[Callable[[], Any], dict[str, Any], dict[str, Any]]] = {
    "two ranks": (Steps, {"target_modules": ["wide"]}, {"target_modules": ["wide"], "r": 9}),
    "other modules": (Steps, {"target_modules": ["wide"]}, {"target_modules": ["narrow"]}),
    "some of the same": (
        Steps,
        {"target_modules": ["wide"]},
        {"target_modules": ["wide", "narrow"]},
    ),
    "whole modules": (
        Steps,
        {"target_modules": ["wide"], "modules_to_save": ["narrow"]},
        {"target_modules": ["wide"], "modules_to_save": ["narrow"]},
    ),
    "embeddings and lines": (
        Letters,
        {"target_modules": ["letters", "window"]},
        {"target_modules": ["letters", "window"], "r": 7},
    ),
    "embeddings, lines and a whole head": (
        Letters,
        {"target_modules": ["letters", "window"], "modules_to_save": ["rate"]},
        {"target_modules": ["letters", "window"], "modules_to_save": ["rate"]},
    ),
    "pictures": (
        Pictures,
        {"target_modules": ["first"]},
        {"target_modules": ["first", "second"], "r": 6},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_mixed_batch_rows_match_peft_single_runs(case: str, tmp_path: Path) -> None:
    make, one, two = CASES[case]
    check(pair_of(make().eval(), tmp_path, one, two))


def test_first_token_scores_match_single_prompts(tmp_path: Path) -> None:
    two = {"target_modules": ["q_proj", "up_proj"], "r": 2}
    pair = pair_of(tiny_llama(), tmp_path, LLAMA, two, input_ids=words())
    check(pair)
    settings = {
        **pair.batch,
        "max_new_tokens": 2,
        "do_sample": False,
        "return_dict_in_generate": True,
        "output_scores": True,
    }
    found = pair.model.generate(adapter_names=NAMES, **settings).scores[0]
    theirs = pair.peft.generate(adapter_names=NAMES, **settings).scores[0]
    assert close(found, theirs)
    single = {n: pair.model.generate(adapter=n, **settings).scores[0] for n in NAMES[:3]}
    assert close(found, rows_of(single, NAMES))


def test_beams_of_mixed_prompts_match_peft(tmp_path: Path) -> None:
    two = {"target_modules": ["q_proj", "up_proj"], "r": 2}
    pair = pair_of(tiny_llama(), tmp_path, LLAMA, two, input_ids=words())
    settings = {**pair.batch, "max_new_tokens": 6, "num_beams": 5, "early_stopping": True}
    settings["eos_token_id"] = None  # else PEFT pads each run to its own longest row
    found = pair.model.generate(adapter_names=NAMES, **settings)
    assert torch.equal(found, pair.peft.generate(adapter_names=NAMES, **settings))
    pair.peft.set_adapter("one")
    alone = pair.peft.generate(**settings)
    assert torch.equal(found[1::3], alone[1::3])
    assert not torch.equal(found[::3], alone[::3])


@pytest.mark.parametrize("length", [5, ROWS])
@pytest.mark.parametrize("rows_first", [True, False])
def test_a_replaced_recurrent_module_cannot_be_in_a_mixed_batch(
    rows_first: bool, length: int, tmp_path: Path
) -> None:
    config = {"target_modules": ["wide"], "modules_to_save": ["memory"]}
    pair = pair_of(Sequence(rows_first).eval(), tmp_path, config, config)
    batch = {"x": torch.randn(ROWS, length, 6)}
    with pytest.raises(RoutingError) as caught:
        logits(pair.model, batch, adapter_names=NAMES)
    assert caught.value.code == "AD771"
    assert close(logits(pair.model, adapter="two"), pair.alone("two"))


def test_attention_without_projection_calls_cannot_be_in_a_mixed_batch(tmp_path: Path) -> None:
    base = Attention().eval()
    saved = peft_saves(base, tmp_path / "it", target_modules=["mix"])
    model = AdaptedModel(base)
    model.load_adapter(saved.folder, "it")
    with pytest.raises(RoutingError, match="AD771"):
        model(base.example, adapter_names=["it", "__base__"] * (len(base.example) // 2))
    assert model(base.example, adapter="it").shape == base(base.example).shape


def test_a_mixed_batch_may_be_trained_on(tmp_path: Path) -> None:
    base = tiny_llama().train()
    model = AdaptedModel(base)
    for seed, name in enumerate(("one", "two")):
        attach(model, peft_saves(base, tmp_path / name, seed=seed, **LLAMA), name, trainable=True)
    batch = {"input_ids": words(), "labels": words()}
    model(**batch, adapter_names=["one", "two"] * 3).loss.backward()
    together = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert any(".one." in n for n in together) and any(".two." in n for n in together)
    model.zero_grad()
    for row, name in enumerate(["one", "two"] * 3):
        single = {key: value[row : row + 1] for key, value in batch.items()}
        (model(**single, adapter=name).loss / ROWS).backward()  # the rows are of one length
    parameters = dict(model.named_parameters())
    for name, gradient in together.items():
        alone = parameters[name].grad
        assert alone is not None and close(gradient, alone)


def test_adapter_names_of_a_call_win_over_disable_adapter(tmp_path: Path) -> None:
    pair = pair_of(
        Steps().eval(), tmp_path, {"target_modules": ["wide"]}, {"target_modules": ["wide"]}
    )
    mixed = logits(pair.model, pair.batch, adapter_names=NAMES)
    with pair.model.disable_adapter():
        assert torch.equal(
            logits(pair.model, pair.batch), logits(pair.model.base_model, pair.batch)
        )
        assert torch.equal(logits(pair.model, pair.batch, adapter_names=NAMES), mixed)
    pair.model.disable_adapters()
    with pytest.raises(RoutingError) as caught:
        logits(pair.model, pair.batch, adapter_names=NAMES)
    assert caught.value.code == "AD733"


def test_adapter_names_are_refused_while_merged(tmp_path: Path) -> None:
    pair = pair_of(
        Steps().eval(), tmp_path, {"target_modules": ["wide"]}, {"target_modules": ["wide"]}
    )
    pair.model.merge_adapter(["one"])
    for names in (["one"] * ROWS, ["two", "one"] * 3, ["two", "__base__"] * 3):
        with pytest.raises(RoutingError) as caught:
            logits(pair.model, pair.batch, adapter_names=names)
        assert caught.value.code == "AD756"
    pair.model.unmerge_adapter()
    check(pair)


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["one"] * 3 + ["nobody"] * 3, {"nobody"}),
        (["one", "nobody", "two"] * 2, {"nobody"}),
        (["nobody", "no-one"] * 3, {"nobody", "no-one"}),
    ],
    ids=["one wrong", "in the middle", "all wrong"],
)
def test_every_unknown_name_is_reported(
    names: list[str], missing: set[str], tmp_path: Path
) -> None:
    pair = pair_of(
        Steps().eval(), tmp_path, {"target_modules": ["wide"]}, {"target_modules": ["wide"]}
    )
    with pytest.raises(RoutingError) as caught:
        logits(pair.model, pair.batch, adapter_names=names)
    assert {f.code for f in caught.value.findings} == {"AD730"}
    assert len(caught.value.findings) == len(missing)
    assert all(any(repr(name) in str(f) for f in caught.value.findings) for name in missing)


@pytest.mark.parametrize("others", [True, False], ids=["beside a LoRA", "alone"])
def test_dora_works_in_mixed_batches(others: bool, tmp_path: Path) -> None:
    dora = {"target_modules": ["wide"], "use_dora": True}
    two = {"target_modules": ["wide"]} if others else {**dora, "r": 2}
    pair = pair_of(Steps().eval(), tmp_path, dora, two)
    check(pair, batched_in_peft=False)
    with pytest.raises(ValueError, match="DoRA"):
        logits(pair.peft, pair.batch, adapter_names=NAMES)


def test_single_tokens_work_in_mixed_batches(tmp_path: Path) -> None:
    tokens = words()
    mine, yours = tokens[1, :2].tolist(), tokens[2, 1:3].tolist()
    one = {"target_modules": ["q_proj"], "trainable_token_indices": sorted({*mine, 9})}
    two = {"target_modules": ["o_proj"], "trainable_token_indices": sorted({*yours, 9})}
    check(pair_of(tiny_llama(), tmp_path, one, two, input_ids=tokens))


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_the_scale_of_an_embedding_is_kept_in_a_mixed_batch(scale: float, tmp_path: Path) -> None:
    class Scaled(Letters):
        def __init__(self) -> None:
            super().__init__()
            plain = self.letters

            class Scale(torch.nn.Embedding):
                def forward(self, input: torch.Tensor) -> torch.Tensor:
                    return super().forward(input) * self.embed_scale

            self.letters = Scale(20, 6)
            self.letters.load_state_dict(plain.state_dict())
            self.letters.embed_scale = torch.tensor(scale)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.letters(x)

    config = {"target_modules": ["letters"]}
    pair = pair_of(Scaled().eval(), tmp_path, config, {**config, "r": 2})
    found = logits(pair.model, pair.batch, adapter_names=NAMES)
    answers = {name: pair.alone(name) for name in NAMES[:3]}
    assert close(found, rows_of(answers, NAMES))
    assert bool((found == 0).all()) is (scale == 0)
    assert (found.abs().max() > 1e3) == (scale == 1e4)


def test_experts_that_see_tokens_of_all_rows_are_refused(tmp_path: Path) -> None:
    experts = {"target_modules": [], "target_parameters": ["mlp.experts.gate_up_proj"]}
    pair = pair_of(
        tiny_mixtral(), tmp_path, experts, LLAMA | {"target_modules": ["q_proj"]}, input_ids=words()
    )
    with pytest.raises(RoutingError) as caught:
        logits(pair.model, pair.batch, adapter_names=NAMES)
    assert caught.value.code == "AD771"
    with pytest.raises(RoutingError):
        pair.model.generate(**pair.batch, adapter_names=NAMES, max_new_tokens=2)
    assert close(logits(pair.model, pair.batch, adapter="one"), pair.alone("one"))


def test_mixed_batches_work_on_a_quantised_base(tmp_path: Path) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    base = tiny_llama()
    two = {"target_modules": ["q_proj", "up_proj"], "r": 2}
    for seed, (name, config) in enumerate({"one": LLAMA, "two": two}.items()):
        peft_saves(base, tmp_path / name, seed=seed, **config)
    quantize_(base.model.layers, Int8WeightOnlyConfig(version=2))
    model = AdaptedModel(base)
    for name in ("one", "two"):
        model.load_adapter(tmp_path / name, name)
    batch = {"input_ids": words()}
    answers = {name: logits(model, batch, adapter=name) for name in NAMES[:3]}
    assert differs(answers["one"], answers["__base__"], 1e-2)
    found = logits(model, batch, adapter_names=NAMES)
    assert close(found, rows_of(answers, NAMES))


@pytest.mark.parametrize("kind", ["RoadConfig", "GloraConfig"])
def test_methods_through_peft_work_in_mixed_batches(kind: str, tmp_path: Path) -> None:
    import peft

    base = tiny_llama()
    options = {"group_size": 2} if kind == "RoadConfig" else {"r": 4}
    saved = peft_saves(
        base, tmp_path / "it", kind=getattr(peft, kind), target_modules=["q_proj"], **options
    )
    model = AdaptedModel(base)
    model.load_adapter(saved.folder, "it")
    names = ["it", "__base__"] * (ROWS // 2)
    found = logits(model, {"input_ids": words()}, adapter_names=names)
    single = {n: logits(model, {"input_ids": words()}, adapter=n) for n in names[:2]}
    assert close(logits(model, adapter="it"), saved.answer)
    assert close(found, rows_of(single, names))


def test_rows_of_activated_loras_find_their_own_invocation(tmp_path: Path) -> None:
    base = tiny_llama()
    model, saved = AdaptedModel(base), []
    for name, tokens in (("one", [5, 6]), ("two", [7])):
        invoked = {"target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
        made = peft_saves(base, tmp_path / name, **invoked, alora_invocation_tokens=tokens)
        attach(model, made, name)
        saved.append(made.folder)
    rows = torch.tensor([[9, 5, 6, 8, 7], [9, 5, 6, 8, 7], [9, 8, 8, 8, 9], [5, 6, 5, 6, 9]])
    names = ["one", "two", "one", "__base__"]
    with torch.no_grad():
        theirs = peft_loads(base, *saved)(input_ids=rows, adapter_names=names).logits
        mine = model(input_ids=rows, adapter_names=names).logits
    assert close(mine, theirs)


class Products(TorchDispatchMode):
    """Counts matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func._schema.name in {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}
        return func(*args, **(kwargs or {}))


def test_a_batch_of_many_adapters_costs_no_more_products_than_one_of_two(tmp_path: Path) -> None:
    base = tiny_gpt2()
    config = {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}
    model = AdaptedModel(base)
    for seed in range(6):
        attach(model, peft_saves(base, tmp_path / f"a{seed}", seed=seed, **config), f"a{seed}")
    counts: list[int] = []
    for names in (["a0", "a1"] * 3, [f"a{n}" for n in range(6)]):
        logits(model, {"input_ids": words()}, adapter_names=names)  # gathered once
        with Products() as products:
            logits(model, {"input_ids": words()}, adapter_names=names)
        counts.append(products.count)
    assert counts[0] == counts[1]

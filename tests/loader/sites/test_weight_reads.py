"""Weights that a model reads outside of the module that holds them: PEFT's logits, live and merged,
while all other code reads the base's."""

from __future__ import annotations

import copy
import pickle
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import AttachError, RoutingError
from peft import PeftModel, TrainableTokensConfig
from support.near import close, differs
from support.peft_adapters import (
    adapted,
    attach,
    logits,
    peft_loads,
    peft_saves,
    same_traces,
    tiny_bert,
    tiny_llama,
    traces,
)
from torch import nn
from torch.utils.checkpoint import CheckpointError, checkpoint

TOKENS = [5, 2, 9]


class Net(nn.Module):
    """An embedding that is the head's weight too, read by the model itself; beside it a block whose
    parts the model calls one by one, and a scale that it only asks for its dtype."""

    def __init__(self, reentrant: bool | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.reentrant = reentrant
        self.letters = nn.Embedding(12, 6)
        self.rate = nn.Linear(6, 6)
        self.block = Block()
        self.norm = nn.LayerNorm(6)
        self.example = torch.tensor([[1, 2, 5, 9], [2, 0, 0, 7], [5, 9, 3, 4]])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.letters(x)
        if self.reentrant is None:
            hidden = self.turned(hidden)
        else:
            hidden = checkpoint(self.turned, hidden, use_reentrant=self.reentrant)
        return F.linear(hidden, self.letters.weight)

    def turned(self, x: torch.Tensor) -> torch.Tensor:
        x = self.rate(x).to(self.norm.weight.dtype)
        gate = torch.tanh(F.linear(x, self.letters.weight).sum(-1, keepdim=True))
        return self.norm(self.block.two(torch.tanh(self.block.one(x)))) * gate


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(6, 6)
        self.two = nn.Linear(6, 6)


def net() -> Net:
    return Net().eval()


def deberta() -> Any:
    from transformers import DebertaConfig, DebertaForMaskedLM

    torch.manual_seed(0)
    config = DebertaConfig(
        vocab_size=61,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=37,
        max_position_embeddings=64,
        initializer_range=0.2,
        legacy=False,
    )
    return DebertaForMaskedLM(config).eval()


def perceiver() -> Any:
    from transformers import PerceiverConfig, PerceiverForMaskedLM

    torch.manual_seed(0)
    config = PerceiverConfig(
        num_latents=4,
        d_latents=8,
        d_model=8,
        num_blocks=1,
        num_self_attends_per_block=1,
        num_self_attention_heads=2,
        num_cross_attention_heads=2,
        qk_channels=8,
        v_channels=8,
        vocab_size=61,
        max_position_embeddings=7,
        initializer_range=0.5,
    )
    model = PerceiverForMaskedLM(config).eval()
    model.example = torch.arange(14).view(2, 7) % 61
    return model


def bart() -> Any:
    from transformers import BartConfig, BartForConditionalGeneration

    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=61,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_position_embeddings=32,
        init_std=0.3,
        decoder_start_token_id=2,
    )
    return BartForConditionalGeneration(config).eval()


ON_LETTERS: dict[str, Any] = {"target_modules": ["rate"], "modules_to_save": ["letters"]}
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "saved embedding": (net, ON_LETTERS),
    "saved embedding and a LoRA on it": (net, {**ON_LETTERS, "bias": "all"}),
    "tokens": (net, {"target_modules": ["rate"], "trainable_token_indices": {"letters": TOKENS}}),
    "a block whose parts are called": (
        net,
        {"target_modules": ["rate"], "modules_to_save": ["block"]},
    ),
    "a module asked for its dtype": (
        net,
        {"target_modules": ["rate"], "modules_to_save": ["norm"]},
    ),
    "DeBERTa": (deberta, {"target_modules": ["in_proj"], "modules_to_save": ["word_embeddings"]}),
    "tokens of DeBERTa": (
        deberta,
        {"target_modules": ["in_proj"], "trainable_token_indices": {"word_embeddings": [5, 7]}},
    ),
    "Perceiver": (
        perceiver,
        {"target_modules": ["query"], "modules_to_save": ["perceiver.input_preprocessor"]},
    ),
    "BART": (bart, {"target_modules": ["q_proj"], "modules_to_save": ["shared"]}),
}


def inputs_of(base: Any) -> dict[str, torch.Tensor]:
    if isinstance(base, Net):
        return {"x": base.example}
    if type(base).__name__.startswith("Perceiver"):
        return {"inputs": base.example}
    return {"input_ids": torch.tensor([[5, 7, 9, 3], [7, 1, 2, 5]])}


@pytest.mark.parametrize("case", CASES)
def test_a_weight_read_elsewhere_is_the_adapters(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, config = CASES[case]
    base = make()
    inputs = inputs_of(base)
    monkeypatch.setattr("support.peft_adapters.inputs_of", inputs_of)
    saved = peft_saves(base, tmp_path / "it", **config)
    alone, before = logits(base, inputs), traces(base)
    assert differs(saved.answer, alone, 1e-2), "the adapter must matter"
    model = adapted(base, saved)
    assert close(logits(model, inputs), saved.answer)
    assert torch.equal(logits(base, inputs), alone)
    assert torch.equal(logits(model, inputs, adapter=None), alone)
    # BART's `shared` is neither called nor read: it does not change the logits
    assert [f.code for f in model.findings] == (["AD716"] if case == "BART" else [])
    model.merge_adapter("it")
    assert close(logits(model, inputs), saved.answer)
    model.unmerge_adapter()
    assert close(logits(model, inputs), saved.answer)
    assert same_traces(traces(model.detach()), before)


def two_on(base: Net, folder: Path, **options: Any) -> AdaptedModel:
    """``one`` has its own letters, ``two`` trained tokens of them, ``three`` a LoRA elsewhere."""
    model = AdaptedModel(base)
    rest: dict[str, Any] = {"target_modules": ["rate"]}
    for seed, (name, config) in enumerate(
        {
            "one": ON_LETTERS,
            "two": {**rest, "trainable_token_indices": {"letters": TOKENS}},
            "three": rest,
        }.items()
    ):
        attach(model, peft_saves(base, folder / name, seed=seed, **config), name, **options)
    return model


def test_rows_cannot_differ_in_a_weight_that_is_read_for_all_rows(tmp_path: Path) -> None:
    model = two_on(net(), tmp_path)
    x = model.base_model.example
    for names in (["one", "two", "one"], ["one", "__base__", "one"], ["two", "three", "two"]):
        with pytest.raises(RoutingError) as caught:
            model(x, adapter_names=names)
        assert [f.code for f in caught.value.findings] == ["AD771"]
        assert "letters" in caught.value.findings[0].message
    alone = [logits(model, {"x": x}, adapter=name) for name in ("three", None)]
    mixed = logits(model, {"x": x}, adapter_names=["three", "__base__", "three"])
    assert close(mixed[[0, 2]], alone[0][[0, 2]])
    assert close(mixed[1], alone[1][1])


def test_rows_can_differ_in_a_weight_whose_dtype_alone_is_read(tmp_path: Path) -> None:
    base = net()
    saved = peft_saves(base, tmp_path / "it", target_modules=["rate"], modules_to_save=["norm"])
    model = adapted(base, saved)
    x = base.example
    mixed = logits(model, {"x": x}, adapter_names=["it", "__base__", "it"])
    assert close(mixed[[0, 2]], saved.answer[[0, 2]])
    assert close(mixed[1], logits(base, {"x": x})[1])


@pytest.mark.parametrize("name", ["one", "two"])
@pytest.mark.parametrize("reentrant", [None, False, True])
def test_gradients_reach_a_weight_through_every_read(
    reentrant: bool | None, name: str, tmp_path: Path
) -> None:
    base = Net(reentrant).eval()
    model = two_on(base, tmp_path, trainable=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle = PeftModel.from_pretrained(
            copy.deepcopy(base), str(tmp_path / name), adapter_name=name, is_trainable=True
        ).eval()
    oracle(base.example).square().mean().backward()
    wanted = {n: p.grad for n, p in oracle.named_parameters() if p.grad is not None}
    if reentrant is not None:  # the model's own checkpointing, which does not carry the routing
        with pytest.raises((RoutingError, CheckpointError)):
            model(base.example, adapter=name).square().mean().backward()
        return
    model(base.example, adapter=name).square().mean().backward()
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    found = {n[n.index("base_model.") :]: grad for n, grad in found.items()}
    assert found.keys() == wanted.keys()
    for key, grad in wanted.items():
        assert close(found[key], grad), key


def test_each_thread_reads_its_own_weight(tmp_path: Path) -> None:
    model = two_on(net(), tmp_path)
    x = model.base_model.example
    names = ["one", "two", "three", None] * 4
    alone = {name: logits(model, {"x": x}, adapter=name) for name in dict.fromkeys(names)}
    base, wrong = logits(model.base_model, {"x": x}), list[Any]()

    def run(name: str | None) -> None:
        for _ in range(10):
            if not torch.equal(logits(model, {"x": x}, adapter=name), alone[name]):
                wrong.append(name)
            if not torch.equal(logits(model.base_model, {"x": x}), base):
                wrong.append("the base")

    threads = [threading.Thread(target=run, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_copies_and_listings_of_the_base_have_its_own_weights(tmp_path: Path) -> None:
    base = net()
    model = two_on(base, tmp_path)
    model.set_adapter("one")
    own = base.letters.weight
    seen: list[bool] = []

    def look(module: nn.Module, args: Any, out: Any) -> None:
        seen.append(base.letters.weight is own)
        seen.append(base.state_dict()["letters.weight"].data_ptr() == own.data_ptr())
        seen.append(dict(base.named_parameters())["letters.weight"] is own)

    base.rate.register_forward_hook(look)
    logits(model, {"x": base.example})
    assert seen == [False, True, True]
    for made in (copy.deepcopy(base), pickle.loads(pickle.dumps(base.letters))):
        assert all(type(vars(m)["_parameters"]) is dict for m in made.modules())


def test_a_weight_set_on_the_base_is_kept_after_detaching(tmp_path: Path) -> None:
    base = net()
    model = two_on(base, tmp_path)
    given = base.letters.weight = nn.Parameter(torch.zeros(12, 6))
    x = base.example
    assert torch.equal(logits(base, {"x": x}), torch.zeros(3, 4, 12))
    for name in ("one", "two", "three"):
        model.delete_adapter(name)
    assert type(vars(base.letters)["_parameters"]) is dict
    assert base.letters.weight is given


def test_trainable_tokens_do_not_change_a_weight_read_elsewhere_as_in_peft(
    tmp_path: Path,
) -> None:
    base = net()
    saved = peft_saves(
        base,
        tmp_path / "it",
        kind=TrainableTokensConfig,
        target_modules=["letters"],
        token_indices=TOKENS,
    )
    model = adapted(base, saved)
    assert close(logits(model), saved.answer)


@pytest.mark.parametrize("reentrant", [False, True])
def test_transformers_checkpointing_reads_the_adapters_weight(
    reentrant: bool, tmp_path: Path
) -> None:
    base = deberta()
    case: dict[str, Any] = {"target_modules": ["in_proj"], "modules_to_save": ["word_embeddings"]}
    saved = peft_saves(base, tmp_path / "it", **case)
    inputs = {"input_ids": torch.tensor([[5, 7, 9, 3]])}
    found: list[dict[str, torch.Tensor]] = []
    for checkpointed in (False, True):
        model = adapted(deberta(), saved, trainable=True)
        if checkpointed:
            how = {"use_reentrant": reentrant}
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)
        model.train()
        for module in model.modules():
            if isinstance(module, nn.Dropout) or hasattr(module, "drop_prob"):
                module.eval()
        model(**inputs).logits.square().mean().backward()
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() and len(found[0]) == 3
    for name, grad in found[0].items():
        assert close(found[1][name], grad), name


def test_a_compiled_base_works_with_a_weight_read_elsewhere(
    tmp_path: Path,
) -> None:
    base = net()
    model = two_on(base, tmp_path)
    for name in ("one", "two"):
        model.delete_adapter(name)
    model.set_adapter("three")
    x = {"x": base.example}
    alone = logits(model, x)
    model.compile(backend="eager")
    assert close(logits(model, x), alone)
    attach(model, peft_saves(net(), tmp_path / "four", **ON_LETTERS), "four")
    with pytest.raises(RoutingError):
        logits(model, x, adapter="four")
    assert close(logits(model, x, adapter="three"), alone)


@pytest.mark.parametrize("kind", ["LoRA", "tokens by themselves"])
def test_an_adapter_of_the_embedding_alone_is_not_merged_if_its_weight_is_read(
    kind: str, tmp_path: Path
) -> None:
    base = deberta()
    config: dict[str, Any] = {"target_modules": ["word_embeddings"]}
    if kind != "LoRA":
        config |= {"kind": TrainableTokensConfig, "token_indices": [5, 7]}
    inputs = {"input_ids": torch.tensor([[5, 7, 9, 3]])}
    saved = peft_saves(base, tmp_path / "it", **config)
    before = traces(base)
    model = adapted(base, saved)
    oracle = peft_loads(base, saved.folder)
    answer = logits(model, inputs)
    assert close(answer, logits(oracle, inputs))
    oracle.merge_adapter()  # differs in PEFT
    assert differs(logits(oracle, inputs), answer, 1e-2)
    with pytest.raises(AttachError) as caught:
        model.merge_adapter("it")
    assert [f.code for f in caught.value.findings] == ["AD388"]
    assert torch.equal(logits(model, inputs), answer)
    assert same_traces(traces(model.detach()), before)


@pytest.mark.parametrize("make", [tiny_llama, tiny_bert])
def test_a_lora_at_an_embedding_that_is_only_called_is_merged(make: Any, tmp_path: Path) -> None:
    base = make()
    targets = ["word_embeddings" if make is tiny_bert else "embed_tokens"]
    saved = peft_saves(base, tmp_path / "it", target_modules=targets)
    model = adapted(base, saved)
    model.merge_adapter("it")
    assert close(logits(model), saved.answer)


def test_sites_of_nested_modules_can_be_removed_in_any_order(tmp_path: Path) -> None:
    rest: dict[str, Any] = {"target_modules": ["rate"]}
    for gone, left in (("outer", "inner"), ("inner", "outer")):
        base = net()
        before, model = traces(base), AdaptedModel(base)
        saved = {
            "outer": peft_saves(base, tmp_path / "outer", **rest, modules_to_save=["block"]),
            "inner": peft_saves(base, tmp_path / "inner", **rest, modules_to_save=["block.one"]),
        }
        for name, adapter in saved.items():
            attach(model, adapter, name)
        for name, adapter in saved.items():
            assert close(logits(model, adapter=name), adapter.answer)
        model.delete_adapter(gone)
        assert close(logits(model, adapter=left), saved[left].answer)
        assert same_traces(traces(model.detach()), before)

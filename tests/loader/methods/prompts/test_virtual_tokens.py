"""Prompt tuning, p-tuning and prefix tuning: PEFT's logits and tokens, and an unchanged base."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel, AdapterWarning
from adapterdock.manifests.findings.errors import AttachError, FitError, RoutingError
from support.near import close, differs
from support.peft_adapters import (
    Saved,
    adapted,
    attach,
    ids,
    inputs_of,
    logits,
    peft_loads,
    peft_saves,
    same_traces,
    tiny_bert,
    tiny_gpt2,
    tiny_llama,
    tiny_t5,
    traces,
)

CASES: dict[str, tuple[Callable[[], Any], str, dict[str, Any]]] = {
    f"{kind}-{name}": (base, kind, {"task_type": task})
    for kind in ("prompt", "p", "prefix")
    for name, base, task in (
        ("llama", tiny_llama, "CAUSAL_LM"),
        ("gpt2", tiny_gpt2, "CAUSAL_LM"),
        ("t5", tiny_t5, "SEQ_2_SEQ_LM"),
        ("bert", tiny_bert, "SEQ_CLS"),
    )
}
GENERATING = [name for name in CASES if not name.endswith("bert")]


def saved(case: str, folder: Path, **more: Any) -> tuple[Any, Saved]:
    from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig

    make, kind, config = CASES[case]
    kinds = {"prompt": PromptTuningConfig, "p": PromptEncoderConfig, "prefix": PrefixTuningConfig}
    base = make()
    config = {"kind": kinds[kind], "num_virtual_tokens": 3, **config, **more}
    return base, peft_saves(base, folder, **config)


def lora(base: Any, folder: Path, **more: Any) -> Saved:
    return peft_saves(base, folder, target_modules=["q_proj", "v_proj"], **more)


def padded(model: Any) -> dict[str, torch.Tensor]:
    """Two rows, the first padded on the left."""
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[0, :2] = 0
    return {**inputs_of(model), "attention_mask": mask}


@pytest.mark.parametrize("case", CASES)
def test_logits_match_peft(case: str, tmp_path: Path) -> None:
    base, adapter = saved(case, tmp_path / "it")
    model = adapted(base, adapter)
    answer = logits(model)
    assert answer.shape == adapter.answer.shape
    assert close(answer, adapter.answer)
    if case != "prompt-bert":
        assert differs(answer[:, -1], logits(base)[:, -1])


@pytest.mark.parametrize("case", CASES)
def test_logits_of_padded_rows_match_peft(case: str, tmp_path: Path) -> None:
    base, adapter = saved(case, tmp_path / "it")
    inputs = padded(base)
    expected = logits(peft_loads(base, adapter.folder), inputs)
    assert close(logits(adapted(base, adapter), inputs), expected)


@pytest.mark.parametrize("case", CASES)
def test_loss_matches_peft(case: str, tmp_path: Path) -> None:
    base, adapter = saved(case, tmp_path / "it")
    labels = torch.tensor([0, 2]) if case.endswith("bert") else ids(length=7)
    inputs = {"input_ids": ids(), "labels": labels}
    oracle = peft_loads(base, adapter.folder)
    with torch.no_grad():
        expected = oracle(**inputs).loss
        assert close(adapted(base, adapter)(**inputs).loss, expected)


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beam": {"num_beams": 3, "num_return_sequences": 2},
    "sampling": {"do_sample": True, "top_k": 20},
    "no cache": {"use_cache": False},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", GENERATING)
def test_generated_tokens_match_peft(case: str, way: str, tmp_path: Path) -> None:
    base, adapter = saved(case, tmp_path / "it")
    inputs = padded(base)
    inputs.pop("decoder_input_ids", None)
    options = {"max_new_tokens": 8, "pad_token_id": 0, "eos_token_id": None, **WAYS[way]}
    if case.startswith("prefix") and way == "no cache":
        options["use_cache"] = True  # PEFT continues with the cache of the prefix and fails
    oracle = peft_loads(base, adapter.folder)
    torch.manual_seed(5)
    expected = oracle.generate(**inputs, **options)
    options |= WAYS[way]
    torch.manual_seed(5)
    assert adapted(base, adapter).generate(**inputs, **options).tolist() == expected.tolist()


def test_token_classifier_computes_its_loss_on_real_tokens_only(tmp_path: Path) -> None:
    """PEFT adds no labels for the virtual tokens and fails."""
    from transformers import BertForTokenClassification

    base = BertForTokenClassification(tiny_bert().config).eval()
    CASES["prompt-tokens"] = (lambda: copy.deepcopy(base), "prompt", {"task_type": "TOKEN_CLS"})
    _, adapter = saved("prompt-tokens", tmp_path / "it")
    model = adapted(base, adapter)
    assert close(logits(model), adapter.answer)
    labels = torch.randint(0, 3, (2, 7), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found = model(input_ids=ids(), labels=labels).loss
    real = logits(model)[:, 3:].flatten(0, 1)
    assert close(found, torch.nn.functional.cross_entropy(real, labels.flatten()))


def test_replaced_modules_work_with_virtual_tokens(tmp_path: Path) -> None:
    base, adapter = saved("prompt-llama", tmp_path / "it", modules_to_save=["lm_head", "norm"])
    model = adapted(base, adapter)
    assert close(logits(model), adapter.answer)


def test_adapter_can_be_chosen_per_call_and_switched(tmp_path: Path) -> None:
    base, prompt = saved("prompt-llama", tmp_path / "prompt")
    _, prefix = saved("prefix-llama", tmp_path / "prefix")
    plain = logits(base)
    model = adapted(base, prompt, "prompt")
    attach(model, prefix, "prefix")
    assert close(logits(model, adapter="prompt"), prompt.answer)
    assert close(logits(model), prefix.answer)
    with model.using("prompt"):
        assert close(logits(model), prompt.answer)
        with model.disable_adapter():
            assert torch.equal(logits(model), plain)
    model.disable_adapters()
    assert torch.equal(logits(model), plain)
    model.enable_adapters()
    model.set_adapter("prompt")
    assert close(logits(model), prompt.answer)
    assert model.active_adapters() == ["prompt"]


def test_base_is_unchanged(tmp_path: Path) -> None:
    base, prompt = saved("prompt-llama", tmp_path / "prompt")
    _, prefix = saved("prefix-llama", tmp_path / "prefix")
    before, plain = traces(base), logits(base)
    keys = list(base.state_dict())
    model = adapted(base, prompt, "prompt")
    attach(model, prefix, "prefix")
    assert torch.equal(logits(model.base_model), plain)
    assert list(base.state_dict()) == keys
    assert set(model.state_dict()) == {
        "prompt_encoder.prompt.embedding.weight",
        "prompt_encoder.prefix.embedding.weight",
    }
    model.delete_adapter("prompt")
    assert close(logits(model, adapter="prefix"), prefix.answer)
    with pytest.raises(RoutingError, match="AD772"):  # caches are still checked
        base(input_ids=ids(), past_key_values=_filled(model, "prefix"))
    model.detach()
    assert same_traces(before, traces(base))


def test_other_adapters_act_together_with_virtual_tokens(tmp_path: Path) -> None:
    """The sum equals the prompt on a model with the merged LoRA."""
    base, prompt = saved("prompt-llama", tmp_path / "prompt")
    tuned = lora(base, tmp_path / "tuned")
    merged = peft_loads(base, tuned.folder).merge_and_unload()
    expected = logits(peft_loads(merged, prompt.folder))
    model = adapted(base, prompt, "prompt")
    attach(model, tuned, "tuned")
    model.define_composition("both", {"prompt": 1.0, "tuned": 1.0})
    assert close(logits(model, adapter="both"), expected)
    assert close(logits(model, adapter=["tuned", "prompt"]), expected)


def test_virtual_tokens_cannot_be_weighted_or_mixed(tmp_path: Path) -> None:
    base, prompt = saved("prompt-llama", tmp_path / "prompt")
    _, prefix = saved("prefix-llama", tmp_path / "prefix")
    tuned = lora(base, tmp_path / "tuned")
    model = adapted(base, prompt, "prompt")
    attach(model, prefix, "prefix")
    attach(model, tuned, "tuned")
    choices: list[Any] = [{"prompt": 0.5}, ["prompt", "prefix"], {"prefix": -1.0, "tuned": 1.0}]
    for choice in choices:
        with pytest.raises(RoutingError, match="AD774"):
            model.set_adapter(choice)
    with pytest.raises(RoutingError, match="AD774"):
        model.define_composition("half", {"prompt": 0.5, "tuned": 1.0})
    for names in (["prompt", "__base__"], ["tuned", "prefix"]):
        with pytest.raises(RoutingError, match="AD774"):
            logits(model, adapter_names=names)
        with pytest.raises(RoutingError, match="AD774"):
            model.generate(ids(), adapter_names=names, max_new_tokens=2)
    rows = logits(model, adapter_names=["prompt", "prompt"])
    assert close(rows, prompt.answer)


@pytest.mark.parametrize("case", ["prompt-llama", "prefix-llama"])
def test_cache_is_valid_only_with_its_virtual_tokens(case: str, tmp_path: Path) -> None:
    base, adapter = saved(case, tmp_path / "it")
    model = adapted(base, adapter)
    tokens = ids(length=9)
    with torch.no_grad():
        first = model(input_ids=tokens[:, :6], use_cache=True)
        cache = copy.deepcopy(first.past_key_values)
        mask = torch.ones(2, 9, dtype=torch.long)
        rest = model(input_ids=tokens[:, 6:], past_key_values=cache, attention_mask=mask).logits
        whole = model(input_ids=tokens).logits
        assert close(rest, whole[:, -3:])
        with pytest.raises(RoutingError, match="AD772"):
            model(input_ids=tokens[:, 6:], past_key_values=first.past_key_values, adapter=None)
        with pytest.raises(RoutingError, match="AD772"):
            base(input_ids=tokens[:, 6:], past_key_values=first.past_key_values)
        plain = base(input_ids=tokens[:, :6], use_cache=True).past_key_values
        with pytest.raises(RoutingError, match="AD772"):
            model(input_ids=tokens[:, 6:], past_key_values=plain)
        with pytest.raises(RoutingError, match="AD775"):  # its length includes the virtual tokens
            longer = torch.ones(2, 12, dtype=torch.long)
            model(
                input_ids=tokens[:, 6:],
                past_key_values=first.past_key_values,
                attention_mask=longer,
            )


def test_ambiguous_inputs_are_refused(tmp_path: Path) -> None:
    base, prompt = saved("prompt-llama", tmp_path / "prompt")
    _, prefix = saved("prefix-llama", tmp_path / "prefix")
    model = adapted(base, prompt, "prompt")
    attach(model, prefix, "prefix")
    square = torch.ones(2, 1, 7, 7)
    positions = torch.arange(7)[None].expand(2, -1)
    for name in ("prompt", "prefix"):
        for inputs in ({"attention_mask": square}, {"token_type_ids": positions}):
            with pytest.raises(RoutingError, match="AD775"):
                model(input_ids=ids(), adapter=name, **inputs)
        for more in ({"cache_implementation": "static"}, {"past_key_values": _filled(model, name)}):
            with pytest.raises(RoutingError, match="AD775"):
                model.generate(ids(), adapter=name, max_new_tokens=2, **more)
    with pytest.raises(RoutingError, match="AD775"):
        model(input_ids=ids(), adapter="prompt", position_ids=positions)
    oracle = peft_loads(base, prefix.folder)  # PEFT increases these
    expected = logits(oracle, {"input_ids": ids(), "position_ids": positions})
    found = logits(model, {"input_ids": ids(), "position_ids": positions}, adapter="prefix")
    assert close(found, expected)


def _filled(model: Any, name: str) -> Any:
    with torch.no_grad():
        return model(input_ids=ids(), adapter=name, use_cache=True).past_key_values


def test_encoder_outputs_without_the_virtual_tokens_are_refused(tmp_path: Path) -> None:
    base, adapter = saved("prompt-t5", tmp_path / "it")
    model = adapted(base, adapter)
    with torch.no_grad():
        states = base.get_encoder()(ids())
        with pytest.raises(RoutingError, match="AD775"):
            model(encoder_outputs=states, decoder_input_ids=ids(length=2))
        with pytest.raises(RoutingError, match="AD775"):
            model.generate(encoder_outputs=states, max_new_tokens=2)


def test_embeddings_can_replace_ids(tmp_path: Path) -> None:
    for case in ("prompt-llama", "prefix-llama", "prompt-t5"):
        base, adapter = saved(case, tmp_path / case)
        inputs = inputs_of(base)
        embedded = base.get_input_embeddings()(inputs.pop("input_ids")).detach()
        found = logits(adapted(base, adapter), {"inputs_embeds": embedded, **inputs})
        assert close(found, adapter.answer)


def test_threads_do_not_share_virtual_tokens(tmp_path: Path) -> None:
    base, prompt = saved("prompt-llama", tmp_path / "prompt")
    _, prefix = saved("prefix-llama", tmp_path / "prefix")
    model = adapted(base, prompt, "prompt")
    attach(model, prefix, "prefix")
    answers = {"prompt": prompt.answer, "prefix": prefix.answer}
    wrong: list[str] = []

    def ask(name: str) -> None:
        for _ in range(5):
            found = logits(model, adapter=name)
            if found.shape != answers[name].shape or differs(found, answers[name]):
                wrong.append(name)

    threads = [threading.Thread(target=ask, args=(name,)) for name in answers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("case", ["prompt-llama", "prefix-llama"])
def test_only_the_virtual_tokens_are_trained(case: str, tmp_path: Path) -> None:
    base, adapter = saved(case, tmp_path / "it")
    model = adapted(base, adapter, trainable=True).train()
    model(input_ids=ids(), labels=ids()).loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert list(gradients) == ["tuners.prompt_encoder.it.embedding.weight"]
    assert bool(gradients["tuners.prompt_encoder.it.embedding.weight"].any())


@pytest.mark.parametrize("case", ["prompt-llama", "prefix-llama"])
def test_virtual_tokens_can_have_another_dtype_than_the_base(case: str, tmp_path: Path) -> None:
    base, adapter = saved(case, tmp_path / "it")
    oracle = logits(peft_loads(base.to(torch.bfloat16), adapter.folder))
    kept = adapted(base, adapter, dtype=torch.float32)
    assert (
        next(iter(kept._host.adapters.by_name["it"].resident.parameters.values())).dtype
        is torch.float32
    )
    assert logits(kept).dtype is torch.bfloat16
    assert torch.equal(logits(kept), oracle)
    narrow = adapted(copy.deepcopy(base), adapter)
    assert (
        next(iter(narrow._host.adapters.by_name["it"].resident.parameters.values())).dtype
        is torch.bfloat16
    )
    assert torch.equal(logits(narrow), oracle)


def test_virtual_tokens_cannot_replace_a_weighted_adapter(tmp_path: Path) -> None:
    base, prompt = saved("prompt-llama", tmp_path / "prompt")
    tuned = lora(base, tmp_path / "tuned")
    model = adapted(base, tuned, "it")
    model.set_adapter({"it": 0.5})
    before = logits(model)
    with pytest.raises(RoutingError, match="AD774"):
        attach(model, prompt, "it", replace=True)
    assert torch.equal(logits(model), before)
    model.set_adapter("it")
    attach(model, prompt, "it", replace=True)
    assert close(logits(model), prompt.answer)


def test_prefix_with_gradient_checkpointing_is_refused(tmp_path: Path) -> None:
    base, adapter = saved("prefix-llama", tmp_path / "it")
    base.gradient_checkpointing_enable()
    model = adapted(base, adapter, trainable=True).train()
    with pytest.raises(RoutingError, match="AD775"):
        model(input_ids=ids(), labels=ids())


def test_running_call_keeps_its_virtual_tokens(tmp_path: Path) -> None:
    from transformers import LogitsProcessorList

    base, adapter = saved("prompt-llama", tmp_path / "it")
    model = adapted(base, adapter)
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    expected = model.generate(ids(), **options)

    def delete(_: Any, scores: torch.Tensor) -> torch.Tensor:
        if "it" in model._host.adapters.by_name:
            with pytest.warns(AdapterWarning, match="default"):
                model.delete_adapter("it")
            with pytest.raises(RoutingError, match="Calls are running on it"):
                model.detach()
        return scores

    found = model.generate(ids(), logits_processor=LogitsProcessorList([delete]), **options)
    assert torch.equal(found, expected)
    assert "forward" not in vars(base)


def test_compiled_models_refuse_virtual_tokens(tmp_path: Path) -> None:
    base, adapter = saved("prompt-llama", tmp_path / "it")
    tuned = lora(base, tmp_path / "tuned")
    model = adapted(base, tuned, "tuned")
    model.compile(backend="eager")
    attach(model, adapter)
    with pytest.raises(RoutingError, match="AD773"):
        logits(model)


def test_manifest_loads_virtual_tokens_and_composes_them(tmp_path: Path) -> None:
    base, _ = saved("prompt-llama", tmp_path / "prompt")
    tuned = lora(base, tmp_path / "tuned")
    manifest: dict[str, Any] = {
        "version": 1,
        "name": "both",
        "base": {},
        "adapters": {n: {"source": str(tmp_path / n)} for n in ("prompt", "tuned")},
        "compositions": {"both": {"of": {"prompt": 1.0, "tuned": 0.5}}},
        "active": "both",
    }
    model = adapterdock.attach(base, manifest)
    assert model.active_weights() == {"prompt": 1.0, "tuned": 0.5}
    answer = logits(model)
    assert torch.equal(answer, logits(model, adapter={"tuned": 0.5, "prompt": 1.0}))
    assert differs(answer, logits(model, adapter="prompt"), 1e-4)
    assert answer.shape != tuned.answer.shape
    manifest["compositions"]["both"]["of"]["prompt"] = 0.5
    model.detach()
    with pytest.raises(RoutingError, match="AD774"):
        adapterdock.attach(base, manifest)


@pytest.mark.parametrize("case", CASES)
def test_folder_saved_by_peft_is_loaded(case: str, tmp_path: Path) -> None:
    base, adapter = saved(case, tmp_path / "it")
    model = AdaptedModel(base)
    model.load_adapter(adapter.folder, "it")
    info = model.adapters["it"]
    assert (info.methods, info.rank) == ((adapter.config["peft_type"],), 0)
    assert close(logits(model, adapter="it"), adapter.answer)


def test_virtual_tokens_of_another_model_are_refused_and_the_model_is_unchanged(
    tmp_path: Path,
) -> None:
    others: dict[str, Any] = {
        "prompt-llama": tiny_llama(hidden_size=32),
        "p-llama": tiny_t5(),
        "prefix-llama": tiny_llama(num_key_value_heads=4),
        "prefix-gpt2": tiny_llama(num_hidden_layers=3),
        "prefix-t5": tiny_llama(),
    }
    for case, other in others.items():
        _, adapter = saved(case, tmp_path / case)
        before = traces(other)
        model = AdaptedModel(other)
        with pytest.raises((FitError, AttachError), match=r"AD385|AD387"):
            model.load_adapter(adapter.folder, "it")
        model.detach()
        assert same_traces(before, traces(other))


def test_virtual_tokens_cannot_be_merged_or_combined(tmp_path: Path) -> None:
    base, adapter = saved("prompt-llama", tmp_path / "it")
    model = adapted(base, adapter)
    name = next(iter(model.adapters))
    before = logits(model)
    with pytest.raises(AttachError) as merging:
        model.merge_adapter()
    assert [f.code for f in merging.value.findings] == ["AD757"]
    with pytest.raises(RoutingError) as composing:
        model.define_composition("made", {name: 1.0}, combine="svd", svd_rank=2)
    assert [f.code for f in composing.value.findings] == ["AD708"]
    assert torch.equal(logits(model), before)
    assert list(model.adapters) == [name]

"""VeLoRA, BD-LoRA and aLoRA match PEFT where PEFT is right, and are refused elsewhere."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import AdapterdockError, AttachError, RoutingError
from peft.tuners.lora.config import BdLoraConfig, VeloraConfig
from support.method_fit import codes, facts_of, retensored, tampered
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
    tiny_gpt2,
    tiny_llama,
    traces,
)

INVOKE = [int(token) for token in ids()[0, 3:5]]
TARGETS = {"target_modules": ["q_proj", "o_proj", "down_proj"]}
BLOCKS = BdLoraConfig(
    target_modules_bd_a=["o_proj", "down_proj"], target_modules_bd_b=["q_proj"], nblocks=2
)
VARIANTS: dict[str, dict[str, Any]] = {
    "velora": {**TARGETS, "velora_config": VeloraConfig(num_groups=3)},
    "bdlora": {**TARGETS, "use_bdlora": BLOCKS},
    "alora": {**TARGETS, "alora_invocation_tokens": INVOKE, "task_type": "CAUSAL_LM"},
}


def saved_as(name: str, folder: Path, base: Any = None, **more: Any) -> Saved:
    return peft_saves(base or tiny_llama(), folder, **{**VARIANTS[name], **more})


def refused(caught: pytest.ExceptionInfo[AdapterdockError]) -> list[str]:
    return [finding.code for finding in caught.value.findings]


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_match_peft_and_the_base_is_unchanged(name: str, tmp_path: Path) -> None:
    base = tiny_llama()
    before, alone = traces(base), logits(base)
    saved = saved_as(name, tmp_path / "it", base)
    assert codes(facts_of(saved.folder), base) == []
    model = adapted(base, saved)
    assert differs(saved.answer, alone, 1e-2)
    assert close(logits(model), saved.answer)
    assert torch.equal(logits(base), alone)
    assert same_traces(traces(model.detach()), before)


def test_blocks_at_conv1d_are_refused_as_in_peft(tmp_path: Path) -> None:
    base = tiny_gpt2()
    config = {"target_modules": ["c_attn"], "fan_in_fan_out": True}
    blocks = BdLoraConfig(target_modules_bd_b=["c_attn"], nblocks=2)
    with pytest.raises(AttributeError):
        peft_saves(base, tmp_path / "theirs", use_bdlora=blocks, **config)
    facts = facts_of(peft_saves(base, tmp_path / "it", **config).folder)
    cut = tampered(facts, use_bdlora={"target_modules_bd_b": ["c_attn"], "nblocks": 2})
    assert "AD371" in codes(cut, base)


def test_modules_without_blocks_are_plain_lora(tmp_path: Path) -> None:
    blocks = BdLoraConfig(target_modules_bd_b=["layers.1"], nblocks=2, match_strict=False)
    base = tiny_llama()
    saved = saved_as("bdlora", tmp_path / "it", base, use_bdlora=blocks)
    assert close(logits(adapted(base, saved)), saved.answer)


@pytest.mark.parametrize("name", ["velora", "bdlora"])
def test_merged_output_matches_the_live_output(name: str, tmp_path: Path) -> None:
    base = tiny_llama()
    saved = saved_as(name, tmp_path / "it", base)
    model = adapted(base, saved)
    before = traces(base)
    model.merge_adapter()
    assert close(logits(base), saved.answer)
    model.unmerge_adapter()
    assert same_traces(traces(base), before)


@pytest.mark.parametrize("name", VARIANTS)
def test_adapter_saved_again_matches_peft(name: str, tmp_path: Path) -> None:
    base = tiny_llama()
    saved = saved_as(name, tmp_path / "it", base)
    model = AdaptedModel(base)
    model.load_adapter(saved.folder, "it")
    model.save_adapter(tmp_path / "again", "it")
    again = logits(peft_loads(base, tmp_path / "again"), inputs_of(base))
    assert close(again, saved.answer)


# -- files and configs -------------------------------------------------------------------------


def test_factors_with_other_blocks_are_refused(tmp_path: Path) -> None:
    base = tiny_llama()
    facts = facts_of(saved_as("bdlora", tmp_path / "it", base).folder)
    plain = tampered(facts, use_bdlora=None)
    assert {"AD343", "AD331"} & set(codes(plain, base)) or "AD336" in codes(plain, base)
    other = {**facts.config["use_bdlora"], "nblocks": 4}
    assert codes(tampered(facts, use_bdlora=other), base)
    assert "AD371" in codes(tampered(facts, use_bdlora={**other, "nblocks": 3}, r=3), base)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"use_bdlora": True}, "AD317"),
        ({"use_bdlora": {"nblocks": "2"}}, "AD313"),
        ({"use_bdlora": {"nblocks": 0}}, "AD313"),
        ({"use_bdlora": {"blocks": 2}}, "AD313"),
        ({"use_bdlora": {"nblocks": 3, "target_modules_bd_a": ["q_proj"]}}, "AD317"),
        ({"velora_config": 5}, "AD313"),
        ({"velora_config": {"num_groups": 3}, "alora_invocation_tokens": [1]}, "AD317"),
        ({"alora_invocation_tokens": "run"}, "AD313"),
        ({"alora_invocation_tokens": [1], "use_dora": True}, "AD317"),
        ({"alora_invocation_tokens": [1], "target_parameters": ["w"]}, "AD317"),
    ],
)
def test_config_that_peft_refuses_is_refused(
    changes: dict[str, Any], code: str, tmp_path: Path
) -> None:
    base = tiny_llama()
    facts = facts_of(peft_saves(base, tmp_path / "it", **TARGETS).folder)
    assert code in codes(tampered(facts, **changes), base)


def test_variant_at_an_embedding_is_refused(tmp_path: Path) -> None:
    base = tiny_llama()
    saved = peft_saves(base, tmp_path / "it", target_modules=["embed_tokens"])
    facts = tampered(facts_of(saved.folder), alora_invocation_tokens=INVOKE)
    assert "AD371" in codes(facts, base)


def test_projection_of_wrong_size_is_refused(tmp_path: Path) -> None:
    base = tiny_llama()
    facts = facts_of(saved_as("velora", tmp_path / "it", base).folder)
    place = "model.layers.0.self_attn.q_proj.lora_velora_embed"
    assert codes(retensored(facts, {place: (7,)}), base) == ["AD343"]
    assert codes(retensored(facts, {place: None}), base) == ["AD331"]


def test_trainable_velora_is_refused(tmp_path: Path) -> None:
    base = tiny_llama()
    saved = saved_as("velora", tmp_path / "it", base)
    with pytest.raises(AttachError, match="VeLoRA") as caught:
        adapted(base, saved, trainable=True)
    assert refused(caught) == ["AD745"]
    config = {**TARGETS, "peft_type": "LORA", "velora_config": {"num_groups": 3}}
    with pytest.raises(AdapterdockError, match="VeLoRA"):
        AdaptedModel(base).add_adapter("new", config)


# -- aLoRA -------------------------------------------------------------------------------------


def batch() -> dict[str, torch.Tensor]:
    """Rows with the invocation at the end, twice, in the middle after padding, and not at all."""
    rows = ids(rows=4, length=9)
    rows[rows == INVOKE[0]] += 1
    for row, places in enumerate(([7], [1, 5], [4])):
        for at in places:
            rows[row, at : at + 2] = torch.tensor(INVOKE)
    mask = torch.ones_like(rows)
    mask[2, :3] = 0
    rows[2, :3] = 0
    return {"input_ids": rows, "attention_mask": mask}


@pytest.fixture
def alora(tmp_path: Path) -> tuple[AdaptedModel, Any]:
    """Our model and PEFT's."""
    base = tiny_llama()
    saved = saved_as("alora", tmp_path / "alora", base)
    return adapted(base, saved, "alora"), peft_loads(base, saved.folder)


def test_each_row_acts_from_its_last_invocation(alora: tuple[AdaptedModel, Any]) -> None:
    ours, theirs = alora
    assert close(logits(ours, batch()), logits(theirs, batch()))
    alone = logits(ours.base_model, batch())
    assert torch.equal(logits(ours, batch())[3], alone[3])
    assert torch.equal(logits(ours, batch())[0, :7], alone[0, :7])
    assert differs(logits(ours, batch())[0, 7:], alone[0, 7:])


@pytest.mark.parametrize("how", [{}, {"num_return_sequences": 2, "do_sample": True}])
def test_generation_matches_peft(alora: tuple[AdaptedModel, Any], how: dict[str, Any]) -> None:
    ours, theirs = alora
    answers = []
    for model in (ours, theirs):
        torch.manual_seed(3)
        if how and model is theirs:
            continue  # PEFT has one offset for two rows of a prompt
        answers.append(model.generate(**batch(), max_new_tokens=6, min_new_tokens=6, **how))
    if not how:
        assert torch.equal(*answers)
    else:
        assert answers[0].shape[0] == 8


def test_generation_without_a_cache_matches_generation_with_one(
    alora: tuple[AdaptedModel, Any],
) -> None:
    """PEFT counts from the end of the longer input, and skips the invocation's first tokens."""
    ours, _ = alora
    wanted = ours.generate(**batch(), max_new_tokens=6, min_new_tokens=6)
    assert torch.equal(
        ours.generate(**batch(), max_new_tokens=6, min_new_tokens=6, use_cache=False), wanted
    )


@pytest.mark.parametrize("how", [{"num_beams": 3}, {"prompt_lookup_num_tokens": 3}])
def test_beams_and_prompt_lookup_match_plain_generation(
    alora: tuple[AdaptedModel, Any], how: dict[str, Any]
) -> None:
    ours, _ = alora
    rows = {name: value[:1] for name, value in batch().items()}
    fast = ours.generate(**rows, max_new_tokens=6, min_new_tokens=6, **how)
    slow = ours.generate(
        **rows,
        max_new_tokens=6,
        min_new_tokens=6,
        **({} if "prompt_lookup_num_tokens" in how else {**how, "use_cache": False}),
    )
    assert torch.equal(fast, slow)


def test_separate_steps_match_one_call(alora: tuple[AdaptedModel, Any]) -> None:
    ours, _ = alora
    rows = batch()["input_ids"]
    whole = logits(ours, {"input_ids": rows})
    with torch.no_grad():
        first = ours(input_ids=rows[:, :8], use_cache=True)
        last = ours(input_ids=rows[:, 8:], past_key_values=first.past_key_values)
    # the first row's invocation is split: a step sees only its own tokens
    assert close(last.logits[1:, 0], whole[1:, 8])


def test_cache_of_the_base_is_shared_up_to_the_invocation(alora: tuple[AdaptedModel, Any]) -> None:
    ours, theirs = alora
    rows = batch()["input_ids"][:2]
    rows[1] = rows[0]
    whole = logits(theirs, {"input_ids": rows})
    with torch.no_grad():
        cache = ours.base_model(input_ids=rows[:, :7], use_cache=True).past_key_values
        kept = copy.deepcopy(cache)
        rest = ours(input_ids=rows[:, 7:], past_key_values=cache)
        assert close(rest.logits, whole[:, 7:])
        made = ours.generate(
            input_ids=rows, past_key_values=kept, max_new_tokens=4, min_new_tokens=4
        )
    assert torch.equal(made, theirs.generate(input_ids=rows, max_new_tokens=4, min_new_tokens=4))
    with pytest.raises(RoutingError) as caught:  # the cache after the invocation is not the base's
        ours(input_ids=rows[:, 8:], past_key_values=cache, adapter=None)
    assert refused(caught) == ["AD772"]


def test_cache_of_the_base_beyond_the_invocation_is_refused(
    alora: tuple[AdaptedModel, Any],
) -> None:
    ours, _ = alora
    rows = batch()["input_ids"][:2]
    with torch.no_grad():
        cache = ours.base_model(input_ids=rows[:, :8], use_cache=True).past_key_values
        with pytest.raises(RoutingError, match="AD368"):
            ours.generate(input_ids=rows, past_key_values=cache, max_new_tokens=2)


def test_call_without_token_ids_is_refused(alora: tuple[AdaptedModel, Any]) -> None:
    ours, _ = alora
    embedded = ours.base_model.get_input_embeddings()(batch()["input_ids"])
    for call in (ours, ours.generate):
        with pytest.raises(RoutingError, match="AD368"):
            call(inputs_embeds=embedded)
    with torch.no_grad():
        assert ours(inputs_embeds=embedded, adapter=None).logits is not None


def test_mixed_batch_rows_match_peft(alora: tuple[AdaptedModel, Any], tmp_path: Path) -> None:
    ours, theirs = alora
    plain = peft_saves(ours.base_model, tmp_path / "plain", **TARGETS)
    other = saved_as(
        "alora", tmp_path / "other", ours.base_model, alora_invocation_tokens=[INVOKE[1]], seed=8
    )
    for name, saved in (("plain", plain), ("other", other)):
        attach(ours, saved, name)
        theirs.load_adapter(str(saved.folder), adapter_name=name)
    names = ["alora", "plain", "other", "__base__"]
    with torch.no_grad():
        mine = ours(**batch(), adapter_names=names).logits
        assert close(mine, theirs(**batch(), adapter_names=names).logits)
        made = ours.generate(**batch(), adapter_names=names, max_new_tokens=5, min_new_tokens=5)
        theirs_made = theirs.generate(
            **batch(), adapter_names=names, max_new_tokens=5, min_new_tokens=5
        )
    assert torch.equal(made, theirs_made)


def test_sum_with_another_adapter_acts_from_the_invocation(
    alora: tuple[AdaptedModel, Any], tmp_path: Path
) -> None:
    ours, _ = alora
    attach(ours, peft_saves(ours.base_model, tmp_path / "plain", **TARGETS), "plain")
    rows = batch()
    both = logits(ours, rows, adapter=["alora", "plain"])
    assert close(both[3], logits(ours, rows, adapter="plain")[3])
    assert differs(both[0, 8], logits(ours, rows, adapter="plain")[0, 8])


def test_merging_an_alora_is_refused_with_a_reason(alora: tuple[AdaptedModel, Any]) -> None:
    ours, _ = alora
    with pytest.raises(AttachError, match="some tokens only") as caught:
        ours.merge_adapter()
    assert set(refused(caught)) == {"AD757"}


def test_gradients_of_an_alora_match_peft(tmp_path: Path) -> None:
    base = tiny_llama()
    saved = saved_as("alora", tmp_path / "it", base)
    ours = adapted(base, saved, trainable=True)
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = PeftModel.from_pretrained(
            copy.deepcopy(base), str(saved.folder), is_trainable=True
        )
    grads = []
    for model in (ours, theirs):
        model.train()
        model(**batch(), labels=batch()["input_ids"]).loss.backward()
        grads.append(
            {
                n.replace(".it.", ".").replace(".default.", "."): p.grad
                for n, p in model.named_parameters()
                if p.grad is not None
            }
        )
    mine, yours = grads
    lora = {n: g for n, g in yours.items() if "lora_" in n}
    assert len(lora) == 12
    for (_, one), (_, other) in zip(
        sorted((n.split("layers")[1], g) for n, g in mine.items()),
        sorted((n.split("layers")[1], g) for n, g in lora.items()),
        strict=True,
    ):
        assert close(one, other)


def test_gradient_checkpointing_keeps_the_invocation(tmp_path: Path) -> None:
    base = tiny_llama()
    saved = saved_as("alora", tmp_path / "it", base)
    grads = []
    for checkpointed in (False, True):
        model = adapted(tiny_llama(), saved, trainable=True)
        model.train()
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model(**batch(), labels=batch()["input_ids"], use_cache=False).loss.backward()
        grads.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    once, again = grads
    assert once.keys() == again.keys() and len(once) == 12
    assert all(close(again[name], value) for name, value in once.items())


def test_alora_with_virtual_tokens_is_refused(
    alora: tuple[AdaptedModel, Any], tmp_path: Path
) -> None:
    from peft import PromptTuningConfig

    ours, _ = alora
    kind = {"kind": PromptTuningConfig, "task_type": "CAUSAL_LM", "num_virtual_tokens": 3}
    attach(ours, peft_saves(ours.base_model, tmp_path / "tokens", **kind), "tokens")
    for call in (ours, ours.generate):
        with pytest.raises(RoutingError, match="virtual tokens"):
            call(**batch(), adapter=["alora", "tokens"])

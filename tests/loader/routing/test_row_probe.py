"""Which modules see the rows of a batch: shown by the base itself, never guessed from a size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as tf
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.routing.row_probe import enter_rows, probe_sites
from adapterdock.manifests.findings.errors import RoutingError
from adapterdock.registry.files.facts import AdapterPlan, SitePlan
from support.attach import attach_adapter
from support.mixed_rows import alone, answer, dress
from support.moes import tiny_mixtral, tiny_qwen_moe
from support.near import close, differs
from support.peft_adapters import ids, tensors_of, tiny_bert, tiny_gpt2, tiny_llama, tiny_t5
from support.tiny_bases import fresh
from torch import nn

ONE_EACH: list[str | None] = ["it", None, "it", None]


def factors_at(model: AdaptedModel, *modules: str, name: str = "it") -> AdaptedModel:
    """LoRA at modules of 8 features."""
    torch.manual_seed(1)
    sites, tensors = [], {}
    for module in modules:
        sites.append(
            SitePlan(module, "LORA", {"A": f"{module}.a", "B": f"{module}.b"}, 2, 4.0, 2.0)
        )
        tensors |= {f"{module}.a": torch.randn(2, 8), f"{module}.b": torch.randn(8, 2)}
    attach_adapter(model, name, AdapterPlan(tuple(sites)), tensors_of(tensors))
    return model


def refused(model: AdaptedModel, names: list[str | None], **inputs: Any) -> str:
    with pytest.raises(RoutingError) as caught, torch.no_grad():
        model(**inputs, adapter_names=names)
    assert caught.value.code == "AD771"
    return str(caught.value)


def equal_to_single_runs(model: AdaptedModel, names: list[str | None], **inputs: Any) -> None:
    with torch.no_grad():
        together = answer(model(**inputs, adapter_names=names))
        single = alone(model, inputs, names)
        apart = answer(model.base_model(**inputs))
    assert close(together, single)
    changed = [n for n, name in enumerate(names) if name]
    assert differs(single[changed], apart[changed], 1e-4)


class TokensFirst(nn.Module):
    """(tokens, rows, features) inside, as in XLNet or torch's own transformer layers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)
        self.outer = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turned = self.inner(x.transpose(0, 1).contiguous())
        return self.outer(turned.transpose(0, 1))


def test_as_many_tokens_as_rows_are_not_rows() -> None:
    model = factors_at(AdaptedModel(TokensFirst().eval()), "inner", name="turned")
    factors_at(model, "outer")
    for tokens in (4, 3, 1):
        x = torch.randn(4, tokens, 8)
        assert "inner" in refused(model, ["turned", None, None, "it"], x=x)
        equal_to_single_runs(model, ONE_EACH, x=x)


def test_three_tokens_of_three_rows_are_distinguished_by_their_values() -> None:
    model = factors_at(AdaptedModel(TokensFirst().eval()), "inner")
    refused(model, ["it", None, None], x=torch.randn(3, 3, 8))


class Windows(nn.Module):
    """Cuts each row into windows of two tokens, as Swin does, and mixes them by a head that is
    outside of any numbered layer."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.inside = nn.Linear(8, 8)
        self.flat = nn.Linear(8, 8)
        self.tokens = tokens

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cut = self.inside(x.reshape(-1, self.tokens, 8))
        return self.flat(cut.reshape(-1, 8)).view(x.shape)


def test_windows_and_flattened_tokens_are_not_rows() -> None:
    model = factors_at(AdaptedModel(Windows(2).eval()), "inside", name="cut")
    factors_at(model, "flat", name="flat")
    for name in ("cut", "flat"):
        refused(model, [name, None], x=torch.randn(2, 4, 8))
        refused(model, [name, None, None, None], x=torch.randn(4, 2, 8))


class Subset(nn.Module):
    """Looks at some of the tokens alone: as many as there are rows, when the sign is against it."""

    def __init__(self) -> None:
        super().__init__()
        self.some = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out, chosen = x.clone(), x[..., 0] > 0
        out[chosen] = self.some(x[chosen])
        return out


def test_as_many_chosen_tokens_as_rows_are_not_a_batch() -> None:
    model = factors_at(AdaptedModel(Subset().eval()), "some")
    x = torch.randn(2, 3, 8)
    x[..., 0] = -1
    x[0, :2, 0] = 1  # two tokens of the first row, none of the second
    refused(model, ["it", None], x=x)


def test_t5_has_rows_at_its_linears_and_none_at_its_relative_bias(tmp_path: Path) -> None:
    model = AdaptedModel(tiny_t5())
    dress(model, tmp_path, "it", None, {"target_modules": ["q", "wo"]})
    dress(model, tmp_path, "bias", None, {"target_modules": ["relative_attention_bias"]})
    inputs = {"input_ids": ids(4, 4), "decoder_input_ids": ids(4, 4) + 1}
    equal_to_single_runs(model, ONE_EACH, **inputs)
    assert "relative_attention_bias" in refused(model, ["bias", None, None, "it"], **inputs)


@torch.no_grad()
def test_encoders_are_known_before_generate_runs_them(tmp_path: Path) -> None:
    model = AdaptedModel(tiny_t5())
    dress(model, tmp_path, "it", None, {"target_modules": ["q", "wo"], "use_dora": True})
    dress(
        model, tmp_path, "ia3", peft.IA3Config,
        {"target_modules": ["k", "wo"], "feedforward_modules": ["wo"]},
    )  # fmt: skip
    names: list[str | None] = ["it", None, "ia3"]
    for beams in (1, 3):
        settings = {"max_new_tokens": 5, "min_new_tokens": 5, "num_beams": beams}
        together = model.generate(input_ids=ids(3, 3), adapter_names=names, **settings)
        rows = [
            model.generate(input_ids=ids(3, 3)[at : at + 1], adapter=name, **settings)
            for at, name in enumerate(names)
        ]
        assert torch.equal(together, torch.cat(rows))


@torch.no_grad()
def test_speech_has_rows_from_its_first_convolution_on(tmp_path: Path) -> None:
    base = fresh("whisper")
    model = AdaptedModel(base)
    dress_of = {"target_modules": ["conv1", "q_proj", "fc2"]}
    saved = _saved_for(base, tmp_path, dress_of, {"input_features": torch.randn(2, 8, 40)})
    attach_adapter(model, "it", saved.plan(base), saved.tensors())
    features = torch.randn(3, 8, 40)
    names: list[str | None] = ["it", None, "it"]
    equal_to_single_runs(model, names, input_features=features, decoder_input_ids=ids(3, 3))
    again = AdaptedModel(model.detach())
    attach_adapter(again, "it", saved.plan(base), saved.tensors())
    settings = {"max_new_tokens": 4, "min_new_tokens": 4, "num_beams": 2}
    together = again.generate(features, adapter_names=names, **settings)
    for row, name in enumerate(names):
        single = again.generate(features[row : row + 1], adapter=name, **settings)
        assert torch.equal(together[row], single[0])


def _saved_for(base: Any, folder: Path, config: dict[str, Any], inputs: dict[str, Any]) -> Any:
    """What PEFT saves for a base of other inputs than the usual ones."""
    from support.peft_adapters import Saved, randomise

    trained = peft.get_peft_model(base, peft.LoraConfig(r=4, **config))
    randomise(trained)
    trained.save_pretrained(str(folder))
    trained.unload()
    return Saved(folder, torch.empty(0))


def test_a_pooled_token_is_a_row_and_a_numbered_one_may_be_an_experts(tmp_path: Path) -> None:
    model = AdaptedModel(tiny_bert())
    dress(model, tmp_path, "it", None, {"target_modules": ["pooler.dense", "query"]})
    equal_to_single_runs(model, ONE_EACH, input_ids=ids(4, 4))


def test_positions_of_no_row_are_refused(tmp_path: Path) -> None:
    model = AdaptedModel(tiny_gpt2())
    dress(model, tmp_path, "it", None, {"target_modules": ["wpe"]})
    assert "wpe" in refused(model, ONE_EACH, input_ids=ids(4, 4))


@pytest.mark.parametrize("make", [tiny_mixtral, tiny_qwen_moe])
def test_experts_have_no_rows_and_attention_beside_them_has(
    make: Callable[[], Any], tmp_path: Path
) -> None:
    model = AdaptedModel(make())
    fused = {"target_parameters": ["mlp.experts.gate_up_proj"], "target_modules": []}
    dress(model, tmp_path, "experts", None, fused)
    dress(model, tmp_path, "it", None, {"target_modules": ["q_proj", "lm_head"]})
    for length in (1, 2, 4, 8):
        refused(model, ["experts", None, None, "it"], input_ids=ids(4, length))
        equal_to_single_runs(model, ONE_EACH, input_ids=ids(4, length))


class Experts(nn.Module):
    """A mixture as transformers wrote it before it fused them: each expert's tokens by slot."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(8, 3)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.reshape(-1, 8)
        chosen = self.router(flat).topk(2).indices
        out = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            tokens = torch.where((chosen == number).T)[1]
            out.index_add_(0, tokens, expert(flat[tokens]))
        return out.view(x.shape)


def test_an_expert_that_sees_every_row_in_another_order_is_refused() -> None:
    torch.manual_seed(0)
    model = factors_at(AdaptedModel(Experts().eval()), "experts.0")
    for tokens in (1, 3):
        refused(model, ["it", None, None], x=torch.randn(3, tokens, 8))


def test_vision_models_have_rows_where_they_keep_them(tmp_path: Path) -> None:
    config = tf.SwinConfig(
        image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4,
        num_labels=3,
    )  # fmt: skip
    torch.manual_seed(0)
    swin = tf.SwinForImageClassification(config).eval()
    for parameter in swin.parameters():
        parameter.data.normal_(0, 0.3)
    model = AdaptedModel(swin)
    for name, target in (("windows", "q_proj"), ("whole", "classifier")):
        saved = _saved_for(swin, tmp_path / name, {"target_modules": [target]}, {})
        attach_adapter(model, name, saved.plan(swin), saved.tensors())
    images = torch.randn(4, 3, 16, 16)
    equal_to_single_runs(model, ["whole", None, "whole", None], pixel_values=images)
    refused(model, ["windows", None, None, None], pixel_values=images)

    vit = fresh("vit")
    model = AdaptedModel(vit)
    saved = _saved_for(
        vit, tmp_path / "vit", {"target_modules": ["q_proj", "projection", "classifier"]}, {}
    )
    attach_adapter(model, "it", saved.plan(vit), saved.tensors())
    equal_to_single_runs(model, ONE_EACH, pixel_values=torch.randn(4, 3, 16, 16))


@pytest.mark.parametrize("kind", ["longformer", "xlnet"])
def test_models_that_put_tokens_first_are_refused(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    if kind == "longformer":
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = tf.LongformerConfig(
            **sizes, vocab_size=61, intermediate_size=16, attention_window=4,
            max_position_embeddings=64, pad_token_id=1,
        )  # fmt: skip
        base: Any = tf.LongformerForMaskedLM(config).eval()
        turned, kept = "query", "output.dense"
    else:
        config = tf.XLNetConfig(vocab_size=61, d_model=16, n_layer=1, n_head=2, d_inner=16)
        base = tf.XLNetLMHeadModel(config).eval()
        turned, kept = "layer_1", "lm_loss"
    model = AdaptedModel(base)
    dress(model, tmp_path, "turned", None, {"target_modules": [turned]})
    dress(model, tmp_path, "it", None, {"target_modules": [kept], "r": 2})
    assert turned in refused(model, ["turned", None, None, None], input_ids=ids(4, 4))
    equal_to_single_runs(model, ONE_EACH, input_ids=ids(4, 4))


def test_the_base_is_probed_once_and_left_as_it_was(tmp_path: Path) -> None:
    base = tiny_llama(attention_dropout=0.3)
    model = AdaptedModel(base)
    for name in ("it", "other"):
        dress(model, tmp_path, name, None, {"target_modules": ["q_proj"]})
    runs: list[bool] = []
    handle = base.model.layers[0].register_forward_hook(lambda m, *_: runs.append(m.training))
    model.train()
    state = torch.random.get_rng_state()
    sites = {"model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"}
    adapters = model._host.adapters
    layout, owner = adapters.gathered.layout, adapters.attachments.owner
    assert probe_sites(layout, owner, base, sites, (), {}, 2)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(module.training for module in base.modules())
    for length in (4, 5):
        model(input_ids=ids(2, length), adapter_names=["it", None])
    model(input_ids=ids(2), adapter_names=["it", "other"])
    handle.remove()
    assert runs == [False, True, True, True]


class Picky(nn.Module):
    """Takes four rows and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) not in (1, 4):
            raise ValueError("four rows, please")
        return self.inner(x)


def test_a_base_that_cannot_be_probed_has_no_rows() -> None:
    model = factors_at(AdaptedModel(Picky().eval()), "inner")
    text = refused(model, ONE_EACH, x=torch.randn(4, 3, 8))
    assert "four rows, please" in text


def test_text_of_a_model_with_images_has_rows_and_its_images_have_none(tmp_path: Path) -> None:
    base = fresh("gemma3")
    model = AdaptedModel(base)
    for name, target in (
        ("it", r".*language_model.*q_proj"),
        ("tower", r".*vision_tower.*q_proj"),
    ):
        saved = _saved_for(base, tmp_path / name, {"target_modules": target}, {})
        attach_adapter(model, name, saved.plan(base), saved.tensors())
    text = torch.full((2, 6), 60)
    text[:, 4:] = torch.tensor([[5, 6], [7, 8]])
    images = torch.randn(2, 3, 16, 16)
    inputs = {"input_ids": text, "pixel_values": images, "token_type_ids": (text == 60).long()}
    equal_to_single_runs(model, ["it", None], **inputs)
    refused(model, ["tower", None], **inputs)


class Both(nn.Module):
    """An encoder's layer of all tokens in one row, beside beams."""

    def __init__(self) -> None:
        super().__init__()
        self.config = tf.PretrainedConfig()
        self.flat = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.flat(x.reshape(1, -1, 8).transpose(0, 1)).view(x.shape)


def test_beams_do_not_make_tokens_fit() -> None:
    from adapterdock.loader.routing.rows import GatheredCache, Rows

    model = factors_at(AdaptedModel(Both().eval()), "flat")
    rows = Rows(
        (model._host.choice.routing("it").terms, ()),
        (1, 3),
        GatheredCache(),
    )
    x = torch.randn(2, 3, 8)
    owner = model._host.adapters.attachments.owner
    assert enter_rows(rows, owner, model.base_model, (x,), {}) == 1
    with pytest.raises(RoutingError):  # six tokens are two rows of three beams, by their number
        rows.check_site("flat", model.base_model.flat, x.reshape(6, 1, 8), 1)

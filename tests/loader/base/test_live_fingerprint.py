"""Fingerprints of live models equal those of their files, and other models are refused."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import transformers as tf
from adapterdock.loader.base.live_fingerprint import check_model, fingerprint_of_model
from adapterdock.manifests.findings.finding import Finding
from adapterdock.registry.base.fingerprint import Measured, compare, fingerprint_of
from support.tiny_bases import MAKERS, base_facts_of, fresh, reader_of, tiny
from support.tiny_models import tiny_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """``saved(kind)``: the folder of a tiny model, written once."""
    root = tmp_path_factory.mktemp("bases")

    def folder(kind: str) -> Path:
        path = root / kind.replace(" ", "-")
        if not path.exists():
            tiny(kind).save_pretrained(path)
        return path

    yield folder


def measured(folder: Path) -> Measured:
    return fingerprint_of(base_facts_of(folder), reader_of(folder))


def codes_of(findings: list[Finding]) -> list[str]:
    return [finding.code for finding in findings]


def load(kind: str, folder: Path, **how: Any) -> Any:
    return type(tiny(kind)).from_pretrained(folder, **how).eval()


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_files_and_live_model_have_the_same_fingerprint(kind: str, saved: Any) -> None:
    files = measured(saved(kind))
    made = fingerprint_of_model(tiny(kind))
    loaded = fingerprint_of_model(load(kind, saved(kind)))
    assert made.fingerprint == files.fingerprint
    assert loaded.fingerprint == files.fingerprint
    assert files.samples is not None and files.fingerprint.weights is not None
    assert loaded.samples == made.samples == files.samples


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_loading_in_bfloat16_or_float16_is_accepted(kind: str, saved: Any) -> None:
    files = measured(saved(kind))
    for dtype in (torch.bfloat16, torch.float16):
        model = load(kind, saved(kind), dtype=dtype)
        assert check_model(model, files.fingerprint) == []
        assert check_model(model, files.fingerprint, files.samples) == []


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_other_weights_of_the_same_shape_are_refused_by_name(kind: str, saved: Any) -> None:
    files = measured(saved(kind))
    other = fresh(kind, seed=1)
    assert "AD407" in codes_of(check_model(other, files.fingerprint))
    findings = check_model(other, files.fingerprint, files.samples)
    assert findings[0].code == "AD407" and ".weight" in findings[0].message


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_copy_saved_in_a_narrower_dtype_is_the_same_base(
    dtype: torch.dtype, saved: Any, tmp_path: Path
) -> None:
    wide = measured(saved("llama"))
    load("llama", saved("llama"), dtype=dtype).save_pretrained(tmp_path)
    narrow = measured(tmp_path)
    assert compare(wide.fingerprint, narrow) == []
    assert compare(wide.fingerprint, narrow, samples=wide.samples) == []
    again = load("llama", tmp_path, dtype=torch.float32)  # widened: still what the copy holds
    assert check_model(again, wide.fingerprint) == []
    assert check_model(again, wide.fingerprint, wide.samples) == []
    assert check_model(again, narrow.fingerprint) == []


def test_float16_rounded_to_bfloat16_is_refused(saved: Any, tmp_path: Path) -> None:
    wide = measured(saved("llama"))
    load("llama", saved("llama"), dtype=torch.float16).save_pretrained(tmp_path)
    twice = load("llama", tmp_path, dtype=torch.bfloat16)
    assert "AD407" in codes_of(check_model(twice, wide.fingerprint))


def test_sharded_files_have_the_fingerprint_of_one_file(saved: Any, tmp_path: Path) -> None:
    tiny("mixtral").save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert measured(tmp_path) == measured(saved("mixtral"))


def test_one_base_with_different_heads_has_one_backbone() -> None:
    kinds = ("bert", "bert masked", "bert classifier")
    found = [fingerprint_of_model(tiny(kind)).fingerprint for kind in kinds]
    assert len({f.structure for f in found}) == 1 and len({f.config for f in found}) == 1
    assert len({f.heads for f in found}) == 3


def test_a_backbone_loaded_from_a_model_with_a_head_is_the_same_base(saved: Any) -> None:
    files = measured(saved("bert masked"))
    for cls in (tf.BertModel, tf.BertForTokenClassification, tf.BertLMHeadModel):
        model = cls.from_pretrained(saved("bert masked"))
        assert codes_of(check_model(model, files.fingerprint)) == ["AD402"]
        assert codes_of(check_model(model, files.fingerprint, files.samples)) == ["AD402"]
    llama = tf.LlamaModel.from_pretrained(saved("llama"))
    assert codes_of(check_model(llama, measured(saved("llama")).fingerprint)) == ["AD402"]


def test_a_randomly_initialised_head_is_refused(saved: Any, tmp_path: Path) -> None:
    tiny("llama").model.save_pretrained(tmp_path)
    headless = tf.LlamaForCausalLM.from_pretrained(tmp_path)
    assert codes_of(check_model(headless, measured(saved("llama")).fingerprint)) == ["AD408"]


def test_another_rope_theta_is_refused(saved: Any) -> None:
    files = measured(saved("llama"))
    config = tf.LlamaConfig.from_pretrained(saved("llama"))
    config.rope_parameters = {**config.rope_parameters, "rope_theta": 999999.0}
    model = tf.LlamaForCausalLM.from_pretrained(saved("llama"), config=config)
    assert codes_of(check_model(model, files.fingerprint, files.samples)) == ["AD406"]


def test_settings_that_people_change_on_live_models_are_accepted(saved: Any) -> None:
    model = load("llama", saved("llama"), attn_implementation="eager")
    model.config.pad_token_id = model.config.eos_token_id
    model.config.use_cache = False
    model.config.attention_dropout = 0.1
    model.config.name_or_path = "somewhere/else"
    model.gradient_checkpointing_enable()
    model.requires_grad_(False)
    assert check_model(model.train(), measured(saved("llama")).fingerprint) == []


def test_mixed_bfloat16_and_float16_is_unchecked_and_decided_by_samples(saved: Any) -> None:
    files = measured(saved("llama"))
    model = load("llama", saved("llama"), dtype=torch.bfloat16)
    half = load("llama", saved("llama"), dtype=torch.float16)
    for name, module in model.named_modules():
        if name.endswith("norm"):
            module.weight = half.get_submodule(name).weight
    assert codes_of(check_model(model, files.fingerprint)) == ["AD434", "AD434"]
    assert check_model(model, files.fingerprint, files.samples) == []


def test_float32_norms_in_a_bfloat16_model_are_accepted(saved: Any) -> None:
    files = measured(saved("llama"))
    model = load("llama", saved("llama"), dtype=torch.bfloat16)
    full = load("llama", saved("llama"))
    for name, module in model.named_modules():
        if name.endswith("norm"):
            module.weight = full.get_submodule(name).weight
    assert check_model(model, files.fingerprint) == []


OLD_CONFIGS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    # kind: (fields that older versions did not write, fields that they did)
    "llama": (("rope_parameters", "head_dim", "dtype", "mlp_bias", "attention_bias"),
              {"rope_theta": 10000.0, "rope_scaling": None, "torch_dtype": "float32",
               "pretraining_tp": 1, "transformers_version": "4.31.0"}),
    "qwen2": (("rope_parameters", "layer_types", "dtype", "head_dim"),
              {"rope_theta": 10000.0, "sliding_window": 32768, "use_sliding_window": False,
               "max_window_layers": 21, "torch_dtype": "bfloat16"}),
    "gpt_neox": (("rope_parameters", "dtype", "attention_bias", "attention_dropout"),
                 {"rotary_emb_base": 10000, "rotary_pct": 0.25, "torch_dtype": "float16"}),
    "bert": (("dtype", "tie_word_embeddings", "is_decoder", "add_cross_attention"),
             {"position_embedding_type": "absolute", "gradient_checkpointing": False}),
    "gpt2": (("dtype", "tie_word_embeddings", "add_cross_attention", "reorder_and_upcast_attn"),
             {"task_specific_params": {"text-generation": {"max_length": 50}}}),
    "t5": (("dtype", "dense_act_fn", "is_gated_act", "scale_decoder_outputs", "num_decoder_layers"),
           {"torch_dtype": "float32", "output_past": True}),
    "mixtral": (("rope_parameters", "head_dim", "dtype"), {"rope_theta": 1000000.0}),
    "gemma3 text": (("rope_parameters", "layer_types", "dtype"),
                    {"rope_theta": 1000000.0, "rope_local_base_freq": 10000.0,
                     "sliding_window_pattern": 6, "cache_implementation": "hybrid"}),
    "clip": (("dtype", "tie_word_embeddings"), {"text_config_dict": None}),
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(OLD_CONFIGS))
def test_an_older_config_file_of_the_same_base_is_accepted(
    kind: str, saved: Any, tmp_path: Path
) -> None:
    new = saved(kind)
    for path in new.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    left_out, old_fields = OLD_CONFIGS[kind]
    config = json.loads((new / "config.json").read_text())
    config = {k: v for k, v in config.items() if k not in left_out} | old_fields
    (tmp_path / "config.json").write_text(json.dumps(config))
    old = measured(tmp_path)
    model = load(kind, tmp_path, dtype=torch.float32)
    assert check_model(model, old.fingerprint, old.samples) == []
    assert check_model(load(kind, new), old.fingerprint) == []
    model.save_pretrained(tmp_path / "again")  # and saved again by this version
    assert compare(old.fingerprint, measured(tmp_path / "again")) == []


def test_a_field_of_older_versions_is_kept_by_both(saved: Any, tmp_path: Path) -> None:
    for path in saved("gpt2").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "n_ctx": 64}))
    assert check_model(load("gpt2", tmp_path), measured(tmp_path).fingerprint) == []


def test_fields_that_the_class_fills_in_do_not_differ(
    saved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A class that is newer than the table of defaults: the class itself has the defaults."""
    from adapterdock.registry.base import base_config as baseconfig

    table = dict(baseconfig._table())  # pyright: ignore[reportPrivateUsage]
    row = {**table["llama"], "defaults": dict(table["llama"]["defaults"])}
    del row["defaults"]["mlp_bias"]
    monkeypatch.setattr(baseconfig, "_table", lambda: {**table, "llama": row})
    config = json.loads((saved("llama") / "config.json").read_text())
    for path in saved("llama").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for fields in ({}, {"mlp_bias": False}):
        short = {k: v for k, v in config.items() if k != "mlp_bias"}
        (tmp_path / "config.json").write_text(json.dumps({**short, **fields}))
        assert check_model(load("llama", tmp_path), measured(tmp_path).fingerprint) == []
        assert check_model(tiny("llama"), measured(tmp_path).fingerprint) == []
    changed = {**config, "mlp_bias": False, "attention_multiplier": 2.0}
    (tmp_path / "config.json").write_text(json.dumps(changed))
    assert codes_of(check_model(tiny("llama"), measured(tmp_path).fingerprint)) == ["AD406"]


def test_resized_embeddings_change_the_structure(saved: Any) -> None:
    model = fresh("llama")
    model.resize_token_embeddings(70, mean_resizing=False)
    assert "AD404" in codes_of(check_model(model, measured(saved("llama")).fingerprint))


def test_a_quantised_model_is_compared_by_its_readable_tensors(saved: Any) -> None:
    """A quantiser's tensor class reports the shape and dtype of the original tensor."""
    from torch.utils._python_dispatch import return_and_correct_aliasing

    class Packed(torch.Tensor):
        @staticmethod
        def __new__(cls, shape: Any) -> Any:
            return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=torch.float32)  # pyright: ignore[reportAttributeAccessIssue]

        @classmethod
        def __torch_dispatch__(
            cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is torch.ops.aten.detach.default:
                return return_and_correct_aliasing(func, args, kwargs or {}, cls(args[0].shape))
            raise RuntimeError("its values were read")

    files = measured(saved("llama"))
    model = fresh("llama")
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight = torch.nn.Parameter(Packed(module.weight.shape), requires_grad=False)
    assert codes_of(check_model(model, files.fingerprint)) == ["AD434", "AD434"]
    findings = check_model(model, files.fingerprint, files.samples)
    assert codes_of(findings) == ["AD435", "AD434"]
    assert "6 of 20 tensors match" in findings[0].message
    other = fresh("llama", seed=1)
    for module in other.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight = torch.nn.Parameter(Packed(module.weight.shape), requires_grad=False)
    assert "AD407" in codes_of(check_model(other, files.fingerprint, files.samples))


@pytest.mark.parametrize("kind", ["llama", "mixtral"])
@pytest.mark.parametrize("place", ["cpu", "disk"])
def test_offloaded_weights_are_read_through_accelerate(
    kind: str, place: str, saved: Any, tmp_path: Path
) -> None:
    from accelerate import cpu_offload, disk_offload

    model = fresh(kind)
    if place == "cpu":
        cpu_offload(model, execution_device=torch.device("cpu"))
    else:
        disk_offload(model, str(tmp_path), execution_device=torch.device("cpu"))
    assert any(p.device.type == "meta" for p in model.parameters())
    files = measured(saved(kind))
    assert check_model(model, files.fingerprint, files.samples) == []
    assert fingerprint_of_model(model).fingerprint == files.fingerprint


def test_a_meta_model_is_unchecked_in_its_weights_only(saved: Any) -> None:
    with torch.device("meta"):
        model = tf.LlamaForCausalLM(tf.LlamaConfig.from_pretrained(saved("llama")))
    files = measured(saved("llama"))
    assert codes_of(check_model(model, files.fingerprint)) == ["AD434", "AD434"]
    assert codes_of(check_model(model, files.fingerprint, files.samples)) == ["AD434", "AD434"]


def test_a_plain_module_is_measured_by_its_state_dict() -> None:
    def build(seed: int, out: int = 3) -> torch.nn.Module:
        torch.manual_seed(seed)
        model = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, out)
        )
        model.register_buffer("scratch", torch.ones(2), persistent=False)
        return model

    one = fingerprint_of_model(build(0))
    assert check_model(build(0), one.fingerprint, one.samples) == []
    assert codes_of(check_model(build(1), one.fingerprint)) == ["AD407"]
    assert "AD404" in codes_of(check_model(build(0, out=4), one.fingerprint))
    assert one.samples is not None and "1.running_mean" in one.samples.backbone
    assert "scratch" not in one.names and one.fingerprint.config is None


def test_a_tensor_that_a_plain_module_shares_counts_once() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert fingerprint_of_model(model).names == {"0.weight", "0.bias", "1.bias"}


def test_measuring_changes_nothing_and_records_no_gradient() -> None:
    model = fresh("mixtral")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    grads = [p.requires_grad for p in model.parameters()]
    fingerprint_of_model(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == grads


def test_views_that_are_not_contiguous_are_sampled_where_the_file_has_them(
    saved: Any,
) -> None:
    files = measured(saved("llama"))
    model = fresh("llama")
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data = parameter.data.t().contiguous().t()
    assert check_model(model, files.fingerprint, files.samples) == []


def test_a_mixture_of_many_layers_reverts_only_sampled_layers(
    saved: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import transformers.core_model_loading as loading

    config = tf.MixtralConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=12,
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=5,
    )  # fmt: skip
    torch.manual_seed(0)
    model = tf.MixtralForCausalLM(config)
    model.save_pretrained(tmp_path)
    calls: list[int] = []
    revert = loading.revert_weight_conversion

    def counted(of: Any, state: Any) -> Any:
        calls.append(len(state))
        return revert(of, state)

    monkeypatch.setattr(loading, "revert_weight_conversion", counted)
    live = fingerprint_of_model(model)
    assert live.fingerprint == measured(tmp_path).fingerprint
    assert len(calls) <= 6  # outside, first and last layer on meta; three real layers


def test_measuring_272_live_tensors_takes_less_than_80_ms() -> None:
    """A Llama with SmolLM2's depth. The best of five runs counts, for busy machines."""
    config = tf.LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=30,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    model = tf.LlamaForCausalLM(config)
    best = 1.0
    for _ in range(5):
        started = time.perf_counter()
        found = fingerprint_of_model(model)
        best = min(best, time.perf_counter() - started)
    assert found.samples is not None and len(found.samples.backbone) == 272
    assert best < 0.08


def test_other_weights_are_refused_if_the_class_drops_parts_of_the_files(
    tmp_path: Path,
) -> None:
    make = cast(Any, tiny_model)
    make("t5 encoder").save_pretrained(tmp_path)
    files = measured(tmp_path)
    other = make("t5 encoder")
    assert "structure" in fingerprint_of_model(other).doubts
    assert check_model(other, files.fingerprint) == []
    with torch.no_grad():
        other.encoder.block[0].layer[0].SelfAttention.q.weight.neg_()
    (finding,) = check_model(other, files.fingerprint)
    assert (finding.code, finding.severity.value) == ("AD407", "error")


def test_fields_that_a_class_fills_in_for_its_parts_do_not_differ(tmp_path: Path) -> None:
    model = cast(Any, tiny_model("paligemma"))
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    assert config["text_config"].pop("use_bidirectional_attention") is True  # as on the Hub
    path.write_text(json.dumps(config))
    loaded = type(model).from_pretrained(tmp_path)
    assert check_model(loaded, measured(tmp_path).fingerprint) == []

    config["text_config"]["use_bidirectional_attention"] = False
    path.write_text(json.dumps(config))
    assert "AD406" in codes_of(check_model(loaded, measured(tmp_path).fingerprint))

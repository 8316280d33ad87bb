"""PEFT's calls on our model: the same arguments, the same answers, or an error that names ours."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    AttachError,
    RoutingError,
    SourceError,
    UsageError,
)
from support.hub_server import HubServer
from support.near import close, differs
from support.new_adapters import METHODS, batch_of, new_adapter, peft_creates
from support.peft_adapters import (
    Saved,
    logits,
    peft_loads,
    peft_saves,
    randomise,
    tiny_llama,
)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp("one") / "tone"
    return peft_saves(tiny_llama(), folder, target_modules=["q_proj"], modules_to_save=["lm_head"])


def loaded(one: Saved, **options: Any) -> AdaptedModel:
    return AdaptedModel.from_pretrained(tiny_llama(), one.folder, **options)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def theirs(one: Saved, base: Any = None, **options: Any) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(base or tiny_llama(), str(one.folder), **options)


def test_the_adapter_is_active_and_answers_as_pefts(one: Saved) -> None:
    base = tiny_llama().train()
    model = AdaptedModel.from_pretrained(base, str(one.folder))
    assert close(logits(model), one.answer)
    assert model.base_model is base and not model.training
    assert (model.active_adapter, model.active_adapters()) == ("default", ["default"])
    assert not any(p.requires_grad for name, p in model.named_parameters() if "tuners" in name)
    named = loaded(one, adapter_name="tone")
    assert named.active_adapter == "tone" == theirs(one, adapter_name="tone").active_adapter
    config = {"peft_type": "LORA", "target_modules": ["v_proj"]}
    named.add_adapter("other", config)
    named.set_adapter(["tone", "other"])
    assert named.active_adapter == ["tone", "other"]
    named.set_adapter(None)
    assert named.active_adapter is None


def test_a_trainable_adapter_trains_what_peft_trains(one: Saved) -> None:
    base = tiny_llama().train()
    model = AdaptedModel.from_pretrained(base, one.folder, is_trainable=True)
    oracle = theirs(one, tiny_llama().train(), is_trainable=True)
    assert model.training and oracle.training
    assert model.get_nb_trainable_parameters() == oracle.get_nb_trainable_parameters()
    inputs = batch_of(base)
    model.eval()
    oracle.eval()
    assert close(model(**inputs).loss.detach(), oracle(**inputs).loss.detach())
    model(**inputs).loss.backward()
    oracle(**inputs).loss.backward()
    ours = sorted(p.grad.abs().sum().item() for p in model.parameters() if p.grad is not None)
    both = sorted(p.grad.abs().sum().item() for p in oracle.parameters() if p.grad is not None)
    assert ours == pytest.approx(both, rel=1e-3)


@pytest.mark.parametrize("half", [True, False])
def test_dtypes_are_pefts(one: Saved, half: bool) -> None:
    """``autocast_adapter_dtype``: float32 on a base in half precision, or the base's dtype."""
    base = tiny_llama().to(torch.bfloat16)
    model = AdaptedModel.from_pretrained(base, one.folder, autocast_adapter_dtype=not half)
    oracle = theirs(one, tiny_llama().to(torch.bfloat16), autocast_adapter_dtype=not half)
    ours = {p.dtype for name, p in model.named_parameters() if "lora_" in name}
    assert ours == {p.dtype for name, p in oracle.named_parameters() if "lora_" in name}


def test_a_config_in_place_of_the_files_is_used(one: Saved) -> None:
    from peft import PeftConfig

    config = PeftConfig.from_pretrained(str(one.folder))
    config.lora_alpha = 4 * config.lora_alpha
    model = loaded(one, config=config)
    oracle = theirs(one, config=config)
    assert close(logits(model), logits(oracle.eval()))
    assert differs(logits(model), one.answer)
    with pytest.raises(UsageError, match="AD932"):
        AdaptedModel.from_pretrained(tiny_llama(), "hf://acme/tone", config=config)


def test_ids_of_the_hub_revisions_and_folders_are_found(
    hub: HubServer, one: Saved, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    own = files(one.folder)
    first = hub.commit("acme/tone", {**own, "README.md": b""})
    hub.commit("acme/tone", {f"deep/{name}": data for name, data in own.items()})
    for options in ({"revision": first}, {"subfolder": "deep"}):
        model = AdaptedModel.from_pretrained(tiny_llama(), "acme/tone", **options)
        assert close(logits(model), one.answer)
    model = AdaptedModel.from_pretrained(tiny_llama(), f"hf://acme/tone@{first}")
    assert close(logits(model), one.answer)
    with pytest.raises(SourceError):
        AdaptedModel.from_pretrained(tiny_llama(), "acme/tone")
    with pytest.raises(AdapterdockError):  # nothing is asked
        AdaptedModel.from_pretrained(tiny_llama(), "acme/other", local_files_only=True)
    near = tmp_path / "acme" / "tone" / "deep"
    near.mkdir(parents=True)
    for name, data in own.items():
        (near / name).write_bytes(data)
    before = hub.count()
    model = AdaptedModel.from_pretrained(tiny_llama(), "acme/tone", subfolder="deep")
    assert close(logits(model), one.answer)
    assert hub.count() == before  # a folder of this name comes first, as in PEFT


def test_a_private_adapter_is_loaded_with_its_token(hub: HubServer, one: Saved) -> None:
    hub.commit("acme/tone", files(one.folder))
    hub.private.add("acme/tone")
    hub.tokens.add("hf_good")
    with pytest.raises(SourceError):
        AdaptedModel.from_pretrained(tiny_llama(), "acme/tone")
    model = AdaptedModel.from_pretrained(tiny_llama(), "acme/tone", token="hf_good")
    assert close(logits(model), one.answer)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"key_mapping": {"a": "b"}}, "key_mapping"),
        ({"ephemeral_gpu_offload": True}, "ephemeral_gpu_offload"),
        ({"torch_device": "cpu"}, "torch_device"),
        ({"cache_dir": "x"}, "ADAPTERDOCK_CACHE"),
        ({"is_trainabel": True}, "is_trainabel"),
        ({"revision": "main"}, "revision"),
    ],
)
def test_other_options_are_refused_by_name(one: Saved, options: dict[str, Any], named: str) -> None:
    base = tiny_llama()
    with pytest.raises(UsageError, match="AD932") as caught:
        AdaptedModel.from_pretrained(base, one.folder, **options)
    assert named in str(caught.value)
    assert close(logits(AdaptedModel.from_pretrained(base, one.folder)), one.answer)
    for same in ({"low_cpu_mem_usage": True}, {"torch_device": None}, {"key_mapping": None}):
        assert close(logits(loaded(one, **same)), one.answer)


@pytest.mark.parametrize("case", METHODS)
def test_numbers_of_parameters_are_pefts(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    make, fields = METHODS[case]
    model, oracle = new_adapter(make(), fields), peft_creates(make(), fields)
    assert model.get_nb_trainable_parameters()[0] == oracle.get_nb_trainable_parameters()[0]
    capsys.readouterr()
    oracle.print_trainable_parameters()
    expected = capsys.readouterr().out
    model.print_trainable_parameters()
    found = capsys.readouterr().out
    assert found.split(" || ")[0] == expected.split(" || ")[0]
    if case == "lora":
        assert found == expected


@pytest.mark.parametrize("case", METHODS)
def test_the_state_dict_is_pefts_and_goes_back(case: str) -> None:
    from peft import get_peft_model_state_dict

    make, fields = METHODS[case]
    model, oracle = new_adapter(make(), fields), peft_creates(make(), fields)
    model.set_adapter("it")
    ours = adapterdock.get_peft_model_state_dict(model, "it")
    expected = get_peft_model_state_dict(oracle, save_embedding_layers=False)
    assert {key: value.shape for key, value in ours.items()} == {
        key: value.shape for key, value in expected.items()
    }
    if case in ("p-tuning",):
        return  # the encoder's output has no way back into the encoder, in PEFT neither
    randomise(oracle)
    expected = get_peft_model_state_dict(oracle, save_embedding_layers=False)
    result = adapterdock.set_peft_model_state_dict(model, expected, adapter_name="it")
    assert (result.missing_keys, result.unexpected_keys) == ([], [])
    assert close(logits(model.eval()), logits(oracle.eval()))
    again = adapterdock.get_peft_model_state_dict(model, "it")
    assert all(torch.equal(again[key], expected[key]) for key in expected)


def test_state_dicts_that_do_not_match_change_nothing(one: Saved) -> None:
    model = loaded(one)
    own = adapterdock.get_peft_model_state_dict(model)
    key = next(key for key in own if "lora_A" in key)
    result = adapterdock.set_peft_model_state_dict(model, {key: own[key], "other": own[key]})
    assert result.unexpected_keys == ["other"]
    assert result.missing_keys == sorted(own.keys() - {key})
    with pytest.raises(AttachError, match="AD740"):
        adapterdock.set_peft_model_state_dict(model, {**own, key: own[key][:, :3]})
    with pytest.raises(UsageError, match="AD932"):
        adapterdock.set_peft_model_state_dict(model, own, ignore_mismatched_sizes=True)
    with pytest.raises(RoutingError, match="AD730"):
        adapterdock.get_peft_model_state_dict(model, "nobody")
    assert close(logits(model), one.answer)


def test_the_config_is_pefts_object(one: Saved) -> None:
    model, oracle = loaded(one), theirs(one)
    ours, expected = model.peft_config["default"], oracle.peft_config["default"]
    assert type(ours) is type(expected)
    for name in ("r", "lora_alpha", "task_type", "peft_type", "inference_mode"):
        assert getattr(ours, name) == getattr(expected, name)
    assert set(ours.target_modules) == set(expected.target_modules)
    assert model.active_peft_config.r == ours.r
    model.set_adapter(None)
    with pytest.raises(AttachError, match="AD730"):
        _ = model.active_peft_config


def test_without_peft_the_config_is_an_attribute_that_is_missing(
    one: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trainer's callbacks ask with ``hasattr``."""
    model = loaded(one)
    model.add_adapter("other", {"peft_type": "LORA", "target_modules": ["v_proj"]})
    randomise(model)
    model.define_composition("made", {"other": 1.0}, combine="svd")
    assert set(model.peft_config) == {"default", "other"}  # a computed one has no config
    monkeypatch.setitem(sys.modules, "peft", None)
    assert not hasattr(model, "peft_config")
    with pytest.raises(AttributeError, match=r"install `adapterdock\[peft\]`"):
        _ = model.active_peft_config


def test_selected_adapters_are_saved_in_pefts_layout(one: Saved, tmp_path: Path) -> None:
    model = loaded(one)
    for name in ("two", "three"):
        model.load_adapter(one.folder, name)
    model.save_pretrained(tmp_path / "ours", selected_adapters=["default", "two"])
    oracle = theirs(one)
    oracle.load_adapter(str(one.folder), "two")
    oracle.load_adapter(str(one.folder), "three")
    oracle.save_pretrained(str(tmp_path / "theirs"), selected_adapters=["default", "two"])

    def layout(folder: Path) -> set[str]:
        found = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
        return {name for name in found if not name.endswith("README.md")}

    assert layout(tmp_path / "ours") == layout(tmp_path / "theirs")
    assert close(logits(peft_loads(tiny_llama(), tmp_path / "ours" / "two")), one.answer)
    with pytest.raises(RoutingError, match="AD730"):
        model.save_pretrained(tmp_path / "none", selected_adapters=["default", "nobody"])
    assert not (tmp_path / "none").exists()
    refused: tuple[dict[str, Any], ...] = (
        {"safe_serialization": False},
        {"save_embedding_layers": True},
        {"path_initial_model_for_weight_conversion": "x"},
        {"save_function": torch.save},
        {"max_shard_size": "1GB"},
        {"push_to_hub": True},
        {"misspelt": 1},
    )
    for options in refused:
        with pytest.raises(UsageError, match="AD932") as caught:
            model.save_pretrained(tmp_path / "none", **options)
        assert next(iter(options)) in str(caught.value)
    assert not (tmp_path / "none").exists()
    model.save_pretrained(tmp_path / "all", save_embedding_layers="auto")
    assert (tmp_path / "all" / "adapterdock.yaml").exists()


def test_options_of_saving_have_to_be_named(one: Saved, tmp_path: Path) -> None:
    """PEFT's second one is ``safe_serialization``, that of transformers ``is_main_process``: what
    one means as "not safetensors" would have written nothing."""
    save: Any = loaded(one).save_pretrained
    for options in ((False,), (True, ["default"])):
        with pytest.raises(TypeError, match="positional"):
            save(tmp_path / "none", *options)
    assert not (tmp_path / "none").exists()
    save(tmp_path / "some", is_main_process=True, push_to_hub=False, state_dict=None)
    assert (tmp_path / "some" / "adapterdock.yaml").exists()


def test_a_trainable_adapter_leaves_the_bases_mode(one: Saved) -> None:
    base = tiny_llama().eval()
    model = AdaptedModel.from_pretrained(base, one.folder, is_trainable=True)
    assert not model.training
    assert model.train().training and base.training


def test_pefts_own_functions_are_refused_and_name_ours(one: Saved) -> None:
    """They look for PEFT's layers, would find none, and would return nothing."""
    import peft

    model = loaded(one)
    own = adapterdock.get_peft_model_state_dict(model)
    for call in (
        lambda: peft.get_peft_model_state_dict(model),
        lambda: peft.set_peft_model_state_dict(model, own),
    ):
        with pytest.raises(AttachError, match="AD739") as caught:
            call()
        assert "adapterdock.get_peft_model_state_dict" in str(caught.value)


def test_arguments_of_another_kind_are_errors_that_say_so(one: Saved) -> None:
    with pytest.raises(AttachError, match="Load the base first"):
        AdaptedModel.from_pretrained("acme/base", one.folder)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="model_id is a NoneType"):
        AdaptedModel.from_pretrained(tiny_llama(), None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="model_id is a bytes"):
        AdaptedModel.from_pretrained(tiny_llama(), b"tone")  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="AD201"):
        AdaptedModel.from_pretrained(tiny_llama(), "./nowhere")
    for other in (None, [("name", torch.ones(1))]):
        with pytest.raises(AttachError, match="AD740"):
            adapterdock.set_peft_model_state_dict(loaded(one), other)  # type: ignore[arg-type]


def test_functions_for_adapted_models_refuse_others_by_their_class(one: Saved) -> None:
    oracle = theirs(one)
    for other in (tiny_llama(), oracle, torch.nn.DataParallel(loaded(one)), None):
        with pytest.raises(AttachError, match=f"AD739.*A {type(other).__name__} is not"):
            adapterdock.get_peft_model_state_dict(other)  # type: ignore[arg-type]
        with pytest.raises(AttachError, match="PEFT's own function"):
            adapterdock.set_peft_model_state_dict(other, {})  # type: ignore[arg-type]
    compiled: Any = torch.compile(loaded(one), backend="eager")
    assert adapterdock.get_peft_model_state_dict(compiled).keys()


def test_a_folder_at_home_is_found(
    one: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "tone").symlink_to(one.folder)
    for given in ({}, {"config": json.loads((one.folder / "adapter_config.json").read_text())}):
        model = AdaptedModel.from_pretrained(tiny_llama(), "~/tone", **given)
        assert close(logits(model), one.answer)
    model = AdaptedModel.from_pretrained(tiny_llama(), "~", subfolder="tone")
    assert close(logits(model), one.answer)


def test_loading_the_folder_of_an_adapter_says_what_to_do(
    one: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint is a manifest of three lines, and it works."""
    base = tiny_llama()
    base.save_pretrained(tmp_path / "base")
    folder = tmp_path / "tone"
    folder.mkdir()
    for name, data in files(one.folder).items():
        (folder / name).write_bytes(data)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "base")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    report = adapterdock.validate(folder)
    assert [finding.code for finding in report.findings] == ["AD931"]
    for call in (adapterdock.load, adapterdock.lock):
        for place in ("adapter_model.safetensors", "adapter_config.json", "."):
            with pytest.raises(UsageError, match="AD931") as caught:
                call(folder / place)
    hint = str(caught.value.findings[0].hint)
    assert "AdaptedModel.from_pretrained" in hint
    _, *lines = hint.split("\n")
    assert len(lines) == 3
    manifest = tmp_path / "adapters.yaml"
    manifest.write_text("\n".join(lines) + "\nactive: tone\n")
    assert close(logits(adapterdock.load(manifest)), one.answer)
    config["base_model_name_or_path"] = "acme/base"
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="hf://acme/base"):
        adapterdock.load(folder)
    with pytest.raises(AdapterdockError) as other:  # a folder of neither kind
        adapterdock.load(tmp_path / "base")
    assert other.value.code != "AD931"

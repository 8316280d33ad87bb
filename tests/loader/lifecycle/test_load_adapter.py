"""``load_adapter``: any source, the checks of a manifest, all or nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock import validate
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.load import attach
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    AttachError,
    FitError,
    IntegrityError,
    OfflineError,
    PolicyError,
    RoutingError,
    SourceError,
    UsageError,
)
from adapterdock.manifests.findings.finding import Severity
from adapterdock.registry.files.digests import folder_digest, sha256_bytes
from adapterdock.registry.files.facts import FileFact
from adapterdock.registry.store.store import Store
from peft import LoraConfig, PeftConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from support.builders import lora_config, lora_tensors, write_adapter, write_tokenizer
from support.near import close
from support.peft_adapters import (
    ids,
    inputs_of,
    logits,
    peft_saves,
    randomise,
    same_traces,
    tiny_conv,
    traces,
)
from support.shelf import Shelf, files_of, manifest_of, put_all


@pytest.fixture
def model(shelf: Shelf) -> AdaptedModel:
    """A base without a manifest."""
    return AdaptedModel(shelf.model())


def under(shelf: Shelf, folder: Path, **keys: Any) -> AdaptedModel:
    """A base set up from a manifest with ``one`` alone."""
    adapters = {"one": {"source": shelf.one}}
    return attach(shelf.model(), manifest_of(shelf, folder, **{"adapters": adapters, **keys}))


def digest_of(folder: Path) -> str:
    own = ("adapter_config.json", "adapter_model.safetensors")
    contents = {name: (folder / name).read_bytes() for name in own}
    return folder_digest(FileFact(n, len(d), sha256_bytes(d)) for n, d in contents.items())


# -- sources --------------------------------------------------------------------------------


def test_sources_may_be_text_or_paths(
    model: AdaptedModel, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shelf.one.folder.parent)
    model.load_adapter(str(shelf.one.folder), "text")
    model.load_adapter(shelf.one.folder, "path")
    model.load_adapter("./one", "relative")
    model.load_adapter(Path("one"), "relative-path")
    assert model.active_adapters() == []
    for name in model.adapters:
        assert close(logits(model, adapter=name), shelf.one.answer)


@pytest.mark.parametrize("pinned", [False, True])
def test_warnings_about_the_fit_are_logged_with_and_without_a_digest(
    model: AdaptedModel, shelf: Shelf, caplog: pytest.LogCaptureFixture, pinned: bool
) -> None:
    wanted = {"adapter_config.json", "adapter_model.safetensors"}
    files = {k: v for k, v in files_of(shelf.one.folder).items() if k in wanted}
    digest = folder_digest(FileFact(k, len(v), sha256_bytes(v)) for k, v in files.items())
    model.load_adapter(shelf.one.folder, "it", sha256=digest if pinned else None)
    assert [m for m in caplog.messages if "AD363" in m] == [caplog.messages[0]]


def test_load_from_s3(model: AdaptedModel, shelf: Shelf, s3: Any) -> None:
    url = put_all(s3, s3.bucket(), "refunds/v1", shelf.one.folder)
    model.load_adapter(url, "refunds")
    assert close(logits(model, adapter="refunds"), shelf.one.answer)


def test_from_the_hub_at_a_revision(model: AdaptedModel, shelf: Shelf, hub: Any) -> None:
    old = hub.commit("acme/tone", files_of(shelf.one.folder))
    hub.commit("acme/tone", files_of(shelf.two.folder))
    model.load_adapter(f"hf://acme/tone@{old}", "old")
    model.load_adapter("hf://acme/tone", "new")
    assert close(logits(model, adapter="old"), shelf.one.answer)
    assert close(logits(model, adapter="new"), shelf.two.answer)


def test_offline_loads_only_local_files(model: AdaptedModel, shelf: Shelf, hub: Any) -> None:
    commit = hub.commit("acme/tone", files_of(shelf.one.folder))
    with pytest.raises(OfflineError):
        model.load_adapter(f"hf://acme/tone@{commit}", "tone", offline=True)
    model.load_adapter(f"hf://acme/tone@{commit}", "first")
    hub.requests.clear()
    model.load_adapter(f"hf://acme/tone@{commit}", "tone", offline=True)
    assert hub.requests == []
    assert close(logits(model, adapter="tone"), shelf.one.answer)


def test_a_model_that_was_loaded_offline_stays_offline(
    shelf: Shelf, tmp_path: Path, hub: Any
) -> None:
    hub.commit("acme/two", files_of(shelf.two.folder))
    model = attach(shelf.model(), manifest_of(shelf, tmp_path), offline=True)
    with pytest.raises(OfflineError):
        model.load_adapter("hf://acme/two", "more")
    assert hub.requests == []


def test_mirrors_of_the_manifest_are_used(shelf: Shelf, tmp_path: Path, hub: Any) -> None:
    mirror = tmp_path / "mirror"
    shutil.copytree(shelf.two.folder, mirror / "acme" / "two" / "main")
    model = under(shelf, tmp_path, mirrors={"hf://": f"{mirror.as_uri()}/"})
    model.load_adapter("hf://acme/two", "two")
    assert hub.requests == []
    assert close(logits(model, adapter="two"), shelf.two.answer)


def test_storage_options_reach_the_driver(model: AdaptedModel, shelf: Shelf, s3: Any) -> None:
    url = put_all(s3, s3.bucket(), "one", shelf.one.folder)
    with pytest.raises(SourceError):
        model.load_adapter(url, "tone", storage_options={"secret": s3.wrong_secret, "key": "k"})
    model.load_adapter(url, "tone", storage_options={"endpoint_url": s3.endpoint})
    assert close(logits(model, adapter="tone"), shelf.one.answer)


@pytest.mark.parametrize("source", ["", "no-slash", "ftp://x/y", b"./one", 7, "hf://"])
def test_an_invalid_source_is_a_finding(source: Any, model: AdaptedModel) -> None:
    with pytest.raises(AdapterdockError) as caught:
        model.load_adapter(source, "tone")
    assert caught.value.findings[0].where.file == "load_adapter('tone')"


# -- in memory ------------------------------------------------------------------------------


def test_an_adapter_in_memory_may_have_several_forms(model: AdaptedModel, shelf: Shelf) -> None:
    folder = shelf.one.folder
    configs = {
        "bytes": (folder / "adapter_config.json").read_bytes(),
        "mapping": json.loads((folder / "adapter_config.json").read_text()),
        "object": PeftConfig.from_pretrained(str(folder)),
    }
    weights = {"bytes": shelf.one.file.read_bytes(), "tensors": load_file(shelf.one.file)}
    for config in configs:
        for form in weights:
            name = f"{config}-{form}"
            model.load_adapter(
                None, name, peft_config=configs[config], adapter_state_dict=weights[form]
            )
            assert close(logits(model, adapter=name), shelf.one.answer)


def test_the_adapter_of_a_live_peft_model_can_be_passed(model: AdaptedModel, shelf: Shelf) -> None:
    config = LoraConfig(r=3, lora_alpha=5, target_modules=["o_proj"], use_rslora=True)
    trained = get_peft_model(shelf.model(), config)
    randomise(trained)
    state = get_peft_model_state_dict(trained)
    model.load_adapter(
        None, "live", peft_config=trained.peft_config["default"], adapter_state_dict=state
    )
    assert close(logits(model, adapter="live"), logits(trained.eval(), {"input_ids": ids()}))
    for tensor in state.values():
        tensor.zero_()
    assert not torch.equal(logits(model, adapter="live"), logits(model.base_model))


def test_both_or_neither_of_source_and_memory_are_refused(
    model: AdaptedModel, shelf: Shelf
) -> None:
    with pytest.raises(UsageError) as caught:
        model.load_adapter(None, "tone")
    assert caught.value.code == "AD911"
    with pytest.raises(UsageError) as caught:
        model.load_adapter("./one", "tone", peft_config={}, adapter_state_dict={})
    assert caught.value.code == "AD911"
    with pytest.raises(AttachError) as caught:
        model.load_adapter(None, "tone", peft_config=lora_config())
    assert caught.value.code == "AD781"


# -- the same checks ------------------------------------------------------------------------


def test_a_misfit_is_reported_before_its_weights_are_fetched(
    model: AdaptedModel, tmp_path: Path, s3: Any
) -> None:
    modules = {"model.layers.0.self_attn.q_proj": (4096, 4096)}
    tensors = lora_tensors(modules, r=16)
    bad = write_adapter(tmp_path / "bad", lora_config(target_modules=["q_proj"], r=16), tensors)
    size = (bad / "adapter_model.safetensors").stat().st_size
    url = put_all(s3, s3.bucket(), "bad", bad)
    before = traces(model.base_model)
    with pytest.raises(FitError) as caught:
        model.load_adapter(url, "bad")
    assert "4096" in str(caught.value)
    assert size > 500_000
    assert objects() == []
    assert same_traces(traces(model.base_model), before)


def objects() -> list[Path]:
    """What the store holds."""
    return [path for path in Store.default().objects.rglob("*") if path.is_file()]


def broken(shelf: Shelf, folder: Path, **change: Any) -> Path:
    shutil.copytree(shelf.two.folder, folder)
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    names = sorted(tensors)
    if "value" in change:
        tensors[names[-1]].flatten()[-1] = change["value"]
    if "factor" in change:
        tensors = {n: t * change["factor"] for n, t in tensors.items()}
    if "without" in change:
        del tensors[names[change["without"]]]
    if "renamed" in change:
        tensors = {change["renamed"](n): t for n, t in tensors.items()}
    save_file(tensors, file)
    return folder


BROKEN: dict[str, tuple[dict[str, Any], type[AdapterdockError]]] = {
    "a NaN": ({"value": float("nan")}, AttachError),
    "an infinity": ({"value": float("-inf")}, AttachError),
    "nothing but zeros": ({"factor": 0}, AttachError),
    "half an adapter": ({"without": 0}, FitError),
    "keys of another model": ({"renamed": lambda n: n.replace("layers", "blocks")}, FitError),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("remote", [False, True])
def test_a_broken_adapter_is_refused_and_the_name_stays_free(
    kind: str, remote: bool, model: AdaptedModel, shelf: Shelf, tmp_path: Path, hub: Any
) -> None:
    change, error = BROKEN[kind]
    folder = broken(shelf, tmp_path / "broken", **change)
    before, answer = traces(model.base_model), logits(model)
    hub.commit("acme/broken", files_of(folder))
    with pytest.raises(error):
        model.load_adapter("hf://acme/broken" if remote else folder, "tone")
    assert same_traces(traces(model.base_model), before)
    assert torch.equal(logits(model), answer)
    model.load_adapter(shelf.two.folder, "tone")
    assert close(logits(model, adapter="tone"), shelf.two.answer)


def test_a_trainable_adapter_may_be_zero(model: AdaptedModel, shelf: Shelf, tmp_path: Path) -> None:
    folder = broken(shelf, tmp_path / "zero", factor=0)
    model.load_adapter(folder, "fresh", trainable=True)
    assert torch.equal(logits(model, adapter="fresh"), logits(model.base_model))
    assert any(
        p.requires_grad for p in model._host.adapters.by_name["fresh"].resident.parameters.values()
    )


def test_a_vocabulary_that_the_embeddings_do_not_have_is_refused(
    model: AdaptedModel, shelf: Shelf, tmp_path: Path
) -> None:
    """peft#1932, #2415, #1554."""
    for name, added in (("same", {}), ("more", {"<a>": 64, "<b>": 65})):
        shutil.copytree(shelf.two.folder, tmp_path / name)
        write_tokenizer(tmp_path / name, added=added)
    model.load_adapter(tmp_path / "same", "same")
    with pytest.raises(FitError):
        model.load_adapter(tmp_path / "more", "more")


def test_an_adapter_of_another_hub_base_needs_an_alias(shelf: Shelf, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(shelf.two.folder, folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "acme/base-13b"
    (folder / "adapter_config.json").write_text(json.dumps(config))
    base = {"model": shelf.base}
    with pytest.raises(FitError):
        under(shelf, tmp_path, base=base).load_adapter(folder, "two")
    base["aliases"] = ["acme/base-13b"]
    under(shelf, tmp_path, base=base).load_adapter(folder, "two")


# -- names, digests, dtypes, policies -------------------------------------------------------


@pytest.mark.parametrize("name", ["", "My Tone", "1st", "x-y", "__base__", "a/b", "..", None, 7])
def test_names_follow_the_manifests_rule(name: Any, model: AdaptedModel, shelf: Shelf) -> None:
    with pytest.raises(UsageError) as caught:
        model.load_adapter(shelf.one.folder, name)
    assert caught.value.code == "AD721"


def test_names_that_differ_only_in_case_are_refused(model: AdaptedModel, shelf: Shelf) -> None:
    model.load_adapter(shelf.one.folder, "Tone")
    assert close(logits(model, adapter="Tone"), shelf.one.answer)
    refusals: list[Callable[[], Any]] = [
        lambda: model.load_adapter(shelf.two.folder, "tone"),
        lambda: model.load_adapter(shelf.two.folder, "TONE", hotswap="auto"),
        lambda: model.add_adapter("tone", LoraConfig(target_modules=["q_proj"])),
        lambda: model.define_composition("tonE", {"Tone": 1.0}),
    ]
    for refusal in refusals:
        with pytest.raises((AttachError, RoutingError)) as caught:
            refusal()
        assert caught.value.code == "AD379"
    model.define_composition("Mix", {"Tone": 1.0})
    with pytest.raises(AttachError, match="AD379"):
        model.load_adapter(shelf.two.folder, "mix")
    assert model.adapters.keys() == {"Tone"}
    model.load_adapter(shelf.two.folder, "Tone", hotswap=True)
    assert close(logits(model, adapter="Tone"), shelf.two.answer)


@pytest.mark.parametrize("name", ["q_proj", "a.b", "default", "model", "lora_a.weight", "Q.v2"])
def test_a_name_that_is_part_of_another_is_accepted(
    name: str, model: AdaptedModel, shelf: Shelf
) -> None:
    model.load_adapter(shelf.one.folder, name)
    assert close(logits(model, adapter=name), shelf.one.answer)


def test_a_taken_name_is_refused_before_anything_is_fetched(
    shelf: Shelf, tmp_path: Path, hub: Any
) -> None:
    model = under(shelf, tmp_path, compositions={"mix": {"of": {"one": 0.5}}})
    for name in ("one", "mix"):
        with pytest.raises(AttachError) as caught:
            model.load_adapter("hf://acme/other", name)
        assert caught.value.code == "AD720"
    assert hub.requests == []
    assert close(logits(model, adapter="one"), shelf.one.answer)
    model.delete_composition("mix")
    model.delete_adapter("one")
    model.load_adapter(shelf.two.folder, "one")
    assert close(logits(model, adapter="one"), shelf.two.answer)


@pytest.mark.parametrize("where", ["local", "hub", "memory"])
def test_the_digest_is_compared(where: str, model: AdaptedModel, shelf: Shelf, hub: Any) -> None:
    hub.commit("acme/one", files_of(shelf.one.folder))
    source = {"local": shelf.one.folder, "hub": "hf://acme/one", "memory": None}[where]
    in_memory: dict[str, Any] = {}
    if source is None:
        files = files_of(shelf.one.folder)
        in_memory["peft_config"] = files["adapter_config.json"]
        in_memory["adapter_state_dict"] = files["adapter_model.safetensors"]
    with pytest.raises(IntegrityError) as caught:
        model.load_adapter(source, "tone", sha256=digest_of(shelf.two.folder), **in_memory)
    assert caught.value.findings[0].found == digest_of(shelf.one.folder)
    model.load_adapter(source, "tone", sha256=digest_of(shelf.one.folder), **in_memory)
    assert close(logits(model, adapter="tone"), shelf.one.answer)


def test_the_dtype_is_the_declared_one_or_the_modules(shelf: Shelf) -> None:
    model = AdaptedModel(shelf.model().bfloat16())
    for dtype, wanted in (
        (None, torch.bfloat16),
        ("auto", torch.bfloat16),
        ("float32", torch.float32),
        (torch.float16, torch.float16),
    ):
        model.load_adapter(shelf.one.folder, "tone", dtype=dtype)
        assert {
            p.dtype for p in model._host.adapters.by_name["tone"].resident.parameters.values()
        } == {wanted}
        model.delete_adapter("tone")
    for bad in ("int8", "float64", torch.int8, torch.float64, 32):
        with pytest.raises(UsageError) as caught:
            model.load_adapter(shelf.one.folder, "tone", dtype=bad)
        assert caught.value.code == "AD913"


def policy(folder: Path, text: str) -> Path:
    path = folder / "policy.yaml"
    path.write_text(text)
    return path


def test_all_policies_apply_to_load_adapter(shelf: Shelf, tmp_path: Path, hub: Any) -> None:
    hub.commit("acme/two", files_of(shelf.two.folder))
    hub.commit("other/two", files_of(shelf.two.folder))
    local = f"{shelf.one.folder.parent}/*"
    inside = {"allow_sources": ["hf://acme/*", "hf://other/*", f"file://{local}", local]}
    outside = policy(tmp_path, f"allow_sources: ['hf://acme/*', 'file://{local}', '{local}']\n")
    manifest = manifest_of(shelf, tmp_path, adapters={"one": {"source": shelf.one}}, policy=inside)
    model = attach(shelf.model(), manifest, policy=outside)
    with pytest.raises(PolicyError):
        model.load_adapter("hf://other/two", "two")
    with pytest.raises(PolicyError):  # nor by way of memory
        files = files_of(shelf.two.folder)
        model.load_adapter(
            None,
            "two",
            peft_config=files["adapter_config.json"],
            adapter_state_dict=files["adapter_model.safetensors"],
        )
    assert hub.count("other/two") == 0
    model.load_adapter("hf://acme/two", "two")
    assert close(logits(model, adapter="two"), shelf.two.answer)


def test_mirrors_must_be_allowed_by_the_policy(
    shelf: Shelf, tmp_path: Path, hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = tmp_path / "mirror"
    shutil.copytree(shelf.two.folder, mirror / "acme" / "two" / "main")
    local = f"{shelf.one.folder.parent}/*"
    outside = policy(tmp_path, f"allow_sources: ['hf://acme/*', '{local}']\n")
    keys: dict[str, Any] = {"adapters": {"one": {"source": shelf.one}}}
    two = (mirror / "acme" / "two").as_uri()
    manifest = manifest_of(shelf, tmp_path, **keys, mirrors={"hf://acme/two": two})
    model = attach(shelf.model(), manifest, policy=outside)
    with pytest.raises(PolicyError, match="mirror"):
        model.load_adapter("hf://acme/two", "two")
    with pytest.raises(PolicyError, match=r"stranger\.invalid"):
        options = {"endpoint": "http://stranger.invalid"}
        model.load_adapter("hf://acme/three", "two", storage_options=options)
    monkeypatch.setenv("MIRROR", f"{mirror.as_uri()}/")
    manifest = manifest_of(shelf, tmp_path, **keys, mirrors={"hf://": "${MIRROR}"})
    model = attach(shelf.model(), manifest, policy=outside)
    model.load_adapter("hf://acme/two", "two")
    assert close(logits(model, adapter="two"), shelf.two.answer)


def test_required_digests_and_size_limits_apply(shelf: Shelf, tmp_path: Path) -> None:
    manifest = manifest_of(
        shelf,
        tmp_path,
        adapters={"one": {"source": shelf.one, "sha256": digest_of(shelf.one.folder)}},
        policy={"require_digest": True, "max_adapter_bytes": "100KB"},
    )
    model = attach(shelf.model(), manifest)
    with pytest.raises(PolicyError):
        model.load_adapter(shelf.two.folder, "two")
    model.load_adapter(shelf.two.folder, "two", sha256=digest_of(shelf.two.folder))
    tight = manifest_of(shelf, tmp_path, policy={"max_adapter_bytes": "1KB"}, adapters={})
    model = attach(shelf.model(), tight)
    with pytest.raises(PolicyError):
        model.load_adapter(shelf.two.folder, "two")


def test_a_detached_model_refuses_adapters(model: AdaptedModel, shelf: Shelf) -> None:
    model.detach()
    with pytest.raises(RoutingError) as caught:
        model.load_adapter(shelf.one.folder, "tone")
    assert caught.value.code == "AD736"


def test_a_pickle_is_refused(model: AdaptedModel, shelf: Shelf, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    shutil.copy(shelf.one.folder / "adapter_config.json", folder)
    torch.save(load_file(shelf.one.file), folder / "adapter_model.bin")
    with pytest.raises(SourceError) as caught:
        model.load_adapter(folder, "tone")
    assert "adapter_model.bin" in str(caught.value)


def test_a_redirection_must_be_allowed_too(shelf: Shelf, tmp_path: Path, web: Any) -> None:
    for path, content in files_of(shelf.two.folder).items():
        web.files[f"/cdn/{path}"] = content
        web.redirects[f"/two/{path}"] = f"{web.url}/cdn/{path}"
    for allowed, ok in (([f"{web.url}/two*"], False), ([f"{web.url}/*"], True)):
        manifest = manifest_of(shelf, tmp_path, adapters={}, policy={"allow_sources": allowed})
        model = attach(shelf.model(), manifest)
        if ok:
            model.load_adapter(f"{web.url}/two", "two")
            assert close(logits(model, adapter="two"), shelf.two.answer)
        else:
            with pytest.raises(AdapterdockError) as caught:
                model.load_adapter(f"{web.url}/two", "two")
            assert caught.value.code == "AD855"


# -- what PEFT stores beside the factors ----------------------------------------------------


def roberta_classifier() -> Any:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    torch.manual_seed(0)
    return RobertaForSequenceClassification(RobertaConfig(**_SMALL, pad_token_id=1)).eval()


def phi() -> Any:
    from transformers import PhiConfig, PhiForCausalLM

    torch.manual_seed(0)
    return PhiForCausalLM(PhiConfig(**_SMALL, bos_token_id=1, eos_token_id=2)).eval()


def bert_language_model() -> Any:
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(**_SMALL, initializer_range=0.3)).eval()


_SMALL: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
BESIDE: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "all_biases_and_a_head_of_several_layers": (
        roberta_classifier,
        {"target_modules": ["query"], "bias": "all", "task_type": "SEQ_CLS"},
    ),
    "a_targeted_head_with_a_bias": (phi, {"target_modules": ["q_proj", "lm_head"]}),
    "all_biases_and_a_head_that_ties_its_own": (
        bert_language_model,
        {"target_modules": ["query"], "bias": "all"},
    ),
    "a_batch_norm": (tiny_conv, {"target_modules": ["head"], "modules_to_save": ["norm"]}),
}


@pytest.mark.parametrize("case", BESIDE)
def test_tensors_that_peft_stores_with_the_factors_are_accepted(case: str, tmp_path: Path) -> None:
    make, config = BESIDE[case]
    base = make()
    saved = peft_saves(base, tmp_path / "it", **config)
    if hasattr(base, "save_pretrained"):  # the same verdict from headers
        base.save_pretrained(tmp_path / "base")
        text = "version: 1\nbase: {model: ./base}\nadapters: {it: {source: ./it}}\n"
        (tmp_path / "adapters.yaml").write_text(text)
        report = validate(tmp_path / "adapters.yaml")
        assert [f for f in report.findings if f.severity is Severity.ERROR] == []
    model = AdaptedModel(base)
    model.load_adapter(saved.folder, "it")
    assert close(logits(model, inputs_of(base), adapter="it"), saved.answer)
    assert not close(logits(base), saved.answer)


def test_statistics_of_another_size_are_refused(tmp_path: Path) -> None:
    base = tiny_conv()
    saved = peft_saves(base, tmp_path / "it", target_modules=["head"], modules_to_save=["norm"])
    tensors = load_file(saved.file)
    tensors["base_model.model.norm.running_mean"] = torch.ones(7)
    save_file(tensors, saved.file)
    with pytest.raises(FitError, match="running_mean"):
        AdaptedModel(base).load_adapter(saved.folder, "it")

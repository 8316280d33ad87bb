"""Attaching a manifest to a live model: the base is compared, and the manifest applies."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.load import attach
from adapterdock.manifests.findings import fit as codes
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    AttachError,
    FingerprintError,
    FitError,
    PolicyError,
    RoutingError,
    SourceError,
)
from adapterdock.registry.sources import fetch as fetching
from safetensors.torch import load_file, save_file
from support.builders import lora_config, lora_tensors, write_adapter, write_tokenizer
from support.near import close, differs
from support.peft_adapters import logits, peft_saves, same_traces, traces
from support.shelf import Shelf, files_of, manifest_of, put_all, write_manifest
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer


def fingerprinted(shelf: Shelf, folder: Path, **changes: Any) -> Path:
    """A manifest whose base is described by its fingerprint alone."""
    manifest = manifest_of(shelf, folder)
    own = adapterdock.lock(manifest).base.fingerprint.model_dump(mode="json", exclude_none=True)
    manifest.with_suffix(".lock").unlink()
    return manifest_of(shelf, folder, base={"fingerprint": {**own, **changes}})


# -- which base -----------------------------------------------------------------------------


def test_an_undeclared_base_is_not_compared(shelf: Shelf, tmp_path: Path) -> None:
    model = attach(shelf.model(), manifest_of(shelf, tmp_path, base={}, active="one"))
    assert close(logits(model), shelf.one.answer)
    other = shelf.model()
    other.lm_head.weight.data.add_(0.5)
    assert attach(other, manifest_of(shelf, tmp_path, base={})).base_model is other


REFERENCES = ("manifest", "lock", "files")


@pytest.fixture(params=REFERENCES)
def manifest(request: pytest.FixtureRequest, shelf: Shelf, tmp_path: Path) -> Path:
    """What the live model is compared with: each of the three on its own."""
    if request.param == "manifest":
        return fingerprinted(shelf, tmp_path)
    path = manifest_of(shelf, tmp_path)
    if request.param == "lock":
        base = tmp_path / "base"
        shutil.copytree(shelf.base, base)
        path = manifest_of(shelf, tmp_path, base={"model": base})
        adapterdock.lock(path)
        shutil.rmtree(base)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_right_base_is_accepted_in_any_dtype(
    dtype: torch.dtype, manifest: Path, shelf: Shelf
) -> None:
    model = attach(shelf.model().to(dtype), manifest)
    assert list(model.adapters) == ["one", "two"]


def test_a_base_with_other_weights_is_refused_and_not_changed(manifest: Path, shelf: Shelf) -> None:
    other = shelf.model()
    other.model.layers[1].mlp.up_proj.weight.data.mul_(1.01)
    before = traces(other)
    with pytest.raises(FingerprintError) as caught:
        attach(other, manifest)
    assert all(f.severity == "error" for f in caught.value.findings)
    assert caught.value.findings[0].where.dotted.startswith("base")
    assert same_traces(traces(other), before)


def test_another_rope_theta_is_refused(manifest: Path, shelf: Shelf) -> None:
    other = shelf.model(rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    other.load_state_dict(shelf.model().state_dict())
    with pytest.raises(FingerprintError) as caught:
        attach(other, manifest)
    assert any("config" in f.where.dotted or "config" in f.name for f in caught.value.findings)


def test_a_base_with_or_without_its_head_is_the_same_base(shelf: Shelf, tmp_path: Path) -> None:
    manifest = manifest_of(shelf, tmp_path, adapters={})
    assert attach(AutoModel.from_pretrained(shelf.base), manifest).adapters == {}
    bare = tmp_path / "bare"
    AutoModel.from_pretrained(shelf.base).save_pretrained(bare)
    manifest_of(shelf, tmp_path, base={"model": bare}, adapters={})
    assert attach(shelf.model(), manifest).adapters == {}


@pytest.mark.slow
def test_real_encoders_of_the_same_shape_are_distinguished(
    rxnfp_berts: dict[str, Path], tmp_path: Path
) -> None:
    """peft, transformers, vLLM and LoRAX load an adapter of one onto the other without a word."""
    right, wrong, _ = (AutoModel.from_pretrained(path) for path in rxnfp_berts.values())
    folder = next(iter(rxnfp_berts.values()))
    manifest = write_manifest(tmp_path, base={"model": folder})
    assert attach(right, manifest).base_model is right
    assert attach(copy.deepcopy(right).bfloat16(), manifest).adapters == {}
    with pytest.raises(FingerprintError) as caught:
        attach(wrong, manifest)
    assert any("weights" in f.where.dotted for f in caught.value.findings)


def test_a_passed_tokenizer_is_compared(shelf: Shelf, tmp_path: Path) -> None:
    manifest = fingerprinted(shelf, tmp_path)
    own = AutoTokenizer.from_pretrained(shelf.base)
    assert attach(shelf.model(), manifest, tokenizer=own)
    write_tokenizer(tmp_path / "other", added={"<new>": 64})
    other = AutoTokenizer.from_pretrained(tmp_path / "other")
    with pytest.raises(FingerprintError) as caught:
        attach(shelf.model(), manifest, tokenizer=other)
    assert [f.where.dotted for f in caught.value.findings] == ["base.fingerprint.tokenizer"]
    assert attach(shelf.model(), manifest)


def test_a_base_out_of_reach_is_unchecked_until_a_person_accepts_it(
    shelf: Shelf, tmp_path: Path, hub: object
) -> None:
    """LoRAX (#311) says "assuming compatible" here."""
    hub.fail(503)
    manifest = manifest_of(shelf, tmp_path, base={"model": "hf://acme/base"})
    with pytest.raises(FingerprintError) as caught:
        attach(shelf.model(), manifest, offline=True)
    (finding,) = caught.value.findings
    assert finding.severity == "unchecked"
    for accept in (finding.code, finding.name):
        model = attach(shelf.model(), manifest, offline=True, accept=[accept])
        assert close(logits(model, adapter="one"), shelf.one.answer)


def test_fit_is_decided_on_the_live_model(shelf: Shelf, tmp_path: Path) -> None:
    """A class that is not in the table is accepted, since the live model can be inspected."""

    class Custom(type(shelf.model())):
        pass

    model = Custom(shelf.model().config).eval()
    model.load_state_dict(shelf.model().state_dict())
    manifest = manifest_of(shelf, tmp_path, base={}, adapters={"two": {"source": shelf.two}})
    text = (shelf.two.folder / "adapter_config.json").read_text()
    assert "LlamaForCausalLM" in text
    assert close(logits(attach(model, manifest), adapter="two"), shelf.two.answer)


# -- all or nothing -------------------------------------------------------------------------


def test_an_unsupported_base_is_refused_before_fetching(
    shelf: Shelf, tmp_path: Path, hub: object
) -> None:
    manifest = manifest_of(shelf, tmp_path, adapters={"a": {"source": "hf://acme/a"}})
    for bad in (torch.compile(shelf.model()), shelf.one, None):
        with pytest.raises(AttachError):
            attach(bad, manifest)
    assert hub.requests == []


def broken_weights(shelf: Shelf, folder: Path, value: float) -> Path:
    """An adapter whose header and config fit, and whose last tensor is not finite."""
    shutil.copytree(shelf.two.folder, folder)
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors[sorted(tensors)[-1]].flatten()[-1] = value
    save_file(tensors, file)
    return folder


def keys_for(failure: str, shelf: Shelf, folder: Path) -> dict[str, Any]:
    """Keys of a manifest whose last step fails."""
    good = {"one": {"source": shelf.one}, "headed": {"source": shelf.headed}}
    if failure == "a second adapter that does not fit":
        modules = {"model.layers.0.self_attn.q_proj": (32, 32)}
        bad = write_adapter(
            folder / "bad", lora_config(target_modules=["q_proj"]), lora_tensors(modules)
        )
        return {"adapters": good | {"bad": {"source": bad}}}
    if failure == "a last adapter with a NaN":
        bad = broken_weights(shelf, folder / "bad", float("nan"))
        return {"adapters": good | {"bad": {"source": bad}}}
    if failure == "rules that the active set breaks":
        rules = {"max_total_rank": 1}
        return {"adapters": good, "rules": rules, "active": "one"}
    of = {"headed": 0.5}
    return {"adapters": good, "compositions": {"half": {"of": of}}}


@pytest.mark.parametrize(
    "failure",
    [
        "a second adapter that does not fit",
        "a last adapter with a NaN",
        "rules that the active set breaks",
        "a composition that cannot be",
    ],
)
def test_a_failed_attach_changes_nothing_and_a_retry_works(
    failure: str, shelf: Shelf, tmp_path: Path
) -> None:
    base = shelf.model()
    before, answer = traces(base), logits(base)
    manifest = manifest_of(shelf, tmp_path, **keys_for(failure, shelf, tmp_path))
    with pytest.raises(AdapterdockError) as caught:
        attach(base, manifest)
    assert caught.value.findings
    assert same_traces(traces(base), before)
    assert torch.equal(logits(base), answer)
    model = attach(base, manifest_of(shelf, tmp_path / "retry", active="one"))
    assert close(logits(model), shelf.one.answer)
    assert model.detach() is base
    assert same_traces(traces(base), before)


def test_rules_broken_by_live_ranks_undo_the_attach(shelf: Shelf, tmp_path: Path) -> None:
    """Under a lock the ranks are known only once the adapters are attached."""
    manifest = manifest_of(shelf, tmp_path, active="one")
    adapterdock.lock(manifest)
    manifest_of(shelf, tmp_path, active="one", rules={"max_total_rank": 3})
    base = shelf.model()
    before = traces(base)
    with pytest.raises(PolicyError):
        attach(base, manifest)
    assert same_traces(traces(base), before)
    manifest_of(shelf, tmp_path, active="one", rules={"max_total_rank": 4})
    assert close(logits(attach(base, manifest)), shelf.one.answer)


def test_ctrl_c_during_a_fetch_changes_nothing_and_a_retry_works(
    shelf: Shelf, tmp_path: Path, hub: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.commit("acme/one", files_of(shelf.one.folder))
    adapters = {"two": {"source": shelf.two}, "one": {"source": "hf://acme/one"}}
    manifest = manifest_of(shelf, tmp_path, adapters=adapters)
    base = shelf.model()
    before = traces(base)

    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetching._Work, "download", interrupted)
        with pytest.raises(KeyboardInterrupt):
            attach(base, manifest)
    assert same_traces(traces(base), before)
    assert close(logits(attach(base, manifest), adapter="one"), shelf.one.answer)


def test_ctrl_c_during_attach_changes_nothing_and_a_retry_works(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapterdock.loader.lifecycle import deployment as loading

    manifest = manifest_of(shelf, tmp_path)
    base = shelf.model()
    before = traces(base)
    real = loading.attach_files

    def second_is_interrupted(model: Any, files: Any, **more: Any) -> Any:
        if files.name == "two":
            raise KeyboardInterrupt
        return real(model, files, **more)

    with monkeypatch.context() as patch:
        patch.setattr(loading, "attach_files", second_is_interrupted)
        with pytest.raises(KeyboardInterrupt):
            attach(base, manifest)
    assert same_traces(traces(base), before)
    assert close(logits(attach(base, manifest), adapter="one"), shelf.one.answer)


# -- compositions and rules -----------------------------------------------------------------


def test_nested_sums_are_exact(shelf: Shelf, tmp_path: Path) -> None:
    compositions = {
        "inner": {"of": {"one": 0.5, "two": 2.0}},
        "outer": {"combine": "sum", "of": {"inner": 0.5, "two": -0.25}},
    }
    manifest = manifest_of(shelf, tmp_path, compositions=compositions, active="outer")
    model = attach(shelf.model(), manifest)
    assert model.active_weights() == {"one": 0.25, "two": 0.75}
    assert close(logits(model), shelf.sum(one=0.25, two=0.75))
    assert close(logits(model, adapter="inner"), shelf.sum(one=0.5, two=2.0))
    with model.using({"inner": 1.0}):
        assert close(logits(model), shelf.sum(one=0.5, two=2.0))


def test_active_may_name_a_composition_and_a_member_of_it(shelf: Shelf, tmp_path: Path) -> None:
    compositions = {"mix": {"of": {"one": 0.5, "two": 1.0}}}
    keys = {"compositions": compositions, "active": ["mix", "two"]}
    manifest = manifest_of(shelf, tmp_path, **keys)
    assert adapterdock.validate(manifest).ok
    model = attach(shelf.model(), manifest)
    assert model.active_weights() == {"one": 0.5, "two": 2.0}
    assert close(logits(model), shelf.sum(one=0.5, two=2.0))


def test_an_impossible_combination_attaches_nothing(shelf: Shelf, tmp_path: Path) -> None:
    compositions = {"mix": {"combine": "ties", "of": {"one": 1, "two": 1}, "density": 0.5}}
    base = shelf.model()
    before = traces(base)
    with pytest.raises(RoutingError, match=r"ties.*different ranks") as caught:
        attach(base, manifest_of(shelf, tmp_path, compositions=compositions))
    assert caught.value.code == "AD708"
    assert caught.value.findings[0].where.dotted == "compositions.mix"
    assert same_traces(traces(base), before)


def roads(model: Any, wanted: dict[str, float], by_name: str | None) -> list[Any]:
    """Every way to make a set active."""
    selections: list[Any] = [wanted, list(wanted), tuple(wanted), *([by_name] if by_name else [])]
    ways = []
    for selection in selections:
        ways += [
            lambda s=selection: model.set_adapter(s),
            lambda s=selection: model.using(s),
            lambda s=selection: logits(model, adapter=s),
        ]
    return ways


RULES: dict[str, tuple[dict[str, Any], dict[str, float], str]] = {
    "exclusive": ({"exclusive": [["one", "two"]]}, {"one": 1.0, "two": 1.0}, "one"),
    "requires": ({"requires": {"two": ["one"]}}, {"two": 1.0}, "one"),
    "max_active": ({"max_active": 1}, {"one": 1.0, "two": 1.0}, "two"),
    "max_total_rank": ({"max_total_rank": 5}, {"one": 1.0, "two": 1.0}, "one"),
}


@pytest.mark.parametrize("rule", RULES)
def test_rules_apply_however_adapters_are_selected(rule: str, shelf: Shelf, tmp_path: Path) -> None:
    rules, forbidden, allowed = RULES[rule]
    model = attach(shelf.model(), manifest_of(shelf, tmp_path, rules=rules, active=allowed))
    model.define_composition("mixed", forbidden)
    for way in roads(model, forbidden, "mixed"):
        with pytest.raises(PolicyError) as caught:
            way()
        assert caught.value.findings[0].where.dotted == "rules"
    assert model.active_adapters() == [allowed]
    for way in roads(model, {allowed: 1.0}, allowed):
        way()


def test_rules_apply_to_adapters_loaded_later(shelf: Shelf, tmp_path: Path) -> None:
    model = attach(shelf.model(), manifest_of(shelf, tmp_path, rules={"max_total_rank": 6}))
    model.load_adapter(shelf.two.folder, "more")
    model.set_adapter(["one", "two"])
    with pytest.raises(PolicyError):
        model.set_adapter(["one", "two", "more"])


# -- the rest -------------------------------------------------------------------------------


def test_a_trainable_adapter_may_be_zero_and_another_may_not(shelf: Shelf, tmp_path: Path) -> None:
    zero = tmp_path / "zero"
    shutil.copytree(shelf.two.folder, zero)
    file = zero / "adapter_model.safetensors"
    save_file({n: t * 0 if "lora_B" in n else t for n, t in load_file(file).items()}, file)
    adapters = {"zero": {"source": zero, "trainable": True}, "two": {"source": shelf.two}}
    model = attach(shelf.model(), manifest_of(shelf, tmp_path, adapters=adapters))
    training = {n for n, p in model.named_parameters() if p.requires_grad}
    assert training and all(".zero." in n for n in training)
    adapters["zero"].pop("trainable")
    with pytest.raises(AttachError) as caught:
        attach(shelf.model(), manifest_of(shelf, tmp_path, adapters=adapters))
    assert caught.value.code == codes.EMPTY.id


def test_from_s3_with_a_lock(shelf: Shelf, tmp_path: Path, s3: object) -> None:
    source = put_all(s3, s3.bucket(versioned=True), "one/v1", shelf.one.folder)
    manifest = manifest_of(shelf, tmp_path, adapters={"one": {"source": source}}, active="one")
    adapterdock.lock(manifest)
    assert close(logits(attach(shelf.model(), manifest, frozen=True)), shelf.one.answer)


def test_a_manifest_may_be_a_mapping(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shelf.one.folder.parent)
    manifest = {"version": 1, "base": {}, "adapters": {"one": {"source": "./one"}}}
    assert close(logits(attach(shelf.model(), manifest), adapter="one"), shelf.one.answer)


@pytest.mark.slow
def test_a_real_lora_on_its_architecture(t5_bias_lora: Path, tmp_path: Path) -> None:
    """A random model of the shape of t5-large, which cannot be downloaded here."""
    from peft import PeftModel
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(vocab_size=32128, d_model=1024, d_kv=64, d_ff=64, num_layers=24, num_heads=16)
    base = T5ForConditionalGeneration(config).eval()
    inputs = {
        "input_ids": torch.tensor([[5, 6, 7]]),
        "decoder_input_ids": torch.tensor([[0, 8]]),
    }
    manifest = write_manifest(
        tmp_path,
        base={"aliases": ["t5-large"]},
        adapters={"bias": {"source": t5_bias_lora}},
    )
    model = attach(base, manifest)
    mine, plain = logits(model, inputs, adapter="bias"), logits(base, inputs)
    model.detach()
    theirs = logits(PeftModel.from_pretrained(base, str(t5_bias_lora)), inputs)
    assert close(mine, theirs)
    assert differs(mine, plain, 1e-2)


def test_errors_keep_the_librarys_as_their_cause(shelf: Shelf, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(shelf.two.folder, broken)
    file = broken / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    manifest = manifest_of(shelf, tmp_path, base={}, adapters={"a": {"source": broken}})
    with pytest.raises(AdapterdockError) as caught:
        attach(shelf.model(), manifest)
    assert isinstance(caught.value, FitError | SourceError)
    assert caught.value.findings[0].where.dotted == "adapters.a.source"


def test_a_head_for_a_task_comes_with_its_adapter(tmp_path: Path) -> None:
    from support.peft_adapters import tiny_bert

    base = tiny_bert()
    saved = peft_saves(
        base, tmp_path / "task", target_modules=["query"], modules_to_save=["classifier"]
    )
    base.save_pretrained(tmp_path / "base")
    manifest = write_manifest(
        tmp_path,
        base={"model": tmp_path / "base"},
        adapters={"task": {"source": saved}},
        active="task",
    )
    live = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    assert close(logits(attach(live, manifest)), saved.answer)

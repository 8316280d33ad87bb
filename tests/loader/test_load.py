"""Loading a manifest: sources of the base, options of loading, all or nothing."""

from __future__ import annotations

import gc
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.base.load_base import load_base
from adapterdock.loader.generate_text import load_tokenizer
from adapterdock.loader.load import load
from adapterdock.loader.model.deployment import close_here
from adapterdock.manifests.findings.errors import (
    AttachError,
    FingerprintError,
    FitError,
    LockError,
    UsageError,
)
from adapterdock.manifests.findings.finding import Severity
from adapterdock.manifests.language.schema import Base
from adapterdock.manifests.manifest import read_manifest
from adapterdock.registry.store.store import Store
from peft import PeftConfig
from safetensors.torch import load_file, save_file
from support.builders import lora_tensors, write_adapter, write_tokenizer
from support.near import close
from support.peft_adapters import logits
from support.shelf import Shelf, files_of, manifest_of, put_all, sharded
from transformers.utils import logging as transformers_logging


def answers_as_peft(model: adapterdock.AdaptedModel, shelf: Shelf) -> bool:
    """The base, both adapters and the base again: as PEFT has them."""
    model.set_adapter(None)
    whole = torch.equal(logits(model), logits(model.base_model))
    fine = whole and close(logits(model), shelf.plain)
    for name, saved in (("one", shelf.one), ("two", shelf.two)):
        with model.using(name):
            fine = fine and close(logits(model), saved.answer)
    return fine


def edit_json(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def unchecked_codes(manifest: Path) -> list[str]:
    """What a person would accept after reading the report."""
    findings = adapterdock.validate(manifest).findings
    return sorted({f.code for f in findings if f.severity is Severity.UNCHECKED})


# -- where it comes from --------------------------------------------------------------------


def test_a_local_base_and_adapters_answer_as_in_peft(shelf: Shelf, tmp_path: Path) -> None:
    model = load(manifest_of(shelf, tmp_path, active="two"))
    assert model.active_adapters() == ["two"]
    assert close(logits(model), shelf.two.answer)
    assert answers_as_peft(model, shelf)
    assert not model.training


def test_base_and_adapters_from_the_hub(shelf: Shelf, tmp_path: Path, hub: object) -> None:
    hub.commit("acme/base", files_of(shelf.base))
    one = hub.commit("acme/one", files_of(shelf.one.folder))
    two = {f"deep/{p}": d for p, d in files_of(shelf.two.folder).items()}
    hub.commit("acme/two", two, branch="v2")
    manifest = manifest_of(
        shelf,
        tmp_path,
        base={"model": "hf://acme/base"},
        adapters={
            "one": {"source": f"hf://acme/one@{one}"},
            "two": {"source": "hf://acme/two@v2/deep"},
        },
    )
    assert answers_as_peft(load(manifest), shelf)


def test_a_sharded_base_and_adapters_from_s3(shelf: Shelf, tmp_path: Path, s3: object) -> None:
    bucket = s3.bucket()
    base = put_all(s3, bucket, "base", sharded(shelf.base, tmp_path / "sharded"))
    manifest = manifest_of(
        shelf,
        tmp_path,
        base={"model": base},
        adapters={
            name: {"source": put_all(s3, bucket, name, saved.folder)}
            for name, saved in (("one", shelf.one), ("two", shelf.two))
        },
    )
    assert answers_as_peft(load(manifest), shelf)
    adapterdock.lock(manifest)
    assert answers_as_peft(load(manifest), shelf)


def test_a_missing_lock_is_reported(
    shelf: Shelf, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = manifest_of(shelf, tmp_path)
    with caplog.at_level(logging.WARNING, "adapterdock"):
        model = load(manifest)
    assert "AD512" in [f.code for f in model.findings]
    assert "resolved without a lock" in caplog.text
    caplog.clear()
    adapterdock.lock(manifest)
    assert "AD512" not in [f.code for f in load(manifest).findings]
    assert "without a lock" not in caplog.text


def test_a_lock_is_obeyed_when_the_branch_moves(shelf: Shelf, tmp_path: Path, hub: object) -> None:
    hub.commit("acme/tone", files_of(shelf.one.folder))
    manifest = manifest_of(shelf, tmp_path, adapters={"tone": {"source": "hf://acme/tone"}})
    adapterdock.lock(manifest)
    hub.commit("acme/tone", files_of(shelf.two.folder))
    assert close(logits(load(manifest), adapter="tone"), shelf.one.answer)
    manifest.with_suffix(".lock").unlink()
    assert close(logits(load(manifest), adapter="tone"), shelf.two.answer)


def test_frozen_needs_a_complete_lock(shelf: Shelf, tmp_path: Path) -> None:
    manifest = manifest_of(shelf, tmp_path)
    with pytest.raises(LockError):
        load(manifest, frozen=True)
    adapterdock.lock(manifest)
    assert answers_as_peft(load(manifest, frozen=True), shelf)


@pytest.mark.parametrize("where", ["hub", "s3"])
def test_after_a_pull_it_loads_offline_without_a_request(
    where: str, shelf: Shelf, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue(where)
    if where == "hub":
        for name, folder in (("base", shelf.base), ("one", shelf.one.folder)):
            server.commit(f"acme/{name}", files_of(folder))
        base, one = "hf://acme/base", "hf://acme/one"
    else:
        bucket = server.bucket()
        base = put_all(server, bucket, "base", shelf.base)
        one = put_all(server, bucket, "one", shelf.one.folder)
    manifest = manifest_of(shelf, tmp_path, base={"model": base}, adapters={"one": {"source": one}})
    adapterdock.lock(manifest)
    adapterdock.pull(manifest)
    if where == "hub":
        server.requests.clear()
    else:
        request.getfixturevalue("monkeypatch").setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    model = load(manifest, offline=True, frozen=True)
    assert close(logits(model, adapter="one"), shelf.one.answer)
    if where == "hub":
        assert server.requests == []


# -- as declared ----------------------------------------------------------------------------


def test_model_and_dtype_replace_the_manifests_and_are_recorded(
    shelf: Shelf, tmp_path: Path
) -> None:
    manifest = manifest_of(shelf, tmp_path, base={"model": "hf://acme/nowhere"})
    model = load(manifest, model=str(shelf.base), dtype="bfloat16")
    assert model.dtype is torch.bfloat16
    recorded = {"model": str(shelf.base), "dtype": "bfloat16"}
    assert dict(model.deployment.pulled.lock.overrides) == recorded
    assert dict(model.deployment.file.overrides) == recorded


def test_overriding_a_manifest_that_was_read_is_an_error(shelf: Shelf, tmp_path: Path) -> None:
    path = manifest_of(shelf, tmp_path)
    with pytest.raises(UsageError) as caught:
        load(read_manifest(path), dtype="bfloat16")
    assert caught.value.code == "AD919"
    file = read_manifest(path, dtype="bfloat16")
    assert load(file).dtype is load(file, dtype="bfloat16").dtype is torch.bfloat16


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "auto"])
def test_the_base_and_its_adapters_have_the_declared_dtype(
    dtype: str, shelf: Shelf, tmp_path: Path
) -> None:
    half = tmp_path / "half"
    shutil.copytree(shelf.base, half)
    shelf.model().to(torch.bfloat16).save_pretrained(half)
    manifest = manifest_of(shelf, tmp_path, base={"model": half, "dtype": dtype})
    wanted = torch.bfloat16 if dtype == "auto" else getattr(torch, dtype)
    model = load(manifest)
    assert {p.dtype for p in model.parameters()} == {wanted}
    with torch.no_grad():
        assert torch.isfinite(logits(model, adapter="one")).all()


def test_an_adapters_own_dtype_beats_its_modules(shelf: Shelf, tmp_path: Path) -> None:
    manifest = manifest_of(
        shelf,
        tmp_path,
        base={"model": shelf.base, "dtype": "bfloat16"},
        adapters={
            "one": {"source": shelf.one, "dtype": "float32"},
            "two": {"source": shelf.two, "dtype": "auto"},
        },
    )
    model = load(manifest)
    dtypes = {
        name: {p.dtype for p in a.resident.parameters.values()}
        for name, a in model._host.adapters.by_name.items()
    }
    assert dtypes == {"one": {torch.float32}, "two": {torch.bfloat16}}


@pytest.mark.parametrize(
    "device_map",
    [
        None,
        "cpu",
        "auto",
        {"": "cpu"},
        {"model.embed_tokens": "cpu", "model.layers": "disk", "model.norm": "cpu", "lm_head": "cpu"}
        | {"model.rotary_emb": "cpu"},
    ],
    ids=["none", "cpu", "auto", "all on cpu", "layers on disk"],
)
def test_all_device_maps_give_pefts_answers(
    device_map: object, shelf: Shelf, tmp_path: Path
) -> None:
    manifest = manifest_of(shelf, tmp_path, base={"model": shelf.base, "device_map": device_map})
    assert answers_as_peft(load(manifest), shelf)


def test_offloaded_files_are_removed_with_the_model(shelf: Shelf, tmp_path: Path) -> None:
    parts = {"model": "disk", "lm_head": "cpu"}
    manifest = manifest_of(shelf, tmp_path, base={"model": shelf.base, "device_map": parts})
    store = Store.default()
    model = load(manifest, store=store)
    assert len(list(store.tmp.iterdir())) == 1
    assert store.held()
    assert close(logits(model, adapter="one"), shelf.one.answer)
    del model
    gc.collect()
    assert list(store.tmp.iterdir()) == []
    assert not store.held()


def test_a_forked_child_does_not_remove_the_parents_files() -> None:
    closed: list[str] = []
    close_here(os.getpid() + 1, lambda: closed.append("as the child"))
    close_here(os.getpid(), lambda: closed.append("as the parent"))
    assert closed == ["as the parent"]


def test_a_failed_load_leaves_no_files(shelf: Shelf, tmp_path: Path) -> None:
    base = {"model": shelf.base, "device_map": {"model": "disk", "lm_head": "cuda:0"}}
    with pytest.raises(AttachError) as caught:
        load(manifest_of(shelf, tmp_path, base=base))
    assert caught.value.code == "AD782"
    assert list(Store.default().tmp.iterdir()) == []
    assert not Store.default().held()


def test_the_attention_is_the_declared_one(shelf: Shelf, tmp_path: Path) -> None:
    for name in ("eager", "sdpa"):
        base = {"model": shelf.base, "attn_implementation": name}
        model = load(manifest_of(shelf, tmp_path, base=base))
        assert model.config._attn_implementation == name
        assert close(logits(model, adapter="one"), shelf.one.answer)


def test_a_missing_attention_implementation_is_an_error(shelf: Shelf, tmp_path: Path) -> None:
    base = {"model": shelf.base, "attn_implementation": "no_such_attention"}
    with pytest.raises(AttachError, match="no_such_attention") as caught:
        load(manifest_of(shelf, tmp_path, base=base))
    assert caught.value.code == "AD782"
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("place", ["manifest", "config"])
def test_an_attention_kernel_from_a_repository_is_refused(
    place: str, shelf: Shelf, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(shelf.base, base)
    declared = {"model": base, "attn_implementation": None}
    if place == "manifest":
        declared["attn_implementation"] = "acme/kernels"
    else:
        edit_json(base / "config.json", attn_implementation={"": "acme/kernels"})
    with pytest.raises(AttachError, match="acme/kernels") as caught:
        load(manifest_of(shelf, tmp_path, base=declared))
    assert caught.value.code == "AD788"


@pytest.mark.parametrize(
    "fields",
    [
        {"_attn_implementation": "acme/kernels"},
        {"attn_implementation": "paged|acme/kernels@v1:entry"},
        {"per_layer_config": {"0": {"_attn_implementation": {"": "acme/kernels"}}}},
        {"experts_implementation": "acme/kernels"},
        {"backbone": "acme/kernels"},
    ],
    ids=str,
)
def test_repositories_named_in_a_config_are_not_fetched(
    fields: dict[str, Any], shelf: Shelf, tmp_path: Path, hub: Any
) -> None:
    base = tmp_path / "base"
    shutil.copytree(shelf.base, base)
    manifest = manifest_of(shelf, tmp_path, base={"model": base})
    load(manifest)
    adapterdock.lock(manifest)
    edit_json(base / "config.json", **fields)
    fresh = manifest_of(shelf, tmp_path / "fresh", base={"model": base})
    assert [f.code for f in adapterdock.validate(fresh).errors] == ["AD788"]
    with pytest.raises(AttachError, match="acme/kernels") as caught:
        load(fresh)
    assert caught.value.code == "AD788"
    with pytest.raises(AttachError, match="acme/kernels"):  # where no plan was made before
        load_base(Base(), base)
    assert hub.count("kernels") == 0


def test_a_tokenizer_s_code_in_another_repository_is_refused_even_if_trusted(
    shelf: Shelf, tmp_path: Path, hub: Any
) -> None:
    base = tmp_path / "base"
    shutil.copytree(shelf.base, base)
    write_tokenizer(base)
    tokenizer: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (base / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    manifest = manifest_of(shelf, tmp_path, base={"model": base, "trust_remote_code": True})
    load_tokenizer(load(manifest, accept=unchecked_codes(manifest)))
    tokenizer["auto_map"] = {"AutoTokenizer": ["other/code--tok.Tok", None]}
    (base / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    with pytest.raises(AttachError, match="other/code") as caught:
        load_tokenizer(load(manifest, accept=unchecked_codes(manifest)))
    assert caught.value.code == "AD788"
    assert hub.count("other") == 0


# -- float32 modules ------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [False, True])
def test_float32_modules_hold_the_checkpoints_own_values(
    shards: bool, shelf: Shelf, tmp_path: Path
) -> None:
    rough = tmp_path / "rough"
    shutil.copytree(shelf.base, rough)
    exact = shelf.model()
    for name, parameter in exact.named_parameters():
        if "norm" in name:
            parameter.data.uniform_(0.5, 1.5)
    exact.save_pretrained(rough)
    folder = sharded(rough, tmp_path / "shards") if shards else rough
    base = {"model": folder, "dtype": "bfloat16", "float32_modules": ["*norm*", "lm_head"]}
    model = load(manifest_of(shelf, tmp_path, base=base))
    kept = dict(model.base_model.named_parameters())
    for name, parameter in exact.named_parameters():
        wide = "norm" in name or name == "lm_head.weight"
        assert kept[name].dtype is (torch.float32 if wide else torch.bfloat16)
        assert torch.equal(kept[name], parameter if wide else parameter.bfloat16())
    assert logits(model, adapter="one").dtype is torch.bfloat16
    assert torch.isfinite(logits(model, adapter="one")).all()


def test_float32_modules_of_a_base_in_float32_change_nothing(shelf: Shelf, tmp_path: Path) -> None:
    base = {"model": shelf.base, "float32_modules": ["*norm*"]}
    assert answers_as_peft(load(manifest_of(shelf, tmp_path, base=base)), shelf)


def test_a_float32_pattern_without_a_match_has_its_place(shelf: Shelf, tmp_path: Path) -> None:
    base = {"model": shelf.base, "float32_modules": ["*layernrom*"]}
    with pytest.raises(AttachError) as caught:
        load(manifest_of(shelf, tmp_path, base=base))
    assert caught.value.code == "AD742"
    assert caught.value.findings[0].where.dotted == "base.float32_modules"


# -- whose code -----------------------------------------------------------------------------

REMOTE = """
from transformers import LlamaConfig, LlamaForCausalLM

class AcmeConfig(LlamaConfig):
    model_type = "acme"

class AcmeForCausalLM(LlamaForCausalLM):
    config_class = AcmeConfig
    trusted = True
"""


def remote_manifest(shelf: Shelf, folder: Path, **base: object) -> Path:
    """Adapters that do not record the class that they were trained on: it is a Llama's."""
    adapters: dict[str, Any] = {}
    for name, saved in (("one", shelf.one), ("two", shelf.two)):
        if not (folder / name).exists():
            shutil.copytree(saved.folder, folder / name)
            edit_json(folder / name / "adapter_config.json", auto_mapping=None)
        adapters[name] = {"source": folder / name}
    return manifest_of(shelf, folder, base=base, adapters=adapters)


def remote_base(shelf: Shelf, folder: Path, **config: object) -> Path:
    shutil.copytree(shelf.base, folder)
    (folder / "modeling_acme.py").write_text(REMOTE)
    auto = {"AutoConfig": "AcmeConfig", "AutoModelForCausalLM": "AcmeForCausalLM"}
    edit_json(
        folder / "config.json",
        architectures=["AcmeForCausalLM"],
        model_type="acme",
        auto_map={name: f"modeling_acme.{kind}" for name, kind in auto.items()},
        **config,
    )
    return folder


def test_code_of_the_repository_is_refused_unless_trusted(
    shelf: Shelf, tmp_path: Path, hub: object
) -> None:
    hub.commit("acme/base", files_of(remote_base(shelf, tmp_path / "remote")))
    manifest = remote_manifest(shelf, tmp_path, model="hf://acme/base")
    unchecked = unchecked_codes(manifest)
    with pytest.raises(AttachError) as caught:
        load(manifest, accept=unchecked)
    assert caught.value.code == "AD787"
    assert "trust_remote_code" in (caught.value.findings[0].hint or "")
    remote_manifest(shelf, tmp_path, model="hf://acme/base", trust_remote_code=True)
    lock = adapterdock.lock(manifest, accept=unchecked)
    assert "modeling_acme.py" in lock.base.files
    model = load(manifest)
    assert type(model.base_model).trusted
    assert answers_as_peft(model, shelf)


def test_the_code_that_runs_is_the_code_that_was_locked(
    shelf: Shelf, tmp_path: Path, hub: object
) -> None:
    files = files_of(remote_base(shelf, tmp_path / "remote"))
    hub.commit("acme/base", files)
    manifest = remote_manifest(shelf, tmp_path, model="hf://acme/base", trust_remote_code=True)
    adapterdock.lock(manifest, accept=unchecked_codes(manifest))
    bad = REMOTE + "\nraise SystemExit('other code ran')\n"
    hub.commit("acme/base", {**files, "modeling_acme.py": bad.encode()})
    assert answers_as_peft(load(manifest), shelf)


def test_code_of_another_repository_is_refused_even_if_trusted(
    shelf: Shelf, tmp_path: Path
) -> None:
    auto = {"AutoModelForCausalLM": "other/code--modeling_acme.AcmeForCausalLM"}
    folder = tmp_path / "remote"
    remote_base(shelf, folder)
    edit_json(folder / "config.json", auto_map=auto)
    manifest = remote_manifest(shelf, tmp_path, model=folder, trust_remote_code=True)
    with pytest.raises(AttachError, match="other/code") as caught:
        load(manifest, accept=unchecked_codes(manifest))
    assert caught.value.code == "AD788"


def test_a_transformers_class_does_not_need_trust_remote_code(shelf: Shelf, tmp_path: Path) -> None:
    folder = tmp_path / "remote"
    shutil.copytree(shelf.base, folder)
    edit_json(folder / "config.json", auto_map={"AutoModelForCausalLM": "m.LlamaForCausalLM"})
    (folder / "m.py").write_text("raise SystemExit('it ran')")
    assert answers_as_peft(load(manifest_of(shelf, tmp_path, base={"model": folder})), shelf)


# -- what a checkpoint lacks, or has too much -----------------------------------------------


def test_a_checkpoint_that_does_not_fill_the_model_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    folder = tmp_path / "part"
    shutil.copytree(shelf.base, folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    manifest = manifest_of(shelf, tmp_path, base={"model": folder}, adapters={})
    with pytest.raises(AttachError, match="up_proj") as caught:
        load(manifest, accept=unchecked_codes(manifest))
    assert caught.value.code == "AD783"


def test_unused_tensors_are_one_warning(
    shelf: Shelf, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "more"
    shutil.copytree(shelf.base, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["old_head.weight"] = torch.ones(2)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    capfd.readouterr()
    model = load(manifest_of(shelf, tmp_path, base={"model": folder}))
    (finding,) = [f for f in model.findings if f.code == "AD789"]
    assert finding.found == "old_head.weight"
    assert "LOAD REPORT" not in "".join(capfd.readouterr())
    assert answers_as_peft(model, shelf)


def test_loading_prints_nothing_and_keeps_warnings(
    shelf: Shelf, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    transformers_logging.enable_progress_bar()
    folder = tmp_path / "loud"
    shutil.copytree(shelf.base, folder)
    edit_json(folder / "config.json", eos_token_id=9999)
    capfd.readouterr()
    model = load(manifest_of(shelf, tmp_path, base={"model": folder}))
    assert "Loading weights" not in "".join(capfd.readouterr())
    assert any("eos_token_id" in (f.found or "") for f in model.findings if f.code == "AD790")
    assert transformers_logging.is_progress_bar_enabled()


# -- all or nothing -------------------------------------------------------------------------


def test_a_bad_adapter_is_reported_before_the_base_is_read(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = write_adapter(tmp_path / "bad", tensors=lora_tensors({"model.layers.0.nothing": (4, 4)}))
    adapters = {"one": {"source": shelf.one}, "bad": {"source": bad}}
    monkeypatch.setattr("adapterdock.loader.lifecycle.pulled_base.load_base", None)
    with pytest.raises(FitError):
        load(manifest_of(shelf, tmp_path, adapters=adapters))


def test_a_declared_fingerprint_of_another_base_is_refused_with_or_without_a_lock(
    shelf: Shelf, tmp_path: Path
) -> None:
    manifest = manifest_of(shelf, tmp_path)
    own = adapterdock.lock(manifest).base.fingerprint.model_dump(mode="json", exclude_none=True)
    base = {"model": shelf.base, "fingerprint": own}
    assert answers_as_peft(load(manifest_of(shelf, tmp_path, base=base)), shelf)
    other = {**own, "config": own["structure"]}
    manifest_of(shelf, tmp_path, base={"model": shelf.base, "fingerprint": other})
    for _ in ("with", "without"):
        with pytest.raises(FingerprintError) as caught:
            load(manifest)
        assert caught.value.findings[0].where.dotted.startswith("base.fingerprint")
        manifest.with_suffix(".lock").unlink(missing_ok=True)


def test_loading_a_manifest_without_a_base_is_an_error(shelf: Shelf, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load(manifest_of(shelf, tmp_path, base={}))
    assert caught.value.code == "AD904"


def test_only_the_code_of_something_unchecked_can_be_accepted_lock_or_not(
    shelf: Shelf, tmp_path: Path
) -> None:
    with pytest.raises(UsageError):
        load(manifest_of(shelf, tmp_path), accept=["AD301"])
    manifest = manifest_of(shelf, tmp_path)
    adapterdock.lock(manifest)
    with pytest.raises(UsageError):
        load(manifest, accept=["no-such-code"])


# -- in memory ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["bytes", "objects"])
def test_load_accepts_adapters_in_memory(form: str, shelf: Shelf, tmp_path: Path) -> None:
    files: dict[str, Any] = files_of(shelf.two.folder)
    if form == "objects":
        files = {
            "adapter_config.json": PeftConfig.from_pretrained(str(shelf.two.folder)),
            "adapter_model.safetensors": load_file(shelf.two.file),
        }
    adapters = {"one": {"source": shelf.one}, "two": {"source": "s3://nowhere/two"}}
    manifest = manifest_of(shelf, tmp_path, adapters=adapters)
    assert answers_as_peft(load(manifest, sources={"two": files}), shelf)


def test_an_undeclared_name_in_memory_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'two'") as caught:
        load(manifest_of(shelf, tmp_path), sources={"tow": {}})
    assert caught.value.code == "AD910"

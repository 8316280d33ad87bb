"""New adapters that a manifest declares: checked without torch, locked, determined by a seed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.merge_files import merge_to_folder
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    AttachError,
    FitError,
    LockError,
    ManifestError,
)
from adapterdock.manifests.lockfile import lock_path, read_lock
from peft import LoraConfig, get_peft_model
from support.new_adapters import steps
from support.peft_adapters import logits
from support.shelf import Shelf, manifest_of, write_manifest
from transformers import AutoModelForCausalLM

LORA: dict[str, Any] = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj", "v_proj"]}


def new_adapter(config: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"config": config or LORA, "trainable": True, **more}


def written(shelf: Shelf, folder: Path, adapters: dict[str, Any], **more: Any) -> Path:
    return manifest_of(shelf, folder, adapters=adapters, **more)


def values(model: AdaptedModel, name: str = "new") -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items() if f".{name}" in k}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.fixture
def manifest(shelf: Shelf, tmp_path: Path) -> Path:
    adapters = {"new": new_adapter(seed=7), "one": {"source": shelf.one}}
    return written(shelf, tmp_path, adapters, active="new")


def test_a_declared_new_adapter_is_created_and_trained(manifest: Path, shelf: Shelf) -> None:
    model = adapterdock.load(manifest)
    mine = model._host.adapters.by_name["new"]
    assert mine.trainable and mine.rank == 4 and model.active_adapters() == ["new"]
    assert all(
        p.requires_grad and p.dtype is torch.float32 for p in mine.resident.parameters.values()
    )
    assert not any(
        p.requires_grad for p in model._host.adapters.by_name["one"].resident.parameters.values()
    )
    assert mine.config["base_model_name_or_path"] == str(shelf.base)
    base = model.base_model
    losses = steps(model, base)
    assert losses[-1] < losses[0]


def test_declared_initial_values_are_pefts(manifest: Path, shelf: Shelf) -> None:
    before = torch.get_rng_state()
    model = adapterdock.load(manifest)
    assert torch.equal(torch.get_rng_state(), before)  # nobody else's numbers are used up
    base = AutoModelForCausalLM.from_pretrained(shelf.base)
    torch.manual_seed(7)
    theirs = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]), "new")
    own = dict(theirs.named_parameters())
    assert values(model) and all(torch.equal(v, own[k]) for k, v in values(model).items())


def test_the_seed_determines_the_declared_adapter(shelf: Shelf, tmp_path: Path) -> None:
    def of(folder: str, **more: Any) -> dict[str, torch.Tensor]:
        return values(
            adapterdock.load(written(shelf, tmp_path / folder, {"new": new_adapter(**more)}))
        )

    first = of("a", seed=3)
    assert same(first, of("b", seed=3))
    assert not same(first, of("c", seed=4))
    assert same(of("d"), of("e", seed=0))


def test_the_lock_pins_config_and_seed(manifest: Path, shelf: Shelf) -> None:
    adapterdock.lock(manifest)
    lock = read_lock(lock_path(manifest))
    assert lock is not None
    entry = lock.adapters["new"]
    assert (entry.declared, entry.seed, entry.method, entry.rank) == ("begun", 7, "LORA", 4)
    assert entry.targets == ("q_proj", "v_proj") and entry.digest and not entry.files
    assert adapterdock.validate(manifest, frozen=True).ok
    first = adapterdock.load(manifest, frozen=True)
    assert same(values(first), values(adapterdock.load(manifest, frozen=True)))


CHANGES = {
    "another rank": new_adapter({**LORA, "r": 8}, seed=7),
    "another seed": new_adapter(seed=8),
    "a source": {"source": "./one"},
}


@pytest.mark.parametrize("what", CHANGES)
def test_another_config_or_seed_makes_the_lock_stale(
    what: str, manifest: Path, shelf: Shelf
) -> None:
    adapterdock.lock(manifest)
    adapters = {"new": CHANGES[what], "one": {"source": shelf.one}}
    written(shelf, manifest.parent, adapters, active="new")
    with pytest.raises(LockError) as caught:
        adapterdock.load(manifest, frozen=True)
    assert caught.value.code == "AD505", str(caught.value)
    assert "adapters.new." in str(caught.value)


def test_a_lock_whose_digest_was_edited_is_refused(manifest: Path) -> None:
    adapterdock.lock(manifest)
    path = lock_path(manifest)
    lock = read_lock(path)
    assert lock is not None and lock.adapters["new"].digest is not None
    path.write_text(path.read_text().replace(lock.adapters["new"].digest, f"sha256:{'0' * 64}"))
    with pytest.raises(LockError):
        adapterdock.load(manifest)


def test_a_declared_new_adapter_is_validated_without_torch(manifest: Path) -> None:
    code = (
        "import sys, adapterdock\n"
        f"report = adapterdock.validate({str(manifest)!r})\n"
        "assert report.ok, report.findings\n"
        "print(report.adapters['new'])\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "'rank': 4" in ran.stdout and "'sites': 4" in ran.stdout


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no such module": ({**LORA, "target_modules": ["q_porj"]}, "AD795"),
    "no method": ({"r": 4}, "AD311"),
    "an unknown field": ({**LORA, "rnak": 3}, "AD315"),
    "the wrong kind": ({**LORA, "r": "four"}, "AD313"),
    "it changes the base": ({**LORA, "init_lora_weights": "pissa"}, "AD796"),
    "adalora": (
        {"peft_type": "ADALORA", "target_modules": ["q_proj"], "total_step": 10},
        "AD797",
    ),
    "no encoder": (
        {
            "peft_type": "P_TUNING",
            "task_type": "CAUSAL_LM",
            "num_virtual_tokens": 3,
            "encoder_reparameterization_type": "GRU",
        },
        "AD796",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_config_errors_are_reported_before_the_base_is_loaded(
    what: str, shelf: Shelf, tmp_path: Path
) -> None:
    config, code = WRONG[what]
    manifest = written(shelf, tmp_path, {"new": new_adapter(config)})
    report = adapterdock.validate(manifest)
    assert code in {finding.code for finding in report.errors}, report.findings
    assert all(f.where.path[:3] == ("adapters", "new", "config") for f in report.errors)
    for act in (adapterdock.lock, adapterdock.load):
        with pytest.raises(FitError) as caught:
            act(manifest)
        assert code in {finding.code for finding in caught.value.findings}
    assert not lock_path(manifest).exists()


CONFLICTS: dict[str, tuple[dict[str, Any], str]] = {
    "neither": ({"trainable": True}, "AD122"),
    "both": ({"source": "./one", **new_adapter()}, "AD820"),
    "not trained": ({"config": LORA}, "AD821"),
    "a digest": (new_adapter(sha256=f"sha256:{'0' * 64}"), "AD822"),
    "lazy": (new_adapter(lazy=False), "AD822"),
    "mutable": (new_adapter(mutable=True), "AD822"),
    "a seed for a source": ({"source": "./one", "seed": 3}, "AD822"),
}


@pytest.mark.parametrize("what", CONFLICTS)
def test_conflicting_fields_of_a_new_adapter_are_refused(
    what: str, shelf: Shelf, tmp_path: Path
) -> None:
    adapter, code = CONFLICTS[what]
    manifest = written(shelf, tmp_path, {"new": adapter})
    with pytest.raises(ManifestError) as caught:
        adapterdock.load(manifest)
    assert [f.code for f in caught.value.findings] == [code], str(caught.value)
    assert caught.value.findings[0].where.line


def test_an_invalid_source_is_one_error(shelf: Shelf, tmp_path: Path) -> None:
    manifest = written(shelf, tmp_path, {"new": {"source": "acme/one"}})
    with pytest.raises(ManifestError) as caught:
        adapterdock.load(manifest)
    assert len(caught.value.findings) == 1


def test_attach_checks_the_modules_of_the_live_model(shelf: Shelf, tmp_path: Path) -> None:
    config = {"peft_type": "LORA"}  # PEFT's modules for a Llama
    manifest = write_manifest(tmp_path, base={}, adapters={"new": new_adapter(config)})
    base = AutoModelForCausalLM.from_pretrained(shelf.base)
    model = adapterdock.attach(base, manifest)
    assert {m.rpartition(".")[2] for m in model.adapters["new"].modules} == {"q_proj", "v_proj"}

    report = adapterdock.validate(manifest)
    assert {f.code for f in report.unchecked} == {"AD823"}
    assert adapterdock.validate(manifest, accept=["AD823"]).ok
    with pytest.raises(FitError) as caught:
        adapterdock.lock(manifest)
    assert caught.value.code == "AD823"
    adapterdock.lock(manifest, accept=["AD823"])
    assert (
        adapterdock.attach(AutoModelForCausalLM.from_pretrained(shelf.base), manifest, frozen=True)
        .adapters["new"]
        .trainable
    )


def test_a_plan_creates_new_adapters_and_keeps_trained_ones(shelf: Shelf, tmp_path: Path) -> None:
    manifest = written(shelf, tmp_path, {"one": {"source": shelf.one}})
    model = adapterdock.load(manifest)
    written(shelf, tmp_path, {"one": {"source": shelf.one}, "new": new_adapter()}, active="new")
    plan = model.plan(manifest)
    assert list(plan.added) == ["new"] and ", new" in str(plan) and "trainable" in str(plan)
    model.apply(plan)
    assert model.active_adapters() == ["new"] and model._host.adapters.by_name["new"].trainable
    steps(model, model.base_model)
    trained = values(model)
    plan = model.plan(manifest)
    assert not plan and plan.kept == ("one", "new")
    written(
        shelf, tmp_path, {"one": {"source": shelf.one}, "new": new_adapter(seed=1)}, active="new"
    )
    plan = model.plan(manifest)
    assert list(plan.replaced) == ["new"]
    model.apply(plan)
    assert not same(trained, values(model))


def test_a_failed_plan_with_a_new_adapter_changes_nothing(shelf: Shelf, tmp_path: Path) -> None:
    manifest = written(shelf, tmp_path, {"one": {"source": shelf.one}})
    model = adapterdock.load(manifest)
    text = {
        "peft_type": "PROMPT_TUNING",
        "task_type": "CAUSAL_LM",
        "num_virtual_tokens": 3,
        "prompt_tuning_init": "TEXT",
        "prompt_tuning_init_text": "w4 w5",
        "tokenizer_name_or_path": "./gone",
    }
    written(shelf, tmp_path, {"one": {"source": shelf.one}, "new": new_adapter(text)})
    with pytest.raises(AttachError) as caught:
        model.apply(model.plan(manifest))
    assert caught.value.code == "AD748"
    assert list(model.adapters) == ["one"]


def test_a_trained_new_adapter_is_saved_as_a_source(manifest: Path, tmp_path: Path) -> None:
    model = adapterdock.load(manifest)
    steps(model, model.base_model)
    answer = logits(model)
    model.save_pretrained(tmp_path / "saved")
    again = adapterdock.load(tmp_path / "saved")
    assert again._host.adapters.by_name["new"].trainable and same(values(model), values(again))
    assert torch.equal(logits(again), answer)
    text = (tmp_path / "saved" / "adapterdock.yaml").read_text()
    assert "source: ." in text and "peft_type" not in text


def test_an_overlay_can_change_a_new_adapters_fields(
    manifest: Path, shelf: Shelf, tmp_path: Path
) -> None:
    over = tmp_path / "over.yaml"
    over.write_text(
        "version: 1\nextends: adapters.yaml\nadapters:\n"
        "  new: {config: {r: 2}, seed: 9}\n"
        "  one: {source: null, trainable: true, config: {peft_type: IA3}}\n"
    )
    model = adapterdock.load(over)
    assert model._host.adapters.by_name["new"].rank == 2
    assert model.adapters["one"].methods == ("IA3",)


def test_show_lists_a_new_adapter(manifest: Path) -> None:
    from adapterdock.cli.main import app
    from typer.testing import CliRunner

    shown = CliRunner().invoke(app, ["show", str(manifest)])
    assert shown.exit_code == 0, shown.output
    (line,) = [line for line in shown.output.splitlines() if line.strip().startswith("new")]
    assert "LORA" in line and line.rstrip().endswith("new") and "q_proj,v_proj" in line
    resolved = CliRunner().invoke(app, ["show", str(manifest), "--resolved"])
    assert resolved.exit_code == 0 and "target_modules" in resolved.output
    as_json = CliRunner().invoke(app, ["show", str(manifest), "--json"])
    assert json.loads(as_json.output)["adapters"]["new"]["source"] == "begun"


def test_a_new_adapter_cannot_be_passed_in_memory_or_merged(
    manifest: Path, shelf: Shelf, tmp_path: Path
) -> None:
    with pytest.raises(AdapterdockError) as caught:
        adapterdock.load(manifest, sources={"new": {}})
    assert "no adapter 'new' with a source" in str(caught.value)
    with pytest.raises(AttachError) as refused:
        merge_to_folder(manifest, tmp_path / "out", selection="new")
    assert refused.value.code == "AD821"
    assert not (tmp_path / "out").exists()

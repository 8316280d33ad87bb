"""`adapterdock diff`: config, targets, metrics, and the change in each layer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.project import Project
from typer.testing import Result

Cli = Callable[..., Result]
PREFIX = "base_model.model."


@pytest.fixture
def desk(project: Project, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Project:
    project.base()
    project.adapter("one", seed=1)
    project.adapter("other", seed=2, r=8, lora_alpha=16)
    project.write({"one": "./one"}, registries={"team": "./registry"})
    monkeypatch.chdir(project.folder)
    return project


def data(cli: Cli, *arguments: object) -> dict[str, Any]:
    done = cli("diff", *arguments, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def full(folder: Path) -> dict[str, torch.Tensor]:
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    found: dict[str, torch.Tensor] = {}
    for name in tensors:
        if name.endswith(".lora_A.weight"):
            module = name.removeprefix(PREFIX).removesuffix(".lora_A.weight")
            b = tensors[name.replace("lora_A", "lora_B")].double()
            found[module] = config["lora_alpha"] / config["r"] * b @ tensors[name].double()
    return found


def test_norms_and_cosines_are_those_of_the_full_matrices(desk: Project, cli: Cli) -> None:
    found = data(cli, "./one", "./other")
    one, other = full(desk.folder / "one"), full(desk.folder / "other")
    assert found["modules"].keys() == one.keys()
    for module, row in found["modules"].items():
        a, b = one[module], other[module]
        assert row["a"] == pytest.approx(a.norm().item(), rel=1e-6)
        assert row["b"] == pytest.approx(b.norm().item(), rel=1e-6)
        cosine = ((a * b).sum() / a.norm() / b.norm()).item()
        assert row["cosine"] == pytest.approx(cosine, abs=1e-9)
    for row in found["layers"]:
        names = [name for name in one if f".{row['layer']}." in name]
        a = torch.cat([one[name].flatten() for name in names])
        b = torch.cat([other[name].flatten() for name in names])
        assert row["a"] == pytest.approx(a.norm().item(), rel=1e-6)
        assert row["cosine"] == pytest.approx(
            torch.nn.functional.cosine_similarity(a, b, dim=0).item(), abs=1e-9
        )


def test_the_same_change_has_cosine_one_and_the_opposite_minus_one(desk: Project, cli: Cli) -> None:
    path = desk.folder / "other" / "adapter_model.safetensors"
    tensors = load_file(desk.folder / "one" / "adapter_model.safetensors")
    (desk.folder / "other" / "adapter_config.json").write_bytes(
        (desk.folder / "one" / "adapter_config.json").read_bytes()
    )
    save_file({n: -3 * t if "lora_B" in n else t for n, t in tensors.items()}, path)
    found = data(cli, "./one", "./other")
    assert {round(row["cosine"], 6) for row in found["layers"]} == {-1.0}
    assert all(row["b"] == pytest.approx(3 * row["a"]) for row in found["layers"])
    assert found["config"] == {}
    itself = data(cli, "./one", "./one")
    assert {round(row["cosine"], 6) for row in itself["modules"].values()} == {1.0}


def test_config_targets_and_metrics_are_compared(desk: Project, cli: Cli) -> None:
    assert cli("registry", "init", "./registry").exit_code == 0
    for version, folder, value in (("1.0.0", "one", 0.5), ("1.1.0", "other", 0.75)):
        (desk.folder / "m.json").write_text(json.dumps({"accuracy": value}))
        done = cli("publish", f"./{folder}", f"team/refunds@{version}", "--metrics", "m.json")
        assert done.exit_code == 0, done.stderr
    cli("promote", "team/refunds@1.1.0", "prod")
    found = data(cli, "team/refunds@1.0.0", "registry://team/refunds@prod")
    assert found["metrics"] == {"accuracy": {"a": 0.5, "b": 0.75}}
    assert found["config"]["r"] == {"a": 4, "b": 8}
    assert found["same"] is False
    assert data(cli, "team/refunds@1.1.0", "team/refunds@prod")["same"] is True
    shown = cli("diff", "team/refunds@1.0.0", "./other").stdout
    assert "r\t4\t8" in shown and "accuracy\t0.5\t-" in shown
    assert "layer\tnorm of A\tnorm of B\tcosine" in shown


def test_a_module_that_only_one_changes_has_no_cosine(desk: Project, cli: Cli) -> None:
    modules = {"model.layers.0.self_attn.q_proj": (64, 64)}
    desk.adapter("less", modules=modules, target_modules=["q_proj"])
    found = data(cli, "./one", "./less")
    assert found["targets"] == {"only_a": ["v_proj"], "only_b": []}
    alone = found["modules"]["model.layers.0.self_attn.v_proj"]
    assert alone["b"] == 0 and alone["cosine"] is None
    assert "Only A targets v_proj" in cli("diff", "./one", "./less").stdout


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (("./one", "./nothing"), 1, "AD2"),
        (("one", "./other"), 2, "AD865"),
        (("./one", "refunds"), 2, "AD865"),
        (("./one", "team/refunds@1.0.0"), 1, "AD860"),
        (("./one", "./base"), 1, "AD369"),
    ],
)
def test_what_cannot_be_compared_is_a_finding(
    desk: Project, cli: Cli, arguments: tuple[str, ...], status: int, code: str
) -> None:
    done = cli("diff", *arguments)
    assert (done.exit_code, code in done.stderr) == (status, True), done.stderr


def test_without_numpy_the_rest_is_compared(
    desk: Project, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapterdock.registry.diffing.find_spec", lambda name: None)
    done = cli("diff", "./one", "./other")
    assert done.exit_code == 0
    assert "r\t4\t8" in done.stdout and "numpy is not installed" in done.stdout

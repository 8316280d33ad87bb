"""Modules that a model never calls: factors have no effect there; biases and saved modules do."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
import yaml
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.adapter.warning import AdapterWarning
from adapterdock.loader.base.layout import layout_of_model
from adapterdock.loader.base.uncalled import uncalled_children
from adapterdock.manifests.findings.errors import AdapterdockError, FitError
from adapterdock.registry.checks import zeros
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from support.near import close, differs
from support.tiny_models import tiny_model
from torch import nn

OUT = "head.attention.out_proj"


def siglip() -> Any:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    config = SiglipVisionConfig(**sizes, num_attention_heads=2, image_size=16, patch_size=4)
    return SiglipVisionModel(config).eval()


def pooled(model: Any) -> torch.Tensor:
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return model(pixel_values=pixels).pooler_output


def saved(
    folder: Path, base: Any = None, changed: Callable[[str], bool] = bool, **config: Any
) -> Any:
    """The base, a folder with both, and PEFT's answer. Values are random where ``changed``."""
    base = base or siglip()
    base.save_pretrained(folder / "base")
    settings: dict[str, Any] = {"r": 2, **config}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained = get_peft_model(copy.deepcopy(base), LoraConfig(**settings)).eval()
        torch.manual_seed(5)
        for name, value in trained.named_parameters():
            if value.requires_grad and changed(name):
                value.data.normal_(std=0.5)
        trained.save_pretrained(str(folder / "it"))
    said = json.loads((folder / "it/adapter_config.json").read_text())
    said["base_model_name_or_path"] = "org/base"
    (folder / "it/adapter_config.json").write_text(json.dumps(said))
    manifest = {
        "version": 1,
        "base": {"model": "./base", "aliases": ["org/base"]},
        "adapters": {"it": {"source": "./it"}},
        "active": "it",
    }
    (folder / "m.yaml").write_text(yaml.safe_dump(manifest))
    return base


def trained_by_peft(name: str) -> bool:
    return OUT not in name or "lora_B" not in name


def codes(folder: Path) -> tuple[bool, list[str]]:
    report = adapterdock.validate(folder / "m.yaml")
    return report.ok, [finding.code for finding in report.findings]


ALL: dict[str, Any] = {"target_modules": ["q_proj", "v_proj", "out_proj"]}


def test_zero_factors_on_an_uncalled_module_only_warn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = saved(tmp_path, changed=trained_by_peft, **ALL)
    assert codes(tmp_path) == (True, ["AD357"])
    with warnings.catch_warnings():
        warnings.simplefilter("error", AdapterWarning)
        model = adapterdock.attach(base, tmp_path / "m.yaml")
        oracle = PeftModel.from_pretrained(copy.deepcopy(siglip()), tmp_path / "it")
        assert close(pooled(model), pooled(oracle))
    assert "AD357" in caplog.text
    assert {one.code for one in model.findings} == {
        "AD357",
        "AD512",
    }  # and no finding about unused modules
    assert differs(pooled(model), pooled(siglip()))


def test_nonzero_factors_on_an_uncalled_module_are_refused(tmp_path: Path) -> None:
    base = saved(tmp_path, **ALL)
    assert codes(tmp_path) == (False, ["AD356"])
    with pytest.raises(FitError) as caught:
        AdaptedModel(base).load_adapter(tmp_path / "it", "it")
    assert [one.code for one in caught.value.findings if one.code == "AD356"]
    assert OUT in str(caught.value)


def test_values_are_not_read_if_all_targets_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, target_modules=["q_proj", "v_proj"])
    monkeypatch.setattr(zeros, "all_zero", None)
    assert codes(tmp_path) == (True, [])


def test_only_the_tensors_that_decide_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def counted(raw: bytes, info: Any) -> bool:
        seen.append(len(raw))
        return real(raw, info)

    real = zeros.all_zero
    saved(tmp_path, changed=trained_by_peft, **ALL)
    monkeypatch.setattr(zeros, "all_zero", counted)
    assert codes(tmp_path) == (True, ["AD357"])
    assert seen == [32 * 2 * 4]


@pytest.mark.parametrize("limit", ["IDLE_BYTES", "IDLE_TENSORS"])
def test_values_beyond_the_bound_are_not_read_and_refused(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = saved(tmp_path, changed=trained_by_peft, **ALL)
    monkeypatch.setattr(zeros, limit, 0)
    assert codes(tmp_path) == (False, ["AD356"])
    with pytest.raises(FitError, match="AD356"):
        AdaptedModel(base).load_adapter(tmp_path / "it", "it")


def test_negative_zeros_count_as_zeros() -> None:
    from adapterdock.registry.files.facts import TensorInfo

    for kind, dtype in (("F32", torch.float32), ("BF16", torch.bfloat16), ("F64", torch.float64)):
        for values, zero in (([0.0, -0.0], True), ([0.0, 1.0], False), ([-0.0, 1e-30], False)):
            raw = torch.tensor(values, dtype=dtype).view(torch.uint8).numpy().tobytes()
            assert zeros.all_zero(raw, TensorInfo(kind, (2,))) is zero


def test_a_bias_read_elsewhere_is_the_adapters(tmp_path: Path) -> None:
    """PEFT trains biases in the base; that of ``out_proj`` is read by its attention."""
    base = saved(tmp_path, changed=trained_by_peft, bias="lora_only", **ALL)
    alone = pooled(base)
    tensors = load_file(tmp_path / "it/adapter_model.safetensors")
    key = f"base_model.model.{OUT}.base_layer.bias"
    assert tensors[key].any()
    oracle = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "it")
    model = AdaptedModel(base)
    model.load_adapter(tmp_path / "it", "it")
    model.set_adapter("it")
    assert close(pooled(model), pooled(oracle))
    assert torch.equal(pooled(base), alone)
    others = {name: value for name, value in tensors.items() if name != key}
    save_file({**others, key: torch.zeros(32)}, tmp_path / "it/adapter_model.safetensors")
    model.load_adapter(tmp_path / "it", "without")
    assert differs(pooled(model), pooled_with(model, "without"))


def pooled_with(model: Any, name: str) -> torch.Tensor:
    with model.using(name):
        return pooled(model)


def test_a_saved_module_is_used_where_its_weight_is_read(tmp_path: Path) -> None:
    base = saved(tmp_path, target_modules=["q_proj"], modules_to_save=[OUT])
    assert codes(tmp_path)[0]
    oracle = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "it")
    model = adapterdock.attach(base, tmp_path / "m.yaml")
    assert close(pooled(model), pooled(oracle))
    assert differs(pooled(model), pooled(siglip()))


def test_mambas_dt_proj_is_uncalled_and_its_x_proj_is_called(tmp_path: Path) -> None:
    base = tiny_model("mamba").eval()
    layout = layout_of_model(base)
    mixer = "backbone.layers.0.mixer"
    assert not layout.modules[f"{mixer}.dt_proj"].called
    assert layout.modules[f"{mixer}.x_proj"].called
    zero = saved(tmp_path, base, lambda n: "dt_proj" not in n, target_modules=["x_proj", "dt_proj"])
    assert codes(tmp_path) == (True, ["AD357"])
    assert adapterdock.attach(zero, tmp_path / "m.yaml")._host.adapters.by_name


class Reads(nn.Module):
    """One module for each kind of use."""

    def __init__(self) -> None:
        super().__init__()
        self.called = nn.Linear(4, 4)
        self.both = nn.Linear(4, 4)
        self.read = nn.Linear(4, 4)
        self.passed = nn.Linear(4, 4)
        self.listed = nn.ModuleList([nn.Linear(4, 4)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.called(x) @ self.read.weight + self.read.bias
        x = self.both(x) + self.both.weight.sum()
        return self.run(self.passed, x) + self.listed[0](x).sum() + self.passed.weight.sum()

    def run(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return module(x)


def test_a_module_is_uncalled_if_only_its_weight_is_used() -> None:
    assert uncalled_children(Reads()) == {"read"}
    assert uncalled_children(nn.MultiheadAttention(4, 2)) == {"out_proj"}


def test_a_new_adapter_on_an_uncalled_module_is_refused(tmp_path: Path) -> None:
    model = AdaptedModel(siglip())
    with pytest.raises(AdapterdockError, match="AD356"):
        model.add_adapter("new", {"peft_type": "LORA", **ALL})
    model.add_adapter("new", {"peft_type": "LORA", **ALL, "exclude_modules": [OUT]})
    assert OUT not in model._host.adapters.by_name["new"].sites

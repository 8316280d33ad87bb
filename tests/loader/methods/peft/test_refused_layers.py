"""Adapters that PEFT's layers do not fit, and layers that would change the base, are refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import AttachError, FitError
from adapterdock.manifests.findings.loader import PEFT_MISSING
from safetensors.torch import load_file, save_file
from support.near import close
from support.peft_adapters import (
    attach,
    logits,
    peft_saves,
    same_traces,
    tiny_llama,
    traces,
)
from support.peft_methods import saved_by_peft


def _tampered(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})


Q = "base_model.model.model.layers.0.self_attn.q_proj."
LAST = "base_model.model.model.layers.1.mlp.down_proj."
MISFITS: dict[str, tuple[str, Callable[[dict[str, torch.Tensor]], object], str]] = {
    "another shape": ("HRA", lambda t: t.update({f"{Q}hra_u": t[f"{Q}hra_u"][:-1]}), "AD391"),
    "a tensor too few": ("BOFT", lambda t: t.pop(f"{Q}boft_s"), "AD391"),
    "a tensor too many": ("MISS", lambda t: t.update({f"{Q}miss_x": torch.ones(1)}), "AD391"),
    "floats for integers": (
        "SUPERTUNING",
        lambda t: t.update({f"{Q}supertuning_indices": t[f"{Q}supertuning_indices"].float()}),
        "AD391",
    ),
    "numbers out of range": (
        "SHIRA",
        lambda t: t.update({f"{LAST}shira_indices": t[f"{LAST}shira_indices"] + 1000}),
        "AD819",
    ),
    "numbers out of a vector": (
        "SUPERTUNING",
        lambda t: t[f"{LAST}supertuning_indices"].add_(9000),
        "AD819",
    ),
    "NaN": ("MISS", lambda t: t[f"{Q}miss_block"].fill_(float("nan")), "AD7"),
    "a shared tensor too few": ("PVERA", lambda t: t.pop("base_model.pvera_A"), "AD391"),
    "shapes that the weights decide": (
        "ADAMSS",
        lambda t: t.update({f"{Q}adamss_A.0": torch.ones(3, 3)}),
        "AD391",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_file_that_differs_from_pefts_is_refused_and_not_attached(
    case: str, tmp_path: Path
) -> None:
    method, change, code = MISFITS[case]
    base = tiny_llama()
    before = traces(base)
    saved = saved_by_peft(method, tmp_path / "it", base)
    _tampered(saved.folder, change)
    model = AdaptedModel(base)
    with pytest.raises((AttachError, FitError)) as caught:
        model.load_adapter(saved.folder, "it")
    assert any(f.code.startswith(code) for f in caught.value.findings), caught.value
    assert model.adapters == {}
    with pytest.raises(AttachError):  # also without those checks
        attach(AdaptedModel(model.detach()), saved)
    assert same_traces(traces(base), before)


def test_missing_peft_names_the_method_and_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_llama()
    saved = saved_by_peft("HRA", tmp_path / "it", base)
    lora = peft_saves(base, tmp_path / "lora", target_modules=["q_proj"])
    for name in [name for name in sys.modules if name.partition(".")[0] == "peft"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "peft", None)
    model = AdaptedModel(base)
    model.load_adapter(lora.folder, "lora")  # needs no PEFT
    with pytest.raises(FitError) as caught:
        model.load_adapter(saved.folder, "it")
    (finding,) = [f for f in caught.value.findings if f.code == PEFT_MISSING.id]
    assert "HRA" in finding.message and "pip install 'adapterdock[peft]'" in str(finding.hint)


def test_peft_without_the_method_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import peft.mapping

    base = tiny_llama()
    saved = saved_by_peft("HRA", tmp_path / "it", base)
    older = {k: v for k, v in peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING.items() if k != "HRA"}
    monkeypatch.setattr(peft.mapping, "PEFT_TYPE_TO_TUNER_MAPPING", older)
    with pytest.raises(FitError, match="The installed PEFT does not know HRA"):
        AdaptedModel(base).load_adapter(saved.folder, "it")


@pytest.mark.parametrize("how", ["in place", "the flag", "through the layer"])
def test_layers_that_would_change_the_base_are_refused(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft.tuners.hra.layer import HRALayer

    base = tiny_llama()
    before = traces(base)
    saved = saved_by_peft("HRA", tmp_path / "it", base)
    plain = HRALayer.update_layer

    def update_layer(self: Any, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **kwargs)
        weight = self.get_base_layer().weight
        if weight.is_meta:
            return
        if how == "in place":
            with torch.no_grad():
                weight.mul_(1.0)
        elif how == "the flag":
            weight.requires_grad_(True)
        else:
            weight.data = weight.data * 2

    monkeypatch.setattr(HRALayer, "update_layer", update_layer)
    model = AdaptedModel(base)
    if how == "in place":
        with pytest.raises(AttachError, match="AD818"):
            model.load_adapter(saved.folder, "it")
    else:  # of the stand-in, not of the base
        model.load_adapter(saved.folder, "it")
        assert close(logits(model, adapter="it"), saved.answer)
    assert same_traces(traces(model.detach()), before)

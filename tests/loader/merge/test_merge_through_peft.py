"""Adapters that attach through PEFT, in the base's weights: the live answer, and every bit back."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.merge_files import merge_to_folder
from adapterdock.manifests.findings.errors import AttachError
from adapterdock.manifests.findings.finding import Severity
from safetensors.torch import load_file
from support.near import close
from support.peft_adapters import (
    adapted,
    attach,
    logits,
    peft_saves,
    same_traces,
    tiny_llama,
    traces,
)
from support.peft_methods import CASES, OTHERS, TARGETS, config_class, saved_by_peft
from support.shelf import write_manifest

ALL = {name: (name, make, config) for name, (make, config) in CASES.items()} | OTHERS
MERGED = [name for name, (method, _, _) in ALL.items() if method != "LILY"]
ON_DISK = [name for name in CASES if name != "LILY"]


def codes(caught: pytest.ExceptionInfo[Any]) -> set[str]:
    return {finding.code for finding in caught.value.findings}


@pytest.mark.parametrize("case", MERGED)
def test_merged_answers_are_pefts_at_any_weight_and_every_bit_comes_back(
    case: str, tmp_path: Path
) -> None:
    method, make, config = ALL[case]
    base = make()
    saved = peft_saves(base, tmp_path / "it", kind=config_class(method), **config)
    model = adapted(base, saved)
    before = traces(base)
    whole = "lm_head" in str(config) or config.get("task_type") or config.get("bias")
    for weight in (1.0,) if whole else (1.0, -0.5):
        live = logits(model, adapter={"it": weight})
        model.merge_adapter({"it": weight}, safe_merge=True)
        assert close(logits(base), live), weight
        model.unmerge_adapter()
        assert same_traces(traces(base), before)
    model.merge_adapter()
    assert close(logits(model), saved.answer)
    plain = model.merge_and_unload()
    assert plain is base and close(logits(base), saved.answer)


@pytest.mark.parametrize("method", ["HRA", "FROD", "ADAMSS", "VBLORA", "GLORA"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_unmerging_restores_every_bit_in_any_dtype(
    method: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    base = CASES[method][0]()
    saved = saved_by_peft(method, tmp_path / "it", base)
    model = adapted(base.to(dtype), saved)
    live = logits(model)
    before = traces(base)
    model.merge_adapter()
    near = 0.05 * live.abs().max() if dtype is torch.bfloat16 else 1e-5
    assert (logits(base) - live).abs().max() <= near
    model.unmerge_adapter()
    assert same_traces(traces(base), before)


def test_a_sum_beside_native_adapters_is_their_live_sum(tmp_path: Path) -> None:
    base = tiny_llama()
    model = adapted(base, saved_by_peft("HRA", tmp_path / "hra", base), "hra")
    attach(model, saved_by_peft("BOFT", tmp_path / "boft", base), "boft")
    attach(model, peft_saves(base, tmp_path / "lora", target_modules=["q_proj"]), "lora")
    weights = {"hra": 0.5, "lora": 1.0, "boft": -0.25}
    before, live = traces(base), logits(model, adapter=weights)
    model.merge_adapter(weights)
    assert close(logits(base), live)
    model.unmerge_adapter()
    assert same_traces(traces(base), before)


@pytest.mark.parametrize("method", ON_DISK)
def test_merged_from_disk_to_disk_it_answers_as_in_peft(method: str, tmp_path: Path) -> None:
    base = CASES[method][0]()
    saved = saved_by_peft(method, tmp_path / "it", base)
    manifest = _manifest(base, tmp_path)
    merge_to_folder(manifest, tmp_path / "out", accept=_unchecked(manifest))
    again = type(base).from_pretrained(tmp_path / "out").eval()
    assert close(logits(again), saved.answer)
    old, new = (load_file(tmp_path / part / "model.safetensors") for part in ("base", "out"))
    assert old.keys() == new.keys()
    apart = [n for n in old if not any(part in n for part in ("q_proj", "v_proj", "down_proj"))]
    assert all(torch.equal(new[name], old[name]) for name in apart)


def test_lily_is_refused_with_its_reason_live_and_on_disk(tmp_path: Path) -> None:
    base = tiny_llama()
    model = adapted(base, saved_by_peft("LILY", tmp_path / "it", base))
    before = traces(base)
    with pytest.raises(AttachError, match="all rows of the batch") as caught:
        model.merge_adapter()
    assert codes(caught) == {"AD757"} and same_traces(traces(base), before)
    manifest = _manifest(base, tmp_path)
    with pytest.raises(AttachError) as caught:
        merge_to_folder(manifest, tmp_path / "out", accept=_unchecked(manifest))
    assert codes(caught) == {"AD757"} and not (tmp_path / "out").exists()


def test_random_outputs_are_not_merged(tmp_path: Path) -> None:
    base = tiny_llama()
    saved = saved_by_peft("PVERA", tmp_path / "it", base, sample_at_inference=True)
    model = adapted(base, saved)
    with pytest.raises(AttachError, match="from the layer's") as caught:
        model.merge_adapter()
    assert codes(caught) == {"AD757"}


def test_a_merge_that_is_not_the_live_answer_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft.tuners.hra.layer import HRALinear

    base = tiny_llama()
    model = adapted(base, saved_by_peft("HRA", tmp_path / "it", base))
    merge = HRALinear.merge

    def twice(self: Any, *args: Any, **more: Any) -> None:
        merge(self, *args, **more)
        self.base_layer.weight.data *= 1.1

    monkeypatch.setattr(HRALinear, "merge", twice)
    before = traces(base)
    with pytest.raises(AttachError, match="from the layer's"):
        model.merge_adapter()
    assert same_traces(traces(base), before)


def test_an_adapter_without_effect_is_refused_on_disk_as_live(tmp_path: Path) -> None:
    base = tiny_llama()

    def still(model: Any) -> None:
        for name, parameter in model.named_parameters():
            if "miss_block" in name:
                parameter.data.zero_()

    kind = config_class("MISS")
    peft_saves(base, tmp_path / "it", kind=kind, change=still, **{**TARGETS, "r": 4})
    manifest = _manifest(base, tmp_path)
    with pytest.raises(AttachError):
        merge_to_folder(manifest, tmp_path / "out", accept=_unchecked(manifest))


def _manifest(base: Any, folder: Path) -> Path:
    copy.deepcopy(base).save_pretrained(folder / "base")
    return write_manifest(
        folder,
        base={"model": folder / "base"},
        adapters={"it": {"source": folder / "it"}},
        active=["it"],
    )


def _unchecked(manifest: Path) -> list[str]:
    found = adapterdock.validate(manifest).findings
    return [f.code for f in found if f.severity is Severity.UNCHECKED]

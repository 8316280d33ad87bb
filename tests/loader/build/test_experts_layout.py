"""How factors of experts lie: every PEFT wrote them in its own way, and the version says which."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.manifests.findings.errors import FitError
from adapterdock.registry.methods.lora_parameters import in_first
from adapterdock.registry.methods.peft_version import version_of
from peft import LoraConfig
from safetensors.torch import save_file
from support.moes import tiny_gpt_oss, tiny_qwen_moe
from support.near import close, differs
from support.peft_adapters import logits, peft_saves

R, EXPERTS, SCALE = 2, 4, 2
NAME = "model.layers.0.mlp.experts"


def written(
    base: Any, folder: Path, version: str | None, parameter: str, first: bool
) -> tuple[Any, dict[str, Any]]:
    """A LoRA on one parameter (experts, n, m), whose A is for n (``first``) or for m. What the base
    answers with the dense delta, and a manifest."""
    folder.mkdir(exist_ok=True)
    values = base.get_parameter(f"{NAME}.{parameter}")
    n, m = values.shape[1:]
    drawn = torch.Generator().manual_seed(3)
    inner, outer = (n, m) if first else (m, n)
    a = 0.3 * torch.randn(R * EXPERTS, inner, generator=drawn)
    b = 0.3 * torch.randn(outer, R * EXPERTS, generator=drawn)
    by_expert = (b.view(outer, R, EXPERTS), a.view(EXPERTS, R, inner))
    expected = copy.deepcopy(base)
    with torch.no_grad():
        delta = torch.einsum(f"ore,eri->{'eio' if first else 'eoi'}", *by_expert)
        expected.get_parameter(f"{NAME}.{parameter}").add_(SCALE * delta)
    config = LoraConfig(
        r=R,
        lora_alpha=R * SCALE,
        target_modules=[],
        target_parameters=[f"layers.0.mlp.experts.{parameter}"],
    )
    config.save_pretrained(str(folder))
    key = f"base_model.model.{NAME}.lora_"
    save_file({f"{key}A.weight": a, f"{key}B.weight": b}, folder / "adapter_model.safetensors")
    said = json.loads((folder / "adapter_config.json").read_text())
    del said["peft_version"]
    said |= {} if version is None else {"peft_version": version}
    (folder / "adapter_config.json").write_text(json.dumps(said))
    base.save_pretrained(folder / "base")
    manifest = {
        "version": 1,
        "base": {"model": str(folder / "base")},
        "adapters": {"it": {"source": str(folder)}},
        "active": "it",
    }
    return logits(expected), manifest


def square() -> Any:
    return tiny_qwen_moe(moe_intermediate_size=8)  # gate and up are (4, 16, 16)


def square_oss() -> Any:
    return tiny_gpt_oss(intermediate_size=8)  # likewise, and transposed


BASES: dict[str, Callable[[], Any]] = {"plain": square, "transposed": square_oss}
WRITTEN = [
    ("0.18.1", "plain", True),
    ("0.18.1", "transposed", True),
    ("0.19.0", "plain", True),
    ("0.19.0", "transposed", False),
    ("0.19.1", "plain", False),
    ("0.19.1", "transposed", True),
    ("0.21.2", "plain", False),
    ("0.21.2", "transposed", True),
]


@pytest.mark.parametrize(("version", "base", "first"), WRITTEN)
def test_square_experts_are_read_as_their_peft_wrote_them(
    version: str, base: str, first: bool, tmp_path: Path
) -> None:
    model = BASES[base]()
    wanted, manifest = written(model, tmp_path / "it", version, "gate_up_proj", first)
    assert adapterdock.validate(manifest).ok
    assert close(logits(adapterdock.attach(model, manifest)), wanted)
    assert differs(wanted, logits(BASES[base]()))


@pytest.mark.parametrize("version", [None, "0.19.0.dev0", "0.18.2.dev0@abc"])
def test_square_experts_of_no_known_version_are_refused_from_files_and_live(
    version: str | None, tmp_path: Path
) -> None:
    model = square()
    _, manifest = written(model, tmp_path / "it", version, "gate_up_proj", True)
    report = adapterdock.validate(manifest)
    assert [one.code for one in report.findings if one.code == "AD358"] and not report.ok
    with pytest.raises(FitError, match="AD358"):
        adapterdock.attach(model, manifest)


@pytest.mark.parametrize("version", [None, "0.18.1", "0.19.0", "0.21.2"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("make", [tiny_qwen_moe, tiny_gpt_oss])
def test_sizes_decide_between_layouts_of_experts(
    make: Callable[[], Any], first: bool, version: str | None, tmp_path: Path
) -> None:
    model = make()
    wanted, manifest = written(model, tmp_path / "it", version, "gate_up_proj", first)
    assert adapterdock.validate(manifest).ok
    assert close(logits(adapterdock.attach(model, manifest)), wanted)


def test_merged_experts_of_an_older_peft_answer_as_live(tmp_path: Path) -> None:
    model = square()
    wanted, manifest = written(model, tmp_path / "it", "0.18.1", "gate_up_proj", True)
    merged = adapterdock.attach(model, manifest)
    merged.merge_adapter()
    assert close(logits(merged), wanted)


@pytest.mark.parametrize("make", [square, square_oss])
def test_files_of_the_current_peft_are_still_read(make: Callable[[], Any], tmp_path: Path) -> None:
    model = make()
    both = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    saved = peft_saves(model, tmp_path / "it", target_parameters=both, target_modules=[])
    adapted = adapterdock.AdaptedModel(model)
    adapted.load_adapter(tmp_path / "it", "it")
    assert close(logits(adapted, adapter="it"), saved.answer)


def test_experts_that_transformers_has_turned_are_refused_where_they_are_square(
    tmp_path: Path,
) -> None:
    """Up to transformers 4, Qwen3-VL's experts were (experts, in, out), in its files they are so
    still: the version of PEFT does not tell which transformers the adapter was trained with."""
    from adapterdock.registry.files.conversion import Rule
    from adapterdock.registry.files.facts import Layout
    from adapterdock.registry.methods.lora_parameters import turned_since

    rule = {
        "match": "(?P<g0>mlp.experts.gate_up_proj)",
        "from": ["mlp.experts.gate_up_proj"],
        "to": ["mlp.experts.gate_up_proj"],
        "do": [["Transpose", 1, 2, True]],
    }
    layout = Layout({}, conversions=lambda: (Rule.parse(rule),))
    assert turned_since(f"{NAME}.gate_up_proj", layout)
    assert not turned_since(f"{NAME}.down_proj", layout)
    assert not turned_since(f"{NAME}.gate_up_proj", Layout({}))


def test_versions_are_read_with_what_was_not_released() -> None:
    def of(text: object) -> Any:
        return version_of({"peft_version": text})

    assert of("0.21.2") == (0, 21, 2, False)
    assert of("0.19.1.dev0@UNKNOWN") == (0, 19, 1, True)
    assert of("1.0") == (1, 0, 0, False)
    assert of("latest") is of(7) is of(None) is None
    assert in_first(of("0.20.0")) == (False, True)
    assert in_first(of("0.18.0")) == (True, True)
    assert in_first(of("0.19.0")) == (True, False)
    assert in_first(of("0.19.2.dev0")) == (False, True)

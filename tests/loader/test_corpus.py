"""Real configs from public repositories on tiny bases of their kinds, compared with PEFT."""

from __future__ import annotations

import copy
import json
import re
import shutil
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.manifests.findings.errors import AdapterdockError
from peft import PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save_file
from support.corpus import CORPUS, base_of, config_of, inputs_of, peft_rows
from support.near import as_near_as, close, differs
from support.older_names import Older, older
from support.peft_adapters import randomise
from support.shelf import write_manifest
from torch import nn

ROWS = peft_rows()


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of the tiny base of a kind."""
    root = tmp_path_factory.mktemp("bases")

    @cache
    def saved(kind: str) -> Path:
        base_of(kind).save_pretrained(root / kind)
        return root / kind

    return saved


def answer(model: Any, kind: str, **more: Any) -> torch.Tensor:
    with torch.no_grad():
        out = model(**inputs_of(kind), **more)
    return out.logits if hasattr(out, "logits") else out[0]


def trained(base: nn.Module, number: str, folder: Path) -> None:
    """What PEFT saves under this config, with the config beside it as it was found."""
    raw = config_of(number)
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[raw["peft_type"]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = kind.from_peft_type(**{**raw, "inference_mode": False})
        model = get_peft_model(copy.deepcopy(base), config)
        randomise(model, int(number), 0.05)
        model.save_pretrained(str(folder))
    shutil.copy(CORPUS / f"{number}.json", folder / "adapter_config.json")


@pytest.mark.parametrize(("number", "kind"), list(ROWS.items()))
def test_a_real_config_answers_as_in_peft(
    number: str, kind: str, bases: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = bases(kind)
    base = type(base_of(kind)).from_pretrained(folder).eval()
    trained(base, number, tmp_path / "it")
    recorded = json.loads((tmp_path / "it" / "adapter_config.json").read_text())
    name = recorded.get("base_model_name_or_path")
    manifest = write_manifest(
        tmp_path,
        base={"model": folder, "dtype": "float32", "aliases": [name] if name else []},
        adapters={"it": {"source": tmp_path / "it"}},
        active="it",
    )
    report = adapterdock.validate(manifest)
    assert report.ok, [(f.code, f.message) for f in report.findings]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft = PeftModel.from_pretrained(copy.deepcopy(base), str(tmp_path / "it")).eval()
        wanted = answer(peft, kind)
    model = adapterdock.load(manifest)
    assert type(model.base_model) is type(base)
    assert close(answer(model, kind), wanted)
    assert differs(answer(model, kind, adapter=None), wanted)


def by_hand(number: str, kind: str, folder: Path, layers: int | None = None) -> Older:
    """A base of this kind, and the adapter of this config on the names that its checkpoint has."""
    raw = config_of(number)
    targets = raw["target_modules"]

    def named(name: str) -> bool:
        if isinstance(targets, str):
            return re.fullmatch(targets, name) is not None
        return any(name == target or name.endswith(f".{target}") for target in targets)

    config = {**raw, "targets": targets, "rank": raw["r"]}
    return older(base_of(kind, layers), folder, names=named, **config)


def manifest_of(made: Older, folder: Path, number: str) -> Path:
    name = config_of(number)["base_model_name_or_path"]
    return write_manifest(
        folder,
        base={"model": made.base, "dtype": "float32", "aliases": [name]},
        adapters={"it": {"source": made.adapter}},
        active="it",
    )


@pytest.mark.parametrize(("number", "layers"), [("095", 2), ("096", 28)])
def test_a_real_config_with_outdated_names_answers_as_dense_arithmetic(
    number: str, layers: int, tmp_path: Path
) -> None:
    """Names of Qwen2.5-VL before transformers 4.52."""
    kind = "qwen2_5_vl"
    made = by_hand(number, kind, tmp_path, layers)
    assert len(made.names) == 7 * layers
    manifest = manifest_of(made, tmp_path, number)
    report = adapterdock.validate(manifest)
    assert report.ok, [(f.code, f.message) for f in report.findings]
    model = adapterdock.load(manifest)
    dense = answer(made.reference(tmp_path / "dense"), kind)
    exact = answer(made.reference(tmp_path / "exact", torch.float64), kind)
    assert as_near_as(answer(model, kind), dense, exact)
    assert differs(answer(model, kind, adapter=None), dense)


def test_a_real_config_on_an_unused_mamba_projection_is_refused_unless_zero(
    tmp_path: Path,
) -> None:
    """PEFT refuses ``out_proj`` of a Mamba layer too: the kernels read its weight. One that
    was trained through the kernels has only zeros there."""
    made = by_hand("046", "nemotron_h", tmp_path)
    manifest = manifest_of(made, tmp_path, "046")
    with pytest.raises(AdapterdockError) as refused:
        adapterdock.load(manifest)
    assert "AD356" in [finding.code for finding in refused.value.findings]
    file = made.adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    for name in tensors:
        if "mixer.out_proj.lora_B" in name:
            tensors[name] = torch.zeros_like(tensors[name])
    save_file(tensors, file)
    model = adapterdock.load(manifest)
    dense = answer(made.reference(tmp_path / "dense"), "nemotron_h")
    exact = answer(made.reference(tmp_path / "exact", torch.float64), "nemotron_h")
    assert as_near_as(answer(model, "nemotron_h"), dense, exact.double())
    assert differs(answer(model, "nemotron_h", adapter=None), dense)


def test_the_corpus_is_complete() -> None:
    assert len(ROWS) == 109
    assert len(list(CORPUS.glob("[0-9]*.json"))) == 172

"""Real configs from public repositories, each on a tiny base of its own kind: what PEFT trains and
saves under that config fits, and answers as PEFT answers."""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from support.corpus import CORPUS, base_of, config_of, inputs_of, peft_rows
from support.near import close, differs
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
def test_a_real_config_fits_and_answers_as_pefts(
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


def test_the_corpus_is_whole() -> None:
    assert len(ROWS) == 108
    assert len(list(CORPUS.glob("[0-9]*.json"))) == 172

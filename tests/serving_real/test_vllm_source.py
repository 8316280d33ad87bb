"""The rows of vLLM against the source of the vLLM that is installed, which is not imported.

``ADAPTERDOCK_VLLM_SOURCE`` may name a folder with ``vllm/`` of another wheel.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from adapterdock.serving.tables.vllm_models import read_models
from adapterdock.serving.targets import models
from adapterdock.serving.targets.engine import Feature, How
from adapterdock.serving.targets.engines import VLLM
from support.real_vllm import PYTHON

pytestmark = pytest.mark.serving

FIELDS: Mapping[str, Feature] = {
    "use_dora": Feature.DORA,
    "lora_bias": Feature.LORA_BIAS,
    "init_lora_weights": Feature.INIT,
    "alora_invocation_tokens": Feature.ALORA,
    "layer_replication": Feature.REPLICATION,
    "use_bdlora": Feature.BDLORA,
    "use_qalora": Feature.QALORA,
}
"""What ``PEFTHelper`` refuses, where it has the field; else it ignores it."""


@pytest.fixture(scope="module")
def vllm() -> Path:
    said = os.environ.get("ADAPTERDOCK_VLLM_SOURCE")
    if said:
        return Path(said) / "vllm"
    (source,) = Path(PYTHON).absolute().parents[1].glob("lib/python*/site-packages/vllm")
    return source


@pytest.fixture(scope="module")
def peft_fields(vllm: Path) -> set[str]:
    tree = ast.parse((vllm / "lora" / "peft_helper.py").read_text(encoding="utf-8"))
    helper = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "PEFTHelper")
    lines = (n.target for n in helper.body if isinstance(n, ast.AnnAssign))
    return {target.id for target in lines if isinstance(target, ast.Name)}


def test_the_choices_of_the_largest_rank_are_those_of_the_source(vllm: Path) -> None:
    text = (vllm / "config" / "lora.py").read_text(encoding="utf-8")
    (choices,) = re.findall(r"MaxLoRARanks = Literal\[([\d, ]+)\]", text)
    assert tuple(int(one) for one in choices.split(",")) == VLLM.rows[-1].ranks
    assert f"max_lora_rank: MaxLoRARanks = {VLLM.rows[-1].limit}" in text


def test_fields_that_the_source_does_not_read_are_those_that_the_row_calls_misread(
    peft_fields: set[str],
) -> None:
    row = VLLM.rows[-1] if "rank_pattern" in peft_fields else VLLM.rows[0]
    for field, feature in FIELDS.items():
        wanted = How.REFUSES if field in peft_fields else How.MISREADS
        assert row.unserved[feature] is wanted, field
    assert (Feature.RANKS in row.unserved) == ("rank_pattern" not in peft_fields)
    assert (Feature.SCALES in row.unserved) == ("alpha_pattern" not in peft_fields)


def test_the_architectures_are_those_of_one_of_the_committed_tables(vllm: Path) -> None:
    table = json.loads(Path(models.__file__).with_name("models.json").read_text("utf-8"))
    found = read_models(vllm)
    assert {"without", "serves"} == set(found)
    assert found in [table[row.models] for row in VLLM.rows]

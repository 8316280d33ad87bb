"""What the benchmarks of serving share: SmolLM2 in a manifest, and questions to the app.

Import it before anything that loads huggingface_hub: nothing is looked up on the Hub.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import yaml
from adapterdock.manifests.quickstart.prepare_base import cache_folder, prepare_base

if TYPE_CHECKING:
    from fastapi.testclient import TestClient


_CACHE = cache_folder().absolute()
"""Before a benchmark names a cache of its own."""


def smollm() -> Path:
    """SmolLM2 on this disk; downloaded the first time."""
    return prepare_base(_CACHE)


def write_manifest(folder: Path, alias: str, adapters: Mapping[str, object], **keys: Any) -> Path:
    """A manifest in ``folder``: SmolLM2 by this alias, and adapters by name, each with its source.
    ``keys`` are those of the manifest; those in ``base`` are added to SmolLM2's."""
    base = {"model": str(smollm()), "aliases": [alias], **keys.pop("base", {})}
    sources = {name: {"source": str(source)} for name, source in adapters.items()}
    path = folder / "adapters.yaml"
    data = {"version": 1, "base": base, **keys, "adapters": sources}
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def ask(client: TestClient, url: str, tokens: int, **question: Any) -> dict[str, Any]:
    """The first choice of a greedy answer of at most this many tokens."""
    answer = client.post(url, json={**question, "max_tokens": tokens, "temperature": 0})
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]

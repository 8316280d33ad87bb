"""A sum of plain LoRA as one adapter without torch equals what the loader makes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.manifests.findings.errors import RoutingError
from adapterdock.serving.copies import floats
from adapterdock.serving.copies.joined import plan_joined
from adapterdock.serving.served.served import Refusal, Served, ServedAdapter
from safetensors.torch import load_file
from support.builders import LLAMA_QV, lora_config, lora_tensors, write_adapter
from support.near import close
from support.project import NAME, Project, codes

WEIGHTS = "adapter_model.safetensors"
QUERIES = {name: sizes for name, sizes in LLAMA_QV.items() if name.endswith("q_proj")}


def adapter(
    project: Project, name: str, seed: int, r: int = 4, dtype: str = "F32", **fields: Any
) -> None:
    modules = fields.pop("modules", LLAMA_QV)
    targets = sorted({module.rpartition(".")[2] for module in modules})
    config = {"base_model_name_or_path": NAME, "r": r, "target_modules": targets, **fields}
    tensors = lora_tensors(modules, r, dtype)
    write_adapter(project.folder / name, lora_config(**config), tensors, seed)


@pytest.fixture
def members(project: Project) -> Project:
    """Three adapters that differ in rank, scale, dtype and targets."""
    project.base()
    adapter(project, "tone", seed=1, r=4, lora_alpha=16)
    adapter(project, "legal", seed=2, r=2, dtype="BF16", use_rslora=True)
    adapter(project, "query", seed=3, r=8, dtype="F16", modules=QUERIES)
    return project


SUMS: dict[str, dict[str, Any]] = {
    "both": {"of": {"tone": 1.0, "legal": -0.5}},
    "uneven": {"of": {"tone": 0.3, "query": 2.0}},
    "one": {"of": {"legal": 3.0}},
    "by-layer": {"of": {"tone": {"*.layers.0.*": 0.5}, "legal": 1.0}},
    "nested": {"of": {"both": 0.5, "query": 1.0}},
}


def locked(project: Project, **compositions: Any) -> Served:
    sources = {name: f"./{name}" for name in ("tone", "legal", "query")}
    project.write(sources, compositions=compositions)
    adapterdock.lock(project.manifest)
    served = Served(project.manifest)
    served.start()
    return served


def deltas(folder: Path) -> dict[str, torch.Tensor]:
    """What the adapter adds to each weight, by PEFT's rules for these configs."""
    tensors = load_file(folder / WEIGHTS)
    config = json.loads((folder / "adapter_config.json").read_text())
    found: dict[str, torch.Tensor] = {}
    for key, a in tensors.items():
        if not key.endswith(".lora_A.weight"):
            continue
        module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        b = tensors[key.replace("lora_A", "lora_B")]
        rank = config["rank_pattern"].get("^" + module.replace(".", r"\."), config["r"])
        alpha = config["alpha_pattern"].get("^" + module.replace(".", r"\."), config["lora_alpha"])
        assert rank == a.shape[0] == b.shape[1] == alpha
        found[module] = b @ a
    return found


@pytest.mark.parametrize("name", list(SUMS))
def test_a_joined_sum_equals_what_the_loader_saves(
    members: Project, name: str, tmp_path: Path
) -> None:
    served = locked(members, **SUMS)
    found = served.resolve(name)
    assert isinstance(found, ServedAdapter), found
    model = adapterdock.load(members.manifest)
    model.save_composition(tmp_path / "saved", name)
    ours, theirs = deltas(found.path), deltas(tmp_path / "saved")
    assert ours.keys() == theirs.keys()
    for module, wanted in theirs.items():
        assert wanted.abs().max() > 0
        assert close(ours[module], wanted)


def test_the_digest_is_that_of_the_recipe_and_its_members(members: Project) -> None:
    served = locked(members, **SUMS)
    locks = members.lock.compositions
    assert {n: served.current()[n].digest for n in SUMS} == {n: locks[n].digest for n in SUMS}
    assert served.current()["both"].rank == 6
    assert len({served.current()[name].path for name in SUMS}) == len(SUMS)


def test_the_config_names_the_largest_rank(members: Project) -> None:
    served = locked(members, **SUMS)
    config = json.loads((served.current()["uneven"].path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (12, 12)
    assert set(config["rank_pattern"].values()) == {4} == set(config["alpha_pattern"].values())


def test_a_joined_adapter_is_made_once(members: Project) -> None:
    first = locked(members, **SUMS).current()["both"].path / WEIGHTS
    inode = first.stat().st_ino
    again = Served(members.manifest)
    again.start()
    assert again.current()["both"].path / WEIGHTS == first and first.stat().st_ino == inode


def test_a_joined_adapter_that_was_changed_is_made_again(members: Project) -> None:
    served = locked(members, **SUMS)
    file = served.current()["both"].path / WEIGHTS
    right = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(right[:-1] + b"\x02")
    served.look()
    assert file.read_bytes() == right


@pytest.mark.parametrize(
    "fields",
    [
        {"lora_bias": True},
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
    ],
    ids=["biases", "dora", "head"],
)
def test_what_is_more_than_plain_pairs_is_refused(
    members: Project, fields: dict[str, Any], tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(members.folder / "base")
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", **fields)
    model = get_peft_model(base, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(str(members.folder / "query"))
    path = members.folder / "query" / "adapter_config.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "base_model_name_or_path": NAME}))
    served = locked(members, sum={"of": {"tone": 1.0, "query": 1.0}})
    refusal = served.resolve("sum")
    assert isinstance(refusal, Refusal) and codes(refusal.findings) == ["AD953"]
    assert "query" in refusal.findings[0].message
    assert isinstance(
        served.resolve("query"), ServedAdapter
    )  # alone it is somebody else's question


def test_a_sum_of_nothing_is_refused() -> None:
    with pytest.raises(RoutingError) as caught:
        plan_joined([])
    assert codes(caught.value.findings) == ["AD953"]


@pytest.mark.parametrize("dtype", sorted(floats.DTYPES))
@pytest.mark.parametrize("factor", [1.0, 0.3, -2.75])
def test_numpy_and_plain_python_give_the_same_bits(dtype: str, factor: float) -> None:
    import numpy

    kind = {
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F64": torch.float64,
    }
    values = torch.linspace(-3, 3, 997, dtype=torch.float64).to(kind[dtype])
    raw = values.view(torch.uint8).numpy().tobytes()
    one = floats.with_numpy(numpy, raw, dtype, factor)
    assert one == floats.plain_python(raw, dtype, factor)
    wanted = values.to(torch.float32) * factor
    assert one == wanted.numpy().tobytes()


def test_joining_imports_no_torch(members: Project) -> None:
    locked(members, **SUMS)
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from adapterdock.serving.served.served import Served; "
            f"s = Served({str(members.manifest)!r}); s.start(); "
            "print('both' in s.current(), 'torch' in sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == ["True", "False"]

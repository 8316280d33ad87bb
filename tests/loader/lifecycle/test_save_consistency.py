"""A mix of two saves is noticed, and the same values give the same bytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
import yaml
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.weights.write import safetensors_bytes
from adapterdock.manifests.findings import lock as lock_codes
from adapterdock.manifests.findings.errors import AdapterdockError, FitError, IntegrityError
from adapterdock.registry.files import together
from adapterdock.registry.validate import validate
from safetensors import safe_open
from support.killed import killed_at_every_line
from support.near import close
from support.peft_adapters import logits, peft_loads, peft_saves, tiny_llama

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def saves(tmp_path: Path, name: str, **config: Any) -> Path:
    """What we save of an adapter that PEFT made."""
    targets = {"target_modules": ["q_proj", "v_proj"], **config}
    peft_saves(tiny_llama(), tmp_path / f"peft-{name}", **targets)
    model = AdaptedModel(tiny_llama())
    model.load_adapter(tmp_path / f"peft-{name}", "it", accept=["AD364"])
    model.save_adapter(tmp_path / name, "it")
    return tmp_path / name


def load(folder: Path, *accept: str) -> AdaptedModel:
    model = AdaptedModel(tiny_llama())
    model.load_adapter(folder, "it", accept=accept)
    model.set_adapter("it")
    return model


def edit(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, **fields}))


@pytest.mark.parametrize("from_new", [WEIGHTS, CONFIG])
def test_files_of_two_saves_are_noticed_before_reading_weights(
    tmp_path: Path, from_new: str
) -> None:
    folder, new = saves(tmp_path, "old", lora_alpha=8), saves(tmp_path, "new", lora_alpha=32)
    assert load(folder) and load(new)
    shutil.copy(new / from_new, folder / from_new)
    with pytest.raises(FitError) as caught:
        load(folder)
    assert [finding.code for finding in caught.value.findings] == ["AD398"]
    text = f"version: 1\nbase: {{}}\nadapters: {{it: {{source: {folder}}}}}\n"
    (tmp_path / "a.yaml").write_text(text)
    assert "AD398" in [finding.code for finding in validate(tmp_path / "a.yaml").findings]


def test_an_edited_config_can_be_accepted_and_saved_again(tmp_path: Path) -> None:
    folder = saves(tmp_path, "saved", lora_alpha=8)
    edit(folder, lora_alpha=4)
    model = load(folder, "AD398")
    assert close(logits(model), logits(peft_loads(tiny_llama(), folder)))
    model.save_adapter(folder, "it")
    assert load(folder)


@pytest.mark.parametrize(
    "fields",
    [
        {"base_model_name_or_path": "org/other", "revision": "main", "peft_version": "0.99"},
        {"inference_mode": False, "corda_config": None, "target_modules": ["v_proj", "q_proj"]},
    ],
)
def test_descriptive_fields_may_be_edited(tmp_path: Path, fields: dict[str, Any]) -> None:
    folder = saves(tmp_path, "saved")
    edit(folder, **fields)
    try:
        load(folder)
    except AdapterdockError as error:
        assert "AD398" not in [finding.code for finding in error.findings]


def test_pefts_files_load_with_an_edited_config(tmp_path: Path) -> None:
    peft_saves(tiny_llama(), tmp_path / "theirs", target_modules=["q_proj"], lora_alpha=8)
    edit(tmp_path / "theirs", lora_alpha=4)
    assert load(tmp_path / "theirs", "AD364")


@pytest.mark.parametrize("alone", [True, False])
def test_a_killed_save_leaves_old_new_or_refused_files(tmp_path: Path, alone: bool) -> None:
    old, new = saves(tmp_path, "old", lora_alpha=8), saves(tmp_path, "new", lora_alpha=32)
    model, folder = load(new), tmp_path / "it"

    def start() -> None:
        shutil.copytree(old, folder, dirs_exist_ok=True)
        if not alone:
            (folder / "README.md").write_text("mine")

    pairs = {
        (a, b): (old if a == "old" else new, old if b == "old" else new)
        for a in ("old", "new")
        for b in ("old", "new")
    }
    seen: set[tuple[str, str]] = set()
    for _ in killed_at_every_line(lambda: model.save_adapter(folder, "it"), (together,), start):
        (found,) = (
            names
            for names, (weights, config) in pairs.items()
            if (folder / WEIGHTS).read_bytes() == (weights / WEIGHTS).read_bytes()
            and (folder / CONFIG).read_bytes() == (config / CONFIG).read_bytes()
        )
        if found not in seen and found[0] != found[1]:
            with pytest.raises(FitError):
                load(folder)
        seen.add(found)
    assert {("old", "old"), ("new", "new")} <= seen
    assert ("old", "new") not in seen, "weights come first"
    model.save_adapter(folder, "it")
    names = {WEIGHTS, CONFIG} | (set() if alone else {"README.md"})
    assert {path.name for path in folder.iterdir()} == names
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_killed_save_over_an_older_model_is_old_new_or_refused(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path / "base")
    manifest = {"version": 1, "base": {"model": "../base"}, "adapters": {}, "active": ["a", "b"]}
    (tmp_path / "desk").mkdir()
    for seed, name in enumerate("ab"):
        peft_saves(tiny_llama(), tmp_path / name, seed=seed, target_modules=["q_proj"])
        manifest["adapters"][name] = {"source": f"../{name}"}  # type: ignore[index]
    (tmp_path / "desk" / "desk.yaml").write_text(yaml.safe_dump(manifest))
    model, folder = adapterdock.load(tmp_path / "desk" / "desk.yaml"), tmp_path / "out"
    first = logits(model)

    def start() -> None:
        model.load_state_dict(before)
        model.save_pretrained(folder)
        (folder / "trainer_state.json").write_text("{}")
        model.load_state_dict({name: tensor * 2 for name, tensor in before.items()})

    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    start()
    second = logits(model)
    wanted: dict[bytes, str] = {}
    answers: set[str] = set()
    for _ in killed_at_every_line(lambda: model.save_pretrained(folder), (together,), start):
        files = b"".join((folder / n / WEIGHTS).read_bytes() for n in "ab")
        state = files + (folder / "adapterdock.yaml").read_bytes()
        if state not in wanted:
            try:
                found = logits(adapterdock.load(folder))
            except IntegrityError as error:
                assert error.code == lock_codes.DIGEST_MISMATCH.id
                wanted[state] = "refused"
            else:
                old = close(found, first)
                assert old or close(found, second)
                wanted[state] = "old" if old else "new"
        answers.add(wanted[state])
    assert answers == {"old", "refused", "new"}


def test_the_same_values_give_the_same_bytes(tmp_path: Path) -> None:
    folder = saves(tmp_path, "saved")
    model = load(folder)
    written: set[bytes] = set()
    for number in range(8):
        model.save_adapter(tmp_path / f"n{number}", "it")
        files = sorted((tmp_path / f"n{number}").iterdir())
        written.add(b"".join(path.name.encode() + path.read_bytes() for path in files))
    assert len(written) == 1


def test_a_file_has_its_tensors_and_metadata_in_one_order(tmp_path: Path) -> None:
    tensors = {name: torch.arange(3) + n for n, name in enumerate("dcba")}
    tensors["e"] = torch.ones(2, dtype=torch.bfloat16)
    metadata = {f"key {n}": "välue" for n in range(9)}
    one = safetensors_bytes(tensors, metadata)
    turned = dict(reversed(list(metadata.items())))
    assert safetensors_bytes(dict(reversed(list(tensors.items()))), turned) == one
    (tmp_path / "f.safetensors").write_bytes(one)
    with safe_open(str(tmp_path / "f.safetensors"), "pt") as file:
        assert file.metadata() == metadata
        assert all(torch.equal(file.get_tensor(name), tensors[name]) for name in tensors)


def test_a_composition_is_saved_with_the_same_bytes_and_its_config_recorded(tmp_path: Path) -> None:
    model = load(saves(tmp_path, "saved"))
    model.define_composition("half", {"it": 0.5})
    for name in ("one", "two"):
        model.save_composition(tmp_path / name, "half")
    assert all(
        (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        for name in (WEIGHTS, CONFIG)
    )
    edit(tmp_path / "one", lora_alpha=1)
    with pytest.raises(FitError, match="AD398"):
        load(tmp_path / "one")

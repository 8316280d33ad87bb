"""A budget for adapters' weights: the least recently used are unloaded, and reloaded unchanged."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.adapter import memory
from adapterdock.loader.build import from_files as reading
from adapterdock.loader.model import residency
from adapterdock.manifests.findings.errors import AttachError, RoutingError, UsageError
from safetensors.torch import load_file, save_file
from support.near import close
from support.peft_adapters import Saved, ids, logits, peft_saves
from support.shelf import Shelf, files_of, manifest_of, shelf_model

NAMES = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Saved]:
    """Four adapters of one size."""
    folder = tmp_path_factory.mktemp("four")
    return {
        name: peft_saves(shelf_model(), folder / name, seed=n, target_modules=["q_proj", "v_proj"])
        for n, name in enumerate(NAMES)
    }


@pytest.fixture
def manifest(shelf: Shelf, four: dict[str, Saved], tmp_path: Path) -> Path:
    return manifest_of(shelf, tmp_path, adapters={n: {"source": s} for n, s in four.items()})


@pytest.fixture
def size(four: dict[str, Saved]) -> int:
    return sum(t.numel() * t.element_size() for t in load_file(four["a"].file).values())


def here(model: AdaptedModel) -> list[str]:
    return [name for name, info in model.adapters.items() if info.loaded]


def bytes_here(model: AdaptedModel) -> int:
    """What is really there: by the tensors that the model's sites hold."""
    sites = model._host.adapters.attachments.outputs.values()
    held = {a for site in sites for a in site.factors}
    assert {a.name for a in held} == set(here(model))
    return sum(t.numel() * t.element_size() for t in model.state_dict().values())


def test_the_least_recently_used_adapters_are_unloaded_and_reloaded(
    manifest: Path, four: dict[str, Saved], size: int
) -> None:
    free = adapterdock.load(manifest)
    answers = {name: logits(free, adapter=name) for name in NAMES}
    assert bytes_here(free) == 4 * size
    model = adapterdock.load(manifest, residency=2 * size)
    assert model.residency == 2 * size and bytes_here(model) == 2 * size
    assert here(model) == ["c", "d"]
    logits(model, adapter="c")
    logits(model, adapter="a")
    assert here(model) == ["a", "c"]  # d was used longest ago
    for name in (*NAMES, *reversed(NAMES), "a", "c", "a", "d"):
        assert torch.equal(logits(model, adapter=name), answers[name])
        assert bytes_here(model) <= 2 * size and name in here(model)
    assert close(answers["b"], four["b"].answer)
    pair = {"a": 0.5, "b": 2.0}
    assert torch.equal(logits(model, adapter=pair), logits(free, adapter=pair))
    names = ["a", "b"]
    assert torch.equal(logits(model, adapter_names=names), logits(free, adapter_names=names))


def test_the_callers_budget_overrides_the_manifests(
    shelf: Shelf, four: dict[str, Saved], size: int, tmp_path: Path
) -> None:
    adapters = {n: {"source": s} for n, s in four.items()}
    manifest = manifest_of(shelf, tmp_path, adapters=adapters, residency=f"{size} B")
    model = adapterdock.load(manifest)
    assert model.residency == size and len(here(model)) == 1
    assert not model.plan(manifest)
    wider = manifest_of(shelf, tmp_path / "n", adapters=adapters, residency=f"{3 * size} B")
    plan = model.plan(wider)
    assert f"~ residency  {size} bytes -> {3 * size} bytes" in str(plan)
    model.apply(plan)
    assert model.residency == 3 * size
    limited = adapterdock.load(manifest, residency=2 * size)
    limited.apply(limited.plan(wider))
    assert limited.residency == 2 * size
    bare = adapterdock.attach(shelf.model(), {"version": 1, "base": {}}, residency="1MB")
    assert bare.residency == 1_000_000


def test_threads_get_their_own_answers_within_the_budget(manifest: Path, size: int) -> None:
    free = adapterdock.load(manifest)
    answers = {name: logits(free, adapter=name) for name in NAMES}
    model = adapterdock.load(manifest, residency=2 * size)
    odd: list[Any] = []
    most = [0]

    def ask(start: int) -> None:
        for turn in range(12):
            name = NAMES[(start + turn) % 4]
            try:
                found = logits(model, adapter=name)
                with model._host.adapters.attachments.lock:
                    most[0] = max(most[0], bytes_here(model))
            except BaseException as error:
                odd.append(error)
                return
            if not torch.equal(found, answers[name]):
                odd.append(name)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert odd == []
    assert 0 < most[0] <= 2 * size
    assert model._host.adapters.attachments.running() == []


def test_adapters_in_use_stay_loaded_and_others_wait(manifest: Path, size: int) -> None:
    model = adapterdock.load(manifest, residency=size)
    order: list[str] = []

    def ask() -> None:
        logits(model, adapter="b")
        order.append("b")

    with model.holding("a"):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive() and here(model) == ["a"]
        order.append("a")
    thread.join(30)
    assert order == ["a", "b"] and here(model) == ["b"]


def test_a_call_inside_a_call_does_not_wait_for_itself(manifest: Path, size: int) -> None:
    from transformers import LogitsProcessor

    model = adapterdock.load(manifest, residency=size)

    class Asking(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            model(input_ids, adapter="b")
            return scores

    with pytest.raises(RoutingError) as caught:
        model.generate(ids(1, 4), adapter="a", max_new_tokens=2, logits_processor=[Asking()])
    assert caught.value.code == "AD755"
    assert model._host.adapters.attachments.running() == []


def test_an_adapter_larger_than_the_budget_is_refused(
    manifest: Path, shelf: Shelf, size: int
) -> None:
    with pytest.raises(AttachError) as caught:
        adapterdock.load(manifest, residency=size - 1)
    assert caught.value.code == "AD754" and str(size) in str(caught.value)
    model = adapterdock.load(manifest, residency=size)
    with pytest.raises(RoutingError) as routing:
        logits(model, adapter=["a", "b"])
    assert routing.value.code == "AD754"
    with pytest.raises(AttachError):
        model.residency = size - 1
    assert model.residency == size
    with pytest.raises(AttachError):
        model.load_adapter(str(shelf.one.folder), "large")
    assert list(model.adapters) == list(NAMES)


def test_a_lazy_adapter_larger_than_the_budget_is_refused_unread(
    shelf: Shelf, four: dict[str, Saved], size: int, tmp_path: Path
) -> None:
    adapters = {"a": {"source": four["a"], "lazy": True}}
    with pytest.raises(AttachError) as caught:
        adapterdock.load(manifest_of(shelf, tmp_path, adapters=adapters, residency=f"{size - 1}B"))
    assert caught.value.code == "AD754"
    model = adapterdock.load(manifest_of(shelf, tmp_path, adapters=adapters, residency=f"{size}B"))
    assert here(model) == [] and model._host.adapters.by_name["a"].nbytes == size


def test_a_trainable_adapter_is_never_unloaded(
    shelf: Shelf, four: dict[str, Saved], size: int, tmp_path: Path
) -> None:
    adapters = {n: {"source": s, "trainable": n == "a"} for n, s in four.items()}
    model = adapterdock.load(manifest_of(shelf, tmp_path, adapters=adapters), residency=2 * size)
    with torch.no_grad():
        for parameter in model._host.adapters.by_name["a"].resident.parameters.values():
            parameter.mul_(2.0)
    answer = logits(model, adapter="a")
    for name in NAMES[1:]:
        logits(model, adapter=name)
        assert here(model) == ["a", name]
    assert torch.equal(logits(model, adapter="a"), answer)
    with pytest.raises(RoutingError):
        logits(model, adapter=["b", "c"])


def test_replacements_are_reloaded_and_the_bases_tensors_stay(
    shelf: Shelf, four: dict[str, Saved], tmp_path: Path
) -> None:
    manifest = manifest_of(
        shelf, tmp_path, adapters={"head": {"source": shelf.headed}, "a": {"source": four["a"]}}
    )
    free = adapterdock.load(manifest)
    budget = max(a.nbytes for a in free._host.adapters.by_name.values())
    model = adapterdock.load(manifest, residency=budget)
    for name in ("head", "a", "head"):
        assert torch.equal(logits(model, adapter=name), logits(free, adapter=name))
        assert here(model) == [name]
    assert torch.equal(logits(model, adapter=None), logits(free, adapter=None))


def test_changed_values_are_not_lost(manifest: Path, size: int) -> None:
    model = adapterdock.load(manifest, residency=2 * size)
    state = {k: v * 2 for k, v in model.state_dict().items() if ".d." in k}
    model.load_state_dict(state, strict=False)
    answer = logits(model, adapter="d")
    for name in NAMES[:3]:
        logits(model, adapter=name)
        assert here(model) == [name, "d"]
    assert torch.equal(logits(model, adapter="d"), answer)
    with pytest.raises(RoutingError):
        logits(model, adapter=["a", "b"])


def test_adapters_attached_by_code_are_unloaded_too(
    manifest: Path, four: dict[str, Saved], shelf: Shelf, size: int
) -> None:
    model = adapterdock.attach(shelf.model(), {"version": 1, "base": {}}, residency=size)
    model.load_adapter(str(four["a"].folder), "disk")
    files = files_of(four["b"].folder)
    from safetensors.torch import load

    model.load_adapter(
        None,
        "memory",
        peft_config=four["b"].config,
        adapter_state_dict=load(files["adapter_model.safetensors"]),
    )
    for _ in range(2):
        assert close(logits(model, adapter="disk"), four["a"].answer)
        assert close(logits(model, adapter="memory"), four["b"].answer)
        assert len(here(model)) == 1


def test_a_file_that_changed_meanwhile_is_not_read_back(
    shelf: Shelf, four: dict[str, Saved], size: int, tmp_path: Path
) -> None:
    import shutil

    folder = Path(shutil.copytree(four["a"].folder, tmp_path / "a"))
    adapters = {"a": {"source": folder}, "b": {"source": four["b"]}}
    model = adapterdock.load(manifest_of(shelf, tmp_path, adapters=adapters, residency=f"{size}B"))
    answer = logits(model, adapter="a")
    logits(model, adapter="b")
    good = (folder / "adapter_model.safetensors").read_bytes()
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({k: v * 2 for k, v in tensors.items()}, folder / "adapter_model.safetensors")
    with pytest.raises(adapterdock.IntegrityError):
        logits(model, adapter="a")
    assert torch.equal(logits(model, adapter="b"), logits(model, adapter="b"))
    (folder / "adapter_model.safetensors").write_bytes(good)
    assert torch.equal(logits(model, adapter="a"), answer)


def test_caches_and_compositions_survive_unloading(manifest: Path, size: int) -> None:
    model = adapterdock.load(manifest, residency=size)
    model.define_composition("half", {"a": 0.5})
    expected = logits(model, adapter="half")
    with torch.no_grad():
        out = model(ids(1, 4), adapter="a", use_cache=True)
    logits(model, adapter="b")
    assert here(model) == ["b"]
    with torch.no_grad():
        model(ids(1, 1), adapter="a", past_key_values=out.past_key_values)
    assert torch.equal(logits(model, adapter="half"), expected)


def test_adapters_on_other_devices_move_to_the_cpu(
    manifest: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = adapterdock.load(manifest, residency=2 * size)
    answers = {name: logits(model, adapter=name) for name in NAMES}
    with model.holding(["a", "b"]):
        pass
    model.residency = None
    for name in NAMES:
        logits(model, adapter=name)
    device = torch.device("cuda")  # what the code asks; the tensors stay where they can be
    for module in (memory, residency):
        monkeypatch.setattr(module, "device_of", lambda adapter: device)
    model.residency = 2 * size
    monkeypatch.setattr(reading, "read_file", None)
    for name in (*NAMES, *NAMES):
        assert torch.equal(logits(model, adapter=name), answers[name])
        assert len(here(model)) == 2


@pytest.mark.parametrize("budget", [None, "1GB"])
def test_deleted_adapters_are_garbage_collected(manifest: Path, budget: str | None) -> None:
    model = adapterdock.load(manifest, residency=budget)
    model.to(torch.float32)
    seen = [
        weakref.ref(p)
        for a in model._host.adapters.by_name.values()
        for p in a.resident.parameters.values()
    ]
    logits(model, adapter="a")
    model.delete_adapter(list(NAMES))
    gc.collect()
    assert seen and all(ref() is None for ref in seen)


@pytest.mark.parametrize("budget", ["plenty", -1, True, 1.5, "2 gigabytes"])
def test_an_invalid_budget_is_refused(manifest: Path, budget: Any) -> None:
    with pytest.raises(UsageError) as caught:
        adapterdock.load(manifest, residency=budget)
    assert caught.value.code == "AD942"

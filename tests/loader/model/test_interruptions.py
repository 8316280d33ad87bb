"""A change that is interrupted at any line is complete or undone, and the next change works."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import AdapterdockError
from safetensors.torch import load_file
from support.interrupted import interrupted_at, lines_run, sample
from support.peft_adapters import ids, peft_saves, tiny_llama

MOST = int(os.environ.get("MOST", "40"))
"""Lines of a change that are tried, of the few hundred that it runs."""

_FILES = """adapted load adapter/adapter adapter/memory base/interception build/in_memory
lifecycle/add_adapter lifecycle/attach_files lifecycle/change lifecycle/choose lifecycle/deployment
lifecycle/load_adapter merge/merge merge/untie model/adapter_set model/calls
model/choice model/compositions model/host model/merging model/model_state model/parameter_tree
model/residency model/stand_in model/state_dict routing/selection sites/attachments
sites/checkpointing sites/compiled sites/refill sites/sites sites/weight_reads sites/weight_sites"""
CHANGING = frozenset(f"loader/{name}.py" for name in _FILES.split())
"""Where an attached model is changed; not where files are read and adapters are built."""

ADAPTERS: dict[str, dict[str, Any]] = {
    "one": {"target_modules": ["q_proj", "v_proj", "embed_tokens"]},
    "two": {"target_modules": ["v_proj", "down_proj"]},
    "headed": {"target_modules": ["k_proj"], "modules_to_save": ["norm"]},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    for seed, (name, config) in enumerate(ADAPTERS.items()):
        peft_saves(tiny_llama(tie_word_embeddings=True), folder / name, seed=seed, **config)
    peft_saves(
        tiny_llama(tie_word_embeddings=True), folder / "other", seed=9, target_modules=["q_proj"]
    )
    return folder


def load(model: AdaptedModel, folder: Path, name: str, **more: Any) -> None:
    model.load_adapter(folder / name, more.pop("as_", name), accept=["AD364"], **more)


def fresh(folder: Path) -> AdaptedModel:
    model = AdaptedModel(tiny_llama(tie_word_embeddings=True))
    model.residency = 10**9  # so that it is known where adapters are read again
    for name in ADAPTERS:
        load(model, folder, name)
    model.define_composition("sum", {"one": 0.5, "two": 2.0})
    model.define_composition("made", {"two": 1.0}, combine="cat")
    model.set_adapter("sum")
    return model


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()


def answer(model: AdaptedModel, **how: Any) -> object:
    try:
        with torch.no_grad():
            return raw(model(input_ids=ids(1, 4), **how).logits)
    except AdapterdockError as error:
        return error.code


def state(model: AdaptedModel) -> dict[str, object]:
    """Everything that may be asked of a model, and what is on its base."""
    base = model.get_base_model()
    names = [None, *model.adapters, *(n for n in model.compositions if n not in model.adapters)]
    return {
        "adapters": dict(model.adapters),
        "flags": [(a.retired, a.merged, a.loaded) for a in model._host.adapters.by_name.values()],
        "active": (model.active_weights(), model.default_weights, model.merged_adapters),
        "compositions": {name: dict(of) for name, of in model.compositions.items()},
        "recipes": dict(model.recipes),
        "said": (model.rules, model.residency, model.deployment is None),
        "answers": [answer(model), *(answer(model, adapter=name) for name in names)],
        "state": {name: raw(tensor) for name, tensor in model.state_dict().items()},
        "parameters": [name for name, _ in model.named_parameters()],
        "base": {name: raw(tensor) for name, tensor in base.state_dict().items()},
        "tied": (base.config.tie_word_embeddings, sorted(dict(base.named_parameters()))),
        "gradients": [p.requires_grad for p in base.parameters()],
        "hooks": [
            (len(module._forward_hooks), "forward" in module.__dict__) for module in base.modules()
        ],
        "running": model._host.adapters.attachments.running(),
        "free": is_free(model),
    }


def is_free(model: AdaptedModel) -> bool:
    """Whether another thread may change the model."""
    found: list[bool] = []

    def look() -> None:
        for lock in (model._host.adapters.attachments.lock, model._host.adapters._changing):
            found.append(lock.acquire(blocking=False))
            if found[-1]:
                lock.release()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return all(found)


@dataclass
class Change:
    """One change: how a fresh model is made ready for it, and the change itself."""

    act: Callable[[AdaptedModel, Path], object]
    ready: Callable[[AdaptedModel, Path], object] = lambda model, folder: None
    of_use: frozenset[str] = frozenset()
    """What looking at the state changes: which adapters are here under a budget."""


def doubled(model: AdaptedModel) -> dict[str, torch.Tensor]:
    return {name: 2 * tensor for name, tensor in model.state_dict().items()}


def no_more_than_two(active: Any) -> list[Any]:
    return []


CHANGES: dict[str, Change] = {
    "set_adapter": Change(lambda m, f: m.set_adapter(["headed", "two"])),
    "a new sum": Change(lambda m, f: m.define_composition("new", {"one": 1.0, "headed": 1.0})),
    "a new adapter of others": Change(
        lambda m, f: m.define_composition("new", {"made": 1.0, "two": 0.5}, combine="cat")
    ),
    "weights of the active sum": Change(lambda m, f: m.set_adapter_weights("sum", {"one": -1.0})),
    "weights of a made adapter": Change(
        lambda m, f: m.set_adapter_weights("made", {"two": 3.0}),
        lambda m, f: m.set_adapter(["made", "one"]),
    ),
    "delete a sum": Change(lambda m, f: m.delete_composition("sum")),
    "delete a made adapter": Change(
        lambda m, f: m.delete_composition("made"), lambda m, f: m.set_adapter(["made", "one"])
    ),
    "delete_adapter": Change(
        lambda m, f: m.delete_adapter(["headed"]), lambda m, f: m.set_adapter(["headed", "one"])
    ),
    "detach": Change(lambda m, f: m.detach()),
    "detach what is merged": Change(lambda m, f: m.detach(), lambda m, f: m.merge_adapter("one")),
    "load_state_dict": Change(lambda m, f: m.load_state_dict(doubled(m))),
    "load_adapter": Change(lambda m, f: load(m, f, "other")),
    "load_adapter, to train": Change(lambda m, f: load(m, f, "other", trainable=True)),
    "hotswap": Change(lambda m, f: load(m, f, "other", as_="two", hotswap=True)),
    "add_adapter": Change(
        lambda m, f: (
            torch.manual_seed(5),
            m.add_adapter("new", {"peft_type": "LORA", "target_modules": ["o_proj"]}),
        )
    ),
    "delete what is trained": Change(
        lambda m, f: m.delete_adapter("other"), lambda m, f: load(m, f, "other", trainable=True)
    ),
    "merge_adapter": Change(lambda m, f: m.merge_adapter()),
    "merge beside what is merged": Change(
        lambda m, f: m.merge_adapter("two"), lambda m, f: m.merge_adapter("one")
    ),
    "unmerge_adapter": Change(
        lambda m, f: m.unmerge_adapter(), lambda m, f: m.merge_adapter(["one", "headed"])
    ),
    "merge_and_unload": Change(lambda m, f: m.merge_and_unload()),
    "merge_and_unload more": Change(
        lambda m, f: m.merge_and_unload(), lambda m, f: m.merge_adapter("headed")
    ),
    "rules": Change(lambda m, f: setattr(m, "rules", no_more_than_two)),
    "residency": Change(
        lambda m, f: setattr(m, "residency", 6000), lambda m, f: m.delete_composition("made")
    ),
    "what is away comes back": Change(
        lambda m, f: m.set_adapter("headed"),
        lambda m, f: (m.delete_composition("made"), setattr(m, "residency", 6000)),
        of_use=frozenset({"adapters", "flags", "state", "parameters", "hooks"}),
    ),
    "disable_adapters": Change(lambda m, f: m.disable_adapters()),
    "enable_adapters": Change(lambda m, f: m.enable_adapters(), lambda m, f: m.disable_adapters()),
    "refresh_compositions": Change(
        lambda m, f: m.refresh_compositions(["two"]), lambda m, f: m.load_state_dict(doubled(m))
    ),
    "a call": Change(lambda m, f: answer(m)),
    "save_adapter": Change(lambda m, f: m.save_adapter(f / "written", "one")),
    "save_pretrained": Change(lambda m, f: m.save_pretrained(f / "written-all")),
    "delete and name anew by a manifest": Change(
        lambda m, f: m.apply(m.plan(manifest(f), accept=["AD364"]))
    ),
}


def manifest(folder: Path) -> Path:
    path = folder / "desk.yaml"
    path.write_text(
        "version: 1\nbase: {}\n"
        "adapters: {one: {source: ./one}, new: {source: ./other}, two: {source: ./two}}\n"
        "compositions: {sum: {of: {one: 1.0, new: 1.0}}, cat: {combine: cat, of: {two: 0.5}}}\n"
        "active: [sum, cat]\n"
    )
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CHANGES)
def test_an_interrupted_change_is_complete_or_undone(saved: Path, name: str) -> None:
    change = CHANGES[name]

    def made() -> AdaptedModel:
        model = fresh(saved)
        change.ready(model, saved)
        return model

    model = made()
    before = state(model)
    count = lines_run(lambda: change.act(model, saved), CHANGING)
    after = state(model)
    assert count, "nothing ran"
    model, acted = made(), 0
    for line in sample(count, MOST):
        where = interrupted_at(lambda: change.act(model, saved), line, CHANGING)  # noqa: B023
        if where is None:  # it is shorter the second time, and was done
            model = made()
            continue
        found = state(model)
        changed = differs(found, before, change.of_use)
        if changed and (missing := differs(found, after, change.of_use)):
            pytest.fail(f"interrupted at {where}: {changed} changed, {missing} did not")
        if changed:
            model = made()
        elif line * 4 // count > acted:  # the next change works, from time to time
            acted += 1
            change.act(model, saved)
            assert not differs(state(model), after, change.of_use), (
                f"after an interruption at {where}"
            )
            model = made()


def differs(
    one: dict[str, object], other: dict[str, object], apart: frozenset[str] = frozenset()
) -> list[str]:
    return [key for key in one if key not in apart and not alike(one[key], other[key])]


def alike(one: object, other: object) -> bool:
    return repr(one) == repr(other) if isinstance(one, dict) else one == other


def test_an_interrupted_call_does_not_count_as_running(saved: Path) -> None:
    model = fresh(saved)
    count = lines_run(lambda: answer(model), CHANGING)
    for line in sample(count, count):
        interrupted_at(lambda: answer(model), line, CHANGING)
        assert model._host.adapters.attachments.running() == []
    model.merge_adapter()
    assert model.merged_adapters == ["one", "two"]


def test_a_refused_change_changes_nothing(saved: Path) -> None:
    """Not only interruptions: a state dict of other shapes used to forget where adapters came
    from."""
    model = fresh(saved)
    before = state(model)
    state_of = load_file(saved / "one" / "adapter_model.safetensors")
    with pytest.raises(AdapterdockError):
        model.load_state_dict({**model.state_dict(), **state_of})
    assert not differs(state(model), before)
    model.delete_composition("made")
    model.residency = 6000
    assert not all(info.loaded for info in model.adapters.values()), "they can still be read again"

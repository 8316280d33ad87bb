"""Applying another manifest to a running model: all at once or not at all, with the same base."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    AttachError,
    PolicyError,
    RoutingError,
)
from adapterdock.manifests.findings.loader import ATTACH_FAILED
from safetensors.torch import load_file, save_file
from support.near import close
from support.peft_adapters import ids, logits, same_traces, traces
from support.shelf import Shelf, manifest_of


@pytest.fixture
def model(shelf: Shelf, tmp_path: Path) -> AdaptedModel:
    return adapterdock.load(
        manifest_of(
            shelf,
            tmp_path / "first",
            compositions={"both": {"of": {"one": 1.0, "two": 0.5}}},
            active="both",
        )
    )


@pytest.fixture
def wanted(shelf: Shelf, tmp_path: Path) -> Path:
    """``one`` becomes another adapter, ``two`` stays, ``three`` comes, ``both`` weighs other."""
    return manifest_of(
        shelf,
        tmp_path / "second",
        adapters={
            "one": {"source": shelf.headed},
            "two": {"source": shelf.two},
            "three": {"source": shelf.one},
        },
        compositions={"both": {"of": {"three": 0.5, "two": 2.0}}},
        rules={"max_active": 2},
        active="both",
    )


@contextmanager
def asking(model: AdaptedModel, answers: list[torch.Tensor]) -> Iterator[list[Any]]:
    """Threads that ask for the default all the while; what they got beside ``answers``."""
    odd: list[Any] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                found = logits(model)
            except BaseException as error:
                odd.append(error)
                return
            if not any(torch.equal(found, one) for one in answers):
                odd.append(found)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield odd
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_apply_equals_a_new_load_and_keeps_unchanged_adapters(
    model: AdaptedModel, wanted: Path
) -> None:
    base, two = model.base_model, model._host.adapters.by_name["two"]
    tensors = {id(t) for t in two.tensors()}
    model.apply(model.plan(wanted))
    fresh = adapterdock.load(wanted)
    assert model.base_model is base
    assert model._host.adapters.by_name["two"] is two and {id(t) for t in two.tensors()} == tensors
    assert list(model.adapters) != [] and set(model.adapters) == set(fresh.adapters)
    for selection in ("one", "two", "three", "both", None):
        assert torch.equal(logits(model, adapter=selection), logits(fresh, adapter=selection))
    assert torch.equal(logits(model), logits(fresh))
    assert sorted(model.state_dict()) == sorted(fresh.state_dict())
    assert not model.plan(wanted)
    assert model.deployment is not None and model.deployment.file.file == str(wanted)
    with pytest.raises(PolicyError):
        model.set_adapter(["one", "two", "three"])


def test_concurrent_calls_see_the_old_or_the_new_adapters(
    model: AdaptedModel, wanted: Path, shelf: Shelf, tmp_path: Path
) -> None:
    first = tmp_path / "first" / "adapters.yaml"
    old = logits(model)
    new = logits(adapterdock.load(wanted))
    with asking(model, [old, new]) as odd:
        for turn in range(6):
            model.apply(model.plan(first if turn % 2 else wanted))
    assert odd == []
    assert torch.equal(logits(model), old)


def test_a_running_generate_finishes_with_the_old_adapters(
    model: AdaptedModel, wanted: Path
) -> None:
    from transformers import LogitsProcessor

    prompt = ids(1, 4)
    expected = model.generate(prompt, max_new_tokens=6, do_sample=False)

    class Applying(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            if input_ids.shape[1] == 6:
                model.apply(model.plan(wanted))
            return scores

    found = model.generate(prompt, max_new_tokens=6, do_sample=False, logits_processor=[Applying()])
    assert torch.equal(found, expected)
    assert "three" in model.adapters
    hooks = [n for n, m in model.base_model.named_modules() if m._forward_hooks]
    assert hooks  # the old ones that nobody needs are gone, those of the new set are there
    model.detach()
    assert not any(m._forward_hooks for m in model.base_model.modules())


@pytest.mark.parametrize("how", ["nan", "missing", "rules", "mix", "name", "trainable"])
def test_a_failed_apply_changes_nothing(
    model: AdaptedModel, shelf: Shelf, tmp_path: Path, how: str
) -> None:
    model.load_adapter(str(shelf.headed.folder), "mine", trainable=how == "trainable")
    model.set_adapter("both")
    before, answers = traces(model.base_model), logits(model)
    state, deployment = model.state_dict(keep_vars=True), model.deployment
    adapters: dict[str, Any] = {"one": {"source": shelf.headed}, "four": {"source": shelf.two}}
    more: dict[str, Any] = {"active": "four"}
    broken = tmp_path / "broken"
    shutil.copytree(shelf.one.folder, broken)
    file = broken / "adapter_model.safetensors"
    tensors = load_file(file)
    first = next(iter(tensors))
    if how in ("nan", "trainable"):
        tensors[first][0, 0] = float("nan")
        adapters["five"] = {"source": broken, "trainable": how == "trainable"}
    elif how == "missing":
        adapters["five"] = {"source": broken}
    elif how == "rules":
        more["rules"] = {"max_total_rank": 3}
        more["active"] = "one"
    elif how == "mix":
        adapters["five"] = {"source": shelf.headed}
        more["compositions"] = {"heads": {"of": {"one": 1.0, "five": 1.0}}}
    save_file(tensors, file, metadata={"format": "pt"})
    manifest = manifest_of(shelf, tmp_path / "bad", adapters=adapters, **more)
    with pytest.raises(AdapterdockError):
        if how == "name":
            model._host.adapters.attachments.put = _failing(
                model, "four"
            )  # in the midst of the switch
        plan = model.plan(manifest)
        if how == "missing":
            file.unlink()
        model.apply(plan)
    model._host.adapters.attachments.__dict__.pop("put", None)
    assert torch.equal(logits(model), answers)
    assert same_traces(before, traces(model.base_model))
    after = model.state_dict(keep_vars=True)
    assert list(after) == list(state) and all(after[k] is state[k] for k in state)
    assert model.deployment is deployment
    assert set(model.adapters) == {"one", "two", "mine"}
    assert model.compositions["both"] == {"one": 1.0, "two": 0.5}


def _failing(model: AdaptedModel, name: str) -> Any:
    put = model._host.adapters.attachments.put

    def failing(adapter: Any, *args: Any) -> None:
        put(adapter, *args)
        if adapter.name == name:
            raise AttachError(ATTACH_FAILED.finding("Interrupted"))

    return failing


def test_a_plan_of_another_state_is_refused(
    model: AdaptedModel, wanted: Path, shelf: Shelf, tmp_path: Path
) -> None:
    plan = model.plan(wanted)
    model.set_adapter("two")  # a switch does not make the plan stale
    model.apply(plan)
    with pytest.raises(AttachError) as caught:
        model.apply(plan)
    assert caught.value.code == "AD752"
    plan = model.plan(tmp_path / "first" / "adapters.yaml")
    model.define_composition("another", {"two": 3.0})
    with pytest.raises(AttachError):
        model.apply(plan)
    other = AdaptedModel(shelf.model())
    with pytest.raises(AttachError):
        other.apply(model.plan(wanted))


def test_a_change_of_weights_reads_no_file(
    model: AdaptedModel, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = manifest_of(
        shelf,
        tmp_path / "light",
        compositions={"both": {"of": {"one": 0.25, "two": 0.5}}},
        active="both",
    )
    plan = model.plan(manifest)
    assert plan.kept == ("one", "two")
    monkeypatch.setattr("adapterdock.loader.build.from_files.read_file", None)
    model.apply(plan)
    assert close(logits(model), shelf.sum(one=0.25, two=0.5))


def test_a_kept_adapter_keeps_its_training(shelf: Shelf, tmp_path: Path) -> None:
    trained = {"one": {"source": shelf.one, "trainable": True}}
    model = adapterdock.load(manifest_of(shelf, tmp_path / "a", adapters=trained, active="one"))
    with torch.no_grad():
        for parameter in model._host.adapters.by_name["one"].resident.parameters.values():
            parameter.mul_(1.5)
    answer = logits(model)
    flags = [p.requires_grad for p in model.base_model.parameters()]
    more = {**trained, "two": {"source": shelf.two}}
    model.apply(model.plan(manifest_of(shelf, tmp_path / "b", adapters=more, active="one")))
    assert torch.equal(logits(model), answer)
    assert [p.requires_grad for p in model.base_model.parameters()] == flags
    gone = manifest_of(shelf, tmp_path / "c", adapters={"two": {"source": shelf.two}})
    model.apply(model.plan(gone))
    assert all(p.requires_grad for p in model.base_model.parameters())


def test_policies_apply_to_a_plan(model: AdaptedModel, wanted: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("allow_sources: ['s3://only/*']\n")
    with pytest.raises(PolicyError):
        model.plan(wanted, policy=policy)


def test_policies_apply_to_a_plan_with_a_lock(
    model: AdaptedModel, shelf: Shelf, tmp_path: Path, hub: Any
) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    mirror = folder / "mirror" / "acme" / "two" / "main"
    shutil.copytree(shelf.two.folder, mirror)
    rows = {"two": {"source": "hf://acme/two"}}
    mirrors = {"hf://": f"{(folder / 'mirror').as_uri()}/"}
    locked = manifest_of(shelf, folder, adapters=rows, mirrors=mirrors)
    adapterdock.lock(locked)
    policy = tmp_path / "policy.yaml"
    for globs in ("['s3://only/*']", "['hf://acme/*']"):  # the source, and where it comes from
        policy.write_text(f"allow_sources: {globs}\n")
        with pytest.raises(PolicyError):
            model.plan(locked, policy=policy)
        watching = model.watch(locked, policy=policy, interval=0.05)
        deadline = time.monotonic() + 30
        while watching.last_error is None and time.monotonic() < deadline:
            time.sleep(0.05)
        watching.stop()
        assert isinstance(watching.last_error, PolicyError)
    policy.write_text("allow_sources: ['hf://acme/*', './mirror/*']\n")
    model.apply(model.plan(locked, policy=policy))
    assert list(model._host.adapters.by_name) == ["two"]


def test_plans_accept_adapters_in_memory(model: AdaptedModel, shelf: Shelf, wanted: Path) -> None:
    from support.shelf import files_of

    plan = model.plan(wanted, sources={"three": files_of(shelf.two.folder)})
    model.apply(plan)
    assert close(logits(model, adapter="three"), shelf.two.answer)


def test_apply_of_a_function_is_torchs(model: AdaptedModel) -> None:
    seen: list[str] = []
    assert model.apply(lambda module: seen.append(type(module).__name__)) is model
    assert "Linear" in seen


def test_a_deleted_name_in_a_using_block_is_an_error(model: AdaptedModel, shelf: Shelf) -> None:
    del shelf
    with model.using("one"):
        small: dict[str, Any] = {"version": 1, "base": {}}
        model.apply(model.plan(small))
        with pytest.raises(RoutingError):
            logits(model)
    assert torch.equal(logits(model), logits(model.base_model))

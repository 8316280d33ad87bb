"""Watching a manifest: changes are applied; after an error the old adapters stay."""

from __future__ import annotations

import gc
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.lifecycle.change import plan_change
from adapterdock.loader.lifecycle.watch import Watch
from adapterdock.manifests.findings.errors import AdapterdockError, UsageError
from support.near import close
from support.peft_adapters import logits
from support.shelf import Shelf, manifest_of, write_manifest

FAST = 0.02


@pytest.fixture
def manifest(shelf: Shelf, tmp_path: Path) -> Path:
    return manifest_of(shelf, tmp_path, active="one")


@pytest.fixture
def model(manifest: Path) -> AdaptedModel:
    return adapterdock.load(manifest)


class Events:
    """The calls of a watch's callbacks."""

    def __init__(self) -> None:
        self.plans: list[Any] = []
        self.errors: list[AdapterdockError] = []
        self._news = threading.Condition()

    def change(self, plan: Any) -> None:
        with self._news:
            self.plans.append(plan)
            self._news.notify_all()

    def error(self, error: AdapterdockError) -> None:
        with self._news:
            self.errors.append(error)
            self._news.notify_all()

    def until(self, what: Callable[[], bool]) -> None:
        with self._news:
            assert self._news.wait_for(what, timeout=30)

    def watch(self, model: AdaptedModel, path: Path, **options: Any) -> Watch:
        return model.watch(
            path, interval=FAST, on_change=self.change, on_error=self.error, **options
        )


def test_changes_are_applied_while_calls_run(
    model: AdaptedModel, manifest: Path, shelf: Shelf, tmp_path: Path
) -> None:
    events = Events()
    one, two = logits(model, adapter="one"), logits(model, adapter="two")
    odd: list[Any] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            found = logits(model)
            if not (torch.equal(found, one) or torch.equal(found, two)):
                odd.append(found)

    thread = threading.Thread(target=ask)
    with events.watch(model, manifest) as handle:
        thread.start()
        manifest_of(shelf, tmp_path, active="two")
        events.until(lambda: len(events.plans) == 1)
        manifest_of(shelf, tmp_path, adapters={"two": {"source": shelf.two}}, active="two")
        events.until(lambda: len(events.plans) == 2)
        assert handle.last_plan is events.plans[-1] and handle.last_error is None
        assert list(model.adapters) == ["two"]
        done.set()
        thread.join()
    assert odd == [] and events.errors == []
    assert not handle.running
    manifest_of(shelf, tmp_path, active="one")
    assert list(model.adapters) == ["two"]


def test_a_failure_is_reported_once_and_the_old_set_stays(
    model: AdaptedModel,
    manifest: Path,
    shelf: Shelf,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    events, before = Events(), logits(model)
    with events.watch(model, manifest) as handle:
        manifest_of(shelf, tmp_path, active="nobody")
        events.until(lambda: bool(events.errors))
        assert handle.last_error is events.errors[0]
        assert torch.equal(logits(model), before)
        time.sleep(10 * FAST)  # it is tried again, without another report
        assert len(events.errors) == 1 and events.plans == []
        manifest_of(shelf, tmp_path, active="two")
        events.until(lambda: bool(events.plans))
        assert handle.last_error is None
    assert caplog.text.count("Cannot follow") == 1
    assert caplog.text.count("the model follows it again") == 1
    assert torch.equal(logits(model), logits(model, adapter="two"))


def test_changes_of_the_lock_and_extended_files_are_followed(shelf: Shelf, tmp_path: Path) -> None:
    events = Events()
    under = manifest_of(shelf, tmp_path / "under", active="one")
    over = tmp_path / "over.yaml"
    over.write_text("version: 1\nextends: under/adapters.yaml\n")
    model = adapterdock.load(over)
    draft = tmp_path / "draft"
    shutil.copytree(shelf.one.folder, draft)
    with events.watch(model, over):
        manifest_of(shelf, tmp_path / "under", adapters={"it": {"source": draft}})
        events.until(lambda: "it" in model.adapters)
        adapterdock.lock(over)
        shutil.rmtree(draft)
        shutil.copytree(shelf.two.folder, draft)
        adapterdock.lock(over, upgrade=["it"])
        events.until(lambda: any("it" in plan.replaced for plan in events.plans))
    assert under.exists()
    assert close(logits(model, adapter="it"), shelf.two.answer)


def test_a_half_written_manifest_is_not_applied(
    model: AdaptedModel, manifest: Path, shelf: Shelf, tmp_path: Path
) -> None:
    events = Events()
    text = manifest.read_text()
    half = write_manifest(
        tmp_path / "half", base={"model": shelf.base}, adapters={"one": {"source": shelf.one}}
    ).read_text()
    with model.watch(manifest, interval=0.1, on_change=events.change, on_error=events.error):
        time.sleep(0.25)
        for turn in range(10):  # a slow writer, whose first half would do as a manifest
            manifest.write_text(half + "#" * turn)
            time.sleep(0.02)
        manifest.write_text(text.replace("active: one", "active: two"))
        events.until(lambda: bool(events.plans))
    assert [bool(plan.removed) for plan in events.plans] == [False]
    assert set(model.adapters) == {"one", "two"}


def test_watch_applies_the_manifest_at_its_start(
    model: AdaptedModel, shelf: Shelf, tmp_path: Path
) -> None:
    events = Events()
    manifest_of(shelf, tmp_path, active="two")
    with events.watch(model, tmp_path / "adapters.yaml"):
        events.until(lambda: bool(events.plans))
    assert model.active_adapters() == ["two"]


def test_a_file_created_later_is_followed(
    model: AdaptedModel, shelf: Shelf, tmp_path: Path
) -> None:
    events = Events()
    with events.watch(model, tmp_path / "later" / "adapters.yaml") as handle:
        events.until(lambda: bool(events.errors))
        manifest_of(shelf, tmp_path / "later", active="two")
        events.until(lambda: bool(events.plans))
        assert handle.running


def test_a_callback_that_raises_does_not_stop_watch(
    model: AdaptedModel, manifest: Path, shelf: Shelf, tmp_path: Path
) -> None:
    events = Events()

    def callback(plan: Any) -> None:
        events.change(plan)
        raise RuntimeError("not ours")

    with model.watch(manifest, interval=FAST, on_change=callback):
        manifest_of(shelf, tmp_path, active="two")
        events.until(lambda: len(events.plans) == 1)
        manifest_of(shelf, tmp_path, active="one")
        events.until(lambda: len(events.plans) == 2)


def test_nothing_is_planned_while_nothing_changes(
    model: AdaptedModel, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[float] = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        planned.append(time.monotonic())
        return plan_change(*args, **kwargs)

    monkeypatch.setattr("adapterdock.loader.lifecycle.watch.plan_change", counted)
    with model.watch(manifest, interval=FAST):
        time.sleep(20 * FAST)
    assert len(planned) <= 1


def test_watch_stops_when_its_model_is_deleted(shelf: Shelf, tmp_path: Path) -> None:
    manifest = manifest_of(shelf, tmp_path)
    model = adapterdock.load(manifest)
    handle = adapterdock.watch(model, manifest, interval=FAST)
    other = adapterdock.load(manifest)
    second = adapterdock.watch(other, manifest, interval=FAST)
    other.detach()
    del model
    gc.collect()
    manifest.touch()
    deadline = time.monotonic() + 30
    while (handle.running or second.running) and time.monotonic() < deadline:
        time.sleep(FAST)
    assert not handle.running and not second.running


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf")])
def test_an_invalid_interval_is_refused(
    model: AdaptedModel, manifest: Path, interval: float
) -> None:
    with pytest.raises(UsageError) as caught:
        model.watch(manifest, interval=interval)
    assert caught.value.code == "AD940"

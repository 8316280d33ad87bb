"""Methods that attach through PEFT, in a manifest: validate, lock, pull and load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import adapterdock
import pytest
from adapterdock.cli.main import app
from adapterdock.manifests.findings.errors import FitError
from adapterdock.manifests.findings.finding import Severity
from adapterdock.manifests.lockfile import lock_path, read_lock
from adapterdock.manifests.manifest import read_manifest
from adapterdock.registry.access.access import Access
from peft import HRAConfig
from support.near import close
from support.peft_adapters import Saved, inputs_of, logits, peft_saves, tiny_llama
from support.peft_methods import CASES, TARGETS, saved_by_peft
from typer.testing import CliRunner


class Desk:
    """A base, and one adapter of ``method`` that PEFT saved, in a manifest."""

    def __init__(self, folder: Path, method: str = "HRA", **more: Any) -> None:
        self.base = CASES[method][0]()
        self.base.save_pretrained(folder / "base")
        self.saved: Saved = saved_by_peft(method, folder / "it", self.base, **more)
        recorded = {**self.saved.config, "base_model_name_or_path": "./base"}
        self.edit(**recorded)
        self.manifest = folder / "desk.yaml"
        self.manifest.write_text(
            "version: 1\nbase: {model: ./base}\nadapters:\n  it: {source: ./it}\nactive: it\n"
        )

    def edit(self, **fields: Any) -> None:
        config = {**self.saved.config, **fields}
        (self.saved.folder / "adapter_config.json").write_text(json.dumps(config))

    def answers(self, model: Any) -> bool:
        return close(logits(model, inputs_of(self.base)), self.saved.answer)


def codes(report: Any) -> set[str]:
    return {f.code for f in report.findings if f.severity is not Severity.WARNING}


@pytest.mark.parametrize("method", CASES)
def test_every_method_locks_with_one_acceptance_and_loads_frozen(
    method: str, tmp_path: Path
) -> None:
    desk = Desk(tmp_path, method)
    assert codes(adapterdock.validate(desk.manifest)) == {"AD390"}
    with pytest.raises(FitError, match="AD390"):
        adapterdock.lock(desk.manifest)
    assert not lock_path(str(desk.manifest)).exists()
    lock = adapterdock.lock(desk.manifest, accept=["AD390"])
    assert lock.accepted == ("AD390",)
    assert lock.adapters["it"].method == method
    assert adapterdock.validate(desk.manifest).exit_status == 0
    model = adapterdock.load(desk.manifest, frozen=True)
    assert model.adapters["it"].methods == (method,)
    assert desk.answers(model)


def test_without_a_lock_nothing_has_to_be_accepted_and_nothing_is_recorded(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    model = adapterdock.load(desk.manifest)
    assert desk.answers(model)
    assert not lock_path(str(desk.manifest)).exists()
    assert model.deployment is not None
    assert model.deployment.pulled.lock.accepted == ()
    attached = adapterdock.attach(tiny_llama(), desk.manifest)
    assert desk.answers(attached)


@pytest.mark.parametrize("method", ["ADAMSS", "FROD"])
def test_checks_that_need_the_weights_run_at_attach(method: str, tmp_path: Path) -> None:
    desk = Desk(tmp_path, method)
    assert desk.answers(adapterdock.load(desk.manifest))


def test_a_misfit_is_found_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path)
    desk.edit(r=3)
    fetched: list[object] = []
    monkeypatch.setattr("adapterdock.registry.lock.fetch_all", lambda *a, **_: fetched.append(a))
    with pytest.raises(FitError, match="AD391"):
        adapterdock.load(desk.manifest)
    with pytest.raises(FitError, match="AD391"):
        adapterdock.attach(tiny_llama(), desk.manifest)
    assert fetched == []


def test_accepted_findings_are_still_checked_with_peft(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.edit(r=3)
    adapterdock.lock(desk.manifest, accept=["AD390"])
    with pytest.raises(FitError, match="AD391"):
        adapterdock.load(desk.manifest, frozen=True)


def test_validate_deep_runs_peft_on_a_base_without_weights(tmp_path: Path) -> None:
    desk = Desk(tmp_path, "BOFT")
    run = CliRunner().invoke
    assert run(app, ["validate", str(desk.manifest)]).exit_code == 3
    assert run(app, ["validate", str(desk.manifest), "--deep"]).exit_code == 0
    desk.edit(boft_block_size=8)
    told = run(app, ["validate", str(desk.manifest), "--deep"])
    assert told.exit_code == 1 and "AD391" in told.output and "boft_R" in told.output
    desk.edit(boft_block_size=5)
    told = run(app, ["validate", str(desk.manifest), "--deep"])
    assert told.exit_code == 1 and "AD392" in told.output


def test_validate_deep_leaves_checks_that_need_weights_open(tmp_path: Path) -> None:
    desk = Desk(tmp_path, "ADAMSS")
    assert CliRunner().invoke(app, ["validate", str(desk.manifest), "--deep"]).exit_code == 3


def test_several_adapters_of_one_base_are_checked_at_once(tmp_path: Path) -> None:
    from adapterdock.loader.methods.peft.fit import peft_asker
    from adapterdock.registry.resolve import resolve

    desk = Desk(tmp_path)
    two = peft_saves(desk.base, tmp_path / "two", kind=HRAConfig, **{**TARGETS, "r": 2})
    desk.manifest.write_text(
        "version: 1\nbase: {model: ./base}\nadapters:\n"
        f"  it: {{source: ./it}}\n  two: {{source: {two.folder}}}\n"
    )
    file = read_manifest(desk.manifest)
    resolution = resolve(file, Access(ask_peft=peft_asker()))
    assert not [f for f in resolution.findings if f.severity is Severity.ERROR]
    assert "AD390" not in {f.code for f in resolution.findings}


_WITHOUT_PEFT = """
import sys
sys.modules["peft"] = None
import adapterdock
from adapterdock.manifests.errors import FitError
manifest = sys.argv[1]
report = adapterdock.validate(manifest)
print(sorted(f.code for f in report.findings if f.severity.value != "warning"))
adapterdock.lock(manifest, accept=["AD390"])
adapterdock.pull(manifest, frozen=True)
assert "torch" not in sys.modules
try:
    adapterdock.load(manifest, frozen=True)
except FitError as error:
    print([str(f) for f in error.findings if f.code == "AD817"])
"""


def test_without_peft_the_result_is_the_same_and_load_names_the_extra(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_PEFT, str(desk.manifest)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    verdict, told = done.stdout.strip().splitlines()[-2:]
    assert verdict == "['AD390']"
    assert "HRA attaches through PEFT" in told and "pip install 'adapterdock[peft]'" in told


def test_the_lock_without_peft_is_that_with_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    before = adapterdock.lock(desk.manifest, accept=["AD390"])
    assert read_lock(lock_path(str(desk.manifest))) == before
    assert before.adapters["it"].rank == 4
    assert set(before.adapters["it"].targets) == {"q_proj", "down_proj"}

"""A server that would serve other things than the lock says does not start."""

from __future__ import annotations

import os
import subprocess
import sys

import adapterdock
import pytest
from adapterdock.serving.vllm.installed import is_supported
from adapterdock.serving.vllm.start import start_findings
from support.project import Project

MODULE = "/env/lib/python3.11/site-packages/vllm/entrypoints/openai/api_server.py"


@pytest.fixture
def locked(project: Project) -> Project:
    project.base()
    project.adapter("tone")
    adapterdock.lock(project.write({"tone": "./tone"}))
    return project


def environ(project: Project, **more: str) -> dict[str, str]:
    return {"ADAPTERDOCK_MANIFEST": str(project.manifest), "VLLM_PLUGINS": "adapterdock", **more}


def argv(project: Project, *more: str, model: str = "base") -> list[str]:
    return [MODULE, "--model", str(project.folder / model), "--enable-lora", *more]


def found(project: Project, *more: str, model: str = "base", **environment: str) -> list[str]:
    line = argv(project, *more, model=model)
    return [f.code for f in start_findings(environ(project, **environment), line, "0.32.0")]


def test_a_locked_manifest_on_its_own_base_may_start(locked: Project) -> None:
    assert found(locked) == []


def test_without_settings_nothing_is_checked() -> None:
    assert start_findings({}, [MODULE, "--model", "M"], "0.20.0") == []


@pytest.mark.parametrize("program", ["notebook.py", "/env/vllm/model_executor/models/registry.py"])
def test_a_program_that_is_no_server_is_not_checked(program: str) -> None:
    settings = {"ADAPTERDOCK_MANIFEST": "/nowhere.yaml", "VLLM_PLUGINS": "adapterdock"}
    assert start_findings(settings, [program], "0.32.0") == []


def test_a_copy_of_the_base_elsewhere_is_the_same_base(locked: Project) -> None:
    (locked.folder / "base").rename(locked.folder / "moved")
    assert found(locked, model="moved") == []


def test_a_base_of_the_same_shape_with_other_values_is_refused(locked: Project) -> None:
    other = locked.base("other", seed=7)
    assert other.is_dir()
    codes = found(locked, model="other")
    assert codes and codes[0].startswith("AD4")


def test_a_base_that_is_not_here_yet_is_left_to_the_engines_start(locked: Project) -> None:
    line = [MODULE, "--model", "org/not-here", "--enable-lora"]
    assert start_findings(environ(locked), line, "0.32.0") == []


def test_random_weights_are_unchecked_unless_accepted(locked: Project) -> None:
    assert found(locked, "--load-format", "dummy") == ["AD963"]
    assert found(locked, "--load-format", "dummy", ADAPTERDOCK_ACCEPT="AD963") == []


def test_a_missing_lock_is_refused(locked: Project) -> None:
    locked.lock_file.unlink()
    [finding] = start_findings(environ(locked), argv(locked), "0.32.0")
    assert finding.name == "lock-missing"


def test_a_stale_lock_is_refused(locked: Project) -> None:
    locked.adapter("calm", seed=1)
    locked.write({"tone": "./tone", "calm": "./calm"})
    [finding] = start_findings(environ(locked), argv(locked), "0.32.0")
    assert finding.name == "lock-stale"
    assert "calm" in (finding.found or "")


def test_a_manifest_that_is_missing_is_a_finding(project: Project) -> None:
    assert found(project)


def test_the_manifest_without_the_plugin_is_refused(locked: Project) -> None:
    settings = {"ADAPTERDOCK_MANIFEST": str(locked.manifest)}
    for plugins in ({}, {"VLLM_PLUGINS": "other"}):
        findings = start_findings({**settings, **plugins}, argv(locked), "0.32.0")
        assert [f.code for f in findings] == ["AD960"]
        assert "VLLM_PLUGINS=adapterdock" in (findings[0].hint or "")


def test_the_plugin_without_a_manifest_is_refused(locked: Project) -> None:
    findings = start_findings({"VLLM_PLUGINS": "adapterdock"}, argv(locked), "0.32.0")
    assert [f.code for f in findings] == ["AD960"]


def test_routes_that_load_adapters_are_refused_unless_accepted(locked: Project) -> None:
    flag = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    assert found(locked, **flag) == ["AD962"]
    assert found(locked, **flag, ADAPTERDOCK_ALLOW_RUNTIME_ROUTES="1") == []


def test_another_resolver_is_refused(locked: Project) -> None:
    assert found(locked, VLLM_PLUGINS="adapterdock,lora_filesystem_resolver") == ["AD962"]
    assert found(locked, VLLM_PLUGINS="adapterdock,some_quantisation") == []


def test_a_frontend_without_plugins_is_refused(locked: Project) -> None:
    assert found(locked, VLLM_USE_RUST_FRONTEND="1") == ["AD961"]


def test_a_server_without_lora_is_refused(locked: Project) -> None:
    line = [MODULE, "--model", str(locked.folder / "base")]
    assert [f.code for f in start_findings(environ(locked), line, "0.32.0")] == ["AD961"]


def test_lazy_loading_in_several_servers_is_refused(locked: Project) -> None:
    more = ("--api-server-count", "2")
    assert found(locked, *more, ADAPTERDOCK_LAZY="1") == ["AD961"]
    assert found(locked, *more) == []


@pytest.mark.parametrize(
    ("version", "right"),
    [("0.31.0", True), ("0.32.0+cpu", True), ("1.0", True), ("0.30.2", False), ("dev", True)],
)
def test_an_old_engine_is_refused(locked: Project, version: str, right: bool) -> None:
    assert is_supported(version) is right
    assert bool(start_findings(environ(locked), argv(locked), version)) is not right


def test_everything_that_is_wrong_is_said_at_once(locked: Project) -> None:
    codes = found(locked, VLLM_USE_RUST_FRONTEND="1", VLLM_ALLOW_RUNTIME_LORA_UPDATING="1")
    assert codes == ["AD961", "AD962"]


def test_the_process_ends_with_the_findings_and_without_a_traceback(locked: Project) -> None:
    other = locked.base("other", seed=7)
    code = (
        "import sys; sys.argv = sys.argv[1:]\n"
        "from adapterdock.serving.vllm.plugin import general\ngeneral()\n"
        "assert 'torch' not in sys.modules"
    )
    line = [sys.executable, "-c", code, MODULE, "--enable-lora", "--model"]
    variables = {**os.environ, **environ(locked)}
    good = subprocess.run([*line, str(locked.folder / "base")], env=variables)
    assert good.returncode == 0
    bad = subprocess.run([*line, str(other)], env=variables, capture_output=True, text=True)
    assert bad.returncode == 1
    assert "error AD4" in bad.stderr
    assert "Traceback" not in bad.stderr

"""A server that would serve other things than the lock says does not start."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import adapterdock
import pytest
from adapterdock.manifests.findings.finding import Finding
from adapterdock.registry.locks.project import lock_of, open_manifest
from adapterdock.serving.served.served import Served
from adapterdock.serving.targets.target import Target
from adapterdock.serving.vllm import start
from adapterdock.serving.vllm.installed import is_supported
from adapterdock.serving.vllm.served_base import base_findings
from adapterdock.serving.vllm.start import start_findings
from support.project import Project
from support.web import WebServer

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


def test_another_base_is_answered_with_the_model_to_start_with(locked: Project) -> None:
    locked.base("other", seed=7)
    [finding, *_] = start_findings(environ(locked), argv(locked, model="other"), "0.32.0")
    hint = finding.hint or ""
    assert hint.startswith(f"Start vLLM with --model {locked.folder / 'base'}, or ")
    assert "fingerprint --write" not in hint


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("hf://org/base@" + "a" * 40, "--model org/base --revision " + "a" * 40 + ","),
        ("hf://org/base", "--model org/base,"),
        ("s3://bucket/base", "a copy of s3://bucket/base,"),
    ],
)
def test_the_model_to_start_with_is_the_base_that_the_lock_pins(
    locked: Project, source: str, shown: str
) -> None:
    file = open_manifest(locked.manifest)
    lock = lock_of(file)
    assert lock is not None and lock.base is not None
    pinned = lock.model_copy(update={"base": lock.base.model_copy(update={"source": source})})
    other = str(locked.base("other", seed=7))
    found = base_findings(file, pinned, other)
    assert found
    assert (found[0].hint or "").startswith(f"Start vLLM with {shown}")
    assert base_findings(file, pinned, str(locked.folder / "base")) == ()


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


def test_an_unknown_way_to_follow_is_refused_before_the_engine_starts(locked: Project) -> None:
    assert found(locked, ADAPTERDOCK_FOLLOW="sometimes") == ["AD956"]
    for way in ("", "lock", "aliases"):
        assert found(locked, ADAPTERDOCK_FOLLOW=way) == []


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


# -- a manifest at a URL -----------------------------------------------------------------------


@pytest.fixture
def at_url(project: Project, web: WebServer) -> Project:
    """A manifest that names its base and adapters by absolute paths, also on a web server."""
    project.base()
    project.adapter("tone")
    project.write({"tone": str(project.folder / "tone")}, model=str(project.folder / "base"))
    adapterdock.lock(project.manifest)
    put(project, web)
    return project


def put(project: Project, web: WebServer) -> None:
    for path in project.folder.glob("adapters.*"):
        web.files[f"/team/{path.name}"] = path.read_bytes()


def asked(project: Project, web: WebServer, model: str = "base") -> list[Finding]:
    there = {**environ(project), "ADAPTERDOCK_MANIFEST": f"{web.url}/team/adapters.yaml"}
    return start_findings(there, argv(project, model=model), "0.32.0")


def test_a_manifest_at_a_url_is_checked_before_the_engine_starts(
    at_url: Project, web: WebServer
) -> None:
    assert asked(at_url, web) == []
    at_url.base("other", seed=7)
    [finding, *_] = asked(at_url, web, model="other")
    assert finding.code.startswith("AD4")
    at_url.adapter("calm", seed=1)
    adapters = {"tone": str(at_url.folder / "tone"), "calm": str(at_url.folder / "calm")}
    at_url.write(adapters, model=str(at_url.folder / "base"))
    put(at_url, web)
    [finding] = asked(at_url, web)
    assert finding.name == "lock-stale"
    assert "/team/" in str(finding.where.file)
    del web.files["/team/adapters.lock"]
    [finding] = asked(at_url, web)
    assert finding.name == "lock-missing"


@pytest.mark.parametrize("how", ["refused", "silent"])
def test_a_url_out_of_reach_delays_a_start_for_a_moment_only(
    how: str, at_url: Project, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "ASK_SECONDS", 2.0)
    if how == "silent":
        web.silent = True
    else:
        web.status = dict.fromkeys(web.files, 503)
    began = time.monotonic()
    assert asked(at_url, web) == []
    assert time.monotonic() - began < 20


def test_what_was_served_last_is_checked_where_a_url_is_out_of_reach(
    at_url: Project, web: WebServer
) -> None:
    served = Served(f"{web.url}/team/adapters.yaml", target=Target.parse("vllm==0.32"))
    served.start()
    served.close()
    web.status = dict.fromkeys(web.files, 503)
    assert asked(at_url, web) == []
    at_url.base("other", seed=7)
    assert [f.code[:3] for f in asked(at_url, web, model="other")][:1] == ["AD4"]

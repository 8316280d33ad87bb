"""What the engine cannot serve is refused before it is switched to."""

from __future__ import annotations

import adapterdock
import pytest
from adapterdock.manifests.findings.errors import FitError
from adapterdock.manifests.findings.finding import Finding
from adapterdock.manifests.findings.serving import TARGET_UNCHECKED
from adapterdock.serving.served.served import Refusal, Served, ServedAdapter
from adapterdock.serving.targets.target import Target
from support.hub_server import HubServer, point_client_at
from support.project import Project, codes, files_of


@pytest.fixture
def desk(project: Project) -> Project:
    project.base()
    project.adapter("tone", seed=1, r=8)
    project.adapter("legal", seed=2, r=4)
    project.write(
        {"tone": "./tone", "legal": "./legal"},
        compositions={"both": {"of": {"tone": 1.0, "legal": 1.0}}},
    )
    adapterdock.lock(project.manifest)
    return project


def vllm(max_rank: int) -> Target:
    return Target.parse("vllm==0.32", max_rank=max_rank)


def test_what_the_engine_can_serve_is_served(desk: Project) -> None:
    served = Served(desk.manifest, target=vllm(16))
    served.start()
    assert sorted(served.current()) == ["both", "legal", "tone"]
    assert served.status()["engine"] == {"name": "vllm", "version": "0.32"}
    assert served.status()["findings"] == []


def test_a_sum_over_the_limit_is_refused_with_the_value_to_set(desk: Project) -> None:
    served = Served(desk.manifest, target=vllm(8))
    served.start()
    refusal = served.resolve("both")
    assert isinstance(refusal, Refusal) and codes(refusal.findings) == ["AD946"]
    assert "--max-lora-rank 16" in str(refusal.findings[0].hint)
    assert isinstance(served.resolve("tone"), ServedAdapter)


def test_an_adapter_over_the_limit_is_refused_at_the_start(desk: Project) -> None:
    with pytest.raises(FitError) as caught:
        Served(desk.manifest, target=vllm(1)).start()
    assert {*codes(caught.value.findings)} == {"AD946"}


def test_an_adapter_that_the_engine_misreads_keeps_the_old(desk: Project) -> None:
    served = Served(desk.manifest, target=Target.parse("vllm==0.31"))
    served.start()
    before = served.current()
    desk.adapter("tone", seed=1, r=8, alpha_pattern={"q_proj": 2})
    adapterdock.lock(desk.manifest, upgrade=["tone"])
    looked = served.look()
    assert looked.result == "refused" and codes(looked.findings) == ["AD945"]
    assert served.current() is before


def test_what_nobody_tried_is_accepted_by_code(
    desk: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = [TARGET_UNCHECKED.finding("Nobody tried this")]

    def check(*_: object) -> list[Finding]:
        return unknown

    monkeypatch.setattr("adapterdock.serving.served.prepare.check_base", check)
    with pytest.raises(FitError):
        Served(desk.manifest, target=vllm(16)).start()
    served = Served(desk.manifest, target=vllm(16), accept=["AD948"])
    served.start()
    assert sorted(served.current()) == ["both", "legal", "tone"]


def test_a_base_that_is_out_of_reach_is_no_reason_to_refuse(
    desk: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock was made with it. An engine's machine may have the base under another path."""
    desk.write(
        {"tone": "./tone", "legal": "./legal"},
        model="hf://org/base",
        compositions={"both": {"of": {"tone": 1.0, "legal": 1.0}}},
    )
    hub = HubServer()
    try:
        point_client_at(monkeypatch, hub.endpoint, desk.folder / "hub")
        hub.commit("org/base", files_of(desk.folder / "base"))
        adapterdock.lock(desk.manifest)
    finally:
        hub.close()
    monkeypatch.setenv("HF_HUB_CACHE", str(desk.folder / "empty"))
    monkeypatch.setenv("ADAPTERDOCK_CACHE", str(desk.folder / "empty-too"))
    monkeypatch.setenv("ADAPTERDOCK_OFFLINE", "1")
    point_client_at(monkeypatch, "http://127.0.0.1:9", desk.folder / "none")
    served = Served(desk.manifest, target=vllm(16))
    served.start()
    assert sorted(served.current()) == ["both", "legal", "tone"]

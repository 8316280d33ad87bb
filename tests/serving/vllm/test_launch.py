"""An API server loads every adapter of its manifest before its first request, and follows it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import adapterdock
import pytest
from adapterdock import AdapterdockError
from adapterdock.serving.served.served import Served
from adapterdock.serving.vllm import launch as module
from adapterdock.serving.vllm.launch import launch
from adapterdock.serving.vllm.settings import RUNTIME_UPDATING, Settings
from support.project import Project, codes
from support.vllm_fakes import FakeEngine, FakeModels, FakeRequest
from support.web import WebServer


@pytest.fixture
def locked(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(module, "installed_version", lambda: "0.32.0")
    monkeypatch.delenv(RUNTIME_UPDATING, raising=False)
    project.base()
    for seed, name in enumerate(("tone", "calm")):
        project.adapter(name, seed=seed)
    project.write(
        {"tone": "./tone", "calm": "./calm"},
        compositions={"both": {"combine": "sum", "of": {"tone": 1.0, "calm": 0.5}}},
    )
    adapterdock.lock(project.manifest)
    return project


class Launched:
    """A server with a fake engine, and what was launched in it."""

    def __init__(self, project: Project, **config: Any) -> None:
        self.project = project
        self.manifest = str(project.manifest)
        self.engine = FakeEngine(**{"model": str(project.folder / "base"), **config})
        self.models = FakeModels(self.engine)

    async def start(self, api_servers: int = 1, **settings: Any) -> Served:
        chosen = Settings(self.manifest, plugins=("adapterdock",), **settings)
        return await launch(
            chosen, self.engine, self.models, api_servers=api_servers, make=FakeRequest
        )

    @asynccontextmanager
    async def __call__(self, **settings: Any) -> AsyncGenerator[Served]:
        served = await self.start(**settings)
        try:
            yield served
        finally:
            # in another thread: a change that is being made needs the loop
            await asyncio.to_thread(served.close)


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 120))


def test_adapters_and_sums_are_loaded_and_listed_before_the_launch_returns(
    locked: Project,
) -> None:
    async def scenario() -> None:
        server = Launched(locked)
        async with server() as served:
            assert sorted(server.models.lora_requests) == ["both", "calm", "tone"]
            assert len(server.engine.loaded) == 3
            status = served.status()
            assert status["engine"] == {"name": "vllm", "version": "0.32.0"}
            assert status["state"] == "serving"
            for name, one in status["adapters"].items():
                assert Path(
                    server.models.lora_requests[name].lora_path, "adapter_config.json"
                ).exists()
                assert one["digest"] == status["wanted"][name]

    run(scenario)


def test_a_new_lock_is_rolled_out_by_the_follower(locked: Project) -> None:
    async def scenario() -> None:
        server = Launched(locked)
        async with server(period=1.0):
            before = dict(server.models.lora_requests)
            locked.adapter("tone", seed=9)
            await asyncio.to_thread(adapterdock.lock, locked.manifest, upgrade=["tone"])
            end = time.monotonic() + 60
            while server.models.lora_requests["tone"] is before["tone"]:
                assert time.monotonic() < end
                await asyncio.sleep(0.05)
            assert server.models.lora_requests["calm"] is before["calm"]
            assert server.models.lora_requests["both"] is not before["both"]

    run(scenario)


def test_what_the_engine_refuses_later_keeps_the_old_and_is_said_in_the_status(
    locked: Project,
) -> None:
    async def scenario() -> None:
        server = Launched(locked)
        async with server() as served:
            before = dict(server.models.lora_requests)
            server.engine.refuses["tone"] = "out of memory"
            locked.adapter("tone", seed=9)
            await asyncio.to_thread(adapterdock.lock, locked.manifest, upgrade=["tone"])
            await asyncio.to_thread(served.look)
            assert server.models.lora_requests == before
            status = served.status()
            assert status["state"] == "behind"
            assert "AD954" in [finding["code"] for finding in status["findings"]]

    run(scenario)


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"lora": False}, "AD961"),
        ({"load_format": "dummy"}, "AD963"),
        ({"model": "org/nowhere"}, "AD963"),
    ],
)
def test_what_the_engine_shows_to_be_wrong_ends_the_start(
    locked: Project, config: dict[str, Any], code: str
) -> None:
    async def scenario() -> None:
        server = Launched(locked, **config)
        with pytest.raises(AdapterdockError) as caught:
            await server.start()
        assert caught.value.code == code
        assert server.engine.calls == []

    run(scenario)


def test_another_base_ends_the_start(locked: Project) -> None:
    async def scenario() -> None:
        other = locked.base("other", seed=7)
        with pytest.raises(AdapterdockError) as caught:
            await Launched(locked, model=str(other)).start()
        assert caught.value.code.startswith("AD4")

    run(scenario)


def test_an_adapter_over_the_servers_rank_ends_the_start_and_names_the_rank(
    locked: Project,
) -> None:
    async def scenario() -> None:
        server = Launched(locked, max_rank=1)
        with pytest.raises(AdapterdockError) as caught:
            await server.start()
        assert caught.value.code == "AD946"
        assert server.engine.calls == []

    run(scenario)


def test_another_resolver_ends_the_start(locked: Project) -> None:
    async def scenario() -> None:
        server = Launched(locked)
        server.models.lora_resolvers = [object()]
        with pytest.raises(AdapterdockError) as caught:
            await server.start()
        assert caught.value.code == "AD962"

    run(scenario)


def test_a_lazy_server_answers_through_the_resolver_and_opens_no_route(
    locked: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        server = Launched(locked)
        async with server(lazy=True):
            assert server.engine.calls == []
            assert module.os.environ[RUNTIME_UPDATING] == "1"
            request = await server.models.resolve_lora("tone")
            assert request is server.models.lora_requests["tone"]
            assert await server.models.resolve_lora("unknown") == 404

    monkeypatch.setenv(RUNTIME_UPDATING, "0")
    run(scenario)


def test_the_loop_answers_while_the_manifest_is_read(
    locked: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = module._require_base

    def slower(*arguments: Any) -> None:
        time.sleep(1.0)
        slow(*arguments)

    monkeypatch.setattr(module, "_require_base", slower)

    async def scenario() -> None:
        server = Launched(locked)
        launching = asyncio.create_task(server.start())
        beats = 0
        while not launching.done():
            await asyncio.sleep(0.05)
            beats += 1
        (await launching).close()
        assert beats > 5

    run(scenario)


@pytest.mark.parametrize(("device", "warned"), [("cpu", True), ("cuda", False)])
def test_a_server_on_a_cpu_says_what_it_gets_wrong(
    locked: Project, caplog: pytest.LogCaptureFixture, device: str, warned: bool
) -> None:
    async def scenario() -> None:
        async with Launched(locked, device=device)():
            pass

    run(scenario)
    assert ("AD967" in caplog.text) is warned


def test_lazy_loading_in_two_api_servers_ends_the_start(locked: Project) -> None:
    async def scenario() -> None:
        with pytest.raises(AdapterdockError) as caught:
            await Launched(locked).start(api_servers=2, lazy=True)
        assert caught.value.code == "AD961"

    run(scenario)


def test_another_base_in_a_later_lock_leaves_the_old_adapters(locked: Project) -> None:
    async def scenario() -> None:
        server = Launched(locked)
        async with server() as served:
            before = dict(server.models.lora_requests)
            locked.base("other", seed=7)
            locked.change("./base", "./other")
            await asyncio.to_thread(adapterdock.lock, locked.manifest, upgrade=["base"])
            looked = await asyncio.to_thread(served.look)
            assert looked.result == "refused" and codes(looked.findings)[0].startswith("AD4")
            assert server.models.lora_requests == before

    run(scenario)


def test_a_server_that_restarts_without_its_manifest_loads_what_it_served(
    locked: Project, web: WebServer
) -> None:
    names = ("adapters.yaml", "adapters.lock", "adapters.lock.samples")
    locked.write(
        {name: str(locked.folder / name) for name in ("tone", "calm")},
        model=str(locked.folder / "base"),
    )
    adapterdock.lock(locked.manifest)
    web.files = {f"/team/{name}": (locked.folder / name).read_bytes() for name in names}

    async def scenario() -> None:
        first, second = Launched(locked), Launched(locked)
        first.manifest = second.manifest = f"{web.url}/team/adapters.yaml"
        (await first.start()).close()
        asked = [path for method, path, _ in web.requests if method == "GET"]
        assert len(asked) == len(set(asked)), "it was fetched twice"
        web.status = {f"/team/{name}": 503 for name in names}
        async with second() as served:
            assert sorted(second.models.lora_requests) == ["calm", "tone"]
            assert served.status()["state"] == "behind"
        other = Launched(locked, model=str(locked.base("other", seed=7)))
        other.manifest = second.manifest
        with pytest.raises(AdapterdockError) as caught:
            await other.start()
        assert caught.value.findings[-1].code.startswith("AD4")

    run(scenario)

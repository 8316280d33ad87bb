"""The plugin's routes, as each API server has them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import adapterdock
import pytest
from adapterdock.serving.served.served import Served
from adapterdock.serving.vllm import launch
from adapterdock.serving.vllm.endpoint import METRICS, STATUS, Endpoint
from support.project import Project
from support.vllm_fakes import FakeEngine, FakeModels, FakeRequest

pytest.importorskip("starlette")


class App:
    """What the plugin uses of a ``FastAPI`` app."""

    def __init__(self) -> None:
        self.routes: dict[str, Any] = {}

    def add_api_route(self, path: str, endpoint: Any, **options: Any) -> None:
        assert options["methods"] == ["GET"]
        self.routes[path] = endpoint


def test_vllm_finds_both_halves_under_one_name() -> None:
    from importlib.metadata import entry_points

    for group in ("vllm.general_plugins", "vllm.endpoint_plugins"):
        [point] = [one for one in entry_points(group=group) if one.name == "adapterdock"]
        assert callable(point.load())
    endpoint = Endpoint()
    assert endpoint.name == "adapterdock" and endpoint.required_tasks is None


def test_the_routes_are_under_v1_and_say_503_until_the_adapters_are_loaded() -> None:
    app = App()
    Endpoint().attach_router(app)
    assert sorted(app.routes) == [METRICS, STATUS]
    assert all(path.startswith("/v1/") for path in app.routes)
    for handler in app.routes.values():
        assert asyncio.run(handler()).status_code == 503


def fails(*_: object) -> None:
    raise RuntimeError("a bug")


def test_status_and_metrics_are_those_of_what_is_served(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.base()
    project.adapter("tone")
    adapterdock.lock(project.write({"tone": "./tone"}))
    monkeypatch.setenv("ADAPTERDOCK_MANIFEST", str(project.manifest))
    monkeypatch.setenv("VLLM_PLUGINS", "adapterdock")
    monkeypatch.setattr(launch.launch, "__kwdefaults__", {"make": FakeRequest, "api_servers": 1})
    engine = FakeEngine(model=str(project.folder / "base"))
    models = FakeModels(engine)
    app, endpoint = App(), Endpoint()

    async def scenario() -> None:
        endpoint.attach_router(app)
        state = SimpleNamespace(openai_serving_models=models)
        await endpoint.init_state(engine, state, None)
        status = await app.routes[STATUS]()
        assert status.status_code == 200 and b'"adapterdock.status/1"' in status.body
        metrics = await app.routes[METRICS]()
        assert metrics.media_type.startswith("text/plain; version=0.0.4")
        assert b"adapterdock_adapters 1" in metrics.body
        for name, path in (("status", STATUS), ("metrics", METRICS)):
            with monkeypatch.context() as broken:
                broken.setattr(Served, name, fails)
                assert (await app.routes[path]()).status_code == 500
            assert (await app.routes[path]()).status_code == 200

    asyncio.run(scenario())
    assert list(models.lora_requests) == ["tone"]


def test_a_manifest_that_cannot_be_served_ends_the_start_with_its_findings(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTERDOCK_MANIFEST", str(project.manifest))
    monkeypatch.setenv("VLLM_PLUGINS", "adapterdock")
    engine = FakeEngine()
    state = SimpleNamespace(openai_serving_models=FakeModels(engine))
    with pytest.raises(SystemExit, match="adapterdock: vLLM does not start"):
        asyncio.run(Endpoint().init_state(engine, state, None))


def test_a_server_without_an_engine_has_the_routes_and_no_adapters() -> None:
    app, endpoint = App(), Endpoint()
    endpoint.attach_router(app)
    asyncio.run(endpoint.init_state(None, SimpleNamespace(), None))
    assert asyncio.run(app.routes[STATUS]()).status_code == 503

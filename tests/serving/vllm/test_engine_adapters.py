"""Adapters are loaded first and switched then, all at once, in the loop of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import pytest
from adapterdock import AdapterdockError
from adapterdock.serving.served.state import ServedAdapter
from adapterdock.serving.vllm.engine_adapters import EngineAdapters
from adapterdock.serving.vllm.engine_ids import engine_id
from adapterdock.serving.vllm.lazy_resolver import LazyResolver
from support.vllm_fakes import FakeEngine, FakeModels, FakeRequest


def adapter(name: str, version: int = 1) -> ServedAdapter:
    digest = f"sha256:{version:064x}"
    return ServedAdapter(name, Path(f"/copies/{version:064x}"), digest, "", 1000, 8)


class Server:
    """One API server: its loop, its engine, its models, and what is served now."""

    def __init__(self, lazy: bool = False) -> None:
        self.engine = FakeEngine()
        self.models = FakeModels(self.engine)
        self.adapters = EngineAdapters(
            asyncio.get_running_loop(), self.engine, self.models, lazy=lazy, make=FakeRequest
        )
        self.now: Mapping[str, ServedAdapter] = {}
        if lazy:
            self.models.lora_resolvers = [LazyResolver(self.adapters)]

    async def serve(self, *wanted: ServedAdapter) -> None:
        """As a follower does it, from its own thread."""
        new = {one.name: one for one in wanted}
        changed = {n: one for n, one in new.items() if self.now.get(n) != one}
        await asyncio.to_thread(self.adapters.change, changed, new)
        self.now = new

    @property
    def paths(self) -> dict[str, str]:
        return {name: one.lora_path for name, one in self.models.lora_requests.items()}


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_every_adapter_is_loaded_and_listed_under_its_name_and_number() -> None:
    async def scenario() -> None:
        server = Server()
        one, two = adapter("refunds", 1), adapter("billing", 2)
        await server.serve(one, two)
        assert server.engine.loaded == {
            engine_id(one.digest): str(one.path),
            engine_id(two.digest): str(two.path),
        }
        assert server.paths == {"refunds": str(one.path), "billing": str(two.path)}
        assert list(server.paths) == ["refunds", "billing"]  # as the manifest lists them

    run(scenario)


def test_the_new_version_is_loaded_before_the_old_one_is_replaced() -> None:
    async def scenario() -> None:
        server = Server()
        await server.serve(adapter("refunds", 1))
        server.engine.delay = 0.2
        change = asyncio.create_task(server.serve(adapter("refunds", 2)))
        await asyncio.sleep(0.1)
        assert server.paths == {"refunds": str(adapter("refunds", 1).path)}
        await change
        assert server.paths == {"refunds": str(adapter("refunds", 2).path)}
        assert engine_id(adapter("refunds", 2).digest) in server.engine.loaded

    run(scenario)


def test_one_that_the_engine_refuses_keeps_all_the_old_ones() -> None:
    async def scenario() -> None:
        server = Server()
        await server.serve(adapter("refunds", 1), adapter("billing", 2))
        before = server.paths
        server.engine.refuses["refunds"] = "Traceback ...\nValueError: LoRA rank 64 is too large"
        with pytest.raises(AdapterdockError) as caught:
            await server.serve(adapter("refunds", 3), adapter("billing", 4))
        assert caught.value.code == "AD954"
        assert caught.value.findings[0].found == "ValueError: LoRA rank 64 is too large"
        assert server.paths == before

    run(scenario)


def test_an_adapter_that_the_manifest_no_longer_has_is_no_longer_listed() -> None:
    async def scenario() -> None:
        server = Server()
        await server.serve(adapter("refunds", 1), adapter("billing", 2))
        await server.serve(adapter("billing", 2))
        assert list(server.paths) == ["billing"]

    run(scenario)


def test_a_rollback_uses_the_number_of_the_old_version_again() -> None:
    async def scenario() -> None:
        server = Server()
        numbers = []
        for version in (1, 2, 1):
            await server.serve(adapter("refunds", version))
            numbers.append(server.models.lora_requests["refunds"].lora_int_id)
        assert numbers[0] == numbers[2] != numbers[1]

    run(scenario)


def test_the_bases_name_and_names_of_other_adapters_are_refused() -> None:
    async def scenario() -> None:
        server = Server()
        server.models.lora_requests["static"] = FakeRequest("static", 1, "/elsewhere")
        for name in ("base", "static"):
            with pytest.raises(AdapterdockError) as caught:
                await server.serve(adapter(name))
            assert caught.value.code == "AD964"
        assert server.engine.calls == []
        await server.serve(adapter("refunds"))
        assert server.paths["static"] == "/elsewhere"

    run(scenario)


def test_two_contents_with_one_number_are_refused_before_anything_is_loaded() -> None:
    async def scenario() -> None:
        server = Server()
        with pytest.raises(AdapterdockError) as caught:
            await server.serve(adapter("refunds", 5), adapter("billing", 5 + 2**30))
        assert caught.value.code == "AD965"
        assert server.engine.calls == [] and server.paths == {}

    run(scenario)


def test_a_lazy_server_loads_an_adapter_with_its_first_request_only() -> None:
    async def scenario() -> None:
        server = Server(lazy=True)
        await server.serve(adapter("refunds", 1), adapter("billing", 2))
        assert server.engine.calls == [] and server.paths == {}
        await server.models.resolve_lora("refunds")
        await server.models.resolve_lora("refunds")
        assert server.engine.calls == ["refunds"]
        assert await server.models.resolve_lora("unknown") == 404

    run(scenario)


def test_a_lazy_server_switches_what_it_has_loaded_and_nothing_else() -> None:
    async def scenario() -> None:
        server = Server(lazy=True)
        await server.serve(adapter("refunds", 1), adapter("billing", 2))
        await server.models.resolve_lora("refunds")
        await server.serve(adapter("refunds", 3), adapter("billing", 4))
        assert server.paths == {"refunds": str(adapter("refunds", 3).path)}
        await server.models.resolve_lora("billing")
        assert server.paths["billing"] == str(adapter("billing", 4).path)
        await server.serve(adapter("billing", 4))
        assert list(server.paths) == ["billing"]
        assert await server.models.resolve_lora("refunds") == 404

    run(scenario)


def test_a_request_that_loads_the_old_version_during_a_switch_does_not_keep_it() -> None:
    async def scenario() -> None:
        server = Server(lazy=True)
        await server.serve(adapter("refunds", 1))
        server.engine.delay = 0.4
        asked = asyncio.create_task(server.models.resolve_lora("refunds"))
        await asyncio.sleep(0.05)
        server.engine.delay = 0.0  # the new one is loaded sooner
        await server.serve(adapter("refunds", 2))
        await asked
        assert server.paths == {"refunds": str(adapter("refunds", 2).path)}

    run(scenario)


def test_a_bug_is_no_answer_of_the_resolver_and_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        server = Server(lazy=True)
        await server.serve(adapter("refunds"))
        [resolver] = server.models.lora_resolvers
        with monkeypatch.context() as broken:
            broken.setattr(server.adapters, "ask", lambda name: {}[name])
            for _ in range(3):
                assert await resolver.resolve_lora("base", "refunds") is None
        assert await resolver.resolve_lora("base", "refunds") is not None

    run(scenario)
    [record] = [one for one in caplog.records if one.exc_info]
    assert "KeyError" in caplog.text and record.name == "adapterdock"

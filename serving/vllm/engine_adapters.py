"""The adapters in vLLM's engine and in one API server's list of models, changed load first."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Any, Protocol

from ...manifests.findings import serving as codes
from ...manifests.findings.errors import AttachError
from ..served.state import ServedAdapter
from .engine_ids import EngineIds

TIMEOUT = 600.0
"""Seconds until a change is given up: the engine may be busy, or gone."""


class Engine(Protocol):
    """What is used of vLLM's ``EngineClient``."""

    def add_lora(self, lora_request: Any, /) -> Awaitable[bool]: ...


class Models(Protocol):
    """What is used of vLLM's ``OpenAIServingModels``."""

    lora_requests: dict[str, Any]
    lora_resolvers: list[Any]
    lora_resolver_lock: MutableMapping[str, AbstractAsyncContextManager[Any]]

    def is_base_model(self, model_name: str, /) -> bool: ...


MakeRequest = Callable[[str, int, str], Any]
"""``make(name, number, path)``: a ``LoRARequest``."""


def lora_request(name: str, number: int, path: str) -> Any:
    """vLLM's own request for an adapter."""
    from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]

    return LoRARequest(lora_name=name, lora_int_id=number, lora_path=path)


class EngineAdapters:
    """What one API server serves. Everything but :meth:`change` runs in the server's loop.

    Args:
        loop: The server's.
        engine: Loads adapters.
        models: The server's list of models.
        lazy: Whether only adapters that were asked for are loaded.
        make: Makes the engine's requests.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        engine: Engine,
        models: Models,
        *,
        lazy: bool = False,
        make: MakeRequest = lora_request,
    ) -> None:
        self._loop = loop
        self._engine = engine
        self._models = models
        self._lazy = lazy
        self._make = make
        self._ids = EngineIds()
        self._ours: dict[str, Any] = {}
        self._asked: set[str] = set()
        self._wanted: Mapping[str, ServedAdapter] = MappingProxyType({})

    def change(
        self, changed: Mapping[str, ServedAdapter], wanted: Mapping[str, ServedAdapter]
    ) -> None:
        """Load what changed, then switch to ``wanted`` at once. Called in another thread than the
        loop's. If the engine refuses one adapter, nothing is switched.

        Raises:
            AttachError: A name or a number is taken, or the engine refused an adapter.
        """
        work = asyncio.run_coroutine_threadsafe(self._change(changed, wanted), self._loop)
        try:
            work.result(TIMEOUT)
        except concurrent.futures.TimeoutError as error:
            work.cancel()
            message = f"vLLM did not answer within {TIMEOUT:.0f} seconds"
            raise AttachError(codes.ENGINE_REFUSED.finding(message)) from error

    def ask(self, name: str) -> Any | None:
        """The request for an adapter that a client asked for, or ``None`` for an unknown name."""
        adapter = self._wanted.get(name)
        if adapter is None:
            return None
        self._asked.add(name)
        return self._request(adapter)

    async def _change(
        self, changed: Mapping[str, ServedAdapter], wanted: Mapping[str, ServedAdapter]
    ) -> None:
        self._require_free(wanted)
        requests = {name: self._request(adapter) for name, adapter in changed.items()}
        loaded: set[str] = set()
        touched = {*requests, *(self._wanted.keys() - wanted.keys())}
        while pending := sorted(name for name in touched - loaded if self._is_live(name)):
            for name in pending:
                await self._settled(name)
                if name in requests:
                    await self._load(name, requests[name])
                loaded.add(name)
        self._switch({n: request for n, request in requests.items() if n in loaded}, wanted)

    def _switch(self, requests: Mapping[str, Any], wanted: Mapping[str, ServedAdapter]) -> None:
        """Without a pause: a request before it gets the old adapters, one after it the new."""
        for name in [*self._ours.keys() - wanted.keys(), *self._asked - wanted.keys()]:
            self._ours.pop(name, None)
            self._asked.discard(name)
            self._models.lora_requests.pop(name, None)
        self._models.lora_requests.update(requests)
        self._ours.update(requests)
        self._wanted = MappingProxyType(dict(wanted))

    def _is_live(self, name: str) -> bool:
        return not self._lazy or name in self._asked

    async def _settled(self, name: str) -> None:
        """Wait until vLLM is done with a request that asks for this name now."""
        if self._lazy:
            async with self._models.lora_resolver_lock[name]:
                pass

    async def _load(self, name: str, request: Any) -> None:
        try:
            await self._engine.add_lora(request)
        except Exception as error:  # of whatever kind: the engine is another process
            raise AttachError(
                codes.ENGINE_REFUSED.finding(
                    f"vLLM did not load {name!r}", found=_last_line(error) or type(error).__name__
                )
            ) from error

    def _request(self, adapter: ServedAdapter) -> Any:
        number = self._ids.take(adapter.name, adapter.digest)
        return self._make(adapter.name, number, str(adapter.path))

    def _require_free(self, names: Iterable[str]) -> None:
        findings = []
        for name in names:
            listed = self._models.lora_requests.get(name)
            if self._models.is_base_model(name):
                message = f"Adapter {name!r} has the name of the base that is served"
            elif listed is not None and listed is not self._ours.get(name) and not self._lazy:
                message = f"Adapter {name!r} has the name of an adapter that vLLM loaded itself"
            else:
                continue
            findings.append(codes.NAME_TAKEN.finding(message, found=name))
        if findings:
            raise AttachError(*findings)


def _last_line(error: Exception) -> str:
    """What the engine said; vLLM puts the traceback of its other process before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else ""

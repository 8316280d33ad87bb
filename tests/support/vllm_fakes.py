"""What vLLM 0.32's classes do, as far as the plugin meets them (read in its source, and run)."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


@dataclass
class FakeRequest:
    """``vllm.lora.request.LoRARequest``; vLLM writes its own number into one of a resolver."""

    lora_name: str
    lora_int_id: int
    lora_path: str


class FakeEngine:
    """``AsyncLLM``: ``add_lora`` answers whether the number is new, and what the worker raises
    comes back as one ``Exception`` whose text ends in the worker's."""

    def __init__(self, **config: Any) -> None:
        self.loaded: dict[int, str] = {}
        self.calls: list[str] = []
        self.refuses: dict[str, str] = {}
        self.delay = 0.0
        self.vllm_config = SimpleNamespace(
            model_config=SimpleNamespace(
                model=config.get("model", "org/base"), revision=config.get("revision")
            ),
            device_config=SimpleNamespace(device_type=config.get("device", "cuda")),
            load_config=SimpleNamespace(load_format=config.get("load_format", "auto")),
            lora_config=SimpleNamespace(max_lora_rank=config.get("max_rank", 16), max_loras=1)
            if config.get("lora", True)
            else None,
        )

    async def add_lora(self, lora_request: FakeRequest) -> bool:
        await asyncio.sleep(self.delay)
        self.calls.append(lora_request.lora_name)
        if (text := self.refuses.get(lora_request.lora_name)) is not None:
            raise Exception(f"Call to add_lora method failed: {text}")
        if lora_request.lora_int_id in self.loaded:
            return False
        self.loaded[lora_request.lora_int_id] = lora_request.lora_path
        return True


@dataclass
class FakeModels:
    """``OpenAIServingModels``, with its ``resolve_lora`` as vLLM has it."""

    engine: FakeEngine
    base: tuple[str, ...] = ("base",)
    lora_requests: dict[str, FakeRequest] = field(default_factory=dict)
    lora_resolvers: list[Any] = field(default_factory=list)
    lora_resolver_lock: dict[str, asyncio.Lock] = field(
        default_factory=lambda: defaultdict(asyncio.Lock)
    )
    counter: int = 0

    def is_base_model(self, model_name: str) -> bool:
        return model_name in self.base

    async def resolve_lora(self, lora_name: str) -> FakeRequest | int:
        async with self.lora_resolver_lock[lora_name]:
            if lora_name in self.lora_requests:
                return self.lora_requests[lora_name]
            self.counter += 1
            number = self.counter
            for resolver in self.lora_resolvers:
                request = await resolver.resolve_lora("base", lora_name)
                if request is not None:
                    request.lora_int_id = number
                    await self.engine.add_lora(request)
                    self.lora_requests[lora_name] = request
                    return request
            return 404

"""Adapters that are loaded by the first request for them."""

from __future__ import annotations

import logging
from typing import Any

from ...manifests.findings.errors import AdapterdockError
from .engine_adapters import EngineAdapters

log = logging.getLogger("adapterdock")


class LazyResolver:
    """A resolver as vLLM asks it (``vllm.lora.resolver.LoRAResolver``), with the verified adapters
    that are on this machine already. It never raises: vLLM would answer with the error's text."""

    def __init__(self, adapters: EngineAdapters) -> None:
        self._adapters = adapters
        self._seen: set[type[Exception]] = set()

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> Any | None:
        """The request for ``lora_name``, under exactly this name; ``None`` for an unknown one."""
        try:
            return self._adapters.ask(lora_name)
        except AdapterdockError as error:
            log.warning("%s", error)
        except Exception as error:
            kind = type(error)
            if kind not in self._seen:  # each kind once: any client can ask again and again
                self._seen.add(kind)
                log.exception("Cannot look for an adapter that was asked for")
        return None

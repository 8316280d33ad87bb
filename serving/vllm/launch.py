"""What an API server does once it has its engine: check the base, load every adapter, follow."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...manifests.findings import serving as codes
from ...manifests.findings.errors import FitError, UsageError
from ...manifests.findings.finding import Finding, refused
from ...manifests.lockfile import Lock
from ...manifests.manifest import ManifestFile
from ...registry.access.session import accepted_codes
from ..served.served import Served
from ..targets.target import Target, version_of
from .arguments import Arguments
from .engine_adapters import EngineAdapters, MakeRequest, lora_request
from .installed import installed_version
from .lazy_resolver import LazyResolver
from .served_base import base_findings, unread_base
from .settings import RUNTIME_UPDATING, Settings
from .start import engine_findings, loader_findings, setting_findings

log = logging.getLogger("adapterdock")


@dataclass(frozen=True)
class Running:
    """The engine's own view of how it was started."""

    model: str
    revision: str | None
    load_format: str | None
    max_rank: int | None
    max_loras: int | None
    on_cpu: bool = False

    @classmethod
    def of(cls, config: Any) -> Running:
        """From a ``VllmConfig``. ``max_rank`` is ``None`` without ``--enable-lora``."""
        model, lora = config.model_config, config.lora_config
        load_format = config.load_config.load_format
        return cls(
            str(model.model),
            model.revision,
            None if load_format is None else str(getattr(load_format, "value", load_format)),
            None if lora is None else int(lora.max_lora_rank),
            None if lora is None else int(lora.max_loras),
            str(config.device_config.device_type) == "cpu",
        )


async def launch(
    settings: Settings,
    engine: Any,
    models: Any,
    *,
    api_servers: int | None = None,
    make: MakeRequest = lora_request,
) -> Served:
    """Load every adapter of the manifest into the engine, list it, and follow the manifest.

    Everything that is no work of the server's loop is done in other threads.

    Args:
        settings: From the environment; they have a manifest.
        engine: vLLM's ``EngineClient``.
        models: vLLM's ``OpenAIServingModels``.
        api_servers: How many API servers the engine has.
        make: Makes the engine's requests for adapters.

    Returns:
        What is served; a thread follows the manifest.

    Raises:
        AdapterdockError: The manifest cannot be served.
    """
    running = Running.of(engine.vllm_config)
    wrong = list(_setup_findings(settings, running, models, api_servers))
    if wrong:
        raise UsageError(*wrong)
    if running.on_cpu:
        message = "Requests for the base may be answered with an adapter's weights on a CPU"
        log.warning("%s", codes.BASE_MIXED.finding(message))
    loop = asyncio.get_running_loop()
    adapters = EngineAdapters(loop, engine, models, lazy=settings.lazy, make=make)
    served = await asyncio.to_thread(_start, settings, running, adapters)
    if settings.lazy:
        # vLLM asks resolvers only where this is set. Set now, it opens no routes: these were (not)
        # made when the app was built.
        os.environ[RUNTIME_UPDATING] = "1"
        models.lora_resolvers[:] = [LazyResolver(adapters)]
    served.follow()
    return served


def _start(settings: Settings, running: Running, adapters: EngineAdapters) -> Served:
    manifest = settings.manifest
    assert manifest is not None
    served = Served(
        manifest,
        target=_target(running),
        period=settings.period,
        accept=settings.accept,
        follow_aliases=settings.follow_aliases,
        on_change=adapters.change,
        require=lambda file, lock: _require_base(settings, running, file, lock),
    )
    served.start()
    return served


def _setup_findings(
    settings: Settings, running: Running, models: Any, api_servers: int | None
) -> Iterator[Finding]:
    """The checks of the start again, for servers whose start had none, and with the engine's own
    values."""
    yield from setting_findings(settings)
    arguments = Arguments(enable_lora=running.max_rank is not None, api_servers=api_servers)
    yield from engine_findings(settings, arguments, installed_version())
    yield from loader_findings(settings)
    others = [type(one).__name__ for one in models.lora_resolvers]
    if others and not settings.allow_runtime_routes:
        names = " and ".join(others)
        yield codes.OTHER_LOADERS.finding(
            f"vLLM has another resolver of adapters, {names}, which would serve adapters that "
            "nobody verified",
            hint="Set VLLM_PLUGINS=adapterdock, so that vLLM loads no other resolver.",
        )


def _require_base(settings: Settings, running: Running, file: ManifestFile, lock: Lock) -> None:
    """Raise :class:`FitError` unless the engine's model is the base that the lock pins."""
    findings = base_findings(file, lock, running.model, running.revision, running.load_format)
    if findings is None:
        findings = (unread_base(running.model),)
    wrong = refused(findings, accepted_codes(settings.accept) | frozenset(lock.accepted))
    if wrong:
        raise FitError(*wrong)


def _target(running: Running) -> Target:
    version = installed_version()
    named = version is not None and version_of(version) is not None
    return Target.parse(
        f"vllm=={version}" if named else "vllm",
        max_rank=running.max_rank,
        max_loras=running.max_loras,
    )

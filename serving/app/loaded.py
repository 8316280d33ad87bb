"""A model that is loaded from a manifest, at a path or a URL."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

from ...loader.load import load
from ...manifests.findings.errors import AdapterdockError
from ...manifests.findings.finding import Finding
from ...registry.store.store import Store
from ..served.aliases import follows_aliases
from ..served.location import Found, Location
from ..served.memory import Memory
from .engine import Engine
from .settings import Settings

_NAME = "adapterdock"
"""Of this engine, for what it remembers."""


@dataclass(frozen=True)
class Loaded:
    """A model, and the manifest that it was loaded from.

    Args:
        engine: The model.
        memory: Where the manifest is, and what was served of it before the start.
        found: The manifest and its lock.
        aliases: Whether aliases are followed beyond the lock.
        away: Why the manifest is the one that was served before: its place is out of reach.
    """

    engine: Engine
    memory: Memory
    found: Found
    aliases: bool
    away: tuple[Finding, ...] = ()


def load_served(settings: Settings, **more: Any) -> Loaded:
    """Load the manifest's base and adapters.

    Raises:
        AdapterdockError: Any of ``load``, and of reading a manifest; :class:`UsageError` for an
            invalid value of ADAPTERDOCK_FOLLOW.
    """
    aliases = follows_aliases(None)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    location = Location(
        os.fspath(settings.manifest), offline=settings.offline, needs_lock=settings.frozen
    )
    memory = Memory(location, _NAME, Store.default().root / "serving")
    try:
        found, away = memory.read()
        engine = Engine(_model(settings, location, found, away, **more), settings.pooling)
    except BaseException:
        location.close()
        raise
    return Loaded(engine, memory, found, aliases, away)


def _model(
    settings: Settings, location: Location, found: Found, away: tuple[Finding, ...], **more: Any
) -> Any:
    try:
        return load(
            found.file,  # its lock is read beside it, which is where the location put it
            policy=settings.policy,
            accept=settings.accept,
            frozen=settings.frozen,
            offline=settings.offline,
            residency=settings.residency,
            **more,
        )
    except AdapterdockError as error:
        raise type(error)(*away, *location.shown(error.findings)) from error

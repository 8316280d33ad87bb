"""How a model is served."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from .keys import Keys
from .limits import Limits
from .tasks import Pooling


@dataclass(frozen=True)
class Settings:
    """How a model is served.

    Args:
        manifest: Its path or URL. One at a URL needs its lock beside it.
        keys: Who may ask.
        limits: What one request may ask for.
        policy: A policy file that applies besides the manifest's own.
        accept: Codes of unchecked findings to accept.
        frozen: Refuse a missing or incomplete lock.
        offline: Use no network.
        residency: Bytes of adapters on the model's device, as for ``load``.
        threads: Of torch; ``None`` leaves torch's own number.
        period: Seconds between two looks at the manifest; ``None`` does not follow it.
        pooling: How embeddings are made; ``None`` for what suits the base.
        drain: Seconds that a server which stops waits for its answers.
    """

    manifest: str | os.PathLike[str]
    keys: Keys = field(default_factory=Keys)
    limits: Limits = field(default_factory=Limits)
    policy: Path | None = None
    accept: tuple[str, ...] = ()
    frozen: bool = False
    offline: bool = False
    residency: str | None = None
    threads: int | None = None
    period: float | None = 30.0
    pooling: Pooling | None = None
    drain: float = 30.0

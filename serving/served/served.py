"""The adapters that a manifest says, followed and verified; no engine needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...registry.store.store import Store
from .state import Looked, Refusal, ServedAdapter

if TYPE_CHECKING:
    from ..targets.target import Target

PERIOD = 30.0
"""Seconds between two looks at the manifest."""

OnChange = Callable[[Mapping[str, ServedAdapter], Mapping[str, ServedAdapter]], None]
"""Called before a switch with what is new or changed, and with everything that will be served.
What it raises keeps the old."""


class Served(AbstractContextManager["Served"]):
    """The adapters of a manifest, as they are served now. Every method may be called from any
    thread; looks are made one at a time."""

    def __init__(
        self,
        manifest: str,
        *,
        target: Target | None = None,
        period: float = PERIOD,
        store: Store | None = None,
        policy: str | None = None,
        offline: bool = False,
        folder: Path | None = None,
        on_change: OnChange | None = None,
        follow_aliases: bool | None = None,
    ) -> None:
        raise NotImplementedError

    def start(self) -> None:
        """Make the first look. Raises the :class:`AdapterdockError` that refused it."""
        raise NotImplementedError

    def look(self) -> Looked:
        """Make one look: resolve, pull, verify, check, copy, ``on_change``, switch. What fails
        keeps the old, and is recorded; nothing is raised."""
        raise NotImplementedError

    def resolve(self, name: str) -> ServedAdapter | Refusal:
        """What is served under ``name`` now, or why nothing is."""
        raise NotImplementedError

    def current(self) -> Mapping[str, ServedAdapter]:
        """Everything that is served, as one mapping that never changes."""
        raise NotImplementedError

    def status(self) -> dict[str, Any]:
        """Plain data with the schema ``adapterdock.status/1``."""
        raise NotImplementedError

    def metrics(self) -> str:
        """In Prometheus' text format."""
        raise NotImplementedError

    def follow(self) -> None:
        """Look again on each change of local files and each period, in a daemon thread."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop following. Copies are released; they stay until the process ends."""
        raise NotImplementedError

    def __exit__(self, *_: object) -> None:
        self.close()

"""What is served: frozen values that a switch replaces at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from ...manifests.findings.finding import Finding

NOTHING: Mapping[str, ServedAdapter] = MappingProxyType({})


@dataclass(frozen=True)
class ServedAdapter:
    """One adapter that is served, from a private read-only copy.

    Args:
        name: As the manifest names it.
        path: The folder, in PEFT's format. Its path has the digest.
        digest: Of what is served, ``sha256:HEX``: the lock's digest of an adapter; of a joined
            composition, that of its recipe.
        revision: Of its source, as the lock pins it; empty for a source that has none.
        size: Bytes of its files.
        rank: Its largest rank, if its method has one.
        since: Seconds since the epoch when this digest was first served under this name.
    """

    name: str
    path: Path
    digest: str
    revision: str
    size: int
    rank: int | None = None
    since: float = 0.0


@dataclass(frozen=True)
class Refusal:
    """Why a name is not served."""

    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Looked:
    """One look at the manifest.

    Args:
        result: ``unchanged``, ``switched`` or ``refused``.
        changed: Names of adapters that are new or have new content.
        removed: Names that are no longer served.
        findings: Why nothing was switched, or warnings.
        at: Seconds since the epoch.
    """

    result: str
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    at: float = 0.0


@dataclass(frozen=True)
class Serving:
    """All that is said of what is served: replaced by one assignment."""

    adapters: Mapping[str, ServedAdapter] = NOTHING
    wanted: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    state: str = "starting"
    findings: tuple[Finding, ...] = ()
    checked: float | None = None
    manifest_sha256: str | None = None
    lock_sha256: str | None = None
    base_model: str | None = None
    base_fingerprint: str | None = None

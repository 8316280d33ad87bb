"""What is served: frozen values that a switch replaces at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...manifests.findings.finding import Finding

STARTING, SERVING, BEHIND = "starting", "serving", "behind"
UNCHANGED, SWITCHED, REFUSED = "unchanged", "switched", "refused"


@dataclass(frozen=True)
class ServedAdapter:
    """One adapter that is served, from a private read-only copy.

    Args:
        name: As the manifest names it.
        path: The folder, in PEFT's format. Its path has the digest of its content.
        digest: Of what is served, ``sha256:HEX``: the lock's digest of an adapter; of a joined
            composition, that of its recipe, which has the digests of its members.
        revision: Of its source, as the lock pins it; empty for a source that has none.
        size: Bytes of its files.
        rank: Its largest rank, if its method has one.
        since: Seconds since the epoch at which this digest was first served under this name.
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
    """Why a name is not served.

    Args:
        findings: All reasons.
    """

    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Looked:
    """The result of one look at the manifest.

    Args:
        result: ``unchanged``, ``switched``, or ``refused`` (the old is still served).
        changed: Names of adapters that are new or have new content.
        removed: Names that are no longer served.
        findings: Why something is not served as the manifest says, and warnings.
        at: Seconds since the epoch.
    """

    result: str
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    at: float = 0.0


@dataclass(frozen=True)
class Wanted:
    """What a manifest and its lock say, as far as they could be read.

    Args:
        manifest_sha256: Of the manifest's bytes.
        lock_sha256: Of the lock's bytes.
        base: The base's source, as declared.
        fingerprint: The base's, as the lock has it, as plain data.
        digests: By name of an adapter or a composition, its digest.
        followed: By name of an adapter whose alias is newer than the lock, the lock's digest.
    """

    manifest_sha256: str | None = None
    lock_sha256: str | None = None
    base: str | None = None
    fingerprint: Mapping[str, Any] | None = None
    digests: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    followed: Mapping[str, str | None] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Serving:
    """Everything that is said of what is served; replaced by one assignment.

    Args:
        adapters: What is served now.
        refused: By name, why it is not served although the manifest was taken.
        findings: Of the last look.
        state: ``starting``, ``serving`` (as the manifest says) or ``behind``.
        checked: When the last look ended, in seconds since the epoch.
        wanted: What the last manifest that could be read says.
        looks: By result, how many looks there were.
        switches: How often the adapters changed.
    """

    adapters: Mapping[str, ServedAdapter] = field(default_factory=lambda: MappingProxyType({}))
    refused: Mapping[str, tuple[Finding, ...]] = field(default_factory=lambda: MappingProxyType({}))
    findings: tuple[Finding, ...] = ()
    state: str = STARTING
    checked: float | None = None
    wanted: Wanted = field(default_factory=Wanted)
    looks: Mapping[str, int] = field(
        default_factory=lambda: MappingProxyType(dict.fromkeys((UNCHANGED, SWITCHED, REFUSED), 0))
    )
    switches: int = 0

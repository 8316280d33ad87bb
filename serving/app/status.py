"""What ``GET /v1/adapterdock/status`` answers: the same as from every engine."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from ... import __version__
from ...manifests.lockfile import Lock
from .following import Standing

STATUS_SCHEMA = "adapterdock.status/1"


def status_of(
    standing: Standing, location: str, lock: Lock, sizes: dict[str, int], *, ready: bool
) -> dict[str, Any]:
    """Plain data.

    Args:
        standing: What is served, and what should be.
        location: Of the manifest, as it was named.
        lock: The lock that is served.
        sizes: Bytes of the compositions and adapters, by name.
        ready: Whether requests are answered.
    """
    base = lock.base
    fingerprint = base.fingerprint if base else None
    state = "starting" if not ready else "behind" if standing.behind else "serving"
    return {
        "schema": STATUS_SCHEMA,
        "engine": {"name": "adapterdock", "version": __version__},
        "manifest": {"location": location, "sha256": standing.manifest},
        "lock": {"sha256": standing.lock_digest},
        "base": {
            "model": base.source if base else None,
            "fingerprint": fingerprint.model_dump(exclude_none=True) if fingerprint else None,
        },
        "state": state,
        "checked": moment(standing.checked),
        "adapters": {
            name: {
                "digest": digest,
                "revision": _revision(lock, name),
                "size": sizes.get(name, 0),
                "since": moment(since),
            }
            for name, (digest, since) in standing.adapters.items()
        },
        "wanted": dict(standing.wanted),
        "followed": {name: {"locked": locked} for name, locked in standing.followed.items()},
        "findings": [finding.as_dict() for finding in standing.findings],
    }


def moment(seconds: float) -> str:
    """A time (seconds since the epoch) as ISO 8601."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def _revision(lock: Lock, name: str) -> str:
    found = lock.adapters.get(name)
    return (found.revision if found else None) or ""

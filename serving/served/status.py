"""What is served, as plain data for a status route and as Prometheus' text. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ..targets.target import Target
from .state import BEHIND, Serving

SCHEMA = "adapterdock.status/1"

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of :func:`metrics_text`: https://prometheus.io/docs/instrumenting/exposition_formats/"""


def status_of(serving: Serving, location: str, target: Target | None) -> dict[str, Any]:
    """The status. ``location`` is the manifest's, as it was named. ``wanted`` has the digests of
    what should be served: the lock's, except for what is in ``followed``, whose aliases were
    promoted since."""
    wanted = serving.wanted
    engine = {"name": None, "version": None}
    if target is not None:
        engine = {"name": target.engine.name, "version": target.version}
    return {
        "schema": SCHEMA,
        "engine": engine,
        "manifest": {"location": location, "sha256": wanted.manifest_sha256},
        "lock": {"sha256": wanted.lock_sha256},
        "base": {
            "model": wanted.base,
            "fingerprint": None if wanted.fingerprint is None else dict(wanted.fingerprint),
        },
        "state": serving.state,
        "checked": _time(serving.checked),
        "adapters": {
            name: {
                "digest": one.digest,
                "revision": one.revision,
                "size": one.size,
                "since": _time(one.since),
            }
            for name, one in sorted(serving.adapters.items())
        },
        "wanted": dict(sorted(wanted.digests.items())),
        "followed": {name: {"locked": locked} for name, locked in sorted(wanted.followed.items())},
        "findings": [finding.as_dict() for finding in serving.findings],
    }


def metrics_text(serving: Serving) -> str:
    """The metrics. Names of adapters are labels, as few as there are adapters."""
    blocks = [
        _block("adapters", "gauge", "Adapters that are served.", {"": len(serving.adapters)}),
        _block(
            "looks_total",
            "counter",
            "Looks at the manifest, by result.",
            {_labels(result=result): count for result, count in sorted(serving.looks.items())},
        ),
        _block("switches_total", "counter", "Changes of what is served.", {"": serving.switches}),
        _block(
            "last_look_timestamp_seconds",
            "gauge",
            "When the last look ended; 0 before the first.",
            {"": serving.checked or 0},
        ),
        _block(
            "behind",
            "gauge",
            "1 where something else is served than the manifest says.",
            {"": int(serving.state == BEHIND)},
        ),
        _block(
            "adapter_info",
            "gauge",
            "What is served under a name.",
            {
                _labels(adapter=name, digest=one.digest, revision=one.revision): 1
                for name, one in sorted(serving.adapters.items())
            },
        ),
    ]
    return "".join(blocks)


def _block(name: str, kind: str, text: str, samples: Mapping[str, float]) -> str:
    full = f"adapterdock_{name}"
    lines = [f"# HELP {full} {text}", f"# TYPE {full} {kind}"]
    lines += [f"{full}{labels} {_number(value)}" for labels, value in samples.items()]
    return "\n".join(lines) + "\n"


def _labels(**labels: str) -> str:
    escaped = (
        (key, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n"))
        for key, value in labels.items()
    )
    return "{" + ",".join(f'{key}="{value}"' for key, value in escaped) + "}"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")

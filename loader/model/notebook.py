"""A model as HTML for notebooks."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ...manifests.findings.notebook import badge, frame, table, text
from ...manifests.findings.said import counted
from ...manifests.language.weights import Weight, shown
from ..adapter.adapter import AdapterInfo


def model_html(
    base: str,
    adapters: Mapping[str, AdapterInfo],
    active: Mapping[str, Weight],
    merged: Collection[str],
) -> str:
    """The base's class, and a row for each adapter: what it is, where it acts, what it does now."""
    rows = [
        (
            f"<code>{text(name)}</code>",
            text("+".join(one.methods) or "replacement"),
            text(one.rank or ""),
            text(counted(len(one.modules), "module")),
            text(f"{one.parameters:,}"),
            _state(one, active.get(name), name in merged),
        )
        for name, one in adapters.items()
    ]
    title = f"{badge('AdaptedModel')} <code>{text(base)}</code>"
    columns = ("adapter", "method", "rank", "acts on", "parameters", "state")
    return frame(title, table(columns, rows) if rows else text("no adapters"))


def _state(one: AdapterInfo, weight: Weight | None, merged: bool) -> str:
    words = [badge("merged", "ok")] if merged else []
    if weight is not None:
        words.append(badge(f"active, weight {shown(weight)}", "ok"))
    words += [badge("trainable", "warning")] if one.trainable else []
    words += [] if one.loaded else [badge("not loaded yet")]
    return " ".join(words)

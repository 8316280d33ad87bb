"""``base.model`` and ``base.dtype`` replaced for one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..language.source import Source, SourceSyntaxError
from .nodes import NOWHERE, Entry, Map, Scalar, Spot, is_null


def override(root: Map, overrides: Mapping[str, str]) -> Map:
    """``root`` with these fields of ``base``; a relative ``model`` is relative to the current
    folder. An invalid ``base`` is left for validation."""
    base = root.entries.get("base", Entry(Scalar("base", True), Map({}), NOWHERE))
    if not overrides or not (isinstance(base.value, Map) or is_null(base.value)):
        return root
    entries = dict(base.value.entries) if isinstance(base.value, Map) else {}
    for key, text in overrides.items():
        spot = Spot(f"--{key}")
        text = _from_here(text) if key == "model" else text
        value = Scalar(text.replace("$", "$$"), False, spot)
        entries[key] = Entry(Scalar(key, True, spot), value, spot)
    base = replace(base, value=Map(entries, base.spot))
    return replace(root, entries={**root.entries, "base": base})


def _from_here(text: str) -> str:
    try:
        source = Source.parse(text)
    except SourceSyntaxError:
        return text  # validation reports it
    if source.is_archive:
        return str(replace(source, location=str(source.local_path(Path.cwd()))))
    return str(source.local_path(Path.cwd())) if source.is_local else text

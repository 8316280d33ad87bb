"""The base that an adapter records, if its name is a folder on this machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..manifests.findings.errors import AdapterdockError
from ..manifests.findings.finding import Where
from ..manifests.language.schema import Base
from ..manifests.language.source import Source, SourceSyntaxError
from .checks.recorded_base import recorded_name
from .files.facts import BaseFacts
from .read_facts import gather_base
from .sources.open import open_source


def recorded_base(config: Mapping[str, Any], names: Collection[str]) -> BaseFacts | None:
    """The base in the local folder that an adapter's config records, if it is still there.

    ``None`` if the recorded name is among ``names``, those of the base in use.
    """
    name = recorded_name(config)
    if name is None or name in names:
        return None
    where = Where(file=name)
    try:
        place = Path(name).expanduser()
        if not place.is_dir():
            return None
        source = Source.parse(str(place.resolve()))
        return gather_base(open_source(source, directory=place, where=where), where)
    except (AdapterdockError, SourceSyntaxError, OSError, RuntimeError, ValueError):
        return None  # a name that resolves to nothing is a finding of its own


def names_of_base(base: Base, directory: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names under which an adapter may have recorded ``base``: its aliases, and whatever
    path the adapter's ``config`` has for the very folder of a local base."""
    name = recorded_name(config)
    if name is not None and base.model is not None and base.model.is_local:
        try:
            if Path(name).expanduser().resolve() == base.model.local_path(directory).resolve():
                return (*base.aliases, name)
        except (OSError, RuntimeError, ValueError):
            pass  # no path, so not this folder
    return base.aliases

"""Measures where adapters act, as far as their weights may be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ...manifests.findings.errors import AdapterdockError
from ...manifests.language.source import Source, SourceSyntaxError
from ...registry.access.published import PublishedFolder
from ...registry.files.facts import FileFact, Layout
from ...registry.heat_map import heat_maps, is_relative
from ...registry.measured import Base, deltas_here, deltas_of, measure_deltas, open_base
from ...registry.sources.folder import Folder
from ...registry.storages.layout import blob_file
from ...registry.storages.local_storage import LocalStorage
from ...registry.store.store import Store
from .facts import Heat
from .places import without_here

Wanted = Literal["here", "all", "none"]
"""Which weights are read: those on this machine, all, or none."""
NOT_WANTED = "It was not asked for."
NOT_HERE = "Its weights were not on the machine that made this page."


@dataclass
class Measuring:
    """Measures adapters one after the other; keeps the bases that it opened."""

    wanted: Wanted
    store: Store
    offline: bool = False
    _bases: dict[tuple[str | None, str | None], tuple[Base | None, str | None]] = field(
        default_factory=dict
    )

    def published(self, open_folder: Callable[[], PublishedFolder]) -> Heat:
        """The map of a published adapter. ``open_folder`` opens it, if it is wanted."""
        if self.wanted == "none":
            return Heat(why=NOT_WANTED)
        try:
            folder = open_folder()
        except AdapterdockError as error:
            return Heat(why=_reason(error))
        base = folder.resolved.entry.base
        opened, why = self._base(base.source, base.revision)
        return self._measured(folder, folder.revision, opened, why)

    def declared(self, folder: Folder, base: Base | None) -> Heat:
        """The map of the adapter in a folder, beside this base."""
        if self.wanted == "none":
            return Heat(why=NOT_WANTED)
        why = None if base is not None else "its base is not on this machine"
        return self._measured(folder, None, base, why)

    def _measured(
        self,
        folder: Folder,
        version: str | None,
        base: Base | None,
        why: str | None,
    ) -> Heat:
        layout: Layout | None = None if base is None else base.facts.layout
        registry = _local_registry(folder)

        def place(file: FileFact) -> Path | None:
            if file.sha256 is not None:
                if registry is not None and (registry / blob_file(file.sha256)).is_file():
                    return registry / blob_file(file.sha256)
                if (found := self.store.find(file.sha256, file.size)) is not None:
                    return found
            return folder.local(file.path)

        try:
            if self.wanted == "all":
                deltas = deltas_of("adapter", folder, self.store, layout)
            else:
                deltas = deltas_here("adapter", folder, place, layout)
            if deltas is None:
                return Heat(version=version, why=NOT_HERE)
            measured = measure_deltas(deltas, base, why)
        except AdapterdockError as error:
            return Heat(version=version, why=_reason(error))
        maps = tuple(heat_maps(measured.sizes))
        notes = [f"The size is {text}." for text in measured.notes.values()]
        notes += [f"Some modules were not measured: {t}." for t in measured.left_out.values()]
        if not maps:
            notes = []
        return Heat(
            maps,
            is_relative(measured.sizes),
            version,
            None if maps else _sentence(measured.why or next(iter(measured.left_out.values()), "")),
            tuple(dict.fromkeys(notes)),
        )

    def _base(self, text: str | None, revision: str | None) -> tuple[Base | None, str | None]:
        key = (text, revision)
        if key not in self._bases:
            try:
                source = None if text is None else Source.parse(text)
            except SourceSyntaxError:
                source = None
            if source is not None and source.is_local:  # a path of the publisher's machine
                source = None
            self._bases[key] = open_base(source, revision, asked=False, offline=True)
        return self._bases[key]


def _local_registry(folder: Folder) -> Path | None:
    """The folder of the registry that has this adapter, if it is one on this machine."""
    storage = folder.registry.catalogue.storage if isinstance(folder, PublishedFolder) else None
    return Path(storage.url) if isinstance(storage, LocalStorage) else None


def _reason(error: AdapterdockError) -> str:
    finding = error.findings[0]
    return f"{without_here(finding.message)} ({finding.code})."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else "There is nothing to measure."

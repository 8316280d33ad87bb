"""What a manifest says otherwise than the lock that was made for it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from ...manifests.language.schema import Adapter
from ...manifests.lockfile import NEW_ADAPTER, Lock
from ...manifests.manifest import ManifestFile
from ...manifests.reading.secrets import redact
from .inputs import declared_inputs, new_adapter_digest, options_digests

UNNAMED = "other digests or weights, or another way to load the base"
"""Changes that a lock of an earlier release does not show."""

Kind = Literal["base", "adapter", "composition"]
_SECTIONS: dict[Kind, str] = {"base": "base", "adapter": "adapters", "composition": "compositions"}


@dataclass(frozen=True)
class Changed:
    """One difference: of an entry (``name`` is ``None`` for the base) one ``field``, from what to
    what. Without a field, the whole entry is new or gone, which ``now`` and ``before`` say."""

    kind: Kind
    name: str | None
    field: str | None
    before: str | None
    now: str | None
    said: str | None = None
    """A sentence in place of values that the lock of an earlier release does not have."""

    def __str__(self) -> str:
        if self.said is not None:
            return self.said
        if self.field is None:
            return f"{self.kind} {self.name!r} is {'gone' if self.now is None else 'new'}"
        parts = (_SECTIONS[self.kind], self.name, self.field)
        path = ".".join(part for part in parts if part is not None)
        return redact(f"{path} was {or_absent(self.before)}, is {or_absent(self.now)}")


def changes(file: ManifestFile, lock: Lock) -> Iterator[Changed]:
    """What changed since a lock was made."""
    manifest = file.manifest
    model = None if manifest.base.model is None else str(manifest.base.model)
    yield from _field("base", None, "model", lock.base.declared if lock.base else None, model)
    moved: set[str] = set()
    for name in sorted({*manifest.adapters, *lock.adapters}):
        adapter, entry = manifest.adapters.get(name), lock.adapters.get(name)
        if entry is None or adapter is None:
            moved.add(name)
            before = None if entry is None else entry.declared
            now = None if adapter is None else declared_as(adapter)
            yield Changed("adapter", name, None, before, now)
            continue
        before, now = entry.declared, declared_as(adapter)
        if before != now and NEW_ADAPTER in (before, now):
            moved.add(name)
        yield from _field("adapter", name, "source", _shown(before), _shown(now))
        was, is_now = str(entry.mutable).lower(), str(adapter.mutable).lower()
        yield from _field("adapter", name, "mutable", was, is_now)
    for name in sorted({*manifest.compositions} ^ {*lock.compositions}):
        new, old = manifest.compositions.get(name), lock.compositions.get(name)
        before, now = (None if one is None else one.combine for one in (old, new))
        yield Changed("composition", name, None, before, now)
    if lock.declared is not None:
        yield from _declared_changes(file, lock, lock.declared, moved)
    else:
        yield from _changes_of_earlier(file, lock, moved)


def declared_as(adapter: Adapter) -> str:
    """An adapter's source as a lock writes it."""
    return NEW_ADAPTER if adapter.source is None else str(adapter.source)


def or_absent(value: str | None) -> str:
    """A value in words."""
    return "not set" if value is None else value


def _declared_changes(
    file: ManifestFile, lock: Lock, before: Mapping[str, str], moved: Collection[str]
) -> Iterator[Changed]:
    """Changes of fields that the lock keeps as text; those of a whole entry are named already."""
    now, manifest = declared_inputs(file), file.manifest
    whole = [f"adapters.{name}." for name in moved]
    whole += [f"compositions.{name}." for name in {*manifest.compositions} ^ {*lock.compositions}]
    names = {*manifest.adapters, *manifest.compositions, *lock.adapters, *lock.compositions}
    for path in sorted({*before, *now}):
        if path.startswith((*whole, "registries.")):  # of earlier releases
            continue
        kind, name, field = _entry_of(path, names)
        yield from _field(kind, name, field, before.get(path), now.get(path))


def _entry_of(path: str, names: Collection[str]) -> tuple[Kind, str | None, str]:
    """The entry and the field of a path. A name may have dots, so the longest declared one is
    meant."""
    section, _, rest = path.partition(".")
    if section == "base":
        return "base", None, rest
    kind: Kind = "adapter" if section == "adapters" else "composition"
    fitting = [name for name in names if rest.startswith(f"{name}.")]
    name = max(fitting, key=len, default=rest.partition(".")[0])
    return kind, name, rest[len(name) + 1 :]


def _changes_of_earlier(
    file: ManifestFile, lock: Lock, moved: Collection[str]
) -> Iterator[Changed]:
    """Changes that a lock without ``declared`` shows by a digest only."""
    manifest = file.manifest
    if lock.base and lock.base.options not in options_digests(file, None):
        said = "the storage options of the base changed"
        yield Changed("base", None, "storage_options", None, None, said)
    for name, adapter in manifest.adapters.items():
        entry = lock.adapters.get(name)
        if entry is None or name in moved:
            continue
        if adapter.config is not None and new_adapter_digest(adapter) != entry.digest:
            said = f"the config or seed of adapter {name!r} changed"
            yield Changed("adapter", name, "config", None, None, said)
        elif entry.options not in options_digests(file, name):
            said = f"the storage options of adapter {name!r} changed"
            yield Changed("adapter", name, "storage_options", None, None, said)


def _field(
    kind: Kind, name: str | None, field: str, before: str | None, now: str | None
) -> Iterator[Changed]:
    if before != now:
        yield Changed(kind, name, field, before, now)


def _shown(declared: str) -> str | None:
    return None if declared == NEW_ADAPTER else declared

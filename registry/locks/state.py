"""Whether a lock was made for this manifest as it is now, and pins all of it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ...manifests.findings import lock as codes
from ...manifests.findings.errors import IntegrityError, LockError
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.schema import Adapter, Base, Composition
from ...manifests.lockfile import NEW_ADAPTER, Lock, LockedAdapter, LockedFile, lock_path
from ...manifests.manifest import ManifestFile
from ..files.digests import folder_digest, sha256_bytes
from ..files.facts import FileFact

LockEntry = str | None
"""What a lock pins: an adapter, by its name, or the base (``None``)."""


_UNNAMED = "other digests, weights or registries, or another way to load the base"
"""Changes that the lock itself does not show."""


def inputs_digest(file: ManifestFile) -> str:
    """The digest of all inputs of resolution, after variables and overrides.

    The keys for loading the base (``task``, ``num_labels``, ``id2label``, ``vocab_size``) count if
    they are set. Comments, descriptions, owners, dtypes, rules, policy, mirrors, endpoints, the
    declared fingerprint and ``active`` do not count.
    """
    model = file.manifest.base.model
    return _inputs_digest(file, None if model is None else str(model))


def overridden(file: ManifestFile, lock: Lock) -> bool:
    """Whether ``lock`` is for this manifest with another base, which ``--model`` replaces."""
    if "model" not in file.overrides or lock.inputs == inputs_digest(file):
        return False
    return lock.inputs == _inputs_digest(file, lock.base.declared if lock.base else None)


def options_digest(options: Mapping[str, Any]) -> str | None:
    """The digest of storage options (which may hold what a lock should not show), without the
    endpoint: another endpoint has the same bytes."""
    kept = {
        key: {k: v for k, v in value.items() if k not in _ENDPOINTS}
        if key == "client_kwargs" and isinstance(value, Mapping)
        else value
        for key, value in options.items()
        if key not in _ENDPOINTS
    }
    return _digest_of(kept) if any(v != {} for v in kept.values()) else None


_ENDPOINTS = frozenset({"endpoint", "endpoint_url"})


def new_adapter_digest(adapter: Adapter) -> str | None:
    """The digest of a new adapter, from its config and its seed; ``None`` for one with a
    source."""
    if adapter.config is None:
        return None
    return _digest_of({"config": adapter.config, "seed": adapter.seed or 0})


def kept(file: ManifestFile, lock: Lock) -> frozenset[LockEntry]:
    """The entries of ``lock`` that ``file`` still declares, even if others changed."""
    manifest = file.manifest
    entries: set[LockEntry] = set()
    for name, adapter in manifest.adapters.items():
        entry = lock.adapters.get(name)
        if entry is None or entry.mutable or adapter.mutable or adapter.source is None:
            continue
        if (entry.declared, entry.options) == (
            str(adapter.source),
            options_digest(adapter.storage_options),
        ):
            entries.add(name)
    base = manifest.base
    if (
        lock.base is not None
        and base.model is not None
        and (lock.base.declared, lock.base.options)
        == (str(base.model), options_digest(base.storage_options))
    ):
        entries.add(None)
    return frozenset(entries)


def stale(file: ManifestFile, lock: Lock) -> list[Finding]:
    """A finding if ``lock`` was made for other inputs than ``file`` has now."""
    if lock.inputs == inputs_digest(file):
        return []
    return [
        codes.LOCK_STALE.finding(
            "The manifest has changed since it was locked",
            Where(file=lock_name(file)),
            found="; ".join(_changes(file, lock)) or _UNNAMED,
            expected="the inputs that the lock was made for",
        )
    ]


def incomplete(file: ManifestFile, lock: Lock) -> list[Finding]:
    """Findings where a current ``lock`` lacks an entry, or has a wrong one: it was edited."""
    where = Where(file=lock_name(file))
    manifest = file.manifest
    findings: list[Finding] = []
    if manifest.base.model is not None and lock.base is None:
        findings.append(codes.LOCK_PARTIAL.finding("The base is not pinned", where))
    for name, adapter in manifest.adapters.items():
        entry = lock.adapters.get(name)
        digest = new_adapter_digest(adapter)
        if entry is None or entry.mutable != adapter.mutable or digest not in (None, entry.digest):
            findings.append(codes.LOCK_PARTIAL.finding(f"Adapter {name!r} is not pinned", where))
    if findings:
        return findings
    for name, composition in manifest.compositions.items():
        recipe = recipe_digest(composition, lock.adapters, manifest.compositions)
        entry = lock.compositions.get(name)
        if entry is None or entry.digest != recipe:
            findings.append(
                codes.LOCK_PARTIAL.finding(
                    f"Composition {name!r} is not pinned as declared",
                    where,
                    found=entry.digest if entry else None,
                    expected=recipe,
                )
            )
    return findings


def unpinned(file: ManifestFile, lock: Lock) -> list[Finding]:
    """A finding if the base is pinned by version only, before the first pull."""
    files = lock.base.files if lock.base else {}
    bare = sorted(path for path, f in files.items() if f.sha256 is None)
    if not bare:
        return []
    return [
        codes.LOCK_PARTIAL.finding(
            "The base is not pinned by content yet",
            Where(file=lock_name(file)),
            found=f"no sha256 for {', '.join(bare[:3])}",
            expected="a sha256 for every file, which the first `adapterdock pull` adds",
        )
    ]


def mutable(file: ManifestFile) -> list[Finding]:
    """Findings for mutable adapters, which ``--frozen`` refuses."""
    return [
        codes.FROZEN_MUTABLE.finding(
            f"Adapter {name!r} is mutable", file.where(("adapters", name, "mutable"))
        )
        for name, adapter in file.manifest.adapters.items()
        if adapter.mutable
    ]


def unsound(lock: Lock, where: Where) -> list[Finding]:
    """Findings where a lock contradicts itself: it was edited or merged by hand."""
    return [
        codes.LOCK_UNREADABLE.finding(
            "The lock was edited by hand",
            Where(where.file, ("adapters", name, "digest"), where.line, where.column),
            found=entry.digest or "no digest",
            expected="the digest of the files that it lists",
        )
        for name, entry in lock.adapters.items()
        if not entry.mutable and not _is_sound(entry)
    ]


def require_lock(file: ManifestFile, lock: Lock | None, *, frozen: bool) -> None:
    """Raise :class:`LockError` if ``lock`` may not be used for ``file``.

    A stale or incomplete lock may not (except for a base that ``--model`` replaces for one run).
    With ``frozen``, the lock must exist and pin the base by content, and no adapter may be
    mutable.
    """
    findings: list[Finding] = []
    if lock is None:
        if frozen:
            findings.append(
                codes.LOCK_MISSING.finding("The lock is missing", Where(file=lock_name(file)))
            )
    elif frozen or not overridden(file, lock):
        findings.extend(stale(file, lock) or incomplete(file, lock))
        if frozen and not findings:
            findings.extend([*unpinned(file, lock), *mutable(file)])
    if findings:
        raise LockError(*findings)


def recipe_digest(
    composition: Composition,
    adapters: Mapping[str, LockedAdapter],
    compositions: Mapping[str, Composition],
) -> str | None:
    """The digest of a composition's recipe and its members' digests; ``None`` if one is mutable."""
    members: dict[str, str] = {}
    for name in composition.of:
        if name in compositions:
            digest = recipe_digest(compositions[name], adapters, compositions)
        else:
            digest = adapters[name].digest
        if digest is None:
            return None
        members[name] = digest
    return _digest_of(_recipe(composition, members))


def facts_of(files: Mapping[str, LockedFile]) -> dict[str, FileFact]:
    """The files of a lock as facts."""
    return {p: FileFact(p, f.size, f.sha256, f.version) for p, f in files.items()}


def lock_name(file: ManifestFile) -> str | None:
    """The path of the manifest's lock, which may be absent."""
    return None if file.file is None else str(lock_path(file.file))


def _inputs_digest(file: ManifestFile, model: str | None) -> str:
    manifest = file.manifest
    inputs: dict[str, Any] = {
        "base": model,
        "base_options": options_digest(manifest.base.storage_options),
        "remote_code": manifest.base.trust_remote_code,
        "adapters": {
            name: {
                "source": str(a.source),
                "options": options_digest(a.storage_options),
                "sha256": a.sha256,
                "mutable": a.mutable,
            }
            if a.config is None
            else {"begun": new_adapter_digest(a)}
            for name, a in manifest.adapters.items()
        },
        "compositions": {n: _recipe(c, None) for n, c in manifest.compositions.items()},
        "registries": {n: str(s) for n, s in manifest.registries.items()},
    }
    if loading := loading_of(manifest.base):
        inputs["loading"] = loading  # absent if nothing is set, as in older locks
    return _digest_of(inputs)


def loading_of(base: Base) -> dict[str, Any]:
    """The keys of a manifest that decide how its base is loaded."""
    return base.model_dump(
        mode="json",
        include={"task", "num_labels", "id2label", "vocab_size"},
        exclude_none=True,
    )


def _changes(file: ManifestFile, lock: Lock) -> Iterator[str]:
    """The changes since a lock was made that the lock itself shows."""
    manifest = file.manifest
    model = None if manifest.base.model is None else str(manifest.base.model)
    locked = lock.base.declared if lock.base else None
    if model != locked:
        yield f"base.model was {locked}, is {model}"
    elif lock.base and lock.base.options != options_digest(manifest.base.storage_options):
        yield "the storage options of the base changed"
    for name in sorted({*manifest.adapters, *lock.adapters}):
        adapter, entry = manifest.adapters.get(name), lock.adapters.get(name)
        if entry is None:
            yield f"adapter {name!r} is new"
        elif adapter is None:
            yield f"adapter {name!r} is gone"
        elif (now := declared_as(adapter)) != entry.declared:
            yield f"adapter {name!r} was {entry.declared}, is {now}"
        elif adapter.config is not None and new_adapter_digest(adapter) != entry.digest:
            yield f"the config or seed of adapter {name!r} changed"
        elif entry.options != options_digest(adapter.storage_options):
            yield f"the storage options of adapter {name!r} changed"
        elif adapter.mutable != entry.mutable:
            yield f"adapter {name!r} is {'' if adapter.mutable else 'no longer '}mutable"
    if sorted(manifest.compositions) != sorted(lock.compositions):
        yield "other compositions are declared"


def declared_as(adapter: Adapter) -> str:
    """An adapter's source as a lock writes it."""
    return NEW_ADAPTER if adapter.source is None else str(adapter.source)


def _is_sound(entry: LockedAdapter) -> bool:
    if entry.declared == NEW_ADAPTER:
        return entry.digest is not None and entry.seed is not None and not entry.files
    try:
        return bool(entry.files) and folder_digest(facts_of(entry.files).values()) == entry.digest
    except IntegrityError:  # a file without a digest, or a path out of the folder
        return False


def _recipe(composition: Composition, members: Mapping[str, str] | None) -> dict[str, Any]:
    data = composition.model_dump(mode="json", exclude_none=True)
    of = {name: _weight(weight) for name, weight in composition.of.items()}
    if members is not None:
        weights = ([members[name], weight] for name, weight in of.items())
        data["of"] = sorted(weights, key=lambda item: (item[0], json.dumps(item[1])))
    else:
        data["of"] = of
    return data


def _weight(weight: float | Mapping[str, float]) -> float | list[tuple[str, float]]:
    """As numbers; globs stay in their order, which matters."""
    if isinstance(weight, Mapping):
        return [(glob, float(number)) for glob, number in weight.items()]
    return float(weight)


def _digest_of(data: Any) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return sha256_bytes(text.encode())

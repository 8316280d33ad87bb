"""What of a manifest decides what it resolves to: its digests, and as text that can be compared.

Where something is fetched from does not count: an endpoint, the URL of a registry (its id is in the
lock), and a value that is one environment
variable whose name says that it is a place (``S3_ENDPOINT``). The same lock serves everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ...manifests.language.schema import Adapter, Base, Composition
from ...manifests.manifest import ManifestFile
from ..files.digests import sha256_bytes

LockEntry = str | None
"""What a lock pins: an adapter, by its name, or the base (``None``)."""

_ENDPOINTS = frozenset({"endpoint", "endpoint_url"})
_Path = tuple[str | int, ...]


def inputs_digest(file: ManifestFile) -> str:
    """The digest of all inputs of resolution, after variables and overrides.

    The keys for loading the base (``task``, ``num_labels``, ``id2label``, ``vocab_size``) count if
    they are set. Comments, descriptions, owners, dtypes, rules, policy, mirrors, endpoints,
    variables that only say where, the declared fingerprint and ``active`` do not count.
    """
    return _inputs_digest(file, _model(file), file.only_where, {})


def inputs_digests(file: ManifestFile) -> frozenset[str]:
    """The digests that a current lock may have: today's, and those of earlier releases, where
    URLs of registries, and variables that only say where, counted too."""
    return inputs_digests_with(file, _model(file))


def inputs_digests_with(file: ManifestFile, model: str | None) -> frozenset[str]:
    """The same if the manifest had another base."""
    earlier = (
        _inputs_digest(file, model, paths, _registries(file, paths)) for paths in _readings(file)
    )
    return frozenset({_inputs_digest(file, model, file.only_where, {}), *earlier})


def options_digest(file: ManifestFile, entry: LockEntry) -> str | None:
    """The digest of an entry's storage options, without what only says where: another endpoint
    has the same bytes."""
    return _options_digest(file, entry, file.only_where)


def options_digests(file: ManifestFile, entry: LockEntry) -> frozenset[str | None]:
    """The digests that a current lock may have; see :func:`inputs_digests`."""
    return frozenset(_options_digest(file, entry, paths) for paths in _readings(file))


def new_adapter_digest(adapter: Adapter) -> str | None:
    """The digest of a new adapter, from its config and its seed; ``None`` for one with a
    source."""
    if adapter.config is None:
        return None
    return digest_of({"config": adapter.config, "seed": adapter.seed or 0})


def declared_inputs(file: ManifestFile) -> dict[str, str]:
    """Every input of resolution that no other field of a lock shows, by its path in the manifest.

    A manifest has no secrets (its reader refuses them), so there are none here.
    """
    manifest, places = file.manifest, file.only_where
    data: dict[str, Any] = {
        "base": {
            "storage_options": _kept_options(file, None, places),
            "trust_remote_code": manifest.base.trust_remote_code or None,
            **loading_of(manifest.base),
        },
        "adapters": {
            name: {
                "storage_options": _kept_options(file, name, places),
                "sha256": adapter.sha256,
                "config": adapter.config,
                "seed": None if adapter.config is None else adapter.seed or 0,
            }
            for name, adapter in manifest.adapters.items()
        },
        "compositions": {name: recipe(c, None) for name, c in manifest.compositions.items()},
    }
    return dict(_flat(data))


def recipe(composition: Composition, members: Mapping[str, str] | None) -> dict[str, Any]:
    """A composition as plain data; with ``members``, these digests replace their names."""
    data = composition.model_dump(mode="json", exclude_none=True)
    of = {name: _weight(weight) for name, weight in composition.of.items()}
    if members is not None:
        weights = ([members[name], weight] for name, weight in of.items())
        data["of"] = sorted(weights, key=lambda item: (item[0], json.dumps(item[1])))
    else:
        data["of"] = of
    return data


def digest_of(data: Any) -> str:
    """The digest of plain data, whatever the order of its keys."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return sha256_bytes(text.encode())


def loading_of(base: Base) -> dict[str, Any]:
    """The keys of a manifest that decide how its base is loaded."""
    return base.model_dump(
        mode="json",
        include={"task", "num_labels", "id2label", "vocab_size"},
        exclude_none=True,
    )


def _model(file: ManifestFile) -> str | None:
    model = file.manifest.base.model
    return None if model is None else str(model)


def _readings(file: ManifestFile) -> tuple[frozenset[_Path], ...]:
    """Which paths do not count: today, and in earlier releases."""
    return (file.only_where, frozenset())


def _inputs_digest(
    file: ManifestFile,
    model: str | None,
    places: frozenset[_Path],
    registries: Mapping[str, str],
) -> str:
    manifest = file.manifest
    inputs: dict[str, Any] = {
        "base": model,
        "base_options": _options_digest(file, None, places),
        "remote_code": manifest.base.trust_remote_code,
        "adapters": {
            name: {
                "source": str(a.source),
                "options": _options_digest(file, name, places),
                "sha256": a.sha256,
                "mutable": a.mutable,
            }
            if a.config is None
            else {"begun": new_adapter_digest(a)}
            for name, a in manifest.adapters.items()
        },
        "compositions": {n: recipe(c, None) for n, c in manifest.compositions.items()},
        "registries": registries,  # always empty in locks of today
    }
    if loading := loading_of(manifest.base):
        inputs["loading"] = loading  # absent if nothing is set, as in older locks
    return digest_of(inputs)


def _registries(file: ManifestFile, places: frozenset[_Path]) -> dict[str, str]:
    return {
        name: str(source)
        for name, source in file.manifest.registries.items()
        if ("registries", name) not in places
    }


def _options_digest(file: ManifestFile, entry: LockEntry, places: frozenset[_Path]) -> str | None:
    kept = _kept_options(file, entry, places)
    return digest_of(kept) if any(v != {} for v in kept.values()) else None


def _kept_options(file: ManifestFile, entry: LockEntry, places: frozenset[_Path]) -> dict[str, Any]:
    """The storage options that say which bytes."""
    path: _Path = ("base", "storage_options")
    options = file.manifest.base.storage_options
    if entry is not None:
        path = ("adapters", entry, "storage_options")
        options = file.manifest.adapters[entry].storage_options
    return {
        key: _kept(value, (*path, key), places, _ENDPOINTS if key == "client_kwargs" else ())
        for key, value in options.items()
        if key not in _ENDPOINTS and (*path, key) not in places
    }


def _kept(value: Any, path: _Path, places: frozenset[_Path], names: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {
        key: _kept(below, (*path, key), places, ())
        for key, below in value.items()
        if key not in names and (*path, key) not in places
    }


def _weight(weight: float | Mapping[str, float]) -> float | list[tuple[str, float]]:
    """As numbers; globs stay in their order, which matters."""
    if isinstance(weight, Mapping):
        return [(glob, float(number)) for glob, number in weight.items()]
    return float(weight)


def _flat(data: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(data, Mapping):
        for key, value in data.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    elif isinstance(data, str):
        yield path, data
    elif data is not None:
        yield path, json.dumps(data, sort_keys=True, ensure_ascii=False, default=str)

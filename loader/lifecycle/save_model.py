"""Write an adapted model as a folder: its adapters, and a manifest that loads it again.

The trained adapter, if it is the only one, is in the folder itself, which is then a ``source`` like
PEFT's checkpoints; the others are in folders with their names. The manifest names the base.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
import yaml

from ...manifests.findings import training as codes
from ...manifests.findings.errors import AttachError
from ...manifests.findings.finding import Finding
from ...manifests.language.schema import Composition, Rules
from ...manifests.language.source import Source, SourceSyntaxError
from ...manifests.language.weights import Weight, written
from ...registry.checks.recorded_base import is_hub_id, recorded_name
from ...registry.files.digests import folder_digest, sha256_bytes
from ...registry.files.facts import FileFact
from ...registry.files.names import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from ...registry.files.together import together
from ...registry.locks.project import MANIFEST
from ..adapter.adapter import Adapter
from ..model.host import AdapterHost
from ..weights.dtypes import DTYPES
from ..weights.write import on_cpu, safetensors_bytes
from .save_adapter import (
    files_of_adapter,
    fingerprint_for,
    live_tensors_of,
    write_files,
    writing,
)

TRAINER_WEIGHTS = "model.safetensors"
"""The state dict from which transformers' ``Trainer`` resumes."""

_OWN_FILES = frozenset({MANIFEST, TRAINER_WEIGHTS, ADAPTER_CONFIG, ADAPTER_WEIGHTS})
"""Files of the model's own folder; no adapter's folder can have such a name, in any case."""
_DESCRIPTIONS = ("owner", "licence", "description", "tags")


class SaveWarning(UserWarning):
    """A part of a model could not be written; the text is a finding."""


def save_pretrained(
    host: AdapterHost,
    folder: str | os.PathLike[str],
    state_dict: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """See :meth:`AdaptedModel.save_pretrained`."""
    target = Path(folder)
    if host.state.merged_adapters:
        _save_merged(host, target)
        return
    adapters = {n: a for n, a in host.adapters.by_name.items() if n not in host.state.compositions}
    if taken := [name for name in adapters if name.lower() in _OWN_FILES]:
        message = f"The folder of adapter {taken[0]!r} would have the name of the model's own file"
        raise AttachError(codes.SAVE_FAILED.finding(message, found=taken[0]))
    trained = [adapter for adapter in adapters.values() if adapter.trainable]
    inside = trained[0].name if len(trained) == 1 else None
    manifest, findings = manifest_of(host, adapters, inside)
    files: dict[str, bytes] = {}
    if trained:
        live = {k: v for adapter in trained for k, v in live_tensors_of(adapter).items()}
        passed = {k: v for k, v in (state_dict or {}).items() if k in live}
        files[TRAINER_WEIGHTS] = safetensors_bytes(on_cpu({**live, **passed}), {"format": "pt"})
    for name, adapter in adapters.items():
        own = files_of_adapter(host, adapter, state_dict)
        files |= {file if name == inside else f"{name}/{file}": own[file] for file in own}
        manifest["adapters"][name]["sha256"] = _digest_of(own)
    text = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True)
    write_files(target, {**files, MANIFEST: text.encode()})
    for finding in findings:
        warnings.warn(SaveWarning(str(finding)), stacklevel=3)


def _digest_of(files: Mapping[str, bytes]) -> str:
    """The digest of an adapter's folder, for the manifest: it detects an interrupted save."""
    return folder_digest(
        FileFact(name, len(data), sha256_bytes(data)) for name, data in files.items()
    )


def _save_merged(host: AdapterHost, target: Path) -> None:
    """Write the base with the merged adapters, as a plain model."""
    base = host.live.module
    save_base = getattr(base, "save_pretrained", None)
    if save_base is None:
        message = f"{type(base).__name__} has no save_pretrained"
        raise AttachError(codes.SAVE_FAILED.finding(message))
    with writing(target), together(target, ("config.json",)) as new:
        save_base(new)
    if others := [name for name in host.adapters.by_name if name not in host.state.merged_adapters]:
        message = f"Not merged, so not written: {', '.join(others)}"
        warnings.warn(SaveWarning(str(codes.SAVED_MERGED.finding(message))), stacklevel=4)


def manifest_of(
    host: AdapterHost, adapters: Mapping[str, Adapter], inside: str | None
) -> tuple[dict[str, Any], list[Finding]]:
    """The manifest of a model with its ``adapters`` in folders beside it (``inside``: in its own
    folder), and warnings about what it cannot express."""
    base, findings = base_of(host, list(adapters.values()))
    file = host.file.manifest if host.file else None
    entries: dict[str, Any] = {}
    for name, adapter in adapters.items():
        entry: dict[str, Any] = {"source": "." if name == inside else f"./{name}"}
        entry |= _dtype(adapter.tensors())
        entry |= {"trainable": True} if adapter.trainable else {}
        if file is not None and name in file.adapters:
            about = file.adapters[name].model_dump(mode="json", include={*_DESCRIPTIONS})
            entry |= {key: value for key, value in about.items() if value}
        entries[name] = entry
    manifest: dict[str, Any] = {"version": 1}
    if file is not None and file.name is not None:
        manifest["name"] = file.name
    manifest |= {"base": base, "adapters": entries}
    compositions = {name: _recipe(host, recipe) for name, recipe in host.state.recipes.items()}
    default = dict(host.state.default.weights)
    weights = _written(host, default)
    active = _active(weights, compositions, {*entries, *compositions})
    if weights and active is None:
        message = f"Cannot write the active selection {default}"
        findings.append(codes.ACTIVE_NOT_SAVED.finding(message))
    if compositions:
        manifest["compositions"] = compositions
    rules = file.rules if file is not None else Rules()
    if rules != Rules():
        manifest["rules"] = rules.model_dump(mode="json", exclude_defaults=True)
    elif host.state.rules is not None:
        message = "The model's rules are a function, which a manifest cannot express"
        findings.append(codes.RULES_NOT_SAVED.finding(message))
    if active is not None:
        manifest["active"] = active
    return manifest, findings


def _recipe(host: AdapterHost, recipe: Composition) -> dict[str, Any]:
    """A composition as in a manifest."""
    fields = recipe.model_dump(exclude={"of"}, exclude_defaults=True)
    return {**fields, "of": _written(host, cast("Mapping[str, Weight]", recipe.of))}


def _written(host: AdapterHost, weights: Mapping[str, Weight]) -> dict[str, Any]:
    adapters = host.adapters.by_name
    return {name: written(weight, adapters[name].sites) for name, weight in weights.items()}


def _active(
    weights: Mapping[str, Any], compositions: dict[str, Any], taken: set[str]
) -> str | list[str] | None:
    """The ``active`` for these weights; adds a composition to ``compositions`` if it needs one.
    ``None`` if there is none: a sum cannot contain a composition of another method."""
    computed = [name for name, composition in compositions.items() if "combine" in composition]
    if not weights or any(weights[name] != 1 for name in computed if name in weights):
        return None
    if all(weight == 1 for weight in weights.values()):
        names = list(weights)
        return names[0] if len(names) == 1 else names
    if beside := [name for name in computed if name in weights]:
        rest = {name: weight for name, weight in weights.items() if name not in beside}
        active = _active(rest, compositions, taken)
        return [*([active] if isinstance(active, str) else active or ()), *beside]
    for name, composition in compositions.items():
        if "combine" not in composition and composition["of"] == weights:
            return name
    spare = (f"active-{number}" for number in range(len(taken)))
    name = next(name for name in ("active", *spare) if name not in taken)
    compositions[name] = {"of": dict(weights)}
    return name


def base_of(host: AdapterHost, adapters: list[Adapter]) -> tuple[dict[str, Any], list[Finding]]:
    """The base as its manifest declares it, else as transformers loaded it."""
    found: dict[str, Any] = {}
    findings: list[Finding] = []
    file = host.deployment.base_declaration[0] if host.deployment else None
    declared = file.manifest.base if file is not None else None
    if file is not None and declared is not None and declared.model is not None:
        found = declared.model_dump(mode="json", exclude_defaults=True, exclude={"fingerprint"})
        if declared.model.is_local:
            found["model"] = str(declared.model.local_path(file.directory).resolve())
    elif (source := _loaded_from(host)) is not None:
        found["model"] = source
        found |= _dtype(host.live.module.parameters())
    else:
        message = "The saved manifest does not name the base, which was created in memory"
        findings.append(codes.BASE_NOT_NAMED.finding(message))
    names = [recorded_name(adapter.config) for adapter in adapters]
    aliases = [*found.get("aliases", ()), *(n for n in names if n is not None and is_hub_id(n))]
    if aliases:
        found["aliases"] = list(dict.fromkeys(aliases))
    fingerprint = fingerprint_for(host, adapters)
    found["fingerprint"] = fingerprint.model_dump(mode="json", exclude_none=True)
    return found, findings


def _dtype(tensors: Iterable[torch.Tensor]) -> dict[str, str]:
    """The ``dtype`` of an entry, if all tensors have the same."""
    kinds = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    named = [name for name, dtype in DTYPES.items() if {dtype} == kinds]
    return {"dtype": named[0]} if named else {}


def _loaded_from(host: AdapterHost) -> str | None:
    """The source that transformers loaded the base from: a folder that still exists, or a
    repository of the Hub at its commit."""
    config = getattr(host.live.module, "config", None)
    folder = getattr(config, "_name_or_path", None)
    if isinstance(folder, str) and folder and (Path(folder) / "config.json").is_file():
        return str(Path(folder).resolve())
    name = host.live.hub_name
    if name is None:
        return None
    commit = getattr(config, "_commit_hash", None)
    try:
        return str(Source.parse(f"hf://{name}@{commit}" if commit else f"hf://{name}"))
    except SourceSyntaxError:
        return None

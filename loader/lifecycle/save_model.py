"""A whole adapted model as a folder: its adapters, and a manifest that brings it back.

The one adapter that is trained lies in the folder itself, which is then a ``source`` as PEFT's
checkpoints are; the others, each in a folder of its name. The base is named, and never written.
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
from .save_adapter import files_of_adapter, fingerprint_for, live_tensors_of, write_files

TRAINER_WEIGHTS = "model.safetensors"
"""Where transformers' ``Trainer`` looks for the state dict to resume from."""

_OWN_FILES = frozenset({MANIFEST, TRAINER_WEIGHTS, ADAPTER_CONFIG, ADAPTER_WEIGHTS})
"""Names in the model's own folder that no adapter's folder can have there, on any disk."""
_TOLD = ("owner", "licence", "description", "tags")


class SaveWarning(UserWarning):
    """What of a model could not be written; the text is a finding."""


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
    if without := [name for name, adapter in adapters.items() if not adapter.config]:
        message = f"{', '.join(without)}: there is no adapter_config.json to be saved with"
        raise AttachError(codes.SAVE_WITHOUT_CONFIG.finding(message, found=", ".join(without)))
    if taken := [name for name in adapters if name.lower() in _OWN_FILES]:
        message = f"an adapter called {taken[0]!r} would lie where the model's own file does"
        raise AttachError(codes.SAVE_FAILED.finding(message, found=taken[0]))
    trained = [adapter for adapter in adapters.values() if adapter.trainable]
    inside = trained[0].name if len(trained) == 1 else None
    manifest, findings = manifest_of(host, adapters, inside)
    files: dict[str, bytes] = {}
    if trained:
        live = {k: v for adapter in trained for k, v in live_tensors_of(adapter).items()}
        given = {k: v for k, v in (state_dict or {}).items() if k in live}
        files[TRAINER_WEIGHTS] = safetensors_bytes(on_cpu({**live, **given}), {"format": "pt"})
    for name, adapter in adapters.items():
        own = files_of_adapter(host, adapter, state_dict)
        files |= {file if name == inside else f"{name}/{file}": own[file] for file in own}
        manifest["adapters"][name]["sha256"] = _digest_of(own)
    text = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True)
    write_files(target, {**files, MANIFEST: text.encode()})
    for finding in findings:
        warnings.warn(SaveWarning(str(finding)), stacklevel=3)


def _digest_of(files: Mapping[str, bytes]) -> str:
    """Of an adapter's folder. The manifest has it, so that one whose save was interrupted is not
    taken for a whole one."""
    return folder_digest(
        FileFact(name, len(data), sha256_bytes(data)) for name, data in files.items()
    )


def _save_merged(host: AdapterHost, target: Path) -> None:
    """The base with what is merged into it, as a plain model."""
    base = host.live.module
    save_base = getattr(base, "save_pretrained", None)
    if save_base is None:
        message = f"a {type(base).__name__} with merged adapters has no save_pretrained"
        raise AttachError(codes.SAVE_FAILED.finding(message))
    try:
        with together(target, ("config.json",)) as new:
            save_base(new)
    except OSError as error:
        message = f"{target} cannot be written: {error.strerror or error}"
        raise AttachError(codes.SAVE_FAILED.finding(message, found=str(target))) from error
    if others := [name for name in host.adapters.by_name if name not in host.state.merged_adapters]:
        message = f"{', '.join(others)}: not merged, and not written"
        warnings.warn(SaveWarning(str(codes.SAVED_MERGED.finding(message))), stacklevel=4)


def manifest_of(
    host: AdapterHost, adapters: Mapping[str, Adapter], inside: str | None
) -> tuple[dict[str, Any], list[Finding]]:
    """The manifest of a model whose ``adapters`` lie beside it (``inside``: in its own folder), and
    what of the model it cannot say."""
    base, findings = _base(host, list(adapters.values()))
    file = host.deployment.file.manifest if host.deployment else None
    entries: dict[str, Any] = {}
    for name, adapter in adapters.items():
        entry: dict[str, Any] = {"source": "." if name == inside else f"./{name}"}
        entry |= _dtype(adapter.tensors())
        entry |= {"trainable": True} if adapter.trainable else {}
        if file is not None and name in file.adapters:
            told = file.adapters[name].model_dump(mode="json", include={*_TOLD})
            entry |= {key: value for key, value in told.items() if value}
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
        message = f"what answers by default is {default}"
        findings.append(codes.ACTIVE_NOT_SAVED.finding(message))
    if compositions:
        manifest["compositions"] = compositions
    rules = file.rules if file is not None else Rules()
    if rules != Rules():
        manifest["rules"] = rules.model_dump(mode="json", exclude_defaults=True)
    elif host.state.rules is not None:
        message = "the model's rules are a function, which a manifest cannot hold"
        findings.append(codes.RULES_NOT_SAVED.finding(message))
    if active is not None:
        manifest["active"] = active
    return manifest, findings


def _recipe(host: AdapterHost, recipe: Composition) -> dict[str, Any]:
    """A composition as the manifest has it."""
    said = recipe.model_dump(exclude={"of"}, exclude_defaults=True)
    return {**said, "of": _written(host, cast("Mapping[str, Weight]", recipe.of))}


def _written(host: AdapterHost, weights: Mapping[str, Weight]) -> dict[str, Any]:
    adapters = host.adapters.by_name
    return {name: written(weight, adapters[name].sites) for name, weight in weights.items()}


def _active(
    weights: Mapping[str, Any], compositions: dict[str, Any], taken: set[str]
) -> str | list[str] | None:
    """How ``active`` says these weights; a composition is made of those that nothing says.
    ``None`` where none could say them: a sum holds no composition of another method."""
    whole = [name for name, composition in compositions.items() if "combine" in composition]
    if not weights or any(weights[name] != 1 for name in whole if name in weights):
        return None
    if all(weight == 1 for weight in weights.values()):
        names = list(weights)
        return names[0] if len(names) == 1 else names
    if beside := [name for name in whole if name in weights]:
        rest = {name: weight for name, weight in weights.items() if name not in beside}
        said = _active(rest, compositions, taken)
        return [*([said] if isinstance(said, str) else said or ()), *beside]
    for name, composition in compositions.items():
        if "combine" not in composition and composition["of"] == weights:
            return name
    spare = (f"active-{number}" for number in range(len(taken)))
    name = next(name for name in ("active", *spare) if name not in taken)
    compositions[name] = {"of": dict(weights)}
    return name


def _base(host: AdapterHost, adapters: list[Adapter]) -> tuple[dict[str, Any], list[Finding]]:
    """The base as its manifest had it, else as transformers loaded it."""
    found: dict[str, Any] = {}
    findings: list[Finding] = []
    file = host.deployment.said_of_base[0] if host.deployment else None
    declared = file.manifest.base if file is not None else None
    if file is not None and declared is not None and declared.model is not None:
        found = declared.model_dump(mode="json", exclude_defaults=True, exclude={"fingerprint"})
        if declared.model.is_local:
            found["model"] = str(declared.model.local_path(file.directory).resolve())
    elif (source := _loaded_from(host)) is not None:
        found["model"] = source
        found |= _dtype(host.live.module.parameters())
    else:
        message = "the base was made in memory: the manifest that was saved does not name it"
        findings.append(codes.BASE_NOT_NAMED.finding(message))
    names = [recorded_name(adapter.config) for adapter in adapters]
    aliases = [*found.get("aliases", ()), *(n for n in names if n is not None and is_hub_id(n))]
    if aliases:
        found["aliases"] = list(dict.fromkeys(aliases))
    fingerprint = fingerprint_for(host, adapters)
    found["fingerprint"] = fingerprint.model_dump(mode="json", exclude_none=True)
    return found, findings


def _dtype(tensors: Iterable[torch.Tensor]) -> dict[str, str]:
    """``dtype`` of an entry, where all are in one."""
    kinds = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    named = [name for name, dtype in DTYPES.items() if {dtype} == kinds]
    return {"dtype": named[0]} if named else {}


def _loaded_from(host: AdapterHost) -> str | None:
    """Where transformers loaded the base from, as a source: a folder that is still there, or a
    repository of the Hub at the commit that it had."""
    config = getattr(host.live.module, "config", None)
    name = getattr(config, "_name_or_path", None)
    if not isinstance(name, str) or not name:
        return None
    if (Path(name) / "config.json").is_file():
        return str(Path(name).resolve())
    if not is_hub_id(name):
        return None
    commit = getattr(config, "_commit_hash", None)
    try:
        return str(Source.parse(f"hf://{name}@{commit}" if commit else f"hf://{name}"))
    except SourceSyntaxError:
        return None

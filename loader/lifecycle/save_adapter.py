"""Write adapters to disk, in PEFT's format."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ...manifests.findings import training as codes
from ...manifests.findings.errors import AttachError
from ...registry.base.base_record import recordable, written
from ...registry.files.facts import BASE_RECORD, DIGEST_RECORD
from ...registry.files.together import write_together
from ..build.prompt_requirements import PROMPT
from ..compose.members import digest_of
from ..model.host import AdapterHost
from ..sites.replacements import own_tensors
from ..weights.write import adapter_bytes, on_cpu

if TYPE_CHECKING:
    from ...manifests.language.schema import Fingerprint
    from ..adapter.adapter import Adapter


def save_adapter(host: AdapterHost, folder: str | os.PathLike[str], name: str) -> None:
    """See :meth:`AdaptedModel.save_adapter`."""
    with host.adapters.changing():
        adapter = host.adapters.known(name)
        host.state.check_unmerged(f"Cannot save {name!r} with the base's fingerprint")
        write_files(folder, files_of_adapter(host, adapter))


def files_of_adapter(
    host: AdapterHost, adapter: Adapter, state: Mapping[str, torch.Tensor] | None = None
) -> dict[str, bytes]:
    """The two files of an attached adapter, by name; the config last, since it makes a folder an
    adapter. ``state`` has values, by live names, to write instead of the adapter's own."""
    if not adapter.config:
        message = f"{adapter.name!r} has no adapter_config.json"
        raise AttachError(codes.SAVE_WITHOUT_CONFIG.finding(message, found=adapter.name))
    metadata = {BASE_RECORD: written(fingerprint_for(host, [adapter]))}
    config = {**adapter.config, "inference_mode": True}
    with host.choice.present([adapter]):
        tensors = on_cpu(saved_tensors(adapter, state or {}))
        if not tensors:
            message = f"Cannot save {adapter.name!r} ({'+'.join(adapter.methods)})"
            raise AttachError(codes.SAVE_THROUGH_PEFT.finding(message, found=adapter.name))
        if digest := digest_of(host.adapters.built_of(adapter.name)):
            metadata[DIGEST_RECORD] = digest
    return adapter_bytes(config, tensors, metadata)


def saved_tensors(adapter: Adapter, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of ``adapter_model.safetensors``, by their names there."""
    live = {**live_tensors_of(adapter), **state}
    found = {key: live[name] for key, name in adapter.resident.keys.items()}
    encoder = adapter.resident.prompt.encoder if adapter.resident.prompt is not None else None
    if encoder is not None:
        inside = f"prompt_encoder.{adapter.name}."
        own = {path: live[f"{inside}{path}"] for path, _ in encoder.named_parameters()}
        found[PROMPT] = encoder.output(own)
    return found


def live_tensors_of(adapter: Adapter) -> dict[str, torch.Tensor]:
    """The adapter's tensors by their live names, as in ``state_dict``."""
    live: dict[str, torch.Tensor] = dict(adapter.resident.parameters)
    for name, replacement in adapter.resident.replacements.items():
        live |= {f"{name}.{path}": tensor for path, tensor in own_tensors(replacement).items()}
    return live


def fingerprint_for(host: AdapterHost, adapters: list[Adapter]) -> Fingerprint:
    """The part of the base's fingerprint that is recorded with these adapters."""
    replacements = [m for adapter in adapters for m in adapter.resident.replacements.values()]
    parts = [part for replacement in replacements for part in replacement.modules()]
    return recordable(
        host.live.measured,
        brings_modules=bool(replacements),
        brings_rows=any(isinstance(part, nn.Embedding) for part in parts),
    )


def write_files(folder: str | os.PathLike[str], files: Mapping[str, bytes]) -> None:
    """:func:`write_together`. Raises :class:`AttachError` if that fails."""
    with writing(Path(folder)):
        write_together(Path(folder), files)


@contextmanager
def writing(folder: Path) -> Generator[None]:
    """Raise :class:`AttachError` for an error of the disk in the block."""
    try:
        yield
    except OSError as error:
        message = f"Cannot write {folder}: {error.strerror or error}"
        raise AttachError(codes.SAVE_FAILED.finding(message, found=folder)) from error

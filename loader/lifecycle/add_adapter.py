"""Put a new adapter onto a model: one that code describes, or one that a manifest declares."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

import torch

from ...manifests.findings.finding import Finding, Where
from ...manifests.manifest import ManifestFile
from ...registry.methods.config_file import parse_adapter_config
from ..build.in_memory import config_bytes
from ..build.new_adapter import base_name, begun_adapter, begun_declared
from ..model.attach import check_free, check_name, put_adapters
from ..weights.dtypes import dtype_of
from .deployed_model import DeployedModel

log = logging.getLogger("adapterdock")


def add_adapter(
    model: DeployedModel, name: str, config: Any, dtype: str | torch.dtype | None = None
) -> None:
    """See :meth:`DeployedModel.add_adapter`."""
    where = Where(file=f"add_adapter({name!r})")
    check_name(model, name, False, where)
    kept_in = dtype_of(dtype, where)
    read = parse_adapter_config(config_bytes(config), where)
    check_free(model, name, False, where)
    declared = model.deployment.file if model.deployment else None
    base = base_name(model.live, declared)
    built, notes = begun_adapter(model.live, name, read, dtype=kept_in, base=base, where=where)
    put_adapters(model, [built], where)
    for note in notes:
        log.warning("%s", note)


def attach_begun(
    model: DeployedModel, file: ManifestFile, name: str, accepted: Collection[str] = ()
) -> list[Finding]:
    """Put it on the model, all of it or nothing; returns what is worth a warning."""
    where = file.where(("adapters", name, "config"))
    with model.changing():
        check_free(model, name, False, where)
        built, notes = begun_declared(model.live, file, name, accepted)
        put_adapters(model, [built], where)
    return notes

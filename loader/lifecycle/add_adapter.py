"""Create a new adapter on a model, described in code or declared in a manifest."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

import torch

from ...manifests.findings.finding import Finding, Where
from ...manifests.manifest import ManifestFile
from ...registry.methods.config_file import parse_adapter_config
from ..build.in_memory import config_bytes
from ..build.new_adapter import base_name, make_declared_adapter, make_new_adapter
from ..model.host import AdapterHost
from ..weights.dtypes import dtype_of

log = logging.getLogger("adapterdock")


def add_adapter(
    host: AdapterHost, name: str, config: Any, dtype: str | torch.dtype | None = None
) -> None:
    """See :meth:`AdaptedModel.add_adapter`."""
    where = Where(file=f"add_adapter({name!r})")
    host.adapters.check_name(name, False, where)
    kept_in = dtype_of(dtype, where)
    read = parse_adapter_config(config_bytes(config), where)
    host.adapters.check_free(name, False, where)
    base = base_name(host.live, host.file)
    built, notes = make_new_adapter(host.live, name, read, dtype=kept_in, base=base, where=where)
    host.adapters.put([built], where)
    for note in notes:
        log.warning("%s", note)


def attach_new_adapter(
    host: AdapterHost, file: ManifestFile, name: str, accepted: Collection[str] = ()
) -> list[Finding]:
    """Create and attach an adapter that the manifest declares; all or nothing. Returns warnings."""
    where = file.where(("adapters", name, "config"))
    with host.adapters.changing():
        host.adapters.check_free(name, False, where)
        built, notes = make_declared_adapter(host.live, file, name, accepted)
        host.adapters.put([built], where)
    return notes

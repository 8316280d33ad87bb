"""One adapter onto one model: read its files, check fit against the live model, attach."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

from ..manifests.errors import FitError
from ..manifests.findings import Finding, Severity, Where
from ..manifests.source import Source
from ..registry.facts import AdapterFacts
from ..registry.fetch import Fetched
from ..registry.fit import check_adapter
from ..registry.gather import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from ..registry.methods.config_file import parse_adapter_config
from ..registry.verified import Verified
from .adapted import AdaptedModel
from .attach import attach_adapter
from .tensors import AdapterTensors, read_file


def attach_files(
    model: AdaptedModel,
    name: str,
    files: Mapping[str, Fetched],
    verified: Verified,
    *,
    source: Source | None = None,
    base: Source | None = None,
    aliases: Collection[str] = (),
    accepted: Collection[str] = (),
    dtype: torch.dtype | None = None,
    trainable: bool = False,
    where: Where = Where(),  # noqa: B008 - frozen
) -> list[Finding]:
    """Attach the adapter in ``files`` under ``name``; returns what is worth a warning.

    The bytes that are attached are those that were verified: they are read once, and hashed
    unless ``verified`` knows the file as it is now. Raises :class:`FitError` for a misfit and for
    what could not be checked and is not ``accepted``, or what reading and attaching raise; the
    model is then as it was.
    """
    config_file, weights_file = files[ADAPTER_CONFIG], files[ADAPTER_WEIGHTS]
    config = parse_adapter_config(
        read_bytes_of(config_file, where), where, str(config_file.path)
    )
    tensors = read_weights(weights_file, verified, where)
    facts = AdapterFacts(name, source, config, tensors.header)
    findings, plan = check_adapter(
        facts, None, where=where, layout=model.layout, declared=base, aliases=aliases
    )
    refused = [
        f
        for f in findings
        if f.severity is Severity.ERROR
        or (f.severity is Severity.UNCHECKED and f.code not in accepted)
    ]
    if refused or plan is None:
        raise FitError(*(refused or findings))
    dropout = config.get("lora_dropout")
    attach_adapter(
        model,
        name,
        plan,
        tensors,
        dtype=dtype,
        trainable=trainable,
        dropout=float(dropout) if isinstance(dropout, int | float) else 0.0,
        where=where,
    )
    return [f for f in findings if f.severity is Severity.WARNING]

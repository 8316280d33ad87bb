"""The files of an adapter, and how they are read."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from ...manifests.findings import fit as codes
from ...manifests.findings.errors import SourceError
from ...manifests.findings.finding import Where
from . import mlx
from .facts import Header, StoredTensor
from .names import ADAPTER_WEIGHTS
from .reading import Reading, header_of, metadata_of
from .wrappers import unwrapped

_SHARD = re.compile(r"adapter_model-(\d{5})-of-(\d{5})\.safetensors")
_MOST_SHARDS = 1000


def weights_of(config: Mapping[str, Any], paths: Collection[str]) -> tuple[str, ...]:
    """The files with the weights among ``paths`` (empty where there are none)."""
    if mlx.is_config(config) and mlx.WEIGHTS in paths:
        return (mlx.WEIGHTS,)
    if ADAPTER_WEIGHTS in paths:
        return (ADAPTER_WEIGHTS,)
    return tuple(sorted(path for path in paths if _SHARD.fullmatch(path)))


def read_adapter(
    config: Mapping[str, Any],
    headers: Mapping[str, Header],
    where: Where = Where(),  # noqa: B008 - frozen
) -> Reading:
    """The adapter of this config and these files with weights, as PEFT would have written it.

    Raises :class:`SourceError` where the conversion is not clear, and for missing shards.
    """
    if mlx.is_config(config):
        ((file, header),) = headers.items()
        return mlx.read(config, file, header, where)
    if len(headers) == 1 and ADAPTER_WEIGHTS in headers:
        return unwrapped(Reading(config, headers[ADAPTER_WEIGHTS]))
    return unwrapped(_joined(config, headers, where))


def _joined(config: Mapping[str, Any], headers: Mapping[str, Header], where: Where) -> Reading:
    """Shards as one file. transformers writes them (``save_pretrained`` of a model with an
    adapter, beyond ``max_shard_size``); PEFT itself does not."""

    def refuse(message: str, found: str, expected: str) -> NoReturn:
        finding = codes.ADAPTER_SHARDS.finding(message, where, found=found, expected=expected)
        raise SourceError(finding)

    found = [match for path in headers if (match := _SHARD.fullmatch(path))]
    totals = {int(match[2]) for match in found}
    numbers = {int(match[1]) for match in found}
    total = max(totals)
    if len(totals) > 1 or total > _MOST_SHARDS or numbers != set(range(1, total + 1)):
        absent = sorted(set(range(1, min(total, _MOST_SHARDS) + 1)) - numbers)
        expected = "the shards of one adapter"
        if absent and len(totals) == 1:
            expected = f"adapter_model-{absent[0]:05}-of-{total:05}.safetensors too"
        message = f"The adapter has only {len(found)} of {total} shards"
        refuse(message, ", ".join(sorted(headers)[:8]), expected)
    parts: dict[str, StoredTensor] = {}
    for path, header in sorted(headers.items()):
        for name in header.tensors:
            if name in parts:
                message = "Two shards of the adapter hold the same tensor"
                at = f"{name[:200]} in {parts[name].file} and in {path}"
                refuse(message, at, "each tensor in one shard")
            parts[name] = StoredTensor(path, name)
    header = header_of(parts, headers, metadata_of(headers.values()))
    return Reading(config, header, parts)

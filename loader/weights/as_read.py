"""An adapter's tensors in PEFT's names and axes, over one buffer."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ...manifests.findings.finding import Where
from ...registry.files.facts import AdapterFacts, StoredTensor
from .buffer import buffer_in_memory
from .tensors import AdapterTensors


def as_read(
    facts: AdapterFacts, files: Mapping[str, AdapterTensors], where: Where
) -> AdapterTensors:
    """The tensors of an adapter from its ``files``, by path.

    If one file has them as the header of ``facts`` says, its buffer is used. Otherwise they are
    copied, in their dtype, into a new buffer after the files' digests were verified. Raises
    :class:`IntegrityError` for a wrong digest, :class:`SourceError` for a file that could not be
    read."""
    if not facts.parts:
        (tensors,) = files.values()
        tensors.header = facts.header
        return tensors
    for tensors in files.values():
        tensors.verify()
    made = AdapterTensors(facts.header, buffer_in_memory(b"", facts.header.size), where)
    for name, part in facts.parts.items():
        made.host(name).copy_(_of(files[part.file], part))
    return made


def _of(tensors: AdapterTensors, part: StoredTensor) -> torch.Tensor:
    tensor = tensors.host(part.name)
    if part.rows is not None:
        first, end = part.rows
        tensor = tensor.view(-1, tensor.shape[-1])[first:end]
    return tensor.t() if part.turned else tensor

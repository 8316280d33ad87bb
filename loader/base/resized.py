"""Resized token embeddings (``base.vocab_size``): resizing them, and their rows before."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from ...manifests.findings import fit as codes
from ...manifests.findings.errors import AttachError
from ...manifests.findings.finding import Where
from ...manifests.lockfile import LoadedAs
from ...registry.methods.resized import token_modules
from .layout import layout_of_model
from .transformers_log import failed, quiet


def resize(model: nn.Module, rows: int, where: Where) -> None:
    """Give the input and the output embedding ``rows`` rows, as transformers'
    ``resize_token_embeddings`` does, in place.

    New rows (and new entries of a head's bias) are the mean of the old ones. transformers samples
    around this mean; without the sampling they are the same each time. Raises
    :class:`AttachError` where the model cannot be resized.
    """
    base = cast(Any, model)
    before = _rows(model)
    try:
        if any(weight.is_meta for module in _tables(model) for weight in module.parameters()):
            raise NotImplementedError("the embedding is offloaded")
        apart = dict(model.named_modules(remove_duplicate=False))
        with torch.no_grad(), quiet():
            base.resize_token_embeddings(rows, mean_resizing=False)
            for module in _tables(model):
                for table in module.parameters(recurse=False):
                    if table.shape[0] == rows and before is not None and before < rows:
                        table[before:] = table[:before].float().mean(0).to(table.dtype)
        _part(model, apart)
    except Exception as error:
        message = "transformers could not resize the base's embeddings"
        raise failed(codes.VOCABULARY_NOT_RESIZED, message, error, where) from error
    check_rows(model, rows, where)


def _part(model: nn.Module, apart: Mapping[str, nn.Module]) -> None:
    """Separate the modules again that were ``apart`` before: resizing makes one module of T5's
    three embeddings, which share a weight, and an adapter could not address each."""
    seen: dict[int, str] = {}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        first = seen.setdefault(id(module), name)
        if name and first != name and apart.get(name) is not apart.get(first):
            replacement = copy.copy(module)
            replacement._parameters = dict(module._parameters)  # pyright: ignore[reportPrivateUsage]
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, replacement)


def check_rows(model: nn.Module, rows: int, where: Where) -> None:
    """Raise :class:`AttachError` where the model's input embedding has another number of rows."""
    found = _rows(model)
    if found != rows:
        raise AttachError(
            codes.VOCABULARY_NOT_RESIZED.finding(
                f"The model's token embedding does not have {rows} rows",
                where,
                found="no token embedding" if found is None else f"{found} rows",
                expected=f"{rows} rows",
            )
        )


def as_before(
    model: nn.Module,
    config: Mapping[str, Any],
    live: Mapping[str, torch.Tensor],
    loaded_as: LoadedAs,
    doubts: dict[str, str],
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The config and the ``live`` tensors with the number of rows in the files. Where the model has
    fewer rows, or the number is not known, the embeddings are left out, and ``doubts`` says so."""
    before, rows = loaded_as.resized_from, loaded_as.vocab_size
    layout = layout_of_model(model)
    ours = {f"{name}.{leaf}" for name in token_modules(layout) for leaf in ("weight", "bias")}
    ours |= {one for pair in layout.tied.items() if ours & {*pair} for one in pair}
    found = {name: t for name, t in live.items() if name not in ours or t.shape[0] != rows}
    if before is None or rows is None or before > rows:
        doubts["structure"] = "its embeddings were resized"
    else:
        found |= {name: t[:before] for name, t in live.items() if name not in found}
        found = {name: found[name] for name in live}
    said = dict(config)
    if before is None:
        doubts["config"] = "its embeddings were resized"
    elif isinstance(text := config.get("text_config"), Mapping) and "vocab_size" in text:
        said["text_config"] = {**text, "vocab_size": before}
    else:
        said["vocab_size"] = before
    return said, found


def _tables(model: nn.Module) -> list[nn.Module]:
    """The input and the output embedding, where the model has them."""
    found: list[nn.Module] = []
    for name in ("get_input_embeddings", "get_output_embeddings"):
        try:
            module = getattr(model, name)()
        except (AttributeError, NotImplementedError, TypeError):
            continue
        if isinstance(module, nn.Module):
            found.append(module)
    return found


def _rows(model: nn.Module) -> int | None:
    tables = _tables(model)
    weight = getattr(tables[0], "weight", None) if tables else None
    return int(weight.shape[0]) if isinstance(weight, torch.Tensor) else None

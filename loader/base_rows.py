"""Resizing the token embeddings of a base that is loaded here (``base.vocab_size``)."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from ..manifests.codes import fit as codes
from ..manifests.errors import AttachError
from ..manifests.findings import Where
from .quiet import quiet


def resize(model: nn.Module, rows: int, where: Where) -> None:
    """Give the input and the output embedding ``rows`` rows, as transformers'
    ``resize_token_embeddings`` does, in place.

    New rows (and new entries of a head's bias) are the mean of the old ones: what transformers
    draws them around, without the noise, so that they are the same each time. Raises
    :class:`AttachError` where that cannot be.
    """
    base = cast(Any, model)
    before = _rows(model)
    try:
        if any(weight.is_meta for module in _tables(model) for weight in module.parameters()):
            raise NotImplementedError("the embedding is offloaded")
        with torch.no_grad(), quiet():
            base.resize_token_embeddings(rows, mean_resizing=False)
            for module in _tables(model):
                for table in module.parameters(recurse=False):
                    if table.shape[0] == rows and before is not None and before < rows:
                        table[before:] = table[:before].float().mean(0).to(table.dtype)
    except Exception as error:
        said = f"{type(error).__name__}: {str(error).strip()[:300]}"
        raise AttachError(
            codes.VOCABULARY_NOT_RESIZED.finding(
                "transformers could not resize the base's embeddings", where, found=said
            )
        ) from error
    check_rows(model, rows, where)


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


def _tables(model: nn.Module) -> list[nn.Module]:
    """The input and the output embedding, where there are such."""
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

"""Rows of different lengths as one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def padded(
    rows: Sequence[Sequence[int]], pad: int, device: torch.device, *, left: bool
) -> dict[str, torch.Tensor]:
    """``input_ids`` and ``attention_mask``, int64 (rows, longest).

    ``left`` is for a decoder, which continues at the right end.
    """
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for at, row in enumerate(rows):
        place = slice(longest - len(row), None) if left else slice(0, len(row))
        ids[at, place] = torch.tensor(row, dtype=torch.long)
        mask[at, place] = 1
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}

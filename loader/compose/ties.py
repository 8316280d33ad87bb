"""TIES (https://arxiv.org/abs/2306.01708): elect a sign for each value, then take the mean of the
values that have it. They are trimmed first, by :mod:`.sparsify`."""

from __future__ import annotations

import torch


def weighted_sum(tasks: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Task arithmetic: ``tasks`` (members, ...) times ``weights`` (members), summed."""
    return (tasks * _wide(weights, tasks)).sum(dim=0)


def elected_mean(tasks: torch.Tensor, weights: torch.Tensor, method: str) -> torch.Tensor:
    """The sum of the weighted tasks that have the elected sign, divided by their number.

    The tasks elect the sign without their weights, as in PEFT: by the sum of the values (``total``)
    or of their signs (``frequency``); a sum of 0 elects plus.
    """
    signs = tasks.sign()
    votes = (tasks if method == "total" else signs).sum(dim=0)
    agrees = signs == torch.where(votes >= 0, 1, -1)
    total = (tasks * _wide(weights, tasks) * agrees).sum(dim=0)
    return total / agrees.sum(dim=0).clamp(min=1.0)


def _wide(weights: torch.Tensor, tasks: torch.Tensor) -> torch.Tensor:
    return weights.view(-1, *(1,) * (tasks.dim() - 1))

"""The methods that attach natively: their rows, by :attr:`SitePlan.method`."""

from __future__ import annotations

from collections.abc import Mapping

from . import adalora, ia3, loha, lokr, lora, lora_parameters, oft, trainable_tokens, vera
from .method import Method

ROWS: tuple[Method, ...] = (
    lora.METHOD,
    lora_parameters.METHOD,
    trainable_tokens.METHOD,
    vera.METHOD,
    ia3.METHOD,
    loha.METHOD,
    lokr.METHOD,
    oft.METHOD,
    adalora.METHOD,
)

METHODS: Mapping[str, Method] = {row.name: row for row in ROWS}

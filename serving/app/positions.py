"""How many positions a base has for the tokens of a row, and for the rows of a batch together.

A batch ends with its longest answer, and a row that has ended goes on with padding until then. So a
batch reaches positions that none of its rows would reach alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len")
_FIXED_ROPE = frozenset({"default", "linear", "yarn", "llama3", "proportional"})
"""Rotations whose frequencies are the same at every length. They can be computed for any
position."""


@dataclass(frozen=True)
class Positions:
    """What a base has room for.

    Args:
        row: The most tokens of one row; ``None`` where its config says no limit.
        batch: The most positions that several rows may reach together; ``None`` for any number.
    """

    row: int | None = None
    batch: int | None = None


def positions_of(base: Any) -> Positions:
    """The positions of a loaded base."""
    config = getattr(base.config, "get_text_config", lambda: base.config)()
    if getattr(base.config, "model_type", None) == "t5":
        return Positions()  # its positions are relative, and its config has another number
    numbers = (getattr(config, name, None) for name in _NAMES)
    row = next((one for one in numbers if isinstance(one, int) and one > 0), None)
    if row is not None:
        row -= _before_the_first(base, row)
    ropes = _ropes(config)
    if not ropes:
        return Positions(row, row)
    if all(rope.get("rope_type", "default") in _FIXED_ROPE for rope in ropes):
        return Positions(row)
    # one row beyond the length that the base was first trained for changes the rotation of all
    firsts = [rope.get("original_max_position_embeddings") for rope in ropes]
    firsts += [getattr(config, "original_max_position_embeddings", None), row]
    return Positions(row, min((one for one in firsts if isinstance(one, int)), default=None))


def _ropes(config: Any) -> list[Mapping[str, Any]]:
    """What a config says of rotary positions: once, or for each kind of layer."""
    said = getattr(config, "rope_parameters", None)
    if not isinstance(said, Mapping):
        return []
    mapping = cast("Mapping[str, Any]", said)
    nested = [one for one in mapping.values() if isinstance(one, Mapping)]
    return cast("list[Mapping[str, Any]]", nested) or ([mapping] if mapping else [])


def _before_the_first(base: Any, positions: int) -> int:
    """How many entries of a table of positions no token uses: RoBERTa and its kin count from the
    entry after the one for padding."""
    for name, module in base.named_modules():
        if (
            name.rpartition(".")[2] == "position_embeddings"
            and isinstance(module, nn.Embedding)
            and module.num_embeddings == positions
            and module.padding_idx is not None
        ):
            return module.padding_idx + 1
    return 0

"""What PEFT knows: its default modules, the methods that attach through it, and those that cannot
be attached.

``registry/peft.json`` holds facts of PEFT 0.21.2 that ``loader.tables.peft_facts`` exported. The
rest follows each method's ``model.py`` and ``layer.py``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .options import Expect, any_text, boolean, either, index, map_of, number, optional, rank
from .tuner_config import TARGET_OPTIONS

MAX_SETTING = 1 << 32
"""The largest number in a config: PEFT makes tensors of such sizes."""

_FACTS: Mapping[str, Any] = json.loads(
    (Path(__file__).parents[1] / "peft.json").read_text(encoding="utf-8")
)

Table = Mapping[str, Sequence[str] | str]
TARGETS: Mapping[str, Table] = _FACTS["targets"]
"""The modules that PEFT adapts where a config names none, by method and the base's ``model_type``.
They are for new adapters: what PEFT saved names its modules."""
FEEDFORWARD: Table = _FACTS["feedforward"]["IA3"]
"""``feedforward_modules`` of IA3, by ``model_type``."""


def _within(inner: Expect) -> Expect:
    """A number of the kind ``inner`` that is not too large to be a size."""

    def expect(value: object) -> str | None:
        wrong = inner(value)
        if wrong is not None or not isinstance(value, (int, float)):
            return wrong
        return None if abs(value) <= MAX_SETTING else "a smaller number"

    return expect


_KINDS: Mapping[str, Expect] = {
    "rank": rank,
    "whole": _within(index),
    "real": _within(number),
    "flag": boolean,
    "flag or text": either(boolean, any_text),
    "text": any_text,
    "map of whole": map_of(_within(index)),
    "map of real": map_of(_within(number)),
}


@dataclass(frozen=True)
class PeftMethod:
    """One method that acts on modules, with layers of PEFT's.

    Attributes:
        prefix: The start of its parameters' names at a module.
        fields: Its own config fields, with their valid values.
        where: The fields of all methods that it has.
        shared: What it stores once for all modules.
        off: Fields that must have PEFT's default, and why.
        listed: False where the file need not have a tensor for each module: the config alone says
            which they are.
        trains: Whether gradients are all that its training needs.
        needs_weights: Whether PEFT computes the shapes from the base's weights.
        by_batch: Whether the output for a row depends on the other rows.
        merges: The parameters of a module that PEFT's merge changes.
    """

    prefix: str
    fields: Mapping[str, Expect]
    where: frozenset[str]
    shared: tuple[str, ...] = ()
    off: Mapping[str, str] = field(default_factory=dict)
    listed: bool = True
    trains: bool = True
    needs_weights: bool = False
    by_batch: bool = False
    merges: tuple[str, ...] = ("weight",)

    @property
    def tables(self) -> tuple[str, ...]:
        """The fields that map patterns to values."""
        return tuple(n for n in self.fields if n.endswith("_pattern") and n not in self.off)

    @classmethod
    def of(cls, facts: Mapping[str, Any], **more: Any) -> PeftMethod:
        """From an exported row, and what it does not have."""
        kinds: Mapping[str, str] = facts["fields"]
        where = frozenset(option.name for option in TARGET_OPTIONS if option.name in kinds)
        fields = {name: _expect(kind) for name, kind in kinds.items() if name not in where}
        return cls(facts["prefix"], fields, where, **more)


def _expect(kind: str) -> Expect:
    return optional(_KINDS[kind[:-1]]) if kind.endswith("?") else _KINDS[kind]


_BOTH = ("weight", "bias")
_MORE: Mapping[str, Mapping[str, Any]] = {
    "ADAMSS": {"trains": False, "needs_weights": True, "merges": _BOTH},
    "BEFT": {"merges": ("bias",)},
    "FROD": {
        "shared": ("frod_V", "frod_s_indices", "frod_s_size"),
        "off": {"runtime_offload_base_weight": "moves the base's weights"},
        "needs_weights": True,
    },
    "GLORA": {"merges": _BOTH},
    "LILY": {"by_batch": True},
    "OSF": {"off": {"rank_pattern": "gives modules ranks of their own"}, "trains": False},
    "PVERA": {"shared": ("pvera_A", "pvera_B")},
    "RANDLORA": {"shared": ("randlora_A", "randlora_B")},
    "ROAD": {"merges": _BOTH},
    "TINYLORA": {"shared": ("tinylora_v",)},
    "UNILORA": {"shared": ("unilora_theta_d",), "listed": False},
    "VBLORA": {"shared": ("vblora_vector_bank",)},
}
PEFT_TABLE: Mapping[str, PeftMethod] = {
    name: PeftMethod.of(facts, **_MORE.get(name, {})) for name, facts in _FACTS["methods"].items()
}
"""By ``peft_type``."""

PEFT_REFUSED: Mapping[str, str] = {
    "ADAPTION_PROMPT": "it replaces the base's attention modules",
    "BONE": "PEFT has removed it: convert the adapter to MISS with an older PEFT",
    "CARTRIDGE": "its virtual tokens are a trained key-value cache",
    "CPT": "its virtual tokens need a loss and masks of their own",
    "MULTITASK_PROMPT_TUNING": "each call must name the task of its virtual tokens",
    "POLY": "each call must name its task",
    "SHADOW": "it runs a second model in addition to the base",
    "XLORA": "it runs the base twice, to weight other adapters by its output",
}
"""Methods that cannot be attached here, with or without PEFT, and why."""

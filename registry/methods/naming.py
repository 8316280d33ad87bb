"""From the module names of an adapter file to those of the live model, and back.

An adapter remembers the names of the model that it was trained on. The same backbone is called
``layers.0.mlp`` alone and ``model.layers.0.mlp`` under a language-model head, so transformers'
``base_model_prefix`` may have to be added or removed. One way holds for a whole file.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from ..files.facts import Layout
from ..files.names import PEFT_PREFIX


class Shift(str, Enum):
    """What turns the file's names into the live model's."""

    NONE = "none"
    ADD = "add"
    STRIP = "strip"


@dataclass(frozen=True)
class Naming:
    """``author`` names are those of the file (and of the patterns in its config)."""

    shift: Shift = Shift.NONE
    prefix: str = ""

    @classmethod
    def find(cls, names: Collection[str], layout: Layout | None) -> Naming:
        """The shift under which most of ``names`` exist; none on a tie, or without a layout."""
        if layout is None or not layout.prefix or all(name in layout.modules for name in names):
            return cls()
        candidates = [cls(shift, layout.prefix) for shift in Shift]
        return max(candidates, key=lambda n: sum(n.live(x) in layout.modules for x in names))

    def live(self, author: str) -> str:
        """The live module that the file calls ``author``."""
        if self.shift is Shift.NONE:
            return author
        inside = f"{self.prefix}."
        if self.shift is Shift.ADD:
            return inside + author if author else self.prefix
        return "" if author == self.prefix else author.removeprefix(inside)

    def author(self, live: str) -> str:
        """What the file would call the ``live`` module."""
        if self.shift is Shift.NONE:
            return live
        inside = f"{self.prefix}."
        if self.shift is Shift.STRIP:
            return inside + live if live else self.prefix
        return "" if live == self.prefix else live.removeprefix(inside)


def strip_peft_prefix(key: str) -> str:
    """A tensor's name without ``base_model.model.``, which some writers leave out."""
    return key.removeprefix(PEFT_PREFIX)

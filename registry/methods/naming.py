"""From the module names of an adapter file to those of the live model, and back.

An adapter has the names of the model that it was trained on. A backbone has ``layers.0.mlp``, and
``model.layers.0.mlp`` under a language-model head, so transformers' ``base_model_prefix`` may have
to be added or removed: one of these for all names of a file.
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


_BACK = {Shift.NONE: Shift.NONE, Shift.ADD: Shift.STRIP, Shift.STRIP: Shift.ADD}


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
        return self._shifted(author, self.shift)

    def author(self, live: str) -> str:
        """What the file would call the ``live`` module."""
        return self._shifted(live, _BACK[self.shift])

    def _shifted(self, name: str, shift: Shift) -> str:
        if shift is Shift.NONE:
            return name
        inside = f"{self.prefix}."
        if shift is Shift.ADD:
            return inside + name if name else self.prefix
        return "" if name == self.prefix else name.removeprefix(inside)


def strip_peft_prefix(key: str) -> str:
    """A tensor's name without ``base_model.model.``, which some writers leave out."""
    return key.removeprefix(PEFT_PREFIX)


WRAPPER = "base_layer"
TOKENS = "token_adapter"
"""What PEFT calls the part of an embedding's wrapper that holds the trained rows."""
_WRAPPERS = (f".{WRAPPER}", f".{TOKENS}")


def unwrapped(author: str) -> tuple[str, str]:
    """A module's name in a file, and what PEFT has wrapped it in (from its dot on)."""
    module = author
    while module.endswith(_WRAPPERS):
        module = module.rpartition(".")[0]
    return module, author[len(module) :]

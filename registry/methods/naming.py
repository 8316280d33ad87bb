"""From the module names of an adapter file to those of the live model, and back.

An adapter has the names of the model that it was trained on. A backbone has ``layers.0.mlp``, and
``model.layers.0.mlp`` under a language-model head, so transformers' ``base_model_prefix`` may have
to be added or removed: one of these for all names of a file.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..files.facts import Layout
from ..files.names import PEFT_PREFIX


@dataclass(frozen=True)
class Naming:
    """``author`` names are those of the file (and of the patterns in its config). The live model's
    have the prefix ``strip`` removed, or ``add`` added."""

    add: str = ""
    strip: str = ""

    @classmethod
    def find(cls, names: Collection[str], layout: Layout | None) -> Naming:
        """The naming under which most of ``names`` exist; unchanged on a tie or without a
        layout."""
        if layout is None or not layout.prefix or all(name in layout.modules for name in names):
            return cls()
        candidates = (cls(), cls(add=layout.prefix), cls(strip=layout.prefix))
        return max(candidates, key=lambda n: sum(n.live(x) in layout.modules for x in names))

    def live(self, author: str) -> str:
        """The live module that the file calls ``author``."""
        return _exchanged(author, self.strip, self.add)

    def author(self, live: str) -> str:
        """What the file would call the ``live`` module."""
        return _exchanged(live, self.add, self.strip)


def _exchanged(name: str, strip: str, add: str) -> str:
    if strip:
        return "" if name == strip else name.removeprefix(f"{strip}.")
    if add:
        return f"{add}.{name}" if name else add
    return name


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

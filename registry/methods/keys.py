"""The keys of an adapter file, sorted out by their endings.

Key grammar: PEFT 0.21, ``utils/save_and_load.py``: the module's path, the method's parameter, and
``weight`` or ``bias`` where that is a module of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .naming import strip_peft_prefix

Roles = Mapping[tuple[str, str], str]
"""What a method calls its tensors, by the last two parts of their keys; the second is empty where
PEFT keeps a bare parameter."""

MAX_NAME = 512
"""Characters of a tensor's name; patterns are matched against it."""


@dataclass
class Keys:
    """The file's keys, sorted out by their endings: {author module: {role: key}}, {author
    name: key} for what is no factor, and keys that cannot be names of a module at all."""

    factors: dict[str, dict[str, str]] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)

    @property
    def modules(self) -> list[str]:
        """The modules that the file adapts, or else those that it stores."""
        return list(self.factors) or [name.rpartition(".")[0] for name in self.others]

    @classmethod
    def split(cls, tensors: Iterable[str], roles: Roles) -> Keys:
        """Raises nothing: what is no name of a module is ``odd``."""
        found = cls()
        factors = found.factors
        for key in tensors:
            name = strip_peft_prefix(key)
            if len(name) > MAX_NAME or not name.isprintable():
                found.odd.append(key)
                continue
            module, role = _factor(name, roles)
            if role is None:
                place, at = found.others, name
            else:
                parts = factors.get(module)
                place, at = factors.setdefault(module, {}) if parts is None else parts, role
            if place.setdefault(at, key) is not key:  # with PEFT's prefix, and without
                found.odd.append(key)
        return found


def _factor(name: str, roles: Roles) -> tuple[str, str | None]:
    """(module, role) of a factor, (..., ``None``) of what is none."""
    rest, _, last = name.rpartition(".")
    if last not in ("weight", "bias"):
        return rest, roles.get((last, ""))
    module, _, parameter = rest.rpartition(".")
    return module, roles.get((parameter, last))

"""The keys of an adapter file, sorted by module and role.

Key grammar: PEFT 0.21, ``utils/save_and_load.py``: the module's path, the method's parameter, and
``weight`` or ``bias`` where that is a module of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from .naming import strip_peft_prefix

Roles = Mapping[tuple[str, str], str]
"""What a method calls its tensors, by the last two parts of their keys; the second is empty where
PEFT keeps a bare parameter."""
Factor = Callable[[str], tuple[str, str | None]]
"""``(module, role)`` of a tensor's name; the role is ``None`` for tensors of other kinds."""

MAX_NAME = 512
"""Characters of a tensor's name; patterns are matched against it."""


def is_name(name: str) -> bool:
    """Whether ``name`` is short and printable, as names of tensors are."""
    return len(name) <= MAX_NAME and name.isprintable()


@dataclass
class Keys:
    """A file's keys: factors as {author module: {role: key}}, others as {author name: key}, and
    ``odd`` keys, which are not names or name a tensor a second time."""

    factors: dict[str, dict[str, str]] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)

    @property
    def modules(self) -> list[str]:
        """The modules that the file adapts, or if none those that it stores."""
        return list(self.factors) or [name.rpartition(".")[0] for name in self.others]

    @classmethod
    def split(cls, tensors: Iterable[str], factor: Factor) -> Keys:
        """Sort ``tensors`` by what ``factor`` says of each. Raises nothing."""
        found = cls()
        factors = found.factors
        for key in tensors:
            name = strip_peft_prefix(key)
            if not is_name(name):
                found.odd.append(key)
                continue
            module, role = factor(name)
            if role is None:
                place, at = found.others, name
            else:
                parts = factors.get(module)
                place, at = factors.setdefault(module, {}) if parts is None else parts, role
            if place.setdefault(at, key) is not key:  # with PEFT's prefix, and without
                found.odd.append(key)
        return found


def factor_by(roles: Roles) -> Factor:
    """Read a factor's module and role from the end of its name."""

    def factor(name: str) -> tuple[str, str | None]:
        rest, _, last = name.rpartition(".")
        if last not in ("weight", "bias"):
            return rest, roles.get((last, ""))
        module, _, parameter = rest.rpartition(".")
        return module, roles.get((parameter, last))

    return factor

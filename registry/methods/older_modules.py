"""Where the modules and tensors that an older adapter names are today."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from ..files.conversion import natural
from ..files.facts import Layout, ModuleKind
from ..files.names import PEFT_PREFIX
from .keys import Keys
from .naming import WRAPPER, Naming, strip_peft_prefix, unwrapped
from .older_names import OlderNames, OldPlace, numberless, numbers_of, renumbered

_WRAPPERS = frozenset({"original_module", "modules_to_save", WRAPPER})


@dataclass(frozen=True)
class Part:
    """An adapted module whose weight is a part of another one today, or several."""

    author: str
    place: OldPlace
    roles: Mapping[str, str]

    @property
    def core(self) -> str:
        """The module's name without PEFT's wrappers."""
        return unwrapped(self.author)[0]


@dataclass
class Moves:
    """What became of a file's factors.

    Attributes:
        naming: The prefix of names that did not change.
        modules: Adapted modules, by the file's names.
        parts: By today's first parameter, the adapted modules that are in it.
        keys: Today's keys, by the file's.
    """

    naming: Naming
    modules: dict[str, str] = field(default_factory=dict)
    parts: dict[str, list[Part]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)


def moves_of(keys: Keys, layout: Layout, names: OlderNames) -> Moves:
    """Find today's name of every adapted module. Raises ``AmbiguousNameError``."""
    cores = dict.fromkeys(unwrapped(author)[0] for author in keys.factors)
    moves = Moves(Naming.find(list(cores) or keys.modules, layout))
    places: dict[str, OldPlace | None] = {}
    for core in sorted(cores, key=natural):
        live = moves.naming.live(core)
        if live in layout.modules or core in layout.modules:
            moves.modules[core] = live if live in layout.modules else core
            continue
        place = places[core] = names.place(f"{core}.weight")
        if place is not None and place.rule is None:
            moves.modules[core] = place.name.removesuffix(".weight")
    for author, roles in keys.factors.items():
        core, wrapper = unwrapped(author)
        place = places.get(core)
        if place is not None and place.rule is not None:
            moves.parts.setdefault(place.name, []).append(Part(author, place, roles))
            continue
        today = moves.modules.get(core, core) + wrapper
        for key in roles.values():
            moves.keys[key] = like(key, today + strip_peft_prefix(key)[len(author) :])
    return moves


def is_router(layout: Layout, name: str) -> bool:
    """Whether the module chooses a mixture's experts and is not a linear layer: next to it is a
    module whose own parameters are those of all experts."""
    module = layout.modules.get(name)
    if module is None or module.kind is not ModuleKind.OTHER:
        return False
    if len(module.parameters.get("weight", ())) != 2:
        return False
    experts = layout.modules.get(f"{name.rpartition('.')[0]}.experts")
    return experts is not None and any(len(shape) == 3 for shape in experts.parameters.values())


def like(key: str, name: str) -> str:
    """``name`` with PEFT's prefix where ``key`` has it."""
    return PEFT_PREFIX + name if key.startswith(PEFT_PREFIX) else name


def without_copy(name: str) -> tuple[str, Callable[[str], str]]:
    """A tensor's name without a wrapper of PEFT's in it, and a function that puts it back."""
    parts = name.split(".")
    at = next((n for n, part in enumerate(parts) if part in _WRAPPERS), len(parts))
    after = parts[at + 1 :]

    def put_back(today: str) -> str:
        tail = today.split(".")
        cut = len(tail) - len(after)
        return ".".join([*tail[:cut], *parts[at : at + 1], *tail[cut:]])

    return ".".join([*parts[:at], *after]), put_back


def module_today(module: str, tensors: Sequence[tuple[str, str]]) -> str:
    """Today's name of a saved module, from the (old, today's) names of its tensors."""
    rests = [old[len(module) :] for old, _ in tensors]
    stems = {
        today[: len(today) - len(rest)] if today.endswith(rest) else None
        for rest, (_, today) in zip(rests, tensors, strict=True)
    }
    if len(stems) == 1 and (stem := stems.pop()) is not None:
        return stem
    paths = [today.split(".")[:-1] for _, today in tensors]
    shared = takewhile(lambda pieces: len({*pieces}) == 1, zip(*paths, strict=False))
    return ".".join(pieces[0] for pieces in shared)


class Analogy:
    """What the file would call a module of today, judging by its other names."""

    def __init__(self, moves: Moves, names: OlderNames) -> None:
        self._own: dict[str, str] = {}
        self._complete: dict[str, str] = {}
        self._starts: dict[str, str] = {}
        self._naming = moves.naming
        self._names = names
        for old, today in moves.modules.items():
            self._own.setdefault(today, old)
            if old == today or len(numbers_of(old)) != len(numbers_of(today)):
                continue
            self._complete.setdefault(numberless(today), old)
            before, after = old.split("."), today.split(".")
            while before and after and before[-1] == after[-1]:
                before.pop()
                after.pop()
                self._starts.setdefault(numberless(".".join(after)), ".".join(before))

    def old(self, live: str) -> str:
        """The file's name for it; without an analogy, the name with the file's prefix."""
        known = self._own.get(live)
        if known is not None:
            return known
        for guess in self._guesses(live):
            place = self._names.place(f"{guess}.weight") if guess not in self._own else None
            if place is not None and place.name == f"{live}.weight":
                return guess
        return self._naming.author(live)

    def _guesses(self, live: str) -> Iterator[str]:
        numbers = numbers_of(live)
        complete = self._complete.get(numberless(live))
        if complete is not None:
            yield renumbered(complete, numbers)
        parts = live.split(".")
        for at in range(len(parts) - 1, -1, -1):
            start = ".".join(parts[:at])
            old = self._starts.get(numberless(start))
            if old is not None:
                before = renumbered(old, numbers_of(start))
                yield ".".join([*([before] if before else []), *parts[at:]])
                break
        prefix = f"{self._names.layout.prefix}."
        if live.startswith(prefix):
            yield live[len(prefix) :]

"""A batch whose rows have routings of their own (PEFT's ``adapter_names``).

Row ``i`` of the batch runs with ``routings[i]``. Beam search and several returned sequences repeat
each row in place (``generation/utils.py: _expand_inputs_for_generation``). A site that does not
see one row of the batch in each row of its input is refused: which token belongs to which row is
never guessed from a size that happens to fit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..manifests.codes import loader as codes
from ..manifests.errors import RoutingError
from ..manifests.findings import Finding
from .adapter import Adapter
from .gather import RowFactors, gather

if TYPE_CHECKING:
    from .routing import Routing
    from .sites import OutputSite

KEPT_BYTES = 1 << 30
"""Gathered factors that a model keeps for its latest batches (bytes)."""

_INPUTS = ("input_ids", "inputs_embeds", "decoder_input_ids", "decoder_inputs_embeds", "inputs")


class Gathered:
    """The factors of one sequence of routings, gathered site by site as they are first needed."""

    def __init__(self) -> None:
        self.of: dict[OutputSite, RowFactors | None] = {}
        self.nbytes = 0


class GatheredCache:
    """Gathered factors of the latest batches, bounded in bytes; the least recently used go."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self.limit = limit
        self._kept: OrderedDict[tuple[Routing, ...], Gathered] = OrderedDict()

    def of(self, routings: tuple[Routing, ...]) -> Gathered:
        gathered = self._kept.setdefault(routings, Gathered())
        self._kept.move_to_end(routings)
        return gathered

    def trim(self, latest: Gathered) -> None:
        """Forget the oldest until the rest fits; ``latest`` is kept even if it does not."""
        while len(self._kept) > 1 and sum(g.nbytes for g in self._kept.values()) > self.limit:
            oldest = next(iter(self._kept))
            if self._kept[oldest] is latest:
                return
            del self._kept[oldest]

    def clear(self) -> None:
        self._kept.clear()


@dataclass(eq=False)
class Rows:
    """The routings of one call's rows. ``repeats`` says how often a row may stand in a batch, in
    place; ``foreign`` are the modules whose inputs are not the batch's rows (vision towers)."""

    routings: tuple[Routing, ...]
    repeats: tuple[int, ...]
    cache: GatheredCache
    foreign: tuple[str, ...] = ()
    _gathered: Gathered = field(init=False)
    _trains: bool = field(init=False)

    def __post_init__(self) -> None:
        for routing in self.routings:
            for adapter, _ in routing.terms:
                if adapter.prompt is not None:
                    raise RoutingError(
                        codes.PROMPT_MIXED.finding(
                            f"{adapter.name!r} has virtual tokens, and other rows have not"
                        )
                    )
        self._gathered = self.cache.of(self.routings)
        self._trains = any(a.trainable for r in self.routings for a, _ in r.terms)

    def factors(self, site: OutputSite) -> RowFactors | None:
        """What the rows' adapters hold at ``site``; ``None`` where none of them acts."""
        known = self._gathered.of
        if site in known:
            return known[site]
        found = gather(site.name, site.module, site.factors, [r.terms for r in self.routings])
        if not self._trains and not site.module.training:
            known[site] = found
            self._gathered.nbytes += found.nbytes if found is not None else 0
            self.cache.trim(self._gathered)
        return found

    def twins(self, factors: Mapping[Adapter, nn.Module]) -> list[nn.Module | None]:
        """For each row the module that stands in for the base's, if any."""
        return [next((factors[a] for a, _ in r.terms if a in factors), None) for r in self.routings]

    def check_batch(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether each row brings a single token. Raises :class:`RoutingError` for a batch of
        another size than there are names."""
        given = [kwargs.get(name) for name in _INPUTS]
        tensors = [value for value in (*args[:1], *given) if isinstance(value, torch.Tensor)]
        for tensor in tensors:
            self._repeat(tensor.shape[0] if tensor.dim() else 0, "the batch")
        return bool(tensors) and all(t.dim() > 1 and t.shape[1] == 1 for t in tensors)

    def repeat_at(self, name: str, x: torch.Tensor, single: bool) -> int:
        """How often each row stands in ``x``, the input of the module ``name``. ``single`` says
        that the batch has one token a row. Raises :class:`RoutingError` where the rows of ``x``
        are not known to be those of the batch, in order."""
        if name.startswith(self.foreign) if self.foreign else False:
            raise _lost(name, "it sees images or sounds, not the rows of the batch")
        if x.dim() < 2:
            raise _lost(name, f"its input has the shape {tuple(x.shape)}")
        if x.dim() == 2 and x.is_floating_point():
            # tokens of all rows may have been laid out in one dimension, and sorted by expert
            numbered = sum(part.isdigit() for part in name.split("."))
            if numbered > 1 or (numbered and not single):
                raise _lost(name, f"its input has the shape {tuple(x.shape)}, without the rows")
        return self._repeat(x.shape[0], name)

    def _repeat(self, length: int, where: str) -> int:
        for repeat in self.repeats:
            if length == repeat * len(self.routings):
                return repeat
        if where != "the batch":
            raise _lost(where, f"its input has {length} rows")
        raise RoutingError(
            codes.ROWS_COUNT.finding(
                f"{len(self.routings)} names for a batch of {length} rows",
                found=length,
                expected=" or ".join(str(n * len(self.routings)) for n in self.repeats),
            )
        )


def routings_of(
    names: Sequence[str | None], routing: Callable[[str | None], Routing]
) -> tuple[Routing, ...]:
    """What each row's name means. Raises :class:`RoutingError` with every name that means nothing,
    once each."""
    found: list[Routing] = []
    problems: dict[Finding, None] = {}
    for name in names:
        try:
            found.append(routing(name))
        except RoutingError as error:
            problems.update(dict.fromkeys(error.findings))
    if problems:
        raise RoutingError(*problems)
    return tuple(found)


def _lost(name: str, why: str) -> RoutingError:
    return RoutingError(codes.ROWS_LOST.finding(f"{name}: {why}"))

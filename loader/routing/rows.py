"""A batch whose rows have routings of their own (PEFT's ``adapter_names``).

Row ``i`` of the batch runs with ``routings[i]``. Beam search and several returned sequences repeat
each row in place (``generation/utils.py: _expand_inputs_for_generation``). A site whose input rows
are not the batch's rows is refused: which token belongs to which row is never guessed from a size
that happens to match (see :mod:`.row_probe`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import RoutingError
from ...manifests.findings.finding import Finding
from ..adapter.adapter import Adapter
from .batched import RowFactors, RowSite, gather
from .routing import Routing
from .row_probe import RowLayout

KEPT_BYTES = 1 << 30
"""The largest size of gathered factors that a model keeps for its latest batches (bytes)."""

_INPUTS = ("input_ids", "inputs_embeds", "decoder_input_ids", "decoder_inputs_embeds", "inputs")
_OTHERS = ("pixel_values", "input_values", "input_features")
_State = tuple[torch.Tensor, int, int]


class Gathered:
    """The factors of one sequence of routings, gathered at each site on first use; current as long
    as the tensors that they were made of do not change."""

    def __init__(self, adapters: Iterable[Adapter] = ()) -> None:
        self.of: dict[RowSite, RowFactors | None] = {}
        self.nbytes = 0
        self.asked = False
        """Whether all of their sites were probed."""
        self._made_of = [_state(t) for adapter in adapters for t in adapter.tensors()]

    def current(self) -> bool:
        return all(
            one.data_ptr() == at and _version(one) == version for one, at, version in self._made_of
        )

    def keep(self, site: RowSite, found: RowFactors | None) -> None:
        self.of[site] = found
        if found is not None:
            self.nbytes += found.nbytes
            self._made_of += [_state(tensor) for tensor in found.of]


def _state(tensor: torch.Tensor) -> _State:
    return tensor, tensor.data_ptr(), _version(tensor)


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


class GatheredCache:
    """Gathered factors of the latest batches, limited in bytes: the least recently used go first,
    and what does not fit of a single batch is gathered at each use. ``layout`` knows which sites
    see the rows."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self.limit = limit
        self.layout = RowLayout()
        self._kept: OrderedDict[tuple[Routing, ...], Gathered] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        with self._lock:
            return sum(gathered.nbytes for gathered in self._kept.values())

    def of(self, routings: tuple[Routing, ...]) -> Gathered:
        with self._lock:
            gathered = self._kept.get(routings)
            if gathered is None or not gathered.current():
                adapters = {a: None for routing in routings for a, _ in routing.terms}
                gathered = self._kept[routings] = Gathered(adapters)
            self._kept.move_to_end(routings)
            return gathered

    def keep(self, into: Gathered, site: RowSite, found: RowFactors | None) -> None:
        """Keep what was gathered for a site, if it fits; drop other batches for it."""
        with self._lock:
            more = found.nbytes if found is not None else 0
            for routings, other in list(self._kept.items()):
                if sum(g.nbytes for g in self._kept.values()) + more <= self.limit:
                    break
                if other is not into:
                    del self._kept[routings]
            if into.nbytes + more <= self.limit:
                into.keep(site, found)

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()


@dataclass(eq=False)
class Rows:
    """The routings of one call's rows. ``repeats`` are the numbers of times that each row may be in
    a batch; ``foreign`` are the modules whose inputs are not the batch's rows (vision towers)."""

    routings: tuple[Routing, ...]
    repeats: tuple[int, ...]
    cache: GatheredCache
    foreign: tuple[str, ...] = ()
    _gathered: Gathered = field(init=False)
    _trains: bool = field(init=False)

    def __post_init__(self) -> None:
        for routing in self.routings:
            for adapter, _ in routing.terms:
                if adapter.resident.prompt is not None:
                    raise RoutingError(
                        codes.PROMPT_MIXED.finding(
                            f"{adapter.name!r} has virtual tokens: all rows need the same ones"
                        )
                    )
        self._gathered = self.cache.of(self.routings)
        self._trains = any(a.trainable for r in self.routings for a, _ in r.terms)

    def factors(self, site: RowSite) -> RowFactors | None:
        """The deltas of the rows' adapters at ``site``; ``None`` if none of them acts there."""
        known = self._gathered.of
        if site in known:
            return known[site]
        terms = [routing.terms for routing in self.routings]
        if self._trains or site.module.training:
            return gather(site.name, site.module, site.factors, terms)
        with _for_any_call(next(iter(site.factors))):
            found = gather(site.name, site.module, site.factors, terms)
        self.cache.keep(self._gathered, site, found)
        return found

    def of(self, rows: Sequence[int]) -> Rows:
        """Only these rows, as a batch of their own within the call."""
        return Rows(tuple(self.routings[row] for row in rows), self.repeats, self.cache)

    def replacements(self, factors: Mapping[Adapter, nn.Module]) -> list[nn.Module | None]:
        """For each row the module that replaces the base's, if any."""
        return [next((factors[a] for a, _ in r.terms if a in factors), None) for r in self.routings]

    def enter(
        self, owner: object, base: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> int:
        """How often each row is in a batch that the base (or its ``generate``) runs now. Raises
        :class:`RoutingError` if the batch has another size than there are names.

        Sites that are new in such a batch are probed first.
        """
        inputs = [value for name in _INPUTS if (value := kwargs.get(name)) is not None]
        if not inputs and not args:
            inputs = [value for name in _OTHERS if (value := kwargs.get(name)) is not None]
        tensors = [value for value in (*args[:1], *inputs) if isinstance(value, torch.Tensor)]
        lengths = {tensor.shape[0] if tensor.dim() else 0 for tensor in tensors}
        count = len(self.routings)
        repeat = next((n for n in self.repeats if lengths <= {n * count}), None)
        if repeat is None:
            raise RoutingError(
                codes.ROWS_COUNT.finding(
                    f"{count} names for a batch of {', '.join(map(str, sorted(lengths)))} rows",
                    found=max(lengths),
                    expected=" or ".join(str(n * count) for n in self.repeats),
                )
            )
        if not self._gathered.asked:
            adapters = {a for routing in self.routings for a, _ in routing.terms}
            sites = {name for adapter in adapters for name in adapter.modules}
            self._gathered.asked = self.cache.layout.ask(
                owner, base, sites, args, kwargs, repeat * count
            )
        return repeat

    def check_site(self, name: str, module: nn.Module, x: torch.Tensor, repeat: int) -> None:
        """Raise :class:`RoutingError` unless the rows of ``x``, the module's input, are known to be
        those of the batch, in order, each ``repeat`` times."""
        if name.startswith(self.foreign):
            raise _lost(name, "its input is images or sounds, not the rows of the batch")
        batched = len(module.kernel_size) + 2 if isinstance(module, _ConvNd) else 2
        if x.dim() < batched:
            raise _lost(name, f"its input has the shape {tuple(x.shape)}")
        if x.dim() == 2 and x.is_floating_point() and any(p.isdigit() for p in name.split(".")):
            # the tokens of all rows may be in one dimension, sorted by expert
            raise _lost(name, f"its input has the shape {tuple(x.shape)}, without the rows")
        if x.shape[0] != repeat * len(self.routings):
            raise _lost(name, f"its input has {x.shape[0]} rows")
        if why := self.cache.layout.doubt(name):
            raise _lost(name, why)


@contextmanager
def _for_any_call(adapter: Adapter) -> Generator[None, None, None]:
    """Make tensors that calls in any mode can use, whatever the mode of this one."""
    device = adapter.tensors()[0].device.type
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device, enabled=False):
        yield


def routings_of(
    names: Sequence[str | None], routing: Callable[[str | None], Routing]
) -> tuple[Routing, ...]:
    """The routing of each row's name. Raises :class:`RoutingError` with every unknown name, once
    each."""
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

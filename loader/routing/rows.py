"""A batch whose rows have routings of their own (PEFT's ``adapter_names``).

Row ``i`` of the batch runs with ``terms[i]``. Beam search and several returned sequences repeat
each row in place (``generation/utils.py: _expand_inputs_for_generation``). A site whose input rows
are not the batch's rows is refused: which token belongs to which row is never guessed from a size
that happens to match (see :mod:`.row_probe`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import RoutingError
from ..adapter.adapter import Adapter, Terms
from .batched import RowFactors, RowSite, gather

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
        self.probed = False
        """Whether all of their sites were."""
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


class RowLayout:
    """Which sites of one model see the rows of a batch, as far as that is known."""

    def __init__(self) -> None:
        self.known: dict[str, bool] = {}
        self.tried: dict[frozenset[str], set[str]] = {}
        """The sites that were probed, by the kind of inputs."""
        self.error = ""

    def doubt(self, name: str) -> str | None:
        """Why the module is not known to see the rows; ``None`` if it does."""
        known = self.known.get(name)
        if known:
            return None
        if known is None:
            error = f" ({self.error})" if self.error else ""
            return f"a run of the base alone did not show whether it sees the rows{error}"
        return "its input is not the rows of the batch, whatever its size"


class GatheredCache:
    """Gathered factors of the latest batches, limited in bytes: the least recently used go first,
    and what does not fit of a single batch is gathered at each use. ``layout`` knows which sites
    see the rows."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self.limit = limit
        self.layout = RowLayout()
        self._kept: OrderedDict[tuple[Terms, ...], Gathered] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        with self._lock:
            return sum(gathered.nbytes for gathered in self._kept.values())

    def of(self, rows: tuple[Terms, ...]) -> Gathered:
        with self._lock:
            gathered = self._kept.get(rows)
            if gathered is None or not gathered.current():
                adapters = {adapter: None for terms in rows for adapter, _ in terms}
                gathered = self._kept[rows] = Gathered(adapters)
            self._kept.move_to_end(rows)
            return gathered

    def keep(self, into: Gathered, site: RowSite, found: RowFactors | None) -> None:
        """Keep what was gathered for a site, if it fits; drop other batches for it."""
        with self._lock:
            more = found.nbytes if found is not None else 0
            for rows, other in list(self._kept.items()):
                if sum(g.nbytes for g in self._kept.values()) + more <= self.limit:
                    break
                if other is not into:
                    del self._kept[rows]
            if into.nbytes + more <= self.limit:
                into.keep(site, found)

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()


@dataclass(eq=False)
class Rows:
    """The adapters of each row of one call. ``repeats`` are the numbers of times that each row may
    be in a batch; ``foreign`` are the modules whose inputs are not the batch's rows (vision
    towers)."""

    terms: tuple[Terms, ...]
    repeats: tuple[int, ...]
    cache: GatheredCache
    foreign: tuple[str, ...] = ()
    gathered: Gathered = field(init=False)
    _trains: bool = field(init=False)

    def __post_init__(self) -> None:
        adapters = {adapter: None for terms in self.terms for adapter, _ in terms}
        for adapter in adapters:
            if adapter.resident.prompt is not None:
                message = f"{adapter.name!r} has virtual tokens: all rows need the same ones"
                raise RoutingError(codes.PROMPT_MIXED.finding(message))
        self.gathered = self.cache.of(self.terms)
        self._trains = any(adapter.trainable for adapter in adapters)

    def factors(self, site: RowSite) -> RowFactors | None:
        """The deltas of the rows' adapters at ``site``; ``None`` if none of them acts there."""
        known = self.gathered.of
        if site in known:
            return known[site]
        if self._trains or site.module.training:
            return gather(site.name, site.module, site.factors, self.terms)
        with _for_any_call(next(iter(site.factors))):
            found = gather(site.name, site.module, site.factors, self.terms)
        self.cache.keep(self.gathered, site, found)
        return found

    def of(self, rows: Sequence[int]) -> Rows:
        """Only these rows, as a batch of their own within the call."""
        return Rows(tuple(self.terms[row] for row in rows), self.repeats, self.cache)

    def replacements(self, factors: Mapping[Adapter, nn.Module]) -> list[nn.Module | None]:
        """For each row the module that replaces the base's, if any."""
        return [next((factors[a] for a, _ in t if a in factors), None) for t in self.terms]

    def repeat_of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
        """How often each row is in a batch with these inputs. Raises :class:`RoutingError` if it
        has another size than there are rows."""
        inputs = [value for name in _INPUTS if (value := kwargs.get(name)) is not None]
        if not inputs and not args:
            inputs = [value for name in _OTHERS if (value := kwargs.get(name)) is not None]
        tensors = [value for value in (*args[:1], *inputs) if isinstance(value, torch.Tensor)]
        lengths = {tensor.shape[0] if tensor.dim() else 0 for tensor in tensors}
        count = len(self.terms)
        repeat = next((n for n in self.repeats if lengths <= {n * count}), None)
        if repeat is None:
            raise RoutingError(
                codes.ROWS_COUNT.finding(
                    f"{count} names for a batch of {', '.join(map(str, sorted(lengths)))} rows",
                    found=max(lengths),
                    expected=" or ".join(str(n * count) for n in self.repeats),
                )
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
        if x.shape[0] != repeat * len(self.terms):
            raise _lost(name, f"its input has {x.shape[0]} rows")
        if why := self.cache.layout.doubt(name):
            raise _lost(name, why)


@contextmanager
def _for_any_call(adapter: Adapter) -> Generator[None, None, None]:
    """Make tensors that calls in any mode can use, whatever the mode of this one."""
    device = adapter.tensors()[0].device.type
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device, enabled=False):
        yield


def _lost(name: str, why: str) -> RoutingError:
    return RoutingError(codes.ROWS_LOST.finding(f"{name}: {why}"))

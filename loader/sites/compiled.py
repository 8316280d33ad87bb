"""A compiled base whose adapters change without compiling again.

The base's forward is compiled with a pair of buffers at each adapted module: A (r, in) and B
(out, r) for a declared rank, with B zero where no adapter acts. The factors of the active adapters
are copied into the buffers before a call, outside of the graph. A switch, a hot swap, other weights
or the base alone therefore use the same graph with other values. The base itself is not compiled:
``model.base_model(x)`` runs as before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import RoutingError
from ...manifests.findings.finding import Finding
from ...manifests.language.weights import weight_at
from ..adapter.adapter import Terms
from ..routing.low_rank import LowRank, low_rank_of
from .sites import OutputSite
from .slot import Slot


class CompiledBase:
    """The compiled forward and the buffers that it reads.

    Calls run one at a time, since they share the buffers. Making one raises :class:`RoutingError`
    if an adapter is not low-rank factors at linear modules. A call raises it for adapters whose
    ranks add up to more than ``rank``, or on modules that had no adapter at compilation.
    """

    def __init__(
        self,
        forward: Callable[..., Any],
        sites: Mapping[str, OutputSite],
        others: Iterable[str],
        rank: int,
        options: Mapping[str, Any],
    ) -> None:
        self.rank = rank
        self.options = options
        self.lock = threading.RLock()
        self._sites = dict(sites)
        self._slots: dict[str, Slot] = {}
        self._now: Terms | None = None
        problems = [_not_low_rank(name) for name in others]
        for name, site in sites.items():
            like = _first(site)
            if like is None:
                problems.append(_not_low_rank(name))
            else:
                self._slots[name] = Slot(like, rank)
        if problems:
            raise RoutingError(*problems)
        for name, site in sites.items():
            site.slot = self._slots[name]
        self._run = torch.compile(forward, **options)

    def __call__(
        self,
        terms: Terms,
        sites: Mapping[str, OutputSite],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """The compiled forward with ``terms``; ``sites`` are the current ones of the base."""
        with self.lock:
            self._choose(terms, sites)
            return self._run(*args, **kwargs)

    def forget(self) -> None:
        """Copy the factors again at the next call, because their values change."""
        with self.lock:
            self._now = None

    def _check(self, terms: Terms, sites: Mapping[str, OutputSite]) -> None:
        """Raise :class:`RoutingError` for adapters that the compiled graph cannot run."""
        problems: list[Finding] = []
        for adapter, _ in terms:
            if adapter.resident.prompt is not None:
                problems.append(
                    codes.NOT_COMPILED_FOR.finding(f"{adapter.name!r} has virtual tokens")
                )
            new = [
                n for n in adapter.modules if n not in sites or sites[n] is not self._sites.get(n)
            ]
            if new:
                problems.append(
                    codes.NOT_COMPILED_FOR.finding(
                        f"{adapter.name!r} acts on {new[0]}, which had no adapter when the model "
                        "was compiled",
                        found=f"{len(new)} such modules",
                    )
                )
        if problems:
            raise RoutingError(*problems)

    def _choose(self, terms: Terms, sites: Mapping[str, OutputSite]) -> None:
        if terms == self._now and not any(adapter.trainable for adapter, _ in terms):
            return
        self._check(terms, sites)
        parts = {name: self._parts(name, terms) for name in self._slots}
        self._now = None
        with torch.no_grad():
            for name, slot in self._slots.items():
                slot.fill(parts[name])
        self._now = terms

    def _parts(self, name: str, terms: Terms) -> list[LowRank]:
        site = self._sites[name]
        found: list[LowRank] = []
        for adapter, weight in terms:
            for factors in site.factors.get(adapter, ()):
                part = low_rank_of(factors, site.module, weight_at(weight, name))
                if part is None:
                    raise RoutingError(_not_low_rank(name))
                found.append(part)
        ranks = sum(part.a.shape[0] for part in found)
        if ranks > self.rank:
            raise RoutingError(
                codes.NOT_COMPILED_FOR.finding(
                    f"The rank of {', '.join(repr(adapter.name) for adapter, _ in terms)} "
                    f"at {name} is too large",
                    found=f"rank {ranks}",
                    expected=f"at most {self.rank}, which the model was compiled for",
                )
            )
        return found


def _first(site: OutputSite) -> LowRank | None:
    """The first low-rank factors of the site; ``None`` if any of its factors are not low-rank."""
    found: LowRank | None = None
    for factors in site.factors.values():
        for one in factors:
            part = low_rank_of(one, site.module, 1.0)
            if part is None:
                return None
            found = found or part
    return found


def _not_low_rank(name: str) -> Finding:
    return codes.NOT_COMPILED_FOR.finding(
        f"The adapters at {name} are not low-rank factors at a linear module"
    )

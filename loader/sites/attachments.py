"""The adapters of one wrapper, their sites on the base, and the calls that use them."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

from torch import nn

from ...manifests.findings import loader as codes
from ...manifests.findings import merging as merging_codes
from ...manifests.findings.errors import AttachError, RoutingError
from ..adapter.adapter import Adapter, Terms
from ..adapter.factors import Factors, WeightFactors
from .checkpointing import checkpointable, stop_carrying
from .refill import refill, reorder
from .sites import ModuleSite, OutputSite, RootGuard
from .weight_reads import Read, ReadSite, reads_of_replacement
from .weight_sites import WeightSite


class Attachments:
    """The sites of one wrapper and the adapters in them.

    A site is made for its first adapter and removed with its last. A site that a compiled graph
    reads stays as long as the graph, so that adapters may return to it. An adapter that is removed
    while a call uses it leaves its sites when that call ends. ``lock`` protects all of this, and is
    held briefly: adapters are read and built outside.
    """

    def __init__(self, base: nn.Module, owner: object) -> None:
        self.base = base
        self.owner = owner
        self.lock = threading.RLock()
        self.freed = threading.Condition(self.lock)
        """Notified when a call has ended."""
        self.left: Callable[[Adapter], None] = lambda _: None
        """Called when an adapter's weights have left their sites."""
        self.adapters: dict[str, Adapter] = {}
        self.outputs: dict[str, OutputSite] = {}
        self.replaced: dict[str, ModuleSite] = {}
        self.weights: dict[str, WeightSite] = {}
        self.reads: dict[str, ReadSite] = {}
        self._kinds = (self.outputs, self.replaced, self.weights, self.reads)
        self._calls: dict[threading.Lock, Terms] = {}
        """The running calls, including those of the base alone. A call counts while its lock is
        held; the lock is released with the call, however that ends."""
        self._leaving: set[Adapter] = set()
        """Adapters that were removed while calls used them."""
        self.prompts: set[Adapter] = set()
        self._guard = RootGuard(owner, base)
        self._frozen: list[nn.Parameter] | None = None

    @property
    def trains_adapters(self) -> bool:
        """Whether an adapter is trainable, so that the base's parameters have no gradients."""
        return self._frozen is not None

    @property
    def natural_forward(self) -> Callable[..., Any]:
        """The base's forward without the guard in front of it."""
        return self._guard.inner

    def check_current(self, modules: Mapping[str, nn.Module]) -> None:
        """Raise :class:`AttachError` if a site is on a module that the base no longer has."""
        for site in self._sites():
            if modules.get(site.name) is not site.module:
                raise AttachError(
                    codes.BASE_REBUILT.finding(f"{site.name} was replaced by another module")
                )

    def put(
        self,
        adapter: Adapter,
        outputs: Mapping[str, tuple[Factors, ...]],
        replacements: Mapping[str, nn.Module],
        weights: Mapping[str, tuple[WeightFactors, ...]],
        modules: Mapping[str, nn.Module],
    ) -> None:
        """Put the adapter into its sites; missing sites are made. If this is interrupted,
        :meth:`remove` takes back what was done."""
        self._guard.install()

        def put(sites: dict[str, Any], kind: Callable[..., Any], name: str, factors: Any) -> None:
            site = sites.get(name)
            if site is None:
                site = sites[name] = kind(self.owner, name, modules[name])
            site.factors[adapter] = factors
            site.install()

        def put_reads(name: str, reads: Mapping[str, Read]) -> None:
            known = self.reads[name].factors.get(adapter, {}) if name in self.reads else {}
            put(self.reads, ReadSite, name, {**known, **reads})

        for name, factors in outputs.items():
            put(self.outputs, OutputSite, name, factors)
            for one in factors:
                if reads := getattr(one, "reads", None):
                    put_reads(name, reads)
        for name, replacement in replacements.items():
            put(self.replaced, ModuleSite, name, replacement)
            put_reads(name, reads_of_replacement(replacement))
        for name, changed in weights.items():
            put(self.weights, WeightSite, name, changed)
        if adapter.resident.prompt is not None:
            self.prompts.add(adapter)
        if adapter.trainable:
            self._freeze()

    def remove(self, adapter: Adapter) -> None:
        """Remove the adapter: its name now, its sites when no call uses it any more."""
        if self.adapters.get(adapter.name) is adapter:
            del self.adapters[adapter.name]
        adapter.retired = True
        if not any(other.trainable for other in self.adapters.values()):
            self._unfreeze()
        if self.users(adapter):
            self._leaving.add(adapter)
        else:
            self.vacate(adapter)
        with self.lock:
            self.freed.notify_all()

    def abandon(self) -> None:
        """Remove everything: the wrapper was garbage-collected without a detach."""
        with self.lock:
            if self.adapters:
                for adapter in list(self.adapters.values()):
                    self.remove(adapter)
                stop_carrying(checkpointable(self.base))
            self.forget_compiled()

    def hold(self, call: threading.Lock, terms: Terms) -> None:
        """Record a call that starts, with its lock held. Raises :class:`RoutingError` if one of its
        adapters was deleted, or is merged."""
        with self.lock:
            for adapter, _ in terms:
                if adapter.retired:
                    raise RoutingError(
                        codes.ADAPTER_UNKNOWN.finding(f"{adapter.name!r} was deleted")
                    )
                if adapter.merged:
                    raise RoutingError(
                        merging_codes.ADAPTERS_MERGED.finding(
                            f"{adapter.name!r} is merged into the weights"
                        )
                    )
            self._calls[call] = terms

    def let_go(self, call: threading.Lock) -> None:
        """Forget a call that ended, or did not start."""
        with self.lock:
            for one in [one for one in self._calls if one is call or not one.locked()]:
                del self._calls[one]
            for adapter in [one for one in self._leaving if not self.users(one)]:
                self.vacate(adapter)
                self._leaving.discard(adapter)
            self.freed.notify_all()

    def users(self, adapter: Adapter) -> int:
        """How many running calls use the adapter."""
        return sum(any(one is adapter for one, _ in terms) for terms in self.running())

    def running(self) -> list[Terms]:
        """The adapters and weights of each running call."""
        return [terms for call, terms in self._calls.items() if call.locked()]

    def busy(self) -> list[str]:
        """The names of adapters that running calls use, deleted ones included."""
        attached = {a for site in self._sites() for a in site.factors} | self.prompts
        return sorted({a.name for a in attached if self.users(a)})

    def _sites(self) -> Iterable[OutputSite | ModuleSite | WeightSite | ReadSite]:
        return tuple(site for sites in self._kinds for site in sites.values())

    def as_it_is(self) -> Callable[[], None]:
        """A function that restores the current adapters in their current sites."""
        kinds = [(sites, dict(sites)) for sites in self._kinds]
        inside = [(s, dict(s.factors), getattr(s, "slot", None)) for s in self._sites()]
        adapters, prompts, leaving = dict(self.adapters), set(self.prompts), set(self._leaving)
        frozen, guarded = self._frozen, self._guard.installed

        def put_back() -> None:
            before = {id(site) for site, _, _ in inside}
            for site in self._sites():
                if id(site) not in before:
                    site.remove()
            for sites, old in kinds:
                refill(sites, old)
            for site, factors, slot in inside:
                refill(site.factors, factors)
                if isinstance(site, OutputSite):
                    site.slot = slot
                if not site.installed:
                    site.install()
            reorder(self.adapters, adapters)
            self.prompts, self._leaving = prompts, leaving
            if guarded:
                self._guard.install()
            else:
                self._guard.remove()
            if frozen is None:
                self._unfreeze()
            else:
                self._frozen = frozen
                for parameter in frozen:
                    parameter.requires_grad_(False)

        return put_back

    def factors_of(self, adapter: Adapter) -> dict[str, tuple[Factors, ...]]:
        """The factors that the adapter adds, by module."""
        with self.lock:
            sites = self.outputs.items()
            return {name: site.factors[adapter] for name, site in sites if adapter in site.factors}

    def replacements_of(self, adapter: Adapter) -> dict[str, nn.Module]:
        """The adapter's replacements of modules, by module."""
        with self.lock:
            sites = self.replaced.items()
            return {name: site.factors[adapter] for name, site in sites if adapter in site.factors}

    def weights_of(self, adapter: Adapter) -> dict[str, tuple[WeightFactors, ...]]:
        """What the adapter adds to parameters, by module."""
        with self.lock:
            sites = self.weights.items()
            return {name: site.factors[adapter] for name, site in sites if adapter in site.factors}

    def copy_of(
        self,
        other: Attachments,
        adapters: Mapping[Adapter, Adapter],
        modules: Mapping[str, nn.Module],
        memo: dict[int, Any],
    ) -> None:
        """Take over what ``other`` has on the base that this one's base is a copy of. ``adapters``
        are the copies of its adapters, and ``memo`` is ``copy.deepcopy``'s."""
        if other._frozen is not None:
            self._frozen = [memo[id(parameter)] for parameter in other._frozen]
        for adapter, mine in adapters.items():
            if adapter.weights is not None:
                outputs = copy.deepcopy(other.factors_of(adapter), memo)
                replacements = copy.deepcopy(other.replacements_of(adapter), memo)
                weights = copy.deepcopy(other.weights_of(adapter), memo)
                self.put(mine, outputs, replacements, weights, modules)
            self.adapters[mine.name] = mine

    def vacate(self, adapter: Adapter) -> None:
        """Remove the adapter from its sites, and the sites that are then empty."""
        self.left(adapter)
        for site in self._sites():
            site.factors.pop(adapter, None)
        self.prompts.discard(adapter)
        self._sweep()

    def forget_compiled(self, still: Container[OutputSite] = ()) -> None:
        """Release the sites of compiled graphs, except those that a graph ``still`` reads."""
        for site in self.outputs.values():
            if site not in still:
                site.slot = None
        self._sweep()

    def _sweep(self) -> None:
        """Remove sites that no adapter and no compiled graph uses."""
        for sites in self._kinds:
            for name, site in list(sites.items()):
                if not site.factors and getattr(site, "slot", None) is None:
                    site.remove()
                    del sites[name]
        if not (self.outputs or self.replaced or self.weights or self.prompts):
            self._guard.remove()

    def _freeze(self) -> None:
        """Do not train the base's own parameters while adapters are trained."""
        if self._frozen is None:
            self._frozen = [p for p in self.base.parameters() if p.requires_grad]
            for parameter in self._frozen:
                parameter.requires_grad_(False)

    def _unfreeze(self) -> None:
        frozen, self._frozen = self._frozen, None
        for parameter in frozen or ():
            parameter.requires_grad_(True)

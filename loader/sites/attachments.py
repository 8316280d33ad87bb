"""What sits on a base for one wrapper: adapters, their sites, and who is using them."""

from __future__ import annotations

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

    Sites appear with their first adapter and go with their last; those that a compiled graph reads
    stay until it is gone, so that an adapter may come back to them. An adapter that is removed
    while a call runs on it leaves its sites when that call ends. ``lock`` guards all of it, for
    moments only: reading and building an adapter happens outside.
    """

    def __init__(self, base: nn.Module, owner: object) -> None:
        self.base = base
        self.owner = owner
        self.lock = threading.RLock()
        self.freed = threading.Condition(self.lock)
        """Told when a call has ended."""
        self.left: Callable[[Adapter], None] = lambda _: None
        """Asked when an adapter's weights have left their sites."""
        self.adapters: dict[str, Adapter] = {}
        self.outputs: dict[str, OutputSite] = {}
        self.wholes: dict[str, ModuleSite] = {}
        self.weights: dict[str, WeightSite] = {}
        self.reads: dict[str, ReadSite] = {}
        self._calls: dict[threading.Lock, Terms] = {}
        """The calls that are on their way, those of the base alone included: each as long as it has
        its lock, which ends with the call whatever interrupts it."""
        self._leaving: set[Adapter] = set()
        """Adapters that were removed while calls ran on them."""
        self.prompts: set[Adapter] = set()
        self._guard = RootGuard(owner, base)
        self._frozen: list[nn.Parameter] | None = None

    @property
    def natural_forward(self) -> Callable[..., Any]:
        """The base's forward as it is without the guard in front of it."""
        return self._guard.inner

    def check_current(self, modules: Mapping[str, nn.Module]) -> None:
        """Raise :class:`AttachError` if sites are left on modules the base has no more."""
        for site in self._sites():
            if modules.get(site.name) is not site.module:
                raise AttachError(codes.BASE_REBUILT.finding(f"{site.name} is another module now"))

    def put(
        self,
        adapter: Adapter,
        outputs: Mapping[str, tuple[Factors, ...]],
        replacements: Mapping[str, nn.Module],
        weights: Mapping[str, tuple[WeightFactors, ...]],
        modules: Mapping[str, nn.Module],
    ) -> None:
        """Put the adapter into its sites, made where there are none. May leave off in the middle;
        :meth:`remove` takes back whatever was done."""
        self._guard.install()
        for name, factors in outputs.items():
            output = self.outputs.get(name)
            if output is None:
                output = self.outputs[name] = OutputSite(self.owner, name, modules[name])
            output.factors[adapter] = factors
            output.install()
            if reads := {path: read for one in factors for path, read in _reads_of(one)}:
                self._let_read(adapter, modules[name], name, reads)
        for name, replacement in replacements.items():
            whole = self.wholes.get(name)
            if whole is None:
                whole = self.wholes[name] = ModuleSite(self.owner, name, modules[name])
            whole.factors[adapter] = replacement
            whole.install()
            self._let_read(adapter, modules[name], name, reads_of_replacement(replacement))
        for name, changed in weights.items():
            weight = self.weights.get(name)
            if weight is None:
                weight = self.weights[name] = WeightSite(self.owner, name, modules[name])
            weight.factors[adapter] = changed
            weight.install()
        if adapter.resident.prompt is not None:
            self.prompts.add(adapter)
        if adapter.trainable:
            self._freeze()

    def _let_read(
        self, adapter: Adapter, module: nn.Module, name: str, reads: Mapping[str, Read]
    ) -> None:
        """Let who reads the module's parameters elsewhere find the adapter's."""
        site = self.reads.get(name)
        if site is None:
            site = self.reads[name] = ReadSite(self.owner, name, module)
        site.factors[adapter] = {**site.factors.get(adapter, {}), **reads}
        site.install()

    def remove(self, adapter: Adapter) -> None:
        """Take the adapter out: of the names now, of the sites once no call runs on it."""
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
        """The wrapper is gone, without a detach: nobody can enter or detach any more."""
        with self.lock:
            if self.adapters:
                for adapter in list(self.adapters.values()):
                    self.remove(adapter)
                stop_carrying(checkpointable(self.base))
            self.forget_compiled()

    def hold(self, call: threading.Lock, terms: Terms) -> None:
        """A call, which has its lock, begins; raises :class:`RoutingError` if one of its adapters
        is gone, or is in the weights."""
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
        """The call has ended, or did not begin."""
        with self.lock:
            for one in [one for one in self._calls if one is call or not one.locked()]:
                del self._calls[one]
            for adapter in [one for one in self._leaving if not self.users(one)]:
                self.vacate(adapter)
                self._leaving.discard(adapter)
            self.freed.notify_all()

    def users(self, adapter: Adapter) -> int:
        """How many calls are running on the adapter."""
        return sum(any(one is adapter for one, _ in terms) for terms in self.running())

    def running(self) -> list[Terms]:
        """What runs in each call that is on its way now."""
        return [terms for call, terms in self._calls.items() if call.locked()]

    def busy(self) -> list[str]:
        """Adapters that calls are running on, deleted ones included."""
        attached = {a for site in self._sites() for a in site.factors} | self.prompts
        return sorted({a.name for a in attached if self.users(a)})

    def _sites(self) -> Iterable[OutputSite | ModuleSite | WeightSite | ReadSite]:
        kinds = (self.outputs, self.wholes, self.weights, self.reads)
        return tuple(site for sites in kinds for site in sites.values())

    def as_it_is(self) -> Callable[[], None]:
        """How to have the same adapters in the same sites again."""
        known = (self.outputs, self.wholes, self.weights, self.reads)
        kinds = [(sites, dict(sites)) for sites in known]
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
        """What the adapter adds, by module."""
        with self.lock:
            sites = self.outputs.items()
            return {name: site.factors[adapter] for name, site in sites if adapter in site.factors}

    def replacements_of(self, adapter: Adapter) -> dict[str, nn.Module]:
        """What the adapter puts in place of whole modules, by module."""
        with self.lock:
            sites = self.wholes.items()
            return {name: site.factors[adapter] for name, site in sites if adapter in site.factors}

    def vacate(self, adapter: Adapter) -> None:
        """Take it out of its sites; those that are empty then go."""
        self.left(adapter)
        for site in self._sites():
            site.factors.pop(adapter, None)
        self.prompts.discard(adapter)
        self._sweep()

    def forget_compiled(self, still: Container[OutputSite] = ()) -> None:
        """Of the sites that a compiled graph read, only ``still`` are read by one now."""
        for site in self.outputs.values():
            if site not in still:
                site.slot = None
        self._sweep()

    def _sweep(self) -> None:
        """Sites that neither an adapter nor a compiled graph is in go."""
        for sites in (self.outputs, self.wholes, self.weights, self.reads):
            for name, site in list(sites.items()):
                if not site.factors and getattr(site, "slot", None) is None:
                    site.remove()
                    del sites[name]
        if not (self.outputs or self.wholes or self.weights or self.prompts):
            self._guard.remove()

    def _freeze(self) -> None:
        """While there is something to train, the base's own parameters are not it."""
        if self._frozen is None:
            self._frozen = [p for p in self.base.parameters() if p.requires_grad]
            for parameter in self._frozen:
                parameter.requires_grad_(False)

    def _unfreeze(self) -> None:
        frozen, self._frozen = self._frozen, None
        for parameter in frozen or ():
            parameter.requires_grad_(True)


def _reads_of(factors: Factors) -> Iterable[tuple[str, Read]]:
    """What factors make of their module's parameters where these are read elsewhere."""
    reads: Mapping[str, Read] = getattr(factors, "reads", {})
    return reads.items()

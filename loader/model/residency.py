"""Which adapters' weights are on the model's device, within a budget.

An adapter is not loaded before its first use (``lazy``), nor while others need its room. It stays
the same object, so routings, caches and compositions that hold it stay valid. From a GPU its
weights move to the CPU; on the CPU they are dropped, and read again from the verified files.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from threading import Lock

import torch

from ...manifests.findings import changing as codes
from ...manifests.findings.errors import AttachError, RoutingError
from ..adapter.adapter import Adapter, Built
from ..adapter.memory import can_leave, device_of, move_back, put_off
from ..base.live_base import LiveBase
from ..sites.attachments import Attachments, Terms
from .parameter_tree import ParameterTree


class Residency:
    """The loaded adapters, least recently used first.

    ``budget`` is in bytes (``None``: no limit). Adapters that are in use, trainable, merged, or
    that could not be loaded again are never unloaded. The attachments' lock guards everything;
    files are read outside of it.
    """

    def __init__(self, attachments: Attachments, tree: ParameterTree, live: LiveBase) -> None:
        self.budget: int | None = None
        self._attachments = attachments
        self._tree = tree
        self._live = live
        self._here: OrderedDict[Adapter, int] = OrderedDict()
        attachments.left = self._left

    # -- room ------------------------------------------------------------------------------

    def used(self) -> int:
        """Bytes of the weights that are loaded or being loaded, if there is a budget."""
        return sum(self._here.values())

    def check(self, arriving: Iterable[Adapter]) -> None:
        """Raise :class:`AttachError` for adapters that are larger than the budget."""
        if self.budget is None:
            return
        fixed = sum(a.nbytes for a in arriving if a.trainable)
        findings = [
            codes.RESIDENCY_TOO_SMALL.finding(
                f"{adapter.name!r} is larger than the residency budget",
                found=f"{adapter.nbytes} bytes",
                expected=f"at most {self.budget} bytes",
            )
            for adapter in arriving
            if adapter.nbytes > self.budget or (adapter.trainable and fixed > self.budget)
        ]
        if findings:
            raise AttachError(*findings)

    def arrived(self, adapters: Iterable[Adapter]) -> None:
        """Count newly attached adapters; the least recently used make room for them."""
        if self.budget is None:
            self._here.clear()
            return
        for adapter in adapters:
            if adapter.loaded:
                self._here[adapter] = adapter.nbytes
        self._free(self.used() - self.budget, list(self._here))

    def _free(self, over: int, candidates: Iterable[Adapter]) -> None:
        """Unload idle adapters until ``over`` bytes are free."""
        for adapter in candidates:
            if over > 0 and self._idle(adapter):
                over -= self._here[adapter]
                self._send_away(adapter)

    def claim(self, call: Lock, terms: Terms, *, nested: bool) -> bool:
        """Hold a call's adapters and reserve room for those not loaded; under the lock.

        ``False`` if it had to wait for other calls: the active adapters may have changed. A call
        inside a call (``nested``) cannot wait for its own end, so it raises :class:`RoutingError`,
        as do adapters that do not fit the budget together.
        """
        if self.budget is None:
            self._attachments.hold(call, terms)
            return True
        mine = {adapter: adapter.nbytes for adapter, _ in terms}
        for adapter in mine:
            if adapter in self._here:
                self._here.move_to_end(adapter)
        need = sum(size for adapter, size in mine.items() if adapter not in self._here)
        if need and not self._make_room(mine, need):
            if nested:
                names = ", ".join(repr(a.name) for a in mine if a not in self._here)
                raise RoutingError(
                    codes.RESIDENCY_BUSY.finding(f"No room for {names} inside this call")
                )
            self._attachments.freed.wait(1.0)  # an interrupted call may not have notified
            return False
        self._attachments.hold(call, terms)
        self._here.update({a: size for a, size in mine.items() if a not in self._here})
        return True

    def _make_room(self, mine: Mapping[Adapter, int], need: int) -> bool:
        assert self.budget is not None
        others = {a: size for a, size in self._here.items() if a not in mine}
        fixed = {a: size for a, size in others.items() if not can_leave(a)}
        together = sum(mine.values()) + sum(fixed.values())
        if together > self.budget:
            names = ", ".join(repr(a.name) for a in (*mine, *fixed))
            raise RoutingError(
                codes.RESIDENCY_TOO_SMALL.finding(
                    f"{names} together exceed the residency budget",
                    found=f"{together} bytes",
                    expected=f"at most {self.budget} bytes",
                )
            )
        over = self.used() + need - self.budget
        idle = [a for a in others if self._idle(a)]
        if over > sum(self._here[a] for a in idle):
            return False
        self._free(over, idle)
        return True

    def _idle(self, adapter: Adapter) -> bool:
        return adapter.loaded and not self._attachments.users(adapter) and can_leave(adapter)

    def snapshot(self) -> Callable[[], None]:
        """A function that restores the budget and the order of the adapters."""
        budget, here = self.budget, dict(self._here)

        def restore() -> None:
            self.budget, self._here = budget, OrderedDict(here)

        return restore

    def copy_of(self, other: Residency, adapters: Mapping[Adapter, Adapter]) -> None:
        """Take over the budget of ``other`` and the order of its adapters, here ``adapters``."""
        self.budget = other.budget
        here = ((adapters.get(adapter), size) for adapter, size in other._here.items())
        self._here = OrderedDict((mine, size) for mine, size in here if mine is not None)

    def _left(self, adapter: Adapter) -> None:
        self._here.pop(adapter, None)

    # -- load and unload -------------------------------------------------------------------

    def bring(self, terms: Terms) -> bool:
        """Load a call's adapters, which are held; whether any was not loaded. Raises what reading
        and attaching raise."""
        away = [adapter for adapter, _ in terms if not adapter.loaded]
        try:
            for adapter in away:
                with adapter.loading:
                    if not adapter.loaded:
                        self._load(adapter)
        except BaseException:
            with self._attachments.lock:
                for adapter in away:
                    if not adapter.loaded and self._attachments.users(adapter) == 1:
                        self._here.pop(adapter, None)
            raise
        return bool(away)

    def _load(self, adapter: Adapter) -> None:
        with torch.inference_mode(False):
            if adapter.away:
                move_back(adapter.away)
                built = None
            else:
                assert adapter.reload is not None
                built = adapter.reload(self._live)
        with self._attachments.lock:
            try:
                if built is not None:
                    self._put(adapter, built)
                adapter.away, adapter.loaded = [], True
            except BaseException:
                if built is not None:
                    self._drop(adapter)
                raise
            if self.budget is not None:
                self._here[adapter] = adapter.nbytes

    def _put(self, adapter: Adapter, built: Built) -> None:
        adapter.take(built.adapter)
        modules = self._live.modules.by_name
        self._attachments.put(adapter, built.outputs, built.replacements, built.weights, modules)
        if not adapter.used:
            adapter.unfired = built.adapter.unfired
        if not adapter.retired:
            self._tree.put(adapter)

    def _send_away(self, adapter: Adapter) -> None:
        if device_of(adapter).type != "cpu":
            away = [(tensor, tensor.device) for tensor in adapter.resident.own_tensors()]
            try:
                for tensor, _ in away:
                    tensor.data = tensor.data.cpu()
                adapter.away, adapter.loaded = away, False
                self._left(adapter)
            except BaseException:
                move_back(away)
                adapter.away, adapter.loaded = [], True
                self._here[adapter] = adapter.nbytes
                raise
            return
        try:
            self._drop(adapter)
        except BaseException:  # a part of it is gone, and can be read again
            self._drop(adapter)
            raise

    def _drop(self, adapter: Adapter) -> None:
        """Drop its weights, or the rest of them."""
        self._left(adapter)
        adapter.loaded = False
        self._tree.take(adapter)
        self._attachments.vacate(adapter)
        put_off(adapter)

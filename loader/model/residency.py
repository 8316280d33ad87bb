"""Which adapters' weights are on the model's device, within a budget, and how the others come back.

An adapter is *away* before its first use (``lazy``) and while others have its room. It keeps its
identity: routings, caches and compositions that hold it are right when it is back. From a GPU its
weights go to the CPU; on the CPU they are dropped, and read again from the verified files.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
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
    """The adapters that are here, least recently used first.

    ``budget`` is in bytes (``None``: everything stays). Never sent away: one that a call runs on,
    one that is trainable or merged, and one that could not be brought back. All of it is guarded
    by the attachments' lock; files are read outside of it.
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
        """Bytes of the weights that are here or on their way, where there is a budget."""
        return sum(self._here.values())

    def check(self, arriving: Iterable[Adapter]) -> None:
        """Raise :class:`AttachError` for adapters that are larger than the budget."""
        if self.budget is None:
            return
        fixed = sum(a.nbytes for a in arriving if a.trainable)
        findings = [
            codes.RESIDENCY_TOO_SMALL.finding(
                f"{adapter.name!r} alone is larger than the residency budget",
                found=f"{adapter.nbytes} bytes",
                expected=f"at most {self.budget} bytes",
            )
            for adapter in arriving
            if adapter.nbytes > self.budget or (adapter.trainable and fixed > self.budget)
        ]
        if findings:
            raise AttachError(*findings)

    def arrived(self, adapters: Iterable[Adapter]) -> None:
        """These are attached now; who was here longest unused makes room for them."""
        if self.budget is None:
            self._here.clear()
            return
        for adapter in adapters:
            if adapter.loaded:
                self._here[adapter] = adapter.nbytes
        self.shrink()

    def shrink(self) -> None:
        """Send away what is idle until the rest fits."""
        over = 0 if self.budget is None else self.used() - self.budget
        for adapter in list(self._here):
            if over > 0 and self._idle(adapter):
                over -= self._here[adapter]
                self._send_away(adapter)

    def claim(self, call: Lock, terms: Terms, *, nested: bool) -> bool:
        """Hold a call's adapters, with room for those that are away; under the lock.

        False where other calls had all the room: they were waited for, and what is active may be
        another by now. A call inside a call (``nested``) cannot wait for its own end: it raises
        :class:`RoutingError`, as do adapters that do not fit the budget together.
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
                    codes.RESIDENCY_BUSY.finding(f"there is no room for {names} inside this call")
                )
            self._attachments.freed.wait(1.0)  # one that was interrupted may not have told
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
                    f"{names} do not fit the residency budget together",
                    found=f"{together} bytes",
                    expected=f"at most {self.budget} bytes",
                )
            )
        over = self.used() + need - self.budget
        idle = [a for a in others if self._idle(a)]
        if over > sum(self._here[a] for a in idle):
            return False
        for adapter in idle:
            if over > 0:
                over -= self._here[adapter]
                self._send_away(adapter)
        return True

    def _idle(self, adapter: Adapter) -> bool:
        return adapter.loaded and not self._attachments.users(adapter) and can_leave(adapter)

    def as_it_is(self) -> tuple[int | None, dict[Adapter, int]]:
        """The budget and who is here, as :meth:`be` takes them."""
        return self.budget, dict(self._here)

    def be(self, budget: int | None, here: dict[Adapter, int]) -> None:
        """Have this budget, and these here, in this order."""
        self.budget, self._here = budget, OrderedDict(here)

    def _left(self, adapter: Adapter) -> None:
        self._here.pop(adapter, None)

    # -- coming and going ------------------------------------------------------------------

    def bring(self, terms: Terms) -> bool:
        """Load what is away of a call's adapters, which are held; whether anything was. Raises
        what reading and attaching raise."""
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
                built = adapter.reload()
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
        new = built.adapter
        adapter.take(built.adapter)
        modules = self._live.modules.by_name
        self._attachments.put(adapter, built.outputs, built.replacements, built.weights, modules)
        if not adapter.used:
            adapter.unfired = new.unfired
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
        except BaseException:  # half of it is gone, and can be read again
            self._drop(adapter)
            raise

    def _drop(self, adapter: Adapter) -> None:
        """Let go of its weights, of whatever is left of them."""
        self._left(adapter)
        adapter.loaded = False
        self._tree.take(adapter)
        self._attachments.vacate(adapter)
        put_off(adapter)

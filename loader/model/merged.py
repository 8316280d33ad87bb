"""Merging and unmerging on an adapted model, under PEFT's names."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from ...manifests.findings import merging as codes
from ...manifests.findings.errors import AttachError, RoutingError
from ...manifests.findings.finding import Where
from ..base.checkpoint_weights import Originals
from ..merge.merge import Merge, Terms
from ..routing.routing import BASE, Routing
from ..routing.selection import Selection, check_rules, conflicts
from .all_or_nothing import AllOrNothing
from .calls import Calling


@contextmanager
def _plain_tensors() -> Generator[None]:
    """Weights that are made here record nothing, and may be trained later."""
    with torch.inference_mode(False), torch.no_grad():
        yield


class Mergeable(Calling):
    """The part of an adapted model that folds adapters into the base's weights."""

    _default_before_merge: tuple[Routing, Routing] | None

    def __init__(self, base: nn.Module) -> None:
        super().__init__(base)
        self.__dict__["_default_before_merge"] = None

    @abstractmethod
    def detach(self) -> nn.Module: ...

    def merge_adapter(
        self,
        adapter_names: Selection = None,
        safe_merge: bool = False,
        keep: Literal["memory", "reread"] = "memory",
    ) -> None:
        """Fold adapters into the base's weights: those that are active, or an adapter, a
        composition, a list (each at weight 1), or a mapping of weights.

        Computed in float32 and rounded once to each weight's dtype; biases and whole modules of
        the adapters go along, and a head that is tied to a changed embedding gets a weight of its
        own. Until :meth:`unmerge_adapter` they cannot be chosen (they are in every answer), and
        ``base_model(x)`` is not the base's own answer. What is merged already stays so.

        ``safe_merge`` refuses NaN and infinity. ``keep="memory"`` keeps the old weights;
        ``"reread"`` reads them from the base's verified files when it unmerges. Raises
        :class:`AttachError` (an offloaded or quantised weight, a method that is no delta of a
        weight, ..) or :class:`RoutingError`; the model is then as it was.
        """
        _check_keep(keep)
        with _plain_tensors(), self.changing():
            terms = self._terms_to_merge(adapter_names)
            staying = self._rest_of_default(terms)
            # what is merged beside nothing is computed while calls go on
            merge = self._prepared(terms, safe_merge, keep) if self._merge is None else None
            with self._attachments.lock, AllOrNothing(self) as change:
                self._merge_now(change, merge, terms, staying, safe_merge, keep)

    def unmerge_adapter(self) -> None:
        """Give the base its own weights back, bit for bit. Does nothing where nothing is merged.

        What was active before the merge is active again, unless another choice was made since.
        Raises :class:`AttachError` where weights were to be read again and are not there any more;
        everything then stays merged.
        """
        with (
            _plain_tensors(),
            self.changing(),
            self._attachments.lock,
            AllOrNothing(self) as change,
        ):
            if self._merge is not None:
                self._check_idle()
                self._unmerge(change, self._merge)

    def merge_and_unload(
        self, adapter_names: Selection = None, safe_merge: bool = False
    ) -> nn.Module:
        """The base with the adapters in its weights for good, and no trace of the wrapper, which
        has ended. Merges as :meth:`merge_adapter`, beside what is merged already; all other
        adapters are dropped."""
        with (
            _plain_tensors(),
            self.changing(),
            self._attachments.lock,
            AllOrNothing(self) as change,
        ):
            self._check_idle()
            if adapter_names is not None or self._merge is None or self._active_terms():
                terms = self._terms_to_merge(adapter_names)
                merge = self._prepared(terms, safe_merge, "memory") if self._merge is None else None
                self._merge_now(change, merge, terms, (), safe_merge, "memory")
            if self._merge is not None:
                self._merge.forget()
            self.__dict__.update(_merge=None, _default_before_merge=None)
            return self.detach()

    # -- what merging needs ----------------------------------------------------------------

    def _terms_to_merge(self, names: Selection) -> Terms:
        terms = self._active_terms() if names is None else self.routing(names).terms
        if not terms:
            raise RoutingError(codes.MERGE_NOTHING.finding("no adapter is active or named"))
        return terms

    def _active_terms(self) -> Terms:
        return () if self._disabled else (self._chosen() or self._default).terms

    def _merge_now(
        self,
        change: AllOrNothing,
        merge: Merge | None,
        terms: Terms,
        staying: Terms,
        safe: bool,
        keep: str,
    ) -> None:
        """Merge ``terms`` (as ``merge`` has them, where nothing is merged yet), beside which those
        ``staying`` are active from then on."""
        self._check_idle()
        previous = self._merge
        if merge is None or previous is not None:
            before: Terms = ()
            if previous is not None:
                before = previous.terms
                change.keep(previous.as_it_is())
                previous.take_out(previous.restored())
            merge = self._prepared((*before, *terms), safe, keep)
        self._check_beside(merge, staying)
        change.keep(merge.as_it_is())
        merge.install()
        self._began(merge, terms)

    def _unmerge(self, change: AllOrNothing, merge: Merge) -> None:
        change.keep(merge.as_it_is())
        merge.take_out(merge.restored())
        self._ended()

    def _prepared(self, terms: Terms, safe: bool, keep: str) -> Merge:
        originals = self._originals() if keep == "reread" else None
        with self.present(adapter for adapter, _ in terms if not adapter.merged):
            return Merge.prepared(
                self._base, self._live.modules, terms, safe=safe, originals=originals
            )

    def _originals(self) -> Originals:
        folder = self._folder_of_base()
        if folder is None:
            raise AttachError(
                codes.MERGE_REREAD.finding("the base was not loaded from files that are known here")
            )
        return Originals(self._base, folder, Where())

    @abstractmethod
    def _folder_of_base(self) -> Path | None: ...

    def _began(self, merge: Merge, terms: Terms) -> None:
        """The adapters of ``terms`` are in the weights now, and out of the routing."""
        before = self._default
        rest = self._rest_of_default(terms)
        if len(rest) != len(before.terms):
            if self._default_before_merge is None or self._default_before_merge[1] is not before:
                self.__dict__["_default_before_merge"] = (before, before)
            self._shrink_default(rest)
        self.__dict__.update(_merge=merge, _routings={})

    def _rest_of_default(self, merged: Terms) -> Terms:
        gone = {adapter for adapter, _ in merged}
        return tuple(term for term in self._default.terms if term[0] not in gone)

    def _check_beside(self, merge: Merge, staying: Terms) -> None:
        """Raise if what stays active may not (:class:`PolicyError`) or cannot be active beside what
        is merged."""
        if problems := conflicts(staying, merge):
            raise RoutingError(*problems)
        check_rules(self._rules, (*merge.terms, *staying))

    def _shrink_default(self, rest: Terms) -> None:
        """Only these are left of the default; nobody chose another one."""
        after = Routing(rest) if rest else BASE
        first = self._default_before_merge
        if first is not None and first[1] is self._default:
            self.__dict__["_default_before_merge"] = (first[0], after)
        self.__dict__["_default"] = after

    def _ended(self) -> None:
        if self._default_before_merge is not None:
            before, after = self._default_before_merge
            if self._default is after:
                left = tuple(term for term in before.terms if not term[0].retired)
                whole = len(left) == len(before.terms)
                self.__dict__["_default"] = before if whole else Routing(left) if left else BASE
        self.__dict__.update(_merge=None, _default_before_merge=None, _routings={})

    def _check_idle(self) -> None:
        if running := len(self._attachments.running()):
            raise RoutingError(
                codes.MERGE_BUSY.finding("calls are running through this model", found=running)
            )


def _check_keep(keep: str) -> None:
    if keep not in ("memory", "reread"):
        raise RoutingError(
            codes.MERGE_REREAD.finding(
                f"keep={keep!r} is no way to keep weights",
                found=keep,
                expected="memory or reread",
                hint='pass keep="memory" or keep="reread"',
            )
        )

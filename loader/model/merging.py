"""Merge adapters into the weights of a live base, and unmerge them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from ...manifests.findings import loader as loader_codes
from ...manifests.findings import merging as codes
from ...manifests.findings.errors import AttachError, RoutingError
from ...manifests.findings.finding import Where
from ..base.checkpoint_weights import Originals
from ..merge.merge import Merge, Terms
from ..routing.selection import Selection, check_rules, conflicts
from ..sites.checkpointing import checkpointable, stop_carrying
from .adapter_set import AdapterSet
from .choice import Choice


@contextmanager
def _plain_tensors() -> Generator[None]:
    """New weights record no gradients, and can be trained later."""
    with torch.inference_mode(False), torch.no_grad():
        yield


class Merging:
    """Merges adapters into the base's weights; the others stay active beside them."""

    def __init__(self, adapters: AdapterSet, choice: Choice) -> None:
        self._set = adapters
        self._choice = choice

    def merge(self, names: Selection, *, safe: bool, keep: str) -> None:
        """Merge the active or the named adapters; all or nothing."""
        if keep not in ("memory", "reread"):
            raise RoutingError(
                codes.MERGE_REREAD.finding(
                    f"Invalid keep={keep!r}",
                    found=keep,
                    expected="memory or reread",
                    hint='Pass keep="memory" or keep="reread".',
                )
            )
        with _plain_tensors(), self._set.changing():
            terms = self._terms_to_merge(names)
            staying = self._set.state.beside(terms)
            # calls continue while a first merge is computed
            first = self._set.state.merge is None
            merge = self._prepared(terms, safe, keep) if first else None
            with self._set.change() as change:
                self._merge_now(change, merge, terms, staying, safe, keep)

    def unmerge(self) -> None:
        """Restore the base's own weights, bit for bit, if adapters are merged."""
        with _plain_tensors(), self._set.change() as change:
            self._unmerge(change)

    def unload(self, names: Selection, *, safe: bool) -> nn.Module:
        """The base with the adapters merged for good; the others are dropped."""
        with _plain_tensors(), self._set.change() as change:
            self._check_idle()
            merged = self._set.state.merge
            if names is not None or merged is None or self._choice.active():
                terms = self._terms_to_merge(names)
                merge = self._prepared(terms, safe, "memory") if merged is None else None
                self._merge_now(change, merge, terms, (), safe, "memory")
            if (merged := self._set.state.merge) is not None:
                merged.forget()
            self._set.say(merge=None, before_merge=None)
            return self.detach()

    def detach(self) -> nn.Module:
        """The base as it was before the first adapter."""
        base = self._set.live.module
        with self._set.change() as change:
            if busy := self._set.attachments.busy():
                raise RoutingError(
                    loader_codes.ADAPTER_IN_USE.finding(f"Calls are running on {', '.join(busy)}")
                )
            self._unmerge(change)
            self._set.clear()
            stop_carrying(checkpointable(base))
            return base

    # -- the steps of a merge --------------------------------------------------------------

    def _terms_to_merge(self, names: Selection) -> Terms:
        terms = self._choice.active() if names is None else self._choice.routing(names).terms
        if not terms:
            raise RoutingError(codes.MERGE_NOTHING.finding("No adapter is active or named"))
        return terms

    def _merge_now(
        self,
        change: ExitStack,
        merge: Merge | None,
        terms: Terms,
        staying: Terms,
        safe: bool,
        keep: str,
    ) -> None:
        """Merge ``terms`` (``merge`` is computed if nothing was merged before), if the adapters
        ``staying`` can be active beside them."""
        self._check_idle()
        previous = self._set.state.merge
        if merge is None or previous is not None:
            before: Terms = ()
            if previous is not None:
                before = previous.terms
                change.callback(previous.as_it_is())
                previous.take_out()
            merge = self._prepared((*before, *terms), safe, keep)
        if problems := conflicts(staying, merge):
            raise RoutingError(*problems)
        check_rules(self._set.state.rules, (*merge.terms, *staying))
        change.callback(merge.as_it_is())
        merge.install()
        self._set.state = self._set.state.merged(merge, terms)

    def _unmerge(self, change: ExitStack) -> None:
        merge = self._set.state.merge
        if merge is None:
            return
        self._check_idle()
        change.callback(merge.as_it_is())
        merge.take_out()
        self._set.state = self._set.state.unmerged()

    def _prepared(self, terms: Terms, safe: bool, keep: str) -> Merge:
        originals = self._originals() if keep == "reread" else None
        with self._choice.present(adapter for adapter, _ in terms if not adapter.merged):
            live = self._set.live
            return Merge.prepared(live.module, live.modules, terms, safe=safe, originals=originals)

    def _originals(self) -> Originals:
        deployment = self._set.state.deployment
        if deployment is None or deployment.base_folder is None:
            raise AttachError(
                codes.MERGE_REREAD.finding("The base was not loaded from known files")
            )
        return Originals(self._set.live.module, deployment.base_folder, Where())

    def _check_idle(self) -> None:
        if running := len(self._set.attachments.running()):
            raise RoutingError(
                codes.MERGE_BUSY.finding("Calls of this model are running", found=running)
            )

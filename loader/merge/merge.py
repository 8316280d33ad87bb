"""Adapters merged into a live base's weights, and taken out again bit for bit.

New weights are computed before anything is touched; then the data of every tensor is exchanged,
which is quick. Unmerging puts the old data back: never a subtraction, which drifts.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...manifests.findings import merging as codes
from ...manifests.findings.errors import AdapterdockError, AttachError
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.weights import Weight
from ..adapter.adapter import Terms
from ..base.checkpoint_weights import Originals
from ..base.modules import ModuleMap
from .fold import PLAIN, Fold, folds, is_finite
from .untie import Untied, ties_of, untie, untied_groups

Restore = Callable[[], Tensor]
"""Gives a tensor of the base as it was before the merge."""


@dataclass(frozen=True)
class _Kept:
    """A tensor that is kept in memory."""

    tensor: Tensor

    def __call__(self) -> Tensor:
        return self.tensor


def _from_files(originals: Originals, name: str, tensor: Tensor) -> Restore:
    """Reads a tensor from the base's files, and compares its digest with the ``tensor`` of now."""
    place = originals.place(name)
    if place is None:
        raise AttachError(codes.MERGE_REREAD.finding(f"{name} is not in the base's files"))
    dtype, digest, read = tensor.dtype, _digest(tensor), originals.reader(place)

    def failed(why: str) -> AttachError:
        message = f"Cannot restore {name} from the base's files"
        return AttachError(codes.MERGE_REREAD.finding(message, found=why))

    def restore() -> Tensor:
        try:
            found = read().to(dtype)
        except Exception as error:
            raise failed(f"{type(error).__name__}: {error}") from error
        if _digest(found) != digest:
            raise failed("other bytes than at the merge")
        return found

    restore()  # now, while the merge can still be refused: a sign of zero may differ, say
    return restore


def _digest(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().flatten()
    return hashlib.sha256(cast(Any, flat.view(torch.uint8).numpy())).digest()


@dataclass
class Merge:
    """The adapters that are merged into a base with their weights, and how to take them out.

    ``modules`` are those whose parameters changed.
    """

    terms: Terms
    base: nn.Module
    modules: frozenset[str]
    old: dict[str, Restore] = field(default_factory=dict)
    _new: dict[str, Tensor] = field(default_factory=dict)
    _groups: list[tuple[str, ...]] = field(default_factory=list)
    _tie: Untied | None = None

    @property
    def weights(self) -> Mapping[str, Weight]:
        return {adapter.name: weight for adapter, weight in self.terms}

    @classmethod
    def prepared(
        cls,
        base: nn.Module,
        modules: ModuleMap,
        terms: Terms,
        *,
        safe: bool,
        originals: Originals | None,
        where: Where = Where(),  # noqa: B008 - frozen
    ) -> Merge:
        """Compute the merge of ``terms`` into ``base`` without doing it.

        Old weights are kept in memory, or read again from ``originals``. ``safe`` refuses NaN and
        infinity. Raises :class:`AttachError` with every finding.
        """
        changes = folds(base, modules, terms, where)
        live = _tensors(base)
        problems = [
            p for one in changes.values() if (p := _unusable(base, one, live.get(one.name), where))
        ]
        if problems:
            raise AttachError(*problems)
        groups = untied_groups(base, changes, modules, where)
        made = cls(terms, base, frozenset(name.rpartition(".")[0] for name in changes))
        apart = {name for group in groups for name in group}
        done: set[int] = set()  # those that stay tied are one tensor
        try:
            for name, change in changes.items():
                if name not in apart and id(live[name]) in done:
                    continue
                done.add(id(live[name]))
                tensor = live[name]
                new = made._new[name] = change.of(tensor)
                if safe and not is_finite(new):
                    problems.append(codes.MERGE_NOT_FINITE.finding(name, where))
                data = tensor.data
                made.old[name] = (
                    _Kept(data) if originals is None else _from_files(originals, name, data)
                )
        except AdapterdockError:
            raise
        except Exception as error:
            raise merge_failed(error, where) from error
        if problems:
            raise AttachError(*problems)
        made._groups = groups
        return made

    def install(self) -> None:
        """Exchange the weights. After a failure midway, :meth:`as_it_is` puts them back."""
        self._tie = untie(self.base, self._groups, self._new)
        live = _tensors(self.base)
        for name, new in self._new.items():
            live[name].data = new
        self._new = {}
        for adapter, _ in self.terms:
            adapter.merged = True

    def take_out(self) -> None:
        """Give the base its old values and its ties back, in the dtype and on the device of now.

        Raises :class:`AttachError`, before anything is touched, for a tensor that cannot be read
        again. After a failure midway, :meth:`as_it_is` puts the merge back.
        """
        live = _tensors(self.base)
        values = {n: old().to(live[n].device, live[n].dtype) for n, old in self.old.items()}
        for name, value in values.items():
            live[name].data = value
        if self._tie is not None:
            self._tie()
        self.forget()

    def as_it_is(self) -> Callable[[], None]:
        """A function that gives the weights that this merge changes their values and ties of now,
        and this merge its state of now."""
        names = {*self.old, *self._new, *(name for group in self._groups for name in group)}
        live = _tensors(self.base)
        places = [
            (_holder(self.base, name), name.rpartition(".")[2], live[name], live[name].data)
            for name in sorted(names & live.keys())
        ]
        ties = ties_of(self.base)
        new, tie = self._new, self._tie

        def put_back() -> None:
            for holder, leaf, tensor, data in places:
                holder[leaf] = tensor
                tensor.data = data
            ties()
            self._new, self._tie = new, tie

        return put_back

    def copied(self, terms: Terms, memo: dict[int, Any]) -> Merge:
        """The same merge of ``terms`` in a copied base, whose modules and tensors are in ``memo``;
        weights that are read again are so for both."""
        old = {
            name: _Kept(one.tensor.clone()) if isinstance(one, _Kept) else one
            for name, one in self.old.items()
        }
        base, tie = memo[id(self.base)], copy.deepcopy(self._tie, memo)
        return Merge(terms, base, self.modules, old, {}, list(self._groups), tie)

    def forget(self) -> None:
        """Mark the adapters as not merged (or as merged for good, and gone)."""
        for adapter, _ in self.terms:
            adapter.merged = False


def merge_failed(error: Exception, where: Where) -> AttachError:
    message = f"Failed to merge: {type(error).__name__}: {error}"
    return AttachError(codes.MERGE_FAILED.finding(message, where))


def _holder(base: nn.Module, name: str) -> dict[str, Any]:
    """The dictionary that holds a parameter or buffer of the base."""
    path, _, leaf = name.rpartition(".")
    module = base.get_submodule(path)
    known = module._parameters  # pyright: ignore[reportPrivateUsage]
    return known if leaf in known else module._buffers  # pyright: ignore[reportPrivateUsage]


def _tensors(base: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by every live name."""
    found: dict[str, Tensor] = dict(base.named_parameters(remove_duplicate=False))
    return found | dict(base.named_buffers(remove_duplicate=False))


def _unusable(base: nn.Module, fold: Fold, tensor: Tensor | None, where: Where) -> Finding | None:
    """Why this tensor of the base cannot be exchanged."""
    name = fold.name
    path, _, leaf = name.rpartition(".")
    module = base.get_submodule(path)
    if tensor is None:
        what = f"a {type(module).__name__} has no plain {leaf}"
    elif tensor.is_meta:
        what = "it is offloaded: it is in memory only while it is used"
    elif type(tensor.data) is not Tensor or type(tensor) not in (nn.Parameter, Tensor):
        what = f"it is a {type(tensor).__name__}"
    elif tensor.is_floating_point() and tensor.dtype not in PLAIN:
        what = f"its dtype is {tensor.dtype}"
    elif (leaf == "weight" or fold.additions) and tensor.dtype not in PLAIN:
        what = f"it is quantised ({tensor.dtype})"
    else:
        return None
    return codes.MERGE_WEIGHT.finding(f"Cannot merge into {name}", where, found=what)

"""Adapters folded into a live base's weights, and taken out again bit for bit.

New weights are computed before anything is touched; then every tensor's data is exchanged, which
takes moments. Unmerging gives the old data back (FIELD.md 5): never a subtraction, which drifts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

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
from .untie import Untied, parted, ties_of, untied

Keep = Literal["memory", "reread"]


class Kept:
    """A tensor of the base as it was, in memory."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def tensor(self) -> Tensor:
        return self._tensor


class Reread:
    """A tensor of the base as it was, in a file: its digest says that it still is."""

    def __init__(self, originals: Originals, name: str, tensor: Tensor) -> None:
        self._originals = originals
        self._name = name
        self._dtype = tensor.dtype
        place = originals.place(name)
        if place is None:
            raise AttachError(
                codes.MERGE_REREAD.finding(f"{name} is no tensor of the base's files")
            )
        self._place = place
        self._digest = _digest(tensor)
        self.tensor()  # a sign of zero that differs, say, is noticed while it can be refused

    def tensor(self) -> Tensor:
        try:
            found = self._originals.read(self._place).to(self._dtype)
        except Exception as error:
            raise self._gone(f"{type(error).__name__}: {error}") from error
        if _digest(found) != self._digest:
            raise self._gone("other bytes than at the merge")
        return found

    def _gone(self, why: str) -> AttachError:
        return AttachError(
            codes.MERGE_REREAD.finding(
                f"{self._name} cannot be restored from the base's files", found=why
            )
        )


def _digest(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().flatten()
    return hashlib.sha256(cast(Any, flat.view(torch.uint8).numpy())).digest()


@dataclass
class Merge:
    """What is merged into a base: the adapters with their weights, and how to take them out.

    ``modules`` are those whose parameters changed.
    """

    terms: Terms
    base: nn.Module
    modules: frozenset[str]
    old: dict[str, Kept | Reread] = field(default_factory=dict)
    _new: dict[str, Tensor] = field(default_factory=dict)
    _groups: list[tuple[str, ...]] = field(default_factory=list)
    _untied: Untied | None = None

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
        """The merge of ``terms`` into ``base`` as it is now, computed and not yet done.

        Old weights are kept in memory, or read from ``originals`` again. ``safe`` refuses NaN and
        infinity. Raises :class:`AttachError` with every finding.
        """
        changes = folds(base, modules, terms, where)
        live = _tensors(base)
        problems = [
            p for one in changes.values() if (p := _unusable(base, one, live.get(one.name), where))
        ]
        if problems:
            raise AttachError(*problems)
        groups = untied(base, parted(changes, modules), modules, where)
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
                made.old[name] = Kept(data) if originals is None else Reread(originals, name, data)
        except AdapterdockError:
            raise
        except Exception as error:
            raise AttachError(
                codes.MERGE_FAILED.finding(
                    f"merging broke off: {type(error).__name__}: {error}", where
                )
            ) from error
        if problems:
            raise AttachError(*problems)
        made._groups = groups
        return made

    def install(self) -> None:
        """Exchange the weights. What goes wrong midway, :meth:`as_it_is` takes back."""
        untied = self._untied = Untied(self.base)
        untied.part(self._groups, self._new)
        live = _tensors(self.base)
        for name, new in self._new.items():
            live[name].data = new
        self._new = {}
        for adapter, _ in self.terms:
            adapter.merged = True

    def restored(self) -> dict[str, Tensor]:
        """The old values, where and in which dtype the tensors are by now. Nothing is touched.
        Raises :class:`AttachError` for what cannot be read again."""
        live = _tensors(self.base)
        return {n: o.tensor().to(live[n].device, live[n].dtype) for n, o in self.old.items()}

    def take_out(self, values: Mapping[str, Tensor]) -> None:
        """Give the base its values and its ties back. What goes wrong midway, :meth:`as_it_is`
        takes back."""
        live = _tensors(self.base)
        for name, value in values.items():
            live[name].data = value
        if self._untied is not None:
            self._untied.undo()
        self.forget()

    def as_it_is(self) -> Callable[[], None]:
        """How to give the weights that this merge changes what they have now, their ties, and this
        merge its own state."""
        names = {*self.old, *self._new, *(name for group in self._groups for name in group)}
        live = _tensors(self.base)
        places = [
            (_holder(self.base, name), name.rpartition(".")[2], live[name], live[name].data)
            for name in sorted(names & live.keys())
        ]
        tied = ties_of(self.base)
        new, untied = self._new, self._untied
        parted = None if untied is None else untied.as_it_is()

        def put_back() -> None:
            for holder, leaf, tensor, data in places:
                holder[leaf] = tensor
                tensor.data = data
            tied()
            self._new, self._untied = new, untied
            if parted is not None:
                parted()

        return put_back

    def forget(self) -> None:
        """The adapters are merged no more (or for good, and no adapters any longer)."""
        for adapter, _ in self.terms:
            adapter.merged = False


def _holder(base: nn.Module, name: str) -> dict[str, Any]:
    """The dictionary that a parameter or buffer of the base stands in."""
    path, _, leaf = name.rpartition(".")
    module = base.get_submodule(path)
    known = module._parameters  # pyright: ignore[reportPrivateUsage]
    return known if leaf in known else module._buffers  # pyright: ignore[reportPrivateUsage]


def _tensors(base: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by every live name."""
    found: dict[str, Tensor] = dict(base.named_parameters(remove_duplicate=False))
    return found | dict(base.named_buffers(remove_duplicate=False))


def _unusable(base: nn.Module, fold: Fold, tensor: Tensor | None, where: Where) -> Finding | None:
    """Why this tensor of the base cannot be exchanged for another."""
    name = fold.name
    path, _, leaf = name.rpartition(".")
    module = base.get_submodule(path)
    if tensor is None:
        what = f"a {type(module).__name__} has no plain {leaf}"
    elif tensor.is_meta:
        what = "it is offloaded, and not in memory between its uses"
    elif type(tensor.data) is not Tensor or type(tensor) not in (nn.Parameter, Tensor):
        what = f"it is a {type(tensor).__name__}"
    elif tensor.is_floating_point() and tensor.dtype not in PLAIN:
        what = f"its dtype is {tensor.dtype}"
    elif (leaf == "weight" or fold.additions) and tensor.dtype not in PLAIN:
        what = f"it is quantised ({tensor.dtype})"
    else:
        return None
    return codes.MERGE_WEIGHT.finding(f"{name} cannot be merged into", where, found=what)

"""Which modules see the rows of a batch, in order, in the first dimension of their input.

A matching size proves nothing: tokens, windows, positions or chunks may be as many as the rows. So
the base itself is run, once for each site, on three short rows, of which the last repeats the
first. A module whose input then has three rows, the last like the first, sees the rows of the
batch; any other does not.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterable, Mapping, Set
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from .probe import Probe
from .routing import Call, run_with
from .rows import RowLayout, Rows

_CACHES = frozenset({"past_key_values", "cache_params", "encoder_outputs", "cache_position"})
_Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def enter_rows(
    rows: Rows, owner: object, base: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> int:
    """How often each row is in a batch that the base (or its ``generate``) runs now; sites that are
    new in such a batch are probed first. Raises :class:`RoutingError` if the batch has another
    size than there are rows."""
    repeat = rows.repeat_of(args, kwargs)
    if not rows.gathered.probed:
        sites = {name for terms in rows.terms for adapter, _ in terms for name in adapter.modules}
        length = repeat * len(rows.terms)
        rows.gathered.probed = probe_sites(
            rows.cache.layout, owner, base, sites, args, kwargs, length
        )
    return repeat


def probe_sites(
    layout: RowLayout,
    owner: object,
    base: nn.Module,
    sites: Set[str],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    length: int,
) -> bool:
    """Probe the ``sites`` that are not known yet, with inputs made here and then with parts of the
    call's (a batch of ``length`` rows). Returns whether all of them are known now."""
    unknown = sites - layout.known.keys()
    if not unknown:
        return True
    takes = _takes(base)
    for key, make in (
        (frozenset({"made"}), lambda: _made(base, takes)),
        (_key(args, kwargs), lambda: _cut(base, takes, args, kwargs, length)),
    ):
        tried = layout.tried.setdefault(key, set())
        if unknown - tried and (inputs := make()) is not None:
            probe = Probe()
            error = _run(base, Call(owner, (), probe=probe), inputs)
            if error is None:  # what a site saw until an error is not enough
                layout.known |= probe.seen
                unknown -= layout.known.keys()
            else:
                layout.error = f"{type(error).__name__}: {error}".partition("\n")[0]
        tried |= unknown
    return not unknown


def run_alone(base: nn.Module, call: Call) -> bool:
    """Run the base within ``call`` on short rows of tokens made here; whether it ran to the end."""
    inputs = _made(base, _takes(base))
    if inputs is None:
        return False
    args, kwargs = inputs
    if all(parameter.is_meta for parameter in base.parameters()):
        kwargs = {name: value.to("meta") for name, value in kwargs.items()}
    return _run(base, call, (args, kwargs)) is None


def _run(base: nn.Module, call: Call, inputs: _Inputs) -> Exception | None:
    """Run the base within ``call``; the error if it needs other inputs, or values that are on
    ``meta``."""
    args, kwargs = inputs
    with torch.no_grad(), _in_eval(base):
        try:
            run_with(call, base, args, kwargs)
        except Exception as error:
            return error
    return None


def _made(base: nn.Module, takes: Callable[[str], bool]) -> _Inputs | None:
    """Short rows of tokens, for a model of text."""
    embeddings = getattr(base, "get_input_embeddings", None)
    if embeddings is None or getattr(type(base), "main_input_name", "input_ids") != "input_ids":
        return None
    try:
        count = cast(nn.Embedding, embeddings()).num_embeddings
    except (AttributeError, NotImplementedError):
        return None
    device = next((p.device for p in base.parameters() if not p.is_meta), torch.device("cpu"))
    made = {"input_ids": _tokens(count, 5, device)}
    if takes("attention_mask"):
        made["attention_mask"] = torch.ones_like(made["input_ids"])
    if takes("decoder_input_ids"):
        made["decoder_input_ids"] = _tokens(count, 4, device)
    return (), made


def _cut(
    base: nn.Module,
    takes: Callable[[str], bool],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    length: int,
) -> _Inputs | None:
    """The first row of the call's inputs, the last, and the first again; no caches."""
    named = {
        name: _rows_of(value, length)
        for name, value in kwargs.items()
        if takes(name) and name not in _CACHES and value is not None
    }
    unnamed = tuple(_rows_of(value, length) for value in args)
    tensors = [t for t in (*unnamed, *named.values()) if isinstance(t, torch.Tensor)]
    if not tensors:
        return None
    of_decoder = {"decoder_input_ids", "decoder_inputs_embeds", "labels"} & named.keys()
    count = getattr(getattr(base, "config", None), "vocab_size", None)
    if takes("decoder_input_ids") and not of_decoder and isinstance(count, int):
        named["decoder_input_ids"] = _tokens(count, 4, tensors[0].device)
    return unnamed, named


def _rows_of(value: Any, length: int) -> Any:
    if isinstance(value, torch.Tensor) and value.dim() and len(value) == length:
        return value[[0, length - 1, 0]]
    return value


def _tokens(count: int, length: int, device: torch.device) -> torch.Tensor:
    """(3, length) ids from the middle of the vocabulary, which has no special ones."""
    first = (torch.arange(length) + count // 2) % count
    other = (torch.arange(length) * 2 + count // 3) % count
    return torch.stack([first, other, first]).to(device)


def _takes(base: nn.Module) -> Callable[[str], bool]:
    """Whether the base's forward has a parameter of this name."""
    try:
        parameters = inspect.signature(base.forward).parameters
    except (TypeError, ValueError):
        return lambda name: False
    return lambda name: name in parameters


def _key(args: Iterable[Any], kwargs: Mapping[str, Any]) -> frozenset[str]:
    tensors = {name for name, value in kwargs.items() if isinstance(value, torch.Tensor)}
    return frozenset({f"argument {n}" for n, _ in enumerate(args)} | tensors)


@contextmanager
def _in_eval(base: nn.Module) -> Generator[None, None, None]:
    """Without dropout, which would make equal rows differ, and without running statistics."""
    training = [module for module in base.modules() if module.training] if base.training else []
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True

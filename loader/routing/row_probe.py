"""Which modules see the rows of a batch, one after another, in the first dimension of their input.

A size that fits proves nothing: as many tokens as rows, windows, positions or chunks fit as well.
So the base itself is asked, once for each site: it runs alone on three short rows, of which the
last repeats the first. A module that is given three rows then, the last like the first, sees the
rows of the batch; one that is given anything else does not.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from .probe import Probe
from .routing import Call, run_with

_CACHES = frozenset({"past_key_values", "cache_params", "encoder_outputs", "cache_position"})
_Given = tuple[tuple[Any, ...], dict[str, Any]]


class RowLayout:
    """What is known of the sites of one model."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}
        self._asked: dict[frozenset[str], set[str]] = {}
        self._error = ""

    def ask(
        self,
        owner: object,
        base: nn.Module,
        sites: Collection[str],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        length: int,
    ) -> bool:
        """Learn about ``sites`` what is not known yet, with inputs made here and then with parts of
        those given (a batch of ``length`` rows). Returns whether all of them are known now."""
        open_sites = {name for name in sites if name not in self._known}
        if not open_sites:
            return True
        takes = _takes(base)
        for key, make in (
            (frozenset({"made"}), lambda: _made(base, takes)),
            (_key(args, kwargs), lambda: _cut(base, takes, args, kwargs, length)),
        ):
            asked = self._asked.setdefault(key, set())
            if open_sites - asked and (given := make()) is not None:
                self._known |= self._run(owner, base, given)
                open_sites -= self._known.keys()
            asked |= open_sites
        return not open_sites

    def doubt(self, name: str) -> str | None:
        """Why it is not known that the module sees the rows; ``None`` where it does."""
        known = self._known.get(name)
        if known:
            return None
        if known is None:
            error = f" ({self._error})" if self._error else ""
            return f"the base alone could not be asked what it sees{error}"
        return "what it sees are not the rows of the batch, whatever their number"

    def _run(self, owner: object, base: nn.Module, given: _Given) -> dict[str, bool]:
        probe = Probe()
        call = Call(owner, (), probe=probe)
        args, kwargs = given
        with torch.no_grad(), _in_eval(base):
            try:
                run_with(call, base, args, kwargs)
            except Exception as error:  # whatever it is: what it saw until then is not enough
                self._error = f"{type(error).__name__}: {error}".partition("\n")[0]
                return {}
        return probe.seen


def run_alone(base: nn.Module, call: Call) -> bool:
    """Run the base on short rows of tokens that are made here, within ``call``; whether it ran
    to the end."""
    given = _made(base, _takes(base))
    if given is None:
        return False
    args, kwargs = given
    if all(parameter.is_meta for parameter in base.parameters()):
        kwargs = {name: value.to("meta") for name, value in kwargs.items()}
    with torch.no_grad(), _in_eval(base):
        try:
            run_with(call, base, args, kwargs)
        except Exception:  # it needs other inputs, or values where there are none
            return False
    return True


def _made(base: nn.Module, takes: Callable[[str], bool]) -> _Given | None:
    """Short rows of tokens, for a model of text."""
    embeddings = getattr(base, "get_input_embeddings", None)
    if embeddings is None or getattr(type(base), "main_input_name", "input_ids") != "input_ids":
        return None
    try:
        count = cast(nn.Embedding, embeddings()).num_embeddings
    except (AttributeError, NotImplementedError):
        return None
    device = next((p.device for p in base.parameters() if not p.is_meta), torch.device("cpu"))
    given = {"input_ids": _tokens(count, 5, device)}
    if takes("attention_mask"):
        given["attention_mask"] = torch.ones_like(given["input_ids"])
    if takes("decoder_input_ids"):
        given["decoder_input_ids"] = _tokens(count, 4, device)
    return (), given


def _cut(
    base: nn.Module,
    takes: Callable[[str], bool],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    length: int,
) -> _Given | None:
    """The first row of what was given, the last, and the first again; no caches."""
    named = {
        name: _rows_of(value, length)
        for name, value in kwargs.items()
        if takes(name) and name not in _CACHES and value is not None
    }
    unnamed = tuple(_rows_of(value, length) for value in args)
    tensors = [t for t in (*unnamed, *named.values()) if isinstance(t, torch.Tensor)]
    if not tensors:
        return None
    given_to_decoder = {"decoder_input_ids", "decoder_inputs_embeds", "labels"} & named.keys()
    config = getattr(base, "config", None)
    if takes("decoder_input_ids") and not given_to_decoder and config is not None:
        count = getattr(config, "vocab_size", None)
        if isinstance(count, int):
            named["decoder_input_ids"] = _tokens(count, 4, tensors[0].device)
    return unnamed, named


def _rows_of(value: Any, length: int) -> Any:
    if isinstance(value, torch.Tensor) and value.dim() and len(value) == length:
        return value[[0, length - 1, 0]]
    return value


def _tokens(count: int, length: int, device: torch.device) -> torch.Tensor:
    """(3, length) ids from the middle of the vocabulary, where no special ones are."""
    first = (torch.arange(length) + count // 2) % count
    other = (torch.arange(length) * 2 + count // 3) % count
    return torch.stack([first, other, first]).to(device)


def _takes(base: nn.Module) -> Callable[[str], bool]:
    """Whether the base's forward takes an argument of this name, by its own name or any."""
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
    """No dropout, which would make equal rows differ, and no running statistics."""
    training = [module for module in base.modules() if module.training] if base.training else []
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True

"""aLoRA: from which token of each row an adapter acts (https://arxiv.org/abs/2512.04492).

It acts from the last occurrence of its invocation tokens in a row on, and nowhere in a row without
them. The tokens before it are the base's, so the base's key-value cache of them may be used.
Source: PEFT 0.21.2, ``tuners/lora/variants.py``, which counts from the end of the input; here the
position is counted from the start, so that it does not change when tokens are added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch

from ...manifests.findings import fit as codes
from ...manifests.findings.errors import RoutingError
from ..adapter.adapter import Terms
from .cache_length import CACHES, cache_length

Tokens = tuple[int, ...]

NOWHERE = 1 << 62
"""The position in a row without invocation."""
_STARTS = "_adapterdock_activated_from"


@dataclass(frozen=True, eq=False)
class Activation:
    """For each invocation the position (rows,) from which it is active, and the tokens of this
    forward: ``length`` of them after ``past`` ones in its cache."""

    starts: Mapping[Tokens, torch.Tensor] = field(default_factory=dict)
    past: int = 0
    length: int = 0

    def mask(self, tokens: Tokens, out: torch.Tensor, module: str) -> torch.Tensor:
        """Which of a module's outputs (rows, tokens, ..) the adapter changes: (rows, tokens, 1).
        Raises :class:`RoutingError` if they are not those of this forward's tokens."""
        starts = self.starts[tokens]
        rows = len(starts)
        if out.dim() != 3 or out.shape[1] != self.length or out.shape[0] % rows:
            raise _unknown(
                f"A {module} returns {tuple(out.shape)} for {rows} rows of {self.length} tokens"
            )
        starts = starts.repeat_interleave(out.shape[0] // rows).to(out.device)
        at = torch.arange(self.past, self.past + self.length, device=out.device)
        return (at >= starts.unsqueeze(1)).unsqueeze(2)


def invocations(terms: Terms) -> list[Tokens]:
    """Those of the call's adapters, each once. Raises :class:`RoutingError` together with virtual
    tokens, which move all others."""
    found = dict.fromkeys(a.invocation for a, _ in terms if a.invocation is not None)
    if found and any(a.resident.prompt is not None for a, _ in terms):
        raise _unknown("An aLoRA cannot be combined with virtual tokens")
    return list(found)


def of_prompt(terms: Terms, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Activation | None:
    """From where the adapters of a ``generate`` act; ``None`` if all act everywhere."""
    if not (wanted := invocations(terms)):
        return None
    ids = _ids(args, kwargs, "inputs")
    return Activation({tokens: _found(tokens, ids) for tokens in wanted})


def of_forward(
    terms: Terms, known: Activation | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Activation | None:
    """The same for one forward: by what is ``known`` of its ``generate``, by what its cache
    remembers, or by its own tokens. Raises :class:`RoutingError` if it has no tokens."""
    if not (wanted := invocations(terms)):
        return None
    cache = next((c for n in CACHES if (c := kwargs.get(n)) is not None), None)
    past = cache_length(cache)
    ids = _ids(args, kwargs)
    remembered: Mapping[Tokens, torch.Tensor] = getattr(cache, _STARTS, {}) if past else {}
    starts: dict[Tokens, torch.Tensor] = {}
    for tokens in wanted:
        if known is not None and tokens in known.starts:
            starts[tokens] = known.starts[tokens]
            continue
        here = _found(tokens, ids, past)
        before = remembered.get(tokens)
        if before is not None and len(ids) % len(before) == 0:
            before = before.repeat_interleave(len(ids) // len(before)).to(here.device)
            here = torch.where(here == NOWHERE, before, here)
        starts[tokens] = here
    return Activation(starts, past, ids.shape[1])


def remember(activation: Activation, cache: Any) -> None:
    """Mark a cache that a forward filled with the positions from which its adapters acted."""
    cache.__dict__[_STARTS] = activation.starts


def check_shared(activation: Activation, module: str) -> None:
    """Raise :class:`RoutingError` if a cache of the base has tokens at which the adapter acts."""
    for starts in activation.starts.values():
        if bool((starts < activation.past).any()):
            first = int(starts.min())
            raise _unknown(
                f"The base alone filled this {module} of {activation.past} tokens, and the adapter "
                f"acts from token {first} on",
                "Crop the cache to the tokens before the invocation.",
            )


def _found(tokens: Tokens, ids: torch.Tensor, past: int = 0) -> torch.Tensor:
    """The position of the last occurrence in each row of ``ids`` (rows, length): (rows,)."""
    if ids.shape[1] < len(tokens):
        return torch.full((len(ids),), NOWHERE, device=ids.device)
    windows = ids.unfold(1, len(tokens), 1)  # (rows, places, tokens)
    fits = (windows == torch.tensor(tokens, device=ids.device)).all(-1)
    at = torch.arange(past, past + fits.shape[1], device=ids.device)
    last = torch.where(fits, at, -1).amax(1)
    return torch.where(last < 0, NOWHERE, last)


def _ids(args: tuple[Any, ...], kwargs: Mapping[str, Any], other: str = "") -> torch.Tensor:
    """The tokens (rows, length) of a call."""
    ids = kwargs.get("input_ids")
    if ids is None and other:
        ids = kwargs.get(other)
    if ids is None and args:
        ids = args[0]
    tokens = isinstance(ids, torch.Tensor) and not ids.is_floating_point() and ids.dim() == 2
    if tokens and kwargs.get("inputs_embeds") is None:
        return cast(torch.Tensor, ids)
    raise _unknown("The call has no input_ids of two dimensions, or has inputs_embeds as well")


def _unknown(message: str, hint: str | None = None) -> RoutingError:
    return RoutingError(codes.ACTIVATION_UNKNOWN.finding(message, hint=hint))

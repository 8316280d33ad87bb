"""aLoRA: from which token of each row an adapter acts (https://arxiv.org/abs/2512.04492).

It acts from the last occurrence of its invocation tokens in a row on, and nowhere in a row without
them. What comes before is the base's own, so the base's key-value cache of it may be used. Source:
PEFT 0.21.2, ``tuners/lora/variants.py``, which counts from the end of the input; here the place is
counted from its beginning, so that it stays where it is when tokens are added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch

from ...manifests.findings import fit as codes
from ...manifests.findings.errors import RoutingError
from .cache_length import CACHES, cache_length

if TYPE_CHECKING:
    from .batched import Terms

Tokens = tuple[int, ...]

NOWHERE = 1 << 62
"""Where a row begins that has no invocation."""
_STARTS = "_adapterdock_activated_from"


@dataclass(frozen=True, eq=False)
class Activation:
    """For each invocation the position (rows,) from which on it is active, and what this forward
    sees: ``length`` tokens after ``past`` ones that are in its cache."""

    starts: Mapping[Tokens, torch.Tensor] = field(default_factory=dict)
    past: int = 0
    length: int = 0

    def mask(self, tokens: Tokens, out: torch.Tensor, module: str) -> torch.Tensor:
        """Which of a module's outputs (rows, tokens, ..) are changed: (rows, tokens, 1). Raises
        :class:`RoutingError` where they are not those of this forward's tokens."""
        starts = self.starts[tokens]
        rows = len(starts)
        if out.dim() != 3 or out.shape[1] != self.length or out.shape[0] % rows:
            raise _unknown(
                f"a {module} answers {tuple(out.shape)} to {rows} rows of {self.length} tokens"
            )
        starts = starts.repeat_interleave(out.shape[0] // rows).to(out.device)
        at = torch.arange(self.past, self.past + self.length, device=out.device)
        return (at >= starts.unsqueeze(1)).unsqueeze(2)


def invocations(terms: Terms) -> list[Tokens]:
    """Those of the call's adapters, each once. Raises :class:`RoutingError` beside virtual tokens,
    which move all others."""
    found = dict.fromkeys(a.invocation for a, _ in terms if a.invocation is not None)
    if found and any(a.resident.prompt is not None for a, _ in terms):
        raise _unknown("an aLoRA cannot be combined with virtual tokens")
    return list(found)


def of_prompt(terms: Terms, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Activation | None:
    """Where the adapters of a ``generate`` begin; ``None`` where all act everywhere."""
    if not (wanted := invocations(terms)):
        return None
    ids = _ids(args, kwargs, "inputs")
    return Activation({tokens: _found(tokens, ids) for tokens in wanted})


def of_forward(
    terms: Terms, known: Activation | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Activation | None:
    """The same for one forward: by what is ``known`` of the whole, by what its cache remembers, by
    its own tokens. Raises :class:`RoutingError` where there are no tokens to look at."""
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
    """Note on a cache that a forward filled where its adapters began."""
    cache.__dict__[_STARTS] = activation.starts


def check_shared(activation: Activation, module: str) -> None:
    """Raise :class:`RoutingError` where a cache of the base reaches beyond an invocation: there the
    adapter should have acted."""
    for starts in activation.starts.values():
        if bool((starts < activation.past).any()):
            first = int(starts.min())
            raise _unknown(
                f"a {module} of {activation.past} tokens was made by the base alone, and the "
                f"adapter acts from token {first} on",
                "Crop the cache to the tokens before the invocation.",
            )


def _found(tokens: Tokens, ids: torch.Tensor, past: int = 0) -> torch.Tensor:
    """Where the last occurrence begins in each row of ``ids`` (rows, length): (rows,)."""
    if ids.shape[1] < len(tokens):
        return torch.full((len(ids),), NOWHERE, device=ids.device)
    windows = ids.unfold(1, len(tokens), 1)  # (rows, places, tokens)
    fits = (windows == torch.tensor(tokens, device=ids.device)).all(-1)
    at = torch.arange(past, past + fits.shape[1], device=ids.device)
    last = torch.where(fits, at, -1).amax(1)
    return torch.where(last < 0, NOWHERE, last)


def _ids(args: tuple[Any, ...], kwargs: Mapping[str, Any], other: str = "") -> torch.Tensor:
    """The tokens (rows, length) that a call is given."""
    given = kwargs.get("input_ids")
    if given is None and other:
        given = kwargs.get(other)
    if given is None and args:
        given = args[0]
    tokens = isinstance(given, torch.Tensor) and not given.is_floating_point() and given.dim() == 2
    if tokens and kwargs.get("inputs_embeds") is None:
        return cast(torch.Tensor, given)
    raise _unknown("the call has no input_ids of two dimensions, or inputs_embeds beside them")


def _unknown(message: str, hint: str | None = None) -> RoutingError:
    return RoutingError(codes.ACTIVATION_UNKNOWN.finding(message, hint=hint))
